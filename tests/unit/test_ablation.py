"""The configuration of an ablation, its tables, and what is recomputed from run folders."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import yaml

from tipr import config as configuration
from tipr.analysis.ablation import AblationConfig, Pace, drop_weights, duration, plan
from tipr.analysis.comparison import compare, differences
from tipr.analysis.run_scores import METRICS, Outcomes, RunFacts, RunScores, pairs_seen
from tipr.errors import ConfigError, TrainingError
from tipr.evaluation.bootstrap import paired_bootstrap
from tipr.report.ablation_table import markdown
from tipr.training import RunConfig
from tipr.training.journal import set_status

BASE = {
    "out": "runs/small",
    "method": {"name": "clip_baseline"},
    "encoder": {"name": "compact"},
    "tokenizer": {"kind": "subword"},
    "data": {"dataset": "manifest", "root": "nowhere", "batch_size": 16},
    "selection": {"split": "last"},
    "schedule": {"unit": "step"},
    "max_steps": 10,
    "seed": 4,
}
TREE = {
    "base": BASE,
    "split": "val",
    "languages": ["en"],
    "baseline": "plain",
    "gap": {"method": "sharp", "upper_bound": "labels"},
    "tables": {"one": "Table one", "two": "Table two"},
    "paper_sets": ["CUHK-PEDES"],
    "settings": [
        {"name": "plain", "title": "contrast", "tables": ["one", "two"], "paper": {"CUHK-PEDES": 64.69}},
        {"name": "sharp", "title": "sharper", "tables": ["one"], "overrides": {"method.temperature": 0.05}},
        {
            "name": "labels",
            "title": "with labels",
            "tables": ["two"],
            "overrides": {"method": {"name": "irra", "losses": ["sdm"]}},
            "extra_languages": ["zh"],
        },
    ],
}


def parsed(**changes: object) -> AblationConfig:
    return configuration.parse({**TREE, **changes}, AblationConfig, source="a.yaml")


def finish(run, ranks, *, languages=("en",), steps=10) -> None:
    """Make the folder of a finished run whose queries, two of each of four people, found these first ranks."""
    run.folder.mkdir(parents=True)
    (run.folder / "config.yaml").write_text(yaml.safe_dump(run.config.model_dump(mode="json")))
    (run.folder / "environment.json").write_text(json.dumps({"commit": "c0ffee", "machine": "an abacus"}))
    entries = [{"kind": "train", "step": step, "seconds": 6.0 * step, "name": run.label} for step in (5, steps)]
    (run.folder / "metrics.jsonl").write_text("".join(json.dumps(entry) + "\n" for entry in entries))
    set_status(run.folder, "done")
    for name in ("best", "checkpoints"):
        (run.folder / name).mkdir()
        (run.folder / name / "weights").write_text("")
    ranks = np.asarray(ranks, dtype=np.int64)
    outcomes = Outcomes(np.repeat(np.arange(4), 2), ranks, np.arange(9, dtype=np.int64), 20, "f" * 64)
    facts = RunFacts.of(run.folder, captions=40, images=20)
    RunScores(facts, 40, 20, "val", "e" * 64, dict.fromkeys(languages, outcomes)).write(run.folder)


PLAIN = ([1, 2, 7, 11, 1, 1, 3, 4], [1, 2, 7, 11, 1, 3, 3, 4])
SHARP = ([1, 1, 7, 11, 1, 1, 3, 1], [1, 2, 1, 11, 1, 1, 3, 4])


@pytest.fixture
def done(tmp_path):
    """Two seeds of the baseline and of `sharp`, one of `labels`."""
    config = parsed()
    runs = plan(config, tmp_path / "out", seeds=2)
    for run, ranks in zip(runs, (*PLAIN, *SHARP, [1] * 8), strict=False):
        finish(run, ranks, languages=run.languages)
    return config, runs


def test_every_setting_becomes_one_run_a_seed_with_its_overrides(tmp_path):
    runs = plan(parsed(), tmp_path, seeds=2, threads=1)
    assert [run.label for run in runs[:3]] == ["plain seed-1", "plain seed-2", "sharp seed-1"]
    assert [run.config.seed for run in runs] == [4, 5] * 3
    assert {run.config.threads for run in runs} == {1}
    assert runs[2].folder == tmp_path / "sharp" / "seed-1"
    assert (runs[0].config.method.temperature, runs[2].config.method.temperature) == (0.02, 0.05)
    assert runs[4].config.method.losses == ("sdm",)
    assert runs[4].languages == ("en", "zh")
    base = configuration.parse(BASE, RunConfig, source="base")
    assert runs[0].config.model_copy(update={"out": base.out, "threads": None}) == base


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"baseline": "nobody"}, r"no setting 'nobody'; there are plain, sharp, labels"),
        ({"gap": {"method": "sharp", "upper_bound": "x"}}, r"no setting 'x'"),
        ({"settings": TREE["settings"] * 6}, r"settings: .*at most 16"),
        ({"settings": [TREE["settings"][0]] * 2, "gap": None}, r"two settings have the same name"),
        ({"settings": [{"name": "plain", "title": "a", "tables": ["9"]}], "gap": None}, r"plain.tables: unknown 9"),
        ({"languages": ["xx"]}, r"languages: unknown xx; allowed: en, zh, fr, de"),
        ({"settings": [{"name": "../up", "title": "a", "tables": ["one"]}]}, r"settings.0.name"),
        ({"base": {**BASE, "epochs": 2}}, r"exactly one of epochs and max_steps"),
        ({"budget": 3}, r"budget: unknown key"),
    ],
)
def test_a_configuration_that_does_not_fit_together_is_one_line(changes, message):
    with pytest.raises(ConfigError, match=message) as caught:
        parsed(**changes)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"method.k": 3}, r"setting a: method.clip_baseline.k: unknown key"),
        ({"methods.k": 3}, r"setting a: override 'methods.k': no section 'methods'"),
        ({"max_steps.k": 3}, r"setting a: override 'max_steps.k': max_steps is not a section"),
        ({"processes": 2}, r"setting a: processes is 2; runs of an ablation have 1"),
    ],
)
def test_an_override_that_does_not_fit_names_its_setting(tmp_path, overrides, message):
    one = {"name": "a", "title": "a", "tables": ["one"], "overrides": overrides}
    with pytest.raises(ConfigError, match=message):
        plan(parsed(settings=[one], baseline="a", gap=None), tmp_path, seeds=1)
    with pytest.raises(ConfigError, match="seed is set by the ablation itself"):
        parsed(settings=[{**one, "overrides": {"seed": 3}}], baseline="a", gap=None)


def test_cells_are_means_spreads_and_paired_differences(done):
    config, runs = done
    table = compare(config, runs, seeds=2)
    plain, sharp, labels = table.rows
    assert plain.cells["R@1"].mean == pytest.approx((100 * 3 / 8 + 100 * 2 / 8) / 2)
    assert plain.cells["R@1"].spread == pytest.approx(np.std([37.5, 25.0], ddof=1))
    assert plain.cells["R@1"].difference is None
    assert plain.cells["R@5"].mean == 75.0
    assert plain.cells["mAP"].mean == pytest.approx(50 * sum((1 / np.array(PLAIN)).mean(axis=1)))
    hits = [np.mean([(np.array(ranks) == 1) * 100.0 for ranks in part], axis=0)[:, None] for part in (SHARP, PLAIN)]
    identity = np.repeat(np.arange(4), 2)
    (wanted,) = paired_bootstrap([(hits[0], identity)], [(hits[1], identity)], seed=0)
    found = sharp.cells["R@1"].difference
    assert dataclasses.astuple(found) == pytest.approx(dataclasses.astuple(wanted))
    assert found.difference == pytest.approx(sharp.cells["R@1"].mean - plain.cells["R@1"].mean)
    assert (len(labels.runs), labels.cells) == (1, {})
    assert table.gaps == {}


def test_the_gap_and_other_languages_are_reported(done):
    config, runs = done
    finish(runs[5], [1] * 8, languages=("en", "zh"))
    table = compare(config, runs, seeds=2)
    low, here = (row.cells["R@1"].mean for row in table.rows[:2])
    assert table.gaps["R@1"].share == pytest.approx((here - low) / (100 - low))
    assert table.rows[2].by_language["zh"]["R@1"].mean == 100.0
    page = markdown(table)
    share = f"{100 * table.gaps['R@1'].share:.0f} %"
    assert f"In R@1 'sharper' closes {share} of the gap between 'contrast' and 'with labels'" in page
    assert "R@1 of 'with labels' by language: en 100.00, zh 100.00." in page


def test_no_share_is_taken_of_a_gap_inside_the_noise(done):
    config, runs = done
    finish(runs[5], SHARP[0], languages=("en", "zh"))
    shutil.rmtree(runs[4].folder)
    finish(runs[4], PLAIN[1], languages=("en", "zh"))
    table = compare(config, runs, seeds=2)
    gap = table.gaps["R@1"].gap
    assert gap.low <= 0 < gap.difference
    assert table.gaps["R@1"].share is None
    assert "In R@1 'with labels' is not measurably ahead of 'contrast' (+" in markdown(table)
    assert table.to_json()["gap"]["metrics"]["R@1"]["share"] is None


def test_the_page_shows_every_run_and_a_dash_where_one_is_missing(done):
    config, runs = done
    page = markdown(compare(config, runs, seeds=2))
    lines = page.splitlines()
    assert "| contrast | 31.25 ± 8.84 | - | - |" in page
    assert page.count("| contrast |") == 2  # it stands in both tables
    assert next(line for line in lines if "64.69" in line).endswith("| 64.69 |")
    assert "| with labels | - | - | - | - | - | - | - | - |" in lines
    for run in runs[:5]:
        facts = RunScores.read(run.folder).facts
        assert any(line.startswith(f"| {run.setting.name} | {facts.run} | {facts.seed} | 10 | 136 |") for line in lines)


def test_every_cell_of_the_json_names_its_runs(done):
    config, runs = done
    tree = compare(config, runs, seeds=2).to_json()
    cell = tree["settings"]["sharp"]["cells"]["mINP"]
    assert [run["seed"] for run in cell["runs"]] == [4, 5]
    assert {run["steps"] for run in cell["runs"]} == {10}
    assert {run["pairs_seen"] for run in cell["runs"]} == {136}
    assert (tree["commit"], tree["machine"]) == ("c0ffee", "an abacus")
    assert len({run["run"] for row in tree["settings"].values() for run in row["runs"]}) == 5
    assert differences(json.loads(json.dumps(tree)), tree) == []


def test_differences_name_the_cell(done):
    config, runs = done
    tree = compare(config, runs, seeds=2).to_json()
    other = json.loads(json.dumps(tree))
    other["settings"]["sharp"]["cells"]["R@1"]["mean"] += 0.01
    other["settings"]["plain"]["runs"].pop()
    lines = differences(other, tree)
    assert any(line.startswith("settings.sharp.cells.R@1.mean: ") for line in lines)
    assert any(line.startswith("settings.plain.runs.1.run: None, now ") for line in lines)


def edited(path: Path, change) -> None:
    tree = json.loads(path.read_text())
    change(tree)
    path.write_text(json.dumps(tree))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda tree: tree.update(steps=11), "steps is 11, the run folder says 10"),
        (lambda tree: tree.update(run="0" * 12), "run is '000000000000', the run folder says"),
        (lambda tree: tree.update(pairs_seen=1), "pairs_seen is 1"),
        (lambda tree: tree.update(commit="other"), "commit is 'other', the run folder says 'c0ffee'"),
        (lambda tree: tree["outcomes"]["en"]["ranks"][1].__setitem__(0, 1), "R@1 of 'en' is not what its ranks give"),
        (lambda tree: tree["outcomes"]["en"]["ranks"].pop(), "is damaged"),
        (lambda tree: tree["outcomes"]["en"]["ranks"][0].__setitem__(0, 21), "is damaged"),
        (lambda tree: tree.update(format=2), "format 2; this version of tipr reads 1"),
        (lambda tree: tree.update(split="test"), "is of split 'test', languages en: delete it"),
    ],
)
def test_scores_that_are_not_of_the_run_are_refused(done, change, message):
    config, runs = done
    edited(runs[0].folder / "scores.json", change)
    with pytest.raises(TrainingError, match=message):
        compare(config, runs, seeds=2)


def test_a_journal_or_a_configuration_that_changed_is_noticed(done):
    config, runs = done
    with (runs[0].folder / "metrics.jsonl").open("a") as stream:
        stream.write(json.dumps({"kind": "train", "step": 11, "seconds": 70.0}) + "\n")
    with pytest.raises(TrainingError, match=r"run is '[0-9a-f]{12}', the run folder says"):
        compare(config, runs, seeds=2)
    changed = parsed(base={**BASE, "max_steps": 12})
    with pytest.raises(ConfigError, match="was made with other settings: max_steps"):
        compare(changed, plan(changed, runs[0].folder.parents[1], seeds=2), seeds=2)


def test_runs_on_other_queries_cannot_be_compared(done):
    config, runs = done
    edited(runs[2].folder / "scores.json", lambda tree: tree["outcomes"]["en"].update(captions="0" * 64))
    with pytest.raises(TrainingError, match="was evaluated on other queries than run"):
        compare(config, runs, seeds=2)


RERANKED = {"name": "second", "title": "two stages", "tables": ["one"], "runs_of": "sharp", "rerank": 8}


def test_a_row_may_evaluate_the_runs_of_another_in_its_own_way(tmp_path):
    config = parsed(settings=[*TREE["settings"], RERANKED], each_language=True)
    runs = plan(config, tmp_path, seeds=2)
    sharp, second = runs[2:4], runs[6:]
    steps: list[tuple[int, int]] = []
    assert [run.folder for run in second] == [run.folder for run in sharp]
    assert [run.config for run in second] == [run.config for run in sharp]
    for run, ranks in zip(runs[:4], (*PLAIN, *SHARP), strict=True):
        finish(run, ranks, languages=run.languages)
    assert not any(run.finished for run in second)
    drop_weights(sharp[0].folder, runs)
    assert (sharp[0].folder / "best").exists()  # the second row still needs them
    drop_weights(sharp[0].folder, sharp)
    assert not (sharp[0].folder / "best").exists()
    for run in second:
        scores = RunScores.read(run.folder)
        ones = dataclasses.replace(scores.outcomes["en"], ranks=np.ones(8, np.int64))
        dataclasses.replace(scores, outcomes={"en": ones}).write(run.folder, run.scores_name)
    table = compare(config, runs, seeds=2)
    pace = Pace(runs, [sharp[0], *second])
    pace.counting(0, lambda done, total: steps.append((done, total)))(3, 20)
    assert steps == [(3, 20)]  # nothing is trained for the second row
    assert table.rows[3].cells["R@1"].mean == 100.0
    assert table.rows[1].cells["R@1"].mean < 100.0
    shift = 100 - table.rows[0].cells["R@1"].mean
    assert f"100.00 ± 0.00 ({shift:+.2f}*)" in markdown(table)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"overrides": {"method.temperature": 0.1}}, "runs_of takes the runs of another setting as they are"),
        ({"rerank": None}, "runs_of takes the runs of another setting as they are"),
        ({"runs_of": "nobody"}, r"settings.second.runs_of: unknown nobody; allowed: plain, sharp, labels"),
        ({"runs_of": "second"}, r"settings.second.runs_of: unknown second"),
    ],
)
def test_a_second_evaluation_that_does_not_fit(change, message):
    with pytest.raises(ConfigError, match=message):
        parsed(settings=[*TREE["settings"], {**RERANKED, **change}])


def test_a_slim_run_still_counts(done):
    config, runs = done
    before = compare(config, runs, seeds=2).to_json()
    for run in runs:
        drop_weights(run.folder, runs)
    assert not (runs[0].folder / "best").exists()
    assert not (runs[0].folder / "checkpoints").exists()
    assert compare(config, runs, seeds=2).to_json() == before


def test_an_unfinished_run_is_never_slimmed(done):
    folder = done[1][0].folder
    (folder / "scores.json").unlink()
    drop_weights(folder, done[1])
    assert (folder / "best" / "weights").is_file()


def test_the_rest_takes_as_long_as_runs_of_the_same_setting_took(done):
    _, runs = done
    for run in runs[1:4]:
        (run.folder / "scores.json").unlink()
    waiting = [run for run in runs if not run.finished]
    pace = Pace(runs, waiting)
    assert pace.left(0) == ", 4 runs left, about 4 min"  # each took a minute
    pace.add(waiting[1], 7200.0)
    assert pace.left(1) == ", 3 runs left, about 4 h 01 min"  # two of `sharp`, one of `labels`
    assert pace.left(4) == ""
    seen = []
    pace.counting(1, lambda done, total: seen.append((done, total)))(3, 20)
    assert seen == [(13, 60)]
    assert [duration(seconds) for seconds in (40, 100, 7500)] == ["40 s", "2 min", "2 h 05 min"]


def test_a_second_evaluation_is_not_taken_to_last_as_long_as_a_training(done):
    _, runs = done
    setting = parsed(settings=[*TREE["settings"], RERANKED]).settings[-1]
    second = dataclasses.replace(runs[0], setting=setting)
    pace = Pace([*runs, second], [second, second])
    assert pace.left(0) == ", 2 runs left"
    pace.add(second, 120.0)
    assert pace.left(1) == ", 1 run left, about 2 min"


def test_pairs_seen_counts_what_went_through_the_steps():
    def run(**changes):
        return configuration.parse({**BASE, **changes}, RunConfig, source="x")

    sizes = {"captions": 40, "images": 20}
    data = BASE["data"]
    assert pairs_seen(run(), 6, **sizes) == 2 * 40  # batches of 16, 16 and 8
    assert pairs_seen(run(), 7, **sizes) == 96
    assert pairs_seen(run(sampler={"name": "random", "drop_last": True}), 6, **sizes) == 96
    several = {**data, "epoch_unit": "image", "captions_per_image": 2}
    assert pairs_seen(run(data=several), 3, **sizes) == 2 * (20 + 16)


def test_values_are_the_columns_of_the_tables():
    ranks, offset = np.array([1, 3, 6, 8]), np.array([0, 2, 4])
    values = Outcomes(np.array([0, 1]), ranks, offset, 9, "").values()
    named = [dict(zip(METRICS, row, strict=True)) for row in values.tolist()]
    assert named[0] == pytest.approx({"R@1": 100, "R@5": 100, "R@10": 100, "mAP": 250 / 3, "mINP": 200 / 3})
    assert named[1] == pytest.approx({"R@1": 0, "R@5": 0, "R@10": 100, "mAP": 100 * (1 / 6 + 1 / 4) / 2, "mINP": 25})
