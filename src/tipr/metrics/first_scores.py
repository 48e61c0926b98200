"""First scores of queries with rows of half precision: one matrix product, and by how much it can be wrong.

Where torch is loaded (a model encoded the query) and the processor multiplies bfloat16, the product is taken in that:
four times as fast as in single precision, and so coarse that what it cannot tell apart must be scored again. torch also
widens half precision ten times as fast as NumPy. Nothing here imports it: a gallery is searched without it as well.
"""

from __future__ import annotations

import sys
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

ROUNDING = {"single": 2.0**-24, "bfloat16": 2.0**-8}
"""Largest relative error of rounding to a format (Higham, Accuracy and Stability of Numerical Algorithms, 2002)."""

PRODUCT = 16_384
"""Rows of one product: bounds the memory of their conversion. Smaller ones stay in the processor's cache, but on a busy
machine the threads of many small products wait for each other far longer."""


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
        # one memory for all products: fetching it anew from the system takes longer than a product
        self._wide = np.empty((0, queries.shape[1]), dtype=np.float32)
        self._rounded: Any = None
        if self.coarse:
            torch = sys.modules["torch"]
            self._rounded_queries = torch.from_numpy(np.ascontiguousarray(queries)).to(torch.bfloat16)

    def of(self, rows: NDArray[np.float16]) -> NDArray[np.float32]:
        """(Q, n) scores with (n, D) rows."""
        scores = np.empty((len(self._queries), len(rows)), dtype=np.float32)
        if len(self._wide) < min(PRODUCT, len(rows)):
            self._wide = np.empty((min(PRODUCT, len(rows)), rows.shape[1]), dtype=np.float32)
            if self.coarse:
                torch = sys.modules["torch"]
                self._rounded = torch.empty(self._wide.shape, dtype=torch.bfloat16)
        for start in range(0, len(rows), PRODUCT):
            part = widen(rows[start : start + PRODUCT], self._wide)
            scores[:, start : start + len(part)] = self._product(part)
        return scores

    def wrong(self, length: NDArray[np.floating[Any]], row_length: float) -> NDArray[np.float64]:
        """Most that a score can be wrong; arguments as of `slack`, which it is where the product is not coarse."""
        wrong: NDArray[np.float64] = slack(self._queries.shape[1], length, row_length)
        if self.coarse:  # both factors are rounded, and their sum, which is one of single precision
            wrong = wrong + 3.02 * ROUNDING["bfloat16"] * length * row_length
        return wrong

    def _product(self, rows: NDArray[np.float32]) -> NDArray[np.float32]:
        if not self.coarse:
            single: NDArray[np.float32] = self._queries @ rows.T
            return single
        torch = sys.modules["torch"]
        rounded = self._rounded[: len(rows)].copy_(torch.from_numpy(rows))
        coarse: NDArray[np.float32] = torch.mm(self._rounded_queries, rounded.T).float().numpy()
        return coarse


def widen(rows: NDArray[np.float16], out: NDArray[np.float32]) -> NDArray[np.float32]:
    """(n, D) half precision as single precision, at the beginning of `out`."""
    given = out[: len(rows)]
    torch = sys.modules.get("torch")
    if torch is None or not rows.flags.writeable:  # torch warns of arrays that it could change
        np.copyto(given, rows)
    else:
        torch.from_numpy(given).copy_(torch.from_numpy(rows))
    return given


def _multiplies_bfloat16() -> bool:
    return "torch" in sys.modules and _capable()


@lru_cache(maxsize=1)
def _capable() -> bool:
    """Whether this processor has instructions for products of bfloat16; without them it is the slower way."""
    tell: Any = getattr(sys.modules["torch"].cpu, "get_capabilities", dict)
    return any(tell().get(name, False) for name in ("avx512_bf16", "amx_bf16", "bf16"))
