"""Progress on stderr: a bar with rate and time left on a terminal, a plain line now and then elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console

Report = Callable[[int, int], None]
"""Called with (done, total); total may grow."""

LINE_EVERY = 10.0
"""Seconds between plain lines where stderr is not a terminal, at first; later a twentieth of the time gone by, so that
the log of a long run stays readable."""
REDRAWS = 4.0
"""Times a second that a bar is drawn anew at most: enough to look alive, little enough for a slow line."""


@contextmanager
def progress(title: str, *, quiet: bool = False, unit: str = "images") -> Iterator[Report]:
    """Draw the progress of one long function.

    Args:
        title: what is being done, such as "indexing".
        quiet: draw nothing.
        unit: what is counted, in the plural.

    Yields:
        The function to pass as `progress=`; it is cheap and may be called for every item.
    """
    if quiet:
        yield lambda done, total: None
        return
    from rich.console import Console

    console = Console(stderr=True, highlight=False)
    # asked of stderr itself: rich takes a pipe for a terminal when FORCE_COLOR is set, as build services do
    moving = sys.stderr.isatty() and console.is_interactive and not console.is_dumb_terminal
    with _bar(console, title, unit) if moving else _lines(title, unit) as report:
        yield report


@contextmanager
def _bar(console: Console, title: str, unit: str) -> Iterator[Report]:
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=None),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}", markup=False),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
    )
    start = time.monotonic()
    with Progress(*columns, console=console, refresh_per_second=REDRAWS) as bar:
        task = bar.add_task(title, total=None, rate="")

        def report(done: int, total: int) -> None:
            rate = _rate(done, time.monotonic() - start, unit)
            bar.update(task, completed=done, total=max(total, done), rate=rate)

        yield report


@contextmanager
def _lines(title: str, unit: str) -> Iterator[Report]:
    start = last = time.monotonic()
    state = (0, 0)
    shown = -1

    def line() -> None:
        nonlocal shown
        done, total = state
        seconds = time.monotonic() - start
        left = f", {seconds / done * (total - done):.0f} s left" if 0 < done < total else ""
        print(f"{title}: {done}/{total} {unit}, {_rate(done, seconds, unit)}{left}", file=sys.stderr, flush=True)
        shown = done

    def report(done: int, total: int) -> None:
        nonlocal last, state
        state = (done, max(total, done))
        now = time.monotonic()
        if now - last >= max(LINE_EVERY, (now - start) / 20):
            last = now
            line()

    yield report
    if state[1] and shown != state[0]:
        line()


def _rate(done: int, seconds: float, unit: str) -> str:
    rate = done / seconds if seconds > 0 else 0.0
    return f"{rate:.0f} {unit}/s" if rate >= 10 else f"{rate:.1f} {unit}/s"
