"""One search at one version of a gallery: filters, then the scan, a second stage on request, groups, pages, hits."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict

import numpy as np
from numpy.typing import NDArray

from tipr.errors import ConfigError, GalleryError
from tipr.gallery.bands import BandLimits, band
from tipr.gallery.conditions import Columns, Condition
from tipr.gallery.filling import Progress
from tipr.gallery.filters import Filters, Moment
from tipr.gallery.info import utc
from tipr.gallery.paging import Cursor, fingerprint
from tipr.gallery.reader import Reader
from tipr.gallery.stores import COLUMNS, Coded
from tipr.gallery.stores.exact import ExactScan
from tipr.gallery.stores.near import NearScan
from tipr.gallery.stores.on_disk import OnDisk
from tipr.metrics.best_rows import Ranked
from tipr.metrics.ranking import full_order, top_k, two_stage_order

if TYPE_CHECKING:
    from tipr.gallery.model import Say
    from tipr.retrieval import Retriever

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


class SearchOptions(TypedDict, total=False):
    """What a search can be told; see `tipr.gallery.Gallery.search_page`."""

    camera: str | Sequence[str] | None
    since: Moment | None
    until: Moment | None
    path: str | None
    tags: str | Sequence[str] | None
    where: str | Condition | None
    group_by: str | None
    language: str | None
    rerank: int | None
    approximate: bool
    model: Retriever | None
    say: Say | None
    progress: Progress | None


@dataclass(frozen=True, slots=True)
class Page:
    """Some hits of a search, and where the next ones start.

    Attributes:
        hits: best first.
        cursor: to be given as `after` for the next page; None when there is none, or when it was reranked.
    """

    hits: list[Hit]
    cursor: str | None


@dataclass(frozen=True, slots=True, eq=False)
class Matched:
    """What the second stage said: (k,) int64 rows, rising, and their (k,) float32 match scores."""

    positions: NDArray[np.int64]
    match: NDArray[np.float32]


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


SecondStage = Callable[[NDArray[np.int64]], Matched]
"""Rising positions of a shortlist -> their match scores."""
Limits = Callable[[NDArray[np.float32], str | None], BandLimits]
"""A query's vector, and its words where it is words alone -> its bands in this gallery."""


