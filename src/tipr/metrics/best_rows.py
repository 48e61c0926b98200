"""The best rows for queries, exact in their order, from first scores that are wrong by a known amount at most.

A row can belong to the k best only if its first score lies less than the two errors below the k-th best
(`tipr.metrics.first_scores`). Those few are scored with `stable_similarity` and ordered by the one rule of
`tipr.metrics.ranking`.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from tipr.metrics.first_scores import FirstScores, slack, widen
from tipr.metrics.ranking import stable_similarity, top_k

Vectors = NDArray[np.float16]
Positions = NDArray[np.int64]

SCORES = 2**23
"""First scores that are in memory at a time, of all queries together."""
BEGINNING = 4_096
"""Rows that are looked at first, for scores that rule out most of the others."""
HELD = 128
"""Rows that are held for a query, besides those of its `count`, before the ones that fell behind are dropped."""


class Block(NamedTuple):
    """Some rows: (n,) positions, (n, D) vectors, and the length of the longest of them, or of a longer one."""

    positions: Positions
    rows: Vectors
    longest: float


class Ranked(NamedTuple):
    """The best rows for one query: (n,) positions, best first, and their (n,) float32 scores."""

    positions: Positions
    scores: NDArray[np.float32]


def kth_best(values: NDArray[np.float32], count: int) -> float:
    """The count-th best of some scores; minus infinity where there are fewer."""
    if len(values) < count:
        return -np.inf
    return float(np.partition(values, len(values) - count)[len(values) - count])


def longest(rows: NDArray[np.float32]) -> float:
    """Euclidean length of the longest of (n, D) rows, n >= 1."""
    return float(np.sqrt(np.einsum("ij,ij->i", rows, rows).max()))


def block_of(positions: Positions, rows: Vectors) -> Block:
    """A block of (n,) positions and (n, D) rows, n >= 1, whose longest is not known."""
    return Block(positions, rows, longest(rows.astype(np.float32)))


def ranked_from_blocks(queries: NDArray[np.float32], blocks: Iterable[Block], count: int) -> list[Ranked]:
    """The best rows for each query out of blocks of rows, which need not fit into memory together.

    Args:
        queries: (Q, D) float32.
        blocks: the rows, in any order.
        count: how many, >= 1.

    Returns:
        Q times at most `count` rows: `stable_similarity` falling, ties by rising position.
    """
    first = FirstScores(queries)
    pools = [_Pool(query, count, coarse=first.coarse) for query in queries]
    lengths = np.linalg.norm(queries, axis=1)
    kth = np.full(len(pools), -np.inf)
    row_length = 0.0
    most, step = max(BEGINNING, SCORES // max(1, len(queries))), BEGINNING
    for block in blocks:
        row_length = max(row_length, block.longest)
        fine, wrong = slack(queries.shape[1], lengths, row_length), first.wrong(lengths, row_length)
        start = 0
        while start < len(block.rows):
            positions, rows = block.positions[start : start + step], block.rows[start : start + step]
            scores = first.of(rows)
            for n in np.flatnonzero(scores.max(axis=1) >= kth - fine - wrong):
                near = pools[n].near(scores[n], kth[n] - fine[n] - wrong[n], 2 * float(wrong[n]))
                kth[n] = pools[n].take(positions[near], rows[near], scores[n][near], 2 * float(fine[n]))
            start, step = start + step, min(4 * step, most)
    return [pool.ranked() for pool in pools]


class _Pool:
    """Rows that may be among the `count` best for one query.

    Args:
        query: (D,).
        count: how many are wanted.
        coarse: the first scores are to be taken again in single precision.
    """

    def __init__(self, query: NDArray[np.float32], count: int, *, coarse: bool) -> None:
        self._query, self._count, self._coarse = query, count, coarse
        self._best = np.empty(0, dtype=np.float32)  # single-precision scores, at most `count`
        self._kth, self._margin = -np.inf, 0.0
        self._parts: list[tuple[Positions, NDArray[np.float32], Vectors]] = []
        self._held, self._most = 0, count + HELD

    def near(self, first: NDArray[np.float32], least: float, spread: float) -> Positions:
        """Those of some rows that may be among the best.

        Args:
            first: (n,) their first scores.
            least: first score below which no row can be among the best of all that were offered.
            spread: how far below the k-th best of these scores a row of the best can lie.
        """
        near = np.flatnonzero(first >= least)
        if len(near) > self._count:
            near = near[first[near] >= kth_best(first[near], self._count) - spread]
        return near

    def take(self, places: Positions, rows: Vectors, values: NDArray[np.float32], margin: float) -> float:
        """Keep what may be among the best.

        Args:
            places: (n,) of the rows.
            rows: (n, D).
            values: (n,) their first scores.
            margin: how far below the k-th best score of single precision a row of the best can lie.

        Returns:
            The k-th best single-precision score so far; minus infinity until there are k.
        """
        self._margin = margin
        if self._coarse:
            values = _products(rows, self._query)
            passing = values >= self._kth - margin
            places, rows, values = places[passing], rows[passing], values[passing]
        self._parts.append((places, values, rows))
        self._held += len(places)
        self._best = np.concatenate([self._best, values])
        if len(self._best) >= self._count:
            self._best = np.partition(self._best, len(self._best) - self._count)[len(self._best) - self._count :]
            self._kth = float(self._best[0])
        if self._held > self._most:
            self._drop()
        return self._kth

    def ranked(self) -> Ranked:
        """The best of all rows that were offered."""
        if not self._parts:
            return Ranked(np.empty(0, np.int64), np.empty(0, np.float32))
        self._drop()
        ((places, _, rows),) = self._parts
        rising = np.argsort(places)
        exact = stable_similarity(self._query, rows[rising])
        order = top_k(exact, self._count)
        return Ranked(places[rising][order], exact[order])

    def _drop(self) -> None:
        """Let go of the rows that fell behind."""
        places, values, rows = (np.concatenate(parts) for parts in zip(*self._parts, strict=True))
        keep = values >= self._kth - self._margin
        self._parts = [(places[keep], values[keep], rows[keep])]
        self._held = int(np.count_nonzero(keep))
        self._most = max(self._most, 2 * self._held)


def _products(rows: Vectors, query: NDArray[np.float32]) -> NDArray[np.float32]:
    """(n,) single-precision scores."""
    memory = np.empty((min(BEGINNING, len(rows)), len(query)), dtype=np.float32)
    result = np.empty(len(rows), dtype=np.float32)
    for start in range(0, len(rows), BEGINNING):
        result[start : start + BEGINNING] = widen(rows[start : start + BEGINNING], memory) @ query
    return result
