"""Two changes of each training image, drawn from six (TBPS-CLIP's "choose", bi-irra.md 5), by draws of the sample."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import permutations
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor
from torch.nn import functional

from tipr.config import Section
from tipr.data.augmentation import ATTEMPTS, rectangles

CHANGES = 2
"""Made of each image."""
DRAWS_OF_A_CHANGE = 1 + 2 * ATTEMPTS + 2
"""What the greediest change needs: whether to erase, the attempts, and the place."""
DRAWS = CHANGES * (1 + DRAWS_OF_A_CHANGE)
"""Uniform draws that one sample needs."""
GREY = (0.2989, 0.587, 0.114)
"""Weights of red, green and blue in a grey picture (ITU-R 601)."""
ORDERS = tuple(permutations(range(3)))

Draws = NDArray[np.float64]


class TwoOfSix(Section):
    """Two of six changes of a training image, drawn uniformly with replacement and made in drawn order.

    The six are colour jitter, rotation, random crop, grey picture, mirror and erasing; the defaults are the published
    recipe. All of them see values in [0, 1] before the normalisation, so what is filled or erased is black.

    Attributes:
        kind: "two_of_six".
        colour: brightness, contrast and saturation are each multiplied by a factor from 1 +- this, in random order.
        rotation: at most this many degrees to either side; nearest pixel, black corners.
        crop_area: smallest and largest share of the image that a crop keeps; it is then enlarged to the full size.
        crop_aspect: smallest and largest width / height of a crop, relative to that of the image (on square images, as
            published, that is the aspect itself; on upright ones absolute values would cut heads and feet off).
        grey: probability of turning grey.
        flip: probability of the mirror image.
        erase: probability of erasing one rectangle.
        erase_area: smallest and largest share of the image that is erased.
        erase_aspect: smallest and largest height / width of the rectangle.
    """

    kind: Literal["two_of_six"] = "two_of_six"
    colour: float = Field(default=0.1, ge=0, lt=1)
    rotation: float = Field(default=15.0, ge=0, le=180)
    crop_area: tuple[float, float] = (0.9, 1.0)
    crop_aspect: tuple[float, float] = (3 / 4, 4 / 3)
    grey: float = Field(default=0.1, ge=0, le=1)
    flip: float = Field(default=0.5, ge=0, le=1)
    erase: float = Field(default=0.5, ge=0, le=1)
    erase_area: tuple[float, float] = (0.1, 0.2)
    erase_aspect: tuple[float, float] = (0.3, 3.3)


def two_of_six(
    images: NDArray[np.uint8], draws: Draws, config: TwoOfSix, *, mean: Sequence[float], std: Sequence[float]
) -> Tensor:
    """Change a batch and normalise it.

    Args:
        images: (B, 3, H, W) uint8 in [0, 255], not changed.
        draws: (B, DRAWS) float64 in [0, 1).
        config: the ranges.
        mean, std: of the normalisation, for values in [0, 1].

    Returns:
        (B, 3, H, W) float32.
    """
    pixels = torch.from_numpy(images).float().div_(255)
    for turn in draws.reshape(len(images), CHANGES, -1).transpose(1, 0, 2):
        chosen = np.floor(turn[:, 0] * len(SIX)).astype(np.int64)
        for number, change in enumerate(SIX):
            rows = np.flatnonzero(chosen == number)
            if len(rows):
                pixels[rows] = change(pixels[rows], turn[rows, 1:], config)
    middle = torch.tensor(mean, dtype=torch.float32)[:, None, None]
    spread = torch.tensor(std, dtype=torch.float32)[:, None, None]
    return pixels.sub_(middle).div_(spread)


def jitter(pixels: Tensor, draws: Draws, config: TwoOfSix) -> Tensor:
    """Brightness, contrast and saturation by a factor each, in the order that the first draw says."""
    factors = torch.from_numpy(1 + config.colour * (2 * draws[:, 1:4] - 1)).float()[:, :, None, None, None]
    orders = np.array(ORDERS)[np.floor(draws[:, 0] * len(ORDERS)).astype(np.int64)]
    for place in range(3):
        kinds = torch.from_numpy(orders[:, place])[:, None, None, None]
        factor = factors[torch.arange(len(pixels)), orders[:, place]]
        grey = _grey(pixels)
        # What a picture is moved away from: black, its mean grey, or its own grey picture.
        origin = torch.where(kinds == 0, 0.0, torch.where(kinds == 1, grey.mean(dim=(2, 3), keepdim=True), grey))
        pixels = (origin + factor * (pixels - origin)).clamp(0, 1)
    return pixels


def rotate(pixels: Tensor, draws: Draws, config: TwoOfSix) -> Tensor:
    """Turn each picture around its centre."""
    angle = torch.from_numpy(np.radians(config.rotation) * (2 * draws[:, 0] - 1))[:, None]
    height, width = pixels.shape[2:]
    y, x = torch.meshgrid(torch.arange(height).double(), torch.arange(width).double(), indexing="ij")
    y, x = y.flatten() - (height - 1) / 2, x.flatten() - (width - 1) / 2
    row = (angle.cos() * y - angle.sin() * x + (height - 1) / 2).round().long()
    column = (angle.sin() * y + angle.cos() * x + (width - 1) / 2).round().long()
    inside = (row >= 0) & (row < height) & (column >= 0) & (column < width)
    source = (row.clamp(0, height - 1) * width + column.clamp(0, width - 1))[:, None]
    turned = pixels.flatten(2).gather(2, source.expand(-1, 3, -1)) * inside[:, None]
    return turned.view_as(pixels)


def crop(pixels: Tensor, draws: Draws, config: TwoOfSix) -> Tensor:
    """Cut out most of each picture and enlarge it; the whole where none of ten attempts fits in."""
    height, width = pixels.shape[2:]
    low, high = config.crop_area
    narrow, wide = np.log(config.crop_aspect)
    area = low + draws[:, :ATTEMPTS] * (high - low)
    aspect = np.exp(narrow + draws[:, ATTEMPTS : 2 * ATTEMPTS] * (wide - narrow))
    rows = np.rint(height * np.sqrt(area / aspect)).astype(np.int64)
    columns = np.rint(width * np.sqrt(area * aspect)).astype(np.int64)
    fits = (rows > 0) & (rows <= height) & (columns > 0) & (columns <= width)
    first = fits.argmax(axis=1)
    cut = pixels.clone()
    for index in np.flatnonzero(fits.any(axis=1)):
        tall, broad = int(rows[index, first[index]]), int(columns[index, first[index]])
        top = math.floor(draws[index, -2] * (height - tall + 1))
        left = math.floor(draws[index, -1] * (width - broad + 1))
        part = pixels[index : index + 1, :, top : top + tall, left : left + broad]
        cut[index] = functional.interpolate(part, (height, width), mode="bilinear", antialias=True)[0]
    return cut


def turn_grey(pixels: Tensor, draws: Draws, config: TwoOfSix) -> Tensor:
    """Some pictures without colour."""
    return torch.where(_drawn(draws, config.grey), _grey(pixels), pixels)


def mirror(pixels: Tensor, draws: Draws, config: TwoOfSix) -> Tensor:
    """Some pictures the other way round."""
    return torch.where(_drawn(draws, config.flip), pixels.flip(3), pixels)


def erase(pixels: Tensor, draws: Draws, config: TwoOfSix) -> Tensor:
    """Some pictures with a black rectangle."""
    erased = pixels.clone()
    for index, top, left, height, width in rectangles(draws, config, pixels.shape[2:]):
        erased[index, :, top : top + height, left : left + width] = 0
    return erased


SIX: tuple[Callable[[Tensor, Draws, TwoOfSix], Tensor], ...] = (jitter, rotate, crop, turn_grey, mirror, erase)
"""The changes, each of (n, 3, H, W) pixels in [0, 1] by (n, `DRAWS_OF_A_CHANGE`) draws."""


def _drawn(draws: Draws, probability: float) -> Tensor:
    return torch.from_numpy(draws[:, 0] < probability)[:, None, None, None]


def _grey(pixels: Tensor) -> Tensor:
    """(n, 1, H, W)."""
    red, green, blue = GREY
    return (red * pixels[:, 0] + green * pixels[:, 1] + blue * pixels[:, 2]).unsqueeze(1)
