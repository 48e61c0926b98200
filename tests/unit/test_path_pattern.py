"""What a path says by a pattern, and every pattern that is refused."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pytest

from tipr.errors import ConfigError
from tipr.gallery.ingest import Entry
from tipr.gallery.path_pattern import PathPattern


def read(pattern: str, path: str) -> Entry | None:
    return PathPattern.parse(pattern).read(Entry(path))


def test_fields_are_read_from_the_end_of_a_path() -> None:
    entry = read("{camera}/{time:%Y%m%d}/{track}.jpg", "/data/x/gate 2/20260301/a.b.jpg")
    assert entry is not None
    assert (entry.camera, entry.time, entry.tags) == ("gate 2", datetime(2026, 3, 1, tzinfo=UTC), ("track=a.b",))


def test_a_person_several_times_and_what_is_passed_over() -> None:
    entry = read("{identity}/{time:%Y-%m-%d}/{_}_{time:%H.%M.%S%z}_{_}.png", "/d/0042/2026-03-01/x_08.30.05+0100_y.png")
    assert entry is not None
    assert entry.identity == 42
    assert entry.time == datetime(2026, 3, 1, 8, 30, 5, tzinfo=timezone(timedelta(hours=1)))
    assert entry.tags == ()


def test_what_is_known_goes_first() -> None:
    known = Entry("/d/gate/7.jpg", camera="door", identity="x", tags=("shoe=red",))
    read = PathPattern.parse("{camera}/{identity}.jpg").read(known)
    assert read == known


@pytest.mark.parametrize(
    "path", ["/d/gate/20260230/1.jpg", "/d/gate/2026030/1.jpg", "/d/gate/20260301/1.png", "/d/gate/20260301/x/1.jpg"]
)
def test_other_paths_are_told_apart(path: str) -> None:
    assert read("d/{camera}/{time:%Y%m%d}/{track}.jpg", path) is None


@pytest.mark.parametrize(
    ("pattern", "message"),
    [
        ("a.jpg", "has no field"),
        ("{camera/{track}.jpg", "a brace without its other one"),
        ("{camera}}.jpg", "a brace without its other one"),
        ("{}.jpg", "{} is no name"),
        ("{a b}.jpg", "{a b} is no name"),
        ("{time}.jpg", "time needs a form"),
        ("{time:}.jpg", "time needs a form"),
        ("{time:abc}.jpg", "time needs a form"),
        ("{time:%q}.jpg", "'%q' is not known; allowed: %Y"),
        ("{track:%Y}.jpg", "only time has a form"),
        ("{camera}/{camera}.jpg", "camera is there twice"),
    ],
)
def test_bad_patterns_are_refused_in_one_line(pattern: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        PathPattern.parse(pattern)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
