"""`tipr train`: one configuration file becomes one run folder."""

from __future__ import annotations

import json
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click
from click.core import ParameterSource

from tipr.cli import options

if TYPE_CHECKING:
    from tipr.training import RunConfig, TrainResult


@click.command("train")
@click.argument("config", type=click.Path(path_type=Path, dir_okay=False), required=False)
@click.argument("overrides", nargs=-1, metavar="[KEY=VALUE]...")
@click.option("--out", type=click.Path(path_type=Path, file_okay=False), metavar="RUN", help="The run folder to make.")
@click.option(
    "--resume", type=click.Path(path_type=Path, file_okay=False), metavar="RUN", help="Go on with a stopped run."
)
@options.common
@click.pass_context
def command(
    context: click.Context,
    *,
    config: Path | None,
    overrides: tuple[str, ...],
    out: Path | None,
    resume: Path | None,
    device: str,
    threads: int | None,
    quiet: bool,
    as_json: bool,
) -> None:
    """Train a model from the YAML file CONFIG; KEY=VALUE replaces one of its values, such as optimizer.lr=1e-4.

    The run folder gets config.yaml, environment.json, metrics.jsonl, tb/ (TensorBoard), checkpoints/, best/, last/ and
    card.md. Without --device the configuration decides.
    """
    from tipr.cli.progress import progress
    from tipr.training import train

    moved: list[str] = []
    if context.get_parameter_source("device") is not ParameterSource.DEFAULT:
        moved.append(f"device={json.dumps(device)}")
    if threads is not None:
        moved.append(f"threads={threads}")
    settings = _settings(config, overrides, out, resume, moved)

    def note(text: str) -> None:
        if not quiet:
            print(text, file=sys.stderr, flush=True)

    try:
        with progress("training", quiet=quiet, unit="steps") as report:
            result = train(settings, resume=resume is not None, progress=report, note=note)
    except KeyboardInterrupt:
        if any(settings.out.glob("checkpoints/step-*.pt")):
            print(f"\nstopped; to go on:  tipr train --resume {shlex.quote(str(settings.out))}", file=sys.stderr)
        raise
    _print(result, as_json)


def _settings(
    config: Path | None, overrides: tuple[str, ...], out: Path | None, resume: Path | None, moved: list[str]
) -> RunConfig:
    from tipr import config as configuration
    from tipr.training import RunConfig, load_config

    if resume is not None:
        if config is not None or overrides or out is not None:
            raise click.UsageError("--resume takes the run's own configuration: no CONFIG, KEY=VALUE or --out with it")
        return load_config(resume, overrides=moved)
    if config is None:
        raise click.UsageError("give a CONFIG, such as configs/irra/synthetic.yaml, or --resume RUN")
    place = [] if out is None else [f"out={json.dumps(str(out))}"]
    return configuration.load(config, RunConfig, overrides=[*overrides, *moved, *place])


def _print(result: TrainResult, as_json: bool) -> None:
    if as_json:
        content = {
            "run": str(result.folder),
            "steps": result.steps,
            "minutes": round(result.minutes, 2),
            "stopped": result.stopped,
            "best": {"epoch": result.best_epoch, "scores": result.best_scores},
            "last": {"epoch": result.last_epoch, "scores": result.last_scores},
        }
        print(json.dumps(content))
        return
    early = f", stopped by {result.stopped}" if result.stopped else ""
    print(f"{result.folder}: {result.steps:,} steps in {result.minutes:.1f} minutes{early}")
    for name, epoch, scores in (
        ("best", result.best_epoch, result.best_scores),
        ("last", result.last_epoch, result.last_scores),
    ):
        if scores is not None:
            values = "  ".join(f"{key} {value:.2f}" for key, value in scores["mean"].items())
            print(f"  {name}/ (epoch {epoch}): {values}")
