"""A folder of bad files costs lines in a report: no crash, no hang, no sound file lost."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest
from bad_files import Odd, corpus, sample
from colour_model import ColourModel

from tipr.data.images import HINTS
from tipr.gallery import Gallery
from tipr.gallery.ingest import CODES


def index(files: list[Odd], folder: Path) -> dict[str, str | None]:
    """Name of each file -> its reason code, None when it was indexed."""
    (folder / "p").mkdir()
    for odd in files:
        odd.make(folder / "p" / odd.name)
    model: Any = ColourModel()
    gallery = Gallery.create(folder / "g", model)
    report = gallery.add([folder / "p"])
    codes: dict[str, str | None] = {Path(item.path).name: item.code for item in report.skipped}
    for hit in gallery.search("red", k=10_000):
        name = Path(hit.metadata["path"]).name
        assert name not in codes
        codes[name] = None
    assert report.added == sum(code is None for code in codes.values())
    return codes


def judge(files: list[Odd], codes: dict[str, str | None]) -> None:
    assert codes.keys() == {odd.name for odd in files}
    wrong = {
        odd.name: (odd.fate, codes[odd.name])
        for odd in files
        if odd.fate != "either" and (codes[odd.name] is None) != (odd.fate == "indexed")
    }
    assert not wrong
    assert {code for code in codes.values() if code is not None} <= {*HINTS, *CODES}


def test_sixty_of_the_bad_files(tmp_path: Path) -> None:
    files = sample(corpus(), 60)
    judge(files, index(files, tmp_path))


@pytest.mark.slow
def test_all_bad_files(tmp_path: Path) -> None:
    files = corpus()
    assert sum(odd.fate == "reported" for odd in files) >= 300
    start = time.monotonic()
    judge(files, index(files, tmp_path))
    assert time.monotonic() - start < 5.0 * len(files)
