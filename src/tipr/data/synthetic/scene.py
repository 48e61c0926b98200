"""Places: fixed cameras with their light and sensor, and the background plates they look at."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFilter

from tipr.data.synthetic.palette import Floats

F = np.float32
PLACES = ("street", "corridor", "park", "plaza", "station", "street", "park", "corridor")
PLATE = (264, 520)
"""Width and height of a background plate in pixels."""
PLATES = 4
"""Plates per camera."""

Triple = tuple[int, int, int]


@dataclass(frozen=True, slots=True)
class Camera:
    """A fixed camera.

    Attributes:
        place: key of the drawing functions.
        pitch: how far it looks down, radians.
        light: (3,) unit vector towards the light: right, up, towards the camera.
        ambient: share of the light that comes from everywhere.
        gain: (3,) factors of the channels (tint).
        exposure, gamma, saturation: tone.
        blur: standard deviation in pixels at a width of 128.
        noise: standard deviation, 1 = white.
        resolution: share of the pixels that carry detail.
    """

    place: str
    pitch: float
    light: Floats
    ambient: float
    gain: Floats
    exposure: float
    gamma: float
    saturation: float
    blur: float
    noise: float
    resolution: float


@dataclass(slots=True)
class World:
    """The cameras of one set. Plates are drawn when first needed and depend on (seed, camera, number) alone."""

    seed: int = 0
    cameras: int = 8
    _cameras: tuple[Camera, ...] = field(init=False, repr=False)
    _plates: dict[tuple[int, int], Image.Image] = field(init=False, repr=False, default_factory=dict)

    def __post_init__(self) -> None:
        self._cameras = tuple(_camera(self.seed, number) for number in range(self.cameras))

    def camera(self, number: int) -> Camera:
        return self._cameras[number]

    def plate(self, camera: int, number: int) -> Image.Image:
        """Background number `number` of a camera: RGB, `PLATE` pixels."""
        key = (camera, number % PLATES)
        if key not in self._plates:
            self._plates[key] = draw_plate(self._cameras[camera].place, np.random.default_rng([self.seed, 31, *key]))
        return self._plates[key]


def _camera(seed: int, number: int) -> Camera:
    r = np.random.default_rng([seed, 77, number])
    turn = r.uniform(-1.0, 1.0)
    light = np.array([np.sin(turn), r.uniform(0.5, 1.0), abs(np.cos(turn)) + 0.25])
    return Camera(
        place=PLACES[number % len(PLACES)],
        pitch=float(np.radians(r.uniform(3, 18))),
        light=(light / np.linalg.norm(light)).astype(F),
        ambient=float(r.uniform(0.46, 0.64)),
        gain=np.exp(r.normal(0, 0.013, 3)).astype(F),
        exposure=float(r.uniform(0.95, 1.13)),
        gamma=float(r.uniform(0.88, 1.10)),
        saturation=float(r.uniform(0.86, 1.08)),
        blur=float(r.uniform(0.0, 0.7)),
        noise=float(r.uniform(0.004, 0.018)),
        resolution=float(r.uniform(0.55, 1.0)),
    )


def _tone(colour: Sequence[float] | npt.NDArray[np.float64], factor: float = 1.0) -> Triple:
    r, g, b = (int(np.clip(c * factor, 0, 255)) for c in colour)
    return r, g, b


def draw_plate(place: str, r: np.random.Generator) -> Image.Image:
    """Draw one background of a place; the ground fills the lower part."""
    width, height = PLATE
    image = Image.new("RGB", PLATE)
    draw = ImageDraw.Draw(image)
    horizon = int(height * r.uniform(0.50, 0.62))
    {"street": _street, "corridor": _corridor, "park": _park, "plaza": _plaza, "station": _station}[place](
        image, draw, horizon, r
    )
    image = image.filter(ImageFilter.GaussianBlur(float(r.uniform(0.9, 1.8))))
    coarse = Image.fromarray(r.integers(0, 256, (height // 20, width // 20), dtype=np.uint8)).resize(
        PLATE, Image.Resampling.BICUBIC
    )
    fine = r.normal(0, 2.2, (height, width, 1))
    light = (np.asarray(coarse, dtype=F)[:, :, None] - 128) * F(0.055)
    return Image.fromarray(np.clip(np.asarray(image, dtype=F) + light + fine, 0, 255).astype(np.uint8))


def _gradient(image: Image.Image, box: tuple[int, int, int, int], top: Triple, bottom: Triple) -> None:
    left, upper, right, lower = box
    if right <= left or lower <= upper:
        return
    ramp = np.linspace(np.array(top, dtype=F), np.array(bottom, dtype=F), lower - upper)[:, None, :]
    image.paste(
        Image.fromarray(np.broadcast_to(ramp, (lower - upper, right - left, 3)).astype(np.uint8).copy()), (left, upper)
    )


def _ground(image: Image.Image, horizon: int, base: Triple, r: np.random.Generator) -> None:
    draw = ImageDraw.Draw(image)
    width, height = PLATE
    _gradient(image, (0, horizon, width, height), _tone(base, 0.84), _tone(base, 1.06))
    joint = _tone(base, 0.86)
    centre = width * r.uniform(0.1, 0.9)
    for k in range(-16, 17):
        draw.line([(centre + k * 9, horizon), (centre + k * 58, height)], fill=joint)
    y, gap = float(horizon) + 2, 4.0
    while y < height:
        draw.line([(0, y), (width, y)], fill=joint)
        y, gap = y + gap, gap * 1.32


def _trees(
    image: Image.Image, r: np.random.Generator, count: int, span: tuple[int, int], size: tuple[float, float]
) -> None:
    """Clumps of leaves with centres between the rows `span`; later ones are nearer and darker."""
    draw = ImageDraw.Draw(image)
    width = PLATE[0]
    for layer in range(count):
        depth = layer / max(count - 1, 1)
        base = np.array([60, 96, 48]) * (0.75 + 0.4 * r.random()) * (1.28 - 0.5 * depth) + np.array([28, 30, 26]) * (
            1 - depth
        )
        x, y = r.uniform(-20, width + 20), r.uniform(*span)
        reach = r.uniform(*size) * (0.7 + 0.5 * depth)
        for _ in range(26):
            a, d = r.uniform(0, 2 * np.pi), np.sqrt(r.random()) * reach
            px, py, s = x + d * np.cos(a), y + 0.75 * d * np.sin(a), reach * r.uniform(0.16, 0.34)
            shade = 1.0 - 0.28 * np.sin(a) + r.normal(0, 0.07)
            draw.ellipse([px - s, py - s * 0.85, px + s, py + s * 0.85], fill=_tone(base, shade))


def _street(image: Image.Image, draw: ImageDraw.ImageDraw, horizon: int, r: np.random.Generator) -> None:
    width, height = PLATE
    sky = [(196, 212, 228), (214, 218, 220), (176, 194, 214)][int(r.integers(3))]
    _gradient(image, (0, 0, width, horizon), _tone(sky, 0.94), _tone(sky, 1.08))
    x = int(r.integers(-60, 0))
    while x < width:
        w = int(r.integers(70, 150))
        wall = [(172, 140, 116), (188, 182, 170), (142, 144, 150), (204, 188, 158), (160, 118, 100)][int(r.integers(5))]
        wall = _tone(wall, r.uniform(0.85, 1.08))
        top = int(r.integers(-60, horizon // 4))
        _gradient(image, (max(x, 0), max(top, 0), min(x + w, width), horizon), _tone(wall, 1.05), _tone(wall, 0.9))
        glass = _tone((86, 100, 116), r.uniform(0.8, 1.35))
        ww, hh = int(r.integers(13, 21)), int(r.integers(22, 34))
        for wy in range(top + 14, horizon - 92, hh + 18):
            for wx in range(x + 9, x + w - ww - 4, ww + 13):
                draw.rectangle([wx - 2, wy - 2, wx + ww + 2, wy + hh + 3], fill=_tone(wall, 1.13))
                draw.rectangle([wx, wy, wx + ww, wy + hh], fill=_tone(glass, r.uniform(0.85, 1.2)))
        front = horizon - 74
        draw.rectangle(
            [x, front - 14, x + w, front - 2],
            fill=_tone([(120, 60, 54), (62, 84, 108), (70, 92, 74), (96, 90, 84)][int(r.integers(4))]),
        )
        draw.rectangle([x + 5, front, x + w - 6, horizon - 8], fill=_tone((74, 82, 90), r.uniform(0.9, 1.5)))
        draw.rectangle(
            [x + w // 2 - 9, front + 4, x + w // 2 + 9, horizon], fill=_tone((58, 52, 48), r.uniform(0.8, 1.4))
        )
        x += w
    pavement = [(150, 150, 150), (164, 160, 152), (136, 138, 142)][int(r.integers(3))]
    _ground(image, horizon, pavement, r)
    if r.random() < 0.6:
        _car(draw, int(r.integers(-40, width - 90)), horizon + 6, r)
    if r.random() < 0.5:
        road = int(horizon + (height - horizon) * r.uniform(0.08, 0.2))
        _gradient(image, (0, horizon, width, road), (104, 106, 110), (112, 114, 118))
        draw.rectangle([0, road, width, road + 5], fill=(186, 184, 178))


def _car(draw: ImageDraw.ImageDraw, x: int, ground: int, r: np.random.Generator) -> None:
    body = [(128, 42, 40), (52, 66, 96), (190, 192, 194), (50, 52, 56), (142, 146, 150)][int(r.integers(5))]
    draw.rounded_rectangle([x, ground - 40, x + 136, ground - 9], 9, fill=body)
    draw.polygon(
        [(x + 20, ground - 38), (x + 38, ground - 63), (x + 98, ground - 63), (x + 120, ground - 38)],
        fill=_tone(body, 0.9),
    )
    draw.polygon(
        [(x + 28, ground - 40), (x + 42, ground - 59), (x + 66, ground - 59), (x + 66, ground - 40)],
        fill=(92, 106, 118),
    )
    draw.polygon(
        [(x + 71, ground - 40), (x + 71, ground - 59), (x + 95, ground - 59), (x + 110, ground - 40)],
        fill=(92, 106, 118),
    )
    draw.line([(x + 2, ground - 26), (x + 134, ground - 26)], fill=_tone(body, 0.8), width=2)
    for wheel in (x + 28, x + 108):
        draw.ellipse([wheel - 14, ground - 22, wheel + 14, ground + 4], fill=(34, 34, 36))
        draw.ellipse([wheel - 6, ground - 15, wheel + 6, ground - 3], fill=(150, 152, 154))


def _corridor(image: Image.Image, draw: ImageDraw.ImageDraw, horizon: int, r: np.random.Generator) -> None:
    width, height = PLATE
    wall = [(212, 208, 196), (194, 202, 206), (216, 210, 208), (184, 178, 166)][int(r.integers(4))]
    floor_tone = _tone(wall, r.uniform(0.68, 0.86))
    vx, vy = width * r.uniform(0.25, 0.75), horizon * r.uniform(0.45, 0.6)
    left, right = vx - 46, vx + 46
    top, low = vy - 84, vy + 72
    draw.rectangle([0, 0, width, height], fill=_tone(wall, 0.98))
    draw.polygon([(0, -120), (left, top), (right, top), (width, -120)], fill=_tone(wall, 1.08))
    draw.polygon([(-220, height), (left, low), (right, low), (width + 220, height)], fill=floor_tone)
    draw.polygon([(left, top), (left, low), (-220, height), (-220, -120), (0, -120)], fill=_tone(wall, 0.92))
    draw.polygon(
        [(right, top), (right, low), (width + 220, height), (width + 220, -120), (width, -120)], fill=_tone(wall, 0.86)
    )
    draw.rectangle([left, top, right, low], fill=_tone(wall, 1.0))
    for k, light in enumerate((0.12, 0.34, 0.62)):
        y = top * (1 - light) - 60 * light
        half = 9 + 40 * light
        draw.polygon(
            [(vx - half, y), (vx + half, y), (vx + half * 1.25, y - 7 - 10 * k), (vx - half * 1.25, y - 7 - 10 * k)],
            fill=(248, 248, 244),
        )
    door = [(132, 104, 80), (112, 122, 132), (150, 142, 132)][int(r.integers(3))]
    draw.rectangle([vx - 19, low - 88, vx + 19, low], fill=_tone(door, 1.05))
    for share in (0.18, 0.55):
        for sign, edge in ((-1, left), (1, right)):
            x0 = edge + sign * 210 * share
            x1 = edge + sign * (210 * share + 26 + 60 * share)
            yb0 = low + (height - low) * abs(x0 - edge) / 245
            yb1 = low + (height - low) * abs(x1 - edge) / 245
            yt0, yt1 = yb0 - 100 - 150 * share, yb1 - 104 - 190 * share
            draw.polygon([(x0, yb0), (x0, yt0), (x1, yt1), (x1, yb1)], fill=_tone(door, 0.92))
    for sign, edge in ((-1, left), (1, right)):
        draw.line([(edge, low), (edge + sign * 245, height)], fill=_tone(wall, 0.62), width=4)
    for k in range(1, 9):
        y = low + (height - low) * (k / 8) ** 1.8
        draw.line([(0, y), (width, y)], fill=_tone(floor_tone, 0.94))
    for k in range(-6, 7):
        draw.line([(vx + k * 13, low), (vx + k * 92, height)], fill=_tone(floor_tone, 0.95))
    draw.polygon([(vx - 26, low), (vx + 26, low), (vx + 70, height), (vx - 70, height)], fill=_tone(floor_tone, 1.05))


def _park(image: Image.Image, draw: ImageDraw.ImageDraw, horizon: int, r: np.random.Generator) -> None:
    width, height = PLATE
    _gradient(image, (0, 0, width, horizon), (186, 208, 226), (222, 228, 222))
    _trees(image, r, 7, (int(horizon * 0.55), int(horizon * 0.82)), (36, 60))
    _trees(image, r, 5, (int(horizon * 0.05), int(horizon * 0.6)), (46, 80))
    for _ in range(int(r.integers(2, 5))):
        x, w = r.uniform(0, width), r.uniform(5, 11)
        draw.rectangle([x, horizon * 0.35, x + w, horizon + 6], fill=_tone((92, 74, 60), r.uniform(0.75, 1.1)))
    _trees(image, r, 5, (int(horizon * 0.86), horizon - 8), (24, 40))
    grass = _tone((122, 146, 88), r.uniform(0.85, 1.05))
    _gradient(image, (0, horizon - 6, width, height), _tone(grass, 0.9), _tone(grass, 1.04))
    vx = width * r.uniform(0.2, 0.8)
    path = [(196, 186, 166), (172, 170, 166)][int(r.integers(2))]
    foot = r.uniform(0.1, 0.9) * width
    draw.polygon(
        [(vx - 22, horizon - 4), (vx + 22, horizon - 4), (foot + 190, height), (foot - 190, height)], fill=path
    )
    if r.random() < 0.55:
        x, y = r.uniform(0, width - 80), horizon + r.uniform(10, 30)
        for k in range(3):
            draw.rectangle([x, y - 26 + 8 * k, x + 84, y - 21 + 8 * k], fill=(122, 90, 62))
        draw.rectangle([x + 8, y - 26, x + 12, y + 12], fill=(58, 58, 60))
        draw.rectangle([x + 72, y - 26, x + 76, y + 12], fill=(58, 58, 60))


def _plaza(image: Image.Image, draw: ImageDraw.ImageDraw, horizon: int, r: np.random.Generator) -> None:
    width = PLATE[0]
    _gradient(image, (0, 0, width, horizon), (182, 204, 226), (218, 226, 230))
    top = int(horizon * r.uniform(0.12, 0.3))
    stone = [(206, 196, 176), (190, 186, 180), (178, 186, 194)][int(r.integers(3))]
    _gradient(image, (0, top, width, horizon), _tone(stone, 1.04), _tone(stone, 0.9))
    draw.rectangle([0, top, width, top + 10], fill=_tone(stone, 1.14))
    glazed = r.random() < 0.5
    pitch = int(r.integers(38, 56))
    for x in range(int(r.integers(-30, 0)), width, pitch):
        tone = _tone((108, 128, 146), r.uniform(0.85, 1.2)) if glazed else _tone((92, 90, 88), r.uniform(0.85, 1.15))
        draw.rectangle([x + 8, top + 30, x + pitch - 8, horizon - 4], fill=tone)
        if not glazed:
            draw.pieslice([x + 8, top + 14, x + pitch - 8, top + 50], 180, 360, fill=tone)
        else:
            for y in range(top + 62, horizon, 34):
                draw.line([(x + 8, y), (x + pitch - 8, y)], fill=_tone(stone, 0.8), width=2)
        draw.rectangle([x - 3, top + 24, x + 5, horizon], fill=_tone(stone, 1.08))
    if r.random() < 0.6:
        _trees(image, r, 3, (int(horizon * 0.62), int(horizon * 0.78)), (26, 42))
    _ground(image, horizon, [(188, 182, 172), (172, 172, 174), (196, 186, 168)][int(r.integers(3))], r)
    if r.random() < 0.5:
        x = int(r.integers(-10, width - 60))
        draw.rectangle([x, horizon - 22, x + 76, horizon + 14], fill=_tone(stone, 0.82))
        draw.rectangle([x - 3, horizon - 26, x + 79, horizon - 19], fill=_tone(stone, 1.05))
        _trees(image, r, 2, (horizon - 44, horizon - 34), (16, 24))


def _station(image: Image.Image, draw: ImageDraw.ImageDraw, horizon: int, r: np.random.Generator) -> None:
    width, height = PLATE
    wall = [(198, 202, 204), (206, 200, 188), (176, 188, 196)][int(r.integers(3))]
    _gradient(image, (0, 0, width, horizon), _tone(wall, 0.82), _tone(wall, 1.02))
    for y in range(8, 70, 20):
        draw.rectangle([0, y, width, y + 3], fill=_tone(wall, 0.7))
    draw.rectangle([0, 84, width, 92], fill=(246, 246, 240))
    band = [(46, 84, 132), (150, 60, 52), (60, 112, 92), (196, 150, 60)][int(r.integers(4))]
    if r.random() < 0.6:
        y = horizon - int(r.integers(168, 200))
        _gradient(image, (0, y, width, horizon - 6), (206, 210, 212), (176, 180, 184))
        draw.rectangle([0, horizon - 52, width, horizon - 34], fill=band)
        for x in range(int(r.integers(-50, 0)), width, 92):
            draw.rounded_rectangle([x + 6, y + 26, x + 60, y + 84], 6, fill=(62, 74, 86))
            draw.rectangle([x + 67, y + 20, x + 86, horizon - 12], fill=(150, 156, 160))
            draw.rectangle([x + 70, y + 30, x + 83, y + 86], fill=(72, 84, 96))
        draw.rectangle([0, horizon - 8, width, horizon + 8], fill=(58, 58, 60))
    else:
        for x in range(int(r.integers(-20, 0)), width, 22):
            draw.line([(x, 96), (x, horizon)], fill=_tone(wall, 0.9))
        for y in range(110, horizon, 22):
            draw.line([(0, y), (width, y)], fill=_tone(wall, 0.9))
        x = int(r.integers(10, width - 100))
        draw.rectangle([x, horizon - 214, x + 104, horizon - 184], fill=band)
        draw.rectangle([x + 8, horizon - 203, x + 70, horizon - 196], fill=(236, 236, 232))
        draw.rectangle([x + 10, horizon - 158, x + 76, horizon - 60], fill=_tone((206, 176, 140), r.uniform(0.8, 1.1)))
        draw.rectangle([x + 18, horizon - 148, x + 68, horizon - 104], fill=_tone((112, 142, 160), r.uniform(0.8, 1.2)))
    for x in (int(r.integers(-10, 60)), int(r.integers(160, 260))):
        w = int(r.integers(16, 26))
        for k in range(w):
            draw.line(
                [(x + k, 0), (x + k, horizon + 14)],
                fill=_tone((168, 170, 172), 0.75 + 0.45 * np.sin(np.pi * (k + 2) / (w + 4))),
            )
    _ground(image, horizon, _tone((172, 170, 166), r.uniform(0.85, 1.05)), r)
    if r.random() < 0.6:
        y = int(horizon + (height - horizon) * 0.1)
        draw.rectangle([0, y, width, y + 9], fill=(206, 176, 72))
