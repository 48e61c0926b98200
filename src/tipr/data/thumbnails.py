"""Small pictures for people to look at, without anything that their files said."""

from __future__ import annotations

import numpy as np
import simplejpeg
from PIL import Image


def thumbnail(image: Image.Image, *, height: int = 160, quality: int = 85) -> bytes:
    """A small JPEG of an image, never enlarged and at most four times as wide as `height`.

    Args:
        image: any RGB image.
        height: greatest height in pixels.
        quality: JPEG quality, 1 to 95.
    """
    small = image.convert("RGB")
    small.thumbnail((4 * height, height), Image.Resampling.LANCZOS, reducing_gap=3.0)
    packed: bytes = simplejpeg.encode_jpeg(np.ascontiguousarray(small), quality=quality, colorsubsampling="420")
    return packed
