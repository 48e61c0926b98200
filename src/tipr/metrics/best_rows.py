"""The best rows for a query, exact in their order, from a first pass in single precision over rows in half precision.

The first pass is wrong by at most `slack`: D products summed in any order, (D + 2) * 2**-24 * |query| * |row| (Higham,
Accuracy and Stability of Numerical Algorithms, 2002, equation 3.5). So every row whose first score lies less than two
such errors below the k-th best may belong to the k best, and no other. Those few are scored with `stable_similarity`
and ordered by the one rule of `tipr.metrics.ranking`.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from tipr.metrics.ranking import stable_similarity, top_k

Vectors = NDArray[np.float16]
Positions = NDArray[np.int64]


class Block(NamedTuple):
    """Some rows: (n,) positions, (n, D) half and single precision, and the length of the longest, or of a longer one.

    The next block may use the memory of `single` again.
    """

    positions: Positions
    rows: Vectors
    single: NDArray[np.float32]
    longest: float


class Ranked(NamedTuple):
    """The best rows for one query: (n,) positions, best first, and their (n,) float32 scores."""

    positions: Positions
    scores: NDArray[np.float32]


def slack(dim: int, length: Any, row_length: float) -> Any:
    """Most that a single-precision dot product can be wrong, whatever the order of its sum.

    Args:
        dim: D.
        length: Euclidean length of the query, or (Q,) of several.
        row_length: of the longest row.
    """
    return 1.01 * (dim + 2) * 2.0**-24 * length * row_length


def kth_best(values: NDArray[np.float32], count: int) -> float:
    """The count-th best of some scores; minus infinity where there are fewer."""
    if len(values) < count:
        return -np.inf
    return float(np.partition(values, len(values) - count)[len(values) - count])


def longest(rows: NDArray[np.float32]) -> float:
    """Euclidean length of the longest of (n, D) rows, n >= 1."""
    return float(np.sqrt(np.einsum("ij,ij->i", rows, rows).max()))


def block_of(positions: Positions, rows: Vectors) -> Block:
    """A block of rows that are in half precision only; (n,) and (n, D)."""
    single = rows.astype(np.float32)
    return Block(positions, rows, single, longest(single))


def ranked_from_blocks(queries: NDArray[np.float32], blocks: Iterable[Block], count: int) -> list[Ranked]:
    """The best rows for each query out of blocks of rows, which need not fit into memory together.

    Args:
        queries: (Q, D) float32.
        blocks: the rows, in any order.
        count: how many, >= 1.

    Returns:
        Q times at most `count` rows: `stable_similarity` falling, ties by rising position.
    """
    pools = [_Pool(query, count) for query in queries]
    lengths = np.linalg.norm(queries, axis=1)
    kth = np.full(len(pools), -np.inf)
    row_length = 0.0
    for block in blocks:
        row_length = max(row_length, block.longest)
        wrong = slack(queries.shape[1], lengths, row_length)
        first = queries @ block.single.T
        for n in np.flatnonzero(first.max(axis=1) >= kth - 2 * wrong):
            kth[n] = pools[n].take(block, first[n], 2 * float(wrong[n]))
    return [pool.ranked() for pool in pools]


class _Pool:
    """Rows that may be among the `count` best for one query."""

    def __init__(self, query: NDArray[np.float32], count: int) -> None:
        self._query, self._count = query, count
        self._kth = -np.inf
        self._parts: list[tuple[Positions, NDArray[np.float32], Vectors]] = []
        self._held = 0

    def take(self, block: Block, values: NDArray[np.float32], margin: float) -> float:
        """Keep what may be among the best of these rows.

        Args:
            block: the rows.
            values: (n,) first scores.
            margin: how far below the k-th best first score a row of the best can lie.

        Returns:
            The k-th best first score so far; minus infinity until there are k.
        """
        best = np.flatnonzero(values >= max(self._kth, kth_best(values, self._count)) - margin)
        self._parts.append((block.positions[best], values[best], block.rows[best]))
        self._held += len(best)
        if self._held >= self._count:
            places, values, rows = self._joined()
            self._kth = kth_best(values, self._count)
            keep = values >= self._kth - margin
            self._parts = [(places[keep], values[keep], rows[keep])]
            self._held = int(np.count_nonzero(keep))
        return self._kth

    def ranked(self) -> Ranked:
        """The best of all rows that were offered."""
        if not self._parts:
            return Ranked(np.empty(0, np.int64), np.empty(0, np.float32))
        places, _, rows = self._joined()
        rising = np.argsort(places)
        exact = stable_similarity(self._query, rows[rising])
        order = top_k(exact, self._count)
        return Ranked(places[rising][order], exact[order])

    def _joined(self) -> tuple[Any, ...]:
        return tuple(np.concatenate(parts) for parts in zip(*self._parts, strict=True))
