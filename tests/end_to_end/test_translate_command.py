"""`tipr translate`: what it takes, what it asks, what it sends, and what it leaves behind."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from chat_server import ChatServer, good

from tipr import cli
from tipr.data.datasets import DATASETS
from tipr.data.manifest import Caption, Record, read_manifest, write_manifest
from tipr.translation.records import read_rows

KEY = "sk-secret-2"
GERMAN = {"Someone in a red coat.": "Jemand im roten Mantel.", 'The coat says "{source}".': "Darauf steht „{source}“."}


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with a data set of three captions, and no endpoint named."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("TIPR_TRANSLATE_URL", raising=False)
    monkeypatch.delenv("TIPR_TRANSLATE_KEY", raising=False)
    (tmp_path / "data" / "images").mkdir(parents=True)
    for name in ("a.png", "b.png"):
        (tmp_path / "data" / "images" / name).touch()
    coats = (Caption("en", "Someone in a red coat."), Caption("en", 'The coat says "{source}".'))
    records = [
        Record("images/a.png", coats, identity=1, camera="gate", split="test"),
        Record("images/b.png", (Caption("en", "A hat."), Caption("zh", "一顶帽子。")), identity=2, split="test"),
    ]
    write_manifest(tmp_path / "data" / "manifest.jsonl", records)
    return tmp_path


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[ChatServer]:
    with ChatServer() as chat:
        monkeypatch.setenv("TIPR_TRANSLATE_URL", chat.url)
        monkeypatch.setenv("TIPR_TRANSLATE_KEY", KEY)
        yield chat


@pytest.fixture
def connections(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Every address that anything here connects to or looks up, refused."""
    tried: list[Any] = []

    def refuse(*arguments: Any, **named: Any) -> Any:
        tried.append(arguments)
        raise OSError("no network here")

    for name in ("connect", "connect_ex", "sendto"):
        monkeypatch.setattr(socket.socket, name, refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    return tried


def run(*arguments: str, stage: str = "translate") -> int:
    with pytest.raises(SystemExit) as stop:
        cli.main(["translate", *arguments, "--stage", stage])
    assert isinstance(stop.value.code, int)
    return stop.value.code


def test_the_outcome_is_a_data_set_in_all_languages(
    place: Path, server: ChatServer, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("data", "out", "--to", "zh", "fr", "de", "--model", "m", "--yes", "--price", "1", "2.5") == 0
    shown = capsys.readouterr()
    assert "8 captions to make with 8 requests: about " in shown.err
    assert "price below 0.01" in shown.err
    assert "translations.jsonl: 8 of 8 captions, 8 of them new, with 8 requests (240 tokens in, " in shown.out
    assert "manifest.jsonl: 8 captions added" in shown.out
    records = read_manifest("out/manifest.jsonl")
    assert [(caption.language, caption.text) for caption in records[1].captions] == [
        ("en", "A hat."),
        ("zh", "一顶帽子。"),
        ("fr", good("A hat.", "fr")),
        ("de", good("A hat.", "de")),
    ]
    assert [caption.language for caption in records[0].captions] == ["en", "en", "zh", "zh", "fr", "fr", "de", "de"]
    assert records[0].captions[5].text == good('The coat says "{source}".', "fr")
    assert (records[0].camera, records[0].identity, records[0].split) == ("gate", 1, "test")
    split = DATASETS["manifest"].load("out", "test")
    assert len(split) == 12
    assert [path.resolve() for path in split.images] == [
        place / "data" / "images" / name for name in ("a.png", "b.png")
    ]
    rows = list(read_rows("out/translations.jsonl"))
    row = next(row for row in rows if row["key"] == "images/a.png#0@zh")
    assert row["draft"] == good("Someone in a red coat.", "zh")
    assert {name: row["provenance"][name] for name in ("backend", "host", "model", "attempts", "temperature")} == {
        "backend": "endpoint",
        "host": "127.0.0.1",
        "model": "m",
        "attempts": 1,
        "temperature": 0.0,
    }
    assert {"prompt_sha256", "seconds", "at", "tokens", "finish_reason"} <= row["provenance"].keys()
    for path in Path("out").iterdir():
        assert path.is_dir() or KEY not in path.read_text(encoding="utf-8"), path


def test_the_same_command_again_asks_for_nothing(server: ChatServer, capsys: pytest.CaptureFixture[str]) -> None:
    command = ("data", "out", "--model", "m", "--to", "zh,de")  # the order of languages and flags is free
    assert run(*command, "--yes", "--json") == 0
    first = json.loads(capsys.readouterr().out)
    assert first["translate"]["made"] == server.total == 5
    assert run("--to", "de", "zh", "data", "out", "--model", "m", "--json") == 0  # nothing to send: no yes needed
    again = json.loads(capsys.readouterr().out)
    assert (again["translate"]["rows"], again["translate"]["made"], server.total) == (5, 0, 5)
    assert again["manifest"] == first["manifest"]


def test_other_settings_need_another_folder(server: ChatServer, capsys: pytest.CaptureFixture[str]) -> None:
    command = ("data", "out", "--to", "de", "--yes")
    assert run(*command, "--model", "m") == 0
    assert run(*command, "--model", "n") == 2
    assert "translations.jsonl was made with other settings (backend: " in capsys.readouterr().err
    before = server.total
    assert run("data", "other", "--to", "de", "--yes", "--model", "n") == 0
    assert server.total == before + 3
    Path("out/translations.jsonl").unlink()  # what was paid for once is not asked for again
    assert run(*command, "--model", "m") == 0
    assert server.total == before + 3


def test_a_language_can_be_added_to_an_outcome(server: ChatServer) -> None:
    assert run("data", "one", "--to", "fr", "--model", "m", "--yes") == 0
    assert run("one", "two", "--to", "de", "--model", "m", "--yes") == 0
    assert DATASETS["manifest"].load("two", "test").languages() == ("en", "zh", "fr", "de")


@pytest.mark.parametrize(
    "arguments",
    [("--model", "m"), ("--model", "m", "--yes"), ("--model", "m", "--dry-run"), ()],
    ids=["model", "yes", "dry run", "nothing"],
)
def test_without_an_endpoint_nothing_is_sent(
    arguments: tuple[str, ...], connections: list[Any], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("data", "out", "--to", "zh", *arguments) == 2
    assert capsys.readouterr().err == (
        "tipr: no model to translate with: name an endpoint in TIPR_TRANSLATE_URL (https://host/v1), or give --local "
        "FOLDER\n"
    )
    assert connections == []
    assert not Path("out").exists()


@pytest.mark.parametrize(("arguments", "code"), [(("--dry-run",), 0), ((), 2)], ids=["dry run", "no yes"])
def test_an_endpoint_gets_nothing_before_a_yes(
    arguments: tuple[str, ...],
    code: int,
    server: ChatServer,
    connections: list[Any],
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert run("data", "out", "--to", "zh", "--model", "m", *arguments) == code
    shown = capsys.readouterr()
    assert "2 requests: about " in shown.out + shown.err
    if code:
        assert "add --yes to send them" in shown.err
    else:
        assert f"{server.url}/chat/completions: 2 captions to make" in shown.out
        assert '"Someone in a red coat."' in shown.out
    assert connections == []
    assert server.total == 0
    assert not Path("out").exists()


@pytest.mark.parametrize(("answer", "code"), [("y", 0), ("n", 1)])
def test_at_a_terminal_it_asks(
    answer: str, code: int, server: ChatServer, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)
    monkeypatch.setattr("click.termui.visible_prompt_func", lambda prompt: answer)
    assert run("data", "out", "--to", "zh", "--model", "m") == code
    assert server.total == (0 if code else 2)
    assert ("nothing was sent" in capsys.readouterr().err) == (code == 1)


def test_captions_without_an_answer_are_told_and_asked_again(
    server: ChatServer, capsys: pytest.CaptureFixture[str]
) -> None:
    server.plan = lambda caption, language: ("status400",) if language == "fr" else ()
    command = ("data", "out", "--to", "fr", "de", "--model", "m", "--yes")
    assert run(*command) == 3
    shown = capsys.readouterr()
    assert "3 of 6 captions, 3 of them new" in shown.out
    assert "3 captions got no answer, last: refused with status 400: not this one; give the command again" in shown.err
    assert not Path("out/manifest.jsonl").exists()
    assert run(*command, "--leave-unanswered") == 0
    assert "6 captions added, 3 of them empty" in capsys.readouterr().out
    refused = [row for row in read_rows("out/translations.jsonl") if row["language"] == "fr"]
    assert [(row["draft"], row["error"]) for row in refused] == [(None, "refused with status 400: not this one")] * 3


def test_an_endpoint_that_refuses_the_key_is_one_line(server: ChatServer, capsys: pytest.CaptureFixture[str]) -> None:
    server.plan = lambda caption, language: ("status401",)
    assert run("data", "out", "--to", "de", "--model", "m", "--yes", "--quiet") == 1
    said = capsys.readouterr().err
    assert "refuses the key: set TIPR_TRANSLATE_KEY" in said
    assert said.count("\n") == 1
    assert KEY not in said


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("data", "out", "--to", "es", "--model", "m"), "unknown language 'es'; allowed: en, zh, fr, de"),
        (("data", "out", "--to", "en", "--model", "m"), "language 'en' to translate into is the source's"),
        (("data", "out", "--model", "m"), "no language to translate into: name some, such as zh fr de"),
        (("data", "out", "--to"), "--to: name languages, such as --to zh fr de"),
        (("data", "out", "--to", "zh"), "--model NAME: say which model of the endpoint"),
        (("data", "out", "--to", "zh", "--model", "m", "--local", "x"), "--model names a model at an endpoint"),
        (("data", "out", "--to", "zh", "--model", "m", "--prompts", "none"), "no folder of prompts at none"),
        (("data", "data", "--to", "fr", "--model", "m", "--yes"), "is the manifest to translate: give another output"),
    ],
)
def test_bad_input_is_one_line(
    arguments: tuple[str, ...], message: str, server: ChatServer, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("--quiet", *arguments) == 2
    said = capsys.readouterr().err
    assert message in said
    assert said.count("\n") == 1
    assert server.total == 0


def test_a_name_in_the_way_of_the_pictures_is_not_overwritten(
    server: ChatServer, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("out/images").mkdir(parents=True)
    assert run("data", "out", "--to", "de", "--model", "m", "--yes") == 2
    assert "out/images is in the way of a link to" in capsys.readouterr().err
    assert server.total == 0


def _column(noise: dict[str, float]) -> None:
    lines = [json.dumps({"key": key, "quality": 1 - value}) for key, value in noise.items()]
    Path("quality.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")


def test_translate_and_filter_without_a_vision_model(server: ChatServer, capsys: pytest.CaptureFixture[str]) -> None:
    server.say = lambda caption, language: {"A hat.": "", **GERMAN}[caption]
    _column({"images/a.png#0@de": 0.1, "images/a.png#1@de": 0.5, "images/b.png#0@de": 0.0})
    chain = ("data", "out", "--to", "de", "--model", "m", "--yes")
    assert run(*chain) == 0  # the column needs the keys of the first stage
    capsys.readouterr()
    assert run(*chain, "--estimator", "column:quality.jsonl", stage="all") == 0
    shown = capsys.readouterr()
    assert "test de: 3 captions, by rule: empty 1, mean noise 0.300, 1 above the threshold 0.30" in shown.out
    assert "filtered.html" in shown.out
    assert "3 captions added, 1 of them empty" in shown.out
    assert "noisy captions stay as they are: --vision-model FOLDER has them rewritten" in shown.err
    assert server.total == 3
    assert {row["key"]: (row["rule"], row["noisy"]) for row in read_rows("out/filtered.jsonl")} == {
        "images/a.png#0@de": (None, False),
        "images/a.png#1@de": (None, True),
        "images/b.png#0@de": ("empty", True),
    }
    assert run("data", "out", "--estimator", "column:quality.jsonl", "--json", stage="filter") == 0
    assert json.loads(capsys.readouterr().out)["filter"]["groups"][0]["noisy"] == 1
    tried = ("data", "out", "--estimator", "column:quality.jsonl", "--threshold")
    assert run(*tried, "0.6", "--json", stage="filter") == 0
    assert json.loads(capsys.readouterr().out)["filter"]["groups"][0]["noisy"] == 0
    Path("out/adapter").mkdir()
    assert run(*tried, "0.7", stage="filter") == 2
    assert "threshold: 0.6 -> 0.7" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "stage", "message"),
    [
        (("--dry-run",), "filter", "--dry-run is about what translating sends: nothing else is sent"),
        ((), "adapt", "--stage adapt needs --vision-model FOLDER"),
        ((), "rewrite", "--stage rewrite needs --vision-model FOLDER"),
        (
            ("--vision-model", "v", "--estimator", "column:q"),
            "all",
            "--estimator column has no values for captions that",
        ),
        (
            ("--vision-model", "v", "--adapt", "size=3"),
            "adapt",
            "--adapt 'size=3': give KEY=VALUE; keys: rank, alpha, ",
        ),
        (("--vision-model", "v", "--adapt", "rank=x"), "adapt", "--adapt 'rank=x': rank is a whole number"),
        (("--vision-model", "v", "--adapt", "rank=0"), "adapt", "rank must be at least 1, not 0"),
    ],
)
def test_stages_that_lack_something_are_one_line(
    arguments: tuple[str, ...], stage: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("data", "out", *arguments, stage=stage) == 2
    said = capsys.readouterr().err
    assert message in said
    assert said.count("\n") == 1


def test_a_stage_needs_the_one_before(capsys: pytest.CaptureFixture[str]) -> None:
    _column({})
    assert run("data", "out", "--estimator", "column:quality.jsonl", stage="filter") == 1
    assert "no file out/translations.jsonl: run the stage that makes it first" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--estimator", "guess"), "unknown estimator 'guess'; allowed: text-encoder, "),
        (("--estimator", "comet:x.ckpt"), "comet"),
        (("--vision-model", "none"), "no config.json in none"),
        (("--vision-model", "none", "--adapt", "rank=0"), "rank must be at least 1"),
    ],
)
def test_what_a_later_stage_lacks_is_told_before_captions_are_sent(
    arguments: tuple[str, ...],
    message: str,
    server: ChatServer,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    if arguments[0] == "--vision-model":
        monkeypatch.setattr("tipr.translation.estimators.load_estimator", lambda *given: None)
    assert run("data", "out", "--to", "de", "--model", "m", "--yes", *arguments, stage="all") in (1, 2)
    said = capsys.readouterr().err
    assert message in said
    assert said.count("\n") == 1
    assert server.total == 0
