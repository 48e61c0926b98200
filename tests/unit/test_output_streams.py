"""Where results, remarks and progress go, and what a terminal or a pipe gets of them."""

from __future__ import annotations

import io
import os
import sys
from types import SimpleNamespace
from typing import Any

import pytest

from tipr.cli import output, progress, search


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        return True

    def fileno(self) -> int:
        raise io.UnsupportedOperation("fileno")


@pytest.mark.parametrize(
    ("variables", "expected"),
    [({"TERM": "xterm"}, True), ({"TERM": "xterm", "NO_COLOR": "1"}, False), ({"TERM": "dumb"}, False)],
)
def test_colours_only_on_a_willing_terminal(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], expected: bool
) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert output.colours(Terminal()) is expected
    assert output.colours(io.StringIO()) is False


def test_columns_align_chinese_as_two_places() -> None:
    assert output.columns([["1", "门口", "x"], ["10", "door", "y"]], right=(0,)) == [" 1  门口  x", "10  door  y"]
    assert output.columns([]) == []


def test_a_path_goes_into_a_pipe_byte_for_byte(capfdbinary: Any) -> None:
    name = b"/p/\xff\x1b[31m \xe9\xa5\xb0.png"
    output.show_path(os.fsdecode(name))
    assert capfdbinary.readouterr().out == name + b"\n"


def test_a_path_is_made_safe_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = Terminal()
    monkeypatch.setattr(sys, "stdout", stream)
    output.show_path("/p/\x1b[31mred\u202e.png")
    assert stream.getvalue() == "/p/red.png\n"


def test_remarks_go_to_stderr_unless_quiet(capsys: pytest.CaptureFixture[str]) -> None:
    output.note("careful\x1b[2J")
    output.note("silent", quiet=True)
    assert capsys.readouterr() == ("", "tipr: careful\n")


def test_paths_are_shown_relative_to_the_working_folder(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert output.short_path(str(tmp_path.resolve() / "a" / "b.png")) == "a/b.png"
    assert output.short_path(str(tmp_path.resolve()) + "-other/b.png") == str(tmp_path.resolve()) + "-other/b.png"


def test_progress_without_a_terminal_is_plain_lines_on_stderr(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = iter(range(0, 100, 4))
    monkeypatch.setattr(progress, "time", SimpleNamespace(monotonic=lambda: float(next(clock))))
    with progress.progress("indexing") as report:
        for done in range(1, 6):
            report(done, 5)
    out, err = capsys.readouterr()
    assert out == ""
    assert err.splitlines()[0].startswith("indexing: 3/5 images, ")
    assert err.splitlines()[0].endswith(" s left")
    assert err.splitlines()[-1].startswith("indexing: 5/5 images, ")
    assert "\x1b" not in err
    assert "\r" not in err


def test_progress_on_a_terminal_is_a_bar_with_rate_and_time_left(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = Terminal()
    monkeypatch.setattr(sys, "stderr", stream)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.setenv("NO_COLOR", "1")
    with progress.progress("indexing") as report:
        report(3, 4)
        report(4, 4)
    shown = stream.getvalue()
    assert "4/4" in shown
    assert "images/s" in shown
    assert "left" in shown
    assert "\x1b[3" not in shown  # no colours under NO_COLOR


@pytest.mark.parametrize("name", ["FORCE_COLOR", "TTY_COMPATIBLE"])
def test_a_pipe_gets_lines_whatever_the_environment_says(
    name: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, "1")
    with progress.progress("training", unit="steps") as report:
        report(2, 2)
    err = capsys.readouterr().err
    assert err.startswith("training: 2/2 steps, ")
    assert "\x1b" not in err


def test_a_long_run_leaves_a_short_log(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    seconds = iter(range(100_000))
    monkeypatch.setattr(progress, "time", SimpleNamespace(monotonic=lambda: float(next(seconds))))
    with progress.progress("training", unit="steps") as report:
        for done in range(36_000):
            report(done, 36_000)
    lines = capsys.readouterr().err.splitlines()
    assert 60 < len(lines) < 200  # ten hours


def test_quiet_draws_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    with progress.progress("indexing", quiet=True) as report:
        report(1, 1)
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize("terminal", [True, False])
def test_the_prompt_never_goes_into_a_pipe(
    terminal: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    text = "red coat\n"
    monkeypatch.setattr(sys, "stdin", Terminal(text) if terminal else io.StringIO(text))
    assert search._ask() == text
    out, err = capsys.readouterr()
    assert out == ""
    assert err == ("description> " if terminal else "")


def test_the_prompt_of_a_terminal_ends_with_the_input(monkeypatch: pytest.MonkeyPatch) -> None:
    answers = iter(["red coat"])

    def ask(prompt: str) -> str:
        assert prompt == "description> "
        try:
            return next(answers)
        except StopIteration:
            raise EOFError from None

    monkeypatch.setattr("builtins.input", ask)
    monkeypatch.setattr(sys, "stdin", Terminal())
    monkeypatch.setattr(sys, "stdout", Terminal())
    assert [search._ask(), search._ask()] == ["red coat", ""]
