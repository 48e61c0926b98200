"""Masking for MLM (irra.md 3.3) and for perturbed captions (dual-granularity.md 6), against slow references."""

import numpy as np
import pytest

from tipr.data.batch import IGNORE
from tipr.data.masking import CaptionPerturbation, Masking

MASK, START, END = 49405, 49406, 49407
CLIP = Masking(MASK, (1, 49405))


def captions(rng, rows=200, length=20):
    """CLIP-like rows: start, words, end, zeros."""
    ids = np.zeros((rows, length), np.int64)
    for row in ids:
        words = rng.integers(0, length - 1)
        row[0], row[1 : 1 + words], row[1 + words] = START, rng.integers(1, MASK, words), END
    return ids


def reference(ids, draws, rate):
    """The rules, one position at a time."""
    masked, labels = ids.copy(), np.full_like(ids, IGNORE)
    for row in range(len(ids)):
        places = [position for position in range(ids.shape[1]) if 0 < ids[row, position] < MASK]
        for position in places:
            choice, substitute = draws[row, 2 * position], draws[row, 2 * position + 1]
            if choice >= rate:
                continue
            labels[row, position] = ids[row, position]
            if choice / rate < 0.8:
                masked[row, position] = MASK
            elif choice / rate < 0.9:
                masked[row, position] = 1 + int(substitute * (MASK - 1))
        if places and (labels[row] == IGNORE).all():
            labels[row, places[0]], masked[row, places[0]] = ids[row, places[0]], MASK
    return masked, labels


@pytest.mark.parametrize("rate", [0.02, 0.15, 0.5, 1.0])
def test_agrees_with_the_slow_reference_and_leaves_its_input(rate):
    rng = np.random.default_rng(0)
    ids = captions(rng)
    before = ids.copy()
    draws = rng.random((200, 40))
    masked, labels = Masking(MASK, (1, MASK), rate)(ids, draws)
    expected, expected_labels = reference(ids, draws, rate)
    np.testing.assert_array_equal(masked, expected)
    np.testing.assert_array_equal(labels, expected_labels)
    np.testing.assert_array_equal(ids, before)
    assert not np.shares_memory(masked, ids)


def test_shares_are_those_of_the_paper():
    rng = np.random.default_rng(1)
    ids = rng.integers(1, MASK, (500, 60))
    masked, labels = CLIP(ids, rng.random((500, 120)))
    chosen = labels != IGNORE
    assert abs(chosen.mean() - 0.15) < 0.006
    assert abs((masked[chosen] == MASK).mean() - 0.8) < 0.02
    kept = masked[chosen] == ids[chosen]
    assert abs(kept.mean() - 0.1) < 0.02
    substituted = masked[chosen][(masked[chosen] != MASK) & ~kept]
    assert substituted.min() >= 1
    assert substituted.max() < MASK
    assert (masked[~chosen] == ids[~chosen]).all()


def test_nothing_selected_masks_position_one():
    ids = np.array([[START, 320, 321, END, 0]])
    masked, labels = CLIP(ids, np.full((1, 10), 0.99))
    assert masked.tolist() == [[START, MASK, 321, END, 0]]
    assert labels.tolist() == [[IGNORE, 320, IGNORE, IGNORE, IGNORE]]


def test_an_empty_caption_is_left_alone():
    ids = np.array([[START, END, 0, 0]])
    masked, labels = CLIP(ids, np.zeros((1, 8)))
    assert masked.tolist() == ids.tolist()
    assert (labels == IGNORE).all()


def test_rate_zero_masks_nothing():
    ids = np.array([[START, 5, 6, END]])
    masked, labels = Masking(MASK, (1, MASK), 0.0)(ids, np.zeros((1, 8)))
    assert masked.tolist() == ids.tolist()
    assert (labels == IGNORE).all()


def share_reference(ids, draws, ratio):
    """Equation 20 by hand: the candidates in the order of their draws, the first of them become the mask token."""
    perturbed = ids.copy()
    for row in range(len(ids)):
        places = [position for position in range(ids.shape[1]) if 0 < ids[row, position] < MASK]
        places.sort(key=lambda position: draws[row, position])
        number = max(1, int(np.floor(ratio * len(places) + 0.5))) if ratio else 0
        perturbed[row, places[:number]] = MASK
    return perturbed


@pytest.mark.parametrize("ratio", [0.0, 0.01, 0.3, 0.5, 0.9, 1.0])
def test_an_exact_share_agrees_with_the_slow_reference(ratio):
    rng = np.random.default_rng(2)
    ids = captions(rng)
    before, draws = ids.copy(), rng.random(ids.shape)
    perturbed = CaptionPerturbation(MASK, (1, MASK), ratio)(ids, draws)
    np.testing.assert_array_equal(perturbed, share_reference(ids, draws, ratio))
    np.testing.assert_array_equal(ids, before)
    assert not np.shares_memory(perturbed, ids)


@pytest.mark.parametrize(
    ("words", "ratio", "number"),
    [(0, 0.5, 0), (1, 0.5, 1), (1, 0.01, 1), (2, 0.5, 1), (3, 0.5, 2), (5, 0.5, 3), (10, 0.3, 3), (7, 1.0, 7)],
)
def test_the_exact_number_is_rounded_half_up_and_at_least_one(words, ratio, number):
    ids = np.array([[START, *range(1, words + 1), END, 0, 0]])
    perturbed = CaptionPerturbation(MASK, (1, MASK), ratio)(ids, np.random.default_rng(3).random(ids.shape))
    assert (perturbed == MASK).sum() == number
    assert perturbed[0, [0, words + 1, -2, -1]].tolist() == [START, END, 0, 0]


def test_every_place_is_masked_equally_often_and_padding_changes_nothing():
    draws = np.random.default_rng(4).random((4000, 14))
    ids = np.tile(np.array([START, *range(1, 11), END, 0, 0]), (4000, 1))
    perturbed = CaptionPerturbation(MASK, (1, MASK), 0.3)(ids, draws)
    share = (perturbed == MASK).mean(axis=0)
    assert share[[0, 11, 12, 13]].max() == 0
    assert np.abs(share[1:11] - 0.3).max() < 0.03  # 4 standard deviations
    trimmed = CaptionPerturbation(MASK, (1, MASK), 0.3)(ids[:, :12], draws[:, :12])
    np.testing.assert_array_equal(trimmed, perturbed[:, :12])


def test_independent_draws_vary_in_number_and_may_mask_nothing():
    draws = np.random.default_rng(5).random((4000, 6))
    ids = np.tile(np.array([START, 1, 2, 3, 4, END]), (4000, 1))
    perturbed = CaptionPerturbation(MASK, (1, MASK), 0.5, "bernoulli")(ids, draws)
    np.testing.assert_array_equal(perturbed == MASK, (draws < 0.5) & (ids < MASK))
    numbers = np.bincount((perturbed == MASK).sum(axis=1), minlength=5) / 4000
    assert np.abs(numbers - np.array([1, 4, 6, 4, 1]) / 16).max() < 0.03
    np.testing.assert_array_equal(CaptionPerturbation(MASK, (1, MASK), 0.0, "bernoulli")(ids, draws), ids)
