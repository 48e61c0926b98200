"""`tipr import`: foreign weights become a model folder."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import click

from tipr.cli import options


@click.command("import")
@click.argument("format")
@click.argument("file", type=click.Path(path_type=Path))
@click.argument("out", type=click.Path(path_type=Path, file_okay=False))
@click.option(
    "--config", type=click.Path(path_type=Path, dir_okay=False), metavar="YAML", help="What FILE cannot tell."
)
@click.option("--image-size", metavar="HxW", help="Pixels of the pictures, such as 384x128 (the default for CLIP).")
@click.option(
    "--vocabulary",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="The tokenizer's file; by default the one beside FILE.",
)
@click.option("--verify", is_flag=True, help="Read OUT back, compare every tensor, encode pictures and captions.")
@click.option("--download", is_flag=True, help="Fetch what is missing from its official place first.")
@click.option("--unconfined", is_flag=True, help="Read FILE even where the kernel cannot confine the reader.")
@options.quiet
@options.json
def command(
    *,
    format: str,
    file: Path,
    out: Path,
    config: Path | None,
    image_size: str | None,
    vocabulary: Path | None,
    verify: bool,
    download: bool,
    unconfined: bool,
    quiet: bool,
    as_json: bool,
) -> None:
    """Read the checkpoint FILE and write the model folder OUT.

    FORMAT is one of bi_irra, huggingface_clip, irra, open_clip, openai_clip, x2vlm. A child process without network,
    without the means to start programs or write files, and with bounded memory reads FILE; nothing in it is executed.
    """
    from tipr.importers import IMPORTERS
    from tipr.importers.model_folder import import_model

    if format not in IMPORTERS:
        raise click.UsageError(f"unknown FORMAT {format!r}: use one of {', '.join(sorted(IMPORTERS))}")
    digests = _complete(format, file, vocabulary, download=download, quiet=quiet)
    found = import_model(
        format,
        file,
        out,
        config=_settings(config, image_size),
        vocabulary=vocabulary,
        unconfined=unconfined,
        verify=verify,
    )
    if as_json:
        facts: dict[str, Any] = {**vars(found), "folder": str(found.folder), "file": str(found.file)}
        print(json.dumps({**facts, "downloaded": digests}))
        return
    height, width = found.image_size
    print(f"{out}: {found.parameters:,} parameters, pictures {height}x{width}, features of {found.embed_dim} numbers")
    print(f"  from {file}, SHA-256 {found.sha256}")
    for notice in found.notices:
        print(f"  note: {notice}")
    if verify:
        print(f"  verified: {found.verified} tensors read back bit by bit; pictures and captions encode")


def _settings(config: Path | None, image_size: str | None) -> dict[str, Any] | Path | None:
    """Settings of the importer.

    Raises:
        click.UsageError: the size is not HxW, or given twice.
    """
    if image_size is None:
        return config
    sides = image_size.lower().split("x")
    if len(sides) != 2 or not all(side.isdecimal() and int(side) for side in sides):
        raise click.UsageError(f"--image-size {image_size!r} is not of the form HEIGHTxWIDTH, such as 384x128")
    if config is not None:
        raise click.UsageError("give image_size in --config or as --image-size, not both")
    return {"image_size": [int(side) for side in sides]}


def _complete(format: str, file: Path, vocabulary: Path | None, *, download: bool, quiet: bool) -> dict[str, str]:
    """See that the checkpoint is there; fetch it and its vocabulary when that was asked for.

    Returns:
        name -> SHA-256 of what was fetched.

    Raises:
        WeightsError: the checkpoint is missing and was not to be fetched, or could not be.
    """
    from tipr.cli.progress import progress
    from tipr.errors import WeightsError
    from tipr.importers.model_folder import vocabulary_of
    from tipr.importers.official import fetch, official_file, where_to_get

    digests = {}
    for official, path in ((official_file(format, file), file), vocabulary_of(format, file, vocabulary)):
        if path.exists():
            continue
        if not download:
            raise WeightsError(where_to_get(official, path))
        if official.url is not None and not quiet:
            print(f"fetching {official.url} to {path}", file=sys.stderr, flush=True)
        with progress(f"fetching {official.name}", quiet=quiet, unit="bytes") as report:
            digests[official.name] = fetch(official, path, progress=report)
        if official.sha256 is None and not quiet:
            print(f"{official.name}: SHA-256 {digests[official.name]}; its makers publish none", file=sys.stderr)
    return digests
