"""`tipr index rebuild`: encode a gallery again with another model."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import click

from tipr.cli import DONE, SKIPPED, options
from tipr.cli.index_fill import resumable

SHOWN = 20


@click.command()
@click.argument("gallery", type=click.Path(path_type=Path))
@click.option("--model", required=True, metavar="PATH|demo", help="The new model: a model folder or a run folder.")
@click.option("--without-missing", is_flag=True, help="Leave out pictures whose file is gone or has changed.")
@options.common
def rebuild(
    gallery: Path,
    *,
    model: str,
    without_missing: bool,
    device: str,
    threads: int | None,
    quiet: bool,
    as_json: bool,
) -> int:
    """Encode every picture of GALLERY again, with another model.

    The old vectors serve until all new ones are there; then they change places in one step. A stopped run is continued
    by the same command. Pictures whose file is missing are listed, and nothing is exchanged unless --without-missing.
    """
    from tipr.cli import output
    from tipr.cli.progress import progress
    from tipr.gallery.rebuild import rebuild as again
    from tipr.retrieval import Retriever

    retriever = Retriever.load(model, device=device, threads=threads)
    with resumable(gallery), progress("encoding", quiet=quiet) as report:
        done = again(gallery, retriever, without_missing=without_missing, progress=report)
    if as_json:
        output.show(output.json_text({"gallery": str(gallery), **asdict(done)}))
        return DONE if done.swapped else SKIPPED
    for path, reason in done.missing[:SHOWN]:
        output.show(f"  missing {output.safe(path)}: {output.safe(reason)}")
    if len(done.missing) > SHOWN:
        output.show(f"  and {len(done.missing) - SHOWN:,} more")
    if done.swapped:
        left_out = f", {len(done.missing):,} left out" if done.missing else ""
        output.show(f"{output.safe(gallery)}: rebuilt with {output.safe(model)}, {done.pictures:,} pictures{left_out}")
        return DONE
    output.show(
        f"{output.safe(gallery)}: not rebuilt, {len(done.missing):,} files are missing and the old vectors serve on; "
        "put the files back and run it again, or leave them out with --without-missing"
    )
    return SKIPPED
