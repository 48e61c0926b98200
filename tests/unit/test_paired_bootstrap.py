"""The difference between two models on the same queries, by bootstrap over identities."""

from __future__ import annotations

import numpy as np
import pytest

from tipr.evaluation.bootstrap import bootstrap_intervals, paired_bootstrap


def slow_pairs(ours, theirs, identity, draws: int, seed: int):
    """One draw at a time, one person at a time."""
    people = sorted(set(identity.tolist()))
    random = np.random.default_rng(seed)
    means = []
    for _ in range(draws):
        drawn = [people[i] for i in random.integers(0, len(people), len(people))]
        one = np.concatenate([ours[identity == person] for person in drawn])
        two = np.concatenate([theirs[identity == person] for person in drawn])
        means.append(one.mean() - two.mean())
    below = sum(mean <= 0 for mean in means)
    above = sum(mean >= 0 for mean in means)
    p = min(1.0, 2 * (min(below, above) + 1) / (draws + 1))
    return *np.quantile(means, [0.025, 0.975]), p


def test_agrees_with_a_slow_version_draw_by_draw() -> None:
    random = np.random.default_rng(0)
    identity = random.integers(0, 25, 130)
    theirs = random.random((130, 1))
    ours = theirs + random.normal(0.02, 0.15, (130, 1))
    (found,) = paired_bootstrap([(ours, identity)], [(theirs, identity)], draws=300, seed=11)
    low, high, p = slow_pairs(ours[:, 0], theirs[:, 0], identity, 300, 11)
    assert found.difference == pytest.approx(ours.mean() - theirs.mean())
    assert (found.low, found.high, found.p) == pytest.approx((low, high, p), abs=1e-12)
    assert 0.001 < found.p < 1  # a case that a wrong tail would change


def test_what_is_hard_for_both_cancels_out() -> None:
    random = np.random.default_rng(1)
    hard = random.random((200, 1)) * 100
    identity = np.arange(200) // 2
    (found,) = paired_bootstrap([(hard + 1.0, identity)], [(hard, identity)], seed=0)
    assert (found.difference, found.low, found.high) == pytest.approx((1.0, 1.0, 1.0))
    assert found.p == pytest.approx(2 / 2001)
    alone = bootstrap_intervals([(hard, identity)], seed=0)[0]
    assert alone[1] - alone[0] > 5


def test_equal_models_differ_by_nothing_and_swapping_them_turns_the_sign() -> None:
    random = np.random.default_rng(2)
    one, two, identity = random.random((90, 2)), random.random((90, 2)), random.integers(0, 30, 90)
    (same, _) = paired_bootstrap([(one, identity)], [(one, identity)], draws=200, seed=0)
    assert (same.difference, same.low, same.high, same.p) == (0.0, 0.0, 0.0, 1.0)
    there = paired_bootstrap([(one, identity)], [(two, identity)], draws=200, seed=0)
    back = paired_bootstrap([(two, identity)], [(one, identity)], draws=200, seed=0)
    for mine, other in zip(there, back, strict=True):
        assert mine.difference == pytest.approx(-other.difference)
        assert (mine.low, mine.p) == pytest.approx((-other.high, other.p))


def test_two_models_of_the_same_worth_rarely_look_different() -> None:
    random = np.random.default_rng(3)
    identity = np.repeat(np.arange(60), 4)
    small = 0
    for trial in range(200):
        easy = np.repeat(random.random(60), 4)
        one, two = ((random.random((2, 240)) < easy).astype(float))[..., None]
        (found,) = paired_bootstrap([(one, identity)], [(two, identity)], draws=200, seed=trial)
        small += found.p < 0.05
    assert 0.01 <= small / 200 <= 0.11


def test_groups_count_alike_and_must_be_of_the_same_queries() -> None:
    ones, zeros = np.ones((10, 1)), np.zeros((30, 1))
    few, many = np.arange(10), np.arange(30)
    (found,) = paired_bootstrap(
        [(ones, few), (zeros, many)], [(np.zeros((10, 1)), few), (zeros, many)], draws=50, seed=0
    )
    assert found.difference == 0.5
    for theirs in ([(ones, few[::-1])], [(ones[:9], few[:9])], [(ones, few), (ones, few)]):
        with pytest.raises(ValueError, match="the same queries for both"):
            paired_bootstrap([(ones, few)], theirs, draws=50, seed=0)
