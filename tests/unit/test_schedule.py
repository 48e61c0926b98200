"""The learning-rate schedule: the worked values of irra.md 7."""

import itertools
import json
from pathlib import Path

import pytest

from tipr.training.optim import rate_factor
from tipr.training.run_config import Schedule

PUBLISHED = Schedule()
GOLDEN = json.loads((Path(__file__).parents[1] / "data" / "golden_bi_irra" / "expected.json").read_text())["schedule"]


@pytest.mark.parametrize(
    ("epoch", "factor"),
    [
        (1, 0.1),
        (2, 0.28),
        (3, 0.46),
        (4, 0.64),
        (5, 0.82),
        (6, 1.0),
        (7, 0.999185),
        (30, 0.599295),
        (59, 0.003259),
        (60, 0.000815),
    ],
)
def test_published_factors(epoch, factor):
    assert rate_factor(PUBLISHED, done=epoch - 1, total=60) == pytest.approx(factor, abs=5e-7)


def test_final_and_start_factors():
    schedule = Schedule(warmup=4, warmup_start=0.0, final=0.2, unit="step")
    factors = [rate_factor(schedule, done=step, total=14) for step in range(15)]
    assert factors[:5] == [0.0, 0.25, 0.5, 0.75, 1.0]
    assert factors[9] == pytest.approx(0.6)  # half way
    assert factors[14] == pytest.approx(0.2)
    assert all(later < earlier for earlier, later in itertools.pairwise(factors[4:]))


def test_constant_after_warmup():
    schedule = Schedule(kind="constant", warmup=2)
    assert [rate_factor(schedule, done=epoch, total=9) for epoch in range(4)] == [0.1, 0.55, 1.0, 1.0]


@pytest.mark.parametrize("total", [1, 3, 5])
def test_a_run_that_is_all_warmup_never_divides_by_zero(total):
    assert [rate_factor(PUBLISHED, done=epoch, total=total) for epoch in range(3)] == pytest.approx([0.1, 0.28, 0.46])
    assert rate_factor(Schedule(warmup=0), done=0, total=total) == 1.0


def test_bi_irra_has_the_rates_of_the_published_code():
    """The warm-up ends at the peak, which comes twice; the last rate stays above the final one."""
    peak, epochs, each = GOLDEN["lr"], GOLDEN["epochs"], GOLDEN["iterations_per_epoch"]
    schedule = Schedule(
        unit="step",
        warmup_epochs=GOLDEN["warmup_epochs"],
        warmup_inclusive=True,
        warmup_start=GOLDEN["lr_start"] / peak,
        final=GOLDEN["lr_end"] / peak,
    )
    warmup = GOLDEN["warmup_epochs"] * each
    rates = [
        peak * rate_factor(schedule, done=step, total=epochs * each, warmup=warmup) for step in range(epochs * each)
    ]
    assert rates == pytest.approx(GOLDEN["values"], rel=1e-12)
    assert rates[warmup - 1] == rates[warmup] == peak


@pytest.mark.parametrize(("warmup", "factors"), [(1, [0.1, 1.0]), (2, [0.1, 1.0, 1.0]), (0, [1.0])])
def test_a_short_inclusive_warmup_never_divides_by_zero(warmup, factors):
    schedule = Schedule(kind="constant", warmup_inclusive=True, warmup=warmup)
    assert [rate_factor(schedule, done=step, total=9) for step in range(warmup + 1)] == factors
