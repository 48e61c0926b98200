"""Adding pictures to a gallery, and following a folder: one pass, which can be stopped and continued."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path

from tipr.errors import ConfigError, GalleryError
from tipr.gallery.contents import Contents, Followed, stored_rows
from tipr.gallery.filling import Filling, Progress
from tipr.gallery.ingest import Entry, IngestReport, Prepared, Skipped, list_entries, prepare_all
from tipr.gallery.model import GalleryModel
from tipr.gallery.path_pattern import PathPattern
from tipr.gallery.reader import Reader
from tipr.gallery.stores import Store
from tipr.gallery.tombstones import Tombstones
from tipr.gallery.writer import Writer

SKIP_REPORT = Path("reports", "skipped.jsonl")
"""Below a gallery: what the last pass could not use, one JSON object a line. An erasure removes it."""


class Indexing:
    """`Gallery.add` and `Gallery.sync`.

    Args:
        path: the gallery's folder.
        store: its rows.
        reader: what was read of them.
        writer: changes them.
        model: encodes.
    """

    def __init__(self, path: Path, store: Store, reader: Reader, writer: Writer, model: GalleryModel) -> None:
        self._path, self._store, self._reader, self._writer, self._model = path, store, reader, writer, model

    def add(
        self,
        paths: Sequence[Path | str],
        *,
        recursive: bool,
        manifests: Sequence[Path | str],
        camera: str | None,
        pattern: str | None,
        progress: Progress | None,
    ) -> IngestReport:
        """See `Gallery.add`."""
        form = _checked(camera, pattern)
        entries, listed = list_entries(paths, recursive=recursive, manifests=manifests, camera=camera)
        with self._writer.locked():
            return self._fill(entries, listed, form, None, progress)

    def sync(
        self, folder: Path | str, *, camera: str | None, pattern: str | None, progress: Progress | None
    ) -> IngestReport:
        """See `Gallery.sync`."""
        form = _checked(camera, pattern)
        with self._writer.locked():
            tokens = self._model.token_shape is not None
            followed = Followed.compare(folder, self._reader, self._store, tokens=tokens, camera=camera)
            return self._fill(followed.entries, followed.listed, form, followed, progress)

    def _fill(
        self,
        entries: list[Entry],
        listed: list[Skipped],
        form: PathPattern | None,
        followed: Followed | None,
        progress: Progress | None,
    ) -> IngestReport:
        if form is not None:
            entries, unlike = _by_pattern(form, entries)
            listed = [*listed, *unlike]
        contents = Contents.read(self._reader)
        tokens = self._model.token_shape is not None
        run = Filling(
            self._model.encode,
            self._writer.append,
            row_of=contents.row_of,
            stored=lambda ids: stored_rows(self._store, ids, tokens=tokens),
            total=len(entries) + len(listed),
            progress=progress,
        )
        run.skipped.extend(listed)
        buried = Tombstones.read(self._path).buried
        try:
            for outcome in prepare_all(entries, contents.known, self._model.shrink, buried=buried):
                inherits = followed is not None and isinstance(outcome, Prepared)
                run.take(followed.inherit(outcome) if inherits else outcome)  # type: ignore[union-attr,arg-type]
            run.encode()
        except KeyboardInterrupt:
            run.commit()
            raise
        run.commit()
        held = self._writer.held()
        run.stale -= held
        moved = frozenset() if followed is None else frozenset(followed.moved)
        vanished = frozenset() if followed is None else frozenset(followed.vanished) - held
        # only now, when every picture that replaces a row is committed
        self._writer.erase(sorted(run.stale | vanished | (moved - held)), "replaced")
        if run.added:
            self._store.maintain()
        kept = _write_skip_report(self._path, run.skipped)
        return replace(run.report(), moved=len(moved), vanished=len(vanished), skip_report=kept)


def _checked(camera: str | None, pattern: str | None) -> PathPattern | None:
    if camera is not None and not camera.strip():
        raise ConfigError("camera: the name must not be empty")
    return None if pattern is None else PathPattern.parse(pattern)


def _by_pattern(form: PathPattern, entries: Sequence[Entry]) -> tuple[list[Entry], list[Skipped]]:
    known, unlike = [], []
    for entry in entries:
        read = form.read(entry)
        if read is None:
            reason = f"its path is not of the form {form.text}"
            unlike.append(Skipped(entry.path, reason, "correct --pattern, or add it without", "pattern"))
        else:
            known.append(read)
    return known, unlike


def _write_skip_report(folder: Path, skipped: Sequence[Skipped]) -> str | None:
    """Write, or remove, the list of skipped files; its path when there is one.

    Raises:
        GalleryError: it cannot be written.
    """
    path = folder / SKIP_REPORT
    try:
        if not skipped:
            path.unlink(missing_ok=True)
            return None
        path.parent.mkdir(exist_ok=True)
        draft = path.with_name(f".{path.name}.draft")
        with draft.open("w", encoding="utf-8", errors="backslashreplace") as file:
            file.writelines(json.dumps(asdict(item), ensure_ascii=False) + "\n" for item in skipped)
        os.replace(draft, path)
    except OSError as error:
        raise GalleryError(f"cannot write to gallery {folder}: {error.strerror or error}") from None
    return str(path)
