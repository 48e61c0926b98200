"""SIGKILL at random points, some inside a checkpoint write, then `--resume`: the bytes of an unbroken run."""

import hashlib
import json
import os
import random
import runpy
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tipr.training.checkpoint import PARTIAL, newest_first

PEOPLE = runpy.run_path(str(Path(__file__).parents[1] / "data" / "training" / "coloured_people.py"))
DEADLINE = 300.0


def start(*arguments):
    """`tipr train ARGUMENTS` in its own process."""
    return subprocess.Popen(
        [sys.executable, "-m", "tipr", "train", *map(str, arguments), "--quiet"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )


def finish(process):
    try:
        _, error = process.communicate(timeout=DEADLINE)
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()
        raise
    assert process.returncode == 0, error.decode()


def digest(run):
    """SHA-256 of the final weights, the chosen ones and the running ones, and of the relations where there are some."""
    files = [run / name / "model.safetensors" for name in ("best", "last")] + sorted(run.glob("relations/*.npz"))
    return [(path.name, hashlib.sha256(path.read_bytes()).hexdigest()) for path in files]


def kill_when(process, ready):
    """SIGKILL as soon as `ready()`; False when the process ended before."""
    deadline = time.monotonic() + DEADLINE
    while not ready():
        if process.poll() is not None:
            return False
        if time.monotonic() > deadline:
            process.kill()
            raise AssertionError("the run makes no progress")
        time.sleep(0.0005)
    process.kill()
    process.wait()
    process.stderr.close()
    return True


def kill_at_random(process, folder, rng):
    """Kill a moment after the next checkpoint is there, at any point of a step."""
    before = {path.name for path in newest_first(folder)}
    moment = None

    def ready():
        nonlocal moment
        if moment is None and {path.name for path in newest_first(folder)} - before:
            moment = time.monotonic() + rng.uniform(0.0, 0.15)
        return moment is not None and time.monotonic() >= moment

    return kill_when(process, ready)


def kill_inside_a_write(process, folder):
    """Kill while a checkpoint is half written."""
    stale = {path.name for path in folder.glob(f"*{PARTIAL}")}
    count = [len(newest_first(folder))]

    def ready():
        if not count[0]:
            count[0] = len(newest_first(folder))  # let the first one be finished
            return False
        return any(path.name not in stale for path in folder.glob(f"*{PARTIAL}"))

    return kill_when(process, ready)


def break_and_resume(tmp_path, *, workers, kills, epochs, people=PEOPLE, languages=None, **changes):
    """Kill a run `kills` times and resume it each time; returns how many kills were inside a checkpoint write."""
    data = people["make_data"](tmp_path / "data")
    settings = {"dataset": "manifest", "root": str(data), "batch_size": 16, "workers": workers, "languages": languages}
    path = people["make_config"](
        tmp_path / "run.yaml", data, data=settings, epochs=epochs, checkpoints={"every_steps": 1}, **changes
    )
    finish(start(path, "data.workers=0", "--out", tmp_path / "whole"))
    run, rng, inside = tmp_path / "broken", random.Random(workers), 0
    checkpoints = run / "checkpoints"
    process = start(path, "--out", run)
    for number in range(kills):
        killed = kill_inside_a_write(process, checkpoints) if number % 2 else kill_at_random(process, checkpoints, rng)
        assert killed, f"the run ended before kill {number + 1}: make it longer"
        inside += any(checkpoints.glob(f"*{PARTIAL}"))
        process = start("--resume", run)
    finish(process)
    assert digest(run) == digest(tmp_path / "whole")
    assert (run / "metrics.jsonl").read_text().count('"kind": "scores"') == epochs
    return inside


def test_killed_and_resumed(tmp_path):
    assert break_and_resume(tmp_path, workers=2, kills=2, epochs=4) >= 1


@pytest.mark.slow
@pytest.mark.parametrize("workers", [0, 2])
def test_ten_kills(tmp_path, workers):
    assert break_and_resume(tmp_path, workers=workers, kills=10, epochs=15) >= 3


@pytest.mark.slow
def test_four_kills_of_a_run_in_two_languages(tmp_path):
    bilingual = runpy.run_path(str(Path(__file__).parents[1] / "data" / "training" / "bilingual_people.py"))
    languages = ["en", "zh", "fr"]
    assert break_and_resume(tmp_path, workers=2, kills=4, epochs=6, people=bilingual, languages=languages) >= 1


@pytest.mark.slow
@pytest.mark.parametrize("workers", [0, 2])
def test_ten_kills_of_a_run_that_mines_relations(tmp_path, workers):
    method = {"name": "dual_granularity", "temperature": 0.07, "k": 5}
    assert break_and_resume(tmp_path, workers=workers, kills=10, epochs=15, method=method) >= 3
    kinds = [json.loads(line)["kind"] for line in (tmp_path / "broken" / "metrics.jsonl").read_text().splitlines()]
    assert kinds.count("epoch") == 15
    assert len(list((tmp_path / "broken" / "relations").glob("*.npz"))) == 15
