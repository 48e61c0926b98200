"""Charts as inline SVG, styled by the page's own tokens: 0-100 axes, direct words, dash patterns besides colour."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
from markupsafe import Markup

from tipr.report.content import LANGUAGE_NAMES, Curve
from tipr.report.svg import (
    AXIS_TITLE,
    BOTTOM,
    KEY,
    LEFT,
    RIGHT,
    TOP,
    linear_scale,
    log_scale,
    opening,
    percent_height,
    text,
    tick,
)

LABEL_GAP = 4.0
"""Between a peak and its word, where two peaks are near each other."""
SMALLEST_ZONE = 50.0
"""A word of a band needs this much room between two lines."""


def found_chart(curves: Sequence[Curve], *, reference: Curve | None, chance: Curve | None, title: str) -> Markup:
    """Share of queries whose right person is within the first k results; k on a logarithmic axis.

    The key under the chart gives each language's share at rank 1.
    """
    last = max((curve.x[-1] for curve in curves), default=10.0)
    scale = log_scale(1.0, max(last, 2.0))
    ticks = [(k, f"{k:g}") for k in (1, 2, 5, 10, 20, 50, 100) if k <= last]
    extra = []
    for curve, name, word in ((reference, "refl", "reference reader"), (chance, "chance", "chance")):
        if curve is not None:
            extra.append(_line(curve, scale, f"s {name}"))
            extra.append(text(scale(curve.x[-1]), percent_height(curve.y[-1]) - 6, word, anchor="end"))
    figures = [f"{curve.y[0]:.1f}" for curve in curves]
    return _chart(
        curves, scale, ticks, title=title, extra=extra, axis="the first k results (log scale)", figures=figures
    )


def learning_chart(curves: Sequence[Curve], *, chosen_epoch: int | None, title: str) -> Markup:
    """R@1 on the validation people per epoch; a ring marks the epoch that was kept."""
    last = max((curve.x[-1] for curve in curves), default=1.0)
    scale = linear_scale(0.0, max(last, 1.0))
    step = max(1, 10 ** int(math.log10(max(last, 1))))
    step = next(s for s in (step, 2 * step, 5 * step, 10 * step) if last / s <= 7)
    ticks = [(float(epoch), f"{epoch:g}") for epoch in np.arange(0, last + 1e-9, step)]
    marks = []
    mean = next((curve for curve in curves if curve.language is None), None)
    if mean is not None and chosen_epoch is not None and float(chosen_epoch) in mean.x:
        value = mean.y[mean.x.index(float(chosen_epoch))]
        x, y = scale(float(chosen_epoch)), percent_height(value)
        marks.append(Markup('<path class="drop" d="M{:.1f} {:.1f}V{:.1f}"/>').format(x, y, BOTTOM))
        marks.append(Markup('<circle class="ring" cx="{:.1f}" cy="{:.1f}" r="5"/>').format(x, y))
        height = y + 44 if y + 60 < BOTTOM else y - 30
        left = x > (LEFT + RIGHT) / 2
        words = f"epoch {chosen_epoch}: {value:.1f}"
        marks.append(text(x - 9 if left else x + 9, height, words, anchor="end" if left else "start", name="t b"))
    return _chart(curves, scale, ticks, title=title, marks=marks, axis="epoch")


def similarity_chart(right: np.ndarray, other: np.ndarray, *, limits: tuple[float, float], title: str) -> Markup:
    """Two histograms of similarity on one axis, each scaled to its own highest step, and the zones of the bands."""
    low = math.floor(10 * float(min(right.min(), other.min()))) / 10
    high = float(max(right.max(), other.max()))
    high = math.ceil(10 * max(high, limits[1] + 0.15 * (high - low))) / 10  # room for the word of the last zone
    edges = np.linspace(low, high, 61)
    scale = linear_scale(low, high)
    parts = [opening(title, BOTTOM + 42)]
    for value in np.arange(low, min(high, 1.0) + 1e-9, 0.2 if high - low > 1 else 0.1):  # no cosine is above 1
        parts.append(tick(scale(float(value)), f"{round(value, 1) + 0.0:.1f}"))  # + 0.0: no minus before zero
    crest = TOP + 40
    for name, values in (("neg", other), ("pos", right)):
        counts, _ = np.histogram(values, bins=edges)
        share = counts / max(1, counts.max())
        points = "".join(
            f"V{BOTTOM - (BOTTOM - crest) * height:.1f}H{scale(float(edge)):.1f}"
            for height, edge in zip(share, edges[1:], strict=True)
        )
        parts.append(Markup('<path class="{}" d="M{:.1f} {}{}V{}Z"/>').format(name, scale(low), BOTTOM, points, BOTTOM))
    similar, stands_out = (scale(limit) for limit in limits)
    parts.extend(
        Markup('<path class="lim" d="M{:.1f} {}V{}"/>').format(x, TOP - 4, BOTTOM) for x in (similar, stands_out)
    )
    between = TOP + 8 if stands_out - similar >= SMALLEST_ZONE else TOP - 8
    parts.append(text(similar - 7, TOP + 8, "weak", anchor="end"))
    parts.append(text((similar + stands_out) / 2, between, "similar"))
    parts.append(text(stands_out + 7, TOP + 8, "stands out", anchor="start"))
    of_other, of_right = (scale(float(np.median(values))) for values in (other, right))
    near = abs(of_right - of_other) < 2 * SMALLEST_ZONE
    first, second = ("end", "start") if of_other <= of_right else ("start", "end")
    apart = (LABEL_GAP if of_other <= of_right else -LABEL_GAP) if near else 0.0
    parts.append(text(of_other - apart, crest - 8, "other people", anchor=first if near else "middle"))
    parts.append(text(of_right + apart, crest - 8, "right person", anchor=second if near else "middle", name="t rt"))
    parts.append(text((LEFT + RIGHT) / 2, AXIS_TITLE, "cosine similarity of text and picture", name=""))
    return Markup("").join([*parts, Markup("</svg>")])


def noise_chart(noise: np.ndarray, *, threshold: float, title: str) -> Markup:
    """Histogram of values in [0, 1] with a threshold; counts on a logarithmic axis, for most captions have hardly any.

    Bars left and right of the threshold differ, so a step of the histogram ends there.
    """
    edges = np.unique(np.append(np.linspace(0.0, 1.0, 41), threshold))
    counts, _ = np.histogram(noise, bins=edges)
    top = 10 ** math.ceil(math.log10(max(10, counts.max() + 1)))
    scale = linear_scale(0.0, 1.0)

    def height(count: float) -> float:
        """A single caption is visible, none is not."""
        return BOTTOM - (BOTTOM - TOP - 16) * (math.log10(count) + 0.15) / (math.log10(top) + 0.15)

    parts = [opening(title, BOTTOM + 42)]
    for value in (10**power for power in range(int(math.log10(top)) + 1)):
        parts.append(Markup('<path class="g" d="M{} {:.1f}H{}"/>').format(LEFT, height(value), RIGHT))
        parts.append(text(LEFT - 8, height(value) + 4, f"{value:,}", anchor="end", name=""))
    parts.extend(tick(scale(value / 5), f"{value / 5:.1f}") for value in range(6))
    for count, left, right in zip(counts.tolist(), edges, edges[1:], strict=False):
        if count:
            kind = "low" if right <= threshold else "high"
            x, end = scale(float(left)), scale(float(right))
            parts.append(
                Markup('<path class="{}" d="M{:.1f} {}V{:.1f}H{:.1f}V{}Z"/>').format(
                    kind, x + 0.5, BOTTOM, height(count), max(end - 0.5, x + 1.0), BOTTOM
                )
            )
    at = scale(threshold)
    parts.append(Markup('<path class="lim" d="M{:.1f} {}V{}"/>').format(at, TOP - 4, BOTTOM))
    early = threshold < 0.5
    words = f"threshold {threshold:.2f}: set aside to the right"
    parts.append(text(at + (7 if early else -7), TOP + 6, words, anchor="start" if early else "end"))
    parts.append(text((LEFT + RIGHT) / 2, AXIS_TITLE, "noise (captions on a log scale)", name=""))
    return Markup("").join([*parts, Markup("</svg>")])


def _chart(
    curves: Sequence[Curve],
    scale: Callable[[float], float],
    ticks: Sequence[tuple[float, str]],
    *,
    title: str,
    axis: str,
    extra: Sequence[Markup] = (),
    marks: Sequence[Markup] = (),
    figures: Sequence[str] = (),
) -> Markup:
    """Axes, `extra` below the curves, `marks` above them, and the key with a figure for each curve."""
    parts = [opening(title, KEY + 8)]
    for value in (0, 25, 50, 75, 100):
        parts.append(Markup('<path class="g" d="M{} {:.1f}H{}"/>').format(LEFT, percent_height(value), RIGHT))
        parts.append(text(LEFT - 8, percent_height(value) + 4, str(value), anchor="end", name=""))
    parts.extend(tick(scale(at), label) for at, label in ticks)
    parts.append(text((LEFT + RIGHT) / 2, AXIS_TITLE, axis, name=""))
    parts.extend(extra)
    parts.extend(_line(curve, scale, _style(curve)) for curve in curves)
    parts.extend(marks)
    width = (RIGHT - LEFT) / max(4, len(curves))
    for place, curve in enumerate(curves):
        x = LEFT + place * width
        parts.append(Markup('<path class="{}" d="M{:.1f} {:.1f}h20"/>').format(_style(curve), x, KEY - 4))
        word = "mean" if curve.language is None else LANGUAGE_NAMES.get(curve.language, curve.language)
        words = f"{word} {figures[place]}" if figures else word
        parts.append(text(x + 25, KEY, words, anchor="start", name="t b" if curve.language is None else "t"))
    return Markup("").join([*parts, Markup("</svg>")])


def _style(curve: Curve) -> str:
    return f"s {curve.language} thin" if curve.language else "s mean"


def _line(curve: Curve, scale: Callable[[float], float], name: str) -> Markup:
    points = "L".join(f"{scale(x):.1f} {percent_height(y):.1f}" for x, y in zip(curve.x, curve.y, strict=True))
    return Markup('<path class="{}" d="M{}"/>').format(name, points)
