"""`tipr evaluate`: score a model on a split."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from tipr.cli import DONE, SKIPPED, options, output

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from tipr.data.samples import Split
    from tipr.evaluation import Evaluation, Features, Overlap, Score, Scores, SecondStage
    from tipr.metrics.ranking import Tail
    from tipr.retrieval import Reranker

REFERENCE, CHANCE = "reference", "chance"
Rows = list[list[str]]


@click.command(name="evaluate")
@click.argument("model")
@click.argument("data", type=click.Path(exists=True, path_type=Path))
@click.option("--split", default="test", show_default=True, help="Split to score on: train, val, test, paraphrase.")
@click.option("--dataset", metavar="NAME", help="Data set, as in `tipr data`; synthetic or manifest by default.")
@click.option("--language", "languages", multiple=True, metavar="CODE", help="en, zh, fr or de; may be repeated.")
@click.option("--out", type=click.Path(dir_okay=False, path_type=Path), help="Write the result as JSON to a file too.")
@click.option(
    "--trec", type=click.Path(dir_okay=False, path_type=Path), help="Write a TREC run here, and FILE.qrels beside it."
)
@click.option("--depth", type=click.IntRange(min=1), default=100, show_default=True, help="Images a query in the run.")
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Of the bootstrap.")
@click.option("--draws", type=click.IntRange(min=0), default=2000, show_default=True, help="Of the bootstrap; 0: none.")
@click.option(
    "--rerank", type=click.IntRange(min=1), metavar="K", help="Score the K best images of each caption a second time."
)
@click.option(
    "--tail",
    type=click.Choice(["cosine", "constant"]),
    help="Order behind the K: by cosine (default), or the ties of Bi-IRRA's released code.",
)
@click.option("--skip-without-relevant", is_flag=True, help="Leave out queries with nothing to find; they are counted.")
@click.option("--allow-missing", is_flag=True, help="Leave out images that are not there, and say how many.")
@click.option("--batch-size", type=click.IntRange(min=1), default=64, show_default=True, help="Items encoded at once.")
@options.common
def command(
    *,
    model: str,
    data: Path,
    split: str,
    dataset: str | None,
    languages: tuple[str, ...],
    out: Path | None,
    trec: Path | None,
    depth: int,
    seed: int,
    draws: int,
    rerank: int | None,
    tail: Tail | None,
    skip_without_relevant: bool,
    allow_missing: bool,
    batch_size: int,
    device: str,
    threads: int | None,
    quiet: bool,
    as_json: bool,
) -> int:
    """Score MODEL on DATA: R@k, mAP and mINP of every language, text to image and image to text.

    MODEL is "demo", a model folder or a run folder (its best weights). DATA is the folder of a data set.
    """
    if tail is not None and rerank is None:
        raise click.UsageError("--tail needs --rerank K")
    from tipr.cli.progress import progress
    from tipr.data.datasets import DATASETS
    from tipr.errors import ConfigError
    from tipr.evaluation import encode_split, evaluate
    from tipr.evaluation.reference import reference_score
    from tipr.retrieval import Reranker, Retriever

    name = dataset or _layout(data)
    if name not in DATASETS:
        raise ConfigError(f"--dataset {name!r}; allowed: {', '.join(DATASETS)}")
    chosen = DATASETS[name].load(data, split, languages or None, allow_missing=allow_missing)
    chosen.require_identities("scores")
    paraphrase = None
    if name == "synthetic" and split == "test" and (data / "paraphrase.jsonl").is_file():
        paraphrase = DATASETS[name].load(data, "paraphrase", languages or None, allow_missing=allow_missing)
    reference = reference_score(data) if name == "synthetic" and split in ("test", "paraphrase") else None
    retriever = Retriever.load(model, device=device, threads=threads)
    second = None if rerank is None else _SecondPass(Reranker(retriever), rerank, tail or "cosine", batch_size, quiet)

    def scored(part: Split, features: Features, stage: SecondStage | None) -> Evaluation:
        return evaluate(
            retriever,
            part,
            features=features,
            second_stage=stage,
            bootstrap=draws,
            seed=seed,
            without_relevant="skip" if skip_without_relevant else "error",
            reference=reference,
        )

    with progress("encoding", quiet=quiet, unit="items") as report:
        features = encode_split(retriever, chosen, batch_size=batch_size, progress=report)
    stage = None if second is None else second.run("reranking", chosen, features)
    evaluation = scored(chosen, features, stage)
    reworded = None
    if paraphrase is not None:
        known = features.images if paraphrase.images == chosen.images else None
        with progress("encoding paraphrases", quiet=quiet, unit="items") as report:
            other = encode_split(retriever, paraphrase, images=known, batch_size=batch_size, progress=report)
        reworded = scored(
            paraphrase, other, None if second is None else second.run("reranking paraphrases", paraphrase, other)
        )
    if trec is not None:
        _write_run(trec, features, chosen, data=data, depth=depth, second_stage=stage)
    tree = evaluation.to_json()
    if reworded is not None:
        tree["paraphrase"] = reworded.to_json()
    if out is not None:
        out.write_text(output.json_text(tree) + "\n", encoding="utf-8")
    if as_json:
        output.show(output.json_text(tree))
    else:
        _print(evaluation, reworded)
    return SKIPPED if evaluation.skipped else DONE


def _layout(data: Path) -> str:
    """`synthetic` where its record stands beside the manifest."""
    return "synthetic" if (data / "benchmark.json").is_file() else "manifest"


class _SecondPass:
    """Reranks splits, whose image tokens are made once while the images stay the same."""

    def __init__(self, reranker: Reranker, k: int, tail: Tail, batch_size: int, quiet: bool) -> None:
        self._reranker, self._k, self._tail, self._batch_size, self._quiet = reranker, k, tail, batch_size, quiet
        self._images: tuple[Path, ...] = ()
        self._tokens: NDArray[np.float16]

    def run(self, title: str, split: Split, features: Features) -> SecondStage:
        from tipr.cli.progress import progress
        from tipr.evaluation import rerank_split

        if split.images != self._images:
            with progress("image tokens", quiet=self._quiet) as report:
                self._tokens = self._reranker.image_tokens(split.images, batch_size=self._batch_size, progress=report)
            self._images = split.images
        with progress(title, quiet=self._quiet, unit="pairs") as report:
            return rerank_split(self._reranker, features, self._tokens, self._k, tail=self._tail, progress=report)


def _write_run(
    trec: Path, features: Features, split: Split, *, data: Path, depth: int, second_stage: SecondStage | None
) -> None:
    from tipr.evaluation import write_qrels, write_trec

    queries = features.query_names()
    root = data if data.is_dir() else data.parent
    images = [Path(os.path.relpath(path, root)).as_posix() for path in split.images]
    write_trec(trec, features.text, features.images, queries, images, depth=depth, second_stage=second_stage)
    qrels = trec.with_name(trec.name + ".qrels")
    write_qrels(qrels, features.query_identity, features.gallery_identity, queries, images)


def _print(evaluation: Evaluation, reworded: Evaluation | None) -> None:
    """The tables and the sentences that must be read with them, on stdout."""
    forward, reverse = evaluation.text_to_image, evaluation.image_to_text
    people = f"{evaluation.identities:,} people, {evaluation.images:,} images, {evaluation.captions:,} captions"
    output.show(f"{output.safe(evaluation.model) or 'model'} on split {output.safe(evaluation.split)}: {people}")
    with_interval = evaluation.draws > 0
    header, rows = _table(forward, with_interval)
    if reworded is not None:
        header.append("para. R@1")
        other = reworded.text_to_image
        for row, code in zip(rows, [*forward.languages, None], strict=False):
            score = other.mean if code is None else other.languages.get(code)
            row.append("" if score is None else f"{score.recall[1]:.1f}")
    width = len(header)
    if evaluation.reference is not None:
        rows.append(_row(REFERENCE, evaluation.reference, with_interval))
    rows.append(_row(CHANCE, forward.chance, with_interval))
    reranking = evaluation.reranking
    again = "" if reranking is None else f", the best {reranking.k:,} reranked"
    _draw(
        f"Text to image, gallery of {forward.mean.gallery:,} images{again}",
        header,
        [row + [""] * (width - len(row)) for row in rows],
    )
    if reranking is not None:
        _draw("Text to image before reranking", *_table(reranking.first_stage, with_interval))
    if reverse is not None:
        header, rows = _table(reverse, with_interval)
        _draw(
            f"Image to text, gallery of {reverse.mean.gallery:,} captions",
            header,
            [*rows, _row(CHANCE, reverse.chance, with_interval)],
        )
    if evaluation.overlap is not None:
        _draw(*_overlap_table(evaluation.overlap))
    for sentence in _remarks(evaluation, reworded is not None):
        output.show(sentence)


def _remarks(evaluation: Evaluation, paraphrased: bool) -> Iterator[str]:
    """The sentences that must be read with the tables."""
    if evaluation.draws > 0:
        yield (
            f"Percent. interval: of R@1, {evaluation.level:.0%} of {evaluation.draws:,} bootstrap draws over "
            f"identities, seed {evaluation.seed}."
        )
    if evaluation.reranking is not None:
        outside = "by cosine" if evaluation.reranking.tail == "cosine" else "by position, as if all had one score"
        yield f"Images outside the best {evaluation.reranking.k:,} follow {outside}, which counts in mAP and mINP."
    if paraphrased:
        yield "para. R@1: the same images, described in sentences and words that no training caption has."
    if evaluation.reference is not None:
        yield f"{REFERENCE}: a reader that sees no pixels but knows what every image shows."
    if evaluation.skipped:
        yield f"{evaluation.skipped:,} queries have nothing to find in the gallery and are left out."
    if evaluation.selection:
        yield f"Weights chosen on: {output.safe(evaluation.selection)}."
    for note in evaluation.notes:
        yield f"Note: {output.safe(note)}"


def _each(scores: Scores) -> list[Score]:
    """One score a row: the languages, then their mean when there are several."""
    rows = list(scores.languages.values())
    return [*rows, scores.mean] if len(rows) > 1 else rows


def _overlap_table(overlap: Overlap) -> tuple[str, list[str], Rows]:
    """Title, header and rows: what share of the first results two languages have in common."""
    from tipr.retrieval.language import LANGUAGE_NAMES

    codes = list(dict.fromkeys(code for pair in overlap.pairs for code in pair))
    names = [LANGUAGE_NAMES.get(code, code) for code in codes]
    rows = [[name, *(_shared(overlap, one, other) for other in codes)] for one, name in zip(codes, names, strict=True)]
    title = f"Shared by the first {overlap.first} in two languages, % of {overlap.queries:,} queries"
    return f"{title}; mean {overlap.mean:.1f}", ["", *names], rows


def _shared(overlap: Overlap, one: str, other: str) -> str:
    value = overlap.pairs.get((one, other), overlap.pairs.get((other, one)))
    return "" if value is None else f"{value:.1f}"


def _table(scores: Scores, with_interval: bool) -> tuple[list[str], Rows]:
    from tipr.retrieval.language import LANGUAGE_NAMES

    names = [LANGUAGE_NAMES.get(code, code) for code in scores.languages]
    if len(names) > 1:
        names.append("mean")
    header = ["", *scores.mean.named()]
    header += ["interval"] * with_interval + ["queries"]
    return header, [_row(name, score, with_interval) for name, score in zip(names, _each(scores), strict=True)]


def _row(name: str, score: Score, with_interval: bool) -> list[str]:
    interval = score.intervals.get("R@1")
    cells = [name, *(f"{value:.2f}" if value < 1 else f"{value:.1f}" for value in score.named().values())]
    if with_interval:
        cells.append(f"{interval[0]:.1f}-{interval[1]:.1f}" if interval else "")
    return [*cells, f"{score.queries:,}"]


def _draw(title: str, header: Sequence[str], rows: Rows) -> None:
    if sys.stdout.isatty():
        from rich import box
        from rich.console import Console
        from rich.table import Table

        table = Table(
            title=title,
            title_justify="left",
            title_style="bold",
            box=box.SIMPLE_HEAD,
            pad_edge=False,
            padding=(0, 1, 0, 0),
        )
        for position, name in enumerate(header):
            table.add_column(name, justify="left" if position == 0 else "right", no_wrap=True)
        for row in rows:
            table.add_row(*row, style="dim" if row[0] in (CHANCE, REFERENCE) else None)
        Console(highlight=False).print(table)
        return
    widths = [max(len(line[column]) for line in [header, *rows]) for column in range(len(header))]
    output.show(f"\n{title}")
    for line in [header, *rows]:
        cells = [line[0].ljust(widths[0]), *(cell.rjust(size) for cell, size in zip(line[1:], widths[1:], strict=True))]
        output.show("  ".join(cells).rstrip())
    output.show()
