"""A PNG of ranked rows. Only numbers and Latin words are drawn: a PNG has no fonts for Chinese to fall back on."""

from __future__ import annotations

import io
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

PAPER, INK, INK_2, RULE, RIGHT = "#ffffff", "#15181c", "#555c65", "#dde0e4", "#007044"
CELL_WIDTH, CELL_HEIGHT, GAP, MARGIN, TITLE_HEIGHT, LABEL_HEIGHT = 104, 312, 12, 28, 34, 24
NOT_AN_IDENTIFICATION = "Similar appearance, not an identification."
"""Stands at the foot of every sheet."""


@dataclass(frozen=True, slots=True)
class SheetRow:
    """One row of pictures.

    Attributes:
        title: heading of the row; characters outside Latin scripts are left out. Without one the row goes on with
            the one above.
        pictures: pictures or encoded pictures, best first.
        labels: one short label under each picture.
        right: True where a picture shows the right person: outlined and marked with a check.
    """

    title: str
    pictures: Sequence[Image.Image | bytes]
    labels: Sequence[str]
    right: Sequence[bool]


def contact_sheet(rows: Sequence[SheetRow], path: Path, *, heading: str = "") -> Path:
    """Write the rows as one PNG; pictures keep their shape inside 104 x 312 cells.

    Raises:
        ValueError: there is no row, or a row whose lists differ in length.
    """
    if not rows:
        raise ValueError("a contact sheet needs at least one row")
    for row in rows:
        if not len(row.pictures) == len(row.labels) == len(row.right):
            raise ValueError(f"row {row.title!r}: pictures, labels and right must have one length")
    columns = max(len(row.pictures) for row in rows)
    top = MARGIN + (44 if heading else 0)
    row_height = TITLE_HEIGHT + CELL_HEIGHT + LABEL_HEIGHT + GAP
    width = 2 * MARGIN + columns * (CELL_WIDTH + GAP) - GAP
    foot = top + len(rows) * row_height
    sheet = Image.new("RGB", (max(width, 480), foot + LABEL_HEIGHT + MARGIN - GAP), PAPER)
    draw = ImageDraw.Draw(sheet)
    if heading:
        draw.text((MARGIN, MARGIN - 4), latin(heading), fill=INK, font=_font(22))
    for index, row in enumerate(rows):
        _draw_row(sheet, draw, row, top + index * row_height)
    draw.text((MARGIN, foot), NOT_AN_IDENTIFICATION, fill=INK_2, font=_font(13))
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.partial")
    try:
        sheet.save(partial, format="PNG", optimize=True)
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)
    return path


def latin(text: str) -> str:
    """The part of a text that a Latin font can draw, blanks collapsed."""
    return " ".join("".join(sign if sign.isprintable() and ord(sign) < 0x250 else " " for sign in text).split())


def _draw_row(sheet: Image.Image, draw: ImageDraw.ImageDraw, row: SheetRow, y: int) -> None:
    if row.title:
        draw.line([(MARGIN, y - 2), (sheet.width - MARGIN, y - 2)], fill=RULE)
    draw.text((MARGIN, y + 6), _fitting(draw, latin(row.title), sheet.width - 2 * MARGIN), fill=INK_2, font=_font(15))
    for column, (picture, label, right) in enumerate(zip(row.pictures, row.labels, row.right, strict=True)):
        x, top = MARGIN + column * (CELL_WIDTH + GAP), y + TITLE_HEIGHT
        image = Image.open(io.BytesIO(picture)) if isinstance(picture, bytes) else picture
        scale = min(CELL_WIDTH / image.width, CELL_HEIGHT / image.height)
        size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
        fitted = image.convert("RGB").resize(size, Image.Resampling.LANCZOS)
        sheet.paste(fitted, (x + (CELL_WIDTH - size[0]) // 2, top + (CELL_HEIGHT - size[1]) // 2))
        if right:
            box = [x - 3, top - 3, x + CELL_WIDTH + 2, top + CELL_HEIGHT + 2]
            draw.rectangle(box, outline=RIGHT, width=4)
            _check(draw, x + CELL_WIDTH - 4, top + 4)
        draw.text((x, top + CELL_HEIGHT + 6), latin(label), fill=RIGHT if right else INK_2, font=_font(13))


def _check(draw: ImageDraw.ImageDraw, x: int, y: int) -> None:
    draw.ellipse([x - 11, y - 11, x + 11, y + 11], fill=RIGHT, outline=PAPER, width=2)
    draw.line([(x - 5, y), (x - 1, y + 4), (x + 6, y - 5)], fill=PAPER, width=3, joint="curve")


def _fitting(draw: ImageDraw.ImageDraw, text: str, width: int) -> str:
    while text and draw.textlength(text, font=_font(15)) > width:
        text = text[:-2].rstrip() + "…"
    return text


def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size)
