"""`tipr index`: make, fill, inspect, trim and speed up a gallery."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Literal

import click

from tipr.cli import DONE, index_care, index_fill, index_rebuild, options
from tipr.cli.index_fill import announce_tokens, fill, sources

DEMO_NOTE = (
    "the demo model was trained on rendered people and is not fit for real photographs; "
    "give --model PATH to use another one"
)

folder = click.argument("gallery", type=click.Path(path_type=Path))
pictures = click.argument("paths", nargs=-1, type=click.Path())


@click.group()
def command() -> None:
    """Create, fill, inspect, trim or look after a gallery."""


for other in (*index_fill.COMMANDS, index_rebuild.rebuild, *index_care.COMMANDS):
    command.add_command(other)


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
    pattern: str | None,
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
        return fill(
            made,
            paths,
            recursive=recursive,
            manifests=manifests,
            camera=camera,
            pattern=pattern,
            quiet=quiet,
            as_json=as_json,
        )
    announce_tokens(made, None, quiet)
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
    pattern: str | None,
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
    return fill(
        opened,
        paths,
        recursive=recursive,
        manifests=manifests,
        camera=camera,
        pattern=pattern,
        quiet=quiet,
        as_json=as_json,
    )


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
        kept = "; those of the last two minutes stay for readers" if after.versions > 1 else ""
        output.show(f"{output.safe(gallery)}: {pieces[0]}; now {pieces[1]}{kept}")
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
