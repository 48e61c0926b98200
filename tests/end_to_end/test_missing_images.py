"""A copy of a data set that lacks some images: refused by default, and on request used, counted and said everywhere."""

from __future__ import annotations

import json
import runpy
from pathlib import Path

import pytest

from tipr.cli import main

PEOPLE = runpy.run_path(str(Path(__file__).parents[1] / "data" / "training" / "coloured_people.py"))
GONE = {"train": ("00_0", "01_2", "02_1"), "val": ("04_1",)}
TRAIN, VAL = 48, 12
"""Images of the splits before."""


def tipr(*arguments: object, code: int = 0) -> None:
    with pytest.raises(SystemExit) as stop:
        main([str(argument) for argument in arguments])
    assert stop.value.code == code


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """A run of two steps on the coloured people, whose copy lacks four images."""
    data = PEOPLE["make_data"](tmp_path / "data")
    for name in (*GONE["train"], *GONE["val"]):
        (data / "images" / f"{name}.png").unlink()
    changes = {"method": {"name": "clip_baseline"}, "epochs": None, "max_steps": 2, "precision": "32", "ema": None}
    path: Path = PEOPLE["make_config"](tmp_path / "run.yaml", data, **changes)
    return path


def test_it_is_refused_by_default_in_one_line_that_says_what_to_do(
    config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data, run = config.parent / "data", config.parent / "run"
    for command in (
        ["train", config],
        ["evaluate", "demo", data, "--split", "val"],
        ["data", "import", "manifest", data],
    ):
        tipr(*command, code=1)
        (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("tipr: ")]
        assert "images are missing under" in line
        assert "--allow-missing, in a run data.allow_missing: true" in line
    assert not (run / "best").exists()
    tipr("data", "check", "manifest", data, "--fast", code=1)
    assert capsys.readouterr().out.splitlines()[-1].startswith("unusable: 4 images are missing")


def test_on_request_a_run_does_without_them_and_says_so_everywhere(
    config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data, run = config.parent / "data", config.parent / "run"
    tipr("data", "check", "manifest", data, "--fast", "--allow-missing")
    assert "4 images are missing and left out" in capsys.readouterr().out.splitlines()[-1]
    allowed = config.with_name("allowed.yaml")
    allowed.write_text(config.read_text().replace("data:\n", "data:\n  allow_missing: true\n"))
    tipr("doctor", allowed, "-q")
    assert "45 images, 16 people; 3 training images are missing and left out" in capsys.readouterr().out
    tipr("train", config, "data.allow_missing=true", "-q")
    facts = json.loads((run / "best" / "model.json").read_text())["card"]["data"]
    assert (facts["images"], facts["missing_images"]) == (TRAIN - 3, 3)
    card = (run / "card.md").read_text(encoding="utf-8")
    assert f"INCOMPLETE: 3 of {TRAIN} training images were missing and left out" in card
    val = f"1 of {VAL} images of split 'val' is missing and left out, with captions"
    assert f"INCOMPLETE: {val}" in card

    capsys.readouterr()
    tipr("evaluate", run, data, "--split", "val", "--allow-missing", "--draws", 0, "-q", "--json")
    tree = json.loads(capsys.readouterr().out)
    assert tree["images"] == VAL - 1
    assert tree["notes"][0].startswith(val)
    tipr("report", run, "--split", "val", "--draws", 0, "-q")
    notes = capsys.readouterr().out
    assert val in notes
    assert f"3 of {TRAIN} training images were missing" in notes
    tipr("compare", run, "--split", "val", "-q", "--zero-shot", "demo")
    said = capsys.readouterr().out
    assert f"clip_baseline: INCOMPLETE: 3 of {TRAIN} training images" in said
    assert f"clip_baseline: {val}" in said
    assert f"zero-shot, demo: {val}" in said


def test_a_split_without_a_single_image_is_refused_all_the_same(
    config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = config.parent / "data"
    for path in (data / "images").glob("[01][49]_*.png"):
        path.unlink()
    tipr("data", "check", "manifest", data, "--fast", "--allow-missing", code=1)
    assert capsys.readouterr().out.splitlines()[-1].startswith("unusable: ")
    tipr("train", config, "data.allow_missing=true", "-q", code=1)
    assert "split 'val': all 12 images are missing" in capsys.readouterr().err
