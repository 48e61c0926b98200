"""The metrics against a slow reference in plain Python, over more than 2,000 drawn cases with ties and duplicates."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from tipr.metrics import (
    full_order,
    query_results,
    retrieval_metrics,
    retrieval_metrics_from_features,
    top_k,
)
from tipr.metrics.ranking import SORT_FROM, Backend

KS = (1, 2, 5, 10)
cheap = settings(deadline=None, database=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])


def slow_order(scores: Sequence[float]) -> list[int]:
    return sorted(range(len(scores)), key=lambda g: (-scores[g], g))


def slow_metrics(similarity, query_identity, gallery_identity, ks=KS):
    """By the definitions, one query and one rank at a time; queries without a relevant image are left out."""
    found = dict.fromkeys(ks, 0)
    precisions, penalties = [], []
    for row, identity in zip(similarity, query_identity, strict=True):
        relevant = [gallery_identity[g] == identity for g in slow_order(row)]
        if not any(relevant):
            continue
        for k in ks:
            found[k] += any(relevant[:k])
        seen, total, last = 0, 0.0, 0
        for rank, is_relevant in enumerate(relevant, start=1):
            if is_relevant:
                seen += 1
                total += seen / rank
                last = rank
        precisions.append(total / seen)
        penalties.append(seen / last)
    kept = len(precisions)
    recall = {k: 100.0 * found[k] / kept for k in ks}
    return recall, 100.0 * math.fsum(precisions) / kept, 100.0 * math.fsum(penalties) / kept, kept


@st.composite
def identities(draw):
    queries, gallery = draw(st.integers(1, 5)), draw(st.integers(1, 14))
    people = st.integers(-1, draw(st.sampled_from([-1, 0, 2, 5])))
    of_queries = draw(arrays.arrays(np.int64, queries, elements=people))
    of_gallery = draw(arrays.arrays(np.int64, gallery, elements=people))
    if not np.isin(of_queries, of_gallery).any():
        of_gallery[-1] = of_queries[0]  # at least one query has somebody to find
    return of_queries, of_gallery


levels = st.sampled_from([-1.0, -0.5, 0.0, -0.0, 0.25, 0.5, 1.0])  # few values: most rows hold ties
any_score = st.floats(width=32, allow_nan=False, allow_infinity=True)


@st.composite
def similarity_cases(draw):
    of_queries, of_gallery = draw(identities())
    dtype = draw(st.sampled_from([np.float32, np.float64]))
    elements = draw(st.sampled_from([levels, any_score]))
    similarity = draw(arrays.arrays(dtype, (len(of_queries), len(of_gallery)), elements=elements))
    return similarity, of_queries, of_gallery


@st.composite
def feature_cases(draw):
    of_queries, of_gallery = draw(identities())
    width = draw(st.integers(1, 4))
    # small integers: every float32 product and sum is exact, so the reference may compute them in its own order
    whole = st.integers(-3, 3).map(float)
    query = draw(arrays.arrays(np.float32, (len(of_queries), width), elements=whole))
    gallery = draw(arrays.arrays(np.float32, (len(of_gallery), width), elements=whole))
    if draw(st.booleans()):
        gallery[draw(st.integers(0, len(gallery) - 1))] = gallery[0]
    return query, gallery, of_queries, of_gallery, draw(st.sampled_from([1, 2, 512]))


def agrees(metrics, expected) -> None:
    recall, mean_ap, mean_inp, kept = expected
    assert metrics.queries == kept
    assert set(metrics.recall) == set(recall)
    for k, value in recall.items():
        assert metrics.recall[k] == pytest.approx(value, abs=1e-9)
    assert metrics.mean_ap == pytest.approx(mean_ap, abs=1e-9)
    assert metrics.mean_inp == pytest.approx(mean_inp, abs=1e-9)


@pytest.mark.parametrize("backend", ["numba", "numpy"])
@settings(cheap, max_examples=600)
@given(case=similarity_cases())
def test_similarity_agrees_with_the_slow_reference(backend: Backend, case) -> None:
    similarity, of_queries, of_gallery = case
    metrics = retrieval_metrics(similarity, of_queries, of_gallery, ks=KS, without_relevant="skip", backend=backend)
    agrees(metrics, slow_metrics(similarity.tolist(), of_queries.tolist(), of_gallery.tolist()))
    assert metrics.queries + metrics.skipped == len(of_queries)


@pytest.mark.parametrize("backend", ["numba", "numpy"])
@settings(cheap, max_examples=500)
@given(case=feature_cases(), as_tensor=st.booleans())
def test_features_agree_with_the_slow_reference(backend: Backend, case, as_tensor: bool) -> None:
    query, gallery, of_queries, of_gallery, block = case
    similarity = [
        [math.fsum(a * b for a, b in zip(left, right, strict=True)) for right in gallery.tolist()]
        for left in query.tolist()
    ]
    wrap = torch.from_numpy if as_tensor else np.asarray
    metrics = retrieval_metrics_from_features(
        wrap(query),
        wrap(gallery),
        wrap(of_queries),
        wrap(of_gallery),
        ks=KS,
        block=block,
        without_relevant="skip",
        backend=backend,
    )
    agrees(metrics, slow_metrics(similarity, of_queries.tolist(), of_gallery.tolist()))


@settings(cheap, max_examples=300)
@given(
    scores=arrays.arrays(np.float32, st.integers(1, 60), elements=st.one_of(levels, any_score)),
    k=st.integers(0, 70),
)
def test_top_k_is_the_head_of_the_full_order(scores, k: int) -> None:
    expected = slow_order(scores.tolist())
    assert top_k(scores, k).tolist() == expected[:k]
    assert top_k(scores[None], k).tolist() == [expected[:k]]
    assert full_order(scores).tolist() == expected


@pytest.mark.parametrize("backend", ["numba", "numpy"])
def test_queries_with_many_relevant_images_agree_too(backend: Backend) -> None:
    # rows that are sorted (many relevant images) beside rows that are counted
    random = np.random.default_rng(5)
    of_gallery = np.repeat([0, 1, 2, 3], [SORT_FROM, SORT_FROM - 1, SORT_FROM + 40, 2])
    random.shuffle(of_gallery)
    of_queries = np.array([0, 1, 2, 3, 0, 3])
    similarity = random.integers(0, 40, (len(of_queries), len(of_gallery))) / 8.0
    metrics = retrieval_metrics(similarity, of_queries, of_gallery, ks=KS, backend=backend)
    agrees(metrics, slow_metrics(similarity.tolist(), of_queries.tolist(), of_gallery.tolist()))


@settings(cheap, max_examples=100)
@given(case=similarity_cases())
def test_both_backends_give_the_same_bits(case) -> None:
    ours, other = (query_results(*case, without_relevant="skip", backend=backend) for backend in ("numba", "numpy"))
    np.testing.assert_array_equal(ours.first_rank, other.first_rank)
    np.testing.assert_array_equal(ours.average_precision, other.average_precision)
    np.testing.assert_array_equal(ours.inverse_penalty, other.inverse_penalty)
