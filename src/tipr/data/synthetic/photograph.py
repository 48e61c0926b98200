"""One photograph: the figure, its light, the place behind it, what stands in front, and the camera."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageFilter

from tipr.data.synthetic import occlusion
from tipr.data.synthetic.accessories import add_bag, add_hat, add_held, add_scarf
from tipr.data.synthetic.attributes import Person, Shot, sample_person, sample_shot
from tipr.data.synthetic.body import Pose, add_head, pose_of
from tipr.data.synthetic.garments import add_arms, add_hips, add_top
from tipr.data.synthetic.geometry import Figure
from tipr.data.synthetic.legwear import add_legs
from tipr.data.synthetic.palette import Floats
from tipr.data.synthetic.raster import Raster, View, rasterise
from tipr.data.synthetic.scene import PLATE, PLATES, Camera, World
from tipr.data.synthetic.wardrobe import Wardrobe

F = np.float32
Pixels = npt.NDArray[np.uint8]
BYSTANDERS = 0.14
"""Share of photographs with somebody else at the side (times the difficulty)."""


def build_figure(person: Person, shot: Shot) -> tuple[Figure, Pose]:
    """All tubes of a dressed person in a pose."""
    figure, pose = Figure(), pose_of(person, shot)
    wardrobe = Wardrobe.of(person)
    add_legs(figure, pose, person, wardrobe)
    add_hips(figure, pose, person, wardrobe)
    add_top(figure, pose, person, shot, wardrobe)
    add_arms(figure, pose, person, wardrobe)
    add_head(figure, pose, person, np.random.default_rng([person.seed, 3]))
    add_hat(figure, pose, person, wardrobe)
    add_scarf(figure, pose, person, wardrobe)
    add_bag(figure, pose, person, wardrobe)
    add_held(figure, pose, shot, shot.seed)
    return figure, pose


def shade(figure: Figure, raster: Raster, view: View, camera: Camera, ambient: float) -> Floats:
    """Colours (n, 3) of the covered pixels after light: sky, one lamp, bounce from the ground, highlights."""
    surface = raster.surface
    colours = np.empty((len(raster.pixel), 3), dtype=F)
    gloss = np.zeros(len(raster.pixel), dtype=F)
    bounds = np.searchsorted(raster.tube, np.arange(len(figure.tubes) + 1))
    groups: dict[int, list[int]] = {}
    for index, tube in enumerate(figure.tubes):
        if bounds[index] < bounds[index + 1]:
            groups.setdefault(id(tube.paint), []).append(index)
    for members in groups.values():
        paint = figure.tubes[members[0]].paint
        part = (
            slice(bounds[members[0]], bounds[members[0] + 1])
            if len(members) == 1
            else np.concatenate([np.arange(bounds[i], bounds[i + 1]) for i in members])
        )
        colours[part] = paint(surface[part])
        gloss[part] = paint.gloss
    normal = surface.normal @ view.axes().T
    lamp = normal @ camera.light
    direct = np.clip((lamp + F(0.25)) * F(0.8), 0, 1)
    sky = F(0.80) + F(0.20) * surface.normal[:, 1] + F(0.10) * normal[:, 2]
    light = F(1.12 * ambient) * sky + F(1.20 - 1.12 * ambient) * direct
    half = camera.light + np.array([0, 0, 1], dtype=F)
    half /= np.linalg.norm(half)
    shine = np.clip(normal @ half, 0, 1)
    shine *= shine
    shine *= shine
    shine *= shine * shine
    return colours * light[:, None] + (gloss * shine)[:, None]


def _layer(figure: Figure, view: View, camera: Camera, size: tuple[int, int], *, ambient: float) -> Floats | None:
    """The figure alone: (height, width, 4), colour times cover and cover; None when out of the picture."""
    height, width = size
    raster = rasterise(figure, view, width, height)
    if raster is None:
        return None
    layer = np.zeros((height * width, 4), dtype=F)
    dim = _occlusion(raster, width, height)
    layer[raster.pixel, :3] = shade(figure, raster, view, camera, ambient) * dim[:, None]
    layer[raster.pixel, 3] = 1
    return layer.reshape(height, width, 4)


def _occlusion(raster: Raster, width: int, height: int) -> Floats:
    """(n,) factors that darken what lies behind its neighbourhood (ambient occlusion from a coarse depth picture)."""
    depth = np.zeros(height * width, dtype=F)
    depth[raster.pixel] = raster.depth
    thin = np.ascontiguousarray(depth.reshape(height, width)[::2, ::2])
    tall, wide = thin.shape
    cell = max(1, height // 120)
    small = (max(2, wide // cell), max(2, tall // cell))
    near = np.asarray(Image.fromarray(thin).resize(small, Image.Resampling.BOX))
    cover = np.asarray(Image.fromarray((thin > 0).astype(F)).resize(small, Image.Resampling.BOX))
    coarse = Image.fromarray((near / np.maximum(cover, F(0.05))).astype(F))
    mean = np.asarray(coarse.resize((wide, tall), Image.Resampling.BILINEAR))
    y = raster.pixel // width
    behind = mean[y >> 1, (raster.pixel - y * width) >> 1] - raster.depth
    result: Floats = 1 - np.clip(behind * F(5.5), 0, F(0.42))
    return result


def _supersampling(height: int) -> float:
    """Samples per pixel length: more for small pictures, where it costs little."""
    return 2.0 if height <= 200 else 1.5


def _backdrop(world: World, shot: Shot, r: np.random.Generator, size: tuple[int, int]) -> Floats:
    """A crop of one of the camera's plates, (H, W, 3) in 0 .. 1."""
    height, width = size
    plate = world.plate(shot.camera, int(r.integers(PLATES)))
    wide = PLATE[0] * r.uniform(0.56, 0.80)
    tall = min(wide * height / width, PLATE[1] * 0.98)
    x = r.uniform(0, PLATE[0] - wide)
    y = (PLATE[1] - tall) * r.uniform(0.45, 0.95)
    flip = r.random() < 0.5
    image = plate.resize((width, height), Image.Resampling.BILINEAR, box=(x, y, x + wide, y + tall), reducing_gap=None)
    if flip:
        image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    return np.asarray(image, dtype=F) * F(r.uniform(0.86, 1.08) / 255)


