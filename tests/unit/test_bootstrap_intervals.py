"""Confidence intervals by bootstrap over identities."""

from __future__ import annotations

import numpy as np
import pytest

from tipr.evaluation import bootstrap, bootstrap_intervals, identity_bootstrap


def slow_bootstrap(values, identity, draws: int, seed: int) -> tuple[float, float]:
    """One draw at a time, one person at a time."""
    people = sorted(set(identity.tolist()))
    random = np.random.default_rng(seed)
    means = []
    for _ in range(draws):
        drawn = [people[i] for i in random.integers(0, len(people), len(people))]
        pooled = np.concatenate([values[identity == person] for person in drawn])
        means.append(pooled.mean())
    low, high = np.quantile(means, [0.025, 0.975])
    return float(low), float(high)


def test_agrees_with_a_slow_version_draw_by_draw() -> None:
    random = np.random.default_rng(0)
    identity = random.integers(0, 25, 130)
    values = random.random(130)
    fast = identity_bootstrap(values, identity, draws=300, seed=11)
    assert fast == pytest.approx(slow_bootstrap(values, identity, 300, 11), abs=1e-12)


def test_the_number_of_people_drawn_at_a_time_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    random = np.random.default_rng(1)
    values, identity = random.random(90), random.integers(0, 30, 90)
    whole = identity_bootstrap(values, identity, draws=101, seed=3)
    monkeypatch.setattr(bootstrap, "CELLS", 70)
    assert identity_bootstrap(values, identity, draws=101, seed=3) == pytest.approx(whole, abs=1e-12)


def test_captions_of_one_person_do_not_narrow_the_interval() -> None:
    # 40 people, all 50 captions of a person alike: no more is known than from one caption each
    of_person = np.random.default_rng(2).random(40)
    once = identity_bootstrap(of_person, np.arange(40), seed=5)
    often = identity_bootstrap(np.repeat(of_person, 50), np.repeat(np.arange(40), 50), seed=5)
    assert often == pytest.approx(once, abs=1e-12)
    independent = identity_bootstrap(np.repeat(of_person, 50), np.arange(2000), seed=5)
    assert independent[1] - independent[0] < 0.3 * (often[1] - often[0])


def test_covers_the_true_mean_about_as_often_as_it_says() -> None:
    random = np.random.default_rng(7)
    covered = 0
    for trial in range(200):
        easy = random.random(60)
        values = (random.random((60, 4)) < easy[:, None]).astype(float).ravel()
        low, high = identity_bootstrap(values, np.repeat(np.arange(60), 4), draws=300, seed=trial)
        covered += low <= 0.5 <= high
    assert 0.88 <= covered / 200 <= 0.99


def test_same_seed_same_interval_and_another_seed_another() -> None:
    values, identity = np.random.default_rng(3).random(60), np.arange(60) % 20
    first = identity_bootstrap(values, identity, seed=1)
    assert first == identity_bootstrap(values, identity, seed=1)
    assert first != identity_bootstrap(values, identity, seed=2)
    assert first[0] < values.mean() < first[1]


def test_one_person_gives_the_mean_twice() -> None:
    assert identity_bootstrap(np.array([0.0, 1.0]), np.array([4, 4]), seed=0) == (0.5, 0.5)


def test_mean_of_groups_draws_the_same_people_for_all() -> None:
    # two languages that always err in opposite ways: their mean does not vary at all
    values, identity = np.random.default_rng(4).random((50, 1)), np.arange(50)
    interval = bootstrap_intervals([(values, identity), (1.0 - values, identity)], seed=0)
    assert interval == pytest.approx(np.array([[0.5, 0.5]]))


def test_groups_may_show_different_people() -> None:
    values = np.array([[0.2], [0.4]])
    interval = bootstrap_intervals([(values, np.array([1, 2])), (values, np.array([2, 3]))], draws=200, seed=0)
    assert interval.shape == (1, 2)
    assert np.isfinite(interval).all()


@pytest.mark.parametrize(
    ("values", "identity", "options", "message"),
    [
        (np.zeros((2, 2)), [1, 2], {}, r"expected \(queries,\)"),
        (np.zeros(2), [1], {}, r"identity \(1,\)"),
        (np.zeros(0), [], {}, "Q >= 1"),
        (np.array([0.1, np.nan]), [1, 2], {}, "NaN"),
        (np.zeros(2), [1, 2], {"draws": 0}, "draws is 0"),
        (np.zeros(2), [1, 2], {"level": 1.0}, "level 1.0"),
    ],
)
def test_illegal_input_is_named(values, identity, options, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        identity_bootstrap(values, np.array(identity, dtype=int), seed=0, **options)


def test_no_group_is_an_error() -> None:
    with pytest.raises(ValueError, match="no group"):
        bootstrap_intervals([], seed=0)
