"""Masking of captions in spans (bi-irra.md 2.3): a slow reference, and the frequencies of the published generator."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from tipr.data.batch import IGNORE
from tipr.data.sampling import Stream, uniforms
from tipr.data.span_masking import DRAWS_OF_A_POSITION, SpanMasking

GOLDEN = json.loads((Path(__file__).parents[1] / "data" / "golden_bi_irra" / "expected.json").read_text())
MASK_ID, VOCABULARY = 299, 300
SPANS = SpanMasking(MASK_ID, VOCABULARY)
WORDS = SpanMasking(MASK_ID, VOCABULARY, kind="bernoulli")


def captions(tokens: NDArray[np.int64], length: int) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Rows of start, words, end, padding with the given numbers of real tokens."""
    ids = np.random.default_rng(0).integers(4, MASK_ID, (len(tokens), length))
    mask = np.arange(length) < tokens[:, None]
    ids[:, 0] = 0
    ids[np.arange(len(tokens)), tokens - 1] = 2
    return np.where(mask, ids, 1), mask


def draws(rows: int, length: int) -> NDArray[np.float64]:
    return uniforms(7, 1, np.arange(rows), Stream.MASKING, DRAWS_OF_A_POSITION * length)


def reference(row: NDArray[np.int64], tokens: int, table: NDArray[np.float64]) -> dict[int, int]:
    """Chosen position -> new id, one position after the other; `table` has five draws for each."""
    wanted = min(12, max(1, round(0.4 * tokens)))
    chosen: set[int] = set()
    for position in sorted(range(1, tokens), key=lambda each: table[each, 0]):
        if len(chosen) >= wanted:
            break
        if position in chosen:
            continue
        size = 1 if table[position, 1] >= 0.2 else 3 if table[position, 1] < 0.1 else 2
        chosen |= set(range(position, min(position + size, tokens)))
    kept = sorted(chosen, key=lambda each: table[each, 2])[:wanted]
    new = {}
    for position in kept:
        share = table[position, 3]
        kinds = (MASK_ID, int(table[position, 4] * VOCABULARY), int(row[position]))
        new[position] = kinds[0] if share < 0.8 else kinds[1] if share < 0.9 else kinds[2]
    return new


def test_every_row_is_masked_as_the_rules_say() -> None:
    tokens = np.random.default_rng(1).integers(2, 61, 400)
    ids, mask = captions(tokens, 60)
    before, table = ids.copy(), draws(400, 60)
    masked, labels = SPANS(ids, mask, table)
    assert (ids == before).all()
    for row in range(400):
        new = reference(ids[row], int(tokens[row]), table[row].reshape(60, DRAWS_OF_A_POSITION))
        expected, wanted = ids[row].copy(), np.full(60, IGNORE)
        for position, token in new.items():
            expected[position], wanted[position] = token, ids[row, position]
        np.testing.assert_array_equal(masked[row], expected)
        np.testing.assert_array_equal(labels[row], wanted)


def test_the_result_does_not_depend_on_padding() -> None:
    tokens = np.random.default_rng(2).integers(2, 21, 100)
    ids, mask = captions(tokens, 40)
    long, short = SPANS(ids, mask, draws(100, 40)), SPANS(ids[:, :20], mask[:, :20], draws(100, 20))
    for one, other in zip(long, short, strict=True):
        np.testing.assert_array_equal(one[:, :20], other)
    assert (long[1][:, 20:] == IGNORE).all()


@pytest.mark.parametrize("length", [12, 30])
def test_frequencies_are_those_of_the_published_generator(length: int) -> None:
    """Two samples of 10,000: a position may differ by four standard deviations of a difference, all of them together
    by far less (chi-square)."""
    published = GOLDEN["text_masking"][f"length_{length}"]
    rows = published["draws"]
    ids, mask = captions(np.full(rows, length), length + 3)
    masked, labels = SPANS(ids, mask, draws(rows, length + 3))
    chosen = labels != IGNORE
    assert chosen.sum(axis=1).min() == published["min_masked"] == chosen.sum(axis=1).max() == published["max_masked"]
    ours, theirs = chosen.mean(axis=0)[:length], np.array(published["frequency_of_each_position"])
    assert ours[0] == theirs[0] == 0
    score = (ours - theirs)[1:] / np.sqrt(2 * theirs * (1 - theirs) / rows)[1:]
    assert np.abs(score).max() < 4
    assert (score**2).sum() < length - 1 + 4 * np.sqrt(2 * (length - 1))
    total = chosen.sum()
    unchanged = (masked == ids)[chosen].mean()
    hidden = (masked == MASK_ID)[chosen].mean()
    shares = {"mask_token": hidden, "other_token": 1 - hidden - unchanged, "unchanged": unchanged}
    for name, share in shares.items():
        expected = published[f"fraction_{name}"]
        assert abs(share - expected) < 4 * np.sqrt(2 * expected * (1 - expected) / total), name


def test_a_substitute_may_be_any_id() -> None:
    ids, mask = captions(np.full(20_000, 12), 12)
    masked, labels = SPANS(ids, mask, draws(20_000, 12))
    substitutes = masked[(labels != IGNORE) & (masked != ids) & (masked != MASK_ID)]
    assert set(range(4)) <= set(substitutes.tolist()) <= set(range(VOCABULARY))


def test_bernoulli_hides_each_word_by_itself_and_at_least_one() -> None:
    tokens = np.concatenate([np.full(5000, 22), np.full(2000, 3), np.full(10, 2)])
    ids, mask = captions(tokens, 24)
    masked, labels = WORDS(ids, mask, draws(len(ids), 24))
    chosen = labels != IGNORE
    assert (masked[chosen] == MASK_ID).all()
    assert (masked == ids)[~chosen].all()
    assert abs(chosen[:5000, 1:21].mean() - 0.4) < 4 * np.sqrt(0.4 * 0.6 / 100_000)
    assert len(set(chosen[:5000].sum(axis=1).tolist())) > 5
    assert not chosen[:5000, [0, 21, 22, 23]].any()
    assert chosen[5000:7000, 1].all()
    assert not chosen[7000:].any()
