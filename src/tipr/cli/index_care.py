"""`tipr index verify|backup|restore|export|upgrade`: look after a gallery."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

import click

from tipr.cli import DAMAGED, DONE, SKIPPED, options

folder = click.argument("gallery", type=click.Path(path_type=Path))


@click.command()
@folder
@click.option("--set-aside", is_flag=True, help="Move damaged files to GALLERY/set_aside; the rest can be used.")
@options.quiet
@options.json
def verify(gallery: Path, *, set_aside: bool, quiet: bool, as_json: bool) -> int:
    """Look for damage in GALLERY: flipped bits, truncation, missing files.

    Every file is compared with the digest that was noted when it was written. Nothing is deleted. The exit code is 5
    when something is damaged.
    """
    from tipr.cli import output
    from tipr.cli.progress import progress
    from tipr.gallery.verify import verify as look

    with progress("verifying", quiet=quiet, unit="bytes") as report:
        found = look(gallery, put_aside=set_aside, progress=report)
    if as_json:
        output.show(output.json_text({"gallery": str(gallery), **asdict(found), "rows_lost": found.rows_lost}))
        return DAMAGED if found.damages else DONE
    output.show(f"{output.safe(gallery)}: {found.files:,} files, {found.bytes / 1e6:,.1f} MB compared")
    for damage in found.damages:
        lost = "pictures that were added last may be lost" if damage.rows is None else f"{damage.rows:,} pictures lost"
        output.show(f"  {output.safe(damage.file)} {damage.problem}{f'; {lost}' if damage.rows != 0 else ''}")
    if found.unproven:
        output.note(
            f"{len(found.unproven):,} files have no digest, as when a process was killed or digests.jsonl lost its end",
            quiet=quiet,
        )
    for name in found.moved:
        output.show(f"  moved to {output.safe(name)}")
    if not found.damages:
        output.show("no damage found")
    elif not set_aside:
        output.show("nothing was changed; --set-aside takes damaged pieces out, so that the rest can be searched")
    elif found.rows_lost:
        output.show("the rest can be searched; add the pictures again with `tipr index add`")
    return DAMAGED if found.damages else DONE


@click.command()
@folder
@click.argument("target", type=click.Path(path_type=Path))
@options.quiet
@options.json
def backup(gallery: Path, target: Path, *, quiet: bool, as_json: bool) -> int:
    """Copy GALLERY to TARGET, a new folder; others may go on writing.

    A backup holds everyone who was in the gallery at that time: an erasure does not reach it.
    """
    from tipr.cli.progress import progress
    from tipr.gallery.backup import back_up

    with progress("copying", quiet=quiet, unit="bytes") as report:
        done = back_up(gallery, target, progress=report)
    return _told(as_json, "backed up", str(target), asdict(done))


@click.command()
@click.argument("source", metavar="BACKUP", type=click.Path(path_type=Path))
@folder
@click.option(
    "--erased-in", type=click.Path(path_type=Path), metavar="OTHER", help="Leave out who was erased from this gallery."
)
@click.option("--as-it-was", is_flag=True, help="Bring back also those who were erased since.")
@options.quiet
@options.json
def restore(source: Path, gallery: Path, *, erased_in: Path | None, as_it_was: bool, quiet: bool, as_json: bool) -> int:
    """Make GALLERY, a new folder, of BACKUP; a torn or damaged backup is refused.

    Who was erased since the backup is left out, as the gallery says that it was made of; when that lies elsewhere now,
    name it, or a later backup of it, with --erased-in. Pictures that a legal hold keeps are left, and the exit code is
    3.
    """
    from tipr.cli import output
    from tipr.cli.progress import progress
    from tipr.cli.review import pictures
    from tipr.gallery.backup import restore as put_back

    if erased_in is not None and as_it_was:
        raise click.UsageError("name only one of --erased-in and --as-it-was")
    with progress("copying", quiet=quiet, unit="bytes") as report:
        done = put_back(source, gallery, erased_in=erased_in, as_it_was=as_it_was, progress=report)
    facts = {"made": done.made, "erased_in": done.erased_in, "erased": done.erased, "on_hold": done.on_hold}
    there = {**asdict(done.copied), "pictures": done.copied.pictures - done.erased}
    _told(as_json, "restored", str(gallery), there, facts)
    if done.erased_in is not None:
        since = f"erased since the backup, as {output.safe(done.erased_in)} says"
        output.note(f"{since}, and left out: {pictures(done.erased)}", quiet=quiet)
        if done.on_hold:
            output.note(f"{since}, but kept by a legal hold of the backup: {pictures(done.on_hold)}", quiet=quiet)
    elif not as_it_was:
        click.echo(
            f"warning: whoever was erased after {done.made} is in {output.safe(gallery)} again, since the gallery that "
            f"this backup was made of is not at its place: tipr erase {output.safe(gallery)} --erased-in THAT_GALLERY",
            err=True,
        )
    return SKIPPED if done.on_hold else DONE


@click.command()
@folder
@click.argument("target", metavar="FILE", type=click.Path(path_type=Path))
@options.quiet
@options.json
def export(gallery: Path, target: Path, *, quiet: bool, as_json: bool) -> int:
    """Write what GALLERY knows of its pictures to FILE (.jsonl, .csv or .parquet); no vectors, no thumbnails."""
    from tipr.cli import output
    from tipr.gallery import Gallery

    count = Gallery.open(gallery).export(target)
    if as_json:
        output.show(output.json_text({"gallery": str(gallery), "file": str(target), "pictures": count}))
    else:
        output.show(f"wrote {count:,} pictures to {output.safe(target)}")
    return DONE


@click.command()
@folder
@options.quiet
@options.json
def upgrade(gallery: Path, *, quiet: bool, as_json: bool) -> int:
    """Bring GALLERY, made by an older version of tipr, to today's format; `index backup` comes before."""
    from tipr.cli import output
    from tipr.gallery.upgrade import upgrade as bring_up

    before, after = bring_up(gallery)
    if as_json:
        output.show(output.json_text({"gallery": str(gallery), "before": before, "after": after}))
    elif before == after:
        output.show(f"{output.safe(gallery)} has format {after} already")
    else:
        output.show(f"{output.safe(gallery)}: format {before} became {after}")
    return DONE


def _told(as_json: bool, what: str, where: str, done: dict[str, int], facts: Mapping[str, object] | None = None) -> int:
    from tipr.cli import output
    from tipr.cli.review import pictures

    if as_json:
        output.show(output.json_text({"folder": where, **done, **(facts or {})}))
    else:
        output.show(
            f"{what} {pictures(done['pictures'])} at {output.safe(where)}: {done['files']:,} files, "
            f"{done['bytes'] / 1e6:,.1f} MB"
        )
    return DONE


COMMANDS = (verify, backup, restore, export, upgrade)
