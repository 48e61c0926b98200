"""Search without the rows in memory: LanceDB's index where there is one, else all rows are read, block by block."""

from __future__ import annotations

import os
from collections.abc import Iterator
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from tipr.gallery.stores import Store
from tipr.gallery.stores.exact import SAMPLE
from tipr.gallery.stores.near import EXACT_BELOW, Candidates, best_of, share_of
from tipr.gallery.stores.segment import Mask
from tipr.metrics.best_rows import Block, Positions, Ranked, Vectors, block_of, ranked_from_blocks

MEMORY_SHARE = 0.5
"""Of the machine's memory that a gallery's vectors may take."""


class OnDisk:
    """Rows of one version of a store, left where they are.

    Args:
        store: where they are, at that version.
        indexed: ask the store's index first; what it finds is scored and ordered exactly, but it may miss a row.

    Attributes:
        ids: (N,) int64, rising.
        indexed: as given.
    """

    def __init__(self, store: Store, *, indexed: bool) -> None:
        self._store, self.indexed = store, indexed
        self.ids = store.ids()

    def __len__(self) -> int:
        return len(self.ids)

    def best(self, queries: NDArray[np.float32], count: int, keep: Mask | None = None) -> list[Ranked]:
        """As `ExactScan.best`; through an index, the best rows of those it finds."""
        if self.indexed and share_of(keep) > EXACT_BELOW:
            return [best_of(self._candidates(query), query, count, keep, len(self)) for query in queries]
        return ranked_from_blocks(queries, self._blocks(keep), count)

    @cached_property
    def sample(self) -> NDArray[np.float64]:
        """As `ExactScan.sample`."""
        places = np.unique(np.linspace(0, len(self) - 1, min(len(self), SAMPLE)).astype(np.int64))
        vectors: NDArray[np.float16] = self._store.rows(self.ids[places].tolist(), ["vector"])["vector"]
        return vectors.astype(np.float64)

    def _candidates(self, query: NDArray[np.float32]) -> Candidates:
        def find(wanted: int) -> tuple[Positions, Vectors]:
            ids, vectors = self._store.nearest(query, wanted)
            rising = np.argsort(ids)
            return np.searchsorted(self.ids, ids[rising]), vectors[rising]

        return find

    def _blocks(self, keep: Mask | None) -> Iterator[Block]:
        for ids, vectors in self._store.blocks():
            places = np.searchsorted(self.ids, ids)
            part = slice(None) if keep is None else keep[places]
            if len(places[part]):
                yield block_of(places[part], vectors[part])


def memory_for_vectors() -> int:
    """Bytes that the vectors of a gallery may take: `MEMORY_SHARE` of the machine's memory."""
    return int(MEMORY_SHARE * os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
