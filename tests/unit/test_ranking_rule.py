"""The one ordering rule: score falling, ties by rising gallery position."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

from tipr.metrics import full_order, ranking, stable_similarity, top_k
from tipr.metrics.ranking import Relevance, relevant_ranks


def test_ties_rank_by_rising_position() -> None:
    scores = np.array([0.5, 0.9, 0.5, 0.9, 0.5, 0.1], np.float32)
    assert full_order(scores).tolist() == [1, 3, 0, 2, 4, 5]
    assert top_k(scores, 1).tolist() == [1]
    assert top_k(scores, 4).tolist() == [1, 3, 0, 2]


@pytest.mark.parametrize("k", [0, 1, 3, 50, 400, 2000])
def test_top_k_of_a_large_constant_row_is_the_first_k(k: int) -> None:
    assert top_k(np.zeros(1000, np.float32), k).tolist() == list(range(min(k, 1000)))


def test_top_k_of_a_matrix_is_top_k_of_each_row() -> None:
    scores = np.random.default_rng(0).integers(0, 20, (7, 500)).astype(np.float32)
    np.testing.assert_array_equal(top_k(scores, 10), np.stack([top_k(row, 10) for row in scores]))
    np.testing.assert_array_equal(top_k(scores, 10), full_order(scores)[:, :10])
    assert top_k(scores[:0], 10).shape == (0, 10)


def test_infinities_and_signed_zeros_are_ordered() -> None:
    scores = np.array([-np.inf, 0.0, np.inf, -0.0, -np.inf])
    assert full_order(scores).tolist() == [2, 1, 3, 0, 4]


@pytest.mark.parametrize("scores", [np.array([0.1, np.nan]), np.array([[0.1], [np.nan]], np.float32)])
def test_nan_is_an_error(scores: np.ndarray) -> None:
    with pytest.raises(ValueError, match="NaN"):
        top_k(scores, 1)
    with pytest.raises(ValueError, match="NaN"):
        full_order(scores)


def test_illegal_arguments_are_named() -> None:
    with pytest.raises(ValueError, match="k is -1"):
        top_k(np.zeros(3), -1)
    with pytest.raises(ValueError, match=r"shape \(1, 1, 1\)"):
        top_k(np.zeros((1, 1, 1)), 1)
    relevance = Relevance.of(np.zeros(1, np.int64), np.zeros(3, np.int64))
    with pytest.raises(ValueError, match="allowed: auto, numba, numpy"):
        relevant_ranks(np.zeros((1, 3)), relevance, backend="gpu")  # type: ignore[arg-type]


def test_threads_and_backends_give_the_same_ranks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ranking, "SHARE_FROM", 0)
    random = np.random.default_rng(1)
    scores = random.integers(0, 300, (70, 900)).astype(np.float32)
    relevance = Relevance.of(random.integers(0, 90, 70), random.integers(0, 90, 900))
    expected, offset = relevant_ranks(scores, relevance, backend="numpy")
    for threads in (1, 2, 3, 100):
        ranks, same_offset = relevant_ranks(scores, relevance, backend="numba", threads=threads)
        np.testing.assert_array_equal(ranks, expected)
        np.testing.assert_array_equal(same_offset, offset)
    scores[69, 899] = np.nan
    with pytest.raises(ValueError, match="NaN"):
        relevant_ranks(scores, relevance, backend="numba", threads=3)


def test_without_numba_the_numpy_path_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ranking, "COMPILE_FROM", 0)
    assert ranking._kernel("auto", 10) is not ranking._count_numpy
    monkeypatch.setattr(ranking, "numba_installed", lambda: False)
    assert ranking._kernel("auto", 10**9) is ranking._count_numpy


def test_stable_similarity_does_not_depend_on_the_block() -> None:
    random = np.random.default_rng(2)
    query = random.standard_normal((33, 96)).astype(np.float16)
    gallery = random.standard_normal((205, 96)).astype(np.float16)
    whole = stable_similarity(query, gallery)
    assert whole.dtype == np.float32
    for q in range(len(query)):
        np.testing.assert_array_equal(stable_similarity(query[q], gallery), whole[q])
        np.testing.assert_array_equal(stable_similarity(query[q : q + 2], gallery[7:50]), whole[q : q + 2, 7:50])


def test_the_ordering_rule_needs_neither_torch_nor_numba() -> None:
    # the gallery orders through this module and must start fast
    program = (
        "import sys, numpy; from tipr.metrics.ranking import top_k; top_k(numpy.zeros(3), 1); "
        "assert not {'torch', 'numba', 'transformers'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", program], check=True)
