"""Marks of erased pictures: what they keep away, and how little they tell."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tipr.errors import GalleryCorrupt
from tipr.gallery.tombstones import NAME, Tombstones

ONE, TWO = "1" * 64, "2" * 64
BOX, OTHER = (0.0, 0.0, 20.0, 60.0), (40.5, 0.0, 20.0, 60.0)


def test_nothing_is_buried_before_an_erasure(tmp_path: Path) -> None:
    tombstones = Tombstones.read(tmp_path)
    assert len(tombstones) == 0
    assert not tombstones.buried(ONE, None)
    assert not (tmp_path / NAME).exists(), "reading writes nothing"


def test_a_file_whose_rows_are_all_erased_stays_away_in_every_crop(tmp_path: Path) -> None:
    tombstones = Tombstones.read(tmp_path).keep()
    marks = tombstones.of([(ONE, BOX), (ONE, None)], staying=[TWO])
    assert len(marks) == 1
    kept = tombstones.keep(marks)
    for read in (kept, Tombstones.read(tmp_path)):
        assert read.buried(ONE, None)
        assert read.buried(ONE, BOX)
        assert read.buried(ONE, OTHER)
        assert not read.buried(TWO, None)


def test_another_person_in_the_same_picture_may_stay_and_come_back(tmp_path: Path) -> None:
    tombstones = Tombstones.read(tmp_path).keep()
    kept = tombstones.keep(tombstones.of([(ONE, BOX)], staying=[ONE, TWO]))
    assert kept.buried(ONE, BOX)
    assert kept.buried(ONE, (0, 0, 20, 60)), "the same box, written in whole numbers"
    assert kept.buried(ONE, None), "the whole picture would show the erased person again"
    assert not kept.buried(ONE, OTHER)


def test_marks_tell_nothing_and_differ_between_galleries(tmp_path: Path) -> None:
    files = []
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        first = Tombstones.read(tmp_path / name).keep()
        for sha256 in (TWO, ONE):
            first = first.keep(first.of([(sha256, None)], staying=()))
        text = (tmp_path / name / NAME).read_text()
        assert ONE not in text
        marks = json.loads(text)["marks"]
        assert marks == sorted(marks), "their order does not tell which was erased first"
        files.append(set(marks))
        assert first.gallery == Tombstones.read(tmp_path / name).gallery
    assert not files[0] & files[1]


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", "{}", '{"format": 1, "secret": "00", "marks": []}', '{"format": 1, "secret": "xy", "marks": []}'],
)
def test_damaged_marks_are_no_empty_marks(tmp_path: Path, text: str) -> None:
    (tmp_path / NAME).write_text(text)
    with pytest.raises(GalleryCorrupt, match=r"erased\.json"):
        Tombstones.read(tmp_path)
