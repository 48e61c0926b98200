"""Stage 2: rules apart, threshold by mean or given, scores that survive a stop; and estimators behind one interface."""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tipr.errors import ConfigError, DatasetError, MissingExtra, TiprError
from tipr.report.translation_page import suspect_words, write_translation_page
from tipr.translation.estimators import load_estimator
from tipr.translation.filtering import BATCH, FilterGroup, mean_threshold, run_filter
from tipr.translation.records import FILTERED, TRANSLATIONS, Item, Journal, read_rows

DRAFTS = {"fr": "Un homme en manteau numéro {}.", "zh": "穿着大衣的男人{}号。"}


class Scripted:
    """Noise by the number in the source: 0.9 for every tenth, 0.1 for the others; may die on the way."""

    name = "scripted"

    def __init__(self, *, dies_after: int | None = None) -> None:
        self.asked: list[str] = []
        self.dies_after = dies_after

    def describe(self) -> dict[str, Any]:
        return {"name": self.name}

    def noise(self, sources: Sequence[str], translations: Sequence[str], source_language: str, language: str) -> Any:
        if self.dies_after is not None and len(self.asked) + len(sources) > self.dies_after:
            raise KeyboardInterrupt
        self.asked += sources
        assert source_language == "en"
        return np.array([0.9 if int(text.split()[-1][:-1]) % 10 == 0 else 0.1 for text in sources])


def translations(folder: Path, *, captions: int = 40, drafts: dict[str, str | None] | None = None) -> Path:
    """A finished stage 1 of `captions` captions in French and Chinese, every second one of the training split."""
    with Journal(folder / TRANSLATIONS, {"model": "none"}) as journal:
        for number in range(captions):
            for language, words in DRAFTS.items():
                key = f"{number}.jpg#0@{language}"
                source = f"A man in a coat, number {number}."
                item = Item(key, f"{number}.jpg", 0, "en", language, source, ("train", "test")[number % 2])
                draft = (drafts or {}).get(key, words.format(number))
                journal.append({**item.to_row(), "draft": draft, "error": None, "provenance": {}})
        journal.finish()
    return folder


def test_threshold_is_the_mean_of_a_language_and_split(tmp_path: Path) -> None:
    broken = {
        "2.jpg#0@fr": "",
        "4.jpg#0@fr": "穿着大衣的男人",
        "6.jpg#0@fr": "A man in a coat, number 6.",
        "8.jpg#0@fr": None,
    }
    groups = run_filter(translations(tmp_path, drafts=broken), Scripted())
    assert [(group.language, group.split, group.captions) for group in groups] == [
        ("fr", "train", 20),
        ("zh", "train", 20),
        ("fr", "test", 20),
        ("zh", "test", 20),
    ]
    # even numbers, four of 20 end in 0; four French ones are caught by rule and are no part of the mean
    assert groups[0] == FilterGroup(
        "fr",
        "train",
        20,
        {"empty": 2, "wrong_script": 1, "untranslated": 1},
        pytest.approx((12 * 0.1 + 4 * 0.9) / 16),  # type: ignore[arg-type]
        0.3,
        4,
    )
    assert groups[1].threshold == 0.26
    assert groups[1].by_rule == {}
    assert groups[2].noisy == 0  # every odd number has the mean itself, and the mean is not above the mean
    rows = {row["key"]: row for row in read_rows(tmp_path / FILTERED)}
    assert len(rows) == 80
    assert rows["0.jpg#0@fr"]["noisy"] is True
    assert rows["12.jpg#0@fr"]["noisy"] is False
    assert rows["12.jpg#0@fr"]["threshold"] == 0.3
    assert rows["12.jpg#0@fr"]["estimator"] == {"name": "scripted"}
    assert rows["4.jpg#0@fr"] | {"rule": "wrong_script", "noise": None, "noisy": True} == rows["4.jpg#0@fr"]
    assert rows["8.jpg#0@fr"]["rule"] == "empty"
    assert list(rows) == [row["key"] for row in read_rows(tmp_path / TRANSLATIONS)]


