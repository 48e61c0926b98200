"""The writing side of a gallery: its lock, its counter of ids, and every way in which rows come and go."""

from __future__ import annotations

import shutil
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tipr.gallery.erase import Certificate, Erasure
from tipr.gallery.holds import Hold, held, read_holds
from tipr.gallery.lock import exclusive
from tipr.gallery.reader import Reader
from tipr.gallery.settings import read_settings, write_settings
from tipr.gallery.stores import Row, Store

BESIDE = "beside"
"""Setting of a gallery that a rebuild is about to exchange: the folder beside it that is left over."""


class Writer:
    """Changes to one gallery; every call but `locked` needs the lock that `locked` holds.

    Args:
        path: the gallery's folder.
        settings: of the gallery.
        store: its rows.
        reader: what was read of them.
    """

    def __init__(self, path: Path, settings: dict[str, Any], store: Store, reader: Reader) -> None:
        self._path, self._settings, self._store, self._reader = path, settings, store, reader

    @contextmanager
    def locked(self) -> Iterator[Certificate | None]:
        """Hold the gallery's lock, after finishing an erasure that was killed; yields the certificate of that one.

        Raises:
            GalleryError: another process holds the lock, or the folder cannot be written.
        """
        with exclusive(self._path):
            self._settings = read_settings(self._path)
            self._remove_beside()
            self._reader.refresh()
            left = Erasure.pending(self._path)
            yield None if left is None else left.carry_out(self._path, self._store, self._reader)

    def _remove_beside(self) -> None:
        """Remove the folder that a rebuild which was killed at the exchange left behind: it holds the same people."""
        name = self._settings.get(BESIDE)
        if name is None:
            return
        beside = self._path.resolve().with_name(f".{self._path.resolve().name}.rebuilt")
        if name == beside.name:  # the settings cannot name any other folder
            shutil.rmtree(beside, ignore_errors=True)
        self._settings = {key: value for key, value in self._settings.items() if key != BESIDE}
        write_settings(self._path, self._settings)

    def append(self, rows: Sequence[Row]) -> int:
        """Commit rows under new ids, and return the first of them."""
        ids = self._reader.ids()
        first: int = max(self._settings["next_id"], int(ids[-1]) + 1 if len(ids) else 0)
        self._store.append(rows, first)
        self._reader.refresh()
        return first

    def erase(self, ids: Collection[int], chosen_by: str, *, on_hold: int = 0) -> Certificate | None:
        """Erase rows; see `Erasure.decide`. Nothing happens, and there is no certificate, without a row."""
        if not ids:
            return None
        last = int(self._reader.ids()[-1])
        if last in ids and self._settings["next_id"] <= last:  # an id is never given twice
            self._settings = {**self._settings, "next_id": last + 1}
            write_settings(self._path, self._settings)
        erasure = Erasure.decide(self._path, self._reader, ids, chosen_by, on_hold=on_hold)
        return erasure.carry_out(self._path, self._store, self._reader)

    def holds(self) -> tuple[Hold, ...]:
        """The legal holds that have not ended."""
        return read_holds(self._path)

    def held(self) -> frozenset[int]:
        """All rows that some hold keeps."""
        return held(self.holds())
