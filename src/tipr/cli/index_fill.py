"""What `tipr index create|add|sync` have in common, and `tipr index sync`: pictures come into a gallery."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from tipr.cli import DONE, SKIPPED, options

if TYPE_CHECKING:
    from tipr.gallery import Gallery, IngestReport

Command = TypeVar("Command", bound=Callable[..., Any])

SHOWN = 20
"""Skipped files that are printed; all of them are in the report."""

camera_option = click.option("--camera", metavar="NAME", help="Camera of pictures that have none of their own.")
pattern_option = click.option(
    "--pattern",
    metavar="FORM",
    help="What the paths say, such as '{camera}/{time:%Y%m%d}/{track}.jpg'; files of another form are skipped.",
)


def sources(command: Command) -> Command:
    """The flags that say which pictures to add."""
    for option in (
        pattern_option,
        camera_option,
        click.option(
            "--manifest",
            "manifests",
            multiple=True,
            type=click.Path(),
            metavar="FILE",
            help="Add what a manifest lists.",
        ),
        click.option("--recursive", "-r", is_flag=True, help="Descend into folders."),
    ):
        command = option(command)
    return command


@click.command()
@click.argument("gallery", type=click.Path(path_type=Path))
@click.argument("folder", type=click.Path())
@click.option("--model", metavar="PATH", help="Where the gallery's model lies now, when it was moved.")
@pattern_option
@camera_option
@options.common
def sync(
    gallery: Path,
    folder: str,
    *,
    model: str | None,
    camera: str | None,
    pattern: str | None,
    device: str,
    threads: int | None,
    quiet: bool,
    as_json: bool,
) -> int:
    """Make GALLERY follow FOLDER and all below it.

    New and changed files are indexed, moved ones keep what is known of them, and pictures whose file is gone go too.
    Pictures from elsewhere stay. A stopped run is continued by the same command.
    """
    from tipr.cli.progress import progress
    from tipr.gallery import Gallery

    opened = Gallery.open(gallery, model=model, device=device, threads=threads)
    with resumable(gallery), progress("indexing", quiet=quiet) as report:
        done = opened.sync(folder, camera=camera, pattern=pattern, progress=report)
    _tell(done, opened, quiet=quiet, as_json=as_json)
    return SKIPPED if done.skipped else DONE


COMMANDS = (sync,)
"""Further commands of `tipr index`."""


def fill(
    gallery: Gallery,
    paths: tuple[str, ...],
    *,
    recursive: bool,
    manifests: tuple[str, ...],
    camera: str | None,
    pattern: str | None,
    quiet: bool,
    as_json: bool,
) -> int:
    """Add what the user named, and tell what was done; the exit code."""
    from tipr.cli import output
    from tipr.cli.progress import progress
    from tipr.gallery.ingest import folders_inside, list_entries

    if gallery.token_bytes:
        entries, _ = list_entries(paths, recursive=recursive, manifests=manifests)
        announce_tokens(gallery, len(entries), quiet)
    with resumable(gallery.path), progress("indexing", quiet=quiet) as report:
        done = gallery.add(
            paths, recursive=recursive, manifest=manifests, camera=camera, pattern=pattern, progress=report
        )
    _tell(done, gallery, quiet=quiet, as_json=as_json)
    if not recursive and done.added + done.unchanged and (left := folders_inside(paths)):
        output.note(f"folders inside that were not entered: {left:,}; --recursive enters them", quiet=quiet)
    return SKIPPED if done.skipped else DONE


def announce_tokens(gallery: Gallery, pictures: int | None, quiet: bool) -> None:
    """Say how much disk the image tokens will take, before any is made."""
    from tipr.cli import output

    if not gallery.token_bytes:
        return
    each = f"image tokens for reranking take {gallery.token_bytes / 1e3:,.1f} KB a picture"
    total = "" if pictures is None else f", {pictures * gallery.token_bytes / 1e6:,.1f} MB for {pictures:,} pictures"
    output.note(each + total, quiet=quiet)


def _tell(done: IngestReport, gallery: Gallery, *, quiet: bool, as_json: bool) -> None:
    from tipr.cli import output

    if as_json:
        output.show(output.json_text({"gallery": str(gallery.path), **asdict(done)}))
    else:
        moved = f" ({done.moved:,} moved)" if done.moved else ""
        parts = [f"indexed {done.added:,}{moved}", f"unchanged {done.unchanged:,}", f"skipped {len(done.skipped):,}"]
        parts += [f"replaced {done.replaced:,}"] if done.replaced else []
        parts += [f"vanished {done.vanished:,}"] if done.vanished else []
        parts += [f"kept out {done.refused:,} that were erased before"] if done.refused else []
        output.show(f"{output.safe(gallery.path)}: {', '.join(parts)}; {len(gallery):,} pictures in all")
        for item in done.skipped[:SHOWN]:
            output.show(f"  skipped {output.safe(item.path)}: {output.safe(item.reason)}; {output.safe(item.hint)}")
        if len(done.skipped) > SHOWN:
            output.show(f"  and {len(done.skipped) - SHOWN:,} more")
        if done.skip_report:
            output.show(f"  the skipped are listed in {output.safe(done.skip_report)}")
    if done.wide_images:
        output.note(
            f"{done.wide_images:,} of {done.added:,} added pictures are wider than 0.8 of their height: "
            "crops of single standing persons are expected",
            quiet=quiet,
        )


@contextmanager
def resumable(gallery: Path) -> Iterator[None]:
    """Print the command that continues when the user stops the run."""
    try:
        yield
    except KeyboardInterrupt:
        arguments = sys.argv[1:]
        if arguments[:2] == ["index", "create"]:
            arguments[1] = "add"  # the gallery is there now
        again = shlex.join(["tipr", *arguments])
        click.echo(f"\nstopped; what was added to {gallery} stays. Continue with:\n  {again}", err=True)
        raise
