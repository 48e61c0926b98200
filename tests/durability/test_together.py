"""Two writers, readers and maintenance in processes of their own: readers never fail, and nothing is lost."""

from __future__ import annotations

import json
import random
import time
from pathlib import Path

import pytest
import workload
from kills import processes

from tipr.errors import GalleryError


def write(folder: str, answer: str, name: str, seconds: float) -> None:
    """Change the gallery for a while, waiting for the other writer; tells what must be there of its own rows."""
    opened = workload.Opened.at(Path(folder))
    end = time.monotonic() + seconds
    state: frozenset[str] = frozenset()
    changes = 0
    for step in workload.steps(random.Random(name), state, name):
        while time.monotonic() < end:
            try:
                step.run(opened)
                state = step.states(state)[-1]
                changes += 1
                time.sleep(0.02)  # a turn for the other one, which looks every few milliseconds
                break
            except GalleryError as error:
                if "another process is writing" not in str(error):
                    raise
                time.sleep(0.005)
        if time.monotonic() >= end:
            break
    Path(answer).write_text(json.dumps({"state": sorted(state), "changes": changes}))


def read(folder: str, answer: str, seconds: float) -> None:
    """Read all rows again and again; each must be whole."""
    opened = workload.Opened.at(Path(folder))
    end = time.monotonic() + seconds
    reads, versions = 0, set()
    while time.monotonic() < end:
        opened.paths()
        reads += 1
        versions.add(opened.reader.version)
    Path(answer).write_text(json.dumps({"reads": reads, "versions": len(versions)}))


@pytest.mark.parametrize("seconds", [3.0, pytest.param(60.0, marks=pytest.mark.slow)])
def test_writers_readers_and_maintenance_get_on(tmp_path: Path, seconds: float) -> None:
    gallery = tmp_path / "g"
    workload.create(gallery, "process")
    context = processes()
    tasks = [
        *(
            context.Process(target=write, args=(str(gallery), str(tmp_path / f"w{i}"), f"w{i}", seconds))
            for i in (0, 1)
        ),
        *(context.Process(target=read, args=(str(gallery), str(tmp_path / f"r{i}"), seconds)) for i in (0, 1)),
    ]
    for task in tasks:
        task.start()
    for task in tasks:
        task.join(seconds + 60)
    assert [task.exitcode for task in tasks] == [0, 0, 0, 0]
    told = {name: json.loads((tmp_path / name).read_text()) for name in ("w0", "w1", "r0", "r1")}
    assert sorted(workload.Opened.at(gallery).paths()) == sorted(told["w0"]["state"] + told["w1"]["state"])
    assert told["w0"]["changes"]
    assert told["w1"]["changes"]
    assert told["r0"]["reads"] > 1
    assert told["r0"]["versions"] > 1
