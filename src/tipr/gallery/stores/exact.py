"""The exact scan: all vectors of a store in memory, in half precision, at one version of it.

Two passes give the order of `tipr.metrics.ranking` to the last bit at the speed of memory (`tipr.metrics.best_rows`).
The first is FAISS (extra `scan`) for one query, and a matrix product for many, or without FAISS.

Nothing here is on disk: an erased row is gone from memory with the next `follow`.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property, lru_cache
from importlib.util import find_spec
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tipr.errors import MissingExtra
from tipr.gallery.stores import Store
from tipr.metrics.best_rows import Block, Positions, Ranked, Vectors, kth_best, longest, ranked_from_blocks, slack
from tipr.metrics.ranking import stable_similarity, top_k

SEGMENT = 131_072
"""Rows of one piece: pieces are scanned beside each other, and a change copies only the pieces that it touches."""
BLOCK = 65_536
"""Rows of one matrix product: bounds the memory of their conversion from half precision. Smaller ones stay in the
processor's cache, but on a busy machine the threads of many small products wait for each other far longer."""
PART = 4_096
"""Rows that one thread converts at a time."""
FAISS_FROM = 50_000
"""Rows from which loading FAISS (a fifth of a second) pays."""
BATCH_FROM = 6
"""Queries from which one matrix product is cheaper than FAISS query by query."""
DEEP = 4_096
"""Results from which the heaps of FAISS cost more than a matrix product."""
SAMPLE = 2_048
"""Rows that stand for the whole gallery where a query's background is needed."""

Mask = NDArray[np.bool_]


def faiss_installed() -> bool:
    """Whether the extra `scan` is there."""
    return find_spec("faiss") is not None


class Segment:
    """Some rows in a row, at most `SEGMENT`: (n, D) float16, and their FAISS index where it is used.

    Args:
        rows: C-contiguous; not to be changed afterwards.
        fast: hold them in a FAISS index, whose memory `rows` then looks into.
    """

    def __init__(self, rows: Vectors, *, fast: bool) -> None:
        self.rows = rows
        self.index: Any = None
        parts = (rows[start : start + PART].astype(np.float32) for start in range(0, len(rows), PART))
        self.longest = max(map(longest, parts), default=0.0)
        if fast:
            faiss = _faiss()
            kind = faiss.ScalarQuantizer.QT_fp16
            self.index = faiss.IndexScalarQuantizer(rows.shape[1], kind, faiss.METRIC_INNER_PRODUCT)
            self.index.add_sa_codes(np.ascontiguousarray(rows).view(np.uint8).reshape(len(rows), -1))
            self.rows = np.asarray(_Codes(self.index)).view(np.float16).reshape(rows.shape)

    def search(
        self, query: NDArray[np.float32], count: int, keep: Mask | None
    ) -> tuple[Positions, NDArray[np.float32]]:
        """The `count` best rows that are kept (all of them, when there are fewer), by single-precision score."""
        faiss = _faiss()
        count = min(count, len(self.rows))
        if keep is None:
            values, places = self.index.search(query[None], count)
        else:
            bits = np.packbits(keep, bitorder="little")
            chosen = faiss.SearchParameters(sel=faiss.IDSelectorBitmap(bits))
            values, places = self.index.search(query[None], count, params=chosen)
        found = places[0] >= 0
        return places[0][found], values[0][found]

    def widen(self, rows: slice, out: NDArray[np.float32]) -> NDArray[np.float32]:
        """Some of the rows in single precision, at the beginning of `out`."""
        chosen = self.rows[rows]
        if self.index is None:
            np.copyto(out[: len(chosen)], chosen)
        else:  # half the time of NumPy, and shared out to threads that do not wait for each other

            def decode(start: int) -> None:
                part = chosen[start : start + PART]
                self.index.sa_decode(part.view(np.uint8), x=out[start : start + len(part)])

            list(_workers().map(decode, range(0, len(chosen), PART)))
        return out[: len(chosen)]