def _shadow(backdrop: Floats, centre: float, ground: float, reach: float, side: float) -> None:
    """Darken the ground below the figure, in place."""
    height, width, _ = backdrop.shape
    top, bottom = max(0, int(ground - reach * 0.45)), min(height, int(ground + reach * 0.45) + 1)
    if top >= bottom:
        return
    y = (np.arange(top, bottom, dtype=F)[:, None] - F(ground)) / F(reach * 0.16)
    x = (np.arange(width, dtype=F)[None, :] - F(centre)) / F(reach * 0.62)
    core = np.exp(-(x * x) - y * y) * F(0.50)
    cast = np.exp(-((x - F(side)) ** 2) * F(0.5) - (y + F(0.4)) ** 2 * F(0.6)) * F(0.22)
    backdrop[top:bottom] *= (1 - np.maximum(core, cast))[:, :, None]


def _view(
    person: Person, shot: Shot, pose: Pose, r: np.random.Generator, *, pitch: float, size: tuple[int, int],
    difficulty: float,
) -> View:  # fmt: skip
    """Framing as a person detector would crop: nearly filling, a little off centre."""
    height, width = size
    umbrella = shot.hold == "umbrella"
    share = (person.height / 1.12) ** 0.6
    pitch += float(r.normal(0, 0.025)) * difficulty
    tall = (1.20 if umbrella else 1.015) - pose.floor
    span = 0.52 if umbrella else 0.40
    zoom = 1 + difficulty * float(r.uniform(-0.05, 0.025))
    scale = min(0.955 * height * zoom * share / tall, 1.06 * width * zoom / span)
    ground = height * (0.972 + difficulty * float(r.uniform(-0.015, 0.012)))
    centre = width * (0.5 + difficulty * float(np.clip(r.normal(0, 0.03), -0.07, 0.07)))
    cut = float(r.uniform(0.06, 0.13))
    if shot.feet_cut:
        ground = height * (1.0 + cut)
    reach = 0.13 * abs(math.sin(pitch))
    return View(shot.yaw, pitch, scale, centre, ground - reach * 0.45 * scale, pose.floor)


def _reduced(layer: Floats, width: int, height: int) -> Floats:
    """Bring a layer to the picture's size by area averages."""
    tall, wide, _ = layer.shape
    if (tall, wide) == (height, width):
        return layer
    if tall == 2 * height and wide == 2 * width:
        pairs = layer[0::2] + layer[1::2]
        result: Floats = (pairs[:, 0::2] + pairs[:, 1::2]) * F(0.25)
        return result
    raw = (np.clip(layer, 0, 1) * F(255) + F(0.5)).astype(np.uint8)
    small = Image.frombytes("CMYK", (wide, tall), raw.tobytes()).resize((width, height), Image.Resampling.BILINEAR)
    return np.asarray(small, dtype=F) * F(1 / 255)


def _bystander(world: World, shot: Shot, r: np.random.Generator, size: tuple[int, int]) -> Floats | None:
    """Somebody else, partly visible at one side and a little further away."""
    height, width = size
    camera = world.camera(shot.camera)
    source = np.random.default_rng([world.seed, 5, int(r.integers(64))])
    other = sample_person(source)
    pose_shot = sample_shot(source, other, shot.camera)
    side, share, far = (-1 if r.random() < 0.5 else 1), float(r.uniform(0.42, 0.56)), float(r.uniform(0.72, 0.94))
    figure, pose = build_figure(other, pose_shot)
    scale = 0.94 * height * far * (other.height / 1.12) ** 0.6
    ground = height * (0.93 - 0.25 * (1 - far))
    view = View(pose_shot.yaw, camera.pitch, scale, width * (0.5 + side * share), ground, pose.floor)
    return _layer(figure, view, camera, size, ambient=camera.ambient)


