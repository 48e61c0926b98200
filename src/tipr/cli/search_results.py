"""What `tipr search` shows and saves of its hits."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from tipr.gallery import Gallery, Hit
    from tipr.gallery.query import Query
    from tipr.retrieval.language import Detection

SHEET_COLUMNS = 10
"""Pictures side by side in a saved PNG."""


def said(spoken: Detection | None, forced: str | None) -> list[str]:
    """The language of a query, in words; nothing for one without words."""
    if spoken is None:
        return []
    if spoken.language is None:
        return ["language: not recognised; --language can name it"]
    return [f"language: {spoken.name}" + ("" if forced else " (detected)")]


def print_json(
    query: Query,
    hits: list[Hit],
    gallery: Path,
    *,
    spoken: Detection | None,
    forced: bool,
    notes: Sequence[str] = (),
    cursor: str | None = None,
    one_line: bool = True,
) -> None:
    """One JSON object of a query and its hits."""
    from tipr.cli import output

    results = [
        {"rank": rank, "id": hit.id, "score": hit.score, "match": hit.match, **hit.metadata}
        for rank, hit in enumerate(hits, 1)
    ]
    language = spoken and {"code": spoken.language, "forced": forced, "confidence": spoken.confidence}
    answer = {
        "query": query.text,
        **({} if query.image is None else {"image": str(query.image)}),
        **({} if query.without is None else {"not": query.without}),
        "language": language,
        "gallery": str(gallery),
        "note": output.NOT_AN_IDENTIFICATION,
        "notes": list(notes),
        "cursor": cursor,
        "results": results,
    }
    output.show(output.json_text(answer, indent=None if one_line else 2))
    sys.stdout.flush()


def print_table(hits: list[Hit], *, only_paths: bool, title: str = "") -> None:
    """Hits as lines for people, below a title if there is one, or paths alone."""
    from tipr.cli import output

    if title and not only_paths:
        output.show(click.style(output.safe(title), underline=True))
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


def explain_nothing(gallery: Gallery, conditions: list[str], quiet: bool) -> None:
    """Say why nothing passed the filters."""
    from tipr.cli import output

    facts = gallery.info()
    names = [name for name in facts.cameras if name is not None]
    there = f"; cameras here: {', '.join(names[:12])}" if names else ""
    there += "" if facts.first else "; no picture here has a time"
    output.note(f"no picture passes the filters ({'; '.join(conditions)}){there}", quiet=quiet)


def save_as(path: Path, query: str, hits: list[Hit], gallery: Gallery, *, filters: list[str], notes: list[str]) -> None:
    """Save hits with their pictures as a page (`.html`) or a contact sheet (`.png`)."""
    try:
        _save(path, query, hits, gallery, filters=filters, notes=notes)
    except OSError as error:
        raise click.ClickException(f"cannot write {path}: {error.strerror or error}") from None


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
