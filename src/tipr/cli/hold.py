"""`tipr hold`: legal holds, which keep pictures from being erased for a reason and until a day."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from tipr.cli import DONE, options, output, review

if TYPE_CHECKING:
    from tipr.gallery.holds import Hold


@click.command()
@click.argument("gallery", type=click.Path(path_type=Path))
@click.argument("name", required=False)
@click.option("--identity", metavar="ID", help="The pictures that are known to show this person.")
@review.where
@click.option("--reason", metavar="TEXT", help="Why; it stays readable, so name no person.")
@click.option("--until", metavar="TIME", help="The hold ends by itself: a date (its whole day, UTC) or RFC 3339 time.")
@click.option("--release", is_flag=True, help="End the hold NAME now.")
@options.quiet
@options.json
def command(
    gallery: Path,
    name: str | None,
    *,
    identity: str | None,
    where: str | None,
    reason: str | None,
    until: str | None,
    release: bool,
    quiet: bool,
    as_json: bool,
) -> int:
    """Keep pictures of GALLERY from `erase`, `retain` and `index remove`, under a NAME; without one, list the holds.

    A hold keeps the pictures that are chosen now, not those that are added later. A hold of the same name is replaced.
    """
    from tipr.gallery import Gallery
    from tipr.gallery.filters import Filters, moment

    filters = None if where is None else Filters.of(where=where)
    privacy = Gallery.open(gallery).privacy
    if name is None:
        if release or identity or where or reason or until:
            raise click.UsageError("give the hold a NAME")
        return _show(privacy.holds(), as_json=as_json)
    if release:
        if identity or where or reason or until:
            raise click.UsageError("--release takes a NAME and nothing else")
        privacy.release(name)
        return _show(privacy.holds(), as_json=as_json)
    if (identity is None) == (filters is None):
        raise click.UsageError("name exactly one of --identity ID and --where EXPRESSION")
    if reason is None or until is None:
        raise click.UsageError("a hold needs --reason TEXT and --until TIME")
    chosen = privacy.find(identity=identity, where=filters)
    made = privacy.hold(name, chosen, reason=reason, until=moment(until, "until", end=True))
    output.note(f"on hold: {review.pictures(len(made.ids))}", quiet=quiet)
    return _show(privacy.holds(), as_json=as_json)


def _show(holds: tuple[Hold, ...], *, as_json: bool) -> int:
    if as_json:
        trees = [
            {"name": hold.name, "reason": hold.reason, "until": hold.until, "pictures": len(hold.ids)} for hold in holds
        ]
        output.show(output.json_text(trees))
        return DONE
    rows = [
        [
            output.safe(hold.name),
            review.pictures(len(hold.ids)),
            f"until {hold.until:%Y-%m-%d %H:%M} UTC",
            output.safe(hold.reason),
        ]
        for hold in holds
    ]
    for line in output.columns(rows) if rows else ["no legal hold"]:
        output.show(line)
    return DONE
