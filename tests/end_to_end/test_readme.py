"""The README's commands run, its figures come from result files, its links lead somewhere."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

ROOT = Path(__file__).resolve().parents[2]
READMES = [ROOT / "README.md", ROOT / "README.zh.md"]
BLOCK = re.compile(r"```(\w+)\n(.*?)```", re.DOTALL)
NOT_RUN_HERE = {
    "make demo": "tests/end_to_end/test_demo.py runs what it runs",
    "make test": "this is it",
    "tipr data synth data/standard --preset standard": "minutes of rendering",
    "tipr train configs/irra/synthetic.yaml": "minutes of training",
    "tipr evaluate runs/irra-synthetic data/standard": "needs that run",
    "tipr train configs/dual_granularity/synthetic.yaml": "minutes of training",
    "tipr analyse relations runs/dual-granularity-synthetic": "needs that run",
    "tipr train configs/bi_irra/synthetic_start.yaml": "minutes of training",
    "tipr train configs/bi_irra/synthetic.yaml": "minutes of training",
    "tipr evaluate runs/bi-irra-synthetic data/standard --rerank 64": "needs that run",
    "tipr compare runs/irra-synthetic": "needs that run",
}
"""Commands of the README that this test does not run as they stand, and why; they run in small below."""
FROM_OTHERS = {
    "tipr data check cuhk_pedes data/CUHK-PEDES": "tests/contract/test_data_check.py",
    "tipr import openai_clip models/ViT-B-16.pt models/clip-vit-b-16 --download": "tests/unit/test_import_command.py",
    "tipr reproduce irra/cuhk_pedes --data data/CUHK-PEDES --weights models/clip-vit-b-16": (
        "tests/end_to_end/test_reproduce.py"
    ),
}
"""Commands that need files that only their makers give; where small copies of the same form are used."""


def commands(readme: Path) -> list[str]:
    lines = [
        line
        for kind, body in BLOCK.findall(readme.read_text(encoding="utf-8"))
        if kind == "sh"
        for line in body.splitlines()
    ]
    return [shlex.join(shlex.split(line, comments=True)) for line in lines if line.strip()]


@pytest.mark.parametrize("readme", READMES, ids=lambda path: path.name)
def test_readme_opens_with_the_two_commands(readme: Path) -> None:
    assert list(commands(readme)[:2]) == ["make demo", "make test"]


@pytest.mark.parametrize("readme", READMES, ids=lambda path: path.name)
def test_commands_run(readme: Path, tmp_path: Path) -> None:
    folder = tmp_path / "PHOTOS"
    folder.mkdir()
    for index, color in enumerate(("crimson", "navy", "white")):
        Image.new("RGB", (64, 192), color).save(folder / f"{index}.png")
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "NO_COLOR": "1"}
    ran = 0
    for command in commands(readme):
        if command in NOT_RUN_HERE or command in FROM_OTHERS:
            continue
        program, *arguments = shlex.split(command)
        assert program == "tipr", command
        child = subprocess.run(
            [sys.executable, "-m", "tipr", *arguments],
            cwd=tmp_path,
            env=environment,
            input="",
            capture_output=True,
            text=True,
            check=False,
        )
        assert child.returncode == 0, f"{command}\n{child.stderr}"
        assert "Traceback" not in child.stderr
        ran += 1
    assert ran >= 6
    assert (tmp_path / "result.html").is_file()


@pytest.mark.slow
def test_the_long_commands_run_in_small(tmp_path: Path) -> None:
    """What `NOT_RUN_HERE` leaves out, on the smallest preset and for a few steps."""
    (tmp_path / "configs").symlink_to(ROOT / "configs")
    shorter = ".yaml epochs=null max_steps=4 schedule.warmup=1 threads=1"
    printed = []
    for command in NOT_RUN_HERE:
        if not command.startswith("tipr"):
            continue
        small = command.replace("--preset standard", "--preset tiny").replace(".yaml", shorter)
        child = subprocess.run(
            [sys.executable, "-m", *shlex.split(small)],
            cwd=tmp_path,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            capture_output=True,
            text=True,
            check=False,
        )
        assert child.returncode == 0, f"{small}\n{child.stderr}"
        printed.append(child.stdout)
    assert "mINP" in printed[2]
    assert "precision" in printed[4]


def test_commands_for_files_of_others_are_tested_elsewhere() -> None:
    for command, place in FROM_OTHERS.items():
        assert all(command in commands(readme) for readme in READMES)
        assert command.split()[1] in (ROOT / place).read_text(encoding="utf-8")


def test_python_examples_name_what_exists(tmp_path: Path) -> None:
    blocks = [body for kind, body in BLOCK.findall(READMES[0].read_text(encoding="utf-8")) if kind == "python"]
    assert len(blocks) == 2
    for body in blocks:
        compile(body, "README.md", "exec")
    import tipr
    from tipr.importers import read

    assert callable(tipr.Gallery.open)
    assert callable(read)


def test_both_readmes_tell_the_same() -> None:
    """The same sections, commands, examples, figures and links, in two languages."""
    english, chinese = (
        {
            "sections": len(re.findall(r"^## ", text, re.MULTILINE)),
            "commands": [command.split()[:3] for command in commands(readme) if "search" not in command],
            "examples": [re.sub(r"#.*", "#", body) for kind, body in BLOCK.findall(text) if kind == "python"],
            "figures": set(re.findall(r"<!--fig (\S+?)-->", text)),
            "links": set(re.findall(r"\]\(([^)#]+)", text)) - {path.name for path in READMES},
        }
        for readme in READMES
        for text in [readme.read_text(encoding="utf-8")]
    )
    for what, told in english.items():
        assert told == chinese[what], what


def test_the_commands_that_are_not_run_exist() -> None:
    assert (ROOT / "configs" / "irra" / "synthetic.yaml").is_file()
    text = (ROOT / "Makefile").read_text(encoding="utf-8")
    assert re.search(r"^demo:", text, re.MULTILINE)
    assert re.search(r"^test:", text, re.MULTILINE)
    every = {command for readme in READMES for command in commands(readme)}
    assert set(NOT_RUN_HERE) <= every, "an exemption for a command that the README no longer has"


@pytest.mark.parametrize("readme", READMES, ids=lambda path: path.name)
def test_figures_come_from_committed_results(readme: Path) -> None:
    specification = importlib.util.spec_from_file_location("readme_figures", ROOT / "benchmarks" / "readme_figures.py")
    assert specification
    assert specification.loader
    figures = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(figures)
    text = readme.read_text(encoding="utf-8")
    found = list(figures.FIGURE.finditer(text))
    assert len(found) >= 20
    assert figures.filled(text) == text, "run python benchmarks/readme_figures.py"
    assert figures.filled(text.replace(found[0].group(0), found[0].group(0).replace(found[0]["shown"], "12.3"))) == text
    table = [
        line for line in text.splitlines() if line.startswith("|") and re.search(r"\d", line) and "R@1" not in line
    ]
    for line in table:
        assert not re.search(r"\d", re.sub(figures.FIGURE, "", line)), f"a figure without a source: {line}"


def test_figures_of_the_documentation_come_from_committed_results() -> None:
    done = subprocess.run(
        [sys.executable, str(ROOT / "benchmarks" / "readme_figures.py"), "--check"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("path", sorted((ROOT / "benchmarks" / "results").glob("*.json")), ids=lambda path: path.name)
def test_results_say_how_they_were_made(path: Path) -> None:
    record = json.loads(path.read_text(encoding="utf-8"))
    for key in ("command", "commit", "machine"):
        assert record.get(key), f"{path.name} has no {key}"


@pytest.mark.parametrize("page", [*READMES, *sorted((ROOT / "docs").rglob("*.md")), ROOT / "CONTRIBUTING.md"], ids=str)
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)", page.read_text(encoding="utf-8")):
        if not target.startswith("http"):
            assert (page.parent / target).exists(), f"{page.name}: {target}"
