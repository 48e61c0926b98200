"""The damage experiment: its bookkeeping, with an estimator that knows the answer, and its committed result."""

from __future__ import annotations

import importlib.util
import json
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from tipr.translation.damage import DAMAGES
from tipr.translation.estimators import load_estimator

ROOT = Path(__file__).resolve().parents[2]
RESULT = ROOT / "benchmarks" / "results" / "translation_filter.json"


@pytest.fixture(scope="module")
def experiment() -> ModuleType:
    specification = importlib.util.spec_from_file_location(
        "translation_filter", ROOT / "benchmarks" / "translation_filter.py"
    )
    assert specification is not None
    assert specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    sys.modules["translation_filter"] = module  # dataclasses look their module up
    specification.loader.exec_module(module)
    return module


class Sighted:
    """Gives every pair a fixed noise; `missed` are texts whose damage it does not see."""

    name = "sighted"

    def __init__(self, noisy: set[str]) -> None:
        self.noisy = noisy

    def describe(self) -> dict[str, Any]:
        return {"name": self.name}

    def noise(self, sources: Sequence[str], translations: Sequence[str], source_language: str, language: str) -> Any:
        return np.array([0.8 if text in self.noisy else 0.1 for text in translations])


def test_a_fifth_is_damaged_and_every_kind_equally_often(experiment: ModuleType) -> None:
    pairs = experiment.draw_half("fr", 300, "paraphrase", np.random.default_rng(0), 0.2)
    assert Counter(pair.damage for pair in pairs) == {None: 240, **dict.fromkeys(DAMAGES, 10)}


def test_recall_and_false_alarms_are_counted_by_kind_and_language(experiment: ModuleType) -> None:
    pairs = {
        language: experiment.draw_half(language, 60, "training", np.random.default_rng(1), 0.2)
        for language in ("zh", "fr")
    }
    seen = {pair.translation for half in pairs.values() for pair in half if pair.damage == "negation"}
    seen.add(next(pair.translation for pair in pairs["fr"] if pair.damage is None))
    tested = {language: experiment.judge(half, Sighted(seen), language) for language, half in pairs.items()}
    table = experiment.summary(tested, {"zh": 0.5, "fr": 0.5})
    assert set(table["damages"]) == set(DAMAGES)
    assert table["damages"]["negation"]["share"] == 1.0
    assert table["damages"]["negation"]["by_rule"] == 0.0
    assert table["damages"]["empty"]["by_rule"] == 1.0
    assert (
        table["damages"]["colour swapped"] | {"share": 0.0, "of": 4, "zh": 0.0, "fr": 0.0}
        == (table["damages"]["colour swapped"])
    )
    assert table["false_alarms_by_language"]["fr"]["share"] == pytest.approx(1 / 48, abs=1e-4)
    assert table["false_alarms_by_language"]["zh"]["share"] == 0.0
    blind = experiment.summary(tested, {"zh": 0.9, "fr": 0.9})
    assert blind["damages"]["negation"]["share"] == 0.0
    assert blind["damages"]["empty"]["share"] == 1.0


def test_the_threshold_lets_nine_tenths_of_clean_captions_pass(experiment: ModuleType) -> None:
    clean = [experiment.Judged(None, None, number / 100) for number in range(100)]
    threshold = experiment.calibrated(clean)
    assert sum(one.caught(threshold) for one in clean) == 9
    broken = [experiment.Judged(None, "empty", float("nan")) for _ in range(5)]
    assert experiment.calibrated(clean[:95] + broken) == 0.9


def test_the_interval_of_a_share(experiment: ModuleType) -> None:
    found = experiment.rate([True] * 8 + [False] * 2)
    assert found == {"share": 0.8, "of": 10, "interval": [0.4902, 0.9433]}  # Wilson, by hand


def test_the_committed_result_is_of_the_shipped_estimator_and_hides_nothing() -> None:
    result = json.loads(RESULT.read_text(encoding="utf-8"))
    assert result["estimator"] == load_estimator("text-encoder").describe()
    table = result["other wordings"]
    for rule in ("calibrated", "mean_rule"):
        assert set(table[rule]["damages"]) == set(DAMAGES)
        assert all({"zh", "fr", "de", "by_rule", "interval"} <= row.keys() for row in table[rule]["damages"].values())
    assert table["calibrated"]["recall"]["share"] >= 0.8
    assert table["calibrated"]["false_alarms"]["interval"][0] <= 0.1 + 0.02


def test_the_documentation_quotes_the_committed_result() -> None:
    tables = json.loads(RESULT.read_text(encoding="utf-8"))["other wordings"]
    page = (ROOT / "docs" / "translation.md").read_text(encoding="utf-8")

    def percent(share: float) -> str:
        return f"{100 * share:.0f} %" if share in (0, 1) else f"{100 * share:.1f} %"

    for kind, row in tables["calibrated"]["damages"].items():
        languages = " / ".join(f"{100 * row[language]:.0f}" for language in ("zh", "fr", "de"))
        mean = percent(tables["mean_rule"]["damages"][kind]["share"])
        assert f"| {kind} | {percent(row['share'])} | {languages} | {percent(row['by_rule'])} | {mean} |" in page
    assert f"**{percent(tables['calibrated']['recall']['share'])}**" in page
    assert f"| false alarms | {percent(tables['calibrated']['false_alarms']['share'])} |" in page
    assert f"{percent(tables['calibrated']['recall_of_changed_content']['share'])} are found" in page
