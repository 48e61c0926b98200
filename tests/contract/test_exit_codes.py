"""The table of exit codes: one line on stderr, nothing on stdout, the code that the table says."""

from __future__ import annotations

import json
import shlex
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import click
import numpy as np
import pytest
from PIL import Image

import tipr.gallery.gallery as home
from tipr import cli
from tipr.errors import (
    ConfigError,
    DatasetError,
    EndpointError,
    GalleryCorrupt,
    GalleryError,
    GalleryMismatch,
    MissingExtra,
    TiprError,
    TrainingError,
    WeightsError,
)
from tipr.gallery import Gallery


def _model(fingerprint: str) -> Any:
    """A stand-in model: every picture and every text is its own length."""
    unit = np.full((1, 4), 0.5, dtype=np.float32)
    return SimpleNamespace(
        fingerprint=fingerprint,
        embed_dim=4,
        source=f"models/{fingerprint}",
        preprocessing=SimpleNamespace(image_size=(8, 4)),
        encode_images=lambda images, **_: unit.repeat(len(images), axis=0),
        encode_text=lambda texts, **_: unit.repeat(len(texts), axis=0),
    )


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with a gallery `g`, an empty one `empty`, pictures, and damaged things."""
    monkeypatch.chdir(tmp_path)
    real = home._load

    def load(model: Path | str, device: str, threads: int | None) -> Any:
        name = Path(model).name
        return _model(name) if name in ("one", "two") else real(model, device, threads)

    monkeypatch.setattr(home, "_load", load)
    (tmp_path / "p").mkdir()
    for number in range(3):
        Image.effect_noise((20, 40), 60 + number).convert("RGB").save(tmp_path / "p" / f"{number}.png")
    Path("models/one").mkdir(parents=True)
    Gallery.create("g", _model("one")).add(["p"])
    Gallery.create("empty", _model("one"))
    shutil.copytree("g", "no-table")
    shutil.rmtree("no-table/people.lance")
    shutil.copytree("g", "cut")
    for path in Path("cut/people.lance/data").iterdir():
        path.write_bytes(path.read_bytes()[:100])
    shutil.copytree("g", "torn")  # as a power failure leaves it: the newest version was not written to its end
    newest = min(Path("torn/people.lance/_versions").glob("*.manifest"))  # Lance counts their names backwards
    newest.write_bytes(newest.read_bytes()[:20])
    shutil.copytree("g", "settings")
    Path("settings/gallery.json").write_text("{")
    shutil.copytree("g", "future")
    settings = json.loads(Path("future/gallery.json").read_text())
    Path("future/gallery.json").write_text(json.dumps({**settings, "format": 3}))
    Path("bad.jsonl").write_text("{}\n")
    Path("not-a-model").mkdir()
    Path("p/words.txt").write_text("words")
    return tmp_path


CASES: dict[str, tuple[int, str]] = {
    "search g red": (0, ""),
    "index info g": (0, ""),
    "index add g p/0.png": (0, ""),
    "search g red --camera nowhere": (0, "no picture passes the filters"),
    "index add g p": (3, ""),
    "index add g missing.png": (3, ""),
    "index create new p --model one": (3, ""),
    "frobnicate": (2, "No such command 'frobnicate'"),
    "search": (2, "Missing argument 'GALLERY'"),
    "search g red -k 0": (2, "-k"),
    "search g red -k x": (2, "not a valid integer"),
    "search g red --threads 0": (2, "--threads"),
    "search g red --nonsense": (2, "No such option"),
    "search g red --json --paths": (2, "cannot be combined"),
    "search g red --save out.pdf": (2, "must end in .html or .png"),
    "search g --save out.html": (2, "--save needs TEXT"),
    "search g red --since soon": (2, "since: 'soon' is not a date"),
    "search g red --since 2026-02-02 --until 2026-01-01": (2, "no time lies between them"),
    "search g red --group-by hat": (2, "no column 'hat'; there are identity, camera, path, sha256"),
    "search g ''": (2, "the query is empty"),
    "search g '  '": (2, "the query is empty"),
    "index add g": (2, "nothing to add"),
    "index remove g": (2, "nothing to remove"),
    "index add g p --camera ''": (2, "camera: the name must not be empty"),
    "index add g --manifest bad.jsonl": (1, "bad.jsonl:1: image: missing"),
    "index add g --manifest none.jsonl": (1, "no manifest at none.jsonl"),
    "search nowhere red": (1, "no gallery at nowhere"),
    "search p red": (1, "p is not a gallery"),
    "search p/0.png red": (1, "is not a gallery"),
    "search empty red": (1, "gallery empty is empty"),
    "search empty": (1, "gallery empty is empty"),
    "search future red": (1, "has format 3"),
    "search g red --model two": (1, "was filled by model one"),
    "search g red --model nowhere": (1, "no model at nowhere"),
    "index create g": (1, "is a gallery already"),
    "index create p": (1, "is in use"),
    "index create new --model not-a-model": (1, "is not a model folder"),
    "index remove g p/words.txt": (1, "not in gallery"),
    "index remove g --id 77": (1, "row 77 is not in gallery"),
    "search no-table red": (5, "people.lance is missing"),
    "search cut red": (5, "gallery cut is damaged"),
    "search torn red": (1, "gallery torn is empty"),  # it went back to the version before, with a warning
    "index add cut p": (5, "put back a backup with `tipr index restore`, or fill a new gallery"),
    "search settings red": (5, "gallery.json cannot be read"),
    "index add settings p": (5, "gallery.json cannot be read"),
    "index info no-table": (5, "people.lance is missing"),
    "index compact g": (0, ""),
    "index compact nowhere": (1, "no gallery at nowhere"),
    "erase g": (2, "name exactly one of --identity ID, --like IMAGE, --where EXPRESSION, --erased-in"),
    "erase g --erased-in p --yes": (1, "p is not a gallery"),
    "erase g --erased-in empty --yes": (1, "erased in empty: no picture of gallery g"),
    "erase g --identity 1 --like p/0.png": (2, "name exactly one of"),
    "erase g --identity 1": (2, "an erasure cannot be undone: add --yes, or --dry-run to look first"),
    "erase g --identity 1 --yes": (1, "identity 1: no picture of gallery g; nothing was erased"),
    "erase g --where 'height >' --yes": (2, "where: "),
    "erase g --where 'height > 1' --review out.pdf": (2, "must end in .html or .png"),
    "erase g --where 'height > 1' --review p/0.png/out.png --yes -q": (1, "cannot write p/0.png/out.png"),
    "erase g --where 'height > 1' --dry-run": (0, "p/2.png"),
    "erase g --where 'height > 1' --yes": (0, "the picture files themselves are not touched, 3 of them"),
    "erase g --like p/words.txt --yes": (1, "p/words.txt: not an image"),
    "erase g --like p/0.png --dry-run --model two": (1, "was filled by model one"),
    "erase nowhere --identity 1 --yes": (1, "no gallery at nowhere"),
    "erase cut --where 'height > 1' --yes": (5, "gallery cut is damaged"),
    "retain g": (2, "Missing option '--older-than'"),
    "retain g --older-than 3 --yes": (2, "'3' is not a length of time such as 72h, 30d or 2w"),
    "retain g --older-than 72h": (2, "add --yes"),
    "retain g --older-than 72h --yes": (0, ""),
    "retain g --older-than 0.001h --dry-run": (0, ""),
    "hold g": (0, ""),
    "hold g case --identity 1": (2, "a hold needs --reason TEXT and --until TIME"),
    "hold g case --reason x --until 2999-01-01": (2, "name exactly one of --identity ID and --where EXPRESSION"),
    "hold g --identity 1": (2, "give the hold a NAME"),
    "hold g case --release": (1, "gallery g has no hold 'case'; there are: none"),
    "hold g case --where 'height > 1' --reason x --until 2020-01-01": (2, "which is over: name a later end"),
    "hold g case --where 'height > 1' --reason x --until 2999-01-01": (0, "on hold: 3 pictures"),
}


@pytest.mark.parametrize("line", CASES)
def test_a_command_ends_with_its_code_and_one_line(line: str, capsys: pytest.CaptureFixture[str]) -> None:
    code, message = CASES[line]
    with pytest.raises(SystemExit) as stop:
        cli.main([*shlex.split(line)])
    out, err = capsys.readouterr()
    assert stop.value.code == code, err
    assert message in err
    assert "Traceback" not in out + err
    if code in (1, 2, 5):
        assert out == ""
        assert err.startswith("tipr: ")
        assert err.count("\n") == 1


def test_what_a_hold_keeps_is_left_with_the_code_for_skipped(capsys: pytest.CaptureFixture[str]) -> None:
    for line, code in (
        ("hold g case --where 'path *= /1.png' --reason x --until 2999-01-01", cli.DONE),
        ("erase g --where 'height > 1' --yes", cli.SKIPPED),
        ("retain g --older-than 0.0000h --yes", cli.USAGE),
        ("index remove g p/1.png", cli.RUN_TIME_ERROR),
        ("hold g case --release", cli.DONE),
        ("index remove g p/1.png", cli.DONE),
    ):
        with pytest.raises(SystemExit) as stop:
            cli.main([*shlex.split(line)])
        out, err = capsys.readouterr()
        assert stop.value.code == code, line + err
        if code == cli.SKIPPED:
            assert "left because of a legal hold (case): 1 picture" in err
            assert "on hold         1" in out


@pytest.mark.parametrize("name", ["out.html", "out.png"])
def test_a_place_that_cannot_be_written_is_named(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    Path(name).mkdir()
    with pytest.raises(SystemExit) as stop:
        cli.main(["search", "g", "red", "--quiet", "--save", name])
    assert stop.value.code == cli.RUN_TIME_ERROR
    assert capsys.readouterr().err == f"tipr: cannot write {name}: Is a directory\n"
    assert not list(Path().glob(".*.partial"))


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (ConfigError("x"), 2),
        (click.UsageError("x"), 2),
        (DatasetError("x"), 1),
        (WeightsError("x"), 1),
        (EndpointError("x"), 1),
        (TrainingError("x"), 1),
        (GalleryError("x"), 1),
        (GalleryMismatch("x"), 1),
        (GalleryCorrupt("x", "y"), 5),
        (MissingExtra("numba", "fast"), 1),
        (TiprError("x"), 1),
        (OSError(28, "No space left on device"), 1),
        (PermissionError(13, "Permission denied", "some/file"), 1),
        (KeyboardInterrupt(), 130),
    ],
)
def test_every_error_has_one_code(
    error: BaseException, code: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    @click.command()
    def broken() -> None:
        raise error

    monkeypatch.setattr(cli.LazyGroup, "get_command", lambda self, context, name: broken)
    with pytest.raises(SystemExit) as stop:
        cli.main(["search"])
    assert stop.value.code == code == cli.exit_code(error)
    err = capsys.readouterr().err
    assert "Traceback" not in err
    if isinstance(error, PermissionError):
        assert err == "tipr: some/file: Permission denied\n"


def test_debug_shows_where_an_error_comes_from(monkeypatch: pytest.MonkeyPatch) -> None:
    for arguments, variables in (
        (["--debug", "search", "nowhere", "x"], {}),
        (["search", "nowhere", "x"], {"TIPR_DEBUG": "1"}),
    ):
        for name, value in variables.items():
            monkeypatch.setenv(name, value)
        with pytest.raises(GalleryError, match="no gallery at nowhere"):
            cli.main(arguments)


def test_a_message_with_a_hostile_name_is_harmless(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        cli.main(["search", "\x1b[2Jno\u202esuch\ngallery", "x"])
    assert capsys.readouterr().err.startswith("tipr: no gallery at nosuch gallery")


def test_a_stopped_run_says_how_to_go_on(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def stop(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Gallery, "add", stop)
    monkeypatch.setattr("sys.argv", ["tipr", "index", "add", "g", "a b.png"])
    with pytest.raises(SystemExit) as end:
        cli.main(["index", "add", "g", "a b.png"])
    assert end.value.code == cli.INTERRUPTED
    assert "Continue with:\n  tipr index add g 'a b.png'" in capsys.readouterr().err


def test_a_stopped_demo_says_how_to_go_on(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def stop(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("tipr.data.synthetic.benchmark.build", stop)
    monkeypatch.setattr("sys.argv", ["tipr", "demo", "a folder"])
    with pytest.raises(SystemExit) as end:
        cli.main(["demo", "a folder"])
    assert end.value.code == cli.INTERRUPTED
    assert "Continue with:\n  tipr demo 'a folder'" in capsys.readouterr().err


def test_codes_are_different() -> None:
    codes: list[int] = [cli.DONE, cli.RUN_TIME_ERROR, cli.USAGE, cli.SKIPPED, cli.DAMAGED, cli.INTERRUPTED]
    assert codes == [0, 1, 2, 3, 5, 130]


def test_every_command_of_the_table_can_be_imported() -> None:
    opener: Callable[..., Any] = cli.LazyGroup(name="tipr").get_command
    for name in cli.COMMANDS:
        command = opener(click.Context(click.Command("tipr")), name)
        assert isinstance(command, click.Command)
        assert command.help
