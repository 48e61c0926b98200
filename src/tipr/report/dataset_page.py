"""A data set on one page: its sizes, the lengths and words of its captions by language, and sample pictures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from markupsafe import Markup, escape

from tipr.data.dataset import Reading
from tipr.data.images import ImageProblem, read_image
from tipr.data.manifest import Caption, Record
from tipr.data.statistics import LanguageStatistics, Statistics
from tipr.report.content import LANGUAGE_NAMES
from tipr.report.html import write_page
from tipr.report.pictures import shown_jpeg

WIDTH, HEIGHT, BASE, LEFT = 520, 190, 150, 44
BINS = 40
"""Bars of a histogram at most."""


@dataclass(frozen=True, slots=True)
class Sample:
    """One picture of the page with what is said about it; `jpeg` is None when the file cannot be read."""

    record: Record
    jpeg: bytes | None

    @property
    def captions(self) -> tuple[Caption, ...]:
        """The captions of the image."""
        return self.record.captions


def write_dataset_page(
    reading: Reading, found: Statistics, path: Path, *, title: str, samples: int = 24, seed: int = 0
) -> Path:
    """Write the page as one self-contained HTML file.

    Args:
        reading: of the data set.
        found: its statistics.
        path: the file to write.
        title: official name of the data set.
        samples: pictures to draw, of all splits alike.
        seed: of the draw.

    Raises:
        OSError: the file cannot be written.
    """
    generator = np.random.default_rng(seed)
    positions = sorted(generator.permutation(len(reading.records))[:samples].tolist())
    return write_page(
        "dataset.html.j2",
        path,
        title=title,
        folder=reading.folder.resolve().name,
        found=found,
        language_names=LANGUAGE_NAMES,
        histograms={
            language: length_chart(row, title=f"Words of the {LANGUAGE_NAMES[language]} captions: {_summary(row)}")
            for language, row in found.languages.items()
        },
        samples=[_sample(reading, reading.records[position]) for position in positions],
    )


def length_chart(row: LanguageStatistics, *, title: str) -> Markup:
    """Captions by number of words, as inline SVG with 40 bars at most; the last one holds everything longer."""
    longest = max(row.longest, 1)
    step = max(1, -(-int(max(row.percentile_95 * 1.5, 1)) // BINS))
    bars = [0] * min(BINS, longest // step + 1)
    for length, captions in row.histogram:
        bars[min(length // step, len(bars) - 1)] += captions
    high = max(bars)
    width = (WIDTH - LEFT) / len(bars)
    parts = [
        Markup('<rect x="{:.1f}" y="{:.1f}" width="{:.1f}" height="{:.1f}"/>').format(
            LEFT + place * width, BASE - 130 * count / high, max(width - 1.5, 0.8), 130 * count / high
        )
        for place, count in enumerate(bars)
        if count
    ]
    ticks = [
        Markup('<text x="{:.1f}" y="{}" text-anchor="middle">{}</text>').format(
            LEFT + (place + 0.5) * width, BASE + 18, f"{place * step}"
        )
        for place in _tick_places(len(bars))
    ]
    return Markup(
        '<svg viewBox="0 0 {} {}" role="img" aria-label="{}"><g class="bars">{}</g><g class="t">{}'
        '<text x="{}" y="{}" text-anchor="end">{}</text><text x="{}" y="{}" text-anchor="middle">{}</text></g></svg>'
    ).format(
        WIDTH,
        HEIGHT,
        escape(title),
        Markup("").join(parts),
        Markup("").join(ticks),
        LEFT - 6,
        BASE - 122,
        f"{high:,}",
        (WIDTH + LEFT) / 2,
        BASE + 36,
        "words of a caption",
    )


def _tick_places(count: int) -> Sequence[int]:
    return range(0, count, max(1, count // 8))


def _summary(row: LanguageStatistics) -> str:
    return f"{row.shortest} to {row.longest}, median {row.median:.0f}"


def _sample(reading: Reading, record: Record) -> Sample:
    try:
        return Sample(record, shown_jpeg(read_image(reading.folder / record.image)))
    except ImageProblem:
        return Sample(record, None)
