"""A stand-in for a trained model: it sees the mean colour of the upper and lower half, and knows four colour words."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

COLOURS = {"red": (255, 0, 0), "green": (0, 255, 0), "blue": (0, 0, 255), "grey": (128, 128, 128)}


class ColourModel:
    """Offers what a gallery needs of a `Retriever`; 8 numbers a picture."""

    embed_dim = 8
    preprocessing = SimpleNamespace(image_size=(12, 6))

    def __init__(self, fingerprint: str = "c0" * 32, source: str | None = "demo") -> None:
        self.fingerprint = fingerprint
        self.source = source
        self.encoded = 0

    def encode_images(self, images: Sequence[Any], *, batch_size: int = 64) -> NDArray[np.float32]:
        pixels = np.stack([np.asarray(image, dtype=np.float64) for image in images])
        assert pixels.shape[1:] == (12, 6, 3)
        self.encoded += len(pixels)
        upper, lower = pixels[:, :6].mean(axis=(1, 2)), pixels[:, 6:].mean(axis=(1, 2))
        return _unit(np.concatenate([upper, lower, np.full((len(pixels), 2), 40.0)], axis=1))

    def encode_text(self, captions: Sequence[str], **_: Any) -> NDArray[np.float32]:
        rows = []
        for caption in captions:
            known = [COLOURS[word] for word in caption.split() if word in COLOURS] or [(255, 255, 255)]
            rows.append([*known[0], *known[-1], 40.0, 40.0])
        return _unit(np.array(rows, dtype=np.float64))


def _unit(rows: NDArray[np.float64]) -> NDArray[np.float32]:
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def paint(path: Path, upper: str = "red", lower: str = "blue", size: tuple[int, int] = (20, 60), seed: int = 0) -> Path:
    """Write a noisy two-coloured picture of (width, height) and return its path."""
    width, height = size
    pixels = np.empty((height, width, 3), dtype=np.float64)
    pixels[: height // 2], pixels[height // 2 :] = COLOURS[upper], COLOURS[lower]
    pixels += np.random.default_rng(seed).normal(0, 20, pixels.shape)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8)).save(path)
    return path
