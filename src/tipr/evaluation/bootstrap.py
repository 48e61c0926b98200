"""Confidence intervals and the significance of a difference, by bootstrap over identities.

The captions of one person are not independent: two writers describe the same clothes, and an easy person is easy in
every caption. So people are drawn with replacement, each with all of his or her queries, and the mean over queries is
taken again (Efron and Tibshirani 1993, percentile interval; clusters resampled whole). Two models are compared on the
same queries: the difference is taken query by query first, so that what is hard for both cancels out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

DRAWS = 2000
LEVEL = 0.95
CELLS = 4_000_000
"""Identities drawn at a time, which bounds the memory."""

Group = tuple[NDArray[np.float64], NDArray[np.int64]]
"""Values (Q, M) of the queries of one group, such as one language, and their identities (Q,)."""


def identity_bootstrap(
    values: NDArray[np.float64],
    identity: NDArray[np.int64],
    *,
    draws: int = DRAWS,
    seed: int,
    level: float = LEVEL,
) -> tuple[float, float]:
    """The percentile interval of the mean of one value a query.

    Args:
        values: (Q,) floats, without NaN.
        identity: (Q,) integers, the person each query is about.
        draws: resamples, >= 1.
        seed: of the resampling.
        level: in (0, 1).

    Returns:
        (low, high) in the units of `values`; the mean itself twice when there is one identity.

    Raises:
        ValueError: shapes that do not fit, no query, NaN, or an illegal option.
    """
    values = np.asarray(values, dtype=np.float64)
    if values.ndim != 1:
        raise ValueError(f"values have shape {values.shape}; expected (queries,)")
    low, high = bootstrap_intervals([(values[:, None], identity)], draws=draws, seed=seed, level=level)[0]
    return float(low), float(high)


def bootstrap_intervals(
    groups: Sequence[Group], *, draws: int = DRAWS, seed: int, level: float = LEVEL
) -> NDArray[np.float64]:
    """Percentile intervals of the mean over groups of each group's mean over queries.

    One draw of people serves all groups and all M values, because the groups (the languages of one split) show the same
    people. A draw in which a group has no query at all says nothing about the mean and is left out.

    Args:
        groups: one or more (values (Q, M), identity (Q,)).
        draws, seed, level: see `identity_bootstrap`.

    Returns:
        (M, 2) float64: low, high.

    Raises:
        ValueError: as `identity_bootstrap`.
    """
    return _limits(_drawn_means(groups, draws=draws, seed=seed, level=level), level)


@dataclass(frozen=True, slots=True)
class PairedDifference:
    """How much better one model is than another on the same queries.

    Attributes:
        difference: mean of the first minus mean of the second, in the units of the values.
        low, high: percentile interval of the difference.
        p: two-sided significance: twice the share of draws on the far side of zero, at most 1. The observed sample
            counts as one draw on that side (Davison and Hinkley 1997, section 4.2), so p is never 0.
    """

    difference: float
    low: float
    high: float
    p: float


def paired_bootstrap(
    ours: Sequence[Group], theirs: Sequence[Group], *, draws: int = DRAWS, seed: int, level: float = LEVEL
) -> list[PairedDifference]:
    """The difference between two models, its interval and its significance.

    The same people are drawn for both models. With one model per training seed, give each query's mean over the seeds:
    the significance is then about these weights on other people, not about other seeds.

    Args:
        ours: one or more (values (Q, M), identity (Q,)), such as one for each language.
        theirs: of the other model: the same queries in the same order.
        draws, seed, level: see `identity_bootstrap`.

    Returns:
        one for each of the M values, of the mean over groups of each group's mean over queries.

    Raises:
        ValueError: the two are not of the same queries; else as `identity_bootstrap`.
    """
    shapes = [[np.shape(values) for values, _ in groups] for groups in (ours, theirs)]
    if shapes[0] != shapes[1] or not all(
        np.array_equal(mine, other) for (_, mine), (_, other) in zip(ours, theirs, strict=True)
    ):
        raise ValueError(f"values have shapes {shapes[0]} and {shapes[1]}; expected the same queries for both")
    groups = [(values - other, identity) for (values, identity), (other, _) in zip(ours, theirs, strict=True)]
    drawn = _drawn_means(groups, draws=draws, seed=seed, level=level)
    observed = np.mean([values.mean(axis=0) for values, _ in groups], axis=0)
    # a difference that is exactly nought in a draw stands on both sides, so equal models get p = 1
    sides = np.minimum((drawn <= 0).sum(axis=0), (drawn >= 0).sum(axis=0))
    p = np.minimum(1.0, 2.0 * (sides + 1) / (len(drawn) + 1))
    limits = _limits(drawn, level)
    return [
        PairedDifference(float(difference), float(low), float(high), float(share))
        for difference, (low, high), share in zip(observed, limits, p, strict=True)
    ]


def _limits(drawn: NDArray[np.float64], level: float) -> NDArray[np.float64]:
    """(M, 2) percentile interval of (draws, M) means."""
    tail = (1.0 - level) / 2.0
    return np.quantile(drawn, [tail, 1.0 - tail], axis=0).T


def _drawn_means(groups: Sequence[Group], *, draws: int, seed: int, level: float) -> NDArray[np.float64]:
    """(draws, M): the mean over groups in each draw of people; draws that leave a group empty are left out."""
    if draws < 1 or not 0 < level < 1:
        raise ValueError(f"draws is {draws} and level {level}; expected draws >= 1 and a level between 0 and 1")
    if not groups:
        raise ValueError("no group to resample")
    for values, identity in groups:
        if values.ndim != 2 or np.shape(identity) != values.shape[:1] or not len(values):
            raise ValueError(
                f"values have shape {values.shape} and identity {np.shape(identity)}; expected (Q, M) and (Q,), Q >= 1"
            )
        if np.isnan(values).any():
            raise ValueError("a value is NaN; leave out queries without a relevant image")
    people = np.unique(np.concatenate([np.asarray(identity) for _, identity in groups]))
    sums = [_sums(values, np.searchsorted(people, identity), len(people)) for values, identity in groups]
    random = np.random.default_rng(seed)
    means = []
    size = max(1, CELLS // len(people))
    for begin in range(0, draws, size):
        count = min(size, draws - begin)
        drawn = random.integers(0, len(people), (count, len(people)))
        drawn += np.arange(count)[:, None] * len(people)
        times = np.bincount(drawn.ravel(), minlength=count * len(people)).reshape(count, len(people)).astype(np.float64)
        with np.errstate(invalid="ignore"):  # 0 / 0 marks a draw without a query
            means.append(sum(times @ total / (times @ number) for total, number in sums) / len(sums))
    drawn_means = np.concatenate(means)
    kept: NDArray[np.float64] = drawn_means[~np.isnan(drawn_means).any(axis=1)]
    return kept


def _sums(
    values: NDArray[np.float64], person: NDArray[np.int64], people: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Per person: the sum of each value (P, M) and the number of queries (P, 1)."""
    columns = [np.bincount(person, weights=column, minlength=people) for column in values.T]
    total = np.stack(columns, axis=1).astype(np.float64)
    number = np.bincount(person, minlength=people).astype(np.float64)[:, None]
    return total, number
