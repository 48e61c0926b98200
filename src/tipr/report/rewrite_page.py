"""What rewriting did, as a file for a person to review: picture, source, draft and rewrite side by side."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import groupby
from pathlib import Path

from tipr.data.images import ImageProblem, read_image
from tipr.report.content import LANGUAGE_NAMES, Fact
from tipr.report.html import write_page
from tipr.report.pictures import shown_jpeg
from tipr.report.translation_page import RULE_WORDS, suspect_words
from tipr.translation.records import REWRITTEN, Row, read_rows
from tipr.translation.rewrite import REASONS, Rewritten, summarise

PAGE_NAME = "rewritten.html"
SHOWN = 60
"""Captions of one kind and language on the page; the file beside it has all of them."""
THUMBNAIL_HEIGHT = 192
REASON_WORDS = {
    **RULE_WORDS,
    "no_image": "without a readable picture",
    "no_answer": "without an answer",
    "cut_off": "cut off before its end",
    "not_better": "not better than the draft",
}
"""Why a rewrite was refused, in words."""


@dataclass(frozen=True, slots=True)
class Case:
    """One noisy caption.

    Attributes:
        key: of the row.
        jpeg: thumbnail; None where the picture cannot be read.
        source_language, source, language: as in the row.
        draft, rewrite: the texts; None: nothing came.
        draft_figure, rewrite_figure: their noise, or why there is none, in words.
        chosen: "draft", "rewrite" or "nothing": the final text.
    """

    key: str
    jpeg: bytes | None
    source_language: str
    source: str
    language: str
    draft: str | None
    draft_figure: str
    rewrite: str | None
    rewrite_figure: str
    chosen: str


@dataclass(frozen=True, slots=True)
class Kind:
    """Captions with one outcome: a heading, how many there are, and those shown."""

    title: str
    note: str
    count: int
    cases: tuple[Case, ...]


@dataclass(frozen=True, slots=True)
class Part:
    """One language: counts, reasons in words with their counts, and the cases by kind."""

    counts: Rewritten
    reasons: tuple[tuple[str, int], ...]
    kinds: tuple[Kind, ...]

    @property
    def title(self) -> str:
        """The language in words."""
        return LANGUAGE_NAMES.get(self.counts.language, self.counts.language)


def write_rewrite_page(folder: Path | str, images: Path | str, path: Path | str | None = None) -> Path:
    """Write what was rewritten in a folder as one self-contained HTML file.

    What needs a person most comes first: captions without a text, then those whose decision was closest.

    Args:
        folder: the output folder of `tipr translate`, its rewrite stage finished.
        images: folder that the image paths of the rows start from: the manifest's.
        path: the file; None is `rewritten.html` in the folder.

    Raises:
        DatasetError: there is no `rewritten.jsonl`, or a row of it is damaged.
        OSError: the file cannot be written.
    """
    folder = Path(folder)
    rows = list(read_rows(folder / REWRITTEN))
    noisy = sorted((row for row in rows if row["noisy"]), key=lambda row: row["language"])
    by_language = {language: list(members) for language, members in groupby(noisy, key=lambda row: row["language"])}
    counts = [each for each in summarise(rows) if each.noisy]
    kept = sum(each.kept for each in counts)
    return write_page(
        "rewritten.html.j2",
        Path(path or folder / PAGE_NAME),
        made=datetime.now(UTC),
        name=folder.absolute().name,
        headline=f"{kept:,} of {len(noisy):,} noisy translations were rewritten",
        facts=_facts(noisy, counts),
        parts=[_part(each, by_language[each.language], Path(images)) for each in counts],
    )


def _facts(noisy: Sequence[Row], counts: Iterable[Rewritten]) -> list[Fact]:
    counts = list(counts)
    models = sorted({str(row["rewriter"]["model"]) for row in noisy if row["rewriter"] is not None})
    facts = [
        Fact("Drafts that stay", f"{sum(each.noisy - each.kept - each.without_text for each in counts):,}"),
        Fact("Still above the threshold", f"{sum(each.still_noisy for each in counts):,}"),
        Fact("Without a text", f"{sum(each.without_text for each in counts):,}"),
    ]
    if models:
        facts.append(Fact("Model", ", ".join(models), code=True))
    return facts


def _part(counts: Rewritten, rows: Sequence[Row], images: Path) -> Part:
    empty = [row for row in rows if row["text"] is None]
    kept = sorted((row for row in rows if row["kept"]), key=_gain)
    refused = [row for row in rows if not row["kept"] and row["text"] is not None]
    refused.sort(key=lambda row: (-REASONS.index(row["refused"]), -_gain(row)))
    kinds = (
        ("Without a text", "The draft was no translation and the rewrite was refused: write these by hand.", empty),
        ("Rewritten", "The rewrite has less noise than the draft; smallest gain first.", kept),
        ("Draft stays", "The rewrite was refused; closest decisions first.", refused),
    )
    return Part(
        counts,
        tuple((REASON_WORDS[reason], count) for reason, count in counts.refused.items()),
        tuple(
            Kind(title, note, len(members), tuple(_case(row, images) for row in members[:SHOWN]))
            for title, note, members in kinds
            if members
        ),
    )


def _gain(row: Row) -> float:
    """How much less noise the rewrite has than the draft; a draft that broke a rule counts as all noise."""
    if row["rewrite_noise"] is None:
        return 0.0
    draft = 1.0 if row["draft_noise"] is None else row["draft_noise"]
    return float(draft - row["rewrite_noise"])


def _case(row: Row, images: Path) -> Case:
    try:
        jpeg = shown_jpeg(read_image(images / row["image"]), height=THUMBNAIL_HEIGHT)
    except ImageProblem:
        jpeg = None
    return Case(
        key=row["key"],
        jpeg=jpeg,
        source_language=row["source_language"],
        source=row["source"],
        language=row["language"],
        draft=row["draft"],
        draft_figure=_draft_figure(row),
        rewrite=row["rewrite"],
        rewrite_figure=_rewrite_figure(row),
        chosen="nothing" if row["text"] is None else "rewrite" if row["kept"] else "draft",
    )


def _draft_figure(row: Row) -> str:
    if row["rule"] is not None:
        return RULE_WORDS[row["rule"]]
    suspect = suspect_words(row.get("suspect"))
    noise = row["noise"] if row["draft_noise"] is None else row["draft_noise"]
    return f"noise {noise:.3f}" + (f" · {suspect}" if suspect else "")


def _rewrite_figure(row: Row) -> str:
    noise = "" if row["rewrite_noise"] is None else f"noise {row['rewrite_noise']:.3f}"
    refused = "" if row["refused"] is None else REASON_WORDS[row["refused"]]
    return " · ".join(part for part in (noise, refused) if part)
