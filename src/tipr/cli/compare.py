"""`tipr compare`: runs beside published figures, and beside each other."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path

import click

from tipr.cli import options, output

FORMATS = {".md": "markdown", ".tex": "latex", ".html": "html", ".json": "json"}
"""Suffix of --out -> what is written."""


@click.command("compare")
@click.argument("runs", nargs=-1, required=True, type=click.Path(path_type=Path, file_okay=False))
@click.option("--split", default="test", show_default=True, help="Split to score on.")
@click.option("--data", type=click.Path(path_type=Path), metavar="ROOT", help="Where the data set lies now.")
@click.option("--test-selected", is_flag=True, help="Take runs whose epoch was chosen on the test split too.")
@click.option(
    "--rerank",
    type=click.IntRange(min=1),
    metavar="K",
    help="Score the K best images of a query again, where possible.",
)
@click.option(
    "--zero-shot",
    "zero_shot",
    multiple=True,
    type=click.Path(path_type=Path),
    metavar="MODEL",
    help="A model as it is, on the same data; may be given several times.",
)
@click.option("--all", "every", is_flag=True, help="All published methods, not only those of the runs.")
@click.option(
    "--out", type=click.Path(path_type=Path, dir_okay=False), metavar="FILE", help="Write .md, .tex, .html or .json."
)
@options.common
def command(
    runs: tuple[Path, ...],
    *,
    split: str,
    data: Path | None,
    test_selected: bool,
    rerank: int | None,
    zero_shot: tuple[Path, ...],
    every: bool,
    out: Path | None,
    device: str,
    threads: int | None,
    quiet: bool,
    as_json: bool,
) -> None:
    """Put finished RUNS beside the published figures of the same data set and language.

    Runs that differ in their seed alone become one row with mean and spread. A run is scored once; its scores stay in
    its folder. Every row says by which rule its epoch was chosen.
    """
    if out is not None and out.suffix not in FORMATS:
        raise click.UsageError(f"--out {out} must end in {', '.join(FORMATS)}")
    from tipr.analysis.standing import standings
    from tipr.report import standing_tables as tables

    def note(text: str) -> None:
        if not quiet:
            print(text, file=sys.stderr, flush=True)

    found = standings(
        runs,
        split=split,
        root=data,
        test_selected=test_selected,
        every=every,
        rerank=rerank,
        zero_shot=zero_shot,
        device=device,
        threads=threads,
        note=note,
    )
    if out is not None:
        if out.suffix == ".html":
            tables.write_standings_page(found, out)
        else:
            made = {".md": tables.markdown, ".tex": tables.latex}.get(out.suffix)
            content = output.json_text(found.to_json()) + "\n" if made is None else made(found)
            draft = out.with_name(f".{out.name}.draft")
            draft.write_text(content, encoding="utf-8")
            os.replace(draft, out)
    if as_json:
        output.show(output.json_text(found.to_json()))
    else:
        for line in tables.text(found, _aligned).splitlines():
            output.show(line)


def _aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    safe = [[output.safe(cell) for cell in row] for row in rows]
    return output.columns(safe, right=range(2, len(rows[0]) - 1))
