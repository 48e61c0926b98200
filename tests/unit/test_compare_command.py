"""`tipr compare`: grouping by seed, the rule of selection in every row, published rows, Holm's correction."""

from __future__ import annotations

import json
import runpy
from pathlib import Path

import numpy as np
import pytest
import yaml

from tipr import config as configuration
from tipr.analysis import standing
from tipr.analysis.published import METHODS, published, published_results, sources
from tipr.analysis.run_scores import Outcomes, RunFacts, RunScores, scores_file
from tipr.analysis.standing import holm, standings
from tipr.cli import main
from tipr.data.datasets import DATASETS
from tipr.errors import ConfigError, TrainingError
from tipr.evaluation import evaluate
from tipr.methods import METHODS as OUR_METHODS
from tipr.report import standing_tables
from tipr.training import RunConfig

PEOPLE = runpy.run_path(str(Path(__file__).parents[1] / "data" / "training" / "coloured_people.py"))
BASE = {
    "method": {"name": "clip_baseline"},
    "encoder": {"name": "compact"},
    "tokenizer": {"kind": "subword"},
    "data": {"dataset": "cuhk_pedes", "root": "nowhere", "batch_size": 16},
    "selection": {"split": "val"},
    "schedule": {"unit": "step"},
    "max_steps": 10,
}


def run(folder: Path, ranks: dict[str, list[int]], *, seed: int = 1, split: str = "test", **changes: object) -> Path:
    """A finished run whose weights found these first ranks, two queries of each of four people."""
    folder.mkdir(parents=True)
    config = configuration.parse({**BASE, "out": str(folder), "seed": seed, **changes}, RunConfig, source="a.yaml")
    (folder / "config.yaml").write_text(yaml.safe_dump(config.model_dump(mode="json")))
    (folder / "environment.json").write_text(json.dumps({"commit": "c0ffee", "machine": "an abacus"}))
    (folder / "metrics.jsonl").write_text(json.dumps({"kind": "train", "step": 10, "seconds": 60.0 + seed}) + "\n")
    facts = RunFacts.of(folder, captions=40, images=20)
    for weights, first in ranks.items():
        outcomes = Outcomes(np.repeat(np.arange(4), 2), np.array(first), np.arange(9, dtype=np.int64), 20, "f" * 64)
        made = RunScores(facts, 40, 20, split, "e" * 64, {"en": outcomes})
        made.write(folder, scores_file(weights=weights))
    return folder


GOOD, FAIR, POOR = [1, 1, 1, 1, 1, 1, 1, 9], [1, 1, 1, 1, 1, 1, 5, 9], [1, 7, 7, 11, 1, 3, 3, 4]


@pytest.fixture
def folders(tmp_path: Path) -> list[Path]:
    irra = {"method": {"name": "irra", "losses": ["sdm"]}}
    return [
        run(tmp_path / "seed-1", {"best": GOOD, "last": FAIR}),
        run(tmp_path / "seed-2", {"best": FAIR, "last": POOR}, seed=2),
        run(tmp_path / "irra", {"best": POOR}, selection={"split": "last"}, **irra),
    ]


def test_seeds_become_one_row_for_each_rule_of_selection(folders: list[Path]) -> None:
    found = standings(folders)
    (section,) = found.sections
    assert (section.dataset, section.language) == ("CUHK-PEDES", "en")
    rows = {(row.label, row.selection): row for row in section.ours}
    assert list(rows) == [("clip_baseline", "validation"), ("clip_baseline", "last epoch"), ("irra", "last epoch")]
    mean, spread = rows["clip_baseline", "validation"].means("en")["R@1"]
    assert (mean, spread) == pytest.approx((81.25, np.std([87.5, 75.0], ddof=1)))
    assert rows["irra", "last epoch"].means("en")["R@1"] == (25.0, None)
    low, high = rows["clip_baseline", "validation"].interval("en")
    assert low < mean <= high
    assert {(row.method, row.source) for row in section.published} == {
        ("CLIP ViT-B/16 InfoNCE", "IRRA repository README"),
        ("IRRA (ours)", "IRRA (CVPR 2023)"),
    }


def test_every_pair_of_rows_is_tested_and_corrected(folders: list[Path]) -> None:
    tests = standings(folders).tests
    assert [(test.one, test.other) for test in tests] == [
        ("clip_baseline, validation", "clip_baseline, last epoch"),
        ("clip_baseline, validation", "irra, last epoch"),
        ("clip_baseline, last epoch", "irra, last epoch"),
    ]
    assert tests[1].difference.difference == pytest.approx(81.25 - 25)
    assert [test.p_holm for test in tests] == pytest.approx(holm([test.difference.p for test in tests]))


def test_holm_is_the_step_down_rule() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.9, 0.8]) == [1.0, 1.0]
    assert holm([]) == []


def test_a_run_selected_on_the_test_split_must_be_asked_for(folders: list[Path], tmp_path: Path) -> None:
    chosen = {"split": "test", "select_on_test": True}
    other = run(tmp_path / "test", {"best": GOOD, "last": GOOD}, selection=chosen)
    found = standings([*folders, other])
    assert all(row.selection != "test split" for row in found.sections[0].ours)
    assert "chosen on the test split" in found.left_out[0]
    shown = standings([*folders, other], test_selected=True)
    assert "test split" in {row.selection for row in shown.sections[0].ours}
    page = standing_tables.markdown(shown)
    assert standing_tables.SELECTED_ON_TEST in page
    assert "--test-selected" not in page
    assert "--test-selected shows runs that did" in standing_tables.markdown(standings(folders))


