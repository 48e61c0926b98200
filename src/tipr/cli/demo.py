"""`tipr demo`: the whole main job on rendered people nobody has trained on."""

from __future__ import annotations

import shlex
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tipr.cli import DONE, options

if TYPE_CHECKING:
    from tipr.gallery import Gallery
    from tipr.report import ReportData, ShownQuery
    from tipr.retrieval import Retriever

QUERY_SEED = 7
PRINTED = 5
"""Results of a query that are printed; the report shows ten."""


@click.command()
@click.argument("out", type=click.Path(path_type=Path, file_okay=False), default=Path("demo"))
@click.option("--seed", default=QUERY_SEED, show_default=True, type=click.IntRange(min=0), help="Draws the queries.")
@options.common
def command(out: Path, *, seed: int, device: str, threads: int | None, quiet: bool, as_json: bool) -> int:
    """Render people, index them, search in four languages, write a report to OUT (default: demo)."""
    try:
        return _run(out, seed=seed, device=device, threads=threads, quiet=quiet, as_json=as_json)
    except KeyboardInterrupt:
        click.echo(
            f"\nstopped; what was made stays in {out}. Continue with:\n  {shlex.join(['tipr', *sys.argv[1:]])}",
            err=True,
        )
        raise


def _run(out: Path, *, seed: int, device: str, threads: int | None, quiet: bool, as_json: bool) -> int:
    import os

    from tipr.cli import output
    from tipr.cli.progress import progress
    from tipr.data.synthetic.benchmark import build
    from tipr.data.synthetic.presets import PRESETS
    from tipr.retrieval import Retriever

    started = time.perf_counter()
    people = out / "people"
    with progress("rendering people", quiet=quiet) as report:
        build(people, PRESETS["demo"], workers=threads or os.cpu_count() or 1, progress=report)
    retriever = Retriever.load("demo", device=device, threads=threads)
    gallery = _gallery(out / "gallery", people, retriever, quiet)
    with progress("encoding queries", quiet=quiet, unit="queries") as report:
        data = _evaluate(people, gallery, seed=seed, started=started, progress=report)
    _write(data, out)
    if as_json:
        output.show(output.json_text(_facts(data, out)))
        return DONE
    for query in data.queries:
        _print_query(query)
    _print_scores(data)
    output.show(f"\nReport:        {out / 'report.html'}")
    output.show(f"Contact sheet: {out / 'contact_sheet.png'}")
    _print_next(out)
    return DONE


def _gallery(path: Path, people: Path, retriever: Retriever, quiet: bool) -> Gallery:
    """The demo's own gallery; one that another version of the demo model filled is made again."""
    import shutil

    from tipr.cli.progress import progress
    from tipr.gallery import Gallery

    if path.exists() and Gallery.open(path).info().fingerprint != retriever.fingerprint:
        shutil.rmtree(path)
    gallery = Gallery.open(path, model=retriever) if path.exists() else Gallery.create(path, retriever)
    with progress("indexing", quiet=quiet) as report:
        gallery.add(manifest=people / "manifest.jsonl", progress=report)
    return gallery


def _evaluate(
    people: Path, gallery: Gallery, *, seed: int, started: float, progress: Callable[[int, int], None]
) -> ReportData:
    """Score every caption against the gallery's own vectors, and gather the report."""
    import json
    from datetime import UTC, datetime

    import numpy as np

    from tipr.data.datasets import DATASETS
    from tipr.evaluation import encode_split, evaluate
    from tipr.evaluation.reference import reference_score
    from tipr.report.from_evaluation import report_data
    from tipr.report.pictures import shown_jpeg

    retriever = gallery.retriever
    split = DATASETS["synthetic"].load(people, "test")
    _, vectors = gallery.vectors(split.images)  # by name: the user may have added pictures, or moved the folder
    begun = time.perf_counter()
    features = encode_split(retriever, split, images=vectors.astype(np.float32), progress=progress)
    per_query = 1000 * (time.perf_counter() - begun) / len(features.text)
    evaluation = evaluate(retriever, split, features=features, reference=reference_score(people))
    benchmark = json.loads((people / "benchmark.json").read_text(encoding="utf-8"))

    def picture(position: int) -> bytes:
        from PIL import Image

        return shown_jpeg(Image.open(split.images[position]))

    return report_data(
        run="demo",
        made=datetime.now(UTC),
        seconds=time.perf_counter() - started,
        split=split,
        features=features,
        evaluation=evaluation,
        card=retriever.card,
        parameters=sum(parameter.numel() for parameter in retriever.encoder.parameters()),
        picture=picture,
        synthetic=True,
        seed=seed,
        fingerprint=benchmark["manifest_sha256"],
        speed=f"{per_query:.1f} ms a query, encoded in batches",
        again=("make demo", f"tipr demo --seed {seed}    # the same searches"),
    )


