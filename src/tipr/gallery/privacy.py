"""What a gallery offers to those who answer for the people in it: erasure, retention, legal holds, certificates."""

from __future__ import annotations

from datetime import datetime, timedelta
from pathlib import Path

import numpy as np

from tipr.errors import ConfigError, GalleryError
from tipr.gallery import selection
from tipr.gallery.calibration import limits_of, read_calibration
from tipr.gallery.erase import Certificate, read_certificates
from tipr.gallery.filters import Filters
from tipr.gallery.holds import Hold, read_holds, with_hold, without_hold, write_holds
from tipr.gallery.ingest import Entry, Prepared, Skipped, prepare
from tipr.gallery.model import GalleryModel
from tipr.gallery.reader import Reader
from tipr.gallery.selection import Candidates
from tipr.gallery.since_backup import marks_of
from tipr.gallery.tombstones import Tombstones
from tipr.gallery.writer import Writer
from tipr.metrics.ranking import stable_similarity

TOP = 100
"""Pictures that one erasure by likeness takes at most, besides exact copies."""


class Privacy:
    """`Gallery.privacy`: choose rows, look at them, then erase or hold exactly those.

    Args:
        path: the gallery's folder.
        reader: its rows.
        writer: changes them.
        model: encodes a picture that rows are compared with.
    """

    def __init__(self, path: Path, reader: Reader, writer: Writer, model: GalleryModel) -> None:
        self._path, self._reader, self._writer, self._model = path, reader, writer, model

    def find(
        self,
        *,
        identity: int | str | None = None,
        like: Path | str | None = None,
        where: Filters | str | None = None,
        erased_in: Path | str | None = None,
        at_least: float | None = None,
        top: int = TOP,
    ) -> Candidates:
        """The rows of a person, for a person to look at.

        Args:
            identity: rows that are known to show this person.
            like: rows of this picture's file, and rows that look like it: a similar appearance, not an identification.
            where: rows that pass these filters, or this expression of `tipr.gallery.where`.
            erased_in: rows that were erased in this other gallery: the one that a restored backup was made of.
            at_least: least similarity with `like`; by default the one from which a row stands out in this gallery.
            top: how many rows that look like `like` at most.

        Raises:
            ConfigError: not exactly one of `identity`, `like`, `where` and `erased_in` is given, or `top` < 1.
            GalleryError: the picture cannot be read, or the other gallery is none.
            WeightsError, GalleryMismatch: the model that `like` needs is gone or is another one.
        """
        if sum(value is not None for value in (identity, like, where, erased_in)) != 1:
            raise ConfigError("name exactly one of identity, like, where and erased_in")
        if top < 1:
            raise ConfigError(f"top must be at least 1, not {top}")
        if like is not None:
            return self._like(like, at_least, top)
        holds = self.holds()
        if where is not None:
            filters = Filters.of(where=where) if isinstance(where, str) else where
            return self._reader.consistently(lambda: selection.by_filters(self._reader, holds, filters))
        if erased_in is not None:
            marks = marks_of(Path(erased_in))
            return self._reader.consistently(lambda: selection.by_tombstones(self._reader, holds, marks))
        assert identity is not None
        return self._reader.consistently(lambda: selection.by_identity(self._reader, holds, identity))

    def expired(self, older_than: timedelta, where: Filters | None = None) -> Candidates:
        """The rows taken longer ago than this; without a time, or with one after their indexing, indexed longer ago.

        Raises:
            ConfigError: the time is not above zero.
        """
        if older_than <= timedelta(0):
            raise ConfigError(f"older_than must be above zero, not {older_than}")
        filters, holds = where or Filters(), self.holds()
        return self._reader.consistently(lambda: selection.by_age(self._reader, holds, older_than, filters))

    def erase(self, chosen: Candidates) -> Certificate | None:
        """Erase rows for good, and keep their files from being added again.

        No byte of their vectors, thumbnails, tokens, names and paths stays in any file below the gallery's folder. Rows
        that are on hold, or gone already, are left out. An erasure that is killed is completed by the next writer. The
        marks of another gallery by which rows were chosen are taken over, for files that are not here.

        Returns:
            The certificate; None when there was no row to erase.

        Raises:
            GalleryError: another process is writing, or something cannot be written.
        """
        with self._writer.locked():
            if chosen.marks is not None:
                Tombstones.read(self._path).take_over(chosen.marks)
            there = chosen.ids[np.isin(chosen.ids, self._reader.ids())].tolist()
            held = self._writer.held().intersection(there)
            going = [row for row in there if row not in held]
            return self._writer.erase(going, chosen.chosen_by, on_hold=len(held))

    def finish(self) -> Certificate | None:
        """Complete an erasure that was killed; its certificate, or None when there was none.

        Raises:
            GalleryError: another process is writing, or something cannot be written.
        """
        with self._writer.locked() as certificate:
            return certificate

    def certificates(self) -> list[Certificate]:
        """All that was erased, oldest first."""
        return read_certificates(self._path)

    def holds(self) -> tuple[Hold, ...]:
        """The legal holds that have not ended, by name."""
        return read_holds(self._path)

    def hold(self, name: str, chosen: Candidates, *, reason: str, until: datetime) -> Hold:
        """Keep rows from being erased until a time; a hold of the same name is replaced.

        Pictures that are added later are not held.

        Raises:
            ConfigError: no name, no reason, or a time that is over.
            GalleryError: no row was chosen, or another process is writing.
        """
        with self._writer.locked():
            rows = chosen.ids[np.isin(chosen.ids, self._reader.ids())].tolist()
            if not rows:
                raise GalleryError(f"no picture of gallery {self._path} was chosen: there is nothing to hold")
            new = Hold(name, reason, until, frozenset(rows))
            write_holds(self._path, with_hold(self.holds(), new))
        return new

    def release(self, name: str) -> None:
        """End a hold.

        Raises:
            GalleryError: there is none of this name, or another process is writing.
        """
        with self._writer.locked():
            write_holds(self._path, without_hold(self.holds(), name, self._path))

    def _like(self, like: Path | str, at_least: float | None, top: int) -> Candidates:
        (outcome,) = prepare([[Entry(str(like))]], {}, self._model.shrink)
        if not isinstance(outcome, Prepared):
            told = f"{outcome.reason}; {outcome.hint}" if isinstance(outcome, Skipped) else "cannot be read"
            raise GalleryError(f"{like}: {told}")
        vector = np.asarray(self._model.retriever.encode_images([outcome.picture])[0], dtype=np.float32)
        holds, measured = self.holds(), read_calibration(self._path)

        def find() -> Candidates:
            if not len(self._reader.ids()):
                raise GalleryError(f"gallery {self._path} is empty: there is nothing to compare with")
            background = stable_similarity(vector, self._reader.scan().sample)
            limits = limits_of(background, measured, language=None, words=None)  # as `tipr search --image` has them
            return selection.by_picture(
                self._reader, holds, vector, outcome.sha256, limits=limits, at_least=at_least, top=top
            )

        return self._reader.consistently(find)
