"""`tipr search`: rank the pictures of a gallery by a description in words."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tipr.cli import DONE, options

if TYPE_CHECKING:
    from tipr.gallery import Gallery, Hit
    from tipr.retrieval.language import Detection

SHEET_COLUMNS = 10
"""Pictures side by side in a saved PNG."""


@click.command()
@click.argument("gallery", type=click.Path(path_type=Path))
@click.argument("text", nargs=-1)
@click.option("-k", default=10, show_default=True, type=click.IntRange(min=1), metavar="N", help="How many results.")
@click.option(
    "--camera", "cameras", multiple=True, metavar="NAME", help="Only this camera; may be given several times."
)
@click.option("--since", metavar="TIME", help="Only taken from this time on: a date (UTC) or an RFC 3339 time.")
@click.option("--until", metavar="TIME", help="Only up to this time; a date includes its day.")
@click.option("--path", "part", metavar="TEXT", help="Only paths that hold TEXT, or fit it as a pattern with * and ?.")
@click.option(
    "--group-by",
    metavar="COLUMN",
    help="Only the best picture of each identity, camera, or value of a tag COLUMN=VALUE.",
)
@click.option(
    "--rerank",
    type=click.IntRange(min=1),
    metavar="N",
    help="Look at the words and each of the N best pictures together, and order those by that.",
)
@click.option(
    "--language",
    type=click.Choice(["en", "zh", "fr", "de"]),
    help="Language of TEXT; found out by default.",
)
@click.option("--paths", "only_paths", is_flag=True, help="Print paths only, one a line.")
@click.option(
    "--save", "saves", multiple=True, type=click.Path(path_type=Path), metavar="FILE", help="Save as .html or .png."
)
@click.option("--model", metavar="PATH", help="Where the gallery's model lies now, when it was moved.")
@options.common
def command(
    gallery: Path,
    text: tuple[str, ...],
    *,
    k: int,
    cameras: tuple[str, ...],
    since: str | None,
    until: str | None,
    part: str | None,
    group_by: str | None,
    rerank: int | None,
    language: str | None,
    only_paths: bool,
    saves: tuple[Path, ...],
    model: str | None,
    device: str,
    threads: int | None,
    quiet: bool,
    as_json: bool,
) -> int:
    """Rank the pictures of GALLERY whose appearance is most similar to TEXT.

    TEXT is in English, Chinese, French or German; the language is found out and shown. Without it, descriptions are
    read line by line (from a prompt, or from a pipe) until an empty line, and the model stays loaded.
    """
    if as_json and only_paths:
        raise click.UsageError("--json and --paths cannot be combined")
    for save in saves:
        if save.suffix.lower() not in (".html", ".png"):
            raise click.UsageError(f"--save {save}: the name must end in .html or .png")
        if not text:
            raise click.UsageError("--save needs TEXT")
    from tipr.cli import output
    from tipr.cli.progress import progress
    from tipr.gallery import Gallery
    from tipr.gallery.filters import Filters

    filters: dict[str, Any] = {"camera": cameras or None, "since": since, "until": until, "path": part}
    conditions = Filters.of(**filters).words()  # a bad filter is an error before the model is loaded
    opened = Gallery.open(gallery, model=model, device=device, threads=threads)
    for query in [" ".join(text)] if text else _lines(opened):
        spoken = _spoken(query, language)
        notes: list[str] = []
        with progress("reranking", quiet=quiet or rerank is None, unit="pictures") as report:
            hits = opened.search(
                query,
                k,
                group_by=group_by,
                language=spoken.language,
                rerank=rerank,
                say=notes.append,
                progress=report,
                **filters,
            )
        said = _said(spoken, language)
        if as_json:
            _print_json(
                query, hits, gallery, spoken=spoken, forced=language is not None, notes=notes, one_line=not text
            )
        else:
            _print(hits, only_paths=only_paths)
            for note in [said, *notes]:
                output.note(note, quiet=quiet)
        if not hits:
            _explain_nothing(opened, conditions, quiet)
        elif not as_json:
            output.note(output.NOT_AN_IDENTIFICATION, quiet=quiet)
        for save in saves:
            try:
                _save(save, query, hits, opened, filters=[said, *conditions], notes=notes)
            except OSError as error:
                raise click.ClickException(f"cannot write {save}: {error.strerror or error}") from None
            output.note(f"saved {save}", quiet=quiet)
    return DONE


def _lines(gallery: Gallery) -> Iterator[str]:
    """Queries from a prompt or a pipe; everything slow is done before the first one is asked for."""
    if not len(gallery):
        yield "anything"  # lets the search say that the gallery is empty
        return
    _ = gallery.retriever
    reconfigure = getattr(sys.stdin, "reconfigure", None)
    if reconfigure is not None:
        reconfigure(errors="replace")
    while line := _ask().strip():
        yield line


def _ask() -> str:
    """One line; the prompt never ends up among results that go into a pipe or a file."""
    prompt = "description> "
    if not sys.stdin.isatty():
        return sys.stdin.readline()
    if not sys.stdout.isatty():
        click.echo(prompt, err=True, nl=False)
        return sys.stdin.readline()
    import readline  # noqa: F401  (gives `input` line editing and history)

    try:
        return input(prompt)
    except EOFError:
        return ""


def _spoken(query: str, forced: str | None) -> Detection:
    """The language of a query: the forced one, or what it is taken for."""
    from tipr.retrieval.language import Detection, detect_language

    return detect_language(query) if forced is None else Detection(forced, 1.0)


def _said(spoken: Detection, forced: str | None) -> str:
    if spoken.language is None:
        return "language: not recognised; --language can name it"
    return f"language: {spoken.name}" + ("" if forced else " (detected)")


def _print_json(
    query: str, hits: list[Hit], gallery: Path, *, spoken: Detection, forced: bool, notes: list[str], one_line: bool
) -> None:
    from tipr.cli import output

    results = [
        {"rank": rank, "id": hit.id, "score": hit.score, "match": hit.match, **hit.metadata}
        for rank, hit in enumerate(hits, 1)
    ]
    answer = {
        "query": query,
        "language": {"code": spoken.language, "forced": forced, "confidence": spoken.confidence},
        "gallery": str(gallery),
        "note": output.NOT_AN_IDENTIFICATION,
        "notes": notes,
        "results": results,
    }
    output.show(output.json_text(answer, indent=None if one_line else 2))
    sys.stdout.flush()


def _print(hits: list[Hit], *, only_paths: bool) -> None:
    from tipr.cli import output

    if only_paths:
        for hit in hits:
            output.show_path(hit.metadata["path"])
    else:
        reranked = any(hit.match is not None for hit in hits)
        rows = [_cells(rank, hit, reranked) for rank, hit in enumerate(hits, 1)]
        for line, hit in zip(output.columns(rows, right=(0, 3) if reranked else (0,)), hits, strict=True):
            output.show(click.style(line, bold=True) if hit.metadata["band"] == "stands_out" else line)
    sys.stdout.flush()


def _cells(rank: int, hit: Hit, reranked: bool) -> list[str]:
    """Rank, band, similarity, match score where there are some, path, camera, time."""
    from tipr.cli import output
    from tipr.gallery.bands import BAND_NAMES

    known: dict[str, Any] = dict(hit.metadata)
    path = output.safe(output.short_path(known["path"]))
    if known["box"] is not None:
        path += " [" + ", ".join(f"{number:g}" for number in known["box"]) + "]"
    camera, time = output.safe(known["camera"] or ""), _minute(hit) or ""
    match = [] if not reranked else ["" if hit.match is None else f"{hit.match:+.2f}"]
    return [str(rank), BAND_NAMES[known["band"]], f"{hit.score:.3f}", *match, path, camera, time]


def _minute(hit: Hit) -> str | None:
    """When the picture was taken, for people to read (UTC)."""
    time: str | None = hit.metadata["time"]
    return time and time[:16].replace("T", " ")


def _explain_nothing(gallery: Gallery, conditions: list[str], quiet: bool) -> None:
    from tipr.cli import output

    facts = gallery.info()
    names = [name for name in facts.cameras if name is not None]
    there = f"; cameras here: {', '.join(names[:12])}" if names else ""
    there += "" if facts.first else "; no picture here has a time"
    output.note(f"no picture passes the filters ({'; '.join(conditions)}){there}", quiet=quiet)


def _save(path: Path, query: str, hits: list[Hit], gallery: Gallery, *, filters: list[str], notes: list[str]) -> None:
    from tipr.cli import output

    pictures = gallery.thumbnails([hit.id for hit in hits])
    if path.suffix.lower() == ".html":
        from tipr.report.results_page import Result, write_results_page

        results = [
            Result(
                rank=rank,
                jpeg=jpeg,
                band=hit.metadata["band"],
                name=output.short_path(hit.metadata["path"]),
                camera=hit.metadata["camera"],
                time=_minute(hit),
                reranked=hit.match is not None,
            )
            for rank, (hit, jpeg) in enumerate(zip(hits, pictures, strict=True), 1)
        ]
        name = gallery.path.resolve().name
        write_results_page(
            query, results, path, gallery_name=name, gallery_size=len(gallery), filters=filters, notes=notes
        )
        return
    from tipr.gallery.bands import BAND_NAMES
    from tipr.report.contact_sheet import SheetRow, contact_sheet

    if not hits:
        raise click.ClickException("there is no picture to save")
    labels = [f"{rank}  {BAND_NAMES[hit.metadata['band']]}" for rank, hit in enumerate(hits, 1)]
    rows = []
    for start in range(0, len(hits), SHEET_COLUMNS):
        part = slice(start, start + SHEET_COLUMNS)
        rows.append(SheetRow("" if start else query, pictures[part], labels[part], [False] * len(labels[part])))
    contact_sheet(rows, path)
