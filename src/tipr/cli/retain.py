"""`tipr retain`: keep pictures no longer than a limit."""

from __future__ import annotations

from pathlib import Path

import click

from tipr.cli import options, output, review


@click.command()
@click.argument("gallery", type=click.Path(path_type=Path))
@click.option("--older-than", required=True, metavar="72h|30d|2w", help="How long a picture may stay.")
@click.option("--camera", "cameras", multiple=True, metavar="NAME", help="Only of this camera; several are possible.")
@review.where
@review.careful
@options.quiet
@options.json
def command(
    gallery: Path,
    *,
    older_than: str,
    cameras: tuple[str, ...],
    where: str | None,
    dry_run: bool,
    reviews: tuple[Path, ...],
    yes: bool,
    quiet: bool,
    as_json: bool,
) -> int:
    """Erase the pictures of GALLERY that were taken longer ago than a limit; they cannot be added again.

    The age of a picture without a time, or with one after its indexing, counts from its indexing. Pictures on a legal
    hold are left, and the exit code is 3.
    """
    review.check(reviews, dry_run=dry_run, yes=yes)
    from tipr.gallery import Gallery
    from tipr.gallery.filters import Filters
    from tipr.gallery.retention import duration

    limit, filters = duration(older_than), Filters.of(camera=cameras or None, where=where)
    opened = Gallery.open(gallery)
    finished = None if dry_run else opened.privacy.finish()
    chosen = opened.privacy.expired(limit, filters)
    question = ", ".join([f"older than {older_than.strip()}", *filters.words()])
    certificates = [] if finished is None else [finished]
    if len(chosen):
        review.look(opened, chosen, question, reviews, quiet=quiet)
        if chosen.from_indexing:
            output.note(
                f"without a time, or with one after their indexing, so that their age counts from indexing: "
                f"{review.pictures(chosen.from_indexing)}",
                quiet=quiet,
            )
        if not dry_run and chosen.free:
            certificates += review.erase(opened, chosen, yes=yes)
    elif not dry_run and not as_json:
        output.show(f"{question}: no picture of gallery {output.safe(gallery)}")
    return review.conclude(opened, question, chosen, certificates, dry_run=dry_run, quiet=quiet, as_json=as_json)
