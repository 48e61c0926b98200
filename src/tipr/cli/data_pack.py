"""`tipr data pack`: the images of a data set decoded once, for training that never waits for them."""

from __future__ import annotations

import os
import shlex
import sys
from pathlib import Path

import click

from tipr.cli import DONE, SKIPPED, options, output
from tipr.cli.data_inspect import NAMES, reader_of


@click.command(epilog=NAMES, short_help="Decode all images once, for training.")
@click.argument("name")
@click.argument("root", type=click.Path(path_type=Path))
@click.argument("out", type=click.Path(path_type=Path, file_okay=False))
@click.option("--size", required=True, metavar="HxW", help="Pixels that the encoder takes, such as 384x128.")
@click.option(
    "--interpolation",
    type=click.Choice(["bilinear", "bicubic"]),
    default="bilinear",
    show_default=True,
    help="Resizing.",
)
@click.option("--workers", type=click.IntRange(min=1), metavar="N", help="Threads that decode; one per CPU core else.")
@options.quiet
@options.json
def pack(
    *,
    name: str,
    root: Path,
    out: Path,
    size: str,
    interpolation: str,
    workers: int | None,
    quiet: bool,
    as_json: bool,
) -> int:
    """Decode every image of the data set NAME in ROOT into OUT, at one size; `data.pack: OUT` in a run uses it.

    Training batches are the same with and without. Stopped, the same command goes on.
    """
    from tipr.cli.progress import progress
    from tipr.data.packing import pack_images
    from tipr.errors import DatasetError

    sides = size.lower().split("x")
    if len(sides) != 2 or not all(side.isdecimal() and int(side) for side in sides):
        raise click.UsageError(f"--size {size!r} is not of the form HEIGHTxWIDTH, such as 384x128")
    reading = reader_of(name).read(root)
    paths = list(dict.fromkeys(reading.folder / record.image for record in reading.records))
    if not paths:
        raise DatasetError(f"{root} names no images")
    try:
        with progress("decoding", quiet=quiet) as report:
            made = pack_images(
                paths,
                out,
                (int(sides[0]), int(sides[1])),
                root=root if root.is_dir() else root.parent,
                interpolation="bicubic" if interpolation == "bicubic" else "bilinear",
                threads=workers or len(os.sched_getaffinity(0)),
                progress=report,
            )
    except KeyboardInterrupt:
        print(f"\nstopped; to go on:  {shlex.join(['tipr', *sys.argv[1:]])}", file=sys.stderr)
        raise
    for path, reason in made.skipped:
        output.note(f"skipped {output.safe(path)}: {reason}")
    if as_json:
        facts = {"pack": str(made.folder), "images": made.images, "bytes": made.size_bytes}
        output.show(output.json_text({**facts, "skipped": [list(each) for each in made.skipped]}))
    else:
        output.show(f"{output.safe(out)}: {made.images:,} images, {made.size_bytes / 2**20:,.0f} MiB")
    return SKIPPED if made.skipped else DONE
