"""The parts that every chart of a report is put together from: one canvas, one way to set a word."""

from __future__ import annotations

import math
from collections.abc import Callable

from markupsafe import Markup, escape

LEFT, TOP, RIGHT, BOTTOM, WIDTH = 40.0, 14.0, 506.0, 282.0, 520
AXIS_TITLE, KEY = BOTTOM + 35, BOTTOM + 62
"""Heights of the two lines of words under a chart."""


def opening(title: str, height: float, width: float = WIDTH) -> Markup:
    """The start of a chart; `title` is its alternative text."""
    return Markup('<svg class="chart" viewBox="0 0 {:.0f} {:.0f}" role="img" aria-label="{}"><title>{}</title>').format(
        width, height, escape(title), escape(title)
    )


def text(x: float, y: float, words: str, *, anchor: str = "middle", name: str = "t") -> Markup:
    """Words at a place; `name` is their class."""
    return Markup('<text class="{}" x="{:.1f}" y="{:.1f}" text-anchor="{}">{}</text>').format(name, x, y, anchor, words)


def tick(x: float, label: str) -> Markup:
    """A mark of the horizontal axis and its label."""
    return Markup('<path class="tk" d="M{:.1f} {}v4"/>').format(x, BOTTOM) + text(x, BOTTOM + 17, label, name="")


def percent_height(percent: float) -> float:
    """Where a percentage stands on the vertical axis."""
    return BOTTOM - (BOTTOM - TOP) * percent / 100


def linear_scale(low: float, high: float) -> Callable[[float], float]:
    """Value -> place on the horizontal axis."""
    return lambda value: LEFT + (RIGHT - LEFT) * (value - low) / (high - low)


def log_scale(low: float, high: float) -> Callable[[float], float]:
    """Value -> place on a logarithmic horizontal axis."""
    return lambda value: LEFT + (RIGHT - LEFT) * math.log(value / low) / math.log(high / low)
