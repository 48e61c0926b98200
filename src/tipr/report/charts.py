"""Charts as inline SVG, styled by the page's own tokens: 0-100 axes, direct words, dash patterns besides colour."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
from markupsafe import Markup, escape

from tipr.report.content import Curve

LEFT, TOP, RIGHT, BOTTOM, WIDTH, HEIGHT = 40.0, 14.0, 466.0, 282.0, 520, 320


def found_chart(curves: Sequence[Curve], *, reference: Curve | None, title: str) -> Markup:
    """Share of queries whose right person is within the first k results; k on a logarithmic axis."""
    last = max((curve.x[-1] for curve in curves), default=10.0)
    scale = _log_scale(1.0, max(last, 2.0))
    ticks = [(k, f"{k:g}") for k in (1, 2, 5, 10, 20, 50, 100) if k <= last]
    extra = []
    if reference is not None:
        extra.append(_line(reference, scale, "s refl"))
        extra.append(_label(scale(reference.x[-1]), _y(reference.y[-1]), "reference", above=True))
    return _chart(curves, scale, ticks, title=title, extra=extra, axis="first k results")


def learning_chart(curves: Sequence[Curve], *, chosen_epoch: int | None, title: str) -> Markup:
    """R@1 on the validation people per epoch; a ring marks the epoch that was kept."""
    last = max((curve.x[-1] for curve in curves), default=1.0)
    scale = _linear_scale(0.0, max(last, 1.0))
    step = max(1, 10 ** int(math.log10(max(last, 1))))
    step = next(s for s in (step, 2 * step, 5 * step, 10 * step) if last / s <= 7)
    ticks = [(float(epoch), f"{epoch:g}") for epoch in np.arange(0, last + 1e-9, step)]
    extra = []
    mean = next((curve for curve in curves if curve.language is None), None)
    if mean is not None and chosen_epoch is not None and float(chosen_epoch) in mean.x:
        x, y = scale(float(chosen_epoch)), _y(mean.y[mean.x.index(float(chosen_epoch))])
        extra.append(Markup('<path class="drop" d="M{:.1f} {:.1f}V{:.1f}"/>').format(x, y, BOTTOM))
        extra.append(Markup('<circle class="ring" cx="{:.1f}" cy="{:.1f}" r="5"/>').format(x, y))
    return _chart(curves, scale, ticks, title=title, extra=extra, axis="epoch")


def similarity_chart(right: np.ndarray, other: np.ndarray, *, limits: tuple[float, float], title: str) -> Markup:
    """Two histograms of similarity on one axis, each scaled to its own highest step."""
    low = math.floor(10 * float(min(right.min(), other.min()))) / 10
    high = math.ceil(10 * float(max(right.max(), other.max()))) / 10
    edges = np.linspace(low, high, 61)
    scale = _linear_scale(low, high)
    parts = [_open(title)]
    for value in np.arange(low, high + 1e-9, 0.2 if high - low > 1 else 0.1):
        parts.append(_tick(scale(float(value)), f"{round(value, 1) + 0.0:.1f}"))  # + 0.0: no minus before zero
    for name, values in (("neg", other), ("pos", right)):
        counts, _ = np.histogram(values, bins=edges)
        share = counts / max(1, counts.max())
        points = "".join(
            f"V{BOTTOM - (BOTTOM - TOP) * height:.1f}H{scale(float(edge)):.1f}"
            for height, edge in zip(share, edges[1:], strict=True)
        )
        parts.append(Markup('<path class="{}" d="M{:.1f} {}{}V{}Z"/>').format(name, scale(low), BOTTOM, points, BOTTOM))
    for limit, word in zip(limits, ("similar", "stands out"), strict=True):
        x = scale(limit)
        end = x > LEFT + 0.8 * (RIGHT - LEFT)  # near the right edge the word stands before its line
        parts.append(Markup('<path class="lim" d="M{:.1f} {}V{}"/>').format(x, TOP, BOTTOM))
        parts.append(
            Markup('<text class="t" x="{:.1f}" y="{}" text-anchor="{}">{}</text>').format(
                x - 4 if end else x + 4, TOP + 8, "end" if end else "start", word
            )
        )
    parts.append(
        Markup('<text x="{:.1f}" y="{}" text-anchor="middle">other people</text>').format(
            scale(float(np.median(other))), BOTTOM + 36
        )
    )
    parts.append(
        Markup('<text class="rt" x="{:.1f}" y="{}" text-anchor="middle">right person</text>').format(
            scale(float(np.median(right))), BOTTOM + 36
        )
    )
    return Markup("").join([*parts, Markup("</svg>")])


def _chart(
    curves: Sequence[Curve],
    scale: Callable[[float], float],
    ticks: Sequence[tuple[float, str]],
    *,
    title: str,
    extra: Sequence[Markup],
    axis: str,
) -> Markup:
    parts = [_open(title)]
    for value in (0, 25, 50, 75, 100):
        parts.append(Markup('<path class="g" d="M{} {:.1f}H{}"/>').format(LEFT, _y(value), RIGHT))
        parts.append(
            Markup('<text x="{}" y="{:.1f}" text-anchor="end">{}</text>').format(LEFT - 8, _y(value) + 4, value)
        )
    parts.extend(_tick(scale(at), text) for at, text in ticks)
    parts.append(Markup('<text x="{}" y="{}" text-anchor="end">{}</text>').format(RIGHT, BOTTOM + 34, axis))
    parts.extend(extra)
    for curve in curves:
        parts.append(_line(curve, scale, f"s {curve.language} thin" if curve.language else "s mean"))
    parts.extend(_end_labels(curves, scale))
    return Markup("").join([*parts, Markup("</svg>")])


def _end_labels(curves: Sequence[Curve], scale: Callable[[float], float]) -> list[Markup]:
    """Language codes at the ends of the lines, pushed apart so that they never overlap."""
    ends = sorted((_y(curve.y[-1]), scale(curve.x[-1]), curve.language or "mean") for curve in curves)
    labels, above = [], -math.inf
    for y, x, name in ends:
        at = max(y, above + 13)
        above = at
        labels.append(
            Markup('<text class="{}" x="{:.1f}" y="{:.1f}">{}</text>').format(
                "b t" if name == "mean" else "t", x + 6, at + 4, name
            )
        )
    return labels


def _line(curve: Curve, scale: Callable[[float], float], name: str) -> Markup:
    points = "L".join(f"{scale(x):.1f} {_y(y):.1f}" for x, y in zip(curve.x, curve.y, strict=True))
    return Markup('<path class="{}" d="M{}"/>').format(name, points)


def _label(x: float, y: float, text: str, *, above: bool) -> Markup:
    return Markup('<text x="{:.1f}" y="{:.1f}" text-anchor="end">{}</text>').format(x, y - 6 if above else y + 14, text)


def _tick(x: float, text: str) -> Markup:
    return Markup('<path class="tk" d="M{:.1f} {}v4"/><text x="{:.1f}" y="{}" text-anchor="middle">{}</text>').format(
        x, BOTTOM, x, BOTTOM + 17, text
    )


def _open(title: str) -> Markup:
    return Markup('<svg class="chart" viewBox="0 0 {} {}" role="img" aria-label="{}"><title>{}</title>').format(
        WIDTH, HEIGHT, escape(title), escape(title)
    )


def _y(percent: float) -> float:
    return BOTTOM - (BOTTOM - TOP) * percent / 100


def _linear_scale(low: float, high: float) -> Callable[[float], float]:
    return lambda value: LEFT + (RIGHT - LEFT) * (value - low) / (high - low)


def _log_scale(low: float, high: float) -> Callable[[float], float]:
    return lambda value: LEFT + (RIGHT - LEFT) * math.log(value / low) / math.log(high / low)
