"""Damage a gallery's files at random, and see that `verify` finds it, names it, and keeps the rest."""

from __future__ import annotations

import random
import shutil
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import workload

from tipr.errors import GalleryError
from tipr.gallery.verify import verify


@dataclass
class Outcome:
    """What the damages did."""

    damages: int = 0
    kinds: Counter[str] = field(default_factory=Counter)
    not_found: list[str] = field(default_factory=list)
    wrong_rows: list[str] = field(default_factory=list)
    not_searchable: list[str] = field(default_factory=list)
    files_gone: list[str] = field(default_factory=list)


def make(folder: Path) -> frozenset[str]:
    """A gallery with several pieces, history, tombstones and certificates; returns its paths."""
    workload.create(folder)
    opened = workload.Opened.at(folder)
    state: frozenset[str] = frozenset()
    with opened.writer.locked():
        for part in range(5):
            new = [f"/part{part}/{i:03d}.jpg" for i in range(12)]
            opened.writer.append([workload.row(path) for path in new])
            state |= set(new)
            if part == 2:
                old = [f"/part0/{i:03d}.jpg" for i in range(3)]
                opened.writer.erase([opened.paths()[path] for path in old], "identity")
                state -= set(old)
    return state


def damage(path: Path, rng: random.Random) -> str:
    """Flip one bit of a file, or cut it off; returns which."""
    data = bytearray(path.read_bytes())
    if rng.random() < 0.5:
        place = rng.randrange(len(data))
        data[place] ^= 1 << rng.randrange(8)
        path.write_bytes(data)
        return "flipped bit"
    path.write_bytes(data[: rng.randrange(len(data))])
    return "truncation"


def damage_many(folder: Path, damages: int, seed: int) -> Outcome:
    """Damage copies of one gallery, one place in each.

    Args:
        folder: an empty one to work in.
        damages: how many.
        seed: of chance.
    """
    rng = random.Random(seed)
    state = make(folder / "whole")
    names = sorted(str(path.relative_to(folder / "whole")) for path in (folder / "whole").rglob("*") if path.is_file())
    names = [name for name in names if (folder / "whole" / name).stat().st_size]
    assert verify(folder / "whole").damages == ()
    outcome = Outcome()
    for number in range(damages):
        copy = folder / "copy"
        shutil.copytree(folder / "whole", copy)
        name = rng.choice(names)
        kind = damage(copy / name, rng)
        outcome.damages += 1
        outcome.kinds[kind] += 1
        _check(copy, name, f"{number}: {kind} in {name}", state, outcome)
        shutil.rmtree(copy)
    return outcome


def _check(copy: Path, name: str, where: str, state: frozenset[str], outcome: Outcome) -> None:
    before = {path.name for path in copy.rglob("*") if path.is_file()}
    found = verify(copy)
    named = {item.file for item in found.damages}
    if name not in named and not (name == "digests.jsonl" and found.unproven):
        outcome.not_found.append(f"{where}: found {sorted(named)}")
        return
    done = verify(copy, put_aside=True)
    gone = before - {path.name for path in copy.rglob("*") if path.is_file()}
    outcome.files_gone.extend(f"{where}: {file}" for file in gone if file not in COLLECTED)
    try:
        left = workload.Opened.at(copy).paths()
    except AssertionError as error:
        outcome.wrong_rows.append(f"{where}: {error}")
        return
    except GalleryError as error:
        outcome.not_searchable.append(f"{where}: {error}")
        return
    if not left.keys() <= state:
        outcome.wrong_rows.append(f"{where}: {sorted(left.keys() - state)}")
    if len(left) + (done.rows_lost or (12 if name.endswith(".manifest") else 0)) < len(state):
        outcome.not_searchable.append(f"{where}: {len(left)} of {len(state)} rows, {done.rows_lost} said to be lost")


COLLECTED = frozenset[str]()
