"""What a gallery holds, in numbers."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tipr.gallery.holds import held, read_holds
from tipr.gallery.stores import Pieces
from tipr.gallery.tombstones import Tombstones

PENDING = "erasing.json"
"""The note of an erasure that is not complete."""


@dataclass(frozen=True, slots=True)
class GalleryInfo:
    """What a gallery holds.

    Attributes:
        path: its folder.
        count: rows.
        people: different identities, where they are known.
        cameras: rows of each camera; None for those without one.
        first, last: earliest and latest time of a photograph.
        model: "demo" or the model's folder.
        fingerprint: of the model.
        dim: width of a vector.
        token_bytes: of the image tokens of each picture; 0 where none are kept.
        created: when the gallery was made.
        bytes: size on disk.
        version: of the table.
        fragments, versions: pieces and versions of the table on disk; `compact` makes them few.
        tombstones: marks that keep erased pictures away.
        held: rows that a legal hold keeps.
        erasing: an erasure was killed half-way; the next process that writes finishes it.
    """

    path: str
    count: int
    people: int
    cameras: dict[str | None, int]
    first: datetime | None
    last: datetime | None
    model: str
    fingerprint: str
    dim: int
    token_bytes: int
    created: str
    bytes: int
    version: int
    fragments: int
    versions: int
    tombstones: int
    held: int
    erasing: bool


def summary(
    path: Path, settings: Mapping[str, Any], columns: Mapping[str, NDArray[Any]], version: int, pieces: Pieces
) -> GalleryInfo:
    """Count what the columns `camera`, `time` and `identity` of all rows say, and what lies beside them."""
    known = columns["time"][~np.isnat(columns["time"])]
    model = settings["model"]
    tokens, width = model.get("tokens", (0, 0))
    cameras = Counter(columns["camera"])
    return GalleryInfo(
        path=str(path),
        count=len(columns["camera"]),
        people=len({identity for identity in columns["identity"] if identity is not None}),
        cameras=dict(sorted(cameras.items(), key=lambda item: (item[0] is None, item[0]))),
        first=utc(known.min()) if len(known) else None,
        last=utc(known.max()) if len(known) else None,
        model=model["path"] or "(built in memory)",
        fingerprint=model["fingerprint"],
        dim=model["dim"],
        token_bytes=2 * tokens * width,
        created=settings["created"],
        bytes=sum(os.lstat(os.path.join(folder, name)).st_size for folder, _, names in os.walk(path) for name in names),
        version=version,
        fragments=pieces.fragments,
        versions=pieces.versions,
        tombstones=len(Tombstones.read(path)),
        held=len(held(read_holds(path))),
        erasing=(path / PENDING).exists(),
    )


def utc(value: np.datetime64) -> datetime:
    """A time of the store as an aware datetime."""
    plain: datetime = value.astype("datetime64[us]").item()
    return plain.replace(tzinfo=UTC)