def test_a_given_threshold_holds_everywhere(tmp_path: Path) -> None:
    groups = run_filter(translations(tmp_path), Scripted(), threshold=0.05)
    assert {group.threshold for group in groups} == {0.05}
    assert sum(group.noisy for group in groups) == 80
    with pytest.raises(ConfigError, match=r"threshold must be in \[0, 1\], not 15"):
        run_filter(tmp_path, Scripted(), threshold=15)


def test_another_threshold_replaces_the_rows_until_a_later_stage_has_begun(tmp_path: Path) -> None:
    run_filter(translations(tmp_path), Scripted(), threshold=0.05)
    again = Scripted()
    groups = run_filter(tmp_path, again, threshold=0.5)
    assert again.asked == []
    assert [group.noisy for group in groups] == [4, 4, 0, 0]
    rows = list(read_rows(tmp_path / FILTERED))
    assert len(rows) == 80
    assert {row["threshold"] for row in rows} == {0.5}
    (tmp_path / "adapter").mkdir()
    with pytest.raises(ConfigError, match=r"other settings \(threshold: 0.5 -> null\)"):
        run_filter(tmp_path, Scripted())
    assert list(read_rows(tmp_path / FILTERED)) == rows


def test_another_estimator_is_refused(tmp_path: Path) -> None:
    run_filter(translations(tmp_path), Scripted())
    other = Scripted()
    other.name = "other"
    with pytest.raises(ConfigError, match="other settings"):
        run_filter(tmp_path, other)


