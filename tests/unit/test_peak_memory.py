"""Peak memory that is foretold, beside what runs really took."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from tipr.config import load, parse
from tipr.training import RunConfig
from tipr.training.blueprint import Scale, build_method, one_step, published_scale, stand_in_batch
from tipr.training.optim import build_optimizer, parameter_groups
from tipr.training.peak_memory import STATES, plan_memory

ROOT = Path(__file__).resolve().parents[2]
RECORD = json.loads((ROOT / "benchmarks" / "results" / "peak_memory.json").read_text(encoding="utf-8"))
TOLERANCE = 0.25
SCALE = Scale(pairs=400, images=200, identities=50)


def config_of(*changes: str, file: str = "irra/synthetic.yaml") -> RunConfig:
    return load(ROOT / "configs" / file, RunConfig, overrides=["device=cpu", *changes])


def small_clip(**changes: Any) -> RunConfig:
    tree: dict[str, Any] = {
        "out": "run",
        "method": {"name": "irra", "depth": 1},
        "encoder": {
            "name": "clip",
            "image_size": (128, 64),
            "patch_size": 8,
            "vision_width": 128,
            "vision_layers": 3,
            "text_width": 128,
            "text_layers": 3,
            "embed_dim": 128,
            "max_tokens": 64,
            "text_pooling": "last_token",
        },
        "tokenizer": {"kind": "subword", "vocabulary_size": 2000},
        "data": {"dataset": "synthetic", "root": "data", "batch_size": 48},
        "selection": {"split": "last"},
        "epochs": 5,
        "device": "cpu",
    }
    return parse({**tree, **changes}, RunConfig, source="test")


@pytest.fixture
def without_rehearsal(monkeypatch: pytest.MonkeyPatch) -> None:
    """For tests of what is counted, not run."""
    monkeypatch.setattr("tipr.training.peak_memory._rehearse", lambda *_, **__: 1000)


def test_three_real_runs_were_foretold() -> None:
    assert len(RECORD["cases"]) >= 3
    for row in RECORD["cases"]:
        config = config_of(*row["changes"], file=row["config"])
        plan = plan_memory(config, Scale(**row["scale"]))
        assert plan.main == pytest.approx(row["measured_bytes"], rel=TOLERANCE), row["case"]
        assert plan.step > 0.1 * plan.main, "a case that its program fills proves nothing"


ONE_STEP = """
import sys, torch
sys.path[:0] = [{benchmarks!r}]
from peak_memory import held
from tipr.config import parse
from tipr.training import RunConfig
from tipr.training.blueprint import Scale, build_method, one_step, stand_in_batch
from tipr.training.optim import build_optimizer, parameter_groups
torch.set_num_threads(1)
config = parse({tree!r}, RunConfig, source="test")
method = build_method(config, Scale(pairs=400, images=200, identities=50))
groups = parameter_groups(method.named_parameters(), method.learning_rate_factor, lr=1e-3, weight_decay=0.0)
optimizer = build_optimizer(groups, config.optimizer, device=torch.device("cpu"))
batch = stand_in_batch(config, method, rows=config.data.batch_size)
before = held("VmRSS")
one_step(config, method, optimizer, batch)
print(held("VmHWM") - before)
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs Linux's account of memory")
def test_a_step_takes_what_was_foretold() -> None:
    config = small_clip()
    script = ONE_STEP.format(benchmarks=str(ROOT / "benchmarks"), tree=config.model_dump(mode="json"))
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    measured = int(done.stdout)
    plan = plan_memory(config, SCALE)
    assert measured > 200 * 2**20
    assert plan.step + plan.optimizer == pytest.approx(measured, rel=TOLERANCE)


@pytest.mark.usefixtures("without_rehearsal")
def test_what_stays_is_counted_exactly() -> None:
    config = config_of("ema=0.9", "precision=32")
    plan = plan_memory(config, SCALE)
    method = build_method(config, SCALE)
    weights = sum(parameter.nbytes for parameter in method.parameters())
    assert plan.weights == weights
    assert plan.average == 2 * sum(parameter.nbytes for parameter in method.encoder.parameters())
    assert plan.images == 200 * 3 * 192 * 64
    groups = parameter_groups(method.named_parameters(), method.learning_rate_factor, lr=1e-3, weight_decay=0.0)
    optimizer = build_optimizer(groups, config.optimizer, device=torch.device("cpu"))
    one_step(config, method, optimizer, stand_in_batch(config, method, rows=2))
    state = sum(entry[name].nbytes for entry in optimizer.state.values() for name in ("exp_avg", "exp_avg_sq"))
    unused = sum(parameter.nbytes for parameter in method.parameters() if parameter not in optimizer.state)
    assert plan.optimizer == state + 2 * unused  # a parameter that no term uses gets no state
    assert set(STATES) == {"adam", "adamw", "sgd"}


@pytest.mark.usefixtures("without_rehearsal")
def test_banks_are_counted() -> None:
    config = config_of(file="dual_granularity/synthetic.yaml")
    plan = plan_memory(config, SCALE)
    assert plan.banks >= 2 * 2 * SCALE.pairs * 256 * 4


def test_memory_grows_with_the_batch_and_shrinks_with_parts() -> None:
    sizes = (["data.batch_size=64"], ["data.batch_size=16"], ["data.batch_size=64", "data.micro_batch=16"])
    large, small, parts = (plan_memory(config_of(*each, "data.captions_per_image=1"), SCALE) for each in sizes)
    assert max(small.step, parts.step) < 0.5 * large.step
    assert small.weights == parts.weights == large.weights


@pytest.mark.usefixtures("without_rehearsal")
def test_an_accelerator_holds_the_model_and_main_memory_the_images() -> None:
    here, there = (plan_memory(small_clip(), SCALE, device=device) for device in ("cpu", "cuda"))
    assert here.on_device == 0
    assert there.on_device == there.weights + there.optimizer + there.banks + there.average + there.step
    assert there.main == there.program + there.images + there.batches
    assert there.images == here.images > 0


@pytest.mark.usefixtures("without_rehearsal")
def test_images_that_do_not_fit_or_are_packed_are_not_in_memory() -> None:
    assert plan_memory(config_of("data.memory_gib=0"), SCALE).images == 0
    assert plan_memory(config_of("data.pack=packs/people"), SCALE).images == 0


@pytest.mark.parametrize(
    ("file", "expected"),
    [
        ("irra/cuhk_pedes.yaml", Scale(68_126, 34_054, 11_003, 3_078)),
        ("bi_irra/cuhk_pedes_m.yaml", Scale(68_126, 34_054, 11_003)),
        ("bi_irra/synthetic.yaml", Scale(16_000, 8_000, 2_000)),
        ("irra/synthetic.yaml", Scale(64_000, 8_000, 2_000)),
        ("irra/demo.yaml", None),
    ],
)
def test_official_sizes(file: str, expected: Scale | None) -> None:
    assert published_scale(config_of(file=file)) == expected
