"""The one ordering rule: falling score, ties by rising gallery position.

Search and evaluation both order through this file, so a tie can never be broken in two ways. `top_k` and `full_order`
give the order itself. `relevant_ranks` gives only the ranks of the relevant images, which is all that R@k, mAP and mINP
need: the rank of an image is 1 + the number of images above it, so nothing is sorted.

The counting loop is compiled with numba when numba is installed and the work is large enough to repay the compilation
(about a second, once per process and score type; nothing is cached on disk, because an installed package may be
read-only). A NumPy path gives the same integers.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from importlib.util import find_spec
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

NAN = "a score is NaN; every score must be a number"

Backend = Literal["auto", "numba", "numpy"]
Tail = Literal["cosine", "constant"]
"""How two-stage ranking orders what the second stage has not seen."""
Scores = NDArray[np.floating[Any]]
Positions = NDArray[np.int64]
Kernel = Callable[[Scores, Positions, Positions, Positions], bool]

COMPILE_FROM = 10_000_000
"""Scores to count in one call from which `auto` compiles; below, NumPy is done sooner than the compiler."""

SORT_FROM = 96
"""Relevant images of one query from which sorting its row is cheaper than counting once per relevant image."""


SHARE_FROM = 50_000_000
"""Comparisons in one call (some 5 ms of work) from which more threads pay."""

NOT_SEEN = -100.0
"""Score outside the shortlist with `tail="constant"`, as in the released code of Bi-IRRA."""


def top_k(scores: Scores, k: int) -> Positions:
    """The positions of the k best scores of each row, best first.

    Args:
        scores: (G,) or (Q, G) floats, higher is better; infinities are allowed.
        k: how many, >= 0; more than G gives G.

    Returns:
        (min(k, G),) or (Q, min(k, G)) int64 gallery positions: score falling, ties by rising position.

    Raises:
        ValueError: a score is NaN, `k` is negative or `scores` has another number of axes.
    """
    scores = _checked(scores)
    if k < 0:
        raise ValueError(f"k is {k}; it must be 0 or more")
    size = scores.shape[-1]
    if 8 * k >= size:
        return _order(scores)[..., : min(k, size)]
    if scores.ndim == 1:
        return _top_of_row(scores, k)
    return np.stack([_top_of_row(row, k) for row in scores]) if len(scores) else np.empty((0, k), np.int64)


def full_order(scores: Scores) -> Positions:
    """All positions of each row, best first: `top_k` with k = G."""
    return _order(_checked(scores))


def two_stage_order(similarity: Scores, shortlist: Positions, match: Scores, *, tail: Tail = "cosine") -> Positions:
    """All positions, best first, when a second stage has scored a shortlist (Bi-IRRA, arXiv 2510.17685).

    The scores of the two stages are not combined: the shortlist comes first, by match score. What is outside follows by
    similarity, or, with `tail="constant"`, all of it has the one score `NOT_SEEN`, as in the released code: then it
    comes by rising position, and before what the second stage scored lower still.

    Args:
        similarity: (G,) floats, higher is better.
        shortlist: (k,) different gallery positions, in any order.
        match: (k,) floats, higher is better.
        tail: "cosine" or "constant".

    Returns:
        (G,) int64; ties of any score by rising position.

    Raises:
        ValueError: a score is NaN, or an unknown tail.
    """
    if tail not in ("cosine", "constant"):
        raise ValueError(f"tail is {tail!r}; allowed: cosine, constant")
    if tail == "constant":
        scores = np.full(len(similarity), NOT_SEEN, dtype=match.dtype)
        scores[shortlist] = match
        return full_order(scores)
    rising = np.argsort(shortlist)
    seen = np.zeros(len(similarity), dtype=np.bool_)
    seen[shortlist] = True
    rest = np.flatnonzero(~seen)
    return np.concatenate([shortlist[rising][full_order(match[rising])], rest[full_order(similarity[rest])]])


def stable_similarity(query: NDArray[Any], gallery: NDArray[Any]) -> NDArray[np.float32]:
    """Dot products that do not depend on how the work is cut into blocks.

    A float32 matrix product may round one pair differently when the number of rows differs, which reorders near-ties.
    Here products are summed in float64 and rounded to float32 once; for half-precision inputs the sum is exact for all
    practical purposes, so one query alone, a block of queries and a slice of the gallery give the same bits. About
    three times slower than a float32 product.

    Args:
        query: (D,) or (Q, D) floats.
        gallery: (G, D) floats.

    Returns:
        (G,) or (Q, G) float32.
    """
    product = np.asarray(query, dtype=np.float64) @ np.asarray(gallery, dtype=np.float64).T
    return product.astype(np.float32)


@dataclass(frozen=True, slots=True)
class Relevance:
    """Which gallery images are relevant to which query, without a (Q, G) matrix.

    Attributes:
        members: (G,) int64 gallery positions grouped by identity, rising inside a group.
        start: (Q,) int64, where the group of the query's identity starts in `members`.
        stop: (Q,) int64, where it ends; equal to `start` when the gallery has no image of that identity.
    """

    members: Positions
    start: Positions
    stop: Positions

    @classmethod
    def of(cls, query_identity: NDArray[np.int64], gallery_identity: NDArray[np.int64]) -> Relevance:
        """Group a gallery by identity and look up each query's group; (Q,) and (G,) int64."""
        members = np.argsort(gallery_identity, kind="stable").astype(np.int64)
        grouped = gallery_identity[members]
        start = np.searchsorted(grouped, query_identity, side="left").astype(np.int64)
        stop = np.searchsorted(grouped, query_identity, side="right").astype(np.int64)
        return cls(members=members, start=start, stop=stop)

    @property
    def count(self) -> Positions:
        """(Q,) int64 relevant images of each query."""
        return self.stop - self.start

    def rows(self, begin: int, end: int) -> Relevance:
        """The relevance of queries `begin` to `end` (exclusive)."""
        return Relevance(self.members, self.start[begin:end], self.stop[begin:end])


