"""MLM masking against a slow reference, and its special cases (irra.md 3.3)."""

import numpy as np
import pytest

from tipr.data.batch import IGNORE
from tipr.data.masking import Masking

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
