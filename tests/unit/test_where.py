"""The language of `--where`: what it selects, what it refuses, and that nothing typed into it is ever run."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest

from tipr.errors import ConfigError
from tipr.gallery.conditions import Columns, TextIs, quoted
from tipr.gallery.filters import Filters
from tipr.gallery.stores import Coded
from tipr.gallery.where import DEEPEST, LONGEST, parse_where

COUNT = 6


def _objects(*values: Any) -> np.ndarray:
    column = np.empty(len(values), dtype=object)
    column[:] = values
    return column


COLUMNS: Columns = {
    "camera": _objects("gate", None, "door", "back door", "gate", "or"),
    "time": np.array(
        ["2026-03-01T08:00", "NaT", "2026-03-02T00:00", "2026-03-02T23:59:59.999999", "2026-03-03", "NaT"],
        dtype="datetime64[us]",
    ),
    "path": _objects("/a/gate/1.jpg", "/a/x/2.jpg", "/b/%_3.jpg", "/b/4.jpg", "/c/五.jpg", '/c/"6".jpg'),
    "identity": _objects(7, "7b", None, 8, 7, "Müller"),
    "sha256": _objects(*"abcdef"),
    "tags": _objects(("bag=red", "indoor"), (), ("bag=blue",), ("bag=red", "bag=big"), ("indoor",), ("x y=1",)),
    "indexed": np.datetime64("2026-04-01", "us") + np.arange(6) * np.timedelta64(1, "D"),
    "box": _objects(None, (0.0, 0.0, 1.0, 1.0), None, None, (2.0, 0.0, 1.0, 1.0), None),
    "width": np.array([10, 20, 30, 40, 50, 60]),
    "height": np.array([100, 100, 100, 200, 200, 200]),
}


def coded(columns: Columns) -> Columns:
    """The same columns as a store gives them for filtering."""
    result: dict[str, Any] = {}
    for name, values in columns.items():
        if isinstance(values, np.ndarray) and values.dtype.kind == "O":
            different = list(dict.fromkeys(values))
            result[name] = Coded(different, np.array([different.index(value) for value in values], dtype=np.int32))
        else:
            result[name] = values
    return result


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("camera = gate", [0, 4]),
        ("camera=gate", [0, 4]),
        ("camera != gate", [1, 2, 3, 5]),
        ("camera in (gate, 'back door')", [0, 3, 4]),
        ("camera *= door", [2, 3]),
        ("camera ^= back", [3]),
        ('camera = "or"', [5]),
        ("camera is unknown", [1]),
        ("camera is known and not camera = gate", [2, 3, 5]),
        ("path ^= /b/", [2, 3]),
        ("path *= %_", [2]),
        ("path *= 五", [4]),
        ("""path = '/c/"6".jpg'""", [5]),
        ('path = "/c/""6"".jpg"', [5]),
        ("identity = 7", [0, 4]),
        ("identity in (007, 7b)", [0, 1, 4]),
        ("identity != 007", [1, 2, 3, 5]),
        ("identity ^= 7", [0, 1, 4]),
        ("identity = Müller", [5]),
        ("sha256 in (a, b, c)", [0, 1, 2]),
        ("time = 2026-03-02", [2, 3]),
        ("time > 2026-03-02", [4]),
        ("time >= 2026-03-02", [2, 3, 4]),
        ("time < 2026-03-02", [0]),
        ("time <= 2026-03-02", [0, 2, 3]),
        ("time != 2026-03-02", [0, 1, 4, 5]),
        ("time = 2026-03-01T09:00:00+01:00", [0]),
        ("time in (2026-03-01, 2026-03-03)", [0, 4]),
        ("time is unknown", [1, 5]),
        ("indexed >= 2026-04-05", [4, 5]),
        ("indexed = 2026-04-02 or time > 2026-03-02", [1, 4]),
        ("indexed is known", [0, 1, 2, 3, 4, 5]),
        ("box is known", [1, 4]),
        ("box is unknown and camera = gate", [0]),
        ("width < 30", [0, 1]),
        ("width >= 5e1", [4, 5]),
        ("height = 100 and width != 20", [0, 2]),
        ("width in (10, 60)", [0, 5]),
        ("width is known", [0, 1, 2, 3, 4, 5]),
        ("tag = indoor", [0, 4]),
        ("tag = 'bag=red'", [0, 3]),
        ("tag is unknown", [1]),
        ("bag = red", [0, 3]),
        ("bag = big", [3]),
        ("bag != red", [1, 2, 4, 5]),
        ("bag is known", [0, 2, 3]),
        ("bag in (blue, big)", [2, 3]),
        ("'x y' = 1", [5]),
        ("not (camera = gate or bag = blue)", [1, 3, 5]),
        ("camera = gate or camera = door and width = 1", [0, 4]),  # `and` binds closer than `or`
        ("(camera = gate or camera = door) and width = 30", [2]),
        ("not not camera = gate", [0, 4]),
    ],
)
def test_an_expression_selects_what_it_says(expression: str, expected: list[int]) -> None:
    condition = parse_where(expression)
    for columns in (COLUMNS, coded(COLUMNS)):
        needed = {name: columns[name] for name in condition.columns}
        assert np.flatnonzero(condition.mask(needed, COUNT)).tolist() == expected
    again = parse_where(str(condition))  # what people are shown means the same
    np.testing.assert_array_equal(again.mask(COLUMNS, COUNT), condition.mask(COLUMNS, COUNT))


@pytest.mark.parametrize(
    ("expression", "message"),
    [
        ("", "a column was expected, not the end"),
        ("camera", r"= != \^= \*= < <= > >= `in` or `is` after 'camera' was expected, not the end"),
        ("camera = ", "a value was expected, not the end"),
        ("camera = gate door", "`and`, `or` or the end was expected, not 'door'"),
        ("camera = gate and", "a column was expected, not the end"),
        ("camera = 'gate", 'a quote is not closed at "\'gate"'),
        ("camera == gate", "a value was expected, not '='"),
        ("camera ! gate", "a sign nobody knows at '! gate'"),
        ("camera in gate", r"`\(` after `in` was expected, not 'gate'"),
        ("camera in (gate", r"`,` or `\)` was expected, not the end"),
        ("(camera = gate", r"`\)` was expected, not the end"),
        ("camera is red", "`known` or `unknown` was expected, not 'red'"),
        ("camera < gate", "camera <: a text can be compared by"),
        ("indexed < never", "where: indexed: 'never' is not a date"),
        ("box = 1", "where: box =: only `box is known` and `box is unknown` can be asked"),
        ("width = big", "width = 'big': a number was expected"),
        ("width ^= 1", r"width \^=: a number can be compared by"),
        ("time ^= 2026", "'2026' is not a date"),
        ("time *= 2026-03-01", r"time \*=: a time can be compared by"),
        ("time = yesterday", "where: time: 'yesterday' is not a date"),
        ("time > 9999-12-31", "nothing lies outside the calendar"),
        ("time < 0001-01-01", "nothing lies outside the calendar"),
        ("not " * (DEEPEST + 2) + "camera = a", "more than 50 brackets"),
        ("(" * 5000 + "camera = a" + ")" * 4000, "more than 50 brackets"),
        ("camera = " + "a" * LONGEST, "the expression has 10,009 characters"),
    ],
)
def test_what_is_no_expression_is_refused_in_one_line(expression: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        Filters.of(where=expression)
    assert "\n" not in str(caught.value)


def test_a_key_that_no_tag_has_is_refused() -> None:
    with pytest.raises(ConfigError, match="no row has a column or tag 'gait'; all have camera, path"):
        parse_where("gait = slow").mask(COLUMNS, COUNT)


def test_flags_tags_and_an_expression_hold_together() -> None:
    filters = Filters.of(camera="gate", tags=["indoor", "bag=red"], where="width < 30 or width > 50")
    assert set(filters.columns) == {"camera", "tags", "width"}
    assert np.flatnonzero(filters.mask(coded(COLUMNS), COUNT)).tolist() == [0]
    assert filters.words() == ["camera = gate", "tag indoor", "tag bag=red", "(width < 30) or (width > 50)"]


PIECES = (
    "' OR '1'='1", '" OR ""="', "'; DROP TABLE people; --", "') OR id IN (SELECT id) --", "1 OR 1=1", "\x00", "%", "_",
    "../../../etc/passwd", "$(touch pwned)", "`touch pwned`", "{{7*7}}", "${7*7}", "__import__('os').system('true')",
    "\\'; --", "\\", "''", '""', "NULL", "true", ") or (camera is known", "* or camera is known", "(?:a+)+$",
    "\n or \n",
    "%27%20OR%201%3D1", "ʼ OR 1=1", "＇ OR 1=1", "\u202e", "gate' AND SLEEP(5) --", "array_has(tags, 'x')",
)  # fmt: skip
HEADS = ("", "gate", "gate'", 'gate"', "7", "/a/", "or ", "x y")
TAILS = ("", "'", '"', " --", " /*", ") or (width > 0")
PAYLOADS = [head + piece + tail for head, piece, tail in itertools.product(HEADS, PIECES, TAILS)][:1200]


def test_a_thousand_payloads_as_values_select_nothing_but_themselves() -> None:
    assert len(set(PAYLOADS)) >= 1000
    for payload in PAYLOADS:
        columns: Columns = {"camera": _objects("gate", payload, None), "tags": _objects((), (payload,), ("a=b",))}
        for column in ("camera", "tag"):
            condition = parse_where(f"{column} = {quoted(payload)}")
            assert condition == TextIs(column, "=", (payload,))
            assert condition.mask(columns, 3).tolist() == [False, True, False], payload
        assert Filters.of(camera=payload).mask(columns, 3).tolist() == [False, True, False]


def test_a_thousand_payloads_as_expressions_are_refused_or_mean_what_they_say() -> None:
    """Such as `gate') or (width > 0` inside a quoted value; unquoted, it may be an expression, and is read as one."""
    refused = 0
    for payload in PAYLOADS:
        for expression in (payload, f"camera = {payload}", f"camera = '{payload}'"):
            try:
                condition = parse_where(expression)
            except ConfigError:
                refused += 1
                continue
            try:
                mask = condition.mask(COLUMNS, COUNT)
            except ConfigError:  # a key that no tag has
                continue
            np.testing.assert_array_equal(parse_where(str(condition)).mask(COLUMNS, COUNT), mask)
    assert refused > 1000
