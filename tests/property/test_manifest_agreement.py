"""Code and published JSON Schema accept and refuse the same records, and records survive writing and reading."""

from __future__ import annotations

import json
import re
from datetime import datetime
from pathlib import Path
from typing import Any

import jsonschema
from hypothesis import given, settings
from hypothesis import strategies as st

from tipr.data.manifest import (
    IMAGE_PATTERN,
    KEYS,
    TIME_PATTERN,
    Caption,
    Record,
    format_record,
    parse_record,
    parse_time,
)
from tipr.data.samples import LANGUAGES, SPLITS
from tipr.errors import DatasetError

SCHEMA = json.loads((Path(__file__).parents[2] / "docs" / "manifest.schema.json").read_text(encoding="utf-8"))
VALIDATOR = jsonschema.Draft202012Validator(SCHEMA)

text = st.text(st.characters(codec="utf-8"), max_size=8)
junk = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-3, 3),
    st.just(1.5),
    st.just(7.0),
    st.just(""),
    text,
    st.just([]),
    st.just({}),
)
captions = st.lists(
    st.one_of(
        st.fixed_dictionaries({"language": st.sampled_from([*LANGUAGES, "en", "zh", "ch"]), "text": text}),
        st.fixed_dictionaries({"language": junk}, optional={"text": junk, "other": junk}),
    ),
    max_size=3,
)
images = st.one_of(
    st.sampled_from(
        [
            "a.jpg",
            "a/b c.png",
            "图/男.webp",
            "/a.jpg",
            "../a.jpg",
            "a/../b.jpg",
            "a/..",
            "..",
            "a..jpg",
            "C:/a.jpg",
            "a\\b.jpg",
            "a/",
            "",
            "a\n.jpg",
            "a.jpg\n",
            ".",
            "./a.jpg",
            "..a/b.jpg",
        ]
    ),
    text,
)
times = st.sampled_from(
    [
        "2026-03-01T08:30:00Z",
        "2026-03-01t08:30:00.123456789z",
        "2026-03-01 08:30:00+01:00",
        "2026-03-01T08:30:00-23:59",
        "2026-03-01",
        "2026-13-01T00:00:00Z",
        "2026-03-01T24:00:00Z",
        "2026-03-01T08:30:00",
        "2026-03-01T08:30:00Z\n",
        "2026-03-01T08:30Z",
        "20260301T083000Z",
        "2026-03-01T08:30:00+0100",
        "٢026-03-01T08:30:00Z",
    ]
)
boxes = st.lists(st.one_of(st.integers(-1, 9), st.floats(-1, 9), st.booleans(), st.just("1")), min_size=3, max_size=5)
records = st.fixed_dictionaries(
    {"image": st.one_of(images, junk), "captions": st.one_of(captions, junk)},
    optional={
        "identity": junk,
        "camera": junk,
        "time": st.one_of(times, junk),
        "box": st.one_of(boxes, junk),
        "split": st.one_of(st.sampled_from([*SPLITS, "Train"]), junk),
        "tags": st.one_of(st.lists(st.one_of(text, junk), max_size=3), junk),
        "pid": junk,
    },
)
good = st.builds(
    Record,
    image=st.sampled_from(["a.jpg", "b/图 1.png"]),
    captions=st.lists(st.builds(Caption, st.sampled_from(LANGUAGES), text), max_size=3).map(tuple),
    identity=st.one_of(st.none(), st.integers(), text.filter(bool)),
    camera=st.one_of(st.none(), text.filter(bool)),
    time=st.one_of(st.none(), st.just("2026-03-01T08:30:00.5+01:00")),
    box=st.one_of(st.none(), st.just((0, 1.5, 2, 3))),
    split=st.one_of(st.none(), st.sampled_from(SPLITS)),
    tags=st.lists(text.filter(bool), unique=True, max_size=3).map(tuple),
)


def accepted(tree: Any) -> bool:
    try:
        parse_record(json.dumps(tree), source="m.jsonl:1")
    except DatasetError as error:
        message = str(error)
    else:
        return True
    assert message.startswith("m.jsonl:1: ")
    assert "\n" not in message
    return False


@settings(max_examples=300, deadline=None)
@given(records)
def test_code_and_schema_agree(tree: dict[str, Any]) -> None:
    assert accepted(tree) == VALIDATOR.is_valid(tree)


@settings(max_examples=150, deadline=None)
@given(good, st.data())
def test_code_and_schema_agree_when_one_value_of_a_good_record_is_replaced(record: Record, data: st.DataObject) -> None:
    tree = json.loads(format_record(record))
    assert accepted(tree)
    assert VALIDATOR.is_valid(tree)
    key = data.draw(st.sampled_from(KEYS))
    strategy = {"image": images, "captions": captions, "time": times, "box": boxes}.get(key, junk)
    tree[key] = data.draw(strategy)
    assert accepted(tree) == VALIDATOR.is_valid(tree)


@settings(max_examples=100, deadline=None)
@given(good)
def test_a_record_survives_writing_and_reading(record: Record) -> None:
    line = format_record(record)
    assert "\n" not in line
    assert parse_record(line, source="m.jsonl:1") == record


@settings(max_examples=100, deadline=None)
@given(st.datetimes(timezones=st.timezones()))
def test_every_time_with_an_offset_is_read(moment: datetime) -> None:
    written = moment.isoformat()
    if re.match(TIME_PATTERN, written):  # offsets with seconds, of old time zones, are not RFC 3339
        read = parse_time(written)
        assert (read.replace(tzinfo=None), read.utcoffset()) == (moment.replace(tzinfo=None), moment.utcoffset())


def test_schema_names_what_the_code_names() -> None:
    properties = SCHEMA["properties"]
    assert tuple(properties) == KEYS
    assert tuple(properties["captions"]["items"]["properties"]["language"]["enum"]) == LANGUAGES
    assert tuple(properties["split"]["enum"]) == SPLITS
    assert properties["image"]["pattern"] == IMAGE_PATTERN
    assert properties["time"]["pattern"] == TIME_PATTERN