class Search:
    """A search of what a reader shows; valid as long as the reader is not refreshed.

    Args:
        reader: of a gallery with at least one row.
        scan: its rows.
        filters: applied before anything is ranked.
        group_by: see `tipr.gallery.Gallery.search`.
        limits: the bands of a query.

    Raises:
        ConfigError: `filters` or `group_by` names a column that no row has.
    """

    def __init__(
        self,
        reader: Reader,
        scan: ExactScan | NearScan | OnDisk,
        filters: Filters,
        group_by: str | None,
        *,
        limits: Limits,
    ) -> None:
        self._reader, self._scan, self._filters, self._group_by = reader, scan, filters, group_by
        self._limits = limits
        self._keep = reader.passing(filters)
        self._group: Callable[[int], Any] | None = None
        if group_by is not None:
            self._group = group_of(group_by, reader.coded((group_by,) if group_by in GROUPS else ("tags",)))

    def page(
        self,
        query: NDArray[np.float32],
        k: int,
        *,
        words: str | None = None,
        after: str | None = None,
        rerank: int | None = None,
        second: SecondStage | None = None,
    ) -> Page:
        """The k best rows, or those that follow the ones before.

        Args:
            query: (D,).
            k: how many, >= 1.
            words: the query, where it is words alone.
            after: cursor of the page before; not with `rerank`.
            rerank: how many of the best rows `second` judges.
            second: the second stage.

        Raises:
            ConfigError: `after` is not a cursor of this search.
        """
        ids = self._scan.ids
        search = fingerprint(query, self._filters, self._group_by, str(self._reader.path))
        cursor = None if after is None else Cursor.read(after, search)
        seen = 0 if cursor is None else cursor.seen
        newest = int(ids[-1]) if cursor is None else cursor.newest
        keep = self._keep
        if newest < ids[-1]:
            there = ids <= newest
            keep = there if keep is None else keep & there
        matched = None
        if rerank is not None and second is not None:
            matched = second(np.sort(self._scan.best(query[None], rerank, keep)[0].positions))
        found = self._best(query, seen + k + 1, keep, matched)
        if cursor is not None:
            behind = cursor.follows(found.scores, ids[found.positions])
            found = Ranked(found.positions[behind], found.scores[behind])
        shown = Ranked(found.positions[:k], found.scores[:k])
        following = None
        if len(found.positions) > k and matched is None:
            last = int(ids[shown.positions[-1]])
            following = str(Cursor(seen + k, newest, last, float(shown.scores[-1]), search))
        return Page(self._hits([shown], query[None], [words], matched)[0], following)

    def many(self, queries: NDArray[np.float32], words: Sequence[str | None], k: int) -> list[list[Hit]]:
        """The k best rows for each of (Q, D) queries; without groups, one pass over the rows serves all."""
        if self._group is None:
            found = self._scan.best(queries, k, self._keep)
        else:
            found = [self._best(query, k, self._keep, None) for query in queries]
        return self._hits(found, queries, words, None)

    def _best(
        self, query: NDArray[np.float32], k: int, keep: NDArray[np.bool_] | None, matched: Matched | None
    ) -> Ranked:
        """The k best rows after grouping, what was matched first."""
        if self._group is None and matched is None:
            return self._scan.best(query[None], k, keep)[0]
        count = max(4 * k, 0 if matched is None else len(matched.positions) + k)
        while True:
            ranked = self._scan.best(query[None], count, keep)[0]
            rising = np.argsort(ranked.positions)
            positions, scores = ranked.positions[rising], ranked.scores[rising]
            groups = None if self._group is None else [self._group(int(place)) for place in positions]
            part = matched and Matched(np.searchsorted(positions, matched.positions), matched.match)
            order = rank(scores, k, groups=groups, matched=part)
            if len(order) == k or len(positions) < count:
                return Ranked(positions[order], scores[order])
            count *= 4

    def _hits(
        self,
        found: Sequence[Ranked],
        queries: NDArray[np.float32],
        words: Sequence[str | None],
        matched: Matched | None,
    ) -> list[list[Hit]]:
        second = {} if matched is None else dict(zip(matched.positions.tolist(), matched.match.tolist(), strict=True))
        places = np.unique(np.concatenate([ranked.positions for ranked in found]))
        columns = self._reader.rows(self._scan.ids[places], COLUMNS)
        result = []
        for ranked, query, text in zip(found, queries, words, strict=True):
            limits = self._limits(query, text)
            rows = np.searchsorted(places, ranked.positions)
            result.append(
                [
                    _hit(
                        columns,
                        row,
                        row_id=int(self._scan.ids[place]),
                        score=float(score),
                        limits=limits,
                        match=second.get(int(place)),
                    )
                    for place, score, row in zip(ranked.positions, ranked.scores, rows.tolist(), strict=True)
                ]
            )
        return result


def _hit(
    columns: Mapping[str, NDArray[Any]], row: int, *, row_id: int, score: float, limits: BandLimits, match: float | None
) -> Hit:
    metadata = {name: column[row] for name, column in columns.items()}
    taken = metadata["time"]
    metadata["time"] = None if np.isnat(taken) else utc(taken).isoformat().replace("+00:00", "Z")
    metadata.update(width=int(metadata["width"]), height=int(metadata["height"]), band=band(score, limits))
    return Hit(row_id, score, metadata, match)


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


def group_of(column: str, columns: Columns) -> Callable[[int], Any]:
    """What `rank` groups by.

    Args:
        column: one of `GROUPS`, or a key of `key=value` tags.
        columns: that column, or `tags`.

    Returns:
        Position of a row -> its value, None where it has none.

    Raises:
        ConfigError: no row has such a column.
    """
    if column in GROUPS:
        return columns[column].__getitem__
    tags = columns["tags"]
    different = [_pairs(value) for value in (tags.values if isinstance(tags, Coded) else tags)]
    keys = sorted({key for pairs in different for key in pairs})
    if column not in keys:
        raise ConfigError(f"group_by: no column {column!r}; there are {', '.join([*GROUPS, *keys])}")
    codes = tags.codes if isinstance(tags, Coded) else np.arange(len(tags))
    return lambda place: different[codes[place]].get(column)


def _pairs(tags: tuple[str, ...]) -> dict[str, str]:
    return dict(tag.split("=", 1) for tag in tags if "=" in tag)


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
