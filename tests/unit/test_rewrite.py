"""Stage 4: what is asked, what is kept, what is refused and why, with scripted models and scores.

A real model that learnt to rewrite is in `test_adapt.py`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from tiny_vision_language import COLOURS, filtered_row, paint_all, wordings, write_filtered

from tipr.errors import ConfigError, DatasetError
from tipr.translation.backends import Answer, Prompt, Take
from tipr.translation.records import REWRITTEN, Row, is_complete, read_rows
from tipr.translation.rewrite import REASONS, RewriteSettings, Rewritten, run_rewrite

FINE = "Eine Person mit rotem Mantel und mit blauem Beinkleid."
BETTER, WORSE, SAME = "Eine bessere Fassung.", "Eine schlechtere Fassung.", "Eine ebenso gute Fassung."
NOISE = {BETTER: 0.3, WORSE: 0.7, SAME: 0.5, FINE: 0.1}


class ScriptedModel:
    """Answers as it was told, by the last words of the prompt's caption."""

    name = "scripted"

    def __init__(self, script: dict[str, str | Answer], model: str = "first") -> None:
        self.script = script
        self.model = model
        self.asked: list[Prompt] = []
        self.fails_after = 1_000

    def describe(self) -> dict[str, Any]:
        return {"name": self.name, "model": self.model}

    def complete(self, prompts: Sequence[Prompt]) -> list[str]:
        raise NotImplementedError

    def stream(self, prompts: Sequence[Prompt], take: Take) -> None:
        for place, prompt in enumerate(prompts):
            if len(self.asked) >= self.fails_after:
                raise KeyboardInterrupt
            self.asked.append(prompt)
            answer = next(answer for words, answer in self.script.items() if words in prompt.text)
            take(place, answer if isinstance(answer, Answer) else Answer(answer, finish_reason="stop"))


class ScriptedEstimator:
    """Noise by text; counts what it was asked."""

    def __init__(self, noise: Callable[[str], float] = NOISE.__getitem__, name: str = "scripted") -> None:
        self.name = name
        self.scored: list[str] = []
        self._noise = noise

    def describe(self) -> dict[str, Any]:
        return {"name": self.name}

    def noise(
        self, sources: Sequence[str], translations: Sequence[str], source_language: str, language: str
    ) -> NDArray[np.float64]:
        assert (source_language, len(sources)) == ("en", len(translations))
        self.scored += translations
        return np.array([self._noise(text) for text in translations])


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return paint_all(tmp_path_factory.mktemp("images"))


def noisy(garment: str, language: str = "de", **changes: Any) -> Row:
    return filtered_row("red", garment, "blue", language, **{"noise": 0.5, **changes})


def outcomes(out: Path) -> dict[str, Row]:
    return {row["key"].split("#")[1].split("@")[0]: row for row in read_rows(out / REWRITTEN)}


def test_better_rewrite_is_kept_and_a_worse_or_equal_one_refused(images: Path, tmp_path: Path) -> None:
    rows = [noisy("coat"), noisy("scarf"), noisy("vest"), noisy("dress", noise=0.1)]
    write_filtered(tmp_path, rows)
    model = ScriptedModel({"coat": BETTER, "scarf": WORSE, "vest": SAME})
    (counts,) = run_rewrite(RewriteSettings(tmp_path, images), model, ScriptedEstimator())
    found = outcomes(tmp_path)
    told = {
        name: (row["kept"], row["refused"], row["rewrite"], row["rewrite_noise"], row["draft_noise"])
        for name, row in found.items()
    }
    assert told == {
        "coat": (True, None, BETTER, 0.3, 0.5),
        "scarf": (False, "not_better", WORSE, 0.7, 0.5),
        "vest": (False, "not_better", SAME, 0.5, 0.5),
        "dress": (False, None, None, None, None),
    }
    drafts = {name: wordings("red", name, "blue")["de"] for name in ("scarf", "vest", "dress")}
    assert {name: row["text"] for name, row in found.items()} == {"coat": BETTER, **drafts}
    assert counts == Rewritten("de", 4, noisy=3, kept=1, refused={"not_better": 2}, still_noisy=3)