def relevant_ranks(
    scores: Scores, relevance: Relevance, *, backend: Backend = "auto", threads: int = 1
) -> tuple[Positions, Positions]:
    """The ranks of every query's relevant images, by the ordering rule.

    Args:
        scores: (Q, G) float32 or float64, higher is better.
        relevance: of these Q queries and this gallery.
        backend: `numba` (must be installed), `numpy`, or `auto`. All give the same integers.
        threads: rows are shared out to so many threads where that pays (numba only).

    Returns:
        ranks: (sum of relevant,) int64, from 1, rising inside each query.
        offset: (Q + 1,) int64; the ranks of query q are `ranks[offset[q]:offset[q + 1]]`.

    Raises:
        ValueError: a score is NaN.
    """
    scores = _floats(scores)
    count = relevance.count
    offset = np.concatenate([np.zeros(1, np.int64), np.cumsum(count)])
    ranks = np.zeros(int(offset[-1]), np.int64)
    many = count >= SORT_FROM
    stop = np.where(many, relevance.start, relevance.stop)  # nothing to count in a row that is sorted below
    spans = np.stack([np.arange(len(count)), relevance.start, stop, offset[:-1]], axis=1)
    kernel = _kernel(backend, int(scores.size))
    worth_sharing = kernel is not _count_numpy and int(offset[-1]) * scores.shape[1] >= SHARE_FROM
    shares = np.array_split(spans, min(threads, len(spans)) if worth_sharing else 1)
    if len(shares) == 1:
        valid = kernel(scores, spans, relevance.members, ranks)
    else:
        with ThreadPoolExecutor(len(shares)) as pool:
            tasks = [pool.submit(kernel, scores, share, relevance.members, ranks) for share in shares]
            valid = all(task.result() for task in tasks)
    if not valid:
        raise ValueError(NAN)
    for q in np.flatnonzero(many):
        rank_at = np.empty(scores.shape[1], np.int64)
        rank_at[_order(scores[q])] = np.arange(1, scores.shape[1] + 1)
        ranks[offset[q] : offset[q + 1]] = rank_at[relevance.members[relevance.start[q] : relevance.stop[q]]]
    # one sort for all queries: a key of (query, rank) keeps each query's slice where it is
    key = np.repeat(np.arange(len(count), dtype=np.int64) * (scores.shape[1] + 1), count)
    return np.sort(ranks + key) - key, offset


