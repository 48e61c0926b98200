"""`tipr report`: a run as one page, in a browser too where there is one."""

from __future__ import annotations

import json
import re
import runpy
import shutil
from pathlib import Path
from typing import Any

import browser
import pytest
import torch

from tipr import config as configuration
from tipr.cli import main
from tipr.training import RunConfig, train

PEOPLE = runpy.run_path(str(Path(__file__).parents[1] / "data" / "training" / "coloured_people.py"))
PANELS = (
    *("scores", "queries", "cmc", "learning", "training", "similarity", "bands", "best", "worst", "attention", "map"),
    *("configuration", "trained-in", "environment"),
)

Case = tuple[str | None, str | None, tuple[str, ...], int, str]
"""(changed file, its content or None: removed, more arguments, exit code, words of the message)."""


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A short run on coloured blocks that has learned a little."""
    data = PEOPLE["make_data"](tmp_path_factory.mktemp("people") / "data")
    changes: dict[str, Any] = {"optimizer": {"name": "adamw", "lr": 0.01}, "epochs": 5}
    path = PEOPLE["make_config"](tmp_path_factory.mktemp("report") / "run.yaml", data, **changes)
    before = torch.get_num_threads()
    folder = train(configuration.load(path, RunConfig)).folder
    torch.set_num_threads(before)
    return folder


@pytest.fixture(scope="module")
def page(run: Path) -> Path:
    """Its report."""
    assert command("report", run, "--split", "val", "--draws", 50, "--quiet") == 0
    return run / "report.html"


def command(*arguments: object) -> object:
    """Exit code of `tipr ARGUMENTS`."""
    with pytest.raises(SystemExit) as stopped:
        main([str(argument) for argument in arguments])
    return stopped.value.code


def test_the_page_has_every_panel_and_loads_nothing(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert [panel for panel in PANELS if text.count(f'id="{panel}"') != 1] == []
    assert "default-src &#39;none&#39;" in text or "default-src 'none'" in text
    assert "<script" not in text
    assert "url(" not in text
    links = re.findall(r'(?:src|href|action|srcset|poster|data)="([^"]*)"', text)
    assert links
    assert all(link.startswith(("data:image/jpeg;base64,", "#")) for link in links)
    assert page.stat().st_size < 20e6
    assert "These people" not in text
    assert "chosen by its score on these very people" in text
    assert "loss id" in text
    assert "learning rate" in text


@pytest.fixture(scope="module")
def said(page: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    """What the page says of itself in a browser, wide and light, and narrow and dark."""
    views = {"wide": (1280, "light"), "narrow": (400, "dark")}
    return browser.measure(page, tmp_path_factory.mktemp("browser"), views=views)


def test_every_panel_is_in_a_browser(said: dict[str, dict[str, Any]]) -> None:
    for view in said.values():
        assert [panel for panel in PANELS if min(view["ids"][panel]) < 40] == []
        assert all(view["images"])
        assert len(view["images"]) > 60
        assert view["wide"] <= 0, "it scrolls sideways"
        assert view["requests"] == []
    assert said["wide"]["paper"] != said["narrow"]["paper"]


def test_no_accessibility_rule_is_broken(said: dict[str, dict[str, Any]]) -> None:
    if browser.axe() is None:
        pytest.skip("NOT TESTED: accessibility; AXE=path/to/axe.min.js names axe-core, see docs/report.md")
    assert {name: view["violations"] for name, view in said.items()} == {"wide": [], "narrow": []}


def test_the_browser_obeys_the_policy_and_prints(page: Path, tmp_path: Path) -> None:
    pdf = tmp_path / "page.pdf"
    done = browser.run(tmp_path, f"--print-to-pdf={pdf}", "--no-pdf-header-footer", page.as_uri())
    assert "CONSOLE" not in done.stderr, done.stderr
    pages = len(re.findall(rb"/Type\s*/Page\b", pdf.read_bytes()))
    assert 3 <= pages <= 14


def test_json_says_what_the_page_shows(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "there" / "page.html"
    line = ("report", run, "--split", "train", "--weights", "last", "--language", "en", "--draws", 0, "--out", out)
    assert command(*line, "--json", "--quiet") == 0
    said = json.loads(capsys.readouterr().out)
    assert said["split"] == "train"
    assert set(said["scores"]) == {"en"}
    assert said["absent"] == {}
    text = out.read_text(encoding="utf-8")
    assert "These people were seen in training" in text
    assert "none seen in training" not in text
    assert f"{said['scores']['en']['R@1']:.1f}" in text


def test_an_unfinished_run_says_so(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    copy = tmp_path / "half"
    shutil.copytree(run, copy, ignore=shutil.ignore_patterns("checkpoints", "tb"))
    (copy / "status").write_text("interrupted\n", encoding="utf-8")
    lines = (copy / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    (copy / "metrics.jsonl").write_text(lines[0] + "\n", encoding="utf-8")
    (copy / "environment.json").unlink()
    assert command("report", copy, "--split", "val", "--draws", 0, "--quiet") == 0
    assert "status: interrupted" in capsys.readouterr().out
    text = (copy / "report.html").read_text(encoding="utf-8")
    for panel, why in (("learning", "The run scored nothing"), ("training", "fewer than two steps")):
        assert why in text.split(f'id="{panel}"')[1][:300]
    assert 'id="trained-in"' not in text


@pytest.mark.parametrize(
    "case",
    [
        ("metrics.jsonl", '{"kind": "train"\n', (), 1, "metrics.jsonl cannot be used"),
        ("metrics.jsonl", "[1]\n", (), 1, "metrics.jsonl cannot be used"),
        ("environment.json", "[]", (), 1, "environment.json cannot be used"),
        (None, "", ("--split", "test"), 1, "test"),
        (None, "", ("--data", "nowhere"), 1, "nowhere"),
        (None, "", ("--rerank", "5"), 2, "cannot rerank: its encoder 'compact' has no match head"),
        ("best/model.json", "{}", (), 1, "model.json"),
        ("config.yaml", None, (), 2, "config.yaml is missing"),
    ],
)
def test_what_does_not_fit_is_said_in_one_line(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], case: Case
) -> None:
    file, content, arguments, code, said = case
    copy = tmp_path / "run"
    shutil.copytree(run, copy, ignore=shutil.ignore_patterns("checkpoints", "tb", "last"))
    if file is not None and content is None:
        (copy / file).unlink()
    elif file is not None and content is not None:
        (copy / file).write_text(content, encoding="utf-8")
    line = (
        "report",
        copy,
        "--draws",
        0,
        "--quiet",
        *(() if "--split" in arguments else ("--split", "val")),
        *arguments,
    )
    assert command(*line) == code
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1
    assert said in lines[0]
    assert lines[0].startswith("tipr: ")
