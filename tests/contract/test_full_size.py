"""Every committed configuration at full size: built on the meta device against committed figures, run with one layer.

The figures are made anew by `python tests/contract/test_full_size.py`; read the difference before committing it.
"""

from __future__ import annotations

import fcntl
import json
import re
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from tipr.config import load
from tipr.methods import METHODS, Method
from tipr.training import RunConfig
from tipr.training.blueprint import Scale, build_method, one_step, published_scale, stand_in_batch, with_one_layer
from tipr.training.optim import parameter_groups

ROOT = Path(__file__).resolve().parents[2]
CONFIGS = ROOT / "configs"
FIGURES = ROOT / "tests" / "data" / "full_size.json"
FILES = sorted(set(CONFIGS.rglob("*.yaml")) - set(CONFIGS.rglob("ablation*.yaml")))
LARGE = [path for path in FILES if "name: compact" not in path.read_text(encoding="utf-8")]
"""The compact text tower must know how many tokens are real; it runs with its method, on real tensors."""
SMALL_SPLIT = Scale(pairs=2000, images=1000, identities=500)
"""For real memory banks and classifiers; the widths are full."""
LARGEST_STEP = 20 * 2**30
FULL_SIZE = {"irra", "clip_baseline", "dual_granularity", "bi_irra", "cluster_relations"}

every_file = pytest.mark.parametrize("path", FILES, ids=lambda path: f"{path.parent.name}/{path.stem}")


