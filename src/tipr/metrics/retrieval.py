"""R@k, mAP and mINP of a ranked gallery, from a similarity matrix or streamed from features.

Per query with R relevant images at ranks r_1 < ... < r_R:  R@k asks whether r_1 <= k;  AP = (1/R) sum_i i / r_i over
the WHOLE gallery (no interpolation, no truncation; Zheng et al., ICCV 2015);  INP = R / r_R, the precision at the
hardest relevant image (Ye et al., TPAMI 2021, section 3.3).  Every image of the person counts, the one that was
described among them.
All means are over queries, in percent, accumulated in float64.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tipr.metrics.ranking import (
    COMPILE_FROM,
    Backend,
    Relevance,
    Tail,
    numba_installed,
    relevant_ranks,
    stable_similarity,
    two_stage_order,
)

if TYPE_CHECKING:
    import torch

KS = (1, 5, 10)
BLOCK_BYTES = 64 * 2**20
"""A block of scores never takes more than this, however large the gallery."""

WithoutRelevant = Literal["error", "skip"]


@dataclass(frozen=True, slots=True)
class RetrievalMetrics:
    """Means over queries, in percent.

    Attributes:
        recall: R@k by k.
        mean_ap: mAP.
        mean_inp: mINP.
        queries: how many queries the means are over.
        skipped: queries left out because the gallery has no relevant image.
        gallery: images ranked for each query.
    """

    recall: dict[int, float]
    mean_ap: float
    mean_inp: float
    queries: int = 0
    skipped: int = 0
    gallery: int = 0


@dataclass(frozen=True, slots=True)
class QueryResults:
    """What each query scored; all arrays are (Q,), in query order.

    Attributes:
        relevant: int64, relevant images in the gallery.
        first_rank: int64 from 1, rank of the best relevant image; 0 where there is none.
        average_precision: float64 in [0, 1]; NaN where there is no relevant image.
        inverse_penalty: float64 INP in [0, 1]; NaN where there is no relevant image.
        gallery: G, the number of images ranked.
    """

    relevant: NDArray[np.int64]
    first_rank: NDArray[np.int64]
    average_precision: NDArray[np.float64]
    inverse_penalty: NDArray[np.float64]
    gallery: int
    kept: NDArray[np.bool_] = field(init=False)
    """(Q,) bool, True where the query has a relevant image."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "kept", self.relevant > 0)

    @classmethod
    def of_ranks(cls, ranks: NDArray[np.int64], offset: NDArray[np.int64], gallery: int) -> Self:
        """The results that follow from the ranks of all relevant images.

        Args:
            ranks: (K,) int64 from 1, rising inside each query, as `tipr.metrics.ranking.relevant_ranks` gives them.
            offset: (Q + 1,) int64: the ranks of query q are `ranks[offset[q]:offset[q + 1]]`.
            gallery: G.
        """
        count = np.diff(offset)
        kept = count > 0
        first = np.zeros(len(count), np.int64)
        precision = np.full(len(count), np.nan)
        penalty = np.full(len(count), np.nan)
        if kept.any():
            begin = offset[:-1][kept]
            nth = np.arange(len(ranks), dtype=np.int64) - np.repeat(offset[:-1], count) + 1
            first[kept] = ranks[begin]
            precision[kept] = np.add.reduceat(nth / ranks, begin) / count[kept]
            penalty[kept] = count[kept] / ranks[offset[1:][kept] - 1]
        return cls(count, first, precision, penalty, gallery)

    def found_within(self, k: int) -> NDArray[np.bool_]:
        """(Q,) bool: a relevant image is among the first min(k, G)."""
        return (self.first_rank > 0) & (self.first_rank <= k)

    def mean(self, ks: Sequence[int] = KS) -> RetrievalMetrics:
        """The means over the queries that have a relevant image."""
        kept = self.kept
        return RetrievalMetrics(
            recall={int(k): 100.0 * float(np.mean(self.found_within(k)[kept], dtype=np.float64)) for k in ks},
            mean_ap=100.0 * float(np.mean(self.average_precision[kept])),
            mean_inp=100.0 * float(np.mean(self.inverse_penalty[kept])),
            queries=int(kept.sum()),
            skipped=int(kept.size - kept.sum()),
            gallery=self.gallery,
        )


def retrieval_metrics(
    similarity: ArrayLike | torch.Tensor,
    query_identity: ArrayLike | torch.Tensor,
    gallery_identity: ArrayLike | torch.Tensor,
    *,
    ks: Sequence[int] = KS,
    without_relevant: WithoutRelevant = "error",
    backend: Backend = "auto",
) -> RetrievalMetrics:
    """R@k, mAP and mINP of a given similarity matrix.

    Args:
        similarity: (Q, G) floats (array or tensor), higher is better; float32 and float64 are ranked as they are.
        query_identity: (Q,) integers.
        gallery_identity: (G,) integers.
        ks: the k of R@k, each >= 1; more than G means G.
        without_relevant: `error`, or `skip` to leave such queries out of all means and count them.
        backend: see `tipr.metrics.ranking.relevant_ranks`.

    Returns:
        Percentages over the queries. Ties rank by rising gallery position.

    Raises:
        ValueError: a NaN score, a query without a relevant image (unless skipped; never all of them), shapes that do
            not fit, an empty side, or an illegal `ks`.
    """
    _check_ks(ks)
    results = query_results(
        similarity, query_identity, gallery_identity, without_relevant=without_relevant, backend=backend
    )
    return results.mean(ks)


