"""Kill a process that changes a gallery, reopen it in a fresh one, compare with what was acknowledged."""

from __future__ import annotations

import json
import multiprocessing
import os
import random
import signal
import sys
import time
from collections import Counter
from dataclasses import dataclass, field
from multiprocessing import forkserver
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Any

import workload
from kill_points import NEEDS, POINTS

ROUNDS = 12
"""Kills that one gallery goes through before a new one is made: it is damaged further, not repaired between."""
PATIENCE = 60.0


@dataclass
class Outcome:
    """What the kills did."""

    kills: int = 0
    in_flight: Counter[str] = field(default_factory=Counter)
    points: Counter[str] = field(default_factory=Counter)
    heavy: set[str] = field(default_factory=set)
    lost: list[str] = field(default_factory=list)
    half_visible: list[str] = field(default_factory=list)
    not_opened: list[str] = field(default_factory=list)


def processes() -> Any:
    """Fresh processes at a fifth of the price: forked from a server that has imported everything and opened nothing."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["workload", "kill_points"])
    before = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = os.pathsep.join(sys.path)  # the server looks nowhere else, and says nothing
    try:
        forkserver.ensure_running()
    finally:
        if before is None:
            del os.environ["PYTHONPATH"]
        else:
            os.environ["PYTHONPATH"] = before
    return context


def kill_many(folder: Path, kills: int, seed: int) -> Outcome:
    """Half at random moments, half at named points, which take turns.

    Args:
        folder: an empty one to work in.
        kills: how many.
        seed: of chance.
    """
    rng = random.Random(seed)
    context = processes()
    outcome = Outcome()
    points = list(POINTS)
    rng.shuffle(points)
    gallery = folder
    for number in range(kills):
        if number % ROUNDS == 0:
            gallery = folder / f"g{number}"
            workload.create(gallery)
        point = points[number // 2 % len(points)] if number % 2 else None
        _one(context, gallery, number, point=point, rng=rng, outcome=outcome)
    return outcome


def _one(context: Any, gallery: Path, number: int, *, point: str | None, rng: random.Random, outcome: Outcome) -> None:
    folder = gallery.parent
    log, answer = folder / f"{number}.log", folder / f"{number}.json"
    kinds = workload.KINDS if point is None else ("add", *NEEDS.get(point, ("add", "add")))
    process: ForkServerProcess = context.Process(
        target=workload.work,
        args=(str(gallery), str(log), rng.randrange(2**32)),
        kwargs={"name": f"run{number}", "kinds": kinds, "point": point, "nth": rng.randint(1, 3)},
    )
    process.start()
    if point is None:
        _wait_for(log, b'"begin"', process)
        time.sleep(rng.uniform(0, 0.25))
        assert process.pid is not None
        os.kill(process.pid, signal.SIGKILL)
    process.join(PATIENCE)
    assert process.exitcode == -signal.SIGKILL, f"run {number} ended by itself with {process.exitcode} ({point})"
    outcome.kills += 1
    outcome.points["a random moment" if point is None else point] += 1
    before, step = _acknowledged(log, outcome)
    outcome.in_flight["nothing" if step is None else step.kind] += 1

    reader = context.Process(target=workload.look, args=(str(gallery), str(answer)))
    reader.start()
    reader.join(PATIENCE)
    assert reader.exitcode == 0, f"the reader of run {number} ended with {reader.exitcode}"
    seen = json.loads(answer.read_text(encoding="utf-8"))
    where = f"run {number}, killed at {point or 'a random moment'} of {'nothing' if step is None else step.kind}"
    if "error" in seen:
        outcome.not_opened.append(f"{where}: {seen['error']}")
        return
    allowed = [before] if step is None else step.states(before)
    surely = frozenset.intersection(*map(frozenset, allowed))
    for name in ("first", "second", "third"):
        state = frozenset(seen[name])
        if lost := surely - state:
            outcome.lost.append(f"{where}: {sorted(lost)}")
        elif state not in allowed:
            outcome.half_visible.append(f"{where}: {sorted(state.symmetric_difference(before))}")


def _wait_for(log: Path, mark: bytes, process: ForkServerProcess) -> None:
    end = time.monotonic() + PATIENCE
    while not (log.exists() and mark in log.read_bytes()):
        assert time.monotonic() < end, "the process did not begin"
        assert process.exitcode is None, f"the process ended with {process.exitcode}"
        time.sleep(0.002)


def _acknowledged(log: Path, outcome: Outcome) -> tuple[frozenset[str], workload.Step | None]:
    """The paths after all that was acknowledged, and the step that was not."""
    state: frozenset[str] = frozenset()
    step: workload.Step | None = None
    for line in log.read_bytes().splitlines():
        what, value = json.loads(line)
        if what == "heavy modules":
            outcome.heavy.update(value)
        elif what == "state":
            state = frozenset(value)
        elif what == "begin":
            step = workload.Step(value[0], tuple(value[1]), tuple(value[2]))
        elif step is not None:
            state, step = step.states(state)[-1], None
    return state, step
