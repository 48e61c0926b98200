"""Filters: typed values, checked early, a row mask before ranking; grouping keeps the best of each."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta, timezone
from typing import Any

import numpy as np
import pytest

from tipr.errors import ConfigError
from tipr.gallery.filters import Filters, moment
from tipr.gallery.search import group_of, rank
from tipr.metrics.ranking import full_order, stable_similarity


def _objects(*values: Any) -> np.ndarray:
    column = np.empty(len(values), dtype=object)
    for place, value in enumerate(values):
        column[place] = value
    return column


COLUMNS = {
    "camera": _objects("door", None, "gate", "door"),
    "time": np.array(["2026-03-01T08:00", "NaT", "2026-03-02T23:59:59.5", "2026-03-03T00:00"], dtype="datetime64[us]"),
    "path": _objects("/a/door/1.jpg", "/a/x/2.jpg", "/b/[3].jpg", "/b/%_4.jpg"),
}


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({}, [0, 1, 2, 3]),
        ({"camera": "door"}, [0, 3]),
        ({"camera": ["gate", "door"]}, [0, 2, 3]),
        ({"camera": "None"}, []),
        ({"camera": "DOOR"}, []),
        ({"camera": "door' OR 1=1 --"}, []),
        ({"since": "2026-03-01T08:00:00Z"}, [0, 2, 3]),
        ({"since": "2026-03-01T08:00:01Z"}, [2, 3]),
        ({"since": "2026-03-02"}, [2, 3]),
        ({"until": "2026-03-02"}, [0, 2]),
        ({"until": "2026-03-03T01:00:00+01:00"}, [0, 2, 3]),
        ({"until": "2026-03-03T00:59:59+01:00"}, [0]),
        ({"since": date(2026, 3, 3), "until": date(2026, 3, 3)}, [3]),
        ({"since": datetime(2026, 3, 2, tzinfo=timezone(timedelta(hours=8)))}, [2, 3]),
        ({"path": "door"}, [0]),
        ({"path": "%_"}, [3]),
        ({"path": "*.jpg"}, [0, 1, 2, 3]),
        ({"path": "/a/?/*"}, [1]),
        ({"path": "/b/[[]3].jpg"}, [2]),
        ({"camera": "door", "path": "/b/", "since": "2026-01-01"}, [3]),
    ],
)
def test_the_mask_is_what_a_person_expects(given: dict[str, Any], expected: list[int]) -> None:
    filters = Filters.of(**given)
    assert np.flatnonzero(filters.mask({name: COLUMNS[name] for name in filters.columns}, 4)).tolist() == expected
    assert bool(filters.words()) == bool(given)


@pytest.mark.parametrize("text", ["", "yesterday", "2026-02-30", "2026-3-1", "01.03.2026", "2026-03-01T08:30", "1e9"])
def test_a_time_that_cannot_be_read_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match=r"since: .* is not a date such as 2026-03-01"):
        Filters.of(since=text)


def test_an_empty_span_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"since \(2026-03-02\) is after until \(2026-03-01\)"):
        Filters.of(since="2026-03-02", until="2026-03-01")
    assert Filters.of(since="2026-03-01", until="2026-03-01").until is not None


def test_moments_are_utc_and_a_day_ends_at_its_end() -> None:
    assert moment("2026-03-01", "since") == datetime(2026, 3, 1, tzinfo=UTC)
    assert moment("2026-03-01", "until", end=True) == datetime(2026, 3, 1, 23, 59, 59, 999999, tzinfo=UTC)
    assert moment("2026-03-01T01:00:00+02:00", "since") == datetime(2026, 2, 28, 23, tzinfo=UTC)
    assert moment(datetime(2026, 3, 1, 5), "since") == datetime(2026, 3, 1, 5, tzinfo=UTC)
    with pytest.raises(ConfigError, match="outside the calendar"):
        moment("0001-01-01T00:00:00+10:00", "since")


def test_scores_do_not_depend_on_blocks_or_selection() -> None:
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(300, 64)).astype(np.float16)
    query = rng.normal(size=64).astype(np.float32)
    whole = stable_similarity(query, vectors)
    blocks = [stable_similarity(query, vectors[start : start + 7]) for start in range(0, 300, 7)]
    np.testing.assert_array_equal(np.concatenate(blocks), whole)
    np.testing.assert_array_equal(stable_similarity(query, vectors[5:6]), whole[5:6])


def test_ranking_under_a_filter_is_the_full_ranking_thinned_out() -> None:
    rng = np.random.default_rng(1)
    for _ in range(50):
        found = rng.integers(0, 6, 40).astype(np.float32)  # many ties
        keep = rng.random(40) < 0.4
        groups = [None if value == 0 else int(value) for value in rng.integers(0, 9, 40)]
        order = full_order(found)
        thinned = [int(place) for place in order if keep[place]]
        assert rank(found, 5, keep=keep).tolist() == thinned[:5]
        assert rank(found, 40).tolist() == order.tolist()
        best = [
            p for n, p in enumerate(thinned) if groups[p] is None or groups[p] not in [groups[q] for q in thinned[:n]]
        ]
        assert rank(found, 7, keep=keep, groups=groups).tolist() == best[:7]


def test_groups_come_from_columns_and_from_tags() -> None:
    columns = {name: _objects("a", "b") for name in ("identity", "camera", "path", "sha256")}
    columns["tags"] = _objects(("bag=red", "bag=big", "alone", "=x"), ())
    values = {name: [group_of(name, columns)(place) for place in range(2)] for name in ("camera", "bag")}
    assert values == {"camera": ["a", "b"], "bag": ["big", None]}
    with pytest.raises(ConfigError, match="no column 'alone'"):
        group_of("alone", columns)
