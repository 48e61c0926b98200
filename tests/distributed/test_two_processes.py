"""One and two gloo processes: the same batch, the same weights."""

import os
import runpy
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from tipr import config as configuration
from tipr.training import RunConfig, journal, load_config, train
from tipr.training.checkpoint import load_latest

PEOPLE = runpy.run_path(str(Path(__file__).parents[1] / "data" / "training" / "coloured_people.py"))
STEPS = 5
BILINGUAL = {
    "method": {"name": "bi_irra", "temperature": 0.5},
    "encoder": {
        "name": "beit_xlmr",
        "image_size": [48, 24],
        "patch": 8,
        "width": 16,
        "vision_layers": 1,
        "vision_heads": 2,
        "vision_mlp": 32,
        "drop_path": 0.0,
        "max_positions": 32,
        "max_tokens": 24,
        "text_layers": 1,
        "text_heads": 2,
        "text_mlp": 32,
        "fusion_layers": 1,
        "hidden_dropout": 0.0,  # every process would draw its own
        "attention_dropout": 0.0,
        "embed_dim": 16,
    },
}


def run_command(*arguments, **environment):
    """`tipr ARGUMENTS` in its own process, warnings being errors as in the tests."""
    return subprocess.run(
        [sys.executable, "-W", "error::DeprecationWarning:tipr", "-m", "tipr", *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1", **environment},
    )


def compare(tmp_path, **changes):
    """Weights after five steps on one process (here) and on two (a command): largest difference and largest change."""
    data = PEOPLE["make_data"](tmp_path / "data")
    settings = {"epochs": None, "max_steps": STEPS, "precision": "32", "selection": {"split": "last"}, **changes}
    if settings.get("method", {}).get("name") == "bi_irra":
        settings["data"] = {"dataset": "manifest", "root": str(data), "batch_size": 16, "languages": ["en", "zh"]}
    path = PEOPLE["make_config"](tmp_path / "run.yaml", data, **settings)
    config = configuration.load(path, RunConfig)
    threads = torch.get_num_threads()
    train(config.model_copy(update={"out": tmp_path / "one"}))
    torch.set_num_threads(threads)
    done = run_command("train", path, "processes=2", "--out", tmp_path / "two", "--quiet")
    assert done.returncode == 0, done.stderr
    one, two = (load_latest(tmp_path / name / "checkpoints")[0] for name in ("one", "two"))
    assert one["state"]["step"] == two["state"]["step"] == STEPS
    assert len(two["random"]) == 2
    difference = max(float((one["method"][name] - two["method"][name]).abs().max()) for name in one["method"])
    return difference, tmp_path


def test_two_processes_give_the_weights_of_one(tmp_path):
    """IRRA with all its losses; plain SGD, because Adam would hide a wrong factor on the gradient."""
    difference, folder = compare(
        tmp_path,
        optimizer={"name": "sgd", "lr": 0.05},
        sampler={"name": "identity", "per_identity": 4},
        ema=None,
    )
    assert difference < 1e-5
    losses = [[entry["losses"] for entry in journal.read(folder / name)] for name in ("one", "two")]
    for single, double in zip(*losses, strict=True):
        for name, value in single.items():
            assert double[name] == pytest.approx(value, rel=1e-4), name
    start = float(np.abs(journal.read(folder / "one")[0]["lr"]))
    assert start > 0
    assert load_config(folder / "two").processes == 2


@pytest.mark.slow
@pytest.mark.parametrize(
    "changes",
    [
        {"optimizer": {"name": "adamw", "lr": 1e-3, "eps": 1e-3}},
        {"method": {"name": "irra", "padding": "exact", "depth": 1}},
        {"method": {"name": "irra", "padding": "trimmed", "losses": ["sdm", "id"], "global_caption": "clean"}},
        {"method": {"name": "clip_baseline"}, "ema": 0.9},
        {**BILINGUAL, "sampler": {"name": "random", "drop_last": True}, "ema": None},
        {"method": {"name": "cluster_relations", "terms": ["itc", "sdm"], "k1": 6, "k2": 2, "min_samples": 2}},
    ],
)
def test_other_methods_and_optimisers_too(tmp_path, changes):
    """With eps 1e-3: at 1e-8 Adam turns the last bits of gradients that are nearly 0 into full steps."""
    difference, _ = compare(tmp_path, **{"optimizer": {"lr": 1e-3}, **changes})
    assert difference < 1e-5


@pytest.mark.slow
@pytest.mark.parametrize("views", [{}, {"image_mask": "per_image", "mlm_masking": "bernoulli"}])
def test_two_processes_give_the_weights_of_one_in_two_languages(tmp_path, views):
    """Bi-IRRA with all its losses; the negatives of matching and the masks are those of the whole batch."""
    bilingual = runpy.run_path(str(Path(__file__).parents[1] / "data" / "training" / "bilingual_people.py"))
    losses = ["itc", "itm", "mlm", "mim", "sdm", "id"]
    path = bilingual["make_config"](
        tmp_path / "run.yaml",
        bilingual["make_data"](tmp_path / "data"),
        method={"name": "bi_irra", "losses": losses, "views": views},
        encoder={**bilingual["ENCODER"], "hidden_dropout": 0.0, "attention_dropout": 0.0, "drop_path": 0.0},
        optimizer={"name": "sgd", "lr": 0.02},
        precision="32",
        epochs=None,
        max_steps=STEPS,
        selection={"split": "last"},
    )
    threads = torch.get_num_threads()
    train(configuration.load(path, RunConfig, overrides=[f"out={tmp_path / 'one'}"]))
    torch.set_num_threads(threads)
    done = run_command("train", path, "processes=2", "--out", tmp_path / "two", "--quiet")
    assert done.returncode == 0, done.stderr
    one, two = (load_latest(tmp_path / name / "checkpoints")[0]["method"] for name in ("one", "two"))
    for name, tensor in one.items():
        torch.testing.assert_close(two[name], tensor, rtol=0, atol=1e-5, msg=lambda text, name=name: f"{name}: {text}")


@pytest.mark.slow
def test_two_processes_resume_to_the_same_weights(tmp_path):
    """A run of two processes that is stopped after its first epoch and resumed equals the unbroken one."""
    data = PEOPLE["make_data"](tmp_path / "data")
    path = PEOPLE["make_config"](tmp_path / "run.yaml", data, processes=2)
    assert run_command("train", path, "--out", tmp_path / "whole", "--quiet").returncode == 0
    assert run_command("train", path, "--out", tmp_path / "broken", "--quiet").returncode == 0
    newest = sorted((tmp_path / "broken" / "checkpoints").iterdir())[-1]
    newest.write_bytes(newest.read_bytes()[:-100])  # torn: the one before is taken
    done = run_command("train", "--resume", tmp_path / "broken")
    assert done.returncode == 0, done.stderr
    assert "is damaged and was passed over" in done.stderr
    whole, broken = ((tmp_path / name / "last" / "model.safetensors").read_bytes() for name in ("whole", "broken"))
    assert whole == broken


@pytest.mark.slow
def test_one_process_that_fails_ends_the_other_with_one_message(tmp_path):
    data = PEOPLE["make_data"](tmp_path / "data")
    path = PEOPLE["make_config"](tmp_path / "run.yaml", data, processes=2, precision="32", ema=None)
    done = run_command("train", path, "optimizer={name: sgd, lr: 1.0e+30}", "--quiet")
    assert done.returncode == 1
    assert "is not finite" in done.stderr or "at step" in done.stderr
    assert "Traceback" not in done.stderr
