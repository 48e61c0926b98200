"""Pictures as bytes for a page that loads nothing."""

from __future__ import annotations

import base64
import io

from PIL import Image

SHOWN_HEIGHT = 312
"""Pixels; a result is shown 104 pixels wide, so a 1:3 crop fills it at normal density."""


def shown_jpeg(image: Image.Image, *, height: int = SHOWN_HEIGHT, quality: int = 82) -> bytes:
    """JPEG of a picture scaled down (never up) to `height` pixels, whole: shoes and hats decide."""
    image = image.convert("RGB")
    if image.height > height:
        width = max(1, round(image.width * height / image.height))
        image = image.resize((width, height), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    image.save(buffer, format="JPEG", quality=quality, optimize=True)
    return buffer.getvalue()


def data_uri(jpeg: bytes) -> str:
    """`data:` address of a JPEG."""
    return "data:image/jpeg;base64," + base64.b64encode(jpeg).decode("ascii")
