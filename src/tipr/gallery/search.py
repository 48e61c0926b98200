"""The exact scan: every row that passes the filters is scored, then ordered by the one ordering rule."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tipr.errors import ConfigError, GalleryError
from tipr.gallery.bands import band, band_limits
from tipr.gallery.info import utc
from tipr.metrics.ranking import full_order, stable_similarity, top_k, two_stage_order

BLOCK = 32_768
"""Rows scored at a time, which bounds the memory of their conversion from half precision."""
GROUPS = ("identity", "camera", "path", "sha256")
"""Columns to group by, besides the keys of `key=value` tags."""


@dataclass(frozen=True, slots=True)
class Hit:
    """One result of a search: a similar appearance, not an identification.

    Attributes:
        id: the row's id.
        score: cosine similarity of query and picture, float32 dot of the query with the stored half-precision vector.
        metadata: `path, sha256, camera, time` (RFC 3339, UTC), `box, width, height, identity, tags`, and `band`, a key
            of `tipr.gallery.bands.BAND_NAMES`: how far the score stands out in this gallery.
        match: raw match logit of the second stage, which such hits are ordered by; None where it did not look.
    """

    id: int
    score: float
    metadata: Mapping[str, Any] = field(default_factory=dict)
    match: float | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Matched:
    """What the second stage said: (k,) int64 rows, rising, and their (k,) float32 match scores."""

    positions: NDArray[np.int64]
    match: NDArray[np.float32]


def scores(vectors: NDArray[np.float16], query: NDArray[np.float32]) -> NDArray[np.float32]:
    """Similarity of one query with every row; the same bits however rows are selected or blocked.

    Args:
        vectors: (N, D) float16.
        query: (D,) float32.

    Returns:
        (N,) float32.
    """
    result = np.empty(len(vectors), dtype=np.float32)
    for start in range(0, len(vectors), BLOCK):
        result[start : start + BLOCK] = stable_similarity(query, vectors[start : start + BLOCK])
    return result


def rank(
    found: NDArray[np.float32],
    k: int,
    *,
    keep: NDArray[np.bool_] | None = None,
    groups: Sequence[Any] | None = None,
    matched: Matched | None = None,
) -> NDArray[np.int64]:
    """The k best rows: score falling, ties by rising position; what was matched comes first, by match score.

    Args:
        found: (N,) float32 scores, in the order of the rows' ids.
        k: how many, >= 1.
        keep: (N,) bool, rows that take part; all when None.
        groups: N hashable values; only the best row of each value is kept. None groups with nothing.
        matched: the second stage of some of the rows that take part.

    Returns:
        (at most k,) int64 positions, best first.
    """
    candidates = _candidates(found, keep)
    taking_part = found[candidates]
    if matched is not None:
        order = two_stage_order(taking_part, np.searchsorted(candidates, matched.positions), matched.match)
    elif groups is not None:
        order = full_order(taking_part)
    else:
        order = top_k(taking_part, k)
    return candidates[order[:k] if groups is None else _best_of_groups(order, candidates, groups, k)]


def shortlist(found: NDArray[np.float32], k: int, *, keep: NDArray[np.bool_] | None = None) -> NDArray[np.int64]:
    """The k best rows that take part, for a second stage: (min(k, rows that take part),) int64, rising."""
    candidates = _candidates(found, keep)
    return np.sort(candidates[top_k(found[candidates], k)])


def hits(
    positions: NDArray[np.int64],
    found: NDArray[np.float32],
    ids: NDArray[np.int64],
    columns: Mapping[str, NDArray[Any]],
    matched: Matched | None = None,
) -> list[Hit]:
    """The hits at some positions.

    Args:
        positions: (k,) rows, best first.
        found: (N,) scores of all rows, for the bands.
        ids: (N,) ids of all rows.
        columns: all of `tipr.gallery.stores.COLUMNS`, each (N,).
        matched: the second stage, if there was one.
    """
    second = {} if matched is None else dict(zip(matched.positions.tolist(), matched.match.tolist(), strict=True))
    limits = band_limits(found)
    result = []
    for position in positions:
        score = float(found[position])
        metadata = {name: column[position] for name, column in columns.items()}
        taken = metadata["time"]
        metadata["time"] = None if np.isnat(taken) else utc(taken).isoformat().replace("+00:00", "Z")
        metadata.update(width=int(metadata["width"]), height=int(metadata["height"]), band=band(score, limits))
        result.append(Hit(int(ids[position]), score, metadata, second.get(int(position))))
    return result


def whole_pictures(
    paths: Sequence[Path | str], columns: Mapping[str, NDArray[Any]], gallery: Path
) -> NDArray[np.int64]:
    """Positions of the rows made from whole files, one for each of `paths`.

    Args:
        paths: files.
        columns: `path` and `box`, each (N,).
        gallery: for the error.

    Raises:
        GalleryError: one of the files is not there.
    """
    places = {path: place for place, path in enumerate(columns["path"]) if columns["box"][place] is None}
    try:
        return np.array([places[os.path.realpath(path)] for path in paths], dtype=np.int64)
    except KeyError as error:
        raise GalleryError(f"{error.args[0]} is not in gallery {gallery}") from None


def group_values(column: str, columns: Mapping[str, NDArray[Any]]) -> list[Any]:
    """The value of each row that `rank` groups by.

    Args:
        column: one of `GROUPS`, or a key of `key=value` tags.
        columns: `GROUPS` and `tags`, each (N,).

    Returns:
        N values, None where a row has none.

    Raises:
        ConfigError: no row has such a column.
    """
    if column in GROUPS:
        return list(columns[column])
    pairs = [dict(tag.split("=", 1) for tag in tags if "=" in tag) for tags in columns["tags"]]
    keys = sorted({key for pair in pairs for key in pair})
    if column not in keys:
        raise ConfigError(f"group_by: no column {column!r}; there are {', '.join([*GROUPS, *keys])}")
    return [pair.get(column) for pair in pairs]


def _candidates(found: NDArray[np.float32], keep: NDArray[np.bool_] | None) -> NDArray[np.int64]:
    return np.arange(len(found)) if keep is None else np.flatnonzero(keep)


def _best_of_groups(
    order: NDArray[np.int64], candidates: NDArray[np.int64], groups: Sequence[Any], k: int
) -> NDArray[np.int64]:
    seen: set[Any] = set()
    best: list[int] = []
    for place in order:
        group = groups[candidates[place]]
        if group is not None:
            if group in seen:
                continue
            seen.add(group)
        best.append(int(place))
        if len(best) == k:
            break
    return np.array(best, dtype=np.int64)