class PaddingIsThere(TorchDispatchMode):
    """Answers for a meta tensor the one question that a tower asks: whether a mask hides nothing."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.ops.aten._local_scalar_dense.default and args[0].dtype == torch.bool:
            return False
        return func(*args, **(kwargs or {}))


@cache
def at_full_size(path: Path) -> tuple[RunConfig, Method]:
    """The method of a configuration on the meta device, where it takes no memory."""
    config = load(path, RunConfig)
    scale = published_scale(config)
    assert scale is not None or config.data.dataset == "synthetic", "official counts are known"
    with torch.device("meta"):
        return config, build_method(config, scale or Scale(pairs=64_000, images=32_000, identities=8_000))


def layout(method: Method) -> dict[str, str]:
    """Names, shapes and types of all tensors; equal layers in one line: `name.*.part` -> `12 x float32[768, 768]`."""
    found = Counter(
        (re.sub(r"\.\d+\.", ".*.", name), f"{str(value.dtype).removeprefix('torch.')}{list(value.shape)}")
        for name, value in method.state_dict(keep_vars=True).items()
    )
    lines: dict[str, list[str]] = {}
    for (name, shape), count in found.items():
        lines.setdefault(name, []).append(f"{count} x {shape}" if "*" in name else shape)
    return {name: ", ".join(shapes) for name, shapes in lines.items()}


def figures(path: Path) -> dict[str, Any]:
    """What is committed about a configuration."""
    config, method = at_full_size(path)
    named = list(method.named_parameters())
    settings = config.optimizer
    groups = parameter_groups(named, method.learning_rate_factor, lr=settings.lr, weight_decay=settings.weight_decay)
    return {
        "parameters": sum(parameter.numel() for _, parameter in named),
        "trained": sum(parameter.numel() for _, parameter in named if parameter.requires_grad),
        "encoder": sum(parameter.numel() for parameter in method.encoder.parameters()),
        "optimizer": settings.name,
        "groups": [
            {
                "lr": group["lr"],
                "weight_decay": group["weight_decay"],
                "tensors": len(group["params"]),
                "numbers": sum(parameter.numel() for parameter in group["params"]),
            }
            for group in groups
        ],
        "layout": layout(method),
    }


def all_figures() -> dict[str, Any]:
    """Figures of every configuration; a layout that several share stands once."""
    configs, layouts = {}, {}
    for path in FILES:
        row = figures(path)
        name = f"{path.parent.name}/{path.stem}"
        same = next((key for key, value in layouts.items() if value == row["layout"]), None)
        layouts.setdefault(same or name, row["layout"])
        configs[name] = {**row, "layout": same or name}
    return {"configs": configs, "layouts": layouts}


def committed() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(FIGURES.read_text(encoding="utf-8"))
    return found


def test_figures_are_those_of_the_configurations_that_are_there() -> None:
    found = committed()
    assert set(found["configs"]) == {f"{path.parent.name}/{path.stem}" for path in FILES}
    assert {row["layout"] for row in found["configs"].values()} == set(found["layouts"])


@every_file
def test_full_size_is_as_committed(path: Path) -> None:
    row = figures(path)
    expected = dict(committed()["configs"][f"{path.parent.name}/{path.stem}"])
    expected["layout"] = committed()["layouts"][expected["layout"]]
    for key, value in expected.items():
        assert row[key] == value, key
    assert sum(group["numbers"] for group in row["groups"]) == row["trained"]


def test_published_sizes() -> None:
    """ViT-B/16 with text at 512, and BEiT-2 with XLM-R base, as everybody counts them."""
    rows = committed()["configs"]
    # CLIP ViT-B/16 has 149,620,737 at 224 x 224: 4 more position rows less at 384 x 128, and no learnt scale
    assert rows["clip_baseline/cuhk_pedes"]["encoder"] == 149_620_737 - 1 - 4 * 768
    assert rows["irra/cuhk_pedes"]["encoder"] == rows["clip_baseline/cuhk_pedes"]["encoder"]
    _, method = at_full_size(CONFIGS / "bi_irra" / "cuhk_pedes_m.yaml")
    # XLM-R base has 278,043,648, of them a pooler that is left out
    text = sum(value.numel() for name, value in method.encoder.named_parameters() if name.startswith("text."))
    assert text == 278_043_648 - (768 * 768 + 768)


@pytest.mark.parametrize("path", LARGE, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_both_towers_run_forward_on_the_meta_device(path: Path) -> None:
    config, method = at_full_size(path)
    encoder, rows = method.eval().encoder, 2
    image = encoder.encode_image(torch.empty(rows, 3, *encoder.image_size, device="meta"))
    ids = torch.zeros(rows, config.max_tokens, dtype=torch.long, device="meta")
    with PaddingIsThere():
        text = encoder.encode_text(ids, torch.ones_like(ids, dtype=torch.bool))
    height, width = config.encoder.grid
    assert image.tokens.shape == (rows, 1 + height * width, encoder.width)
    assert text.tokens.shape == (rows, config.max_tokens, encoder.width)
    assert encoder.project_image(image.pooled).shape == (rows, encoder.embed_dim)
    for language in (None, *encoder.languages):
        assert encoder.project_text(text.pooled, language).shape == (rows, encoder.embed_dim)


def widest(name: str) -> Path:
    """The configuration of a method that has the most parameters."""
    rows = committed()["configs"]
    own = [path for path in FILES if load(path, RunConfig).method.name == name]
    return max(own, key=lambda path: rows[f"{path.parent.name}/{path.stem}"]["parameters"])


@pytest.mark.parametrize("name", METHODS)
def test_a_step_at_full_width_with_one_layer(name: str) -> None:
    torch.manual_seed(0)
    config = with_one_layer(load(widest(name), RunConfig))
    method = build_method(config, SMALL_SPLIT)
    groups = parameter_groups(method.named_parameters(), method.learning_rate_factor, lr=1e-3, weight_decay=0.0)
    optimizer = torch.optim.SGD(groups)  # without state: the memory is for the widths
    before = {name: value.detach().sum() for name, value in method.encoder.named_parameters() if value.ndim == 1}
    output = one_step(config, method, optimizer, stand_in_batch(config, method, rows=3))
    assert set(output.losses) == set(getattr(config.method, "losses", getattr(config.method, "terms", ["itc"])))
    for loss, value in output.losses.items():
        assert torch.isfinite(value), loss
    after = {name: value.detach().sum() for name, value in method.encoder.named_parameters() if value.ndim == 1}
    assert any(not torch.equal(before[name], after[name]) for name in before)


@pytest.fixture
def alone() -> Iterator[None]:
    """One process at a time, whoever runs tests on this machine."""
    with (Path(tempfile.gettempdir()) / "tipr-full-size-step.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


@pytest.mark.slow
@pytest.mark.parametrize("name", METHODS)
@pytest.mark.usefixtures("alone")
def test_a_real_step_at_full_size(name: str) -> None:
    command = [sys.executable, str(ROOT / "benchmarks" / "full_size_step.py"), "--here", "--rows", "4", name]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    row = json.loads(done.stdout.splitlines()[-1])
    assert row["moved"]
    assert row["peak_bytes"] < LARGEST_STEP
    assert row["losses"]


def test_every_method_has_a_full_size_step() -> None:
    assert set(METHODS) == FULL_SIZE


if __name__ == "__main__":
    FIGURES.write_text(json.dumps(all_figures(), indent=1) + "\n", encoding="utf-8")