def test_asks_only_about_noisy_captions_with_image_and_source(images: Path, tmp_path: Path) -> None:
    write_filtered(tmp_path, [noisy("coat"), noisy("dress", noise=0.1), noisy("vest", "zh")])
    model = ScriptedModel({"coat": BETTER, "vest": "一个人穿着红色背心"})
    run_rewrite(RewriteSettings(tmp_path, images), model, ScriptedEstimator(lambda text: 0.0))
    assert [prompt.image for prompt in model.asked] == [images / "red-blue.png"] * 2
    coat, vest = (prompt.text for prompt in model.asked)
    assert wordings("red", "coat", "blue")["en"] in coat
    assert "German" in coat
    assert "Chinese" in vest
    assert wordings("red", "coat", "blue")["de"] not in coat  # the draft is not shown: it would be copied


REFUSALS: dict[str, tuple[str | Answer, str]] = {
    "coat": ("", "empty"),
    "scarf": ("一个人穿着红色围巾", "wrong_script"),
    "vest": (wordings("red", "vest", "blue")["en"], "untranslated"),
    "shirt": (Answer(BETTER, finish_reason="length"), "cut_off"),
    "jacket": (Answer(None, error="gone"), "no_answer"),
}


def test_rules_refuse_before_anything_is_scored(images: Path, tmp_path: Path) -> None:
    gone = noisy("pullover", image="gone.png")
    write_filtered(tmp_path, [*(noisy(garment) for garment in REFUSALS), gone])
    model = ScriptedModel({garment: answer for garment, (answer, _) in REFUSALS.items()})
    estimator = ScriptedEstimator()
    (counts,) = run_rewrite(RewriteSettings(tmp_path, images), model, estimator)
    found = outcomes(tmp_path)
    assert estimator.scored == []
    for garment, (_, reason) in {**REFUSALS, "pullover": ("", "no_image")}.items():
        row = found[garment]
        assert (row["kept"], row["refused"]) == (False, reason)
        assert row["text"] == wordings("red", garment, "blue")["de"]
    assert set(counts.refused) == set(REASONS) - {"not_better"}
    assert len(model.asked) == len(REFUSALS)
    assert found["pullover"]["rewriter"] is None


def test_draft_that_breaks_a_rule_gives_way_to_any_translation(images: Path, tmp_path: Path) -> None:
    broken = {"noise": None, "rule": "empty", "draft": ""}
    write_filtered(tmp_path, [noisy("coat", **broken), noisy("scarf", **broken)])
    model = ScriptedModel({"coat": WORSE, "scarf": ""})
    (counts,) = run_rewrite(RewriteSettings(tmp_path, images), model, ScriptedEstimator())
    found = outcomes(tmp_path)
    assert (found["coat"]["kept"], found["coat"]["text"], found["coat"]["rewrite_noise"]) == (True, WORSE, 0.7)
    assert (found["scarf"]["kept"], found["scarf"]["text"], found["scarf"]["refused"]) == (False, None, "empty")
    assert counts == Rewritten("de", 2, noisy=2, kept=1, refused={"empty": 1}, still_noisy=1, without_text=1)


def test_quotation_marks_of_the_model_are_no_part_of_the_rewrite(images: Path, tmp_path: Path) -> None:
    write_filtered(tmp_path, [noisy("coat")])
    run_rewrite(RewriteSettings(tmp_path, images), ScriptedModel({"coat": f"„{BETTER}“\n"}), ScriptedEstimator())
    assert outcomes(tmp_path)["coat"]["text"] == BETTER


def test_other_estimator_scores_the_drafts_too(images: Path, tmp_path: Path) -> None:
    draft = wordings("red", "coat", "blue")["de"]
    write_filtered(tmp_path, [noisy("coat", noise=0.9)])
    estimator = ScriptedEstimator({**NOISE, draft: 0.2}.__getitem__, name="another")
    run_rewrite(RewriteSettings(tmp_path, images), ScriptedModel({"coat": BETTER}), estimator)
    row = outcomes(tmp_path)["coat"]
    assert (row["noise"], row["draft_noise"], row["rewrite_noise"], row["kept"]) == (0.9, 0.2, 0.3, False)
    assert estimator.scored == [BETTER, draft]


