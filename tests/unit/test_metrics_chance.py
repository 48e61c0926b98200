"""What a random order scores, against all orders of a small gallery."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest

from tipr.metrics import chance_metrics, retrieval_metrics


@pytest.mark.parametrize("relevant", [1, 2, 3, 5])
def test_agrees_with_the_mean_over_all_orders(relevant: int) -> None:
    orders = np.array(list(permutations(range(5))), dtype=float)
    gallery = [1] * relevant + [2] * (5 - relevant)
    exact = retrieval_metrics(orders, [1] * len(orders), gallery, ks=(1, 2, 5, 10))
    chance = chance_metrics(np.array([relevant]), 5, ks=(1, 2, 5, 10))
    assert chance.recall == pytest.approx(exact.recall, abs=1e-9)
    assert chance.mean_ap == pytest.approx(exact.mean_ap, abs=1e-9)
    assert chance.mean_inp == pytest.approx(exact.mean_inp, abs=1e-9)


def test_queries_are_averaged_and_those_without_a_relevant_image_counted() -> None:
    both = chance_metrics(np.array([1, 0, 4]), 100)
    one, four = (chance_metrics(np.array([number]), 100) for number in (1, 4))
    assert both.recall[1] == pytest.approx((1 + 4) / 2)
    assert both.mean_ap == pytest.approx((one.mean_ap + four.mean_ap) / 2)
    assert both.mean_inp == pytest.approx((one.mean_inp + four.mean_inp) / 2)
    assert (both.queries, both.skipped, both.gallery) == (2, 1, 100)


def test_large_galleries_stay_finite() -> None:
    chance = chance_metrics(np.array([20, 300]), 20_000)
    assert 0 < chance.mean_inp <= chance.mean_ap < 2


@pytest.mark.parametrize("relevant", [[], [0, 0], [6]])
def test_impossible_counts_are_named(relevant) -> None:
    with pytest.raises(ValueError, match="must be 1 to 5"):
        chance_metrics(np.array(relevant, dtype=np.int64), 5)
