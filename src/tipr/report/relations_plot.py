"""A PNG of how true mined relations were, epoch by epoch, after Figure 4 of the dual-granularity paper."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from tipr.analysis.relations import COUNTED, Counted, EpochRelations

SCALE = 2
"""Drawn this many times larger than the finished picture, so that lines are smooth."""
WIDTH, HEIGHT, LEFT, TOP, GAP, BOTTOM = 960, 420, 56, 64, 72, 352
PLOT = (WIDTH - 2 * LEFT - GAP) // 2
PAPER, INK, INK_2, RULE = "#ffffff", "#15181c", "#555c65", "#dde0e4"
COLOUR: dict[Counted, str] = {"with_self": "#9aa1a9", "without_self": "#1f5fbf", "other_images": "#007044"}
WORDS: dict[Counted, str] = {
    "with_self": "all, itself included",
    "without_self": "without itself",
    "other_images": "to other images only",
}
Point = tuple[float, float]
SIDES: dict[Counted, int] = {"with_self": 3, "without_self": 60, "other_images": 4}
"""Corners of the mark on every value, so that lines are told apart without colour: triangle, dot, square."""


def relations_plot(epochs: Sequence[EpochRelations], path: Path, *, heading: str) -> Path:
    """Write precision (left) and recall (right) per epoch as one PNG; the file appears whole or not at all.

    Args:
        epochs: at least one, by epoch.
        path: the file to write.
        heading: drawn above, in Latin letters.
    """
    sheet = Image.new("RGB", (WIDTH * SCALE, HEIGHT * SCALE), PAPER)
    draw = ImageDraw.Draw(sheet)
    _text(draw, (LEFT, 14), heading, INK, 17)
    for place, name in enumerate(("precision", "recall")):
        left = LEFT + place * (PLOT + GAP)
        _axes(draw, left, f"{name} of relations, %", epochs)
        for counted in COUNTED:
            _curve(draw, left, epochs, [getattr(each.quality[counted], name) for each in epochs], counted)
    at = float(LEFT)
    for counted in COUNTED:
        _line(draw, [(at, HEIGHT - 20), (at + 22, HEIGHT - 20)], COLOUR[counted], 3)
        _mark(draw, (at + 11, HEIGHT - 20), counted)
        _text(draw, (at + 30, HEIGHT - 29), WORDS[counted], INK_2, 13)
        at += 230
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.partial")
    sheet.resize((WIDTH, HEIGHT), Image.Resampling.LANCZOS).save(partial, format="PNG", optimize=True)
    os.replace(partial, path)
    return path


def _axes(draw: ImageDraw.ImageDraw, left: float, title: str, epochs: Sequence[EpochRelations]) -> None:
    _text(draw, (left, TOP - 24), title, INK_2, 13)
    for percent in (0, 25, 50, 75, 100):
        _line(draw, [(left, _y(percent)), (left + PLOT, _y(percent))], RULE, 1)
        _text(draw, (left - 32, _y(percent) - 8), f"{percent:>3}", INK_2, 13)
    step = max(1, -(-len(epochs) // 8))
    for each in epochs[::step]:
        _text(draw, (_x(left, each.epoch, epochs) - 4, BOTTOM + 6), str(each.epoch), INK_2, 13)
    _text(draw, (left + PLOT - 38, BOTTOM + 24), "epoch", INK_2, 13)


def _curve(
    draw: ImageDraw.ImageDraw,
    left: float,
    epochs: Sequence[EpochRelations],
    values: Sequence[float | None],
    counted: Counted,
) -> None:
    """A line through the values that are there, with a mark on each."""
    points = [
        (_x(left, each.epoch, epochs), _y(value))
        for each, value in zip(epochs, values, strict=True)
        if value is not None
    ]
    if len(points) > 1:
        _line(draw, points, COLOUR[counted], 3)
    for point in points:
        _mark(draw, point, counted)


def _mark(draw: ImageDraw.ImageDraw, at: Point, counted: Counted) -> None:
    circle = (SCALE * at[0], SCALE * at[1], SCALE * 5.5)
    draw.regular_polygon(circle, SIDES[counted], fill=COLOUR[counted])


def _x(left: float, epoch: int, epochs: Sequence[EpochRelations]) -> float:
    first, last = epochs[0].epoch, epochs[-1].epoch
    return left + 8 + (PLOT - 16) * (epoch - first) / max(1, last - first)


def _y(percent: float) -> float:
    return BOTTOM - (BOTTOM - TOP) * percent / 100


def _line(draw: ImageDraw.ImageDraw, points: Sequence[Point], colour: str, width: int) -> None:
    draw.line([(SCALE * x, SCALE * y) for x, y in points], fill=colour, width=SCALE * width, joint="curve")


def _text(draw: ImageDraw.ImageDraw, at: Point, text: str, colour: str, size: int) -> None:
    font = ImageFont.load_default(SCALE * size)
    draw.text((SCALE * at[0], SCALE * at[1]), text, fill=colour, font=font)
