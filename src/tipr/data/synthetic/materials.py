"""Materials: functions from surface samples to colour before light.

Everything irregular (folds, weave, hair strands) is looked up in small tileable pictures that are computed once.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache

import numpy as np

from tipr.data.synthetic.geometry import Surface
from tipr.data.synthetic.palette import Floats

F = np.float32
TILE = 256
Detail = Callable[[Surface, Floats], Floats]
"""Draws something on top: (samples, their colours (n, 3)) -> new colours."""


def _axes() -> tuple[Floats, Floats]:
    line = (np.arange(TILE, dtype=F) * F(2 * np.pi / TILE)).astype(F)
    return line[None, :], line[:, None]


@cache
def folds() -> Floats:
    """(256, 256) creases of soft cloth, about -1 .. 1: warped waves that mostly run around the tube."""
    x, y = _axes()
    random = np.random.default_rng(20)
    total = np.zeros((TILE, TILE), dtype=F)
    for _ in range(7):
        i, j = int(random.integers(1, 4)) * int(random.choice((-1, 1))), int(random.integers(3, 9))
        p, q, k = random.uniform(0, 2 * np.pi, 3)
        warp = 1.3 * np.sin(x * random.integers(1, 4) + y * random.integers(0, 3) + q)
        total += (np.sin(i * x + j * y + warp + p) / np.sqrt(j) * (1 + 0.6 * np.sin(x + 2 * y + k))).astype(F)
    total = np.sign(total) * np.abs(total) ** F(0.85)
    result: Floats = (total / np.abs(total).max()).astype(F)
    return result


@cache
def grain() -> Floats:
    """(256, 256) fine noise of mean 0 and deviation 1, slightly stretched along the thread."""
    noise = np.random.default_rng(21).normal(0, 1, (TILE, TILE))
    noise = noise + np.roll(noise, 1, axis=0) + 0.5 * np.roll(noise, 1, axis=1)
    result: Floats = (noise / noise.std()).astype(F)
    return result


@cache
def strands() -> Floats:
    """(256, 256) streaks that run down, mean 0, deviation 1: hair."""
    random = np.random.default_rng(22)
    noise = random.normal(0, 1, (TILE, TILE))
    smooth = np.fft.irfft2(
        np.fft.rfft2(noise)
        * np.exp(-((np.fft.fftfreq(TILE)[:, None] * 90) ** 2))
        * np.exp(-((np.fft.rfftfreq(TILE)[None, :] * 9) ** 2)),
        s=(TILE, TILE),
    )
    result: Floats = (smooth / smooth.std()).astype(F)
    return result


def look_up(tile: Floats, u: Floats, v: Floats) -> Floats:
    """Values of a tileable picture at (u, v), one tile per unit."""
    column = (u * F(TILE)).astype(np.int32) & (TILE - 1)
    row = (v * F(TILE)).astype(np.int32) & (TILE - 1)
    result: Floats = tile[row, column]
    return result


def mix(colours: Floats, where: Floats, other: Floats) -> Floats:
    """Blend `other` into (n, 3) colours with weights (n,) in 0 .. 1."""
    weight = where[:, None].astype(F)
    return colours + (other - colours) * weight


def step(value: Floats, soft: float = 0.0015) -> Floats:
    """1 where `value` > 0, 0 where < 0, with a soft edge of width `soft`."""
    result: Floats = np.clip(value * F(1 / soft) + F(0.5), 0, 1)
    return result


@dataclass(frozen=True, slots=True)
class Plain:
    """One colour with a trace of texture."""

    colour: Floats
    gloss: float = 0.0
    rough: float = 0.02

    def __call__(self, surface: Surface) -> Floats:
        shade = 1 + F(self.rough) * look_up(grain(), surface.angle * F(0.3), surface.along * F(3))
        return self.colour * shade[:, None]


@dataclass(frozen=True, slots=True)
class Skin:
    """Skin: redder where it turns away."""

    colour: Floats
    gloss: float = 0.06
    details: tuple[Detail, ...] = ()

    def __call__(self, surface: Surface) -> Floats:
        colours = np.broadcast_to(self.colour, surface.position.shape).astype(F)
        for detail in self.details:
            colours = detail(surface, colours)
        return colours


@dataclass(frozen=True, slots=True)
class Weave:
    """How a garment is woven: its pattern and the place of its folds, drawn once per garment.

    Attributes:
        pattern: key of `attributes.PATTERNS`.
        colour, second: (3,) dyes.
        period: distance of stripes in body units.
        duty: share of the period that the second colour takes.
        upright: stripes run down instead of around.
        motif: which of the chest prints.
        shift: place in the fold picture.
    """

    pattern: str
    colour: Floats
    second: Floats
    period: float
    duty: float
    upright: bool
    motif: int
    shift: tuple[float, float]

    @classmethod
    def draw(
        cls, random: np.random.Generator, colour: Floats, pattern: str = "solid", second: Floats | None = None
    ) -> Weave:
        return cls(
            pattern,
            colour,
            colour if second is None else second,
            float(random.uniform(0.036, 0.056)),
            float(random.uniform(0.4, 0.52)),
            bool(random.random() < 0.15),
            int(random.integers(4)),
            (float(random.random()), float(random.random())),
        )


@dataclass(frozen=True, slots=True)
class Cloth:
    """A woven garment.

    Attributes:
        weave: pattern and dyes.
        crease: strength of the folds.
        girth: body units per radian around the tube, for the pattern.
        hanging: the pattern follows the height in body space (trunk, skirt) instead of the length (sleeves).
        details: drawn on top, in order.
    """

    weave: Weave
    crease: float = 0.1
    girth: float = 0.085
    hanging: bool = False
    gloss: float = 0.0
    stretch: tuple[float, float] = (1.0, 2.2)
    details: tuple[Detail, ...] = field(default=())

    def __call__(self, surface: Surface) -> Floats:
        weave = self.weave
        u = (surface.angle - F(np.pi / 2)) * F(self.girth)
        v = -surface.position[:, 1] if self.hanging else surface.along
        colours = np.broadcast_to(weave.colour, surface.position.shape).astype(F)
        if weave.pattern != "solid":
            colours = _pattern(weave, colours, u, v, surface)
        fold = look_up(folds(), surface.angle * F(0.159 * self.stretch[0]) + F(weave.shift[0]),
                       v * F(self.stretch[1]) + F(weave.shift[1]))  # fmt: skip
        thread = look_up(grain(), surface.angle, v * F(5))
        colours = colours * (1 + F(self.crease) * fold + F(0.018) * thread)[:, None]
        for detail in self.details:
            colours = detail(surface, colours)
        return colours


def _pattern(weave: Weave, colours: Floats, u: Floats, v: Floats, surface: Surface) -> Floats:
    period = F(weave.period)
    if weave.pattern == "striped":
        wave = np.abs(((u if weave.upright else v) / period) % 1 - F(0.5))
        return mix(colours, step((F(weave.duty / 2) - wave) * period, 0.004), weave.second)
    if weave.pattern == "plaid":
        wide = F(weave.period * 1.25)
        bars = step((F(0.22) - np.abs((u / wide) % 1 - F(0.5))) * wide, 0.004)
        lines = step((F(0.22) - np.abs((v / wide) % 1 - F(0.5))) * wide, 0.004)
        thin = step((F(0.04) - np.abs((u / wide) % 1 - F(0.95))) * wide, 0.003)
        thin = np.maximum(thin, step((F(0.04) - np.abs((v / wide) % 1 - F(0.95))) * wide, 0.003))
        colours = mix(colours, (bars + lines) * F(0.45), weave.second)
        return mix(colours, thin * F(0.5), weave.second * F(0.6))
    if weave.pattern == "dots":
        pitch = F(weave.period * 0.92)
        row = np.floor(v / pitch)
        across = (u / pitch + F(0.5) * (row % 2)) % 1 - F(0.5)
        down = (v / pitch) % 1 - F(0.5)
        return mix(colours, step((F(0.3) - np.hypot(across, down)) * pitch, 0.004), weave.second)
    x, y = surface.position[:, 0], surface.position[:, 1] - F(0.725)
    if weave.motif == 0:
        shape = F(0.042) - np.hypot(x, y)
        ring = F(0.004) - np.abs(np.hypot(x, y) - F(0.028))
        colours = mix(colours, step(shape, 0.004) * step(surface.normal[:, 2]), weave.second)
        return mix(colours, step(ring, 0.004) * step(surface.normal[:, 2]), weave.colour)
    if weave.motif == 1:
        lines = np.minimum(F(0.3) - np.abs((y / F(0.026)) % 1 - F(0.5)), (F(0.039) - np.abs(y)) / F(0.026)) * F(0.026)
        ragged = F(0.058) - np.abs(x + F(0.006) * np.floor(y / F(0.026)))
        shape = np.minimum(lines, ragged)
    elif weave.motif == 2:
        box = np.minimum(F(0.052) - np.abs(x), F(0.042) - np.abs(y))
        peak = F(0.02) - y - F(0.036) + np.abs(((x + F(0.02)) % F(0.052)) - F(0.026)) * F(-1.1) + F(0.03)
        shape = np.where(np.abs(box - F(0.004)) < F(0.004), box, np.minimum(box, peak))
    else:
        diamond = np.abs(x) + np.abs(y) * F(0.9)
        shape = np.maximum(F(0.006) - np.abs(diamond - F(0.052)), F(0.03) - diamond)
    return mix(colours, step(shape, 0.004) * step(surface.normal[:, 2]), weave.second)


@dataclass(frozen=True, slots=True)
class Hair:
    """Hair: streaks and a soft band of light."""

    colour: Floats
    centre: tuple[float, float, float]
    shift: float
    gloss: float = 0.1

    def __call__(self, surface: Surface) -> Floats:
        streak = look_up(strands(), surface.angle * F(0.48) + F(self.shift), surface.position[:, 1] * F(1.2))
        height = surface.position[:, 1] - F(self.centre[1])
        band = np.exp(-(((height - F(0.035)) / F(0.016)) ** 2)) * F(0.22)
        shade = 1 + F(0.17) * streak + band * (1 + F(0.35) * streak)
        result: Floats = self.colour * np.clip(shade, 0.4, 1.8)[:, None] + F(0.012)
        return result


@dataclass(frozen=True, slots=True)
class Denim:
    """Jeans: faded thighs, dark seams, coarse thread."""

    colour: Floats
    shift: tuple[float, float]
    gloss: float = 0.0

    def __call__(self, surface: Surface) -> Floats:
        front = np.clip(np.sin(surface.angle), 0, 1)
        fade = front**2 * np.exp(-(((surface.along - F(0.16)) / F(0.1)) ** 2)) * F(0.26)
        side = step(F(0.12) - np.abs(np.sin(surface.angle)), 0.08) * F(0.12)
        fold = look_up(folds(), surface.angle * F(0.159) + F(self.shift[0]), surface.along * F(2.6) + F(self.shift[1]))
        thread = look_up(grain(), surface.angle, surface.along * F(5))
        shade = 1 + fade - side + F(0.12) * fold + F(0.035) * thread
        washed = self.colour * F(0.76) + self.colour.mean() * F(0.24) + F(0.015)
        result: Floats = washed * shade[:, None] + (fade * F(0.12))[:, None]
        return result
