"""`tipr ablate` from one file to tables: every run once, stopped and resumed, slim, checked."""

import json
import os
import runpy
import signal
import sys
import threading
import time
from pathlib import Path

import pytest
import yaml

from tipr.analysis import ablation
from tipr.analysis.run_scores import RunScores
from tipr.cli import main
from tipr.data.datasets import DATASETS
from tipr.evaluation import evaluate
from tipr.training import journal

PEOPLE = runpy.run_path(str(Path(__file__).parents[1] / "data" / "training" / "coloured_people.py"))
PLAIN, LABELS = {"name": "clip_baseline"}, {"name": "irra", "losses": ["sdm"], "padding": "trimmed"}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return PEOPLE["make_data"](tmp_path_factory.mktemp("people") / "data")


def ablation_file(folder, data, **changes):
    """Two settings, a handful of steps each."""
    run = PEOPLE["make_config"](
        folder / "run.yaml", data, method=PLAIN, ema=None, epochs=None, max_steps=6, selection={"split": "last"}
    )
    tree = {
        "base": yaml.safe_load(run.read_text()) | {"out": str(folder / "runs")},
        "split": "val",
        "languages": ["en"],
        "baseline": "plain",
        "gap": {"method": "plain", "upper_bound": "labels"},
        "tables": {"all": "All settings"},
        "paper_sets": ["CUHK-PEDES"],
        "settings": [
            {"name": "plain", "title": "contrast", "tables": ["all"], "paper": {"CUHK-PEDES": 64.69}},
            {
                "name": "labels",
                "title": "with labels",
                "tables": ["all"],
                "overrides": {"method": LABELS},
                "extra_languages": ["zh"],
            },
        ],
    }
    path = folder / "ablation.yaml"
    path.write_text(yaml.safe_dump({**tree, **changes}), encoding="utf-8")
    return path


@pytest.fixture
def here(tmp_path, data, monkeypatch):
    """The working directory, with both files in it."""
    ablation_file(tmp_path, data)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def command(*arguments):
    """Exit code of `tipr ARGUMENTS`."""
    with pytest.raises(SystemExit) as stopped:
        main([str(argument) for argument in arguments])
    return stopped.value.code


def test_an_ablation_from_file_to_checked_tables(tmp_path, data, capsys, monkeypatch):
    path, runs = ablation_file(tmp_path, data), tmp_path / "runs"
    assert command("ablate", path, "--seeds", 2, "--only", "plain") == 0
    shown = capsys.readouterr()
    assert "run 1/2: plain seed-1" in shown.err
    assert "plain seed-1: R@1 " in shown.err
    assert ", 1 run left, about " in shown.err
    assert "all runs: 12/12 steps" in shown.err
    assert next(line for line in shown.out.splitlines() if line.startswith("with labels")).split()[2:4] == ["-", "-"]
    times = {name: (runs / "plain" / name / "scores.json").stat().st_mtime_ns for name in ("seed-1", "seed-2")}

    assert command("ablate", path, "--seeds", 2, "--slim", "--json") == 0
    shown = capsys.readouterr()
    assert "2 of 4 runs are finished already" in shown.err
    for name, before in times.items():
        assert (runs / "plain" / name / "scores.json").stat().st_mtime_ns == before
    tree = json.loads(shown.out)
    assert tree == json.loads((runs / "ablation.json").read_text())
    assert tree["command"] == f"tipr ablate {path} --seeds 2"
    assert tree["commit"]
    assert [run["seed"] for run in tree["settings"]["labels"]["cells"]["R@1"]["runs"]] == [1, 2]
    assert set(tree["settings"]["labels"]["by_language"]) == {"en", "zh"}
    assert not list(runs.rglob("*.safetensors"))
    assert not list(runs.rglob("*.pt"))
    assert "| with labels |" in (runs / "ablation.md").read_text()

    monkeypatch.setattr(ablation, "train", None)  # from here on nothing may be trained
    assert command("ablate", path, "--seeds", 2, "--quiet") == 0
    capsys.readouterr()
    assert command("ablate", path, "--seeds", 2, "--check") == 0
    assert "10 cells are what their runs give" in capsys.readouterr().out
    assert command("ablate", path, "--seeds", 3, "--check") == 5
    assert "seeds: 2, now 3" in capsys.readouterr().err

    table = (runs / "ablation.json").read_text()
    changed = json.loads(table)
    changed["settings"]["labels"]["cells"]["mAP"]["mean"] += 1
    (runs / "ablation.json").write_text(json.dumps(changed))
    assert command("ablate", path, "--seeds", 2, "--check") == 5
    error = capsys.readouterr().err
    assert "settings.labels.cells.mAP.mean" in error
    assert error.count("\n") == 1
    (runs / "ablation.json").write_text(table)
    scores = runs / "plain" / "seed-1" / "scores.json"
    scores.write_text(scores.read_text().replace('"steps":6', '"steps":7'))
    assert command("ablate", path, "--seeds", 2, "--check") == 5
    assert "steps is 7, the run folder says 6" in capsys.readouterr().err


