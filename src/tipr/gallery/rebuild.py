"""Encoding a gallery again with another model: beside the old one, which serves until both change places in one step.

The new gallery grows in `GALLERY/cache/rebuild`, so that an erasure takes it along, and a stopped run goes on there.
Rows keep their ids, metadata, thumbnails and times of indexing; tombstones, holds and certificates come along. Last,
the two folders are exchanged by the kernel (renameat2, man 2 rename), and the old one is removed. `beside` in the
settings names the folder that a kill at that moment leaves behind: the next writer removes it.
"""

from __future__ import annotations

import ctypes
import os
import shutil
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tipr.errors import GalleryError, TiprError
from tipr.gallery import durable, erase, holds, tombstones
from tipr.gallery.calibration import calibrate
from tipr.gallery.contents import stored_rows
from tipr.gallery.filling import COMMIT_ROWS, COMMIT_SECONDS, ENCODE_BATCH, Progress
from tipr.gallery.gallery import Gallery
from tipr.gallery.ingest import Entry, Outcome, Prepared, prepare_all
from tipr.gallery.settings import read_settings, write_settings
from tipr.gallery.stores import Row
from tipr.gallery.writer import BESIDE

if TYPE_CHECKING:
    from tipr.retrieval import Retriever

PLACE = Path("cache", "rebuild")
CARRIED = (tombstones.NAME, holds.NAME, erase.CERTIFICATES)
"""Small files that go over as they are."""


@dataclass(frozen=True, slots=True)
class Rebuilt:
    """What a rebuild did.

    Attributes:
        pictures: rows of the new gallery.
        encoded: rows that this run encoded; the others were there from a run that was stopped.
        missing: path and reason of rows whose file is gone, changed or bad.
        swapped: whether the new gallery has taken the place of the old one.
    """

    pictures: int
    encoded: int
    missing: tuple[tuple[str, str], ...]
    swapped: bool


def rebuild(
    path: Path | str, model: Path | str | Retriever, *, without_missing: bool = False, progress: Progress | None = None
) -> Rebuilt:
    """Encode every picture of a gallery again, from its file, and let the result take the gallery's place.

    Readers go on with the old gallery meanwhile; an object that was opened before the exchange must be opened again.

    Args:
        path: the gallery's folder.
        model: the new model: "demo", a model folder, a run folder, or a loaded retriever.
        without_missing: leave out rows whose file is gone, changed or bad; otherwise nothing is exchanged when there
            are some, and running it again once the files are back goes on.
        progress: called with (done, total) pictures.

    Raises:
        GalleryError: another process is writing, the disk is full, a row without a file is on legal hold, or the file
            system cannot exchange two folders; the old gallery stays as it is.
        WeightsError: the model cannot be loaded.
    """
    path = Path(path)
    old = Gallery.open(path)
    with old._writer.locked():
        new = _draft(path, old, model)
        with new._writer.locked():
            encoded, missing = _fill(old, new, progress)
            pictures = len(new._reader.ids())
            told = tuple((entry, reason) for entry, reason in missing.values())
            if missing and not without_missing:
                return Rebuilt(pictures, encoded, told, swapped=False)
            if kept := old._writer.held().intersection(missing):
                raise GalleryError(
                    f"row {min(kept)} of gallery {path} is on legal hold and its file {missing[min(kept)][0]} cannot "
                    "be used: nothing was exchanged"
                )
            new._store.maintain()
            new._reader.refresh()
            calibrate(path / PLACE, new._reader.scan(), lambda: new.retriever)  # another model has other similarities
            _exchange(path, path / PLACE)
    return Rebuilt(pictures, encoded, told, swapped=True)


def _draft(path: Path, old: Gallery, model: Path | str | Retriever) -> Gallery:
    """The new gallery: the one of a run that was stopped, if it is for this model, or an empty one."""
    from tipr.retrieval import Retriever

    place = path / PLACE
    retriever = Retriever.load(model) if isinstance(model, Path | str) else model
    settings = read_settings(path)
    keeps_tokens = "tokens" in settings["model"]
    try:
        there = read_settings(place)["model"] if place.exists() else None
        if there is not None and there["fingerprint"] == retriever.fingerprint and ("tokens" in there) == keeps_tokens:
            return Gallery.open(place, model=retriever)
    except TiprError:
        pass  # a draft that cannot be used is made anew: the gallery itself is untouched
    shutil.rmtree(place, ignore_errors=True)
    durability = settings.get("durability", "power")
    Gallery.create(place, retriever, store_tokens=keeps_tokens, durability=durability)
    return Gallery.open(place, model=retriever)


