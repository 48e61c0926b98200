"""The exact scan: all vectors of a store in memory, in half precision, at one version of it.

Two passes give the order of `tipr.metrics.ranking` to the last bit at the speed of memory (`tipr.metrics.best_rows`).
The first is FAISS (extra `scan`) for one query, and a matrix product for many, or without FAISS.

Nothing here is on disk: an erased row is gone from memory with the next `follow`, but for the `GATHERED` rows that each
thread copied together last, which its next search with a filter or by codes writes over.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from tipr.gallery.stores import Store
from tipr.gallery.stores.segment import (
    GATHERED,
    Found,
    Mask,
    Segment,
    faiss_installed,
    load_faiss,
    rotation,
    workers,
)
from tipr.metrics.best_rows import Block, Positions, Ranked, Vectors, kth_best, ranked_from_blocks
from tipr.metrics.first_scores import slack
from tipr.metrics.ranking import stable_similarity, top_k

SEGMENT = 65_536
"""Rows of one piece: pieces are scanned beside each other, and a change copies only the pieces that it touches."""
FAISS_FROM = 50_000
"""Rows from which loading FAISS (a fifth of a second) pays."""
BATCH_FROM = 6
"""Queries from which one matrix product is cheaper than FAISS query by query."""
DEEP = 4_096
"""Results from which the heaps of FAISS cost more than a matrix product."""
FEW = 0.15
"""Share of the rows below which those that pass a filter are copied together, instead of being passed by."""
SAMPLE = 2_048
"""Rows that stand for the whole gallery where a query's background is needed."""
CANDIDATES = 1_024
"""Rows that a search by codes looks at exactly, at least."""


class _Job(NamedTuple):
    """Some rows to be searched: how many there are, where they start, and count -> the best so many of them."""

    size: int
    start: int
    best: Callable[[int], Found]


