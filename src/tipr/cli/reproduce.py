"""`tipr reproduce`: a published recipe from the data check to the comparison."""

from __future__ import annotations

import os
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click
from click.core import ParameterSource

from tipr.cli import options, output

if TYPE_CHECKING:
    from tipr.analysis.reproduction import Reproduction

PAGE = "comparison.md"


@click.command("reproduce")
@click.argument("name")
@click.option("--data", required=True, type=click.Path(path_type=Path), metavar="ROOT", help="The data set.")
@click.option("--weights", type=click.Path(path_type=Path), metavar="FILE", help="What the recipe starts from.")
@click.option("--vocabulary", type=click.Path(path_type=Path), metavar="FILE", help="The tokenizer's file.")
@click.option("--format", metavar="FORMAT", help="Of the weights; by default what the recipe's encoder starts from.")
@click.option("--seeds", type=click.IntRange(min=1), default=3, show_default=True, help="Runs.")
@click.option("--out", type=click.Path(path_type=Path, file_okay=False), metavar="DIR", help="Folder of all results.")
@click.option("--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Change the recipe, such as epochs=1.")
@click.option("--unconfined", is_flag=True, help="Read the weights even where the kernel cannot confine the reader.")
@options.common
@click.pass_context
def command(
    context: click.Context,
    *,
    name: str,
    data: Path,
    weights: Path | None,
    vocabulary: Path | None,
    format: str | None,
    seeds: int,
    out: Path | None,
    overrides: tuple[str, ...],
    unconfined: bool,
    device: str,
    threads: int | None,
    quiet: bool,
    as_json: bool,
) -> None:
    """Run the recipe NAME, such as irra/cuhk_pedes: check the data, read the weights, train, evaluate, compare.

    Every step leaves its result in DIR and is not done again, so the command may be stopped and repeated. Without
    --device the recipe decides.
    """
    from tipr.analysis.reproduction import reproduce
    from tipr.cli.progress import progress
    from tipr.report.standing_tables import markdown

    folder = out or Path("runs") / f"reproduce-{Path(name).with_suffix('').as_posix().replace('/', '-')}"

    def note(text: str) -> None:
        if not quiet:
            print(text, file=sys.stderr, flush=True)

    given = context.get_parameter_source("device") is not ParameterSource.DEFAULT
    try:
        with progress("training", quiet=quiet, unit="steps") as report:
            found = reproduce(
                name,
                data=data,
                weights=weights,
                out=folder,
                seeds=seeds,
                vocabulary=vocabulary,
                format=format,
                overrides=overrides,
                unconfined=unconfined,
                device=device if given else None,
                threads=threads,
                progress=report,
                note=note,
            )
    except KeyboardInterrupt:
        print(f"\nstopped; to go on:  {shlex.join(['tipr', *sys.argv[1:]])}", file=sys.stderr)
        raise
    facts = [f"- {line}" for line in _lines(found, name)]
    page = "\n".join(["# Reproduction", "", *facts, "", markdown(found.standings)])
    draft = folder / f".{PAGE}"
    draft.write_text(page, encoding="utf-8")
    os.replace(draft, folder / PAGE)
    if as_json:
        output.show(output.json_text(found.to_json()))
        return
    for line in _lines(found, name):
        output.show(output.safe(line))
    output.show(f"Beside the published figures: {output.safe(folder / PAGE)}")


def _lines(found: Reproduction, name: str) -> list[str]:
    lines = [f"{name}: {found.seeds} seed{'s' * (found.seeds > 1)}; data {found.verdict}"]
    for each in found.reached:
        lines.append(
            f"{each.metric} {each.language}: {each.mean:.2f}, expected {each.low:g} to {each.high:g}: "
            f"{'reached' if each.inside else 'NOT reached'}"
        )
    return lines if found.reached else [*lines, "the recipe names no expected range"]
