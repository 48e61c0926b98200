"""Lofted tubes and their rasterisation: from rings in body space to one surface sample per pixel.

A figure is a list of tubes; a tube is a row of elliptic rings. All tubes are sampled together in a few NumPy calls:
rings are interpolated along the tube, and around each ring only the half that faces the camera is sampled, evenly
on the screen. The nearest sample of a pixel wins; colour and light are computed for the winners alone.
Body space: unit = mean body height, x to the person's left, y up, z forward.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import numpy.typing as npt

from tipr.data.synthetic.palette import Floats

F = np.float32
Ints = npt.NDArray[np.intp]
Bools = npt.NDArray[np.bool_]
Vector = Sequence[float]
Cut = Callable[[Floats], Bools]
"""Positions (n, 3) of samples -> which of them belong to the surface."""

SIDEWAYS = (1.0, 0.0, 0.0)
DENSITY = 1.06
"""Samples per pixel length around a tube; what holes remain are single pixels and get closed."""
ROWS = 1.22
"""Rings per pixel length along a tube; more than around, because interpolation does not keep an even pace."""
GAP = 0.010
"""A pixel that lies this much deeper than both its neighbours is a hole in the nearer surface."""
_LARGEST_RING = 640


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
    """A material: the colour of surface samples, (n, 3) in 0 .. 1 before light. `gloss` is the strength of highlights."""

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
class View:
    """Where the camera stands and how body space lands on the picture (orthographic).

    Attributes:
        yaw: turn of the body in radians.
        pitch: how far the camera looks down, radians.
        scale: pixels per body unit.
        centre: column of the body's axis.
        ground: row of y = `floor`.
        floor: height of the soles in body space.
    """

    yaw: float
    pitch: float
    scale: float
    centre: float
    ground: float
    floor: float

    def axes(self) -> Floats:
        """(3, 3): unit vectors to the right, up and towards the camera, in body space."""
        c, s = np.cos(self.yaw), np.sin(self.yaw)
        cp, sp = np.cos(self.pitch), np.sin(self.pitch)
        return np.array([[c, 0, s], [s * sp, cp, -c * sp], [-s * cp, sp, c * cp]], dtype=F)


@dataclass(frozen=True, slots=True)
class _Rows:
    """Rings after interpolation; every field has one row per ring."""

    tube: Ints
    along: Floats
    centre: Floats
    radius: Floats  # (R, 2)
    direction: Floats
    slope: Floats  # (R, 2): share of the radial and of the lengthwise part of the normal


@dataclass(frozen=True, slots=True)
class Raster:
    """What a figure covers on the picture.

    Attributes:
        pixel: (n,) flat index of the covered pixels, sorted by tube.
        tube: (n,) number of the tube seen there.
        depth: (n,) larger is nearer.
        surface: the samples.
    """

    pixel: Ints
    tube: npt.NDArray[np.uint8]
    depth: Floats
    surface: Surface


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
    return mean


def _cross(a: Floats, b: Floats) -> Floats:
    x = a[:, 1] * b[:, 2] - a[:, 2] * b[:, 1]
    y = a[:, 2] * b[:, 0] - a[:, 0] * b[:, 2]
    z = a[:, 0] * b[:, 1] - a[:, 1] * b[:, 0]
    return np.stack([x, y, z], axis=1)


def _unit(a: Floats) -> Floats:
    return a / (np.sqrt(np.einsum("ij,ij->i", a, a))[:, None] + F(1e-9))


def _interpolate(tubes: Sequence[Tube], scale: float) -> _Rows:
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
    heading = _unit(slope[:, :3])
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
        _Rows(
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
            rows.append(_caps(rings, slope, knots[chosen], chosen, share[chosen], sign, scale, distance))
    return _Rows(
        *(np.concatenate([getattr(row, name) for row in rows]) for name in _Rows.__slots__),
    )


def _caps(
    rings: Floats, slope: Floats, knots: Ints, owner: Ints, share: Floats, sign: float, scale: float, distance: Floats
) -> _Rows:
    radius = rings[knots, 3:]
    reach = radius.min(axis=1) * share
    number = np.ceil(radius.max(axis=1) * F(1.6 * scale * ROWS)).astype(np.intp) + 1
    which = np.repeat(np.arange(len(knots)), number)
    begin = np.cumsum(number) - number
    turn = (np.arange(len(which)) - begin[which] + F(0.5)) / number[which] * F(np.pi / 2)
    cos, sin = np.cos(turn).astype(F), np.sin(turn).astype(F)
    direction = _unit(slope[knots, :3])[which]
    out = (reach[which] * sin * F(sign))[:, None]
    return _Rows(
        owner[which],
        distance[knots][which] + out[:, 0],
        rings[knots, :3][which] + direction * out,
        np.maximum(radius[which] * cos[:, None], F(1e-4)),
        direction,
        np.stack([cos, sin * F(sign)], axis=1),
    )


def _arc_tables() -> tuple[Floats, Ints]:
    """For every number n of samples: n places in -1 .. 1 that lie evenly on the screen when put on a half ring."""
    offsets = np.cumsum(np.arange(_LARGEST_RING + 1)) - np.arange(_LARGEST_RING + 1)
    number = np.repeat(np.arange(_LARGEST_RING + 1), np.arange(_LARGEST_RING + 1))
    within = np.arange(len(number)) - offsets[number]
    even = (within + 0.5) / number * 2 - 1
    return (np.arcsin(even) * (2 / np.pi)).astype(F), offsets.astype(np.intp)


_ARC, _ARC_OFFSET = _arc_tables()


def rasterise(figure: Figure, view: View, width: int, height: int) -> Raster | None:
    """Find the nearest sample of `figure` for every pixel of a picture of `width` x `height`; None when none lands."""
    tubes = figure.tubes
    rows = _interpolate(tubes, view.scale)
    right, up, toward = view.axes()
    sideways = np.array([tube.sideways for tube in tubes], dtype=F)[rows.tube]
    across = _unit(_cross(rows.direction, sideways))
    lateral = _cross(across, rows.direction)
    a, b = rows.radius[:, 0], rows.radius[:, 1]
    facing_a, facing_b, facing_t = lateral @ toward, across @ toward, rows.direction @ toward
    bulge = np.array([tube.bulge for tube in tubes], dtype=F)[rows.tube]

    amplitude = np.hypot(facing_a * b, facing_b * a) / np.sqrt(a * b)
    level = -rows.slope[:, 1] * facing_t / (rows.slope[:, 0] * amplitude + F(1e-6))
    seen = level < 1
    half = np.arccos(np.clip(level, -1, 1))
    half = np.minimum(half * np.where(bulge > F(0.3), F(1.12), F(1.03)), F(np.pi))
    middle = np.arctan2(facing_b * a, facing_a * b)
    wide = np.hypot(facing_a, facing_b)
    extent = np.minimum(np.hypot(a * facing_b, b * facing_a) / np.maximum(wide, F(0.05)), np.maximum(a, b))
    extent = np.maximum(extent, np.minimum(a, b))
    stretch = np.maximum(F(1.0), half * F(2 / np.pi))
    number = np.ceil(extent * stretch * F(2 * view.scale * DENSITY)).astype(np.intp) + 1
    number = np.minimum(np.where(seen, number, 0), _LARGEST_RING)
    inner = np.array([tube.inside for tube in tubes], dtype=bool)
    backs = np.flatnonzero(inner[rows.tube]) if inner.any() else np.empty(0, dtype=np.intp)
    row_index = np.concatenate([np.arange(len(number)), backs])
    if len(backs):
        number = np.concatenate([number, np.minimum(np.ceil(extent[backs] * F(2.4 * view.scale * DENSITY)), 600)])
        number = number.astype(np.intp)
        middle = np.concatenate([middle, middle[backs] + F(np.pi)])
        half = np.concatenate([half, np.full(len(backs), np.pi / 2, dtype=F)])

    # Row vectors on the screen: column, row, depth of the centre and of the two radii.
    screen = np.stack([right * F(view.scale), up * F(-view.scale), toward])
    middle_at = rows.centre @ screen.T
    middle_at[:, 0] += F(view.centre)
    middle_at[:, 1] += F(view.ground + view.floor * np.cos(view.pitch) * view.scale)
    middle_at[:, 2] += np.array([tube.over for tube in tubes], dtype=F)[rows.tube]
    ring = np.concatenate([middle_at, (lateral * a[:, None]) @ screen.T, (across * b[:, None]) @ screen.T], axis=1)
    ring = np.ascontiguousarray(ring[row_index].T)

    total = int(number.sum())
    if not total:
        return None
    source = np.repeat(np.arange(len(number), dtype=np.int32), number)
    begin = np.cumsum(number) - number
    place = _ARC[np.arange(total) + np.repeat(_ARC_OFFSET[number] - begin, number)]
    angle = np.repeat(half, number)
    angle *= place
    angle += np.repeat(middle, number)
    cos, sin = np.cos(angle), np.sin(angle)
    grow = cos * sin
    grow *= grow
    grow *= np.repeat(bulge[row_index], number)
    grow += 1
    kc, ks = cos * grow, sin * grow

    def on_screen(axis: int) -> Floats:
        value = kc * np.repeat(ring[3 + axis], number)
        value += ks * np.repeat(ring[6 + axis], number)
        value += np.repeat(ring[axis], number)
        return value

    x, y, depth = on_screen(0), on_screen(1), on_screen(2)
    tube_of = rows.tube[row_index].astype(np.uint8)
    out = (x < 0) | (x >= width) | (y < 0) | (y >= height)
    for index, tube in enumerate(tubes):
        if tube.cut is not None:
            mine = np.flatnonzero(np.repeat(tube_of == index, number))
            where = row_index[source[mine]]
            position = rows.centre[where] + (a[where] * kc[mine])[:, None] * lateral[where]
            position += (b[where] * ks[mine])[:, None] * across[where]
            out[mine] |= ~tube.cut(position)
    pixel = y.astype(np.int32)
    pixel *= width
    pixel += x.astype(np.int32)
    pixel[out] = width * height  # one more pixel takes what is not to be seen
    low, high = float(depth.min()), float(depth.max())
    depth -= F(low)
    order = np.argsort((depth * F(65535.0 / max(high - low, 1e-6))).astype(np.uint16), kind="stable")
    winner = np.full(width * height + 1, -1, dtype=np.intp)
    winner[pixel[order]] = order
    winner = _close_holes(winner[:-1].reshape(height, width), depth).ravel()

    covered = np.flatnonzero(winner >= 0)
    if not len(covered):
        return None
    sample = winner[covered]
    tube_seen = tube_of[source[sample]]
    order = np.argsort(tube_seen, kind="stable")
    covered, sample, tube_seen = covered[order], sample[order], tube_seen[order]
    slot = source[sample]
    where = row_index[slot]
    c, s = cos[sample], sin[sample]
    al, ac, aa, bb = lateral[where], across[where], a[where], b[where]
    radial = (c / aa)[:, None] * al + (s / bb)[:, None] * ac
    normal = _unit(radial) * rows.slope[where, :1] + rows.slope[where, 1:] * rows.direction[where]
    normal = _unit(normal)
    if len(backs):
        normal[slot >= len(rows.tube)] *= -1
    position = rows.centre[where] + (aa * kc[sample])[:, None] * al + (bb * ks[sample])[:, None] * ac
    surface = Surface(angle[sample], rows.along[where], position, normal)
    return Raster(covered, tube_seen, depth[sample], surface)


def _close_holes(winner: Ints, depth: Floats) -> Ints:
    """Where a pixel is empty or much deeper than both neighbours in a row or a column, take one of these."""
    near = np.concatenate([depth, np.full(1, -1, dtype=F)])[winner]
    low = near + F(GAP)
    sides = np.minimum(near[:, :-2], near[:, 2:]) > low[:, 1:-1]
    rows, columns = np.nonzero(sides)
    closed = winner.copy()
    closed[rows, columns + 1] = winner[rows, columns]
    ends = np.minimum(near[:-2], near[2:]) > low[1:-1]
    rows, columns = np.nonzero(ends)
    closed[rows + 1, columns] = winner[rows, columns]
    return closed
