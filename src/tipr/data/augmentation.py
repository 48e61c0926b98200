"""Augmentation of a batch of cached uint8 images (irra.md 5), from draws that belong to each sample."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor

from tipr.config import Section

ATTEMPTS = 10
"""Rectangles tried for one erasing, as torchvision's `RandomErasing` does."""
DRAWS = 4 + 2 * ATTEMPTS + 2 + 2 + 3
"""Uniform draws that one sample needs."""
CHUNK = 4
"""Images turned into floats at a time: they stay in the second-level cache (5 times faster than the whole batch)."""


class Augmentation(Section):
    """What happens to a training image after resizing; the defaults are the published recipe.

    Attributes:
        flip: probability of a horizontal flip.
        pad: black border in pixels, added before a random crop to the original size.
        erase: probability of erasing one rectangle.
        erase_area: smallest and largest share of the image that is erased.
        erase_aspect: smallest and largest height / width of the rectangle.
        erase_value: "mean" paints the normalisation mean INTO normalised pixels, as the published code does; "zero"
            paints the mean colour.
        brightness: factor drawn from 1 +- this.
        contrast: factor around the image's own mean, drawn from 1 +- this.
        channel: offset of each colour channel, drawn from +- this (1 is the full range).
    """

    flip: float = Field(default=0.5, ge=0, le=1)
    pad: int = Field(default=10, ge=0)
    erase: float = Field(default=0.5, ge=0, le=1)
    erase_area: tuple[float, float] = (0.02, 0.4)
    erase_aspect: tuple[float, float] = (0.3, 3.3)
    erase_value: Literal["mean", "zero"] = "mean"
    brightness: float = Field(default=0.0, ge=0, lt=1)
    contrast: float = Field(default=0.0, ge=0, lt=1)
    channel: float = Field(default=0.0, ge=0, lt=1)

    @property
    def jitters(self) -> bool:
        """Whether colours change at all."""
        return max(self.brightness, self.contrast, self.channel) > 0


def augment(
    images: NDArray[np.uint8],
    draws: NDArray[np.float64],
    config: Augmentation,
    *,
    mean: Sequence[float],
    std: Sequence[float],
) -> Tensor:
    """Flip, pad and crop, jitter, normalise, erase: in the published order.

    Args:
        images: (B, 3, H, W) uint8 in [0, 255], not changed.
        draws: (B, DRAWS) float64 in [0, 1).
        config: what to do.
        mean, std: of the normalisation, for values in [0, 1].

    Returns:
        (B, 3, H, W) float32, normalised.
    """
    moved = shift(images, draws[:, 0] < config.flip, draws[:, 1:3], config.pad)
    scale = (1.0 / (255.0 * np.asarray(std, np.float32)))[None, :, None, None]
    offset = -(np.asarray(mean, np.float32) / np.asarray(std, np.float32))[None, :, None, None]
    gain, lift = jitter(moved, draws[:, -5:], config)
    pixels = np.empty(moved.shape, np.float32)
    for start in range(0, len(moved), CHUNK):
        part = slice(start, start + CHUNK)
        if config.jitters:
            np.multiply(moved[part], gain[part], out=pixels[part], dtype=np.float32)
            np.add(pixels[part], lift[part], out=pixels[part])
            np.clip(pixels[part], 0, 255, out=pixels[part])
            np.multiply(pixels[part], scale, out=pixels[part])
        else:
            np.multiply(moved[part], scale, out=pixels[part], dtype=np.float32)
        np.add(pixels[part], offset, out=pixels[part])
    fill = np.asarray(mean if config.erase_value == "mean" else (0.0, 0.0, 0.0), np.float32)[:, None, None]
    # A rectangle is a short run of contiguous writes; a mask over the batch would touch every pixel again.
    for index, top, left, height, width in rectangles(draws[:, 3:-5], config, images.shape[2:]):
        pixels[index, :, top : top + height, left : left + width] = fill
    return torch.from_numpy(pixels)


