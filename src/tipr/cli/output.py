"""What goes to stdout and stderr. Text that came from files, names or queries is made harmless for a terminal first."""

from __future__ import annotations

import json
import os
import re
import sys
import unicodedata
from collections.abc import Mapping, Sequence
from typing import Any, TextIO

import click

NOT_AN_IDENTIFICATION = "similar appearance, not an identification"
"""Stands with every list of results."""

_SEQUENCES = re.compile(
    r"(?:\x1b\[|\x9b)[0-?]*[ -/]*[@-~]?"  # control sequences: colours, cursor, erasing
    r"|(?:\x1b[\]PX^_]|[\x90\x98\x9d-\x9f])[^\x07\x1b\x9c]*(?:\x07|\x1b\\|\x9c)?"  # strings: titles, links, clipboard
    r"|\x1b[ -/]*[0-~]?"
)
_KEPT_FORMAT = "\u200c\u200d"  # joiners: Persian, Indic scripts and emoji need them


def safe(text: object) -> str:
    """One line fit for a terminal: no escape sequences, no control characters, no invisible or reordering signs.

    A control character becomes a blank, so that words stay apart; halves of broken UTF-8 become U+FFFD.
    """
    kept = []
    for sign in _SEQUENCES.sub("", str(text)):
        kind = unicodedata.category(sign)
        if kind in ("Cc", "Zl", "Zp"):
            kept.append(" ")
        elif kind == "Cs":
            kept.append("\N{REPLACEMENT CHARACTER}")
        elif kind != "Cf" or sign in _KEPT_FORMAT:
            kept.append(sign)
    return "".join(kept).strip()


def json_text(value: Any, *, indent: int | None = 2) -> str:
    """JSON with readable letters of all scripts; signs that a terminal would obey are written as escapes."""
    text = json.dumps(value, ensure_ascii=False, indent=indent, default=_plain)
    return "".join(sign if sign == "\n" or _is_text(sign) else _escape(sign) for sign in text)


def show(text: str = "") -> None:
    """One line of the result on stdout; make foreign text `safe` before."""
    click.echo(text, color=colours(sys.stdout))


def note(text: str, *, quiet: bool = False) -> None:
    """A remark on stderr."""
    if not quiet:
        click.echo(f"tipr: {safe(text)}", err=True)


def show_path(path: str) -> None:
    """A path on stdout: byte for byte into a pipe or file, made safe on a terminal."""
    if sys.stdout.isatty():
        click.echo(safe(path))
    else:
        click.echo(os.fsencode(path))


def colours(stream: TextIO) -> bool:
    """Whether a stream takes colours: a terminal that is not dumb, and NO_COLOR is not set (no-color.org)."""
    return stream.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def columns(rows: Sequence[Sequence[str]], *, right: Sequence[int] = ()) -> list[str]:
    """Rows as aligned lines; Chinese counts as two places a sign.

    Args:
        rows: cells of safe text, all rows of one length.
        right: columns to align on the right.
    """
    from rich.cells import cell_len

    widths = [max((cell_len(cell) for cell in column), default=0) for column in zip(*rows, strict=True)]
    lines = []
    for row in rows:
        cells = []
        for place, (cell, width) in enumerate(zip(row, widths, strict=True)):
            blanks = " " * (width - cell_len(cell))
            cells.append(blanks + cell if place in right else cell + blanks)
        lines.append("  ".join(cells).rstrip())
    return lines


def short_path(path: str) -> str:
    """A path relative to the working folder when it lies below it."""
    try:
        here = os.path.join(os.path.realpath(os.curdir), "")
    except OSError:  # the working folder is gone
        return path
    return path[len(here) :] if path.startswith(here) else path


def _is_text(sign: str) -> bool:
    kind = unicodedata.category(sign)
    return sign in _KEPT_FORMAT or (kind[0] != "C" and kind not in ("Zl", "Zp"))


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return dict(value)
    if hasattr(value, "isoformat"):
        return value.isoformat()
    return str(value)


def _escape(sign: str) -> str:
    code = ord(sign)
    if code < 0x10000:
        return f"\\u{code:04x}"
    code -= 0x10000
    return f"\\u{0xD800 + (code >> 10):04x}\\u{0xDC00 + (code & 0x3FF):04x}"