def retrieval_metrics_from_features(
    query: ArrayLike | torch.Tensor,
    gallery: ArrayLike | torch.Tensor,
    query_identity: ArrayLike | torch.Tensor,
    gallery_identity: ArrayLike | torch.Tensor,
    *,
    ks: Sequence[int] = KS,
    block: int = 512,
    without_relevant: WithoutRelevant = "error",
    backend: Backend = "auto",
) -> RetrievalMetrics:
    """R@k, mAP and mINP of features, streamed: the (Q, G) matrix never exists.

    The score is the float32 dot product. Rows are NOT normalised here: give unit rows for cosine similarity. Beyond the
    inputs it holds one block of scores and one float32 copy of the gallery.

    Args:
        query: (Q, D) floats (array or tensor, any device).
        gallery: (G, D) floats.
        query_identity: (Q,) integers.
        gallery_identity: (G,) integers.
        ks: the k of R@k, each >= 1; more than G means G.
        block: queries scored at a time, >= 1; fewer when a block of scores would take more than 64 MiB.
        without_relevant: `error`, or `skip` to leave such queries out of all means and count them.
        backend: see `tipr.metrics.ranking.relevant_ranks`.

    Returns, raises: as `retrieval_metrics`.
    """
    _check_ks(ks)
    results = query_results_from_features(
        query,
        gallery,
        query_identity,
        gallery_identity,
        block=block,
        without_relevant=without_relevant,
        backend=backend,
    )
    return results.mean(ks)


def query_results(
    similarity: ArrayLike | torch.Tensor,
    query_identity: ArrayLike | torch.Tensor,
    gallery_identity: ArrayLike | torch.Tensor,
    *,
    without_relevant: WithoutRelevant = "error",
    backend: Backend = "auto",
) -> QueryResults:
    """`retrieval_metrics` before the mean: one value a query, for bootstrap intervals and error analysis."""
    scores = _array(similarity)
    if scores.ndim != 2:
        raise ValueError(f"similarity has shape {scores.shape}; expected (queries, gallery)")
    relevance = _relevance(query_identity, gallery_identity, scores.shape, without_relevant)
    if scores.dtype not in (np.float32, np.float64):
        scores = scores.astype(np.float32 if scores.dtype == np.float16 else np.float64)
    backend = _settle(backend, scores.size)
    rows = _rows(512, scores.shape[1])
    parts = []
    for begin in range(0, len(scores), rows):
        end = min(begin + rows, len(scores))
        parts.append(_ranks(scores[begin:end], relevance.rows(begin, end), backend))
    return _joined(parts, relevance, scores.shape[1])


def query_results_from_features(
    query: ArrayLike | torch.Tensor,
    gallery: ArrayLike | torch.Tensor,
    query_identity: ArrayLike | torch.Tensor,
    gallery_identity: ArrayLike | torch.Tensor,
    *,
    block: int = 512,
    without_relevant: WithoutRelevant = "error",
    backend: Backend = "auto",
    stable: bool = False,
) -> QueryResults:
    """`retrieval_metrics_from_features` before the mean: one value a query.

    With `stable` the scores are those of `tipr.metrics.stable_similarity`: sums in float64, rounded to float32 once, so
    that near-ties fall as they do in a search for one query alone. It takes about twice the time and memory.
    """
    import torch

    if block < 1:
        raise ValueError(f"block is {block}; it must be 1 or more")
    left, right = _features(query), _features(gallery)
    if left.ndim != 2 or right.ndim != 2 or left.shape[1] != right.shape[1]:
        raise ValueError(
            f"features have shapes {tuple(left.shape)} and {tuple(right.shape)}; expected (queries, D) and (gallery, D)"
        )
    size = (left.shape[0], right.shape[0])
    relevance = _relevance(query_identity, gallery_identity, size, without_relevant)
    backend = _settle(backend, size[0] * size[1])
    rows = _rows(block, size[1])
    parts = []
    with torch.no_grad():
        # one transposed copy of the gallery: the product of a block is then twice as fast
        columns = right.to(torch.float64 if stable else torch.float32).T.contiguous()
        product = torch.empty((min(rows, size[0]), size[1]), dtype=columns.dtype, device=columns.device)
        for begin in range(0, size[0], rows):
            end = min(begin + rows, size[0])
            scores = torch.mm(left[begin:end].to(columns), columns, out=product[: end - begin])
            parts.append(_ranks(scores.float().cpu().numpy(), relevance.rows(begin, end), backend))
    return _joined(parts, relevance, size[1])


