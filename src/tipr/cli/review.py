"""What `tipr erase`, `tipr retain` and `tipr hold` share: conditions, the review before, the certificate after."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from tipr.cli import DONE, SKIPPED, output

if TYPE_CHECKING:
    from tipr.gallery import Gallery
    from tipr.gallery.erase import Certificate
    from tipr.gallery.selection import Candidates

Command = TypeVar("Command", bound=Callable[..., Any])

LINES = 20
"""Pictures listed on a terminal; a review file shows more."""
SHOWN = 2000
"""Pictures shown in a review file at most."""

where = click.option(
    "--where",
    metavar="EXPRESSION",
    help="Pictures that pass a filter, such as: camera = door and time < 2026-03-01; see docs/search.md.",
)
"""`where: str | None`."""


def careful(command: Command) -> Command:
    """The flags of what cannot be undone: `--dry-run --review --yes`, passed as `dry_run, reviews, yes`."""
    for option in (
        click.option("--yes", "-y", is_flag=True, help="Do not ask."),
        click.option(
            "--review",
            "reviews",
            multiple=True,
            type=click.Path(path_type=Path),
            metavar="FILE",
            help="Show the chosen pictures in FILE, .html or .png, before anything is erased.",
        ),
        click.option("--dry-run", is_flag=True, help="Say what would be erased, and erase nothing."),
    ):
        command = option(command)
    return command


def check(reviews: Sequence[Path], *, dry_run: bool, yes: bool) -> None:
    """See that the review files have names that say how to write them, and that somebody can be asked.

    Raises:
        click.UsageError: one of both is not so.
    """
    for review in reviews:
        if review.suffix.lower() not in (".html", ".png"):
            raise click.UsageError(f"--review {review}: the name must end in .html or .png")
    if not dry_run and not yes and not sys.stdin.isatty():
        raise click.UsageError("an erasure cannot be undone: add --yes, or --dry-run to look first")


def look(gallery: Gallery, chosen: Candidates, question: str, reviews: Sequence[Path], *, quiet: bool) -> None:
    """List the first of the chosen pictures on stderr, and write the review files."""
    if not quiet:
        for line in _lines(chosen):
            click.echo(line, err=True)
    for review in reviews:
        _write_review(gallery, chosen, question, review)
        output.note(f"{review} shows the chosen pictures: delete it after the review", quiet=quiet)


def erase(gallery: Gallery, chosen: Candidates, *, yes: bool) -> list[Certificate]:
    """Erase the chosen pictures, when the user wants it; the certificate, if there was anything to erase."""
    if not yes and not click.confirm(f"erase {pictures(len(chosen.free))} for good?", err=True):
        raise click.Abort
    try:
        certificate = gallery.privacy.erase(chosen)
    except KeyboardInterrupt:
        click.echo("\nstopped; run the same command again to complete what was begun", err=True)
        raise
    return [] if certificate is None else [certificate]


def conclude(
    gallery: Gallery,
    question: str,
    chosen: Candidates,
    certificates: Sequence[Certificate],
    *,
    dry_run: bool,
    quiet: bool,
    as_json: bool,
) -> int:
    """Print what was, or would be, done; the exit code."""
    if as_json:
        value = {
            "gallery": str(gallery.path),
            "chosen_by": chosen.chosen_by,
            "question": question,
            "dry_run": dry_run,
            "pictures": len(chosen.free),
            "ids": chosen.free,
            "bands": None if chosen.bands is None else dict(zip(map(str, chosen.ids), chosen.bands, strict=True)),
            "on_hold": {str(row): hold for row, hold in chosen.held.items()},
            "counted_from_indexing": chosen.from_indexing,
            "certificates": [asdict(certificate) for certificate in certificates],
        }
        output.show(output.json_text(value))
    elif dry_run:
        output.show(f"{question}: {pictures(len(chosen.free))} would be erased; nothing was")
    for certificate in () if as_json else certificates:
        for line in certificate_lines(certificate):
            output.show(line)
    kept = len(chosen) - len(chosen.free)
    if kept:
        names = ", ".join(sorted({chosen.held[row] for row in chosen.ids.tolist() if row in chosen.held}))
        output.note(f"left because of a legal hold ({names}): {pictures(kept)}", quiet=quiet)
    if certificates and not dry_run:
        left = sum(os.path.exists(path) for path in {row.path for row in chosen if row.hold is None})
        if left:
            output.note(
                f"the picture files themselves are not touched, {left:,} of them are still there; nor are backups, and "
                "pages saved outside of the gallery's folder",
                quiet=quiet,
            )
    return SKIPPED if kept else DONE


def certificate_lines(certificate: Certificate) -> list[str]:
    """A certificate as aligned lines."""
    rows = [
        [name.replace("_", " "), f"{value:,}" if isinstance(value, int) else value]
        for name, value in asdict(certificate).items()
    ]
    return ["certificate of erasure", *output.columns([["  " + name, output.safe(value)] for name, value in rows])]


def pictures(count: int) -> str:
    """A number of pictures in words."""
    return f"{count:,} picture{'' if count == 1 else 's'}"


def _lines(chosen: Candidates) -> list[str]:
    from tipr.gallery.bands import BAND_NAMES

    rows = []
    for place, row in enumerate(chosen):
        if place == LINES:
            break
        rows.append(
            [
                str(row.id),
                "" if row.similarity is None else f"{row.similarity:.3f}",
                "" if row.band is None else BAND_NAMES[row.band],
                output.safe(row.camera or ""),
                f"{row.time:%Y-%m-%d %H:%M}" if row.time else "",
                "" if row.identity is None else output.safe(row.identity),
                output.safe(output.short_path(row.path)),
                f"hold: {output.safe(row.hold)}" if row.hold else "",
            ]
        )
    lines = output.columns(rows, right=[0]) if rows else []
    return lines + ([f"... and {len(chosen) - LINES:,} more"] if len(chosen) > LINES else [])


def _write_review(gallery: Gallery, chosen: Candidates, question: str, path: Path) -> None:
    from itertools import islice

    from tipr.gallery.bands import BAND_NAMES
    from tipr.report.erasure_page import Reviewed, write_erasure_page, write_erasure_sheet

    rows = list(islice(chosen, SHOWN))
    if not rows:
        raise click.ClickException("there is no picture to review")
    shown = [
        Reviewed(
            id=row.id,
            jpeg=jpeg,
            name=output.short_path(row.path),
            camera=row.camera,
            time=f"{row.time:%Y-%m-%d %H:%M}" if row.time else None,
            identity=None if row.identity is None else str(row.identity),
            similarity=row.similarity,
            band=None if row.band is None else BAND_NAMES[row.band],
            hold=row.hold,
        )
        for row, jpeg in zip(rows, gallery.thumbnails([row.id for row in rows]), strict=True)
    ]
    try:
        if path.suffix.lower() == ".html":
            name = gallery.path.resolve().name
            write_erasure_page(shown, path, question=question, gallery_name=name, total=len(chosen))
        else:
            write_erasure_sheet(shown, path, question=question)
    except OSError as error:
        raise click.ClickException(f"cannot write {path}: {error.strerror or error}") from None
