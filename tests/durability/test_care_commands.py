"""`tipr index verify|backup|restore|export|upgrade`: what they print, and their exit codes."""

from __future__ import annotations

import json
import random
import shutil
from datetime import UTC, datetime
from pathlib import Path

import pytest
from damages import damage, make

from tipr.cli import main
from tipr.gallery import Gallery


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


def test_a_restore_says_who_was_erased_since(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    gallery, state = tmp_path / "g", sorted(make(tmp_path / "g"))
    privacy = Gallery.open(gallery).privacy
    privacy.hold(
        "case 7", privacy.find(where=f"path = {state[0]}"), reason="court", until=datetime(2199, 1, 1, tzinfo=UTC)
    )
    assert run("backup", gallery, tmp_path / "b", "-q") == 0
    privacy.release("case 7")
    privacy.erase(privacy.find(where=f"path in ({', '.join(state[:3])})"))
    capsys.readouterr()
    assert run("restore", tmp_path / "b", tmp_path / "again") == 3
    said = capsys.readouterr().err
    assert "and left out: 2 pictures" in said
    assert "but kept by a legal hold of the backup: 1 picture\n" in said
    assert run("restore", tmp_path / "b", tmp_path / "all", "--as-it-was", "-q", "--json") == 0
    told = capsys.readouterr()
    assert (json.loads(told.out)["erased_in"], told.err) == (None, "")
    gallery.rename(tmp_path / "moved")
    assert run("restore", tmp_path / "b", tmp_path / "alone", "-q") == 0
    loud = capsys.readouterr().err
    assert loud.startswith("warning: whoever was erased after 20")
    assert f"tipr erase {tmp_path / 'alone'} --erased-in THAT_GALLERY" in loud
    assert loud.count("\n") == 1
    assert run("restore", tmp_path / "b", tmp_path / "third", "--erased-in", tmp_path / "moved", "-q", "--json") == 3
    told = json.loads(capsys.readouterr().out)
    assert (told["erased"], told["on_hold"], told["pictures"]) == (2, 1, 55)
    assert run("restore", tmp_path / "b", tmp_path / "x", "--as-it-was", "--erased-in", tmp_path / "moved") == 2


def test_an_older_gallery_is_upgraded(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.copytree(Path(__file__).parents[1] / "data" / "gallery_format_1", tmp_path / "g")
    assert run("info", tmp_path / "g") == 1
    assert "tipr index upgrade" in capsys.readouterr().err
    assert run("upgrade", tmp_path / "g") == 0
    assert "format 1 became 2" in capsys.readouterr().out
    assert run("upgrade", tmp_path / "g", "--json") == 0
    assert json.loads(capsys.readouterr().out)["after"] == 2
    assert run("info", tmp_path / "g") == 0