def render(world: World, person: Person, shot: Shot, size: tuple[int, int], *, difficulty: float = 1.0) -> Pixels:
    """Photograph `person` as `shot` says.

    A deterministic function of its arguments (of the world only seed and number of cameras): calls in any order and in
    any process give the same bytes.

    Args:
        world: cameras and places.
        person: who.
        shot: camera, pose and what hides the view.
        size: (height, width) in pixels; meant for pictures about three times as high as wide.
        difficulty: 0 = studio: no tint, blur, noise, bystander, jitter; 1 = standard; up to 1.5.

    Returns:
        (height, width, 3) uint8 RGB.
    """
    height, width = size
    r = np.random.default_rng([shot.seed, world.seed, 11])
    camera = world.camera(shot.camera)
    factor = _supersampling(height)
    wide, tall = round(width * factor), round(height * factor)
    figure, pose = build_figure(person, shot)
    view = _view(person, shot, pose, r, pitch=camera.pitch, size=(tall, wide), difficulty=difficulty)
    backdrop = _backdrop(world, shot, r, size)
    if r.random() < BYSTANDERS * difficulty:
        other = _bystander(world, shot, r, size)
        if other is not None:
            backdrop = backdrop * (1 - other[:, :, 3:]) + other[:, :, :3]
    _shadow(backdrop, view.centre / factor, view.ground / factor - 0.004 * height, 0.14 * view.scale / factor * 1.6,
            -1.2 * float(camera.light[0]))  # fmt: skip
    ambient = camera.ambient if difficulty else 0.6
    layer = _layer(figure, view, camera, (tall, wide), ambient=ambient)
    picture = backdrop
    if layer is not None:
        layer = _reduced(layer, width, height)
        picture = backdrop * (1 - layer[:, :, 3:]) + layer[:, :, :3]
    if shot.occlusion != "none":
        picture = occlusion.cover(picture, shot.occlusion, r, camera.light)
    return _develop(picture, camera, r, difficulty)


def _develop(picture: Floats, camera: Camera, r: np.random.Generator, difficulty: float) -> Pixels:
    """What the camera does: tone, tint, lost detail, blur, noise. (H, W, 3) in 0 .. 1 -> uint8."""
    height, width, _ = picture.shape
    jitter, shrink, smear, noise_at = (
        float(r.normal(0, 0.05)),
        float(r.uniform(0.4, 1)),
        r.random(),
        r.integers(1 << 20),
    )
    if not difficulty:
        return (np.clip(picture, 0, 1) * F(255) + F(0.5)).astype(np.uint8)
    tone = np.exp(difficulty * (np.log(camera.gain) + math.log(camera.exposure) + jitter)).astype(F)
    saturation = F(1 + (camera.saturation - 1) * difficulty)
    gray = np.array([0.3, 0.59, 0.11], dtype=F)[:, None] * (1 - saturation)
    picture = picture @ ((np.eye(3, dtype=F) * saturation + gray) * tone[:, None] * F(1023))
    curve = (np.linspace(0, 1, 1024, dtype=F) ** F(1 + (camera.gamma - 1) * difficulty) * 255 + F(0.5)).astype(np.uint8)
    image = Image.fromarray(curve[np.clip(picture, 0, 1023).astype(np.uint16)])
    keep = 1 - (1 - camera.resolution) * shrink * min(1.0, difficulty)
    if keep < 0.92:
        small = (max(8, round(width * keep)), max(8, round(height * keep)))
        image = image.resize(small, Image.Resampling.BILINEAR).resize((width, height), Image.Resampling.BILINEAR)
    radius = camera.blur * width / 128 * difficulty
    if radius > 0.25:
        image = image.filter(ImageFilter.GaussianBlur(radius))
    if smear < 0.10 * difficulty:
        image = image.filter(ImageFilter.BoxBlur((width * 0.012, 0)))
    noise = sensor_noise(int(noise_at), height, width)
    return np.clip(np.asarray(image, dtype=F) + noise * F(camera.noise * 255 * difficulty), 0, 255).astype(np.uint8)


_REEL = np.random.default_rng(1).normal(0, 1, 1 << 18).astype(F)


def sensor_noise(start: int, height: int, width: int) -> Floats:
    """(H, W, 3) noise of deviation 1, read from a fixed reel at place `start`."""
    count = 3 * height * width
    at = start % len(_REEL)
    reel = _REEL[at : at + count]
    while len(reel) < count:
        reel = np.concatenate([reel, _REEL[: count - len(reel)]])
    return reel.reshape(height, width, 3)
