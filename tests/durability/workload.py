"""A process that changes a gallery at random and tells what it was told to have happened; rows come with vectors.

It imports neither torch nor transformers, so that hundreds of processes can be started and killed. A row is known by
its path, from which all else of it follows: whoever reads a row can tell whether it is whole.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from tipr.gallery.gallery import Gallery
from tipr.gallery.reader import Reader
from tipr.gallery.settings import FORMAT, write_settings
from tipr.gallery.stores import STORES, Durability, Row, Store
from tipr.gallery.writer import Writer

DIM = 16
PICTURE = ".png"
"""How the path of a row ends that was made from a real picture."""
KINDS = ("add", "add", "update", "remove", "erase", "compact")


@lru_cache(maxsize=4096)
def row(path: str) -> Row:
    """The row of a path."""
    digest = hashlib.sha256(path.encode()).digest()
    rng = np.random.default_rng(np.frombuffer(digest, dtype=np.uint32))
    return Row(
        path=path,
        sha256=digest.hex(),
        vector=rng.normal(size=DIM).astype(np.float16),
        thumbnail=b"\xff\xd8" + rng.bytes(90) + b"\xff\xd9",
        width=20,
        height=60,
        camera=path.split("/")[1],
    )


def create(folder: Path, durability: Durability = "power") -> None:
    """An empty gallery whose model nobody can load."""
    folder.mkdir(parents=True)
    STORES["lance"]().create(folder, DIM, durability=durability)
    model = {"path": None, "fingerprint": "0" * 64, "dim": DIM}
    settings = {"format": FORMAT, "store": "lance", "model": model, "created": "2026-01-01T00:00:00+00:00"}
    write_settings(folder, {**settings, "next_id": 0, "durability": durability})


@dataclass(frozen=True)
class Opened:
    """The parts of an opened gallery."""

    gallery: Gallery
    store: Store
    reader: Reader
    writer: Writer

    @classmethod
    def at(cls, folder: Path) -> Opened:
        gallery = Gallery.open(folder)
        return cls(gallery, gallery._store, gallery._reader, gallery._writer)

    def paths(self) -> dict[str, int]:
        """Path -> id of every row; AssertionError when a row is not what was once added, or is there twice."""

        def read() -> dict[str, int]:
            ids, vectors = self.reader.ids(), self.store.vectors()
            columns = self.reader.columns(("path", "sha256", "camera"))
            thumbnails = self.store.thumbnails(ids.tolist())
            for place, path in enumerate(columns["path"]):
                if path.endswith(PICTURE):
                    continue  # made from a file, not from its path
                expected = row(path)
                assert columns["sha256"][place] == expected.sha256, path
                assert columns["camera"][place] == expected.camera, path
                assert vectors[place].tobytes() == expected.vector.tobytes(), path
                assert thumbnails[place] == expected.thumbnail, path
            found = dict(zip(columns["path"], ids.tolist(), strict=True))
            assert len(found) == len(ids), "a row is there twice"
            return found

        return self.reader.consistently(read)


@dataclass(frozen=True)
class Step:
    """One change, as paths."""

    kind: str
    new: tuple[str, ...] = ()
    old: tuple[str, ...] = ()

    def states(self, before: frozenset[str]) -> list[frozenset[str]]:
        """What may be seen when it was begun, the last when it is done; an update is an addition and a removal."""
        after = (before | set(self.new)) - set(self.old)
        return [before, before | set(self.new), after] if self.kind == "update" else [before, after]

    def run(self, opened: Opened) -> None:
        """Do it."""
        with opened.writer.locked():
            if self.new:
                opened.writer.append([row(path) for path in self.new])
            if self.old:
                there = opened.paths()
                reason = {"update": "replaced", "remove": "remove", "erase": "identity"}[self.kind]
                opened.writer.erase([there[path] for path in self.old], reason)
            if self.kind == "compact":
                opened.store.compact()
                opened.reader.refresh()


def steps(rng: random.Random, state: frozenset[str], name: str, kinds: Sequence[str] = KINDS) -> Iterator[Step]:
    """Random changes without end, each possible after the ones before.

    Args:
        rng: source of chance.
        state: paths that are there.
        name: part of every new path; paths do not come twice under different names.
        kinds: to choose from.
    """
    number = 0
    while True:
        kind = rng.choice(kinds)
        if kind != "add" and not state:
            kind = "add"
        size = rng.choice((1, 3, 8)) if kind != "compact" else 0
        old: tuple[str, ...] = ()
        if kind in ("update", "remove", "erase"):
            old = tuple(rng.sample(sorted(state), min(size, len(state))))
            size = len(old)
        fresh = range(number, number + size if kind in ("add", "update") else number)
        new = tuple(f"/{name}/{i:05d}.jpg" for i in fresh)
        number += len(new)
        step = Step(kind, new, old)
        yield step
        state = step.states(state)[-1]


def work(folder: str, log: str, seed: int, *, name: str, kinds: Sequence[str], point: str | None, nth: int) -> None:
    """Change a gallery until somebody kills this process, or it kills itself at the nth passing of a named point."""
    from kill_points import arm

    handle = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    def tell(what: str, value: Any) -> None:
        os.write(handle, (json.dumps([what, value]) + "\n").encode())

    tell("heavy modules", sorted({"torch", "transformers"} & set(sys.modules)))
    opened = Opened.at(Path(folder))
    with opened.writer.locked():
        pass  # an erasure that an earlier kill stopped is finished now
    state = frozenset(opened.paths())
    tell("state", sorted(state))
    if point is not None:
        arm(point, nth)
    for step in steps(random.Random(seed), state, name, kinds):
        tell("begin", [step.kind, step.new, step.old])
        step.run(opened)
        tell("done", None)


def look(folder: str, answer: str) -> None:
    """Read a gallery, finish what is pending, read it again, and write one more row; in a process of its own."""
    try:
        opened = Opened.at(Path(folder))
        first = sorted(opened.paths())
        with opened.writer.locked():
            second = sorted(opened.paths())
            opened.writer.append([row("/last/one.jpg")])
            opened.writer.erase([opened.paths()["/last/one.jpg"]], "remove")
        third = sorted(opened.paths())
        found: Any = {"first": first, "second": second, "third": third}
    except BaseException as error:  # told to the process that waits, whatever it is
        found = {"error": f"{type(error).__name__}: {error}"}
    Path(answer).write_text(json.dumps(found), encoding="utf-8")
