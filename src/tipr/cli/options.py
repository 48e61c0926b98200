"""Flags that several commands share, as decorators, so that they are spelled and explained once."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click

Command = TypeVar("Command", bound=Callable[..., Any])

device = click.option(
    "--device", default="cpu", show_default=True, metavar="NAME", help="Where the model runs: cpu, cuda, cuda:1."
)
"""`device: str`."""

threads = click.option("--threads", type=click.IntRange(min=1), metavar="N", help="CPU threads to use; all by default.")
"""`threads: int | None`."""

quiet = click.option("--quiet", "-q", is_flag=True, help="No progress and no notes on stderr; errors stay.")
"""`quiet: bool`."""

json = click.option("--json", "as_json", is_flag=True, help="Print the result as JSON on stdout.")
"""`as_json: bool`."""


def common(command: Command) -> Command:
    """The four common flags: `--device --threads --quiet --json`, passed as `device, threads, quiet, as_json`."""
    for option in (json, quiet, threads, device):  # the last applied is listed first
        command = option(command)
    return command
