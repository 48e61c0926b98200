"""The wheel holds what the demo needs, and runs outside the checkout."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    command = ["pip", "wheel", "--quiet", "--disable-pip-version-check", "--no-deps", "--no-build-isolation"]
    subprocess.run([sys.executable, "-m", *command, "-w", str(folder), str(ROOT)], check=True)
    (path,) = folder.glob("tipr-*.whl")
    return path


def test_wheel_carries_the_demo_model_and_types(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        sizes = {entry.filename: entry.file_size for entry in archive.infolist()}
    for name in ("py.typed", "assets/demo/model.json", "assets/demo/model.safetensors", "assets/demo/tokenizer.json"):
        assert f"tipr/{name}" in sizes, name
    assert any(name.startswith("tipr/report/templates/") for name in sizes)
    assert 0 < sizes["tipr/assets/translation_estimator/estimator.safetensors"] < 3_000_000
    assert {"tipr/translation/prompts/translate.txt", "tipr/translation/prompts/rewrite.txt"} <= sizes.keys()
    assert sum(size for name, size in sizes.items() if name.startswith("tipr/assets/demo/")) <= 12_000_000


def test_unpacked_wheel_runs_outside_the_checkout(wheel: Path, tmp_path: Path) -> None:
    """The wheel's own files with this environment's dependencies: quick, needs no download."""
    target = tmp_path / "site"
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(target)
    code = (
        "import sys; sys.path.insert(0, sys.argv[1]); import tipr; "
        "assert tipr.__file__.startswith(sys.argv[1]), tipr.__file__; "
        "from tipr import Retriever; "
        "rows = Retriever.load('demo').encode_text(['a man in a red jacket', '一名穿红色夹克的男子']); "
        "print(rows.shape[0], rows.dtype)"
    )
    child = subprocess.run(
        [sys.executable, "-c", code, str(target)], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert child.stdout.split() == ["2", "float32"], child.stderr


@pytest.mark.slow
def test_demo_runs_from_an_installed_wheel(wheel: Path, tmp_path: Path) -> None:
    """As a newcomer: an empty environment, `pip install` of the wheel alone, `tipr demo`."""
    subprocess.run([sys.executable, "-m", "venv", str(tmp_path / "venv")], check=True)
    python = tmp_path / "venv" / "bin" / "python"
    install = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*install, "-c", str(ROOT / "constraints.txt"), str(wheel)], check=True)
    environment = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}
    subprocess.run([str(python.with_name("tipr")), "demo", "--quiet"], cwd=tmp_path, env=environment, check=True)
    assert (tmp_path / "demo" / "report.html").stat().st_size > 100_000
