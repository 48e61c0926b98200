"""`tipr translate` through all four stages: a scripted translator and estimator, a real small vision-language model."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from tiny_vision_language import all_wordings, build_llava, paint_all

from tipr import cli
from tipr.data.datasets import DATASETS
from tipr.data.manifest import Caption, Record, write_manifest
from tipr.translation import estimators, local_model
from tipr.translation.backends import Prompt
from tipr.translation.records import is_complete, read_rows

GERMAN = {words["en"]: words["de"] for *_, words in all_wordings()}
WRONG, MISSING = "A person with a red coat and with blue trousers.", "A person with a grey coat and with grey trousers."


class Translator:
    """Knows the German of every caption but two."""

    name = "local"

    def describe(self) -> dict[str, Any]:
        return {"name": self.name, "model": "dictionary"}

    def complete(self, prompts: Sequence[Prompt]) -> list[str]:
        captions = [prompt.text.split('"')[1] for prompt in prompts]
        odd = {WRONG: "Eine Person mit grünem Hemd und mit rotem Beinkleid.", MISSING: " "}
        return [odd.get(caption, GERMAN[caption]) for caption in captions]


class Dictionary:
    """No noise in the right German, much in any other."""

    name = "dictionary"

    def describe(self) -> dict[str, Any]:
        return {"name": self.name}

    def noise(self, sources: Sequence[str], translations: Sequence[str], *languages: str) -> NDArray[np.float64]:
        pairs = zip(sources, translations, strict=True)
        return np.array([0.0 if GERMAN[source] == translation else 0.9 for source, translation in pairs])


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A picture of each pair of colours with one caption."""
    folder = paint_all(tmp_path)
    coats = [(upper, lower, words) for upper, lower, words in all_wordings() if " coat " in words["en"]]
    records = [
        Record(f"{upper}-{lower}.png", (Caption("en", words["en"]),), identity=number, split="train")
        for number, (upper, lower, words) in enumerate(coats)
    ]
    write_manifest(folder / "manifest.jsonl", records)
    return folder


def run(*arguments: str | Path) -> int:
    with pytest.raises(SystemExit) as stop:
        cli.main(["translate", *map(str, arguments)])
    assert isinstance(stop.value.code, int)
    return stop.value.code


def test_one_command_runs_all_stages_and_each_alone_finds_its_work_done(
    data: Path,
    tmp_path_factory: pytest.TempPathFactory,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(local_model.LocalModel, "load", lambda *arguments, **named: Translator())
    monkeypatch.setattr(estimators, "load_estimator", lambda *arguments: Dictionary())
    model = build_llava(tmp_path_factory.mktemp("llava"))
    out = tmp_path_factory.mktemp("out") / "german"
    chain = (data, out, "--to", "de", "--local", "x", "--vision-model", model)
    changes = ("--adapt", "rank=4", "--adapt", "batch=8", "--adapt", "learning_rate=1e-3")
    assert run(*chain, *changes) == 0
    shown = capsys.readouterr()
    assert "16 of 16 captions, 16 of them new" in shown.out
    assert "train de: 16 captions, by rule: empty 1, mean noise 0.060, 1 above the threshold 0.06" in shown.out
    assert "learnt from 14 captions in 2 steps, loss " in shown.out
    assert "de: 0 of 2 noisy captions replaced; refused: " in shown.out
    assert "16 captions added, 1 of them empty" in shown.out
    for stage in ("translating: 16/16", "filtering: 16/16", "adapting: 14/14", "rewriting: 2/2"):
        assert stage in shown.err
    for name in ("filtered.html", "rewritten.html", "adapter/adapter_model.safetensors"):
        assert (out / name).is_file()
    assert is_complete(out / "rewritten.jsonl")
    row = next(row for row in read_rows(out / "rewritten.jsonl") if row["source"] == WRONG)
    assert {
        "draft",
        "provenance",
        "rule",
        "noise",
        "threshold",
        "estimator",
        "rewrite",
        "rewriter",
        "text",
    } <= row.keys()
    split = DATASETS["manifest"].load(out, "train")
    texts = {sample.image_id: sample.caption for sample in split.samples if sample.language == "de"}
    sources = {sample.image_id: sample.caption for sample in split.samples if sample.language == "en"}
    assert sum(texts[place] == GERMAN[sources[place]] for place in texts) == 14

    before = {path: path.read_bytes() for path in out.rglob("*.json*")}
    for stage in ("translate", "filter", "adapt", "rewrite"):
        assert run(*chain, *changes, "--stage", stage, "--json", "--quiet") == 0
        assert stage in json.loads(capsys.readouterr().out)
    assert {path: path.read_bytes() for path in out.rglob("*.json*")} == before