def shift(
    images: NDArray[np.uint8], flip: NDArray[np.bool_], draws: NDArray[np.float64], pad: int
) -> NDArray[np.uint8]:
    """Flip where asked, add a black border and crop at a drawn place: (B, C, H, W) uint8, a new array."""
    batch, channels, height, width = images.shape
    padded = np.zeros((batch, channels, height + 2 * pad, width + 2 * pad), np.uint8)
    centre = padded[:, :, pad : pad + height, pad : pad + width]
    centre[:] = images
    centre[flip] = images[flip, :, :, ::-1]
    windows = np.lib.stride_tricks.sliding_window_view(padded, (height, width), axis=(2, 3))
    place = np.floor(draws * (2 * pad + 1)).astype(np.int64)
    return np.ascontiguousarray(windows[np.arange(batch), :, place[:, 0], place[:, 1]])


def jitter(
    images: NDArray[np.uint8], draws: NDArray[np.float64], config: Augmentation
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """The change of colour of each image as x -> gain x + lift, for values in [0, 255], before clipping.

    Args:
        images: (B, 3, H, W) uint8; contrast turns around each one's mean.
        draws: (B, 5) float64: brightness, contrast, three channels.
        config: the spreads.

    Returns:
        (B, 1, 1, 1) gain and (B, 3, 1, 1) lift, float32.
    """
    spread = 2 * draws - 1
    bright = 1 + config.brightness * spread[:, 0, None]
    contrast = 1 + config.contrast * spread[:, 1, None]
    lift = config.channel * 255.0 * spread[:, 2:5]
    if config.contrast:
        lift = lift + bright * images.reshape(len(images), -1).mean(axis=1, dtype=np.float32)[:, None] * (1 - contrast)
    gain = (bright * contrast).astype(np.float32)
    return gain[:, :, None, None], lift.astype(np.float32)[:, :, None, None]


class Erasing(Protocol):
    """Probability and ranges of erasing; see `Augmentation`."""

    @property
    def erase(self) -> float: ...

    @property
    def erase_area(self) -> tuple[float, float]: ...

    @property
    def erase_aspect(self) -> tuple[float, float]: ...


def rectangles(
    draws: NDArray[np.float64], config: Erasing, size: Sequence[int]
) -> list[tuple[int, int, int, int, int]]:
    """Which rectangle of which sample is erased.

    Args:
        draws: (B, 1 + 2 ATTEMPTS + 2): whether; area and aspect of each attempt; place.
        config: probability and ranges; the aspect is drawn log-uniformly.
        size: (H, W).

    Returns:
        (sample, top, left, height, width), the first attempt that is smaller than the image; none when none is.
    """
    height, width = size
    low, high = config.erase_area
    tall, wide = np.log(config.erase_aspect)
    area = (low + draws[:, 1 : 1 + ATTEMPTS] * (high - low)) * height * width
    aspect = np.exp(tall + draws[:, 1 + ATTEMPTS : 1 + 2 * ATTEMPTS] * (wide - tall))
    rows = np.rint(np.sqrt(area * aspect)).astype(np.int64)
    columns = np.rint(np.sqrt(area / aspect)).astype(np.int64)
    fits = (rows < height) & (columns < width) & (rows > 0) & (columns > 0)
    erased = np.flatnonzero((draws[:, 0] < config.erase) & fits.any(axis=1))
    first = fits[erased].argmax(axis=1)
    rows, columns = rows[erased, first], columns[erased, first]
    top = np.floor(draws[erased, -2] * (height - rows + 1)).astype(np.int64)
    left = np.floor(draws[erased, -1] * (width - columns + 1)).astype(np.int64)
    table = np.stack([erased, top, left, rows, columns], axis=1).tolist()
    return [(sample, y, x, h, w) for sample, y, x, h, w in table]
