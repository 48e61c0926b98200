"""Lofted tubes: a figure is a list of tubes, a tube is a row of elliptic rings with a material.

Body space: unit = mean body height, x to the person's left, y up, z forward.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from tipr.data.synthetic.palette import Floats

F = np.float32
Ints = npt.NDArray[np.integer[Any]]
Bools = npt.NDArray[np.bool_]
Vector = Sequence[float]
Cut = Callable[[Floats], Bools]
"""Positions (n, 3) of samples -> which of them belong to the surface."""

SIDEWAYS = (1.0, 0.0, 0.0)
ROWS = 1.22
"""Rings per pixel length along a tube; more than around, because interpolation does not keep an even pace."""


@dataclass(frozen=True, slots=True)
class Surface:
    """The samples that can be seen, one per covered pixel.

    Attributes:
        angle: (n,) angle around the ring, pi/2 is the front of a hanging tube.
        along: (n,) length from the first ring.
        position, normal: (n, 3) in body space.
    """

    angle: Floats
    along: Floats
    position: Floats
    normal: Floats

    def __getitem__(self, part: slice | Ints) -> Surface:
        return Surface(self.angle[part], self.along[part], self.position[part], self.normal[part])


class Paint(Protocol):
    """A material: the colour (n, 3) of samples, 0 .. 1 before light; `gloss` is the strength of highlights."""

    @property
    def gloss(self) -> float: ...

    def __call__(self, surface: Surface) -> Floats: ...


@dataclass(frozen=True, slots=True)
class Tube:
    rings: Floats
    paint: Paint
    sideways: Vector
    bulge: float
    round_ends: tuple[float, float]
    cut: Cut | None
    inside: bool
    over: float


@dataclass(slots=True)
class Figure:
    """Collects tubes."""

    tubes: list[Tube] = field(default_factory=list)

    def tube(
        self,
        rings: npt.ArrayLike,
        paint: Paint,
        *,
        sideways: Vector = SIDEWAYS,
        power: float = 2.0,
        ends: tuple[float, float] = (0.0, 0.0),
        cut: Cut | None = None,
        inside: bool = False,
        over: float = 0.0,
    ) -> None:
        """Add a tube.

        Args:
            rings: (K, 5) rows x, y, z of the centre, radius sideways, radius across; K >= 2.
            paint: the material.
            sideways: direction of the first radius, not along the tube.
            power: exponent of the superellipse; 2 is an ellipse, 5 nearly a box.
            ends: how far the two ends are rounded, as a share of their radius; 0 leaves them open.
            cut: keeps a part of the surface only.
            inside: the inner side can be seen as well.
            over: counts as this much nearer, so that a shirt hangs over the legs that move below it.
        """
        rows = np.asarray(rings, dtype=F)
        bulge = 4.0 * (2.0 ** (0.5 - 1.0 / power) - 1.0)
        self.tubes.append(Tube(rows, paint, sideways, bulge, ends, cut, inside, over))

    def ball(self, centre: Vector, radii: Vector, paint: Paint, *, cut: Cut | None = None) -> None:
        """Add an ellipsoid with radii along x, y and z."""
        x, y, z = centre
        rx, ry, rz = radii
        self.tube(
            [(x, y - ry * h, z, rx * w, rz * w) for h, w in _BALL],
            paint,
            cut=cut,
        )

    def box(
        self, centre: Vector, radii: Vector, paint: Paint, *, sideways: Vector = SIDEWAYS, soft: float = 0.14
    ) -> None:
        """Add a box with rounded edges; `soft` is the share of the height that the rounding takes."""
        x, y, z = centre
        rx, ry, rz = radii
        profile = ((1, 0.02), (0.995, 0.7), (1 - 0.35 * soft, 0.93), (1 - soft, 1.0))
        rings = [(x, y + ry * h, z, rx * w, rz * w) for h, w in profile]
        rings += [(x, y - ry * h, z, rx * w, rz * w) for h, w in reversed(profile)]
        self.tube(rings, paint, power=5.0, sideways=sideways)


_BALL = tuple((float(np.sin(t)), float(np.cos(t)) + 0.004) for t in np.linspace(-np.pi / 2, np.pi / 2, 9))


@dataclass(frozen=True, slots=True)
class Rings:
    """Rings after interpolation; every field has one row per ring."""

    tube: Ints
    along: Floats
    centre: Floats
    radius: Floats  # (R, 2)
    direction: Floats
    slope: Floats  # (R, 2): share of the radial and of the lengthwise part of the normal


def _slopes(values: Floats, length: Floats, first: Bools, last: Bools) -> Floats:
    """Derivatives at the rings by weighted central differences, one-sided at the ends of a tube."""
    step = np.diff(values, axis=0) / length[:, None]
    left = np.concatenate([step[:1], step])
    right = np.concatenate([step, step[-1:]])
    left = np.where(first[:, None], right, left)
    right = np.where(last[:, None], left, right)
    mean = (left + right) * F(0.5)
    # Radii must not swing beyond their rings: the harmonic mean is monotone (Fritsch and Butland, 1984).
    a, b = left[:, 3:], right[:, 3:]
    product = a * b
    mean[:, 3:] = np.where(product > 0, 2 * product / (a + b + np.where(a + b >= 0, F(1e-9), F(-1e-9))), 0)
    result: Floats = mean
    return result


def cross(a: Floats, b: Floats) -> Floats:
    x = a[:, 1] * b[:, 2] - a[:, 2] * b[:, 1]
    y = a[:, 2] * b[:, 0] - a[:, 0] * b[:, 2]
    z = a[:, 0] * b[:, 1] - a[:, 1] * b[:, 0]
    return np.stack([x, y, z], axis=1)


def unit(a: Floats) -> Floats:
    result: Floats = a / (np.sqrt(np.einsum("ij,ij->i", a, a))[:, None] + F(1e-9))
    return result


def interpolate(tubes: Sequence[Tube], scale: float) -> Rings:
    """Rings of all tubes at about one per pixel, by cubic Hermite curves through the given ones, with rounded ends."""
    rings = np.concatenate([tube.rings for tube in tubes])
    counts = np.array([len(tube.rings) for tube in tubes])
    owner = np.repeat(np.arange(len(tubes)), counts)
    start = np.concatenate([[0], np.cumsum(counts)[:-1]])
    first = np.zeros(len(rings), dtype=bool)
    first[start] = True
    last = np.roll(first, -1)
    step = np.diff(rings, axis=0)
    travel = np.sqrt(np.einsum("ij,ij->i", step[:, :3], step[:, :3]))
    swell = np.abs(step[:, 3:]).max(axis=1)
    length = np.hypot(travel, swell) + F(1e-6)
    inner = owner[1:] == owner[:-1]
    slope = _slopes(rings, length, first, last)
    distance = np.concatenate([[0], np.cumsum(np.where(inner, length, 0))]).astype(F)
    distance -= distance[start][owner]

    # On the outer side of a bend rings fan out: add the way that the rim travels.
    heading = unit(slope[:, :3])
    turn = np.diff(heading, axis=0)
    rim = length + np.sqrt(np.einsum("ij,ij->i", turn, turn)) * np.maximum(rings[:-1, 3:], rings[1:, 3:]).max(axis=1)
    number = np.where(inner, np.ceil(rim * F(scale * ROWS)), 0).astype(np.intp)
    segment = np.repeat(np.arange(len(number)), number)
    begin = np.cumsum(number) - number
    u = ((np.arange(len(segment)) - begin[segment] + F(0.5)) / number[segment]).astype(F)[:, None]
    h = length[segment][:, None]
    g0, g1 = rings[segment], rings[segment + 1]
    d0, d1 = slope[segment] * h, slope[segment + 1] * h
    # Cubic Hermite: value and derivative.
    delta = g1 - g0
    c2 = 3 * delta - 2 * d0 - d1
    c3 = d0 + d1 - 2 * delta
    value = g0 + u * (d0 + u * (c2 + u * c3))
    rate = (d0 + u * (2 * c2 + 3 * u * c3)) / h
    speed = np.sqrt(np.einsum("ij,ij->i", rate[:, :3], rate[:, :3]))
    direction = rate[:, :3] / (speed[:, None] + F(1e-6))
    growth = (rate[:, 3] + rate[:, 4]) * F(0.5)
    rows = [
        Rings(
            owner[segment],
            distance[segment] + (u * h)[:, 0],
            value[:, :3],
            np.maximum(value[:, 3:], F(1e-4)),
            direction,
            np.stack([speed + F(1e-3), -growth], axis=1),
        )
    ]
    ends = np.array([tube.round_ends for tube in tubes], dtype=F)
    finish = start + counts - 1
    for knots, share, sign in ((start, ends[:, 0], -1.0), (finish, ends[:, 1], 1.0)):
        chosen = np.flatnonzero(share > 0)
        if len(chosen):
            rows.append(
                _caps(rings, slope, distance, knots[chosen], chosen, reach=share[chosen] * F(sign), scale=scale)
            )
    return Rings(
        *(np.concatenate([getattr(row, name) for row in rows]) for name in Rings.__slots__),
    )


def _caps(
    rings: Floats, slope: Floats, distance: Floats, knots: Ints, owner: Ints, *, reach: Floats, scale: float
) -> Rings:
    """Rounded ends at the rings `knots`; `reach` is their length as a share of the radius, negative at a first ring."""
    radius = rings[knots, 3:]
    length = radius.min(axis=1) * reach
    number = np.ceil(radius.max(axis=1) * F(1.6 * scale * ROWS)).astype(np.intp) + 1
    which = np.repeat(np.arange(len(knots)), number)
    begin = np.cumsum(number) - number
    turn = (np.arange(len(which)) - begin[which] + F(0.5)) / number[which] * F(np.pi / 2)
    cos, sin = np.cos(turn).astype(F), np.sin(turn).astype(F)
    direction = unit(slope[knots, :3])[which]
    out = (length[which] * sin)[:, None]
    return Rings(
        owner[which],
        distance[knots][which] + out[:, 0],
        rings[knots, :3][which] + direction * out,
        np.maximum(radius[which] * cos[:, None], F(1e-4)),
        direction,
        np.stack([cos, sin * np.sign(reach)[which]], axis=1),
    )
