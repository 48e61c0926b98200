"""What a gallery holds, by file and by content: how added, unchanged, changed, moved and vanished files are told apart.

A row is a file with a content (and a box). Equal content under a second path is a row of its own that shares vector,
thumbnail and tokens with the first: it is not encoded again.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from tipr.errors import GalleryError
from tipr.gallery.filling import Content
from tipr.gallery.ingest import Entry, Known, Prepared, Skipped, list_entries
from tipr.gallery.reader import Reader
from tipr.gallery.stores import Box, Row, Store

FACTS = ("path", "sha256", "camera", "time", "box", "width", "height", "identity", "tags", "indexed")


@dataclass(frozen=True)
class Contents:
    """What a gallery holds at one version.

    Attributes:
        known: ids of rows by file, box and digest.
        row_of: content -> a row that has it; `Filling` adds the rows that it commits.
    """

    known: Known
    row_of: dict[Content, int] = field(default_factory=dict)

    @classmethod
    def read(cls, reader: Reader) -> Contents:
        """Of the version that the reader stands at."""
        columns = reader.columns(("path", "box", "sha256"))
        known: dict[Any, dict[str, list[int]]] = {}
        row_of: dict[Content, int] = {}
        for row, path, box, sha256 in zip(reader.ids().tolist(), *columns.values(), strict=True):
            known.setdefault((path, box), {}).setdefault(sha256, []).append(row)
            row_of.setdefault((sha256, box), row)
        return cls(known, row_of)


def stored_rows(store: Store, ids: Sequence[int], *, tokens: bool) -> list[Row]:
    """Rows as they were committed, in the order asked for; KeyError for an id that is not there.

    Args:
        store: at the newest version.
        ids: of rows.
        tokens: whether the store keeps image tokens.
    """
    if not ids:
        return []
    columns = store.rows(ids, ("vector", *FACTS))
    thumbnails = store.thumbnails(ids)
    kept = store.tokens(ids) if tokens else [None] * len(ids)
    rows = []
    for place, thumbnail in enumerate(thumbnails):
        facts = {name: columns[name][place] for name in FACTS}
        facts.update(
            time=_moment(facts["time"]),
            indexed=_moment(facts["indexed"]),
            width=int(facts["width"]),
            height=int(facts["height"]),
        )
        rows.append(Row(vector=columns["vector"][place], thumbnail=thumbnail, tokens=kept[place], **facts))
    return rows


def _moment(value: np.datetime64) -> datetime | None:
    return None if np.isnat(value) else value.astype("datetime64[us]").astype(datetime).replace(tzinfo=UTC)


@dataclass(eq=False)
class Followed:
    """A folder compared with the rows that were made from it.

    Attributes:
        entries: pictures to look at: all files of the folder, those with boxes box by box.
        listed: what cannot even be listed.
        gone: rows whose file is not there any more, by content.
        moved: rows among them whose content was found under another name, filled by `inherit`.
        store, tokens: where facts of older rows are read.
    """

    entries: list[Entry]
    listed: list[Skipped]
    gone: dict[Content, list[int]]
    store: Store
    tokens: bool
    moved: set[int] = field(default_factory=set)

    @classmethod
    def compare(cls, folder: Path | str, reader: Reader, store: Store, *, tokens: bool, camera: str | None) -> Followed:
        """List a folder and all below it, and find which rows of it are gone.

        Raises:
            GalleryError: there is no such folder, or it is empty though the gallery has pictures of it: then a disk is
                missing rather than every picture deleted.
        """
        if not os.path.isdir(folder):
            raise GalleryError(f"no folder at {folder}: nothing was changed")
        entries, listed = list_entries([folder], recursive=True, camera=camera)
        root = os.path.join(os.path.realpath(folder), "")
        unlisted = tuple(os.path.join(os.path.realpath(item.path), "") for item in listed if item.code == "folder")
        columns = reader.columns(("path", "box", "sha256"))
        boxes: dict[str, list[Box | None]] = {}
        gone: dict[Content, list[int]] = {}
        for row, path, box, sha256 in zip(reader.ids().tolist(), *columns.values(), strict=True):
            if not path.startswith(root) or path.startswith(unlisted):
                continue
            if os.path.lexists(path):
                if box not in boxes.setdefault(path, []):
                    boxes[path].append(box)
            else:
                gone.setdefault((sha256, box), []).append(row)
        if gone and not entries:
            count = sum(map(len, gone.values()))
            raise GalleryError(
                f"{folder} holds no picture, and the gallery has {count:,} of it: is a disk missing? nothing was "
                "changed; `tipr index remove` removes them"
            )
        asked = [
            Entry(entry.path, box, camera=entry.camera)
            for entry in entries
            for box in boxes.get(os.path.realpath(entry.path), [None])
        ]
        return cls(asked, listed, gone, store, tokens)

    def inherit(self, picture: Prepared) -> Prepared:
        """What is known of a picture whose file has moved, or changed, stays known under its new name or content."""
        before = self.gone.get((picture.sha256, picture.entry.box), ())
        source = next((row for row in before if row not in self.moved), None)
        moved = source is not None
        if source is None:
            source = next(iter(picture.stale), None)
        if source is None:
            return picture
        (row,) = stored_rows(self.store, [source], tokens=self.tokens)
        if moved:
            self.moved.add(source)
        return picture.with_facts_of(row, moved=moved)

    @property
    def vanished(self) -> Collection[int]:
        """Rows whose file is gone and was not found elsewhere."""
        return {row for rows in self.gone.values() for row in rows} - self.moved
