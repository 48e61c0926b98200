"""`tipr index verify|backup|restore|export|upgrade`: what they print, and their exit codes."""

from __future__ import annotations

import json
import random
import shutil
from pathlib import Path

import pytest
from damages import damage, make

from tipr.cli import main


def run(*arguments: object) -> int:
    with pytest.raises(SystemExit) as stop:
        main(["index", *map(str, arguments)])
    assert isinstance(stop.value.code, int)
    return stop.value.code


def test_a_gallery_is_looked_after(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    gallery = tmp_path / "g"
    make(gallery)
    assert run("verify", gallery, "--quiet") == 0
    assert capsys.readouterr().out.endswith("no damage found\n")
    assert run("backup", gallery, tmp_path / "b", "--quiet") == 0
    assert f"backed up 57 pictures at {tmp_path / 'b'}" in capsys.readouterr().out
    assert run("backup", gallery, tmp_path / "b", "--quiet") == 1
    assert "is in use" in capsys.readouterr().err

    piece = max((gallery / "people.lance" / "data").iterdir(), key=lambda path: path.stat().st_mtime_ns)
    damage(piece, random.Random(2))
    assert run("verify", gallery, "--quiet") == 5
    assert f"{piece.relative_to(gallery)} is" in (text := capsys.readouterr().out)
    assert "12 pictures lost" in text
    assert "nothing was changed" in text
    assert run("verify", gallery, "--set-aside", "--json", "--quiet") == 5
    assert json.loads(capsys.readouterr().out)["moved"] == [f"set_aside/{piece.name}"]
    assert run("verify", gallery, "--quiet") == 0
    capsys.readouterr()

    assert run("restore", tmp_path / "b", tmp_path / "again", "--json", "--quiet") == 0
    assert json.loads(capsys.readouterr().out)["pictures"] == 57
    assert run("export", tmp_path / "again", tmp_path / "m.csv") == 0
    assert "wrote 57 pictures" in capsys.readouterr().out
    assert run("export", tmp_path / "again", tmp_path / "m.xls") == 2
    capsys.readouterr()


def test_an_older_gallery_is_upgraded(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.copytree(Path(__file__).parents[1] / "data" / "gallery_format_1", tmp_path / "g")
    assert run("info", tmp_path / "g") == 1
    assert "tipr index upgrade" in capsys.readouterr().err
    assert run("upgrade", tmp_path / "g") == 0
    assert "format 1 became 2" in capsys.readouterr().out
    assert run("upgrade", tmp_path / "g", "--json") == 0
    assert json.loads(capsys.readouterr().out)["after"] == 2
    assert run("info", tmp_path / "g") == 0
