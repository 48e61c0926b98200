"""Bi-IRRA's losses and gradients on one and on two gloo processes: the same, or the released 1 / W when asked for."""

from __future__ import annotations

import os
import runpy
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from tipr.methods import StepContext

TOY = Path(__file__).parents[1] / "unit" / "bilingual_step.py"
ALL = ("itc", "sdm", "id", "itm", "mlm", "mim")
SETTINGS: dict[str, dict[str, Any]] = {
    "whole batch": {"losses": ALL},
    "blocks inside a process": {"losses": ALL, "itm_negative_group": 2},
    "blocks across processes": {"losses": ("itm",), "itm_negative_group": 3},
    "masked tokens": {"losses": ("mim",), "mim_tokens": "masked"},
    "scaled": {"losses": ("itc",), "itc_gradient_scale": 0.25},
    "local slice": {"losses": ("itc",), "itc_gather": "local_slice"},
}
# As DDP does in training: gradients are averaged, what a loss does not use is looked for.
SCRIPT = """
import runpy, sys
import torch
from torch import distributed
from torch.nn.parallel import DistributedDataParallel
from tipr.methods import StepContext
from tipr.training import environment

test, folder, rank = runpy.run_path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
torch.set_num_threads(1)
distributed.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
context = StepContext(gather=environment.gather, rank=rank, process_count=2, reduce_sum=environment.reduce_sum)
found = {}
for name, options in test["SETTINGS"].items():
    method = test["toy"]["make"](**options)
    wrapped = DistributedDataParallel(method, find_unused_parameters=True)
    rows = test["toy"]["part"](test["batch"](), slice(4 * rank, 4 * rank + 4))
    found[name] = test["measure"](method, wrapped, rows, context)
torch.save(found, f"{folder}/{rank}.pt")
distributed.destroy_process_group()
"""
toy = runpy.run_path(str(TOY))
Measured = tuple[dict[str, Tensor], dict[str, Tensor]]


def batch() -> Any:
    """Eight rows; in blocks of two the first one is a single person, and each image has a mask of its own."""
    made = toy["make_batch"](8)
    made.identity = torch.tensor([0, 0, 1, 2, 1, 2, 0, 1])
    made.patch_mask = torch.rand(8, 8, generator=torch.Generator().manual_seed(5)) < 0.5
    return made


def measure(method: Any, call: Any, rows: Any, context: StepContext) -> Measured:
    """Losses and gradients of one step."""
    losses = call(rows, context).losses
    torch.stack(list(losses.values())).sum().backward()
    gradients = {name: each.grad.clone() for name, each in method.named_parameters() if each.grad is not None}
    return {name: loss.detach() for name, loss in losses.items()}, gradients


def assert_close(gradient: Tensor, expected: Tensor, name: str) -> None:
    """Within what the order of float32 sums leaves, measured by the largest value of the tensor."""
    assert float((gradient - expected).abs().max()) <= 1e-5 * float(expected.abs().max()) + 1e-7, name


@pytest.fixture(scope="module")
def alone() -> dict[str, Measured]:
    found = {}
    for name, options in SETTINGS.items():
        method = toy["make"](**options)
        found[name] = measure(method, method, batch(), StepContext())
    return found


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Measured]]:
    folder = tmp_path_factory.mktemp("two")
    script = folder / "two.py"
    script.write_text(SCRIPT)
    running = [
        subprocess.Popen(
            [sys.executable, str(script), __file__, str(folder), str(rank)],
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )
        for rank in (0, 1)
    ]
    try:
        for process in running:
            _, errors = process.communicate(timeout=300)
            assert process.returncode == 0, errors
    finally:
        for process in running:
            process.kill()
    return [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in (0, 1)]


@pytest.mark.parametrize("name", [name for name in SETTINGS if name != "local slice"])
def test_two_processes_have_the_losses_and_gradients_of_one(
    alone: dict[str, Measured], both: list[dict[str, Measured]], name: str
) -> None:
    losses, gradients = alone[name]
    (first, gradient), (second, same) = both[0][name], both[1][name]
    for term, loss in losses.items():
        torch.testing.assert_close((first[term] + second[term]) / 2, loss, msg=term)
    assert any(value.any() for value in gradients.values())
    for key, expected in gradients.items():
        assert_close(gradient[key], expected, key)
        assert torch.equal(gradient[key], same[key]), key


def test_the_released_gather_halves_the_gradient_of_the_encoder_and_not_that_of_the_temperature(
    alone: dict[str, Measured], both: list[dict[str, Measured]]
) -> None:
    losses, gradients = alone["local slice"]
    for measured in both:
        found, gradient = measured["local slice"]
        torch.testing.assert_close(found["itc"], losses["itc"])  # the value is that of the whole batch everywhere
        for key, expected in gradients.items():
            assert_close(gradient[key], expected if key == "temp" else expected / 2, key)
        assert gradient["temp"].abs() > 1e-3
        assert gradient["encoder.vision_projection.weight"].abs().max() > 1e-3
