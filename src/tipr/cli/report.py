"""`tipr report`: a training run as one HTML file."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import click

from tipr.cli import DONE, SKIPPED, options, output

REPORT = "report.html"


@click.command("report")
@click.argument("run", type=click.Path(path_type=Path, file_okay=False))
@click.option("--split", default="test", show_default=True, help="Split to score and to show.")
@click.option("--data", type=click.Path(path_type=Path), metavar="ROOT", help="Where the data set lies now.")
@click.option(
    "--weights", type=click.Choice(["best", "last"]), default="best", show_default=True, help="Which of the run's."
)
@click.option("--language", "languages", multiple=True, metavar="CODE", help="en, zh, fr or de; may be repeated.")
@click.option(
    "--rerank",
    type=click.IntRange(min=1),
    metavar="K",
    help="Show the K best images of each caption in a second order.",
)
@click.option("--seed", type=click.IntRange(min=0), default=7, show_default=True, help="Draws what is shown.")
@click.option("--draws", type=click.IntRange(min=0), default=2000, show_default=True, help="Of the bootstrap; 0: none.")
@click.option("--batch-size", type=click.IntRange(min=1), default=64, show_default=True, help="Items encoded at once.")
@click.option(
    "--out", type=click.Path(path_type=Path, dir_okay=False), metavar="FILE", help="The page; RUN/report.html."
)
@options.common
def command(
    run: Path,
    *,
    split: str,
    data: Path | None,
    weights: Literal["best", "last"],
    languages: tuple[str, ...],
    rerank: int | None,
    seed: int,
    draws: int,
    batch_size: int,
    out: Path | None,
    device: str,
    threads: int | None,
    quiet: bool,
    as_json: bool,
) -> int:
    """Write what the training run RUN did and what its model finds, as one HTML file that loads nothing.

    Training curves, scores by language, CMC curve, searches drawn at random, the easiest and the hardest ones, bands
    and similarities, where words look in pictures, a map of people, configuration and environment.
    """
    from tipr.cli.progress import progress
    from tipr.report import write_report
    from tipr.report.findings import headline
    from tipr.report.from_run import run_report

    made = run_report(
        run,
        split=split,
        weights=weights,
        root=data,
        languages=languages or None,
        rerank=rerank,
        seed=seed,
        draws=draws,
        batch_size=batch_size,
        device=device,
        threads=threads,
        stage=lambda title: progress(title, quiet=quiet, unit="items"),
    )
    path = write_report(made, out if out is not None else run / REPORT)
    if as_json:
        scores = {
            row.language or "mean": {
                **{f"R@{k}": row.recall[k] for k in (1, 5, 10)},
                "mAP": row.mean_ap,
                "mINP": row.mean_inp,
            }
            for row in made.scores
        }
        facts = {"run": str(run), "report": str(path), "split": split, "scores": scores, "absent": dict(made.absent)}
        output.show(output.json_text(facts))
    else:
        output.show(f"{headline(made)}.")
        for note in made.notes:
            output.show(f"Note: {output.safe(note)}")
        output.show(f"Report: {output.safe(path)}")
    return SKIPPED if made.skipped else DONE
