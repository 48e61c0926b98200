"""The colours of rendered people: dyes of garments, hair and skin, as linear triples in 0 .. 1."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.floating[Any]]
"""Any array of floats, float32 in practice; the shapes are in the docstrings."""

DYES: dict[str, tuple[tuple[int, int, int], ...]] = {
    "black": ((26, 26, 30), (36, 35, 39)),
    "white": ((240, 240, 238), (230, 229, 225)),
    "gray": ((128, 130, 134), (150, 150, 150), (106, 108, 113)),
    "red": ((190, 32, 38), (168, 26, 40)),
    "blue": ((38, 88, 184), (50, 106, 198)),
    "navy": ((28, 38, 80), (34, 44, 92)),
    "lightblue": ((142, 192, 236), (158, 204, 240)),
    "green": ((44, 130, 68), (64, 118, 58), (34, 108, 84)),
    "yellow": ((236, 204, 56), (228, 192, 70)),
    "orange": ((234, 122, 34), (222, 108, 40)),
    "purple": ((116, 62, 156), (102, 54, 132)),
    "pink": ((238, 148, 178), (228, 120, 160)),
    "brown": ((110, 70, 42), (92, 58, 38)),
    "beige": ((216, 194, 152), (204, 178, 132)),
}
"""Colour word -> its dyes in sRGB, 0 .. 255; one dye is chosen per garment."""

HAIR: dict[str, tuple[int, int, int]] = {
    "black": (30, 26, 26),
    "brown": (84, 56, 38),
    "blond": (206, 168, 104),
    "gray": (166, 164, 162),
    "red": (148, 70, 34),
}

SKIN: tuple[tuple[int, int, int], ...] = (
    (244, 210, 188),
    (232, 190, 160),
    (212, 164, 128),
    (178, 126, 92),
    (134, 90, 64),
    (92, 60, 46),
)
"""Six tones from light to dark, drawn equally often."""


def colour(red: float, green: float, blue: float) -> Floats:
    """A triple in 0 .. 1 from sRGB in 0 .. 255."""
    return np.array((red, green, blue), dtype=np.float32) / np.float32(255)


def dye(generator: np.random.Generator, name: str) -> Floats:
    """One dye of the colour `name` with a little variation, (3,) in 0 .. 1."""
    dyes = DYES[name]
    base = np.array(dyes[int(generator.integers(len(dyes)))], dtype=np.float32)
    shifted = base + np.float32(generator.normal(0, 4)) + generator.normal(0, 1.5, 3).astype(np.float32)
    result: Floats = np.clip(shifted, 4, 250) / np.float32(255)
    return result


def nearest(rgb: npt.ArrayLike) -> str:
    """The colour word whose dye is nearest to `rgb`, three values in 0 .. 255 (Euclidean distance)."""
    point = np.asarray(rgb, dtype=np.float64)
    distance = {name: min(float(((point - np.array(one)) ** 2).sum()) for one in dyes) for name, dyes in DYES.items()}
    return min(distance, key=lambda name: distance[name])
