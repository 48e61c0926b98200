"""From tubes to pixels: one surface sample per covered pixel.

All tubes are sampled together in a few NumPy calls. Around each ring only the part that faces the camera is sampled,
evenly on the screen. The nearest sample of a pixel wins; position, normal, colour and light are computed for the
winners alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from tipr.data.synthetic.geometry import Figure, Ints, Rings, Surface, Tube, cross, interpolate, unit
from tipr.data.synthetic.palette import Floats

F = np.float32
Keys = npt.NDArray[np.uint16]
DENSITY = 1.06
"""Samples per pixel length around a tube; what holes remain are single pixels and get closed."""
GAP = 0.010
"""A pixel that lies this much deeper than both its neighbours is a hole in the nearer surface."""
_LARGEST_RING = 640
_CHUNK = 24_000
_FINE = 32_000
"""Steps of the depth key per body unit; the body lies within -1 .. 1."""


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


def _arc_tables() -> tuple[Floats, Ints]:
    """For every number n of samples: n places in -1 .. 1 that lie evenly on the screen when put on a half ring."""
    offsets = np.cumsum(np.arange(_LARGEST_RING + 1)) - np.arange(_LARGEST_RING + 1)
    number = np.repeat(np.arange(_LARGEST_RING + 1), np.arange(_LARGEST_RING + 1))
    within = np.arange(len(number)) - offsets[number]
    even = (within + 0.5) / number * 2 - 1
    return (np.arcsin(even) * (2 / np.pi)).astype(F), offsets.astype(np.intp)


_ARC, _ARC_OFFSET = _arc_tables()


@dataclass(frozen=True, slots=True)
class _Slots:
    """Rings as they are seen; a ring whose inner side shows has a second slot for it.

    Attributes:
        row: (S,) ring of the slot.
        number: (S,) samples on it.
        middle, half: (S,) angle that faces the camera, and how far the seen arc reaches to both sides.
        screen: (10, S) column, row and depth of the centre, of the two radii, and the bulge.
        body: (18, S) in body space, three rows each: centre, the two radii, their directions divided by their
            length, the lengthwise part of the normal.
        radial: (S,) the radial part of the normal.
        side: (S,) -1 for inner sides, else 1.
    """

    row: Ints
    number: Ints
    middle: Floats
    half: Floats
    screen: Floats
    body: Floats
    radial: Floats
    side: Floats


def _arrange(tubes: Sequence[Tube], rings: Rings, view: View) -> _Slots:
    """Find the arc of every ring that faces the camera and how many samples it takes."""
    right, up, toward = view.axes()
    sideways = np.array([tube.sideways for tube in tubes], dtype=F)[rings.tube]
    across = unit(cross(rings.direction, sideways))
    lateral = cross(across, rings.direction)
    a, b = rings.radius[:, 0], rings.radius[:, 1]
    facing_a, facing_b, facing_t = lateral @ toward, across @ toward, rings.direction @ toward
    bulge = np.array([tube.bulge for tube in tubes], dtype=F)[rings.tube]

    amplitude = np.hypot(facing_a * b, facing_b * a) / np.sqrt(a * b)
    level = -rings.slope[:, 1] * facing_t / (rings.slope[:, 0] * amplitude + F(1e-6))
    seen = np.arccos(np.clip(level, -1, 1))
    half = np.minimum(seen * np.where(bulge > F(0.3), F(1.12), F(1.03)), F(np.pi))
    middle = np.arctan2(facing_b * a, facing_a * b)
    wide = np.hypot(facing_a, facing_b)
    extent = np.minimum(np.hypot(a * facing_b, b * facing_a) / np.maximum(wide, F(0.05)), np.maximum(a, b))
    extent = np.maximum(extent, np.minimum(a, b)) * F(2 * view.scale * DENSITY)
    number = np.ceil(extent * np.maximum(F(1), half * F(2 / np.pi))) + 1
    number = np.where(level < 1, number, 0)

    # Of a ring whose inner side can be seen it is the rest of the arc.
    backs = np.flatnonzero(np.array([tube.inside for tube in tubes])[rings.tube] & (seen < F(3.1)))
    row = np.concatenate([np.arange(len(number)), backs])
    number = np.minimum(np.concatenate([number, np.ceil(extent[backs])]), _LARGEST_RING).astype(np.intp)
    middle = np.concatenate([middle, middle[backs] + F(np.pi)])
    half = np.concatenate([half, F(np.pi) - seen[backs]])

    axes = np.stack([right * F(view.scale), up * F(-view.scale), toward])
    centre = rings.centre @ axes.T
    centre[:, 0] += F(view.centre)
    centre[:, 1] += F(view.ground + view.floor * np.cos(view.pitch) * view.scale)
    centre[:, 2] += np.array([tube.over for tube in tubes], dtype=F)[rings.tube]
    screen = np.concatenate(
        [centre, (lateral * a[:, None]) @ axes.T, (across * b[:, None]) @ axes.T, bulge[:, None]], axis=1
    )
    body = np.concatenate(
        [
            rings.centre,
            lateral * a[:, None],
            across * b[:, None],
            lateral / a[:, None],
            across / b[:, None],
            rings.direction * rings.slope[:, 1:],
        ],
        axis=1,
    )
    screen = np.ascontiguousarray(screen[row].T)
    screen[2, len(rings.tube) :] -= F(0.03)  # an inner side never shines through its own outer side
    side = np.ones(len(row), dtype=F)
    side[len(rings.tube) :] = -1
    return _Slots(
        row,
        number,
        middle,
        half,
        screen,
        np.ascontiguousarray(body[row].T),
        rings.slope[row, 0],
        side,
    )


def _sample(slots: _Slots, width: int, height: int) -> tuple[Floats, Ints, Keys]:
    """Angle, pixel and depth key of all samples; those outside the picture get the pixel width * height.

    The work goes through some hundred rings at a time, so that all between stays in the processor's cache.
    """
    end = np.cumsum(slots.number)
    total = int(end[-1])
    angle = np.empty(total, dtype=F)
    pixel = np.empty(total, dtype=np.int32)
    key = np.empty(total, dtype=np.uint16)
    shift = (_ARC_OFFSET[slots.number] - (end - slots.number)).astype(np.int32)
    limits = np.searchsorted(end, np.arange(_CHUNK, total, _CHUNK))
    for first, last in zip([0, *limits], [*limits, len(end)], strict=True):
        low = int(end[first - 1]) if first else 0
        high = int(end[last - 1]) if last else 0
        if low >= high:
            continue
        number = slots.number[first:last]
        within = np.repeat(shift[first:last], number)
        within += np.arange(low, high, dtype=np.int32)
        turn = np.take(_ARC, within)
        turn *= np.repeat(slots.half[first:last], number)
        turn += np.repeat(slots.middle[first:last], number)
        cos, sin = np.cos(turn), np.sin(turn)
        grow = cos * sin
        grow *= grow
        grow *= np.repeat(slots.screen[9, first:last], number)
        grow += 1
        cos *= grow
        sin *= grow
        column, row, near = (
            np.repeat(slots.screen[axis, first:last], number)
            + cos * np.repeat(slots.screen[3 + axis, first:last], number)
            + sin * np.repeat(slots.screen[6 + axis, first:last], number)
            for axis in range(3)
        )
        place = row.astype(np.int32)
        place *= width
        place += column.astype(np.int32)
        place[(column < 0) | (column >= width) | (row < 0) | (row >= height)] = width * height
        angle[low:high], pixel[low:high] = turn, place
        key[low:high] = np.clip((near + F(1)) * F(_FINE), 1, 65535).astype(np.uint16)
    return angle, pixel, key


def _position(slots: _Slots, slot: Ints, angle: Floats) -> Floats:
    """Points (n, 3) in body space at angles of slots; every column is contiguous."""
    cos, sin = np.cos(angle), np.sin(angle)
    grow = 1 + slots.screen[9][slot] * (cos * sin) ** 2
    cos *= grow
    sin *= grow
    point = np.empty((3, len(slot)), dtype=F)
    for axis in range(3):
        point[axis] = slots.body[axis][slot] + cos * slots.body[3 + axis][slot] + sin * slots.body[6 + axis][slot]
    return point.T


def _normal(slots: _Slots, slot: Ints, angle: Floats) -> Floats:
    """Unit normals (n, 3) in body space at angles of slots."""
    cos, sin = np.cos(angle), np.sin(angle)
    normal = np.empty((3, len(slot)), dtype=F)
    for axis in range(3):
        normal[axis] = cos * slots.body[9 + axis][slot] + sin * slots.body[12 + axis][slot]
    x, y, z = normal
    normal *= slots.radial[slot] / np.sqrt(x * x + y * y + z * z + F(1e-12))
    for axis in range(3):
        normal[axis] += slots.body[15 + axis][slot]
    normal *= slots.side[slot] / np.sqrt(x * x + y * y + z * z + F(1e-12))
    return normal.T


def rasterise(figure: Figure, view: View, width: int, height: int) -> Raster | None:
    """Find the nearest sample of `figure` for every pixel of a picture of `width` x `height`; None when none lands."""
    tubes = figure.tubes
    rings = interpolate(tubes, view.scale)
    slots = _arrange(tubes, rings, view)
    if not slots.number.any():
        return None
    angle, pixel, key = _sample(slots, width, height)
    slot_of = np.repeat(np.arange(len(slots.number), dtype=np.int32), slots.number)
    tube_of = rings.tube[slots.row].astype(np.uint8)
    for index, tube in enumerate(tubes):
        if tube.cut is not None:
            mine = np.flatnonzero(np.repeat(tube_of == index, slots.number))
            gone = ~tube.cut(_position(slots, slot_of[mine], angle[mine]))
            pixel[mine[gone]] = width * height
    order = np.argsort(key, kind="stable")
    winner: Ints = np.full(width * height + 1, -1, dtype=np.int32)
    winner[pixel[order]] = order  # the last write, the nearest sample, stays
    winner = _close_holes(winner[:-1].reshape(height, width), key).ravel()

    covered = np.flatnonzero(winner >= 0)
    if not len(covered):
        return None
    tube_seen = tube_of[slot_of[winner[covered]]]
    order = np.argsort(tube_seen, kind="stable")
    covered = covered[order]
    sample = winner[covered]
    slot, turn = slot_of[sample], angle[sample]
    surface = Surface(turn, rings.along[slots.row[slot]], _position(slots, slot, turn), _normal(slots, slot, turn))
    return Raster(covered, tube_seen[order], key[sample] * F(1 / _FINE), surface)


def _close_holes(winner: Ints, key: Keys) -> Ints:
    """Where a pixel is empty or much deeper than both neighbours in a row or a column, take one of these."""
    near = np.where(winner >= 0, key[winner], np.uint16(0)).astype(np.int32)
    low = near + int(GAP * _FINE)
    closed = winner.copy()
    place = np.flatnonzero(np.minimum(near[:, :-2], near[:, 2:]) > low[:, 1:-1])
    rows, columns = np.divmod(place, winner.shape[1] - 2)
    closed[rows, columns + 1] = winner[rows, columns]
    place = np.flatnonzero(np.minimum(near[:-2], near[2:]) > low[1:-1])
    rows, columns = np.divmod(place, winner.shape[1])
    closed[rows + 1, columns] = winner[rows, columns]
    return closed