def query_results_two_stage(
    query: NDArray[Any],
    gallery: NDArray[Any],
    query_identity: ArrayLike,
    gallery_identity: ArrayLike,
    *,
    shortlist: NDArray[np.int64],
    match: NDArray[np.float32],
    tail: Tail = "cosine",
    without_relevant: WithoutRelevant = "error",
) -> QueryResults:
    """What each query scores when a second stage has reordered its shortlist; see `tipr.metrics.two_stage_order`.

    Args:
        query: (Q, D) floats.
        gallery: (G, D) floats.
        query_identity: (Q,) integers.
        gallery_identity: (G,) integers.
        shortlist: (Q, k) gallery positions, different in each row.
        match: (Q, k) scores of the second stage.
        tail: order of what is outside the shortlist.
        without_relevant: as in `retrieval_metrics`.

    Raises:
        ValueError: as `retrieval_metrics`, or an unknown tail.
    """
    size = (len(query), len(gallery))
    relevance = _relevance(query_identity, gallery_identity, size, without_relevant)
    wide = np.asarray(gallery, dtype=np.float64)
    rows = _rows(512, 2 * size[1])
    parts = []
    rank_at = np.empty(size[1], np.int64)
    for begin in range(0, size[0], rows):
        scores = stable_similarity(query[begin : begin + rows], wide)
        for q, similarity in enumerate(scores, begin):
            order = two_stage_order(similarity, shortlist[q], match[q], tail=tail)
            rank_at[order] = np.arange(1, size[1] + 1)
            parts.append(np.sort(rank_at[relevance.members[relevance.start[q] : relevance.stop[q]]]))
    return _joined(parts, relevance, size[1])


def _ranks(scores: NDArray[np.floating[Any]], relevance: Relevance, backend: Backend) -> NDArray[np.int64]:
    """Ranks of the relevant images of a block of queries, on as many threads as torch uses."""
    import torch

    return relevant_ranks(scores, relevance, backend=backend, threads=torch.get_num_threads())[0]


def _joined(parts: list[NDArray[np.int64]], relevance: Relevance, gallery: int) -> QueryResults:
    """The results of all queries from the ranks of blocks of them."""
    offset = np.concatenate([[0], np.cumsum(relevance.count)]).astype(np.int64)
    return QueryResults.of_ranks(np.concatenate(parts), offset, gallery)


def _relevance(
    query_identity: ArrayLike | torch.Tensor,
    gallery_identity: ArrayLike | torch.Tensor,
    size: tuple[int, ...],
    without_relevant: WithoutRelevant,
) -> Relevance:
    if without_relevant not in ("error", "skip"):
        raise ValueError(f"without_relevant is {without_relevant!r}; allowed: error, skip")
    sides = []
    for name, identity, expected in (("query", query_identity, size[0]), ("gallery", gallery_identity, size[1])):
        values = _array(identity)
        if values.shape != (expected,):
            raise ValueError(f"{name}_identity has shape {values.shape}; expected ({expected},)")
        if expected == 0:
            raise ValueError(f"the {name} is empty")
        if values.dtype.kind not in "iu":
            raise ValueError(f"{name}_identity has type {values.dtype}; expected integers")
        sides.append(values.astype(np.int64))
    relevance = Relevance.of(sides[0], sides[1])
    missing = np.flatnonzero(relevance.count == 0)
    if len(missing) == size[0]:
        raise ValueError("no query has a relevant image in the gallery")
    if len(missing) and without_relevant == "error":
        raise ValueError(
            f"{len(missing)} of {size[0]} queries have no relevant image in the gallery "
            f"(first: query {missing[0]}, identity {sides[0][missing[0]]}); without_relevant='skip' leaves them out"
        )
    return relevance


def _settle(backend: Backend, size: int) -> Backend:
    """Decide `auto` once for all blocks: a block alone may be too small to repay the compiler, all of them not."""
    if backend == "auto" and size >= COMPILE_FROM and numba_installed():
        return "numba"
    return backend


def _rows(block: int, gallery: int) -> int:
    return max(1, min(block, BLOCK_BYTES // (4 * gallery)))


def _check_ks(ks: Sequence[int]) -> None:
    if not ks or any(k < 1 for k in ks):
        raise ValueError(f"ks is {tuple(ks)}; expected one or more integers, each 1 or more")


def _array(values: ArrayLike | torch.Tensor) -> NDArray[Any]:
    detach = getattr(values, "detach", None)
    if detach is None:
        return np.asarray(values)
    tensor: torch.Tensor = detach().cpu()
    if tensor.dtype.is_floating_point and tensor.element_size() < 4:
        tensor = tensor.float()  # NumPy has no bfloat16
    return np.asarray(tensor.numpy())


def _features(values: ArrayLike | torch.Tensor) -> torch.Tensor:
    import torch

    if isinstance(values, torch.Tensor):
        return values.detach()
    array = np.asarray(values)
    if array.dtype.kind not in "fiu":
        raise ValueError(f"features have type {array.dtype}; expected numbers")
    with warnings.catch_warnings():
        # a read-only array (a memory map, a frozen view) is fine: nothing here writes to features
        warnings.filterwarnings("ignore", message="The given NumPy array is not writable", category=UserWarning)
        return torch.from_numpy(np.ascontiguousarray(array))
