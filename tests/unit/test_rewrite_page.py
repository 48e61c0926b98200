"""The review file of rewriting: one file, nothing loaded, everything escaped, every decision visible."""

from __future__ import annotations

import json
import re
from html import unescape
from pathlib import Path
from typing import Any

import pytest
from tiny_vision_language import filtered_row, paint_all

from tipr.errors import DatasetError
from tipr.report.rewrite_page import SHOWN, write_rewrite_page
from tipr.translation.records import REWRITTEN, Row

HOSTILE = '<script>alert("x")</script><img src="https://example.org/x.png">'


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return paint_all(tmp_path_factory.mktemp("images"))


def rewritten(garment: str, language: str = "de", **changes: Any) -> Row:
    row = filtered_row("red", garment, "blue", language, **{"noise": 0.5, **changes.pop("before", {})})
    stage = {"rewrite": None, "rewrite_noise": None, "draft_noise": row["noise"], "kept": False, "refused": None}
    told = {"backend": "vision_language", "model": "tiny-llava"}
    return {**row, **stage, "rewriter": told, "text": row["draft"], **changes}


def kept(garment: str, text: str, noise: float, **changes: Any) -> Row:
    return rewritten(garment, rewrite=text, rewrite_noise=noise, kept=True, text=text, **changes)


def refused(garment: str, reason: str, **changes: Any) -> Row:
    return rewritten(garment, refused=reason, **changes)


def page(folder: Path, images: Path, rows: list[Row]) -> str:
    text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    (folder / REWRITTEN).write_text(text, encoding="utf-8")
    path = write_rewrite_page(folder, images)
    assert path == folder / "rewritten.html"
    return path.read_text(encoding="utf-8")


def words(html: str) -> str:
    return " ".join(re.sub(r"<style>.*?</style>|<[^>]+>", " ", html, flags=re.DOTALL).split())


def test_shows_picture_source_draft_rewrite_and_both_noises(images: Path, tmp_path: Path) -> None:
    row = kept("coat", "Eine Person in rotem Mantel.", 0.125, before={"suspect": "top_color"})
    html = page(tmp_path, images, [row])
    assert html.count("data:image/jpeg;base64,") == 1
    text = words(html)
    for shown in (row["source"], row["draft"], row["rewrite"], "noise 0.500", "noise 0.125", row["key"], "tiny-llava"):
        assert shown in text
    assert "colour of the upper garment" in text
    assert "1 of 1 noisy translations were rewritten" in text


def test_marks_the_final_text_and_says_why_others_were_refused(images: Path, tmp_path: Path) -> None:
    rows = [
        kept("coat", "Besser.", 0.1),
        refused("scarf", "not_better", rewrite="Schlechter.", rewrite_noise=0.9),
        refused("vest", "cut_off", rewrite="Eine Person mit"),
        refused("shirt", "no_image", image="gone.png", rewriter=None),
        refused("dress", "empty", before={"draft": "", "noise": None, "rule": "empty"}, text=None),
        rewritten("jacket", before={"noise": 0.1}),
        kept("coat", "更好。", 0.15, language="zh"),
    ]
    html = page(tmp_path, images, rows)
    text = words(html)
    assert "2 of 6 noisy translations were rewritten" in text
    assert "Deutsch: 1 of 5 rewritten" in text
    assert "中文: 1 of 1 rewritten" in text
    assert "1 without a readable picture, 1 cut off before its end, 1 empty, 1 not better than the draft." in text
    assert "No rewrite was refused." in text
    assert html.count("<em>final text</em>") == 5
    assert re.findall(r"Draft final text · noise [\d.]+", text) == ["Draft final text · noise 0.500"] * 3
    assert re.findall(r"Rewrite final text · noise [\d.]+", text) == [
        "Rewrite final text · noise 0.100",
        "Rewrite final text · noise 0.150",
    ]
    assert "no picture" in text
    order = [text.index(kind) for kind in ("Without a text: 1", "Rewritten: 1", "Draft stays: 3")]
    assert order == sorted(order)
    assert rows[5]["source"] not in text


def test_loads_nothing_and_escapes_everything(images: Path, tmp_path: Path) -> None:
    html = page(tmp_path, images, [kept("coat", HOSTILE, 0.1, source=HOSTILE, draft=HOSTILE)])
    assert "<script" not in html
    assert "default-src 'none'" in unescape(html)
    assert re.findall(r'(?:src|href)="(?!data:|#)[^"]*"', html) == []
    assert html.count("&lt;script&gt;") == 3


def test_shows_the_closest_decisions_first_and_a_bounded_number(images: Path, tmp_path: Path) -> None:
    rows = [kept("coat", f"Fassung {n}.", 0.4 - n / 1000, key=f"red-blue.png#{n}@de") for n in range(SHOWN + 5)]
    html = page(tmp_path, images, list(reversed(rows)))
    shown = [int(number) for number in re.findall(r"Fassung (\d+)\.", html)]
    assert shown == list(range(SHOWN))
    assert f"Rewritten: {SHOWN + 5}" in words(html)
    assert f"The first {SHOWN} are shown." in html


def test_nothing_noisy_and_nothing_there(images: Path, tmp_path: Path) -> None:
    assert "there was nothing to rewrite" in page(tmp_path, images, [rewritten("coat", before={"noise": 0.1})])
    with pytest.raises(DatasetError, match=r"no file .*rewritten.jsonl"):
        write_rewrite_page(tmp_path / "elsewhere", images)
