"""What a random order scores on average: the floor beside every table."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from tipr.metrics.retrieval import KS, RetrievalMetrics


def chance_metrics(relevant: NDArray[np.int64], gallery: int, *, ks: Sequence[int] = KS) -> RetrievalMetrics:
    """Expected R@k, mAP and mINP of a uniformly random order, exactly.

    With R relevant of G images:  P(none in the first k) = C(G - R, k) / C(G, k);
    E[AP] = H_G / G + (R - 1) (G - H_G) / (G (G - 1)), H_G the harmonic number, because two given images are at two
    given ranks with probability 1 / (G (G - 1));  E[INP] = R sum_t P(last = t) / t with P(last = t) =
    C(t - 1, R - 1) / C(G, R).

    Args:
        relevant: (Q,) int64, relevant images of each query; queries with 0 are left out and counted.
        gallery: G >= 1.
        ks: the k of R@k.

    Raises:
        ValueError: no query has a relevant image, or one has more than G.
    """
    numbers, queries = np.unique(relevant[relevant > 0], return_counts=True)
    if not len(numbers) or numbers[-1] > gallery:
        raise ValueError(f"relevant images a query must be 1 to {gallery}, for one query or more")
    rows = np.array([_expected(int(number), gallery, ks) for number in numbers])
    means = 100.0 * np.average(rows, axis=0, weights=queries)
    kept = int(queries.sum())
    return RetrievalMetrics(
        recall={int(k): float(value) for k, value in zip(ks, means, strict=False)},
        mean_ap=float(means[-2]),
        mean_inp=float(means[-1]),
        queries=kept,
        skipped=len(relevant) - kept,
        gallery=gallery,
    )


def _expected(relevant: int, gallery: int, ks: Sequence[int]) -> list[float]:
    others = gallery - relevant
    recall = []
    for k in ks:
        drawn = np.arange(min(k, gallery))
        recall.append(1.0 - float(np.prod(np.maximum(others - drawn, 0) / (gallery - drawn))))
    harmonic = float(np.sum(1.0 / np.arange(1, gallery + 1)))
    precision = harmonic / gallery
    if gallery > 1:
        precision += (relevant - 1) * (gallery - harmonic) / (gallery * (gallery - 1))
    # P(last = t) for t = G, G - 1, ..., R: each from the one before it
    last = np.arange(gallery, relevant - 1, -1)
    steps = (last[:-1] - relevant) / (last[:-1] - 1) if relevant < gallery else np.empty(0)
    probability = relevant / gallery * np.concatenate([[1.0], np.cumprod(steps)])
    return [*recall, precision, float(np.sum(probability * relevant / last))]
