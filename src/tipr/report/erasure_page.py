"""What an erasure would take, as a page or a sheet of pictures to be looked at by a person first."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from tipr.report.contact_sheet import SheetRow, contact_sheet
from tipr.report.html import write_page

SHEET_COLUMNS = 10
"""Pictures side by side in a PNG."""


@dataclass(frozen=True, slots=True)
class Reviewed:
    """One picture of the review, as it is to be shown: `band` in words, `hold` names the legal hold that keeps it."""

    id: int
    jpeg: bytes
    name: str
    camera: str | None = None
    time: str | None = None
    identity: str | None = None
    similarity: float | None = None
    band: str | None = None
    hold: str | None = None


def write_erasure_page(
    pictures: Sequence[Reviewed],
    path: Path,
    *,
    question: str,
    gallery_name: str,
    total: int,
    notes: Sequence[str] = (),
) -> Path:
    """Write the review as one self-contained HTML file.

    Args:
        pictures: in the order to look at them.
        path: the file to write.
        question: how they were chosen, for example `identity 7`.
        gallery_name: shown, escaped.
        total: how many pictures were chosen, of which `pictures` may be a part.
        notes: sentences to be read with them.
    """
    return write_page(
        "erasure.html.j2",
        path,
        groups=[
            (True, [picture for picture in pictures if picture.hold is None]),
            (False, [picture for picture in pictures if picture.hold is not None]),
        ],
        shown=len(pictures),
        question=question,
        gallery_name=gallery_name,
        total=total,
        notes=notes,
        made=datetime.now(UTC),
    )


def write_erasure_sheet(pictures: Sequence[Reviewed], path: Path, *, question: str) -> Path:
    """Write the review as one PNG, ten pictures side by side, each with its id.

    Raises:
        ValueError: there is no picture.
    """
    labels = [f"{picture.id}  {'on hold' if picture.hold else picture.band or ''}".rstrip() for picture in pictures]
    rows = []
    for start in range(0, len(pictures), SHEET_COLUMNS):
        part = slice(start, start + SHEET_COLUMNS)
        jpegs = [picture.jpeg for picture in pictures[part]]
        rows.append(SheetRow("" if start else question, jpegs, labels[part], [False] * len(jpegs)))
    return contact_sheet(rows, path, heading="Review before erasure")