def _fill(old: Gallery, new: Gallery, progress: Progress | None) -> tuple[int, dict[int, tuple[str, str]]]:
    """Encode what the new gallery lacks; how many rows, and id -> path and reason of those that cannot be encoded."""
    ids = old._reader.ids()
    columns = old._reader.columns(("path", "box", "sha256"))
    there = new._reader.ids()
    new._store.erase(np.setdiff1d(there, ids).tolist())  # removed since the run that was stopped
    todo = np.flatnonzero(~np.isin(ids, there))
    entries = [Entry(columns["path"][place], columns["box"][place]) for place in todo]
    missing: dict[int, tuple[str, str]] = {}
    waiting: list[tuple[int, Prepared]] = []
    rows: list[tuple[int, Row]] = []
    encoded, since = 0, time.monotonic()

    def encode() -> None:
        nonlocal encoded
        if waiting:
            vectors, tokens = new._model.encode([picture.picture for _, picture in waiting])
            before = stored_rows(old._store, [row for row, _ in waiting], tokens=False)
            for place, ((row, _), known) in enumerate(zip(waiting, before, strict=True)):
                kept = None if tokens is None else tokens[place]
                rows.append((row, replace(known, vector=vectors[place].astype(np.float16), tokens=kept)))
            encoded += len(waiting)
            waiting.clear()

    def commit() -> None:
        for run in _runs(rows):
            new._store.append([row for _, row in run], run[0][0])
        rows.clear()

    try:
        for place, outcome in zip(todo.tolist(), prepare_all(entries, {}, new._model.shrink), strict=True):
            row = int(ids[place])
            if isinstance(outcome, Prepared) and outcome.sha256 == columns["sha256"][place]:
                waiting.append((row, outcome))
            else:
                missing[row] = columns["path"][place], _why(outcome)
            if len(waiting) >= ENCODE_BATCH:
                encode()
            if len(rows) >= COMMIT_ROWS or (rows and time.monotonic() - since >= COMMIT_SECONDS):
                commit()
                since = time.monotonic()
            if progress is not None:
                progress(len(ids) - len(todo) + encoded + len(missing), len(ids))
        encode()
        if progress is not None:
            progress(len(ids), len(ids))
    finally:
        commit()
    new._reader.refresh()
    return encoded, missing


def _why(outcome: Outcome) -> str:
    return "the file has changed" if isinstance(outcome, Prepared) else getattr(outcome, "reason", "unreadable")


def _runs(rows: Sequence[tuple[int, Row]]) -> Iterator[Sequence[tuple[int, Row]]]:
    """Pieces whose ids follow one another: one commit gives ids without gaps."""
    start = 0
    for place in range(1, len(rows) + 1):
        if place == len(rows) or rows[place][0] != rows[place - 1][0] + 1:
            yield rows[start:place]
            start = place


def _exchange(path: Path, draft: Path) -> None:
    """Let the draft take the gallery's place, and remove the old gallery."""
    path = path.resolve()
    draft = path / PLACE
    beside = path.with_name(f".{path.name}.rebuilt")
    before, after = read_settings(path), read_settings(draft)
    for name in CARRIED:
        if (path / name).exists():
            durable.write_text(draft / name, (path / name).read_text(encoding="utf-8"))
    settings: dict[str, Any] = {
        **after,
        "created": before["created"],
        "next_id": max(before["next_id"], after["next_id"]),
        BESIDE: beside.name,
    }
    write_settings(draft, settings)
    write_settings(path, {**before, BESIDE: beside.name})  # whoever writes next removes the folder, whichever it is
    try:
        draft.rename(beside)
        _swap(path, beside)
    except OSError as error:
        if beside.exists():
            beside.rename(draft)
        write_settings(path, before)
        raise GalleryError(
            f"gallery {path}: its file system cannot exchange two folders in one step ({error.strerror or error}); "
            "the old gallery stays"
        ) from None
    durable.sync_folder(path.parent)
    shutil.rmtree(beside)
    write_settings(path, {name: value for name, value in settings.items() if name != BESIDE})


def _swap(one: Path, two: Path) -> None:
    """Exchange two folders of one file system in one step.

    Raises:
        OSError: the kernel or the file system does not offer it.
    """
    at_cwd, exchange = -100, 2
    library = ctypes.CDLL(None, use_errno=True)
    if not hasattr(library, "renameat2"):
        raise OSError(0, "the C library has no renameat2")
    if library.renameat2(at_cwd, os.fsencode(one), at_cwd, os.fsencode(two), exchange):
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
