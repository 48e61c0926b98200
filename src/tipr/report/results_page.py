"""One search saved as a page: the words, the pictures in order, what was searched."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import groupby
from pathlib import Path

from tipr.report.html import write_page


@dataclass(frozen=True, slots=True)
class Result:
    """One result of a saved search: rank, picture, band and what is known of the picture, as it is to be shown.

    `reranked`: a second stage put it at its place, so that bands no longer follow each other.
    """

    rank: int
    jpeg: bytes
    band: str
    name: str
    camera: str | None = None
    time: str | None = None
    reranked: bool = False


RERANKED = "reranked"
"""Zone of the results that a second stage ordered, in place of their bands."""


def write_results_page(
    query: str,
    results: Sequence[Result],
    path: Path,
    *,
    gallery_name: str,
    gallery_size: int,
    filters: Sequence[str] = (),
    notes: Sequence[str] = (),
) -> Path:
    """Write one search as a self-contained HTML file.

    Args:
        query: the words, as typed; shown without control characters.
        results: best first.
        path: the file to write.
        gallery_name: shown, escaped.
        gallery_size: pictures in the gallery before filters.
        filters: the filters in words, for example `camera = door`.
        notes: sentences to be read with the results.
    """
    return write_page(
        "results.html.j2",
        path,
        query=query,
        results=results,
        zones=[(zone, list(members)) for zone, members in groupby(results, key=_zone)],
        gallery_name=gallery_name,
        gallery_size=gallery_size,
        filters=filters,
        notes=notes,
        made=datetime.now(UTC),
    )


def _zone(result: Result) -> str:
    return RERANKED if result.reranked else result.band
