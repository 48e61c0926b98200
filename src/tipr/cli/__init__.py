"""The `tipr` command: a lazy group, so that `tipr --help` imports no command and no heavy package."""

from __future__ import annotations

import importlib
import keyword
import os
import sys
from typing import Any

import click

from tipr.errors import ConfigError, GalleryCorrupt, TiprError

DONE = 0
"""Everything asked for was done."""
RUN_TIME_ERROR = 1
"""The command could not finish."""
USAGE = 2
"""A flag, an argument or a configuration value is wrong."""
SKIPPED = 3
"""Done, with some items skipped and listed."""
DAMAGED = 5
"""Data on disk are damaged."""
INTERRUPTED = 130
"""Stopped by Ctrl-C; the command that resumes was printed."""

COMMANDS = {
    "demo": "Render people, index them, search in four languages, write a report.",
    "search": "Find people in a gallery by a description in words.",
    "index": "Create, fill, inspect or trim a gallery.",
    "erase": "Remove a person from a gallery, for good and with a certificate.",
    "retain": "Keep the pictures of a gallery no longer than a limit.",
    "hold": "Keep pictures of a gallery from being erased, for a reason and until a day.",
    "train": "Train a model from one configuration file.",
    "evaluate": "Score a model on a split: R@k, mAP, mINP per language.",
    "ablate": "Train the settings of an ablation with several seeds, and compare them.",
    "reproduce": "Run a published recipe from the data check to the comparison.",
    "compare": "Put runs beside published figures, and beside each other.",
    "report": "Write a training run as one HTML file: curves, scores, searches, where words look.",
    "analyse": "Look into a run: how true the relations were that it took for granted.",
    "translate": "Put the captions of a data set into other languages.",
    "data": "Make and check data sets.",
    "encode": "Write the features of texts or images to a NumPy file.",
    "import": "Make a model folder from published weights.",
    "doctor": "See what is here, and what a configuration needs before it starts.",
}


EPILOG = (
    "--debug with any command shows where an error comes from. Exit codes: 0 done; 1 run-time error; 2 usage or "
    "configuration; 3 done, with skipped items listed; 5 damaged data; 130 interrupted."
)


class LazyGroup(click.Group):
    """Imports `tipr.cli.<name>` only when that command runs; help is printed from `COMMANDS`."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        if name not in COMMANDS:
            return None
        module = f"{name}_" if keyword.iskeyword(name) else name
        command: click.Command = importlib.import_module(f"tipr.cli.{module}").command
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))


@click.group(
    cls=LazyGroup, epilog=EPILOG, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100}
)
@click.version_option(package_name="tipr", prog_name="tipr")
def root() -> None:
    """Describe a person in words, in English, Chinese, French or German, and find them in a gallery of images."""


def exit_code(error: BaseException) -> int:
    """The exit code of an error, by the one table above."""
    if isinstance(error, KeyboardInterrupt):
        return INTERRUPTED
    if isinstance(error, click.UsageError | ConfigError):
        return USAGE
    if isinstance(error, GalleryCorrupt):
        return DAMAGED
    return RUN_TIME_ERROR


def main(arguments: list[str] | None = None) -> None:
    """Run a command; one line on stderr and the exit code of the table on an error."""
    arguments = sys.argv[1:] if arguments is None else arguments
    debug = "--debug" in arguments or bool(os.environ.get("TIPR_DEBUG"))
    arguments = [argument for argument in arguments if argument != "--debug"]
    for stream in (sys.stdout, sys.stderr):
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure is not None:  # a terminal that cannot show Chinese shows escapes instead of failing
            reconfigure(errors="backslashreplace")
    try:
        result: Any = root.main(args=arguments, prog_name="tipr", standalone_mode=False)
        sys.exit(result if isinstance(result, int) else DONE)
    except click.exceptions.Exit as stop:
        sys.exit(stop.exit_code)
    except (KeyboardInterrupt, click.Abort):
        if debug:
            raise
        sys.exit(INTERRUPTED)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(DONE)
    except click.ClickException as error:
        if debug:
            raise
        _complain(error.format_message())
        sys.exit(exit_code(error))
    except (TiprError, OSError) as error:
        if debug:
            raise
        _complain(_message(error))
        sys.exit(exit_code(error))


def _message(error: TiprError | OSError) -> str:
    if isinstance(error, OSError) and error.filename and error.strerror:
        return f"{error.filename}: {error.strerror}"  # without the number that Python puts before it
    return str(error)


def _complain(message: str) -> None:
    from tipr.cli.output import safe

    print(f"tipr: {safe(' '.join(message.split()))}", file=sys.stderr)