def test_a_stopped_run_scores_nothing_twice(tmp_path: Path) -> None:
    captions = BATCH + 10
    translations(tmp_path, captions=captions)
    first = Scripted(dies_after=BATCH + 20)
    with pytest.raises(KeyboardInterrupt):
        run_filter(tmp_path, first)
    assert not (tmp_path / FILTERED).exists()
    second = Scripted()
    seen: list[tuple[int, int]] = []
    groups = run_filter(tmp_path, second, progress=lambda done, total: seen.append((done, total)))
    assert len(first.asked) + len(second.asked) == 2 * captions
    assert seen[-1] == (2 * captions, 2 * captions)
    content = (tmp_path / FILTERED).read_bytes()
    # a file cut in the middle of a row goes on to the same bytes; a finished one stays, and nothing is asked
    (tmp_path / FILTERED).write_bytes(content[: len(content) // 2])
    third = Scripted()
    assert run_filter(tmp_path, third) == groups
    assert run_filter(tmp_path, third) == groups
    assert third.asked == []
    assert (tmp_path / FILTERED).read_bytes() == content


def test_unfinished_translations_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="run the stage that makes it first"):
        run_filter(tmp_path, Scripted())
    translations(tmp_path)
    with (tmp_path / TRANSLATIONS).open("a", encoding="utf-8") as file:
        file.write('{"key": "torn')
    with Journal(tmp_path / TRANSLATIONS, {"model": "none"}):
        pass
    with pytest.raises(DatasetError, match="not complete"):
        run_filter(tmp_path, Scripted())


def test_an_estimator_must_stay_in_range(tmp_path: Path) -> None:
    class Wild(Scripted):
        def noise(self, sources: Sequence[str], *rest: Any) -> Any:
            return np.full(len(sources), np.nan)

    with pytest.raises(DatasetError, match=r"scripted: noise must be one number in \[0, 1\]"):
        run_filter(translations(tmp_path), Wild())


def test_mean_threshold_is_rounded_to_two_decimals() -> None:
    assert mean_threshold([0.1, 0.2, 0.154]) == 0.15
    assert mean_threshold([]) == 0.0


@pytest.mark.parametrize("suffix", [".csv", ".jsonl"])
def test_a_column_that_the_user_brings(tmp_path: Path, suffix: str) -> None:
    folder = translations(tmp_path / "out", drafts={"3.jpg#0@fr": None})
    rows = list(read_rows(folder / TRANSLATIONS))
    path = tmp_path / f"mine{suffix}"
    values = {row["key"]: 0.25 if row["key"].startswith("7.") else 1.0 for row in rows if row["draft"] is not None}
    if suffix == ".csv":
        path.write_text("key,quality\n" + "".join(f"{key},{value}\n" for key, value in values.items()))
    else:
        path.write_text("".join(json.dumps({"key": key, "quality": value}) + "\n" for key, value in values.items()))
    estimator = load_estimator(f"column:{path}", rows)
    run_filter(folder, estimator, threshold=0.5)
    noisy = {row["key"]: row["noise"] for row in read_rows(folder / FILTERED) if row["noisy"]}
    assert noisy == {"7.jpg#0@fr": 0.75, "7.jpg#0@zh": 0.75, "3.jpg#0@fr": None}
    with pytest.raises(ConfigError, match="not for new texts"):
        estimator.noise(["A man."], ["Un homme."], "en", "fr")
    path.write_text(path.read_text().replace("0.25", "25"))
    with pytest.raises(DatasetError, match=r"quality must be in \[0, 1\]"):
        load_estimator(f"column:{path}", rows)
    path.write_text("key,quality\n" if suffix == ".csv" else "")
    with pytest.raises(DatasetError, match=r"no quality for key '0.jpg#0@fr'"):
        load_estimator(f"column:{path}", rows)


@pytest.mark.parametrize("choice", ["", "bleu", "comet", "column:"])
def test_an_unknown_estimator_is_named(choice: str) -> None:
    with pytest.raises(ConfigError, match=f"unknown estimator '{choice}'; allowed: text-encoder"):
        load_estimator(choice)


def test_comet_that_is_not_installed_says_how_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(MissingExtra, match="comet-score is not installed: run  pipx install unbabel-comet"):
        load_estimator("comet:model.ckpt")


def test_comet_runs_as_a_program_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "comet-score"
    program.write_text(
        "#!/usr/bin/env python3\n"
        "import json, sys\n"
        "given = dict(zip(sys.argv[1::2], sys.argv[2::2]))\n"
        "texts = open('translation', encoding='utf-8').read().splitlines()\n"
        "assert len(texts) == len(open('source', encoding='utf-8').read().splitlines())\n"
        "if 'boom' in texts: sys.exit('no memory left')\n"
        "scores = [{'mt': text, 'COMET': 1.2 if 'manteau' in text else 0.25} for text in texts]\n"
        "json.dump({'translation': scores}, open('scores.json', 'w'))\n"
    )
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    with pytest.raises(ConfigError, match="is no checkpoint"):
        load_estimator("comet:Unbabel/wmt22-cometkiwi-da")
    (tmp_path / "model.ckpt").write_bytes(b"weights")
    estimator = load_estimator(f"comet:{tmp_path / 'model.ckpt'}")
    assert estimator.describe() == {"name": "comet", "model": "model.ckpt", "bytes": 7}
    noise = estimator.noise(["A coat.", "A\ncoat."], ["Un manteau.", "Une\njupe."], "en", "fr")
    assert noise.tolist() == [0.0, 0.75]
    assert estimator.noise([], [], "en", "fr").tolist() == []
    with pytest.raises(TiprError, match="comet-score failed: no memory left"):
        estimator.noise(["x"], ["boom"], "en", "fr")


def test_the_page_shows_borderline_examples_and_escapes_captions(tmp_path: Path) -> None:
    drafts: dict[str, str | None] = {"0.jpg#0@fr": "<script>alert(1)</script> manteau", "2.jpg#0@zh": ""}
    run_filter(translations(tmp_path, drafts=drafts), Scripted())
    page = write_translation_page(tmp_path)
    text = page.read_text(encoding="utf-8")
    assert page == tmp_path / "filtered.html"
    assert "9 of 80 translations are set aside as noisy" in text
    assert "&lt;script&gt;alert(1)&lt;/script&gt; manteau" in text
    assert "<script" not in text
    assert "http" not in text.replace("http-equiv", "").replace("http://www.w3.org/2000/svg", "")
    assert "1 more caught by rule" in text
    assert text.count('class="chart"') == 4
    assert 'lang="zh-Hans">穿着大衣的男人0号。' in text
    assert text.index("Just kept") < text.index("Just set aside")


def test_a_suspect_in_words() -> None:
    assert suspect_words("top_color") == "colour of the upper garment"
    assert suspect_words("shoes") == "shoes"
    assert suspect_words("language") == "language"
    assert suspect_words(None) == ""