def _print_query(query: ShownQuery) -> None:
    from tipr.cli import output
    from tipr.gallery.bands import BAND_NAMES

    output.show(f"\n[{query.language}] {output.safe(query.text)}")
    rows = [
        [
            f"{picture.rank:>4}",
            "right person" if picture.right else "",
            BAND_NAMES[picture.band],
            output.safe(picture.camera or ""),
        ]
        for picture in query.pictures[:PRINTED]
    ]
    for line in output.columns(rows):
        output.show(line)
    ranks = ", ".join(map(str, query.right_ranks))
    output.show(f"     pictures of the right person are at {ranks}")


def _scores(data: ReportData) -> dict[str, dict[str, float]]:
    """Name of a row -> name of a metric -> per cent."""
    named = [(row.language or row.label, row) for row in data.scores]
    named += [("reference reader", data.reference)] if data.reference else []
    named += [("chance", data.chance)] if data.chance else []
    return {
        name: {**{f"R@{k}": row.recall[k] for k in (1, 5, 10)}, "mAP": row.mean_ap, "mINP": row.mean_inp}
        for name, row in named
    }


def _facts(data: ReportData, out: Path) -> dict[str, Any]:
    """What the command found, for `--json`."""
    from tipr.cli import output

    return {
        "report": str(out / "report.html"),
        "contact_sheet": str(out / "contact_sheet.png"),
        "gallery": str(out / "gallery"),
        "pictures": data.gallery_size,
        "note": output.NOT_AN_IDENTIFICATION,
        "scores": _scores(data),
        "queries": [
            {"language": query.language, "text": query.text, "right_ranks": query.right_ranks} for query in data.queries
        ],
    }


def _print_scores(data: ReportData) -> None:
    from tipr.cli import output

    scores = _scores(data)
    rows = [["", *next(iter(scores.values()))]]
    rows += [[name, *(f"{value:.1f}" for value in row.values())] for name, row in scores.items()]
    output.show(f"\nPer cent, over a gallery of {data.gallery_size} pictures; {output.NOT_AN_IDENTIFICATION}:")
    for line in output.columns(rows, right=(1, 2, 3, 4, 5)):
        output.show(line)


def _write(data: ReportData, out: Path) -> None:
    from tipr.report import SheetRow, contact_sheet, write_report
    from tipr.report.findings import headline, searches_heading

    write_report(data, out / "report.html")
    rows = [
        SheetRow(
            title=f"Query {number} ({query.language}): {query.same_in_english or query.text}",
            pictures=[picture.jpeg for picture in query.pictures],
            labels=[f"{picture.rank}  right" if picture.right else f"{picture.rank}" for picture in query.pictures],
            right=[picture.right for picture in query.pictures],
        )
        for number, query in enumerate(data.queries, 1)
    ]
    contact_sheet(rows, out / "contact_sheet.png", heading=f"{searches_heading(data)}. {headline(data)}")


def _print_next(out: Path) -> None:
    from tipr.cli import output

    lines = (
        ("search this gallery", f'tipr search {out / "gallery"} "a woman in a red dress with a black backpack"'),
        ("search a folder of your own", "tipr index create mine PHOTOS && tipr search mine"),
        ("make people to train on", "tipr data synth data/standard --preset standard"),
        ("train from scratch", "tipr train configs/irra/synthetic.yaml"),
        ("evaluate", f"tipr evaluate demo {out / 'people'}"),
    )
    output.show("\nNext:")
    for line in output.columns([[f"  {what}", how] for what, how in lines]):
        output.show(line)
