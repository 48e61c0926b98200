"""`tipr index`: make, fill, inspect, trim and speed up a gallery."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import click

from tipr.cli import DONE, SKIPPED, index_care, options

if TYPE_CHECKING:
    from tipr.gallery import Gallery, IngestReport

Command = TypeVar("Command", bound=Callable[..., Any])

DEMO_NOTE = (
    "the demo model was trained on rendered people and is not fit for real photographs; "
    "give --model PATH to use another one"
)

folder = click.argument("gallery", type=click.Path(path_type=Path))
pictures = click.argument("paths", nargs=-1, type=click.Path())


def sources(command: Command) -> Command:
    """The flags that say which pictures to add."""
    for option in (
        click.option("--camera", metavar="NAME", help="Camera of pictures that have none of their own."),
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


@click.group()
def command() -> None:
    """Create, fill, inspect, trim or look after a gallery."""


for care in index_care.COMMANDS:
    command.add_command(care)


@command.command()
@folder
@pictures
@click.option("--model", default="demo", show_default=True, metavar="PATH|demo", help="A model folder or a run folder.")
@click.option(
    "--durability",
    type=click.Choice(["process", "power"]),
    default="power",
    show_default=True,
    help="What an added picture survives: a killed process, or a power cut too.",
)
@click.option("--store-tokens", is_flag=True, help="Keep what `search --rerank` needs of each picture: quicker, large.")
@sources
@options.common
def create(
    gallery: Path,
    paths: tuple[str, ...],
    *,
    model: str,
    store_tokens: bool,
    durability: Literal["process", "power"],
    recursive: bool,
    manifests: tuple[str, ...],
    camera: str | None,
    device: str,
    threads: int | None,
    quiet: bool,
    as_json: bool,
) -> int:
    """Make GALLERY, and add PATHS (files, folders, manifests) when given.

    The gallery remembers its model, so that a search needs no flag.
    """
    from tipr.cli import output
    from tipr.gallery import Gallery

    made = Gallery.create(
        gallery, model, store_tokens=store_tokens, durability=durability, device=device, threads=threads
    )
    if model == "demo":
        output.note(DEMO_NOTE, quiet=quiet)
    if paths or manifests:
        return _fill(made, paths, recursive=recursive, manifests=manifests, camera=camera, quiet=quiet, as_json=as_json)
    _announce_tokens(made, None, quiet)
    if as_json:
        output.show(output.json_text({"gallery": str(gallery), "model": made.model}))
    else:
        output.show(f"made gallery {output.safe(gallery)} for model {output.safe(made.model)}")
    return DONE


@command.command()
@folder
@pictures
@click.option("--model", metavar="PATH", help="Where the gallery's model lies now, when it was moved.")
@sources
@options.common
def add(
    gallery: Path,
    paths: tuple[str, ...],
    *,
    model: str | None,
    recursive: bool,
    manifests: tuple[str, ...],
    camera: str | None,
    device: str,
    threads: int | None,
    quiet: bool,
    as_json: bool,
) -> int:
    """Add PATHS (image files, folders, manifests) to GALLERY.

    Pictures should be crops of single persons. What is there already is passed over, so that a stopped run is continued
    by the same command. Files that cannot be used are listed, and the exit code is 3.
    """
    from tipr.gallery import Gallery

    if not paths and not manifests:
        raise click.UsageError("nothing to add: name files, folders or --manifest FILE")
    opened = Gallery.open(gallery, model=model, device=device, threads=threads)
    return _fill(opened, paths, recursive=recursive, manifests=manifests, camera=camera, quiet=quiet, as_json=as_json)


@command.command()
@folder
@options.quiet
@options.json
def info(gallery: Path, quiet: bool, as_json: bool) -> int:
    """Say what GALLERY holds."""
    from tipr.cli import output
    from tipr.gallery import Gallery

    facts = Gallery.open(gallery).info()
    if as_json:
        cameras = [{"camera": name, "count": count} for name, count in facts.cameras.items()]
        output.show(output.json_text({**asdict(facts), "cameras": cameras}))
        return DONE
    rows = [
        ["pictures", f"{facts.count:,}"],
        ["people", f"{facts.people:,} (as far as identities are known)" if facts.people else "identities not known"],
        *(
            ["camera" if place == 0 else "", f"{output.safe(name) if name is not None else '(none)'}: {count:,}"]
            for place, (name, count) in enumerate(facts.cameras.items())
        ),
        *([["time", f"{facts.first:%Y-%m-%d %H:%M} to {facts.last:%Y-%m-%d %H:%M} UTC"]] if facts.first else []),
        ["model", f"{output.safe(facts.model)}  {facts.fingerprint[:12]}, {facts.dim} numbers a picture"],
        *(
            [["tokens", f"{facts.token_bytes / 1e3:,.1f} KB a picture, kept for reranking"]]
            if facts.token_bytes
            else []
        ),
        ["made", output.safe(facts.created)],
        ["on disk", f"{facts.bytes / 1e6:,.1f} MB in {_pieces(facts.fragments, facts.versions)}"],
        *([["on hold", f"{facts.held:,} of the pictures; `tipr hold` lists the holds"]] if facts.held else []),
        *([["erased", f"{facts.tombstones:,} marks keep erased pictures away"]] if facts.tombstones else []),
        *(
            [["erasure", "one was stopped half-way; the next command that writes completes it"]]
            if facts.erasing
            else []
        ),
    ]
    for line in output.columns(rows):
        output.show(line)
    return DONE


@command.command()
@folder
@click.argument("paths", nargs=-1, type=click.Path())
@click.option("--id", "ids", multiple=True, type=int, metavar="N", help="Remove the row with this id.")
@options.quiet
@options.json
def remove(gallery: Path, paths: tuple[str, ...], ids: tuple[int, ...], quiet: bool, as_json: bool) -> int:
    """Erase the pictures made from the files PATHS, or rows by --id, from GALLERY.

    No byte of them stays in the gallery's files; the picture files themselves are not touched. They can be added again,
    unlike what `tipr erase` takes.
    """
    from tipr.cli import output
    from tipr.gallery import Gallery

    if not paths and not ids:
        raise click.UsageError("nothing to remove: name files or --id N")
    removed = Gallery.open(gallery).remove([*ids, *paths])
    if as_json:
        output.show(output.json_text({"gallery": str(gallery), "removed": removed}))
    else:
        output.show(f"removed {removed:,} of the gallery's pictures")
    return DONE


@command.command()
@folder
@options.quiet
@options.json
def compact(gallery: Path, quiet: bool, as_json: bool) -> int:
    """Merge the small pieces that many additions leave in GALLERY, and drop old versions.

    `index add` does so by itself once there are many. Readers go on meanwhile; versions of the last two minutes stay
    for them.
    """
    from tipr.cli import output
    from tipr.gallery import Gallery

    before, after = Gallery.open(gallery).compact()
    if as_json:
        output.show(output.json_text({"gallery": str(gallery), "before": asdict(before), "after": asdict(after)}))
    else:
        pieces = [_pieces(state.fragments, state.versions) for state in (before, after)]
        output.show(f"{output.safe(gallery)}: {pieces[0]}; now {pieces[1]}")
    return DONE


@command.command()
@folder
@options.quiet
@options.json
def approximate(gallery: Path, quiet: bool, as_json: bool) -> int:
    """Build an index of GALLERY, for `search --approximate`: about a minute for a million pictures.

    Pictures that are added later are found as well. An erasure takes the index away, because it holds every vector
    once more: build it anew then.
    """
    from tipr.cli import output
    from tipr.gallery import Gallery

    opened = Gallery.open(gallery)
    output.note("building the index ...", quiet=quiet)
    opened.index()
    if as_json:
        output.show(output.json_text({"gallery": str(gallery), "indexed": len(opened)}))
    else:
        output.show(f"{output.safe(gallery)}: an index of {len(opened):,} pictures")
    return DONE


def _pieces(fragments: int, versions: int) -> str:
    return f"{fragments:,} fragment{'' if fragments == 1 else 's'}, {versions:,} version{'' if versions == 1 else 's'}"


def _fill(
    gallery: Gallery,
    paths: tuple[str, ...],
    *,
    recursive: bool,
    manifests: tuple[str, ...],
    camera: str | None,
    quiet: bool,
    as_json: bool,
) -> int:
    from tipr.cli import output
    from tipr.cli.progress import progress
    from tipr.gallery.ingest import folders_inside, list_entries

    if gallery.token_bytes:
        entries, _ = list_entries(paths, recursive=recursive, manifests=manifests)
        _announce_tokens(gallery, len(entries), quiet)
    with _resumable(gallery.path), progress("indexing", quiet=quiet) as report:
        done = gallery.add(paths, recursive=recursive, manifest=manifests, camera=camera, progress=report)
    if as_json:
        output.show(output.json_text({"gallery": str(gallery.path), **asdict(done)}))
    else:
        _tell(done, gallery)
    if done.wide_images:
        output.note(
            f"{done.wide_images:,} of {done.added:,} added pictures are wider than 0.8 of their height: "
            "crops of single standing persons are expected",
            quiet=quiet,
        )
    if not recursive and done.added + done.unchanged and (left := folders_inside(paths)):
        output.note(f"folders inside that were not entered: {left:,}; --recursive enters them", quiet=quiet)
    return SKIPPED if done.skipped else DONE


def _announce_tokens(gallery: Gallery, pictures: int | None, quiet: bool) -> None:
    """Say how much disk the image tokens will take, before any is made."""
    from tipr.cli import output

    if not gallery.token_bytes:
        return
    each = f"image tokens for reranking take {gallery.token_bytes / 1e3:,.1f} KB a picture"
    total = "" if pictures is None else f", {pictures * gallery.token_bytes / 1e6:,.1f} MB for {pictures:,} pictures"
    output.note(each + total, quiet=quiet)


def _tell(done: IngestReport, gallery: Gallery) -> None:
    from tipr.cli import output

    parts = [f"added {done.added:,}", f"already there {done.unchanged:,}"]
    parts += [f"replaced {done.replaced:,}"] if done.replaced else []
    parts += [f"skipped {len(done.skipped):,}"] if done.skipped else []
    parts += [f"kept out {done.refused:,} that were erased before"] if done.refused else []
    output.show(f"{output.safe(gallery.path)}: {', '.join(parts)}; {len(gallery):,} pictures in all")
    for item in done.skipped:
        output.show(f"  skipped {output.safe(item.path)}: {output.safe(item.reason)}; {output.safe(item.hint)}")


@contextmanager
def _resumable(gallery: Path) -> Iterator[None]:
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