def numba_installed() -> bool:
    """Whether the compiled counting loop can be used."""
    return find_spec("numba") is not None


def _kernel(backend: Backend, size: int) -> Kernel:
    if backend == "numpy":
        return _count_numpy
    if backend == "numba":
        return _count_numba()
    if backend != "auto":
        raise ValueError(f"ranking backend {backend!r}; allowed: auto, numba, numpy")
    worth_it = size >= COMPILE_FROM or _count_numba.cache_info().currsize > 0
    return _count_numba() if worth_it and numba_installed() else _count_numpy


def _count_numpy(scores: Scores, spans: Positions, members: Positions, ranks: Positions) -> bool:
    """Fill `ranks` and say whether no score is NaN; `spans` rows: row, start and stop in `members`, first rank."""
    for query, start, stop, out in spans:
        row = scores[query]
        if np.isnan(row.min()):  # min is NaN when any score is, and needs no mask
            return False
        for nth, position in enumerate(members[start:stop]):
            score = row[position]
            ahead = np.count_nonzero(row[:position] >= score) + np.count_nonzero(row[position:] > score)
            ranks[out + nth] = 1 + ahead
    return True


@lru_cache(maxsize=1)
def _count_numba() -> Kernel:
    from numba import njit  # a third of a second to import: only when it is used

    def count(scores: Scores, spans: Positions, members: Positions, ranks: Positions) -> bool:
        # The inner loops become vector code only in this form: unsigned positions (no wrap-around to test) and one
        # 32-bit sum a loop (a register then holds as many sums as scores); four times faster than the plain form.
        zero, size = np.uint64(0), np.uint64(scores.shape[1])
        for r in range(spans.shape[0]):
            row = scores[spans[r, 0]]
            wrong = np.int32(0)
            for g in range(zero, size):
                wrong = np.int32(wrong + np.int32(row[g] != row[g]))
            if wrong > 0:
                return False
            start = spans[r, 1]
            for m in range(start, spans[r, 2]):
                position = np.uint64(members[m])
                score = row[position]
                before, after = np.int32(0), np.int32(0)
                for g in range(zero, position):
                    before = np.int32(before + np.int32(row[g] >= score))
                for g in range(position, size):
                    after = np.int32(after + np.int32(row[g] > score))
                ranks[spans[r, 3] + m - start] = 1 + np.int64(before) + np.int64(after)
        return True

    # nogil: rows are shared out to plain threads, which works beside any other threading layer
    compiled: Kernel = njit(nogil=True)(count)
    return compiled


def _floats(scores: Scores) -> Scores:
    scores = np.asarray(scores)
    if scores.dtype in (np.float32, np.float64):
        return scores
    return scores.astype(np.float32 if scores.dtype == np.float16 else np.float64)


def _checked(scores: Scores) -> Scores:
    scores = _floats(scores)
    if scores.ndim not in (1, 2):
        raise ValueError(f"scores have shape {scores.shape}; expected (G,) or (Q, G)")
    if scores.size and np.isnan(scores.min()):
        raise ValueError(NAN)
    return scores


def _order(scores: Scores) -> Positions:
    return np.argsort(-scores, axis=-1, kind="stable").astype(np.int64, copy=False)


def _top_of_row(row: Scores, k: int) -> Positions:
    if k == 0:
        return np.empty(0, np.int64)
    last = np.partition(row, row.size - k)[row.size - k]  # the k-th best score
    above = np.flatnonzero(row > last)
    level = np.flatnonzero(row == last)[: k - above.size]  # ties at the edge: the earliest positions
    candidates = np.concatenate([above, level])
    # both parts rise, and a level score never beats one above, so a stable sort by score keeps the rule
    return candidates[_order(row[candidates])].astype(np.int64, copy=False)