class _Codes:
    """The bytes that a FAISS index holds, as an array that keeps the index alive."""

    def __init__(self, index: Any) -> None:
        self._index = index
        held = _faiss().rev_swig_ptr(index.codes.data(), index.ntotal * index.code_size)
        self.__array_interface__ = held.__array_interface__


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
            _faiss()
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
            keep = stays[start : start + len(segment.rows)]
            if keep.all():
                segments.append(segment)
            elif keep.any():
                segments.append(Segment(segment.rows[keep], fast=self.fast))
        if new < len(ids):
            blocks = list(store.blocks(after=last))  # in any order
            order = np.argsort(np.concatenate([numbers for numbers, _ in blocks]))
            added = np.concatenate([vectors for _, vectors in blocks])[order]
            if segments and len(segments[-1].rows) + len(added) <= SEGMENT:
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
            return [self._one(query, count, keep) for query in queries]
        return ranked_from_blocks(queries, self._blocks(keep), count)

    def rows(self, positions: Positions) -> Vectors:
        """(n, D) float16 of some rows; a copy."""
        result = np.empty((len(positions), self.dim), dtype=np.float16)
        for start, segment in _placed(self.segments):
            here = (positions >= start) & (positions < start + len(segment.rows))
            result[here] = segment.rows[positions[here] - start]
        return result

    @cached_property
    def sample(self) -> NDArray[np.float64]:
        """(at most `SAMPLE`, D) rows at even distances: the background of a query."""
        places = np.unique(np.linspace(0, len(self) - 1, min(len(self), SAMPLE)).astype(np.int64))
        return self.rows(places).astype(np.float64)

    def _one(self, query: NDArray[np.float32], count: int, keep: Mask | None) -> Ranked:
        wrong = slack(self.dim, float(np.linalg.norm(query)), max(segment.longest for segment in self.segments))
        jobs = []
        for start, segment in _placed(self.segments):
            part = None if keep is None else keep[start : start + len(segment.rows)]
            if part is None or part.any():
                jobs.append((start, segment, part))
        wanted = [count + max(32, count // 8)] * len(jobs)
        results: list[Any] = [None] * len(jobs)
        todo = list(range(len(jobs)))
        while todo:
            found = _workers().map(lambda n: jobs[n][1].search(query, wanted[n], jobs[n][2]), todo)
            for n, (places, values) in zip(todo, found, strict=True):
                results[n] = (places + jobs[n][0], values)
            values = np.concatenate([values for _, values in results])
            lowest = kth_best(values, count) - 2 * wrong
            # a piece that may hold more rows as good as that is asked for more of them
            todo = [
                n
                for n, (_, values) in enumerate(results)
                if len(values) == wanted[n] < len(jobs[n][1].rows) and float(values[-1]) >= lowest
            ]
            for n in todo:
                wanted[n] = min(8 * wanted[n], len(jobs[n][1].rows))
        positions = np.concatenate([places for places, _ in results])
        chosen = np.flatnonzero(values >= lowest)
        rising = chosen[np.argsort(positions[chosen])]
        exact = stable_similarity(query, self.rows(positions[rising]))
        if len(exact) and float(np.abs(exact - values[rising]).max()) > wrong:  # arithmetic that nobody promised
            return ranked_from_blocks(query[None], self._blocks(keep), count)[0]
        order = top_k(exact, count)
        return Ranked(positions[rising][order], exact[order])

    def _blocks(self, keep: Mask | None) -> Iterator[Block]:
        """The rows that take part."""
        memory = np.empty((min(BLOCK, SEGMENT, len(self)), self.dim), dtype=np.float32)
        for start, segment in _placed(self.segments):
            for first in range(0, len(segment.rows), BLOCK):
                here = slice(first, min(first + BLOCK, len(segment.rows)))
                places = np.arange(start + first, start + here.stop)
                part = None if keep is None else keep[places[0] : places[-1] + 1]
                if part is None or part.all():
                    yield Block(places, segment.rows[here], segment.widen(here, memory), segment.longest)
                elif part.any():
                    rows = segment.rows[here][part]
                    yield Block(places[part], rows, rows.astype(np.float32), segment.longest)


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
        start += len(segment.rows)


def _among(known: NDArray[np.int64], ids: NDArray[np.int64]) -> Mask:
    """Which of the known ids are still there; both rise."""
    if not len(ids):
        return np.zeros(len(known), dtype=np.bool_)
    places = np.minimum(np.searchsorted(ids, known), len(ids) - 1)
    return np.asarray(ids[places] == known)


@lru_cache(maxsize=1)
def _faiss() -> Any:
    try:
        import faiss
    except ImportError:
        raise MissingExtra("faiss-cpu", "scan") from None
    return faiss


@lru_cache(maxsize=1)
def _workers() -> ThreadPoolExecutor:
    """Threads that scan segments; FAISS itself uses one thread in each of them."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return ThreadPoolExecutor(cores, "scan", initializer=lambda: _faiss().omp_set_num_threads(1))
