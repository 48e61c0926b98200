"""Looking for damage in a gallery: flipped bits, truncation, files that are gone. Nothing is deleted, ever.

What a gallery still needs of a damaged piece of its table cannot be guessed, so a piece counts as lost when one byte of
it is wrong. `set_aside` takes such pieces out of the table and moves their files to `set_aside/`: the rest can then be
searched, and pictures that are still there can be added again.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tipr.errors import GalleryCorrupt, GalleryError
from tipr.gallery import digests, settings
from tipr.gallery.lock import exclusive
from tipr.gallery.stores import STORES, Store
from tipr.gallery.table_files import ASIDE, set_aside

PASSED_OVER = frozenset({".lock", digests.NAME})
DERIVED = frozenset({ASIDE, "reports", "cache"})
"""Folders with what can be made again, and with what was found damaged before."""

Progress = Callable[[int, int], None]
"""Called with (bytes read, bytes to read)."""


@dataclass(frozen=True, slots=True)
class Damage:
    """A file that is not as it was written.

    Attributes:
        file: relative to the gallery.
        problem: what is wrong with it.
        rows: pictures that are lost with it; 0 when the gallery does not need it, None when that cannot be told.
    """

    file: str
    problem: str
    rows: int | None = 0


@dataclass(frozen=True, slots=True)
class Verification:
    """What was looked at, and what was found.

    Attributes:
        files, bytes: that were compared with their digests.
        damages: what is wrong.
        unproven: files that have no digest: a killed process left them behind, or `digests.jsonl` lost its end.
        moved: files that were moved to `set_aside/`.
    """

    files: int
    bytes: int
    damages: tuple[Damage, ...]
    unproven: tuple[str, ...]
    moved: tuple[str, ...] = ()

    @property
    def rows_lost(self) -> int:
        """Pictures in damaged pieces, as far as that can be told."""
        return sum(damage.rows or 0 for damage in self.damages)


@dataclass(slots=True)
class _Findings:
    files: int = 0
    bytes: int = 0
    wrong: dict[str, str] = field(default_factory=dict)
    unproven: list[str] = field(default_factory=list)


def verify(folder: Path | str, *, put_aside: bool = False, progress: Progress | None = None) -> Verification:
    """Compare every file of a gallery with the digest that was noted when it was written.

    Args:
        folder: of the gallery.
        put_aside: take damaged pieces out of the table, and move damaged files to `set_aside/`.
        progress: called with (bytes read, bytes to read).

    Raises:
        GalleryError: there is no gallery; or files are to be moved and another process is writing.
    """
    folder = Path(folder)
    if not folder.is_dir() or not any((folder / name).exists() for name in (settings.NAME, settings.SPARE)):
        raise GalleryError(f"{folder} is not a gallery: it has no {settings.NAME}")
    lock: AbstractContextManager[None] = exclusive(folder) if put_aside else nullcontext()
    with lock:
        found = _compare(folder, progress)
        needed = _needed(folder)
        damages = [_damage(name, problem, needed) for name, problem in sorted(found.wrong.items())]
        lost = [
            Damage(name, "is missing", rows)
            for name, rows in sorted((needed or {}).items())
            if name not in found.wrong and not (folder / name).exists()
        ]
        moved = _put_aside(folder, [*damages, *lost]) if put_aside and (damages or lost) else ()
    return Verification(found.files, found.bytes, (*damages, *lost), tuple(sorted(found.unproven)), moved)


def _compare(folder: Path, progress: Progress | None) -> _Findings:
    before = digests.Ledger.read(folder)
    found = _Findings()
    present = list(_files(folder))
    total = sum(size for _, size in present)
    read = 0
    for name, size in present:
        problem, proven = _compare_one(folder, name, before)
        if problem is not None:  # written meanwhile by another process?
            problem, proven = _compare_one(folder, name, digests.Ledger.read(folder))
        read += size
        if proven:
            found.files += 1
            found.bytes += size
        elif problem is None:
            found.unproven.append(name)
        if problem is not None:
            found.wrong[name] = problem
        if progress is not None:
            progress(read, total)
    there = {name for name, _ in present}
    for name, known in before.digests.items():
        if "/" not in name and name not in there and None not in known:
            found.wrong[name] = "is missing"
    if before.bad_lines or before.torn:
        lines = ", ".join(str(number) for number in before.bad_lines)
        found.wrong[digests.NAME] = f"line {lines} is damaged" if lines else "its last line is not whole"
    return found


def _compare_one(folder: Path, name: str, ledger: digests.Ledger) -> tuple[str | None, bool]:
    """What is wrong with a file, if anything, and whether a digest says so."""
    known = ledger.digests.get(name)
    try:
        digest = digests.digest_of(folder / name)
    except FileNotFoundError:
        return None, False  # erased meanwhile; if it is needed, it is found missing
    except OSError as error:
        return f"cannot be read ({error.strerror or error})", True
    if known is None or (digest not in known and name.endswith(digests.HINT) and _newer(folder, name, ledger)):
        return None, False
    if digest in known:
        return None, True
    sizes = [item[0] for item in known if item is not None]
    if sizes and digest[0] < min(sizes):
        return f"is truncated: {digest[0]:,} of {sizes[-1]:,} bytes are left", True
    return "is not as it was written: bits have changed", True


def _newer(folder: Path, hint: str, ledger: digests.Ledger) -> bool:
    """Whether there is a manifest that was not noted yet, so that the hint may be newer than its digest."""
    manifests = Path(hint).parent
    return any(f"{manifests}/{name}" not in ledger.digests for name in os.listdir(folder / manifests))


def _files(folder: Path) -> Iterator[tuple[str, int]]:
    for top, folders, names in os.walk(folder):
        if Path(top) == folder:
            folders[:] = [name for name in folders if name not in DERIVED]
        for name in names:
            path = os.path.join(top, name)
            if name not in PASSED_OVER and not name.endswith(".draft"):
                try:
                    yield os.path.relpath(path, folder), os.lstat(path).st_size
                except FileNotFoundError:
                    continue


def _needed(folder: Path) -> dict[str, int] | None:
    """Files of the table's newest version and the rows that are lost with each; None when that cannot be told."""
    try:
        return store_of(folder).files()
    except GalleryError:
        return None


