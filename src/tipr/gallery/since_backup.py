"""Erasures that came after a backup, done again in what is restored from it: nobody comes back silently."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tipr.errors import GalleryCorrupt, GalleryError, TiprError
from tipr.gallery import selection
from tipr.gallery.erase import Certificate, Erasure
from tipr.gallery.holds import read_holds
from tipr.gallery.reader import Reader
from tipr.gallery.settings import read_settings
from tipr.gallery.stores import Store
from tipr.gallery.tombstones import Tombstones
from tipr.gallery.writer import Writer


@dataclass(frozen=True, slots=True)
class Replayed:
    """What was erased again.

    Attributes:
        certificate: of the erasure; None when the backup held nobody who was erased since.
        on_hold: pictures that were erased since, and stay because of a legal hold that the backup holds.
    """

    certificate: Certificate | None
    on_hold: int


def origin(settings: dict[str, Any], path: str | None) -> Path | None:
    """The gallery that a backup was made of, where it still lies at its place.

    Args:
        settings: of the backup.
        path: of the gallery when the backup was made, if the backup says so.
    """
    try:
        there = path is not None and read_settings(Path(path))["created"] == settings["created"]
    except TiprError:
        return None
    return Path(path) if path is not None and there else None


def erase_again(folder: Path, store: Store, other: Path) -> Replayed:
    """Erase from a restored gallery what was erased from another one, and take over that one's marks.

    Args:
        folder: of the restored gallery; nobody else uses it yet.
        store: of it.
        other: the gallery that it was once the same as, or a backup of that one.

    Raises:
        GalleryError: there is no gallery at `other`, or its marks cannot be read.
    """
    try:
        marks = marks_of(other)
    except GalleryCorrupt as problem:
        raise GalleryError(
            f"{problem}: people who were erased since the backup could come back; name a sound copy of that gallery, "
            "or restore the backup as it was"
        ) from None
    known = read_settings(folder)
    reader = Reader(folder, store, known["model"]["dim"])
    writer = Writer(folder, known, store, reader)
    with writer.locked():
        Tombstones.read(folder).take_over(marks)
        chosen = selection.by_tombstones(reader, read_holds(folder), marks)
        certificate = writer.erase(chosen.free, chosen.chosen_by, on_hold=len(chosen.held))
    return Replayed(certificate, len(chosen.held))


def marks_of(folder: Path) -> Tombstones:
    """The marks of a gallery, those of an erasure that a kill has stopped among them.

    Raises:
        GalleryError: there is no gallery.
        GalleryCorrupt: they are damaged.
    """
    read_settings(folder)  # a wrong folder has no marks, which must not pass for "nothing was erased"
    marks, pending = Tombstones.read(folder), Erasure.pending(folder)
    return marks if pending is None else marks.with_more(pending.marks)
