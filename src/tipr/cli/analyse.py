"""`tipr analyse relations`: how true the relations of a finished run were."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from tipr.cli import options, output

if TYPE_CHECKING:
    from tipr.analysis.relations import EpochRelations

PLOT = "relations.png"


@click.group("analyse")
def command() -> None:
    """Look into a run: how true the relations were that it took for granted."""


@command.command()
@click.argument("run", type=click.Path(path_type=Path, file_okay=False))
@click.option(
    "--plot", type=click.Path(path_type=Path, dir_okay=False), metavar="FILE", help="The PNG; RUN/relations.png."
)
@options.json
def relations(*, run: Path, plot: Path | None, as_json: bool) -> None:
    """Precision and recall of the relations that RUN mined or clustered, epoch by epoch, as table and plot.

    Needs the data set that the run was trained on, with its identities; nothing else reads both.
    """
    from tipr.analysis.relations import analyse_relations
    from tipr.report.contact_sheet import latin
    from tipr.report.relations_plot import relations_plot

    epochs = analyse_relations(run)
    heading = latin(f"Relations of {output.safe(run.resolve().name)} against the people of its training split")
    path = relations_plot(epochs, plot if plot is not None else run / PLOT, heading=heading)
    if as_json:
        output.show(output.json_text({"run": str(run), "plot": str(path), "epochs": [e.to_json() for e in epochs]}))
        return
    _print(epochs)
    output.show(f"Plot: {output.safe(path)}")


def _print(epochs: list[EpochRelations]) -> None:
    from tipr.analysis.relations import COUNTED

    clusters = any(each.rand_index is not None for each in epochs)
    names = {"with_self": "with self", "without_self": "without self", "other_images": "other images"}
    header = ["epoch", *(f"{part} {names[counted]}" for counted in COUNTED for part in ("precision", "recall"))]
    rows = [header + ["Rand index"] * clusters]
    for each in epochs:
        quality = [each.quality[counted] for counted in COUNTED]
        cells = [_percent(value) for one in quality for value in (one.precision, one.recall)]
        index = "-" if each.rand_index is None else f"{each.rand_index:.3f}"
        rows.append([str(each.epoch), *cells, *[index] * clusters])
    for line in output.columns(rows, right=range(len(rows[0]))):
        output.show(line)
    output.show(
        "Percent of ordered relations. Recall: of all relations between pairs of one person. Without self: a pair is "
        "not counted as related to itself. Other images: nor to other captions of its own image."
    )
    if clusters:
        output.show("Rand index: adjusted for chance, pairs of no cluster standing alone.")


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{value:.1f}"
