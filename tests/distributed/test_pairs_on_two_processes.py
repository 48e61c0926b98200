"""Relations on one and on two gloo processes: those of the global batch, with the same memory banks everywhere."""

import os
import runpy
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from tipr import config as configuration
from tipr.training import RunConfig, journal, train

PEOPLE = runpy.run_path(str(Path(__file__).parents[1] / "data" / "training" / "coloured_people.py"))
METHOD = {"name": "dual_granularity", "temperature": 0.07, "threshold": 0.6, "k": 5}
STEPS = 5
# Every process leaves what its method has learnt and stored; Fabric starts the second one with the same command line.
SCRIPT = """
import sys
import torch
from tipr.training import load_config, loop, train
from tipr import config as configuration
from tipr.training import RunConfig

save = loop.save_state

def save_everywhere(run, state):
    torch.save(run.method.state_dict(), f"{sys.argv[2]}.rank-{run.fabric.global_rank}.pt")
    save(run, state)

loop.save_state = save_everywhere
train(configuration.load(sys.argv[1], RunConfig, overrides=["processes=2", f"out={sys.argv[2]}"]))
"""


def on_one(path, out):
    threads = torch.get_num_threads()
    train(configuration.load(path, RunConfig, overrides=[f"out={out}"]))
    torch.set_num_threads(threads)
    (checkpoint,) = (out / "checkpoints").iterdir()
    return torch.load(checkpoint, weights_only=True)["method"]


def on_two(path, out):
    script = path.with_name("two.py")
    script.write_text(SCRIPT)
    done = subprocess.run(
        [sys.executable, str(script), str(path), str(out)],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr
    return [torch.load(f"{out}.rank-{rank}.pt", weights_only=True) for rank in (0, 1)]


def compare(tmp_path, method):
    """Five steps on one process and on two; returns the state on one."""
    data = PEOPLE["make_data"](tmp_path / "data")
    path = PEOPLE["make_config"](
        tmp_path / "run.yaml",
        data,
        method=method,
        epochs=None,
        max_steps=STEPS,
        precision="32",
        ema=None,
        optimizer={"name": "sgd", "lr": 0.05},  # Adam would hide a wrong factor on the gradient
        selection={"split": "last"},
    )
    one, two = on_one(path, tmp_path / "one"), on_two(path, tmp_path / "two")
    for name, tensor in one.items():
        assert torch.equal(two[0][name], two[1][name]), name
        # stored features are sums over a layer's width, so their last digits are larger than those of weights
        torch.testing.assert_close(two[0][name], tensor, rtol=0 if name.startswith("encoder.") else 1e-5, atol=1e-5)
    read = [journal.read(tmp_path / name) for name in ("one", "two")]
    for single, double in zip(*read, strict=True):
        assert double["kind"] == single["kind"]
        assert double["logs"] == pytest.approx(single["logs"], rel=1e-5)
        assert double.get("losses", {}) == pytest.approx(single.get("losses", {}), rel=1e-4)
    return one


def test_two_processes_give_the_weights_banks_and_relations_of_one(tmp_path):
    state = compare(tmp_path, METHOD)
    assert (state["mined"] >= 0).any(dim=1).sum() == STEPS * 16
    one, two = (np.load(tmp_path / name / "relations" / "epoch-001.npz")["mined"] for name in ("one", "two"))
    assert np.array_equal(one, two)


@pytest.mark.slow
@pytest.mark.parametrize(
    "method",
    [
        {**METHOD, "bank_update": "step", "global_anchor": "both", "views": {"perturb": "crossed"}},
        {**METHOD, "link_same_image": True, "iasc_target": "perturbed", "bank_normalise": True},
        {**METHOD, "terms": ["itc", "consistency"], "learnable_temperature": True, "itc_ignore_same_image": True},
    ],
)
def test_other_readings_too(tmp_path, method):
    compare(tmp_path, method)