def test_the_pages_say_how_figures_were_chosen(folders: list[Path], tmp_path: Path) -> None:
    found = standings(folders)
    page = standing_tables.markdown(found)
    assert "| **clip_baseline, 2 seeds** | validation | 81.25 ± 8.84 [" in page
    assert (
        "| IRRA (its authors) | test split † | 73.38 | 89.93 | 93.71 | 66.13 | 50.24 | IRRA (CVPR 2023), Table 1"
        in page
    )
    assert "expected below a published one that did" in page
    lines = standing_tables.latex(found)
    assert r"clip\_baseline, 2 seeds & validation & 81.25 $\pm$ 8.84 [" in lines
    assert r"test split \dag" in lines
    html = standing_tables.write_standings_page(found, tmp_path / "x.html").read_text(encoding="utf-8")
    assert "CVPR 2023" in html
    assert "http" not in html.replace("http-equiv", "")


def test_the_command_writes_what_the_suffix_says(
    folders: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for suffix in (".md", ".tex", ".html", ".json"):
        with pytest.raises(SystemExit) as stop:
            main(["compare", *map(str, folders), "--out", str(tmp_path / f"x{suffix}"), "-q"])
        assert stop.value.code == 0
        assert (tmp_path / f"x{suffix}").stat().st_size > 500
    assert "CUHK-PEDES (cuhk_pedes), captions in en" in capsys.readouterr().out
    tree = json.loads((tmp_path / "x.json").read_text())
    assert tree["sections"][0]["ours"][0]["scores"]["R@1"]["mean"] == pytest.approx(81.25)
    with pytest.raises(SystemExit) as stop:
        main(["compare", str(folders[0]), "--out", "x.pdf"])
    assert stop.value.code == 2
    assert "must end in .md, .tex, .html, .json" in capsys.readouterr().err


def test_what_cannot_be_compared(folders: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match="same settings and seed"):
        standings([folders[0], run(tmp_path / "again", {"best": GOOD, "last": GOOD})])
    unfinished = run(tmp_path / "unfinished", {}, seed=3)
    with pytest.raises(TrainingError, match="has no best/: it is not finished"):
        standings([unfinished])
    with pytest.raises(ConfigError, match="name at least one"):
        standings([])
    (unfinished / "best").mkdir()
    asked: list[str] = []
    monkeypatch.setattr(standing, "score_run", lambda *_, **settings: asked.append(settings["weights"]) or 1 / 0)
    monkeypatch.setitem(standing.DATASETS, "cuhk_pedes", FakeData())
    with pytest.raises(ZeroDivisionError):
        standings([unfinished])
    assert asked == ["best"]


class FakeData:
    """Stands for a data set that is here."""

    facts = standing.DATASETS["cuhk_pedes"].facts

    def load(self, *_: object, **__: object) -> FakeData:
        return self

    def languages(self) -> tuple[str, ...]:
        return ("en",)


def test_a_model_as_it_is_becomes_a_row_on_the_data_of_the_runs(tmp_path: Path) -> None:
    data = PEOPLE["make_data"](tmp_path / "data")
    changes = {"dataset": "manifest", "root": str(data), "batch_size": 4}
    ranks = {"best": GOOD, "last": GOOD}
    folder = run(tmp_path / "run", ranks, split="val", data=changes)
    found = standings([folder], split="val", zero_shot=[Path("demo")])
    rows = [row for section in found.sections for row in section.ours if row.method == standing.ZERO_SHOT]
    languages = {section.language for section in found.sections}
    assert languages >= set(DATASETS["manifest"].load(data, "val").languages())
    assert {(row.label, row.selection) for row in rows} == {("zero-shot, demo", "not trained")}
    evaluation = evaluate("demo", DATASETS["manifest"].load(data, "val"), bootstrap=0, image_to_text=False)
    for language, score in evaluation.text_to_image.languages.items():
        assert rows[0].means(language)["R@1"][0] == pytest.approx(score.named()["R@1"])
    assert "| **zero-shot, demo** | not trained |" in standing_tables.markdown(found)


def test_the_published_figures_are_those_of_the_papers() -> None:
    rows = published_results()
    assert len(rows) == 378
    assert {row.source for row in rows} == set(sources())
    assert all(0 < value <= 100 for row in rows for value in row.scores.values())
    assert all(row.selection in ("test", "not stated") for row in rows)
    assert set(METHODS) <= set(OUR_METHODS)
    (row,) = published("RSTPReid(M)", "de", methods=["bi_irra"])
    assert (row.scores["R@1"], row.scores["mAP"]) == (70.95, 54.92)
    (row,) = published("ICFG-PEDES", "en", methods=["dual_granularity"])
    assert row.scores == {"R@1": 63.71, "R@5": 79.9, "R@10": 85.38, "mAP": 36.87, "mINP": 6.2}
    both = published("CUHK-PEDES(M)", "en", methods=["bi_irra"])
    assert [row.scores["R@1"] for row in both] == [78.82, 79.43]
    assert len(published("CUHK-PEDES", "en")) > 50
    assert published("Rendered people", "en") == []
