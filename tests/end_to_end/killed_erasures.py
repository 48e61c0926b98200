"""Erasures in processes that are killed at every step, and what a restart makes of what they leave."""

from __future__ import annotations

import multiprocessing
import os
import shutil
import signal
import sys
import time
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
from planted_people import MarkedModel, Planted, found

sys.path.insert(0, str(Path(__file__).parents[1] / "durability"))

from kill_points import POINTS
from kills import processes

from tipr.gallery import Gallery
from tipr.gallery.erase import read_certificates
from tipr.gallery.info import PENDING


def erase_until_killed(folder: str, where: str, point: int, told: Connection) -> None:
    """Erase rows in a process of its own, which kills itself at a point of it; how many points it passed, if it lives.

    A point is the beginning or the end of a function that a change of a gallery goes through.
    """
    count = 0

    def step() -> None:
        nonlocal count
        count += 1
        if count == point:
            os.kill(os.getpid(), signal.SIGKILL)

    def around(owner: Any, name: str) -> None:
        real, raw = getattr(owner, name), owner.__dict__.get(name)

        def watched(*given: Any, **named: Any) -> Any:
            step()
            result = real(*given, **named)
            step()
            return result

        setattr(owner, name, staticmethod(watched) if isinstance(raw, staticmethod) else watched)

    for owner, name in {(owner, name) for owner, name, _ in POINTS.values()} | {(os, "unlink"), (os, "rmdir")}:
        around(owner, name)
    gallery = Gallery.open(folder)
    chosen = gallery.privacy.find(where=where)
    told.send("ready")
    gallery.privacy.finish()
    gallery.privacy.erase(chosen)
    assert not {"torch", "transformers"} & set(sys.modules)
    told.send(count)


def copied(planted: Planted, place: Path) -> Planted:
    """The same people in a copy of their gallery."""
    shutil.copytree(planted.path, place)
    return Planted(place, planted.folder, planted.ids, planted.marks)


@dataclass(frozen=True)
class Outcome:
    """How many erasures were killed, how many of them after the decision, how many of these twice, and how many were
    complete after a restart."""

    killed: int
    begun: int
    twice: int
    completed: int


class Killed:
    """Erasures of half of the people in copies of one gallery, in processes that are killed."""

    def __init__(self, crowd: Planted, root: Path) -> None:
        self.crowd, self.root = crowd, root
        people = sorted(crowd.marks)
        self.going, self.staying = people[::2], people[1::2]
        self.where = "identity in ({})".format(", ".join(self.going))
        self.processes = processes()
        self.points = self.child(copied(crowd, root / "whole"), 0)

    def child(self, copy: Planted, point: int, *, after: float | None = None) -> int:
        """Run an erasure, killed at a point of it, or some seconds after its beginning; how many points it passed if it
        came to its end, else 0."""
        answers, told = multiprocessing.Pipe(duplex=False)
        child = self.processes.Process(target=erase_until_killed, args=(str(copy.path), self.where, point, told))
        child.start()
        told.close()
        assert answers.recv() == "ready"
        begun = time.monotonic()
        if after is not None:
            time.sleep(after)
            child.kill()
        child.join(120)
        self.seconds = time.monotonic() - begun
        expected = (0, -signal.SIGKILL) if after is not None else (-signal.SIGKILL if point else 0,)
        assert child.exitcode in expected
        return answers.recv() if child.exitcode == 0 else 0

    def check(self, copy: Planted, model: MarkedModel) -> bool:
        """See that a restart completes what was begun; whether it had been begun."""
        begun = (copy.path / PENDING).exists()
        done = bool(read_certificates(copy.path))
        opened: Any = Gallery.open(copy.path, model=model)  # type: ignore[arg-type]
        if begun:
            assert opened.info().erasing
            opened.add([])  # any writer completes it
        elif not done:
            assert len(opened) == 2 * len(self.crowd.ids), "nothing was decided, so nothing is gone"
            opened.privacy.erase(opened.privacy.find(where=self.where))
        assert sum(found(copy, self.going).values()) == 0
        assert {name for name, marks in found(copy, self.staying).items() if marks} == set(self.staying)
        rows = sorted(row for name in self.staying for row in self.crowd.ids[name])
        assert Gallery.open(copy.path).vectors()[0].tolist() == rows
        (certificate,) = read_certificates(copy.path)
        assert certificate.pictures == 2 * len(self.going)
        assert not Gallery.open(copy.path).info().erasing
        return begun

    def rounds(self, at_points: int, at_moments: int, *, twice: bool = False) -> Outcome:
        """Kill at points spread over the erasure, and at random moments; every one is completed by a restart."""
        model, killed, begun, again, completed = MarkedModel(), 0, 0, 0, 0
        points = np.linspace(1, self.points, at_points).astype(int).tolist()
        delays = np.random.default_rng(7).uniform(0, self.seconds, at_moments).tolist()
        for number, (point, delay) in enumerate([(p, None) for p in points] + [(0, d) for d in delays]):
            copy = copied(self.crowd, self.root / f"killed {number}")
            wait = delay
            while self.child(copy, point, after=wait):  # it was done before it was killed
                shutil.rmtree(copy.path)
                copy, wait = copied(self.crowd, copy.path), wait / 2
            killed += 1
            if twice and (copy.path / PENDING).exists():
                again += 1
                self.child(copy, 1 + (7 * number) % 12)  # killed again while it completes the first
            begun += self.check(copy, model)
            completed += 1
            shutil.rmtree(copy.path)
        return Outcome(killed, begun, again, completed)