def _damage(name: str, problem: str, needed: dict[str, int] | None) -> Damage:
    if "/" not in name:
        return Damage(name, problem)
    if needed is None or (_is_manifest(name) and name <= max(filter(_is_manifest, needed))):
        return Damage(name, problem, None)  # of the newest version, or of one that was stepped over
    return Damage(name, problem, needed.get(name, 0))


def _is_manifest(name: str) -> bool:
    return name.endswith(".manifest")


def store_of(folder: Path) -> Store:
    """The opened store of a gallery; `gallery.json` or its copy says what it is.

    Raises:
        GalleryError: it cannot be opened.
    """
    known = _settings(folder)
    return STORES[known["store"]]().open(
        folder,
        known["model"]["dim"],
        settings.token_shape(known),
        durability=known.get("durability", "power"),
    )


def _settings(folder: Path) -> dict[str, Any]:
    try:
        return settings.read_settings(folder)
    except GalleryError:
        return settings.read_settings(folder, settings.SPARE)


def _put_aside(folder: Path, damages: list[Damage]) -> tuple[str, ...]:
    """Take damaged pieces out of the table and move the files away; the caller holds the gallery's lock.

    Tombstones, holds and the note of an erasure stay where they are, and stop every process that writes: without
    them erased pictures could come back, or held ones go.
    """
    names = [damage.file for damage in damages]
    table = [name for name in names if "/" in name and (folder / name).exists()]
    moved = []
    if settings.NAME in names:  # first: the table cannot be opened without it
        if settings.SPARE in names:
            raise GalleryCorrupt(folder, f"{settings.NAME} and its copy cannot be trusted")
        moved.append(_move(folder, settings.NAME))
        settings.write_settings(folder, settings.read_settings(folder, settings.SPARE))
    if settings.SPARE in names and (folder / settings.SPARE).exists():
        moved.append(_move(folder, settings.SPARE))
    moved.extend(_move(folder, name) for name in table if _is_manifest(name))
    store = store_of(folder)
    store.let_go(names)
    moved.extend(_move(folder, name) for name in table if not _is_manifest(name))
    if digests.NAME in names:
        (folder / ASIDE).mkdir(exist_ok=True)
        shutil.copy2(folder / digests.NAME, folder / ASIDE / digests.NAME)
    ledger = digests.Ledger.read(folder)
    known = settings.read_settings(folder)
    settings.write_settings(folder, {**known, "next_id": max(known["next_id"], ledger.next_id)})
    digests.prune(folder, table)
    store.maintain()
    return tuple(moved)


def _move(folder: Path, name: str) -> str:
    return os.path.relpath(set_aside(folder, folder / name), folder)