@dataclass(frozen=True, eq=False)
class ExactScan:
    """Rows of one version of a store; `follow` gives the scan of another one.

    Attributes:
        ids: (N,) int64, rising.
        segments: their vectors, in the same order.
        fast: use FAISS.
    """

    ids: NDArray[np.int64]
    segments: tuple[Segment, ...]
    fast: bool
    dim: int

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def bytes(self) -> int:
        """Of the vectors."""
        return 2 * self.dim * len(self)

    @classmethod
    def of(cls, store: Store, dim: int, *, fast: bool | None = None) -> ExactScan:
        """Read all vectors of a store at the version that it shows.

        Args:
            store: where they are.
            dim: D.
            fast: use FAISS; by default where it is installed and there are enough rows.

        Raises:
            MissingExtra: FAISS is asked for, and not installed.
        """
        ids = store.ids()
        if fast is None:
            fast = faiss_installed() and len(ids) >= FAISS_FROM
        elif fast:
            load_faiss()
        return cls(ids, _filled(store, ids, dim, fast), fast, dim)

    def follow(self, store: Store) -> ExactScan:
        """The scan of what the store shows now; only vectors of new rows are read."""
        ids = store.ids()
        if np.array_equal(ids, self.ids):
            return self
        if len(ids) >= FAISS_FROM and faiss_installed() and not self.fast:
            return ExactScan.of(store, self.dim)
        last = int(self.ids[-1]) if len(self.ids) else -1
        new = int(np.searchsorted(ids, last, side="right"))
        stays = _among(self.ids, ids)
        if int(stays.sum()) != new:  # rows between the known ones: not the store that this scan was made from
            return ExactScan.of(store, self.dim, fast=self.fast)
        segments = []
        for start, segment in _placed(self.segments):
            keep = stays[start : start + len(segment)]
            if keep.all():
                segments.append(segment)
            elif keep.any():
                segments.append(Segment(segment.rows[keep], fast=self.fast))
        if new < len(ids):
            blocks = list(store.blocks(after=last))  # in any order
            order = np.argsort(np.concatenate([numbers for numbers, _ in blocks]))
            added = np.concatenate([vectors for _, vectors in blocks])[order]
            if segments and len(segments[-1]) + len(added) <= SEGMENT:
                added = np.concatenate([segments.pop().rows, added])
            segments += [
                Segment(added[start : start + SEGMENT], fast=self.fast) for start in range(0, len(added), SEGMENT)
            ]
        return ExactScan(ids, tuple(segments), self.fast, self.dim)

    def best(self, queries: NDArray[np.float32], count: int, keep: Mask | None = None) -> list[Ranked]:
        """The best rows for each query, by the one ordering rule.

        Args:
            queries: (Q, D) float32.
            count: how many, >= 1.
            keep: (N,) bool, rows that take part; all when None.

        Returns:
            Q times at most `count` rows: `stable_similarity` falling, ties by rising position.
        """
        taking_part = len(self) if keep is None else int(np.count_nonzero(keep))
        count = min(count, taking_part)
        if not count:
            empty = Ranked(np.empty(0, np.int64), np.empty(0, np.float32))
            return [empty for _ in queries]
        if self.fast and len(queries) < BATCH_FROM and count < min(DEEP, max(1, taking_part // 4)):
            return [self._ranked(query, count, self._jobs(query, keep, taking_part), keep) for query in queries]
        return ranked_from_blocks(queries, self._blocks(keep), count)

    @property
    def codable(self) -> bool:
        """Whether `likely` can be asked."""
        return self.fast

    def likely(self, query: NDArray[np.float32], count: int, keep: Mask | None = None, *, share: float = 1.0) -> Ranked:
        """As `best` for one (D,) query, of the rows that codes choose; some of the best may be missing.

        The last piece, which grows, is searched as it is. Where a filter leaves a `share` of the rows, the more of them
        are looked at; still, fewer than `count` may be found.
        """
        looked_at = int(max(3 * count + 64, CANDIDATES / len(self.segments)) / share)
        turned = rotation(self.dim).apply(query[None])
        jobs: list[_Job] = []
        for start, segment in _placed(self.segments):
            part = None if keep is None else keep[start : start + len(segment)]
            if segment is self.segments[-1]:
                best = partial(segment.search, query, keep=part)
                jobs.insert(0, _Job(len(segment), start, best))  # first, for it takes longest
            else:
                best = partial(segment.search_likely, query, turned, looked_at=looked_at, keep=part)
                jobs.append(_Job(looked_at, start, best))
        return self._ranked(query, count, jobs, keep)

    def rows(self, positions: Positions) -> Vectors:
        """(n, D) float16 of some rows; a copy."""
        result = np.empty((len(positions), self.dim), dtype=np.float16)
        for start, segment in _placed(self.segments):
            here = (positions >= start) & (positions < start + len(segment))
            result[here] = segment.rows[positions[here] - start]
        return result

    @cached_property
    def sample(self) -> NDArray[np.float64]:
        """(at most `SAMPLE`, D) rows at even distances: the background of a query."""
        places = np.unique(np.linspace(0, len(self) - 1, min(len(self), SAMPLE)).astype(np.int64))
        return self.rows(places).astype(np.float64)

    def _ranked(self, query: NDArray[np.float32], count: int, jobs: Sequence[_Job], keep: Mask | None) -> Ranked:
        """The best rows of all jobs, which together hold the rows that `keep` says."""
        wrong = slack(self.dim, float(np.linalg.norm(query)), max(segment.longest for segment in self.segments))
        wanted = [count + max(32, count // 8)] * len(jobs)
        results: list[Any] = [None] * len(jobs)
        todo = list(range(len(jobs)))
        while todo:
            found = workers().map(lambda n: jobs[n].best(wanted[n]), todo)
            for n, (places, values) in zip(todo, found, strict=True):
                results[n] = (places + jobs[n].start, values)
            values = np.concatenate([values for _, values in results])
            lowest = kth_best(values, count) - 2 * wrong
            # a job that may hold more rows as good as that is asked for more of them
            todo = [
                n
                for n, (_, values) in enumerate(results)
                if len(values) == wanted[n] < jobs[n].size and float(values[-1]) >= lowest
            ]
            for n in todo:
                wanted[n] = min(8 * wanted[n], jobs[n].size)
        positions = np.concatenate([places for places, _ in results])
        chosen = np.flatnonzero(values >= lowest)
        rising = chosen[np.argsort(positions[chosen])]
        exact = stable_similarity(query, self.rows(positions[rising]))
        if len(exact) and float(np.abs(exact - values[rising]).max()) > wrong:  # arithmetic that nobody promised
            return ranked_from_blocks(query[None], self._blocks(keep), count)[0]
        order = top_k(exact, count)
        return Ranked(positions[rising][order], exact[order])

    def _jobs(self, query: NDArray[np.float32], keep: Mask | None, taking_part: int) -> list[_Job]:
        """The rows that take part: the pieces, or where they are few the rows themselves."""
        if keep is not None and taking_part < FEW * len(self):
            return self._among(query, np.flatnonzero(keep))
        jobs = []
        for start, segment in _placed(self.segments):
            part = None if keep is None else keep[start : start + len(segment)]
            if part is None or part.any():
                jobs.append(_Job(len(segment), start, partial(segment.search, query, keep=part)))
        return jobs

    def _among(self, query: NDArray[np.float32], positions: Positions) -> list[_Job]:
        """Some rows, at rising positions."""
        jobs = []
        for start, segment in _placed(self.segments):
            first, last = np.searchsorted(positions, [start, start + len(segment)])
            for begin in range(first, last, GATHERED):
                places = positions[begin : min(begin + GATHERED, last)] - start
                jobs.append(_Job(len(places), start, partial(segment.search_among, query, places=places)))
        return jobs

    def _blocks(self, keep: Mask | None) -> Iterator[Block]:
        """The rows that take part."""
        for start, segment in _placed(self.segments):
            places = np.arange(start, start + len(segment))
            part = None if keep is None else keep[places[0] : places[-1] + 1]
            if part is None or part.all():
                yield Block(places, segment.rows, segment.longest)
            elif part.any():
                yield Block(places[part], segment.rows[part], segment.longest)


def _filled(store: Store, ids: NDArray[np.int64], dim: int, fast: bool) -> tuple[Segment, ...]:
    """The segments of a store, read block by block, so that no second copy of all vectors is made."""
    segments: list[Segment] = []
    waiting: list[tuple[NDArray[np.int64], Vectors]] = []
    seen: list[NDArray[np.int64]] = []
    count = 0
    for block in store.blocks():
        waiting.append(block)
        count += len(block[0])
        while count >= SEGMENT:
            numbers, rows = (np.concatenate(parts) for parts in zip(*waiting, strict=True))
            segments.append(Segment(rows[:SEGMENT], fast=fast))
            seen.append(numbers[:SEGMENT])
            waiting = [(numbers[SEGMENT:], rows[SEGMENT:])]
            count -= SEGMENT
    if count:
        numbers, rows = (np.concatenate(parts) for parts in zip(*waiting, strict=True))
        segments.append(Segment(rows, fast=fast))
        seen.append(numbers)
    order = np.concatenate(seen) if seen else ids
    if np.array_equal(order, ids):
        return tuple(segments)
    # a merge in the store need not keep the order of ids, which breaks ties: put the rows in order
    unordered = ExactScan(order, tuple(segments), fast, dim)
    rising = np.argsort(order)
    return tuple(
        Segment(unordered.rows(rising[start : start + SEGMENT]), fast=fast) for start in range(0, len(ids), SEGMENT)
    )


def _placed(segments: Iterable[Segment]) -> Iterator[tuple[int, Segment]]:
    start = 0
    for segment in segments:
        yield start, segment
        start += len(segment)


def _among(known: NDArray[np.int64], ids: NDArray[np.int64]) -> Mask:
    """Which of the known ids are still there; both rise."""
    if not len(ids):
        return np.zeros(len(known), dtype=np.bool_)
    places = np.minimum(np.searchsorted(ids, known), len(ids) - 1)
    return np.asarray(ids[places] == known)
