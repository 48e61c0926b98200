"""Searches that may miss a row: candidates from something that is quick, scored and ordered exactly."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from tipr.gallery.stores.exact import ExactScan
from tipr.gallery.stores.segment import Mask
from tipr.metrics.best_rows import Positions, Ranked, Vectors
from tipr.metrics.ranking import stable_similarity, top_k

EXACT_BELOW = 0.1
"""Share of rows that pass a filter, below which they are all scored: candidates are too few among them."""

Candidates = Callable[[int], tuple[Positions, Vectors]]
"""How many are wanted -> rising positions of some rows, and their (n, D) vectors."""


class NearScan:
    """The rows of a scan, searched by their codes; as fresh as the scan is.

    Args:
        scan: the rows, which can be coded (`ExactScan.codable`).

    Attributes:
        ids: (N,) int64, rising.
        sample: as `ExactScan.sample`.
    """

    def __init__(self, scan: ExactScan) -> None:
        self._scan = scan
        self.ids = scan.ids

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def sample(self) -> NDArray[np.float64]:
        """As `ExactScan.sample`."""
        return self._scan.sample

    def best(self, queries: NDArray[np.float32], count: int, keep: Mask | None = None) -> list[Ranked]:
        """As `ExactScan.best`, of the rows that are found."""
        share = share_of(keep)
        if share <= EXACT_BELOW or len(self._scan.segments) == 1:
            return self._scan.best(queries, count, keep)
        return [self._likely(query, count, keep, share) for query in queries]

    def _likely(self, query: NDArray[np.float32], count: int, keep: Mask | None, share: float) -> Ranked:
        there = round(share * len(self))
        for more in (1, 8):
            found = self._scan.likely(query, count, keep, share=share / more)
            if len(found.positions) >= min(count, there):
                return found
        return self._scan.best(query[None], count, keep)[0]


def share_of(keep: Mask | None) -> float:
    """The share of the rows that pass a filter."""
    return 1.0 if keep is None else float(np.count_nonzero(keep)) / max(1, len(keep))


def best_of(find: Candidates, query: NDArray[np.float32], count: int, keep: Mask | None, rows: int) -> Ranked:
    """The best of the candidates that pass a filter; more of them are looked for until there are enough.

    Args:
        find: gives candidates.
        query: (D,).
        count: how many are wanted.
        keep: (N,) bool, rows that take part; all when None.
        rows: N.
    """
    share = share_of(keep)
    wanted = int(count / share * 1.5) if share < 1 else count
    while True:
        positions, vectors = find(min(wanted, rows))
        if keep is not None:
            passing = keep[positions]
            positions, vectors = positions[passing], vectors[passing]
        if len(positions) >= count or wanted >= rows:
            break
        wanted *= 4
    exact = stable_similarity(query, vectors)
    order = top_k(exact, count)
    return Ranked(positions[order], exact[order])
