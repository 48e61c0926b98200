"""`tipr erase`: remove a person from a gallery, for good and with a certificate."""

from __future__ import annotations

from pathlib import Path

import click

from tipr.cli import options, review


@click.command()
@click.argument("gallery", type=click.Path(path_type=Path))
@click.option("--identity", metavar="ID", help="The pictures that are known to show this person.")
@click.option("--like", metavar="IMAGE", help="The pictures of this file, and those that look like it.")
@review.where
@click.option(
    "--erased-in", metavar="OTHER", help="What was erased in another gallery, of which GALLERY is an older copy."
)
@click.option("--at-least", type=float, metavar="S", help="Least similarity with IMAGE; what stands out by default.")
@click.option(
    "--top", type=click.IntRange(min=1), default=100, show_default=True, metavar="N", help="Look-alikes at most."
)
@click.option("--except", "others", multiple=True, type=int, metavar="N", help="Leave the picture with this number.")
@review.careful
@click.option("--model", metavar="PATH", help="Where the gallery's model lies now, when it was moved.")
@options.common
def command(
    gallery: Path,
    *,
    identity: str | None,
    like: str | None,
    where: str | None,
    erased_in: str | None,
    at_least: float | None,
    top: int,
    others: tuple[int, ...],
    dry_run: bool,
    reviews: tuple[Path, ...],
    yes: bool,
    model: str | None,
    device: str,
    threads: int | None,
    quiet: bool,
    as_json: bool,
) -> int:
    """Erase a person from GALLERY: rows, vectors, thumbnails, tokens, and what was made from them below its folder.

    The same files cannot be added again. Pictures on a legal hold are left, and the exit code is 3. An erasure that is
    killed is completed by the next command that writes. The picture files themselves are not touched.
    """
    if sum(value is not None for value in (identity, like, where, erased_in)) != 1:
        raise click.UsageError("name exactly one of --identity ID, --like IMAGE, --where EXPRESSION, --erased-in OTHER")
    review.check(reviews, dry_run=dry_run, yes=yes)
    from tipr.gallery import Gallery
    from tipr.gallery.filters import Filters

    filters = None if where is None else Filters.of(where=where)
    opened = Gallery.open(gallery, model=model, device=device, threads=threads)
    finished = None if dry_run else opened.privacy.finish()
    chosen = opened.privacy.find(
        identity=identity, like=like, where=filters, erased_in=erased_in, at_least=at_least, top=top
    )
    chosen = chosen.without(others)
    ways = (("identity", identity), ("like", like), ("erased in", erased_in))
    question = where or next(f"{way} {value}" for way, value in ways if value is not None)
    if not len(chosen) and erased_in is not None and not dry_run:
        opened.privacy.erase(chosen)  # the marks of the other gallery are kept for files that are not here
    if not len(chosen) and finished is None:
        raise click.ClickException(f"{question}: no picture of gallery {gallery}; nothing was erased")
    certificates = [] if finished is None else [finished]
    if len(chosen):
        review.look(opened, chosen, question, reviews, quiet=quiet)
        if not dry_run and chosen.free:
            certificates += review.erase(opened, chosen, yes=yes)
    return review.conclude(opened, question, chosen, certificates, dry_run=dry_run, quiet=quiet, as_json=as_json)
