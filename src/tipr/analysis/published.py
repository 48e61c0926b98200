"""Published figures: every row of the tables of three papers, with its source, as package data."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

FILE = Path(__file__).resolve().parent.parent / "assets" / "published" / "results.json"
MULTILINGUAL = "(M)"
"""Behind the name of a data set in several languages; its English captions are those of the set without it."""


@dataclass(frozen=True, slots=True)
class Names:
    """How a method of ours is called in print.

    Attributes:
        own: the source that its makers wrote.
        printed: its names in all sources.
    """

    own: str
    printed: tuple[str, ...]


METHODS: Mapping[str, Names] = {
    "bi_irra": Names("Bi-IRRA (arXiv 2510.17685v1)", ("Bi-IRRA",)),
    "clip_baseline": Names("IRRA repository README", ("CLIP ViT-B/16 InfoNCE",)),
    "dual_granularity": Names("dual-granularity (MM 2025)", ("Dual-granularity (ours)",)),
    "irra": Names("IRRA (CVPR 2023)", ("IRRA", "IRRA (ours)")),
}
DETAILS = ("ablation", "interaction module", "variants", "masking", "strategy")
"""Words in the headings of tables that take a method apart, whose full row only repeats the main table's."""


@dataclass(frozen=True, slots=True)
class PublishedResult:
    """One row of a published table, on one data set and language.

    Attributes:
        source: paper or page.
        table: in it.
        setting: heading of the row's group.
        method: as printed.
        dataset: as printed, such as `CUHK-PEDES(M)`.
        language: of the captions.
        scores: metric -> percent; a metric that is not printed is not there.
        selection: "test" when its epoch was chosen on the test split, else "not stated".
        note: what to know about the figures, or None.
    """

    source: str
    table: str
    setting: str
    method: str
    dataset: str
    language: str
    scores: Mapping[str, float]
    selection: str
    note: str | None = None
    components: Mapping[str, bool] = field(default_factory=dict)

    @property
    def place(self) -> str:
        """Source, table and heading, for a column of a table."""
        return f"{self.source}, {self.table}, {self.setting.lower()}"


@cache
def published_results() -> tuple[PublishedResult, ...]:
    """All rows, in the order of the papers."""
    tree = json.loads(FILE.read_text(encoding="utf-8"))
    rules = {name: source["selection"] for name, source in tree["sources"].items()}
    return tuple(PublishedResult(**row, selection=rules[row["source"]]) for row in tree["results"])


def sources() -> Mapping[str, Mapping[str, str]]:
    """Source -> its citation, how its epochs were selected, and how that is known."""
    tree: dict[str, Any] = json.loads(FILE.read_text(encoding="utf-8"))
    return dict(tree["sources"])


def published(dataset: str, language: str, *, methods: Sequence[str] | None = None) -> list[PublishedResult]:
    """The rows to compare with.

    Args:
        dataset: title of the data set; the English captions of a set in several languages are those of the plain one.
        language: of the captions.
        methods: keys of `METHODS`: the main rows of these methods, as their own makers print them, or as others do
            where they print none. None: all rows.
    """
    titles = {dataset}
    if language == "en":
        titles.add(dataset.removesuffix(MULTILINGUAL))
    rows = [row for row in published_results() if row.dataset in titles and row.language == language]
    if methods is None:
        return rows
    chosen = []
    for names in (METHODS[method] for method in methods if method in METHODS):
        printed = [row for row in rows if row.method in names.printed and not any(w in row.setting for w in DETAILS)]
        chosen += [row for row in printed if row.source == names.own] or printed
    return chosen
