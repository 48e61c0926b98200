"""Pictures as bytes for a page that loads nothing."""

from __future__ import annotations

import base64
import io

from PIL import Image

SHOWN_HEIGHT = 312
"""Pixels; a result is shown 104 pixels wide, so a 1:3 crop fills it at normal density."""


def shown(image: Image.Image, *, height: int = SHOWN_HEIGHT) -> Image.Image:
    """The picture in RGB, scaled down (never up) so that neither side is above `height`: shoes and hats decide."""
    image = image.convert("RGB")
    longest = max(image.size)
    if longest <= height:
        return image
    width, tall = (max(1, round(side * height / longest)) for side in image.size)
    return image.resize((width, tall), Image.Resampling.LANCZOS)


def shown_jpeg(image: Image.Image, *, height: int = SHOWN_HEIGHT, quality: int = 82) -> bytes:
    """JPEG of `shown`."""
    buffer = io.BytesIO()
    shown(image, height=height).save(buffer, format="JPEG", quality=quality, optimize=True)
    return buffer.getvalue()


def data_uri(jpeg: bytes) -> str:
    """`data:` address of a JPEG."""
    return "data:image/jpeg;base64," + base64.b64encode(jpeg).decode("ascii")
