"""What a power cut leaves of a gallery: what was synced, and of the rest whatever chance keeps.

Every `fsync` is recorded. At a cut a folder is made in which a synced file has its synced content and a synced folder
its synced names; all else is there, or not, or empty, or half, or as it was, by chance: unsynced writes may reach the
disk in any order, or never.
"""

from __future__ import annotations

import os
import random
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import workload

from tipr.errors import GalleryError
from tipr.gallery.stores import Durability


class Disk:
    """The part of a folder that is safe on disk."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._handles: dict[int, int] = {}
        self._content: dict[int, bytes] = {}
        self._names: dict[str, dict[str, int]] = {}

    def keep_all(self) -> None:
        """All that is there now is safe."""
        for top, folders, files in os.walk(self._folder):
            self._keep_folder(top)
            for name in files:
                self._keep_file(os.path.join(top, name))
            del folders

    def synced(self, handle: int) -> None:
        """A file or folder was synced."""
        path = os.readlink(f"/proc/self/fd/{handle}")
        if path == str(self._folder) or path.startswith(f"{self._folder}/"):
            self._keep_folder(path) if os.path.isdir(path) else self._keep_file(path)

    def cut(self, target: Path, rng: random.Random) -> None:
        """What is left, as a new folder."""
        self._cut(str(self._folder), target, rng)

    def close(self) -> None:
        """Let go of the files."""
        for handle in self._handles.values():
            os.close(handle)
        self._handles.clear()

    def _keep_file(self, path: str) -> None:
        handle = os.open(path, os.O_RDONLY)
        inode = os.fstat(handle).st_ino
        if inode in self._handles:
            os.close(handle)
        else:
            self._handles[inode] = handle  # an open file keeps its number, so that no other file gets it
        self._content[inode] = Path(path).read_bytes()

    def _keep_folder(self, path: str) -> None:
        self._names[path] = {entry.name: entry.inode() for entry in os.scandir(path)}

    def _cut(self, path: str, target: Path, rng: random.Random) -> None:
        target.mkdir()
        safe = self._names.get(path, {})
        live = {entry.name: entry for entry in os.scandir(path)} if os.path.isdir(path) else {}
        for name in sorted(safe.keys() | live.keys()):
            now = live.get(name)
            inode = safe.get(name)
            if now is not None and now.inode() != inode and (inode is None or rng.random() < 0.5):
                inode = now.inode() if rng.random() < 0.5 or inode is not None else None
            elif now is None and rng.random() < 0.5:
                inode = None  # its removal reached the disk
            if inode is None:
                continue
            inner = os.path.join(path, name)
            if (now is not None and now.is_dir()) or inner in self._names:
                self._cut(inner, target / name, rng)
            else:
                current = Path(inner).read_bytes() if now is not None and now.inode() == inode else None
                (target / name).write_bytes(self._after(inode, current, rng))

    def _after(self, inode: int, current: bytes | None, rng: random.Random) -> bytes:
        content = self._content.get(inode)
        if current is None or content == current:
            return b"" if content is None else content
        choices = [b"", current[: len(current) // 2], current, bytes(len(current))]
        return rng.choice(choices if content is None else [content, *choices[1:3]])


@dataclass
class Outcome:
    """What the cuts left."""

    cuts: int = 0
    stepped_back: int = 0
    lost: list[str] = field(default_factory=list)
    half_visible: list[str] = field(default_factory=list)
    not_opened: list[str] = field(default_factory=list)
    erased_left: list[str] = field(default_factory=list)


def cut_many(folder: Path, cuts: int, seed: int, monkey: Callable[..., None], durability: Durability) -> Outcome:
    """Cut the power at random moments of a random workload.

    Args:
        folder: an empty one to work in.
        cuts: how many.
        seed: of chance.
        monkey: sets an attribute for the time of the test: (object, name, value).
        durability: of the gallery.
    """
    rng = random.Random(seed)
    gallery = folder / "g"
    workload.create(gallery, durability)
    disk = Disk(gallery)
    disk.keep_all()
    outcome = Outcome()
    state: frozenset[str] = frozenset()
    running: workload.Step | None = None
    gone: frozenset[str] = frozenset()
    real = os.fsync
    checking = False

    def check() -> None:
        nonlocal checking
        checking = True
        target = folder / f"cut{outcome.cuts}"
        disk.cut(target, rng)
        _check(target, state, running, gone, outcome)
        outcome.cuts += 1
        shutil.rmtree(target)
        checking = False

    def fsync(handle: int) -> None:
        if checking:
            return
        if outcome.cuts < cuts and rng.random() < 0.3:
            check()
        real(handle)
        disk.synced(handle)

    monkey(os, "fsync", fsync)
    opened = workload.Opened.at(gallery)
    for step in workload.steps(rng, state, "run"):
        running = step
        step.run(opened)
        running, state = None, step.states(state)[-1]
        gone = gone | set(step.old)
        if outcome.cuts < cuts and (durability == "process" or rng.random() < 0.5):
            check()
        if outcome.cuts >= cuts:
            break
    disk.close()
    return outcome


def _check(
    target: Path, state: frozenset[str], running: workload.Step | None, gone: frozenset[str], outcome: Outcome
) -> None:
    where = f"cut {outcome.cuts} in {'nothing' if running is None else running.kind}"
    allowed = [state] if running is None else running.states(state)
    surely = frozenset.intersection(*allowed)
    left = b"".join(path.read_bytes() for path in target.rglob("*") if path.is_file())
    if found := [path for path in gone if path.encode() in left]:
        outcome.erased_left.append(f"{where}: {found}")
    try:
        opened = workload.Opened.at(target)
        first = frozenset(opened.paths())
        with opened.writer.locked():
            opened.writer.append([workload.row("/last/one.jpg")])
        second = frozenset(opened.paths()) - {"/last/one.jpg"}
    except (GalleryError, AssertionError) as error:
        outcome.not_opened.append(f"{where}: {error}")
        return
    outcome.stepped_back += (target / "set_aside").is_dir()
    for seen in (first, second):
        if lost := surely - seen:
            outcome.lost.append(f"{where}: {sorted(lost)}")
        elif seen not in allowed:
            outcome.half_visible.append(f"{where}: {sorted(seen.symmetric_difference(state))}")
