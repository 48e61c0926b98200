"""`tipr data check`, `tipr data stats` and `tipr data import`: look into a data set, and turn it into a manifest."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import click

from tipr.cli import DONE, RUN_TIME_ERROR, options, output

if TYPE_CHECKING:
    from tipr.data.caption_lint import CountTokens
    from tipr.data.check import Report
    from tipr.data.dataset import DatasetReader
    from tipr.data.statistics import Statistics

FREQUENT_SHOWN = 10
FOLDERS_SHOWN = 20
LEVELS = ("note", "warning", "error")
"""In the order of printing: what matters most stands nearest to the verdict."""
NAMES = (
    "NAME is cuhk_pedes, icfg_pedes, rstpreid or ufinebench, one of them with _m for its multilingual version, "
    "manifest or synthetic."
)


@click.command(epilog=NAMES, short_help="See whether a data set is complete and sound.")
@click.argument("name")
@click.argument("root", type=click.Path(path_type=Path))
@click.option("--fast", is_flag=True, help="Do not decode the images, only see that they are there.")
@click.option("--model", metavar="MODEL", help="Count tokens with this model's tokenizer, and by its limit.")
@click.option(
    "--limit", type=click.IntRange(min=3), metavar="N", help="Tokens that a model reads of a caption; else 77."
)
@click.option("--workers", type=click.IntRange(min=1), metavar="N", help="Threads that decode; one per CPU core else.")
@click.option("--allow-missing", is_flag=True, help="Judge it for runs with data.allow_missing: true.")
@options.quiet
@options.json
def check(
    *,
    name: str,
    root: Path,
    fast: bool,
    model: str | None,
    limit: int | None,
    workers: int | None,
    allow_missing: bool,
    quiet: bool,
    as_json: bool,
) -> int:
    """See whether the data set NAME in ROOT is complete and sound; the last line is the verdict.

    Every layout in circulation is read. ROOT is its folder, or an annotation file in it. The exit code is 1 when the
    data set cannot be used.
    """
    from tipr.cli.progress import progress
    from tipr.data.caption_lint import TOKEN_LIMIT
    from tipr.data.check import check_dataset

    reader = reader_of(name)
    count_tokens, longest = _tokenizer(model) if model else (None, TOKEN_LIMIT)
    with progress("reading images", quiet=quiet) as report:
        found = check_dataset(
            reader,
            root,
            decode=not fast,
            limit=limit or longest,
            count_tokens=count_tokens,
            workers=workers or _cores(),
            allow_missing=allow_missing,
            progress=report,
        )
    if as_json:
        output.show(output.json_text({"dataset": name, **found.to_json()}))
    else:
        _show_report(found, reader)
    return RUN_TIME_ERROR if found.verdict == "unusable" else DONE


@click.command(epilog=NAMES, short_help="Count the words of captions, show sample pictures.")
@click.argument("name")
@click.argument("root", type=click.Path(path_type=Path))
@click.option("--page", type=click.Path(dir_okay=False, path_type=Path), help="Write a page with sample pictures here.")
@click.option("--samples", type=click.IntRange(min=1), default=24, show_default=True, help="Pictures on the page.")
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Another seed, other pictures.")
@options.json
def stats(*, name: str, root: Path, page: Path | None, samples: int, seed: int, as_json: bool) -> None:
    """Vocabulary, lengths and words of the captions of the data set NAME in ROOT, by language."""
    from tipr.data.statistics import statistics

    reader = reader_of(name)
    reading = reader.read(root)
    reading.require_usable()
    found = statistics(reading.records)
    if page is not None:
        from tipr.report.dataset_page import write_dataset_page

        write_dataset_page(reading, found, page, title=reader.facts.title, samples=samples, seed=seed)
    if as_json:
        output.show(output.json_text({"dataset": name, **found.to_json()}))
        return
    _show_statistics(found)
    if page is not None:
        output.note(f"wrote {output.short_path(str(page))}")


@click.command(name="import", epilog=NAMES, short_help="Turn a data set into a manifest.")
@click.argument("name")
@click.argument("root", type=click.Path(path_type=Path))
@click.argument("out", required=False, type=click.Path(path_type=Path))
@click.option("--link", is_flag=True, help="Write elsewhere, with a link to the image folder beside the manifest.")
@click.option("--allow-missing", is_flag=True, help="Leave out images that are not there instead of refusing.")
@options.json
def import_(*, name: str, root: Path, out: Path | None, link: bool, allow_missing: bool, as_json: bool) -> None:
    """Turn the data set NAME in ROOT into a manifest: OUT, or manifest.jsonl in ROOT.

    No image is copied. A manifest reaches what lies below its folder, so OUT lies above the images, unless --link.
    """
    from tipr.data.conversion import write_as_manifest
    from tipr.data.statistics import statistics

    reading = reader_of(name).read(root)
    path, records = write_as_manifest(reading, out, link=link, allow_missing=allow_missing)
    left_out = len(reading.records) - len(records)
    splits = statistics(records).splits
    if as_json:
        tree = {"manifest": str(path), "records": len(records), "missing": left_out, "splits": splits}
        output.show(output.json_text(tree))
        return
    if left_out:
        output.note(f"{left_out:,} of {len(reading.records):,} images are missing and left out")
    parts = "; ".join(
        f"{split} {count['images']:,} images, {count['captions']:,} captions" for split, count in splits.items()
    )
    _say(f"{path}: {len(records):,} records ({parts})")


def reader_of(name: str) -> DatasetReader:
    """The reader of a data set by its name.

    Raises:
        ConfigError: there is none of that name.
    """
    from tipr.data.datasets import DATASETS
    from tipr.errors import ConfigError

    if name not in DATASETS:
        raise ConfigError(f"unknown data set {name!r}; allowed: {', '.join(DATASETS)}")
    return DATASETS[name]


def _tokenizer(model: str) -> tuple[CountTokens, int]:
    """What counts tokens as the model does, and its limit."""
    from tipr.encoders.tokenizers import load_tokenizer
    from tipr.retrieval.model_folder import model_folder

    tokenizer = load_tokenizer(model_folder(model))
    return lambda captions: [len(pieces) + 2 for pieces in tokenizer.pieces(captions)], tokenizer.max_tokens


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _show_report(report: Report, reader: DatasetReader) -> None:
    _say(f"{report.title} in {output.short_path(report.root)}")
    for path, digest in report.files.items():
        _say(f"{path}, SHA-256 {digest}", indent=2)
    if report.splits:
        _show_counts(report)
    for other in report.others:
        counts = "; ".join(
            f"{split} {count.images:,} images, {count.captions:,} captions" for split, count in other.splits.items()
        )
        _say(f"also here: {', '.join(other.files)} ({counts or 'without splits'})", indent=2)
    if len(report.folders) > 1:
        rows = [
            [folder.name + "/", f"{folder.named:,}", f"{folder.missing:,}"] for folder in report.folders[:FOLDERS_SHOWN]
        ]
        _show_rows(["folder", "images", "missing"], rows, right=(1, 2))
        if len(report.folders) > FOLDERS_SHOWN:
            _say(f"and {len(report.folders) - FOLDERS_SHOWN:,} more folders", indent=2)
    for problem in sorted(report.problems, key=lambda problem: LEVELS.index(problem.level)):
        _say(f"{problem.level}: {problem.message}")
        for example in problem.examples:
            _say(example, indent=4)
        more = problem.count - len(problem.examples)
        if problem.examples and more > 0:
            _say(f"and {more:,} more", indent=4)
    if report.verdict == "unusable" and reader.facts.request:
        _say(f"{report.title} is asked for at {reader.facts.request} ({reader.facts.licence})")
    _say(report.line())


def _say(text: str, *, indent: int = 0) -> None:
    output.show(" " * indent + output.safe(text))


def _show_counts(report: Report) -> None:
    languages = list(dict.fromkeys(language for count in report.splits.values() for language in count.captions))
    official = any(count.official for count in report.splits.values())
    head = ["split", "identities", "images", *(f"captions {language}" for language in languages)]
    rows = []
    for split, count in report.splits.items():
        row = [split, f"{count.identities:,}", f"{count.images:,}"]
        row += [f"{count.captions.get(language, 0):,}" for language in languages]
        if official:
            known = count.official
            numbers = (known.identities, known.images, known.captions) if known else (None, None, None)
            row.append(" / ".join("?" if number is None else f"{number:,}" for number in numbers))
        rows.append(row)
    _show_rows([*head, *(["official"] if official else [])], rows, right=tuple(range(1, len(head))))


def _show_statistics(found: Statistics) -> None:
    rows = [[split, *(f"{number:,}" for number in count.values())] for split, count in found.splits.items()]
    _show_rows(["split", "identities", "images", "captions"], rows, right=(1, 2, 3))
    head = [
        "",
        "captions",
        "words",
        "vocabulary",
        "met once",
        "unseen",
        "shortest",
        "median",
        "mean",
        "95 %",
        "longest",
    ]
    rows = [
        [
            language,
            *(f"{number:,}" for number in (row.captions, row.words, row.vocabulary, row.once)),
            "" if row.unseen is None else f"{100 * row.unseen:.1f} %",
            f"{row.shortest}",
            f"{row.median:.0f}",
            f"{row.mean:.1f}",
            f"{row.percentile_95:.0f}",
            f"{row.longest}",
        ]
        for language, row in found.languages.items()
    ]
    _show_rows(head, rows, right=tuple(range(1, len(head))))
    for language, row in found.languages.items():
        words = ", ".join(f"{word} {times:,}" for word, times in row.frequent[:FREQUENT_SHOWN])
        _say(f"{language}: {words}")


def _show_rows(head: list[str], rows: list[list[str]], *, right: tuple[int, ...]) -> None:
    safe = [[output.safe(cell) for cell in row] for row in rows]
    for line in output.columns([head, *safe], right=right):
        output.show("  " + line)