def test_scores_are_those_of_tipr_evaluate(tmp_path, data):
    path = ablation_file(tmp_path, data)
    assert command("ablate", path, "--seeds", 1, "--only", "labels", "--quiet") == 0
    folder = tmp_path / "runs" / "labels" / "seed-1"
    scores = RunScores.read(folder)
    found = evaluate(folder, DATASETS["manifest"].load(data, "val"), bootstrap=0, image_to_text=False)
    for language in ("en", "zh"):
        assert scores.scores([language]) == pytest.approx(found.text_to_image.languages[language].named())
    assert scores.scores(["en", "zh"]) == pytest.approx(found.text_to_image.mean.named())
    assert scores.fingerprint == found.fingerprint
    assert (scores.facts.steps, scores.facts.pairs_seen) == (6, 96)


def test_ctrl_c_prints_the_command_that_goes_on_and_it_does(tmp_path, data, capsys, monkeypatch):
    path = ablation_file(tmp_path, data)
    arguments = ["ablate", str(path), "--seeds", "1"]
    run = tmp_path / "runs" / "labels" / "seed-1"
    monkeypatch.setattr(sys, "argv", ["tipr", *arguments])

    def press():
        while not (run / "metrics.jsonl").is_file() or "train" not in (run / "metrics.jsonl").read_text():
            time.sleep(0.002)
        os.kill(os.getpid(), signal.SIGINT)

    tree = yaml.safe_load(path.read_text())
    tree["base"]["max_steps"] = 60
    path.write_text(yaml.safe_dump(tree))
    finger = threading.Thread(target=press, daemon=True)
    finger.start()
    assert command(*arguments) == 130
    finger.join()
    error = capsys.readouterr().err
    assert f"stopped; to go on:  tipr ablate {path} --seeds 1" in error
    assert (run / "status").read_text() == "interrupted\n"
    stopped = journal.read(run)[-1]["step"]
    assert command(*arguments, "--json") == 0
    shown = capsys.readouterr()
    assert "1 of 2 runs are finished already" in shown.err
    assert "resuming at epoch" in shown.err
    tree = json.loads(shown.out)
    assert [run["steps"] for row in tree["settings"].values() for run in row["runs"]] == [60, 60]
    assert stopped < 60


def test_a_run_that_fails_is_listed_and_the_others_go_on(tmp_path, data, capsys):
    bad = {"optimizer": {"name": "sgd", "lr": 1e30}, "precision": "32"}
    settings = [
        {"name": "bad", "title": "too fast", "tables": ["all"], "overrides": bad},
        {"name": "plain", "title": "contrast", "tables": ["all"]},
    ]
    path = ablation_file(tmp_path, data, settings=settings, gap=None)
    assert command("ablate", path, "--seeds", 1, "--json") == 3
    shown = capsys.readouterr()
    assert "failed: bad seed-1: loss 'itc' is " in shown.err
    rows = json.loads(shown.out)["settings"]
    assert (rows["bad"]["cells"], len(rows["plain"]["cells"])) == ({}, 5)


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("nowhere.yaml",), 2, "no configuration file at nowhere.yaml"),
        (("ablation.yaml", "--seeds", "0"), 2, "--seeds"),
        (("ablation.yaml", "--only", "plain,nobody"), 2, "--only: no setting 'nobody'; there are plain, labels"),
        (("ablation.yaml", "--check", "--slim"), 2, "no --only and no --slim with it"),
        (("ablation.yaml", "--check"), 1, "no table at "),
        (("run.yaml",), 2, "base: Field required"),
    ],
)
def test_errors_are_one_line(arguments, code, words, here, capsys):
    assert command("ablate", *arguments) == code
    error = capsys.readouterr().err
    assert words in error
    assert error.count("\n") == 1
    assert not (here / "runs").exists()
