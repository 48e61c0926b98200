"""Charts that only the report of a training run has: its numbers over the steps, and the map of people."""

from __future__ import annotations

import numpy as np
from markupsafe import Markup

from tipr.report.content import PeopleMap, Series
from tipr.report.svg import WIDTH, opening, text

SMALL_WIDTH, SMALL_HEIGHT = 240.0, 104.0
MAP_HEIGHT, MARGIN = 400.0, 26.0
SHAPES = {
    "en": "m-3.6 0a3.6 3.6 0 1 0 7.2 0a3.6 3.6 0 1 0 -7.2 0Z",  # circle
    "zh": "m0 -4.4l4.4 7.6h-8.8Z",  # triangle
    "fr": "m0 -4.8l4.8 4.8l-4.8 4.8l-4.8 -4.8Z",  # diamond
    "de": "m0 4.4l4.4 -7.6h-8.8Z",  # triangle on its tip
}
"""Shapes of captions by language, around their place; those of another language are circles."""


def series_chart(series: Series) -> Markup:
    """A small chart with its own vertical axis; the highest and the lowest value and the last step are written."""
    low, high = min(series.y), max(series.y)
    first, last = series.x[0], series.x[-1]
    room = (high - low) or 1.0
    top, bottom, left, right = 10.0, SMALL_HEIGHT - 22, 50.0, SMALL_WIDTH - 4

    def place(step: float, value: float) -> str:
        x = left + (right - left) * (step - first) / (last - first)
        return f"{x:.1f} {bottom - (bottom - top) * (value - low) / room:.1f}"

    points = "L".join(place(step, value) for step, value in zip(series.x, series.y, strict=True))
    title = f"{series.name}: {number(series.y[0])} at step {first:,.0f}, {number(series.y[-1])} at step {last:,.0f}"
    parts = [opening(title, SMALL_HEIGHT, SMALL_WIDTH)]
    for height, value in ((top, high), (bottom, low)) if high > low else ((bottom, low),):
        parts.append(Markup('<path class="g" d="M{} {:.1f}H{}"/>').format(left, height, right))
        parts.append(text(left - 6, height + 4, number(value), anchor="end", name=""))
    parts.append(Markup('<path class="s mean thin" d="M{}"/>').format(points))
    parts.append(text(left, SMALL_HEIGHT - 5, f"step {first:,.0f}", anchor="start", name=""))
    parts.append(text(right, SMALL_HEIGHT - 5, f"{last:,.0f}", anchor="end", name=""))
    return Markup("").join([*parts, Markup("</svg>")])


def number(value: float) -> str:
    """Three significant digits, short."""
    if value == 0:
        return "0"
    if abs(value) >= 1e6 or abs(value) < 1e-3:
        mantissa, exponent = f"{value:.1e}".split("e")
        return f"{mantissa}e{int(exponent)}"
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def caption_mark(language: str, x: float, y: float) -> Markup:
    """The sign of a caption: a shape and a colour for each language."""
    shape = SHAPES.get(language, SHAPES["en"])
    return Markup('<path class="said {}" d="M{:.1f} {:.1f}{}"/>').format(language, x, y, shape)


def key_mark(language: str) -> Markup:
    """`caption_mark` on its own, for the key."""
    return Markup('<svg class="chart key" viewBox="0 0 14 14" aria-hidden="true">{}</svg>').format(
        caption_mark(language, 7.0, 7.0)
    )


def map_chart(people: PeopleMap) -> Markup:
    """Pictures are squares, captions have their language's shape and colour; a line leads to the person's number."""
    places = np.array([(point.x, point.y) for point in people.points])
    low, high = places.min(axis=0), places.max(axis=0)
    room = np.array([WIDTH, MAP_HEIGHT]) - 2 * MARGIN
    unit = float((room / np.maximum(high - low, 1e-9)).min())  # one unit for both axes: distances can be compared
    middle = (low + high) / 2
    spots = np.array([WIDTH / 2, MAP_HEIGHT / 2]) + (places - middle) * unit * np.array([1, -1])
    who = np.array([point.person for point in people.points])
    pictures = np.array([point.language is None for point in people.points])
    title = (
        f"{len(people.pictures)} people in two dimensions: {people.nearest_here:.0f} % of the captions lie nearest to "
        f"the pictures of their own person"
    )
    lines, marks, names = [], [], []
    for person in range(1, len(people.pictures) + 1):
        own = who == person
        x, y = spots[own & pictures].mean(axis=0)
        lines += [
            Markup('<path class="ray" d="M{:.1f} {:.1f}L{:.1f} {:.1f}"/>').format(x, y, *spot) for spot in spots[own]
        ]
        names.append(text(x, y + 5, str(person), name="t b who"))
    for point, (x, y) in zip(people.points, spots, strict=True):
        if point.language is None:
            marks.append(Markup('<path class="shot" d="M{:.1f} {:.1f}h7v7h-7Z"/>').format(x - 3.5, y - 3.5))
        else:
            marks.append(caption_mark(point.language, x, y))
    return Markup("").join([opening(title, MAP_HEIGHT), *lines, *marks, *names, Markup("</svg>")])
