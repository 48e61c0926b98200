"""First scores of queries with rows of half precision: one matrix product, and by how much it can be wrong.

Where torch is loaded (a model encoded the query) and the processor multiplies bfloat16, the product is taken in that:
four times as fast as in single precision, and so coarse that what it cannot tell apart must be scored again. torch also
widens half precision ten times as fast as NumPy. Nothing here imports it: a gallery is searched without it as well.
"""

from __future__ import annotations

import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

ROUNDING = {"single": 2.0**-24, "bfloat16": 2.0**-8}
"""Largest relative error of rounding to a format (Higham, Accuracy and Stability of Numerical Algorithms, 2002)."""

PRODUCT = 32_768
"""Rows of one product in single precision: bounds the memory of their conversion. Smaller ones stay in the processor's
cache, but on a busy machine the threads of many small products wait for each other far longer."""
SHARE = 4_096
"""Rows of one product in bfloat16, which is one thread's: no thread waits for another."""


def slack(dim: int, length: Any, row_length: float) -> Any:
    """Most that a single-precision dot product can be wrong, whatever the order of its sum (Higham, equation 3.5).

    Args:
        dim: D.
        length: Euclidean length of the query, or (Q,) of several.
        row_length: of the longest row.
    """
    return 1.01 * (dim + 2) * ROUNDING["single"] * length * row_length


class FirstScores:
    """The first scores of some queries with rows.

    Args:
        queries: (Q, D) float32.

    Attributes:
        coarse: taken in bfloat16.
    """

    def __init__(self, queries: NDArray[np.float32]) -> None:
        self._queries = queries
        self.coarse = _multiplies_bfloat16()
        # memory that is used again: fetching it anew from the system takes longer than a product
        self._scores = np.empty(0, dtype=np.float32)
        self._own = threading.local()

    def of(self, rows: NDArray[np.float16]) -> NDArray[np.float32]:
        """(Q, n) scores with (n, D) rows, in memory that the next call uses again."""
        count = len(self._queries)
        if len(self._scores) < count * len(rows):
            self._scores = np.empty(count * len(rows), dtype=np.float32)
        scores = self._scores[: count * len(rows)].reshape(count, len(rows))
        multiply, step = (self._in_bfloat16, SHARE) if self.coarse else (self._in_single, PRODUCT)
        starts = range(0, len(rows), step)
        run = _threads().map if self.coarse else map
        list(run(lambda start: multiply(rows[start : start + step], scores[:, start : start + step]), starts))
        return scores

    def wrong(self, length: NDArray[np.floating[Any]], row_length: float) -> NDArray[np.float64]:
        """Most that a score can be wrong; arguments as of `slack`, which it is where the product is not coarse."""
        wrong: NDArray[np.float64] = slack(self._queries.shape[1], length, row_length)
        if self.coarse:  # both factors are rounded, and their sum, which is one of single precision
            wrong = wrong + 3.02 * ROUNDING["bfloat16"] * length * row_length
        return wrong

    def _in_single(self, rows: NDArray[np.float16], out: NDArray[np.float32]) -> None:
        if not hasattr(self._own, "wide"):
            self._own.wide = np.empty((PRODUCT, rows.shape[1]), dtype=np.float32)
        np.matmul(self._queries, widen(rows, self._own.wide).T, out=out)

    def _in_bfloat16(self, rows: NDArray[np.float16], out: NDArray[np.float32]) -> None:
        torch = sys.modules["torch"]
        own = self._own
        if not hasattr(own, "wide"):
            own.wide = np.empty((SHARE, rows.shape[1]), dtype=np.float32)
            own.queries = torch.from_numpy(np.ascontiguousarray(self._queries)).to(torch.bfloat16)
            own.rows = torch.empty((SHARE, rows.shape[1]), dtype=torch.bfloat16)
            own.products = torch.empty(SHARE * len(self._queries), dtype=torch.bfloat16)
        rounded = own.rows[: len(rows)].copy_(torch.from_numpy(widen(rows, own.wide)))
        products = own.products[: len(self._queries) * len(rows)].view(len(self._queries), len(rows))
        torch.from_numpy(out).copy_(torch.mm(own.queries, rounded.T, out=products))


@lru_cache(maxsize=1)
def _threads() -> ThreadPoolExecutor:
    """As many threads as torch uses, in each of which it uses that one."""
    torch = sys.modules["torch"]
    count = torch.get_num_threads()

    def alone() -> None:
        torch.get_num_threads()  # the first question of a thread takes over the number of the process
        torch.set_num_threads(1)

    pool = ThreadPoolExecutor(count, "products", initializer=alone)
    together = threading.Barrier(count)
    list(pool.map(lambda _: together.wait(), range(count)))  # all have begun, so that the process's can be set back
    torch.set_num_threads(count)
    return pool


def widen(rows: NDArray[np.float16], out: NDArray[np.float32]) -> NDArray[np.float32]:
    """(n, D) half precision as single precision, at the beginning of `out`."""
    given = out[: len(rows)]
    torch = _loaded_torch()
    if torch is None or not rows.flags.writeable:  # torch warns of arrays that it could change
        np.copyto(given, rows)
    else:
        torch.from_numpy(given).copy_(torch.from_numpy(rows))
    return given


def _loaded_torch() -> Any:
    """torch, where somebody has imported it; None else, and while another thread is at it."""
    torch = sys.modules.get("torch")
    return None if torch is None or getattr(torch.__spec__, "_initializing", False) else torch


def _multiplies_bfloat16() -> bool:
    return _loaded_torch() is not None and _capable()


@lru_cache(maxsize=1)
def _capable() -> bool:
    """Whether this processor has instructions for products of bfloat16; without them it is the slower way."""
    tell: Any = getattr(sys.modules["torch"].cpu, "get_capabilities", dict)
    return any(tell().get(name, False) for name in ("avx512_bf16", "amx_bf16", "bf16"))