def test_stopped_stage_goes_on_and_asks_nothing_twice(images: Path, tmp_path: Path) -> None:
    rows = [filtered_row(upper, "coat", lower, "de", noise=0.5) for upper in COLOURS for lower in COLOURS]
    rows += [filtered_row(upper, "vest", "red", "de", noise=0.5) for upper in COLOURS]
    write_filtered(tmp_path, [noisy("dress", noise=0.1), *rows])
    settings = RewriteSettings(tmp_path, images)
    model = ScriptedModel({"": BETTER})
    model.fails_after = 18  # in the second chunk of 16
    with pytest.raises(KeyboardInterrupt):
        run_rewrite(settings, model, ScriptedEstimator())
    assert not is_complete(tmp_path / REWRITTEN)
    assert sum(1 for _ in read_rows(tmp_path / REWRITTEN)) == 17
    first = {prompt.text for prompt in model.asked[:16]}
    again = ScriptedModel({"": BETTER})
    seen: list[tuple[int, int]] = []
    (counts,) = run_rewrite(
        settings, again, ScriptedEstimator(), progress=lambda done, total: seen.append((done, total))
    )
    assert (counts.captions, counts.kept) == (21, 20)
    assert len(again.asked) == 4
    assert first.isdisjoint(prompt.text for prompt in again.asked)
    assert seen == [(16, 20), (20, 20)]
    idle = ScriptedModel({})
    assert run_rewrite(settings, idle, ScriptedEstimator()) == (counts,)
    assert idle.asked == []


def test_other_model_or_unfinished_filter_is_refused(images: Path, tmp_path: Path) -> None:
    settings = RewriteSettings(tmp_path, images)
    with pytest.raises(DatasetError, match=r"no file .*filtered.jsonl: run the stage that makes it first"):
        run_rewrite(settings, ScriptedModel({}), ScriptedEstimator())
    write_filtered(tmp_path, [noisy("coat")])
    run_rewrite(settings, ScriptedModel({"coat": BETTER}), ScriptedEstimator())
    with pytest.raises(ConfigError, match=r"rewritten.jsonl was made with other settings \(backend: .*second"):
        run_rewrite(settings, ScriptedModel({"coat": BETTER}, model="second"), ScriptedEstimator())


def test_rows_of_other_makers_are_checked(images: Path, tmp_path: Path) -> None:
    settings = RewriteSettings(tmp_path, images)
    for name, value, message in (
        ("threshold", None, "threshold is missing"),
        ("source", None, "source is missing"),
        ("noise", "high", "noise must be a number where no rule is broken"),
    ):
        row = {**noisy("coat"), name: value}
        write_filtered(tmp_path, [{key: each for key, each in row.items() if each is not None or key == "rule"}])
        with pytest.raises(DatasetError, match=rf"row 'red-blue.png#coat@de': {message}$"):
            run_rewrite(settings, ScriptedModel({"coat": BETTER}), ScriptedEstimator())


def test_every_rewrite_says_where_it_came_from(images: Path, tmp_path: Path) -> None:
    write_filtered(tmp_path, [noisy("coat"), noisy("dress", noise=0.1)])
    run_rewrite(RewriteSettings(tmp_path, images), ScriptedModel({"coat": BETTER}), ScriptedEstimator())
    found = outcomes(tmp_path)
    told = found["coat"]["rewriter"]
    assert (told["backend"], told["model"], told["finish_reason"], told["attempts"]) == ("scripted", "first", "stop", 1)
    assert len(told["prompt_sha256"]) == 64
    assert told["at"].endswith("+00:00")
    assert found["dress"]["rewriter"] is None
    assert str(tmp_path) not in json.dumps(list(found.values()))
