"""The review before an erasure: everything chosen is on it, and nothing on it is markup."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from PIL import Image

from tipr.report.erasure_page import Reviewed, write_erasure_page, write_erasure_sheet


def _jpeg(colour: str) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (20, 60), colour).save(buffer, format="JPEG")
    return buffer.getvalue()


def test_the_page_separates_what_a_hold_keeps(tmp_path: Path) -> None:
    hostile = "<script>alert(1)</script>\u202e"
    pictures = [
        Reviewed(7, _jpeg("red"), "p/a.png", similarity=0.98765, band="stands out"),
        Reviewed(8, _jpeg("blue"), hostile, camera=hostile, time="2026-03-01 08:00", identity=hostile, hold=hostile),
    ]
    path = write_erasure_page(
        pictures, tmp_path / "r.html", question=hostile, gallery_name=hostile, total=5000, notes=[hostile]
    )
    text = path.read_text(encoding="utf-8")
    assert "<script" not in text
    assert "\u202e" not in text
    assert text.count("data:image/jpeg;base64,") == 2
    assert text.index("To be erased") < text.index("<b>7</b>0.988<br>stands out") < text.index("Kept by a legal hold")
    assert text.index("Kept by a legal hold") < text.index("<b>8</b>")
    assert "Only the first 2 of 5,000 are shown" in text
    assert "default-src &#39;none&#39;" in text or "default-src 'none'" in text


def test_a_group_without_pictures_has_no_heading(tmp_path: Path) -> None:
    path = write_erasure_page(
        [Reviewed(7, _jpeg("red"), "a")], tmp_path / "r.html", question="identity 7", gallery_name="g", total=1
    )
    text = path.read_text(encoding="utf-8")
    assert "Kept by a legal hold" not in text
    assert "Only the first" not in text
    assert "1 picture of g chosen" in text


def test_the_sheet_goes_on_after_ten_pictures(tmp_path: Path) -> None:
    pictures = [Reviewed(number, _jpeg("red"), "a", hold="x" if number == 3 else None) for number in range(11)]
    with Image.open(write_erasure_sheet(pictures, tmp_path / "r.png", question="identity 7")) as sheet:
        assert sheet.height > 2 * 312
        assert sheet.width < 1300
    with pytest.raises(ValueError, match="at least one row"):
        write_erasure_sheet([], tmp_path / "none.png", question="x")
