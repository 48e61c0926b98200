"""What a filter of translations did, as a page for a person: histograms of noise and the borderline examples."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from markupsafe import Markup

from tipr.report.charts import noise_chart
from tipr.report.content import LANGUAGE_NAMES, Fact
from tipr.report.html import write_page
from tipr.translation.records import FILTERED, Row, read_rows
from tipr.translation.rules import RULES

PAGE_NAME = "filtered.html"
BORDERLINE = 6
"""Examples on each side of a threshold."""
NOISIEST = 3
BY_RULE = 2
"""Examples of each rule."""
RULE_WORDS = {
    "empty": "empty",
    "wrong_script": "in another script",
    "untranslated": "still the source",
}
THINGS = {
    "shoe": "shoes",
    "action": "walking or standing",
    "view": "side that is seen",
    "eyewear": "glasses",
    "inner": "garment underneath",
    "bottom": "lower garment",
    "top": "upper garment",
    "gender": "man or woman",
    "phone": "phone in the hand",
}
"""Where the estimator saw noise -> words for it; what is not listed is its own word."""


@dataclass(frozen=True, slots=True)
class Example:
    """One translation as it is shown; `suspect` is where the estimator saw the noise, or the rule, in words."""

    key: str
    source_language: str
    source: str
    language: str
    text: str
    noise: float | None
    suspect: str


@dataclass(frozen=True, slots=True)
class Part:
    """One language of one split.

    Attributes:
        language, split: of the captions; split None where there are none.
        captions: all; `scored` of them have a noise value, `noisy` of these above the threshold.
        by_rule: (rule in words, captions) in the order of the rules.
        chart: the histogram.
        kept, set_aside: the examples nearest to the threshold, nearest first.
        noisiest: the examples with the most noise.
        broken: examples of each rule.
    """

    language: str
    split: str | None
    captions: int
    scored: int
    noisy: int
    threshold: float
    by_rule: tuple[tuple[str, int], ...]
    chart: Markup | None
    kept: tuple[Example, ...]
    set_aside: tuple[Example, ...]
    noisiest: tuple[Example, ...]
    broken: tuple[Example, ...]

    @property
    def title(self) -> str:
        """Language and split in words."""
        name = LANGUAGE_NAMES.get(self.language, self.language)
        return f"{name}, {self.split}" if self.split else name

    @property
    def limit(self) -> str:
        """The threshold in words."""
        return _limit_words(self.threshold)

    @property
    def anchor(self) -> str:
        """Its place on the page."""
        return f"{self.language}-{self.split}" if self.split else self.language

    @property
    def by_rules(self) -> int:
        """Captions caught by any rule."""
        return self.captions - self.scored


def write_translation_page(folder: Path | str, path: Path | str | None = None) -> Path:
    """Write what the filter did to the translations of a folder as one self-contained HTML file.

    Args:
        folder: the output folder of `tipr translate`, its filter stage finished.
        path: the file; None is `filtered.html` in the folder.

    Raises:
        DatasetError: there is no filtered file, or a row of it is damaged.
        OSError: the file cannot be written.
    """
    folder = Path(folder)
    rows = list(read_rows(folder / FILTERED))
    parts = [_part(members) for members in _groups(rows)]
    captions, noisy = len(rows), sum(row["noisy"] for row in rows)
    return write_page(
        "translation.html.j2",
        Path(path or folder / PAGE_NAME),
        made=datetime.now(UTC),
        name=folder.absolute().name,
        headline=f"{noisy:,} of {captions:,} translations are set aside as noisy",
        parts=parts,
        facts=_facts(rows, parts),
    )


def suspect_words(suspect: str | None) -> str:
    """Where the noise was seen, in words: top_color -> colour of the upper garment."""
    if suspect is None:
        return ""
    name, _, color = suspect.partition("_")
    thing = THINGS.get(name, name)
    return f"colour of the {thing}" if color else thing


def _groups(rows: Iterable[Row]) -> list[list[Row]]:
    groups: dict[tuple[str, str | None], list[Row]] = {}
    for row in rows:
        groups.setdefault((row["language"], row.get("split")), []).append(row)
    return list(groups.values())


def _facts(rows: Sequence[Row], parts: Sequence[Part]) -> list[Fact]:
    by_rule = sum(part.by_rules for part in parts)
    above = sum(part.noisy for part in parts)
    facts = [
        Fact("Translations", f"{len(rows):,}"),
        Fact("Above the threshold", f"{above:,}"),
        Fact("Caught by rule", f"{by_rule:,}"),
    ]
    if rows:
        estimator: dict[str, Any] = rows[0]["estimator"]
        facts.append(Fact("Estimator", str(estimator["name"])))
    return facts


def _part(rows: Sequence[Row]) -> Part:
    threshold = float(rows[0]["threshold"])
    scored = sorted((row for row in rows if row["noise"] is not None), key=lambda row: (row["noise"], row["key"]))
    below = [row for row in scored if row["noise"] <= threshold]
    above = scored[len(below) :]
    noise = np.array([row["noise"] for row in scored])
    language = rows[0]["language"]
    broken = {rule: [row for row in rows if row["rule"] == rule] for rule in RULES}
    return Part(
        language=language,
        split=rows[0].get("split"),
        captions=len(rows),
        scored=len(scored),
        noisy=len(above),
        threshold=threshold,
        by_rule=tuple((RULE_WORDS[rule], len(members)) for rule, members in broken.items()),
        chart=noise_chart(noise, threshold=threshold, title=_finding(language, noise, threshold)) if scored else None,
        kept=tuple(map(_example, reversed(below[-BORDERLINE:]))),
        set_aside=tuple(map(_example, above[:BORDERLINE])),
        noisiest=tuple(map(_example, reversed(above[BORDERLINE:][-NOISIEST:]))),
        broken=tuple(_example(row) for members in broken.values() for row in members[:BY_RULE]),
    )


def _finding(language: str, noise: np.ndarray, threshold: float) -> str:
    share = 100 * float((noise > threshold).mean())
    name = LANGUAGE_NAMES.get(language, language)
    limit = _limit_words(threshold)
    return f"Noise of {len(noise):,} translations ({name}): {share:.1f} % lie above the threshold {limit}"


def _limit_words(threshold: float) -> str:
    """A threshold with two decimals, or as many as it has."""
    return f"{threshold:.2f}" if math.isclose(threshold, round(threshold, 2)) else f"{threshold:g}"


def _example(row: Row) -> Example:
    suspect = suspect_words(row.get("suspect"))
    return Example(
        key=row["key"],
        source_language=row["source_language"],
        source=row["source"],
        language=row["language"],
        text=row["draft"] or "",
        noise=row["noise"],
        suspect=RULE_WORDS[row["rule"]] if row["rule"] else suspect and f"least sure: {suspect}",
    )
