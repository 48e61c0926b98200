"""`tipr data`: make, check and convert data sets."""

from __future__ import annotations

import json
import os
import shlex
import sys
from pathlib import Path
from typing import Any

import click

from tipr.cli import options
from tipr.cli.data_inspect import check, import_, stats
from tipr.cli.data_list import list_
from tipr.cli.data_pack import pack


@click.group("data")
def command() -> None:
    """Make, check and convert data sets."""


class Counts(click.ParamType[tuple[int, ...]]):
    """Numbers joined by a sign, such as 2000/200/400."""

    def __init__(self, names: tuple[str, ...], sign: str) -> None:
        self.names, self.sign = names, sign
        self.name = sign.join(names)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[int, ...]:
        if isinstance(value, tuple):
            return value
        parts = str(value).lower().split(self.sign)
        if len(parts) != len(self.names) or not all(part.isdecimal() for part in parts):
            self.fail(f"{value!r} is not of the form {self.name}", param, ctx)
        return tuple(int(part) for part in parts)


@command.command(short_help="Render a set of people who do not exist.")
@click.argument("out", type=click.Path(path_type=Path, file_okay=False))
@click.option("--preset", default="tiny", show_default=True, metavar="NAME", help="demo, tiny, standard or large.")
@click.option("--identities", type=Counts(("TRAIN", "VAL", "TEST"), "/"), help="People in each split.")
@click.option("--images", type=int, metavar="N", help="Pictures of each person.")
@click.option("--cameras", type=int, metavar="N", help="Cameras that take part, up to 8.")
@click.option("--hard", type=float, metavar="SHARE", help="Share of people who differ from another in one thing only.")
@click.option("--difficulty", type=float, metavar="X", help="0 = studio, 1 = standard, 1.5 = hardest.")
@click.option("--size", type=Counts(("WIDTH", "HEIGHT"), "x"), help="Picture size in pixels.")
@click.option("--languages", metavar="LIST", help="Languages of the captions, such as en,zh.")
@click.option("--seed", type=int, metavar="N", help="Another seed makes other people.")
@click.option("--workers", type=click.IntRange(min=1), metavar="N", help="Processes; one per CPU core by default.")
@options.quiet
@options.json
def synth(
    *, out: Path, preset: str, languages: str | None, workers: int | None, quiet: bool, as_json: bool, **knobs: Any
) -> None:
    """Render a set of people who do not exist, with captions in four languages, into the folder OUT.

    What is not given is as in the preset. A stopped run continues when the same command is given again.
    """
    from tipr.cli.progress import progress
    from tipr.data.synthetic.benchmark import build, read_info
    from tipr.data.synthetic.presets import knobs_of

    size = knobs.pop("size")
    if size is not None:
        knobs["width"], knobs["height"] = size
    if languages is not None:
        knobs["languages"] = tuple(part.strip() for part in languages.split(",") if part.strip())
    chosen = knobs_of(preset, knobs)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    # a second process costs more to start than it saves on a handful of pictures
    processes = workers or (cores if chosen.image_count >= 200 else 1)
    try:
        with progress(f"rendering {preset}", quiet=quiet) as report:
            made = build(out, chosen, workers=processes, progress=report)
    except KeyboardInterrupt:
        print(f"stopped; continue with:  {shlex.join(['tipr', *sys.argv[1:]])}", file=sys.stderr)
        raise
    if as_json:
        click.echo(json.dumps({"path": str(made.path), "built": made.built, **read_info(made.path)}, indent=2))
        return
    click.echo(f"{made.path}: {'made' if made.built else 'already there'}, {chosen.image_count:,} images")
    click.echo(f"SHA-256 of the manifest: {made.manifest_sha256}")
    if made.reference is not None:
        r = made.reference
        click.echo(
            f"reference reader, {r.gallery:,} test images: R@1 {r.recall_1:.1f}  R@5 {r.recall_5:.1f}  "
            f"R@10 {r.recall_10:.1f}  mAP {r.mean_ap:.1f}  mINP {r.mean_inp:.1f}  (chance R@1 {r.chance_recall_1:.2f})"
        )


for part in (list_, check, stats, import_, pack):
    command.add_command(part)
