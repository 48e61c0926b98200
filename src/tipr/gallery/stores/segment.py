"""A piece of the exact scan: vectors in half precision, and with FAISS (extra `scan`) an index over the same bytes.

For searches that may miss a row a piece can be given codes of one bit a number (RaBitQ, Gao and Long, SIGMOD 2024):
a fourteenth of the bytes, whose scores choose candidates for an exact look. They are made of the piece alone, so that
they go with its rows, and are in memory only.
"""

from __future__ import annotations

import os
import threading
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from importlib.util import find_spec
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tipr.errors import MissingExtra
from tipr.metrics.best_rows import Positions, Vectors, longest
from tipr.metrics.first_scores import widen

PART = 4_096
"""Rows that are converted at a time."""
GATHERED = 2_048
"""Chosen rows that are copied together and scored at a time: they stay in the processor's cache."""
TRAINED_ON = 16_384
"""Rows whose mean stands for a piece when it is coded."""
ROTATION = 7
"""Seed of the rotation before coding, which spreads what the numbers of a vector say evenly over its bits."""

Mask = NDArray[np.bool_]
Found = tuple[Positions, NDArray[np.float32]]


class Segment:
    """Some rows in a row: (n, D) float16, and their FAISS index where it is used.

    Args:
        rows: C-contiguous; not to be changed afterwards.
        fast: hold them in a FAISS index, whose memory `rows` then looks into.
    """

    def __init__(self, rows: Vectors, *, fast: bool) -> None:
        self.rows = rows
        self.index: Any = None
        self._codes: Any = None
        self._coding = threading.Lock()
        memory = np.empty((min(PART, len(rows)), rows.shape[1]), dtype=np.float32)
        parts = (widen(rows[start : start + PART], memory) for start in range(0, len(rows), PART))
        self.longest = max(map(longest, parts), default=0.0)
        if fast:
            self.index = _half_precision(rows.shape[1])
            self.index.add_sa_codes(_as_bytes(np.ascontiguousarray(rows)))
            self.rows = np.asarray(_Held(self.index)).view(np.float16).reshape(rows.shape)

    def __len__(self) -> int:
        return len(self.rows)

    def search(self, query: NDArray[np.float32], count: int, keep: Mask | None = None) -> Found:
        """The `count` best rows that are kept (all of them, when there are fewer), by single-precision score."""
        count = min(count, len(self))
        if keep is None:
            values, places = self.index.search(query[None], count)
        else:
            bits = np.packbits(keep, bitorder="little")
            chosen = load_faiss().SearchParameters(sel=load_faiss().IDSelectorBitmap(bits))
            values, places = self.index.search(query[None], count, params=chosen)
        found = places[0] >= 0
        return places[0][found], values[0][found]

    def search_among(self, query: NDArray[np.float32], count: int, places: Positions) -> Found:
        """The `count` best of at most `GATHERED` rows; cheaper than a mask where few rows of many are chosen."""
        index, memory = _scratch(self.rows.shape[1])
        # the mode is what lets NumPy copy straight into that memory; all places are inside
        np.take(self.rows, places, axis=0, out=memory[: len(places)], mode="clip")
        index.ntotal = len(places)
        values, found = index.search(query[None], min(count, len(places)))
        return places[found[0]], values[0]

    def search_likely(
        self,
        query: NDArray[np.float32],
        turned: NDArray[np.float32],
        count: int,
        *,
        looked_at: int,
        keep: Mask | None = None,
    ) -> Found:
        """The `count` best of the rows whose codes come nearest to a query; some of the best may be missing.

        The first call codes the rows: some milliseconds a thousand.

        Args:
            query: (D,).
            turned: (1, D) or wider, the query after `rotation`.
            count: how many.
            looked_at: rows that the codes choose.
            keep: (n,) bool, rows that take part; all when None.
        """
        with self._coding:
            if self._codes is None:
                self._codes = self._coded()
        places: Positions = self._codes.search(turned, min(looked_at, len(self)))[1][0]
        places = np.sort(places[places >= 0])
        if keep is not None:
            places = places[keep[places]]
        parts = range(0, len(places), GATHERED)
        found = [self.search_among(query, count, places[start : start + GATHERED]) for start in parts]
        if not found:
            return places, np.empty(0, dtype=np.float32)
        best, values = (np.concatenate(part) for part in zip(*found, strict=True))
        order = np.argsort(-values, kind="stable")[:count]
        return best[order], values[order]

    def _coded(self) -> Any:
        faiss = load_faiss()
        turn = rotation(self.rows.shape[1])
        codes = faiss.IndexRaBitQFastScan(turn.d_out, faiss.METRIC_INNER_PRODUCT)
        every = max(1, len(self) // TRAINED_ON)
        codes.train(turn.apply(np.ascontiguousarray(self.rows[::every][:TRAINED_ON].astype(np.float32))))
        memory = np.empty((min(PART, len(self)), self.rows.shape[1]), dtype=np.float32)
        for start in range(0, len(self), PART):
            codes.add(turn.apply(widen(self.rows[start : start + PART], memory)))
        return codes


class _Held:
    """The bytes that a FAISS index holds, as an array that keeps the index alive."""

    def __init__(self, index: Any) -> None:
        self._index = index
        held = load_faiss().rev_swig_ptr(index.codes.data(), index.ntotal * index.code_size)
        self.__array_interface__ = held.__array_interface__


def faiss_installed() -> bool:
    """Whether the extra `scan` is there."""
    return find_spec("faiss") is not None


@lru_cache(maxsize=1)
def load_faiss() -> Any:
    """The library.

    Raises:
        MissingExtra: it is not installed.
    """
    try:
        import faiss
    except ImportError:
        raise MissingExtra("faiss-cpu", "scan") from None
    return faiss


@lru_cache(maxsize=1)
def workers() -> ThreadPoolExecutor:
    """Threads that search pieces; FAISS itself uses one thread in each of them."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return ThreadPoolExecutor(cores, "scan", initializer=lambda: load_faiss().omp_set_num_threads(1))


@lru_cache(maxsize=4)
def rotation(dim: int) -> Any:
    """The rotation of D-wide vectors before they are coded; it may make them wider."""
    return load_faiss().HadamardRotation(dim, ROTATION)


_own = threading.local()


def _scratch(dim: int) -> tuple[Any, Vectors]:
    """This thread's index of `GATHERED` rows, and their (GATHERED, D) memory to write rows into."""
    if getattr(_own, "dim", None) != dim:
        index = _half_precision(dim)
        index.add_sa_codes(_as_bytes(np.zeros((GATHERED, dim), dtype=np.float16)))
        _own.dim, _own.index = dim, index
        _own.memory = np.asarray(_Held(index)).view(np.float16).reshape(GATHERED, dim)
    return _own.index, _own.memory


def _half_precision(dim: int) -> Any:
    faiss = load_faiss()
    return faiss.IndexScalarQuantizer(dim, faiss.ScalarQuantizer.QT_fp16, faiss.METRIC_INNER_PRODUCT)


def _as_bytes(rows: Vectors) -> NDArray[np.uint8]:
    return rows.view(np.uint8).reshape(len(rows), -1)
