"""The human figure: pose, trunk, limbs, hands, head and hair, in body space."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from tipr.data.synthetic.attributes import Person, Shot
from tipr.data.synthetic.geometry import Bools, Figure, Surface
from tipr.data.synthetic.materials import Hair, Skin, mix, step
from tipr.data.synthetic.palette import HAIR, SKIN, Floats, colour

F = np.float32
Point = npt.NDArray[np.float64]
THIGH, SHIN = 0.243, 0.245
UPPER_ARM, FOREARM, HAND = 0.168, 0.146, 0.088


def _between(start: Point, end: Point, share: float) -> Point:
    point: Point = start + share * (end - start)
    return point


@dataclass(frozen=True, slots=True)
class Leg:
    """Joints (3,) in body space and the direction of the foot."""

    side: int
    hip: Point
    knee: Point
    ankle: Point
    foot: Point

    def at(self, share: float) -> Point:
        """Point on the leg; 0 = hip, 1 = knee, 2 = ankle."""
        if share <= 1:
            return _between(self.hip, self.knee, share)
        return _between(self.knee, self.ankle, share - 1)


@dataclass(frozen=True, slots=True)
class Arm:
    side: int
    shoulder: Point
    elbow: Point
    wrist: Point
    hand: Point

    def at(self, share: float) -> Point:
        """Point on the arm; 0 = shoulder, 1 = elbow, 2 = wrist."""
        if share <= 1:
            return _between(self.shoulder, self.elbow, share)
        return _between(self.elbow, self.wrist, share - 1)


@dataclass(frozen=True, slots=True)
class Pose:
    """Measures and joints of one person in one photograph.

    Attributes:
        girth: factor for widths from the build.
        shoulder, chest, waist, hip: half widths of the trunk.
        lift: how far the trunk is lowered or raised by the step.
        lean: forward shift per unit of height above the hips.
        floor: height of the lowest sole.
    """

    female: bool
    girth: float
    shoulder: float
    chest: float
    waist: float
    hip: float
    lift: float
    lean: float
    stride: float
    legs: tuple[Leg, Leg]
    arms: tuple[Arm, Arm]
    head: Point
    floor: float

    def trunk(self, height: float) -> tuple[float, float, float]:
        """Centre of the trunk at a nominal height."""
        return (0.0, height + self.lift, (height - 0.5) * self.lean)


def _leg(side: int, phase: float, stride: float, hip: Point, heel: float) -> Leg:
    swing = 0.40 * stride * np.sin(phase)
    bend = max(0.0, 0.85 * stride * np.sin(phase + 1.9)) + 0.04
    knee = hip + THIGH * np.array([side * -0.02, -np.cos(swing), np.sin(swing)])
    shin = swing - bend
    ankle = knee + SHIN * np.array([side * -0.015, -np.cos(shin), np.sin(shin)])
    tilt = (0.75 if shin < 0 else 0.4) * shin - heel
    tilt = float(np.clip(tilt, -0.95, 0.3))
    return Leg(side, hip, knee, ankle, np.array([side * 0.13, np.sin(tilt), np.cos(tilt)]))


def _arm(side: int, phase: float, stride: float, mode: str, shoulder: Point, *, spread: float) -> Arm:
    swing = 0.36 * stride * np.sin(phase)
    bend = 0.2 + 0.3 * stride * max(0.0, np.sin(phase))
    inward = 0.06
    if mode == "phone":
        swing, bend, spread, inward = 0.55, 1.95, 0.14, -0.25
    elif mode == "umbrella":
        swing, bend, spread, inward = 0.45, 1.65, 0.10, -0.12
    elif mode == "carry":
        swing, bend, spread, inward = 0.05 + 0.1 * swing, 0.08, 0.17, 0.1
    upper = np.array([np.sin(spread) * side, -np.cos(spread) * np.cos(swing), np.cos(spread) * np.sin(swing)])
    elbow = shoulder + UPPER_ARM * upper
    lower = np.array([inward * side, -np.cos(swing + bend), np.sin(swing + bend)])
    lower /= np.linalg.norm(lower)
    wrist = elbow + FOREARM * lower
    return Arm(side, shoulder, elbow, wrist, wrist + HAND * 0.5 * lower)


def pose_of(person: Person, shot: Shot) -> Pose:
    """Bend a body of the measures of `person` into the pose of `shot`."""
    female = person.gender == "f"
    girth = {"slim": 0.90, "average": 1.0, "heavy": 1.17}[person.build]
    half = 0.5 + 0.5 * girth
    skirt = person.skirt_length if person.bottom == "skirt" or person.top == "dress" else "short"
    stride, phase = shot.stride * {"short": 1.0, "knee": 0.72, "long": 0.42}[skirt], shot.phase
    lift = -0.014 * stride * abs(float(np.sin(phase)))
    lean = 0.03 * stride + (0.05 if person.age == "old" else 0.0)
    heel = 0.42 if person.shoes == "heels" else 0.0
    legs = tuple(
        _leg(side, turn, stride, np.array([side * 0.047 * half, 0.515 + lift, 0.0]), heel)
        for side, turn in ((1, phase + np.pi), (-1, phase))
    )
    shoulder = (0.094 if female else 0.109) * half
    joint = np.array([0.0, 0.778 + lift, 0.3 * lean])
    spread = 0.085 + (0.10 if girth > 1.1 else 0.0) + (0.05 if person.outer == "puffer" else 0.0)
    carries = person.bag in ("handbag", "suitcase", "shoppingbag")
    modes = ("carry" if carries else "free", shot.hold if shot.hold != "none" else "free")
    arms = tuple(
        _arm(side, turn, stride, mode, joint + np.array([side * shoulder * 1.06, 0, 0]), spread=spread)
        for side, turn, mode in ((1, phase, modes[0]), (-1, phase + np.pi, modes[1]))
    )
    soles = [leg.ankle[1] - 0.036 for leg in legs]
    soles += [leg.ankle[1] - 0.034 + 0.1 * leg.foot[1] for leg in legs]
    return Pose(
        female=female,
        girth=girth,
        shoulder=shoulder,
        chest=(0.086 if female else 0.099) * half,
        waist=(0.069 if female else 0.084) * girth,
        hip=(0.094 if female else 0.088) * (0.3 + 0.7 * girth),
        lift=lift,
        lean=lean,
        stride=stride,
        legs=(legs[0], legs[1]),
        arms=(arms[0], arms[1]),
        head=np.array([0.0, 0.925 + lift, 0.008 + 0.42 * lean]),
        floor=float(min(soles)),
    )


_HEAD = (
    # height, half width, half depth, forward shift, from the crown down
    (0.0655, 0.003, 0.004, -0.006),
    (0.0635, 0.014, 0.018, -0.006),
    (0.0590, 0.0255, 0.033, -0.006),
    (0.050, 0.036, 0.046, -0.006),
    (0.030, 0.0425, 0.0535, -0.002),
    (0.010, 0.0430, 0.0540, 0.000),
    (-0.012, 0.0415, 0.0510, 0.001),
    (-0.032, 0.0370, 0.0450, 0.004),
    (-0.050, 0.0280, 0.0340, 0.012),
    (-0.062, 0.0150, 0.0180, 0.022),
    (-0.066, 0.0040, 0.0050, 0.024),
)


def head_rings(head: Point, grow: float = 1.0, up: float = 0.0) -> list[tuple[float, ...]]:
    """Rings of the skull, enlarged by `grow` around its centre: (K, 5)."""
    x, y, z = head
    return [(x, y + up + h * grow, z + s, a * grow, b * grow) for h, a, b, s in _HEAD]


@dataclass(frozen=True, slots=True)
class Face:
    """Draws eyes, brows, nose shade, mouth, beard and eyewear on the head."""

    head: Point
    skin: Floats
    hair: Floats
    beard: bool
    eyewear: str
    female: bool
    old: bool
    bald: bool

    def __call__(self, surface: Surface, colours: Floats) -> Floats:
        local = surface.position - self.head.astype(F)
        x, y, z = local[:, 0], local[:, 1], local[:, 2]
        front = step(z - F(0.012), 0.004)
        if not self.bald:  # nothing of the scalp may shine through the hair
            scalp = step(y - F(0.046) + np.maximum(F(0.01) - z, 0) * F(2.2), 0.004)
            colours = mix(colours, scalp, self.hair * F(0.85))
        side = np.abs(x)
        cheeks = np.exp(-(((side - F(0.024)) / F(0.011)) ** 2) - ((y + F(0.016)) / F(0.011)) ** 2) * front
        colours = mix(colours, cheeks * F(0.22), self.skin * np.array([1.0, 0.72, 0.68], dtype=F))
        socket = np.exp(-(((side - F(0.0185)) / F(0.011)) ** 2) - ((y - F(0.009)) / F(0.008)) ** 2) * front
        colours = mix(colours, socket * F(0.15), self.skin * F(0.55))
        if self.beard:
            jaw = step(-(y + F(0.022)) + F(0.5) * (side - F(0.03)), 0.012) * step(z + F(0.008), 0.01)
            lips = np.exp(-((x / F(0.013)) ** 2) - ((y + F(0.0345)) / F(0.0045)) ** 2)
            colours = mix(colours, jaw * (1 - F(0.9) * lips) * F(0.8), self.hair * F(0.9))
        elif not self.female:
            jaw = step(-(y + F(0.026)), 0.02) * front
            colours = mix(colours, jaw * F(0.10), self.skin * F(0.5))
        eye = ((side - F(0.0185)) / F(0.0085)) ** 2 + ((y - F(0.0085)) / F(0.0042)) ** 2
        colours = mix(colours, step(F(1) - eye, 0.5) * front, colour(232, 228, 222))
        iris = np.hypot(side - F(0.0185), y - F(0.0085)) - F(0.0046)
        colours = mix(colours, step(-iris, 0.002) * step(F(1.15) - eye, 0.4) * front, colour(44, 32, 28))
        lash = step(F(0.0022) - np.abs(y - F(0.0128) + F(14) * (side - F(0.0185)) ** 2), 0.002)
        lash = lash * step(F(0.0105) - np.abs(side - F(0.0185)), 0.002) * front
        colours = mix(colours, lash * F(0.9 if self.female else 0.7), colour(34, 26, 24))
        brow = step(F(0.0026) - np.abs(y - F(0.0238) + F(10) * (side - F(0.0175)) ** 2), 0.002)
        brow = brow * step(F(0.0115) - np.abs(side - F(0.0195)), 0.003) * front
        colours = mix(colours, brow * F(0.75), self.hair * F(0.75))
        nostril = np.exp(-(((side - F(0.005)) / F(0.004)) ** 2) - ((y + F(0.0195)) / F(0.0028)) ** 2) * front
        colours = mix(colours, nostril * F(0.45), self.skin * F(0.45))
        mouth = (x / F(0.0155)) ** 2 + ((y + F(0.0345) - F(8) * x * x) / F(0.0052)) ** 2
        lip = self.skin * np.array([0.88, 0.52, 0.52] if self.female else [0.86, 0.62, 0.58], dtype=F)
        colours = mix(colours, step(F(1) - mouth, 0.6) * front * F(0.9), lip)
        line = step(F(0.0011) - np.abs(y + F(0.0342) - F(8) * x * x), 0.0012) * step(F(0.0145) - side, 0.003) * front
        colours = mix(colours, line * F(0.6), self.skin * F(0.4))
        if self.old:
            crease = step(F(0.0012) - np.abs(side - F(0.017) + F(0.5) * (y + F(0.024))), 0.002)
            crease = crease * step(F(0.011) - np.abs(y + F(0.026)), 0.004)
            lines = step(F(0.30) - np.abs((y / F(0.0065)) % 1 - F(0.5)), 0.2) * step(F(0.026) - side, 0.006)
            crease = np.maximum(crease, lines * step(F(0.008) - np.abs(y - F(0.036)), 0.003) * F(0.7)) * front
            colours = mix(colours, crease * F(0.5), self.skin * F(0.5))
        return self._eyewear(colours, side, y, z, front)

    def _eyewear(self, colours: Floats, side: Floats, y: Floats, z: Floats, front: Floats) -> Floats:
        if self.eyewear == "none":
            return colours
        lens = (np.abs((side - F(0.0195)) / F(0.0155)) ** 2.6 + np.abs((y - F(0.007)) / F(0.0125)) ** 2.6).astype(F)
        temple = (
            step(F(0.0028) - np.abs(y - F(0.013)), 0.002) * step(side - F(0.033), 0.002) * step(z + F(0.012), 0.003)
        )
        bridge = step(F(0.0024) - np.abs(y - F(0.011)), 0.002) * step(F(0.006) - side, 0.002) * front
        dark = colour(24, 24, 28)
        colours = mix(colours, np.maximum(temple, bridge), dark)
        if self.eyewear == "sunglasses":
            sheen = np.clip(F(0.5) + y * F(30), 0, 1)[:, None] * F(0.12)
            result: Floats = (
                mix(colours, step(F(1) - lens, 0.25) * front, dark)
                + sheen * (step(F(0.9) - lens, 0.2) * front)[:, None]
            )
            return result
        rim = step(F(0.34) - np.abs(lens - F(0.85)), 0.15) * front
        glass = step(F(0.8) - lens, 0.2) * front
        return mix(mix(colours, glass * F(0.12), colour(225, 235, 240)), rim, dark)


def add_head(figure: Figure, pose: Pose, person: Person, random: np.random.Generator) -> None:
    """Neck, skull, nose and ears, then the hair."""
    skin = colour(*SKIN[person.skin])
    tone = colour(*HAIR[person.hair_color]) * F(random.uniform(0.9, 1.1))
    head = pose.head
    x, y, z = head
    width = 0.031 if pose.female else 0.037
    half = 0.5 + 0.5 * pose.girth
    neck = [
        (x, y - 0.025, z - 0.012, width * half, 0.034 * half),
        (x, y - 0.06, z - 0.012, width * half, 0.034 * half),
        (0, 0.852 + pose.lift, 0.3 * pose.lean - 0.004, (width + 0.004) * half, 0.037 * half),
        (0, 0.83 + pose.lift, 0.3 * pose.lean - 0.004, (width + 0.026) * half, 0.044 * half),
        (0, 0.79 + pose.lift, 0.3 * pose.lean, (width + 0.05) * half, 0.054 * half),
    ]
    figure.tube(neck, Skin(skin * F(0.93)))
    face = Face(head, skin, tone, person.beard, person.eyewear, pose.female, person.age == "old", person.hair == "bald")
    size = 0.97 if pose.female else 1.02
    figure.tube(head_rings(head, size), Skin(skin, details=(face,)))
    plain = Skin(skin)
    figure.tube(
        [
            (x, y + 0.006, z + 0.048, 0.004, 0.004),
            (x, y - 0.006, z + 0.0515, 0.0055, 0.006),
            (x, y - 0.015, z + 0.0515, 0.0080, 0.0075),
        ],
        plain,
        ends=(0.6, 0.8),
    )
    for side in (1, -1):
        figure.ball((x + side * 0.043 * size, y + 0.001, z - 0.004), (0.006, 0.016, 0.010), Skin(skin * F(0.95)))
    if person.hair != "bald":
        _add_hair(figure, pose, person, Hair(tone, (x, y, z), float(random.random())), random)


def _add_hair(figure: Figure, pose: Pose, person: Person, paint: Hair, random: np.random.Generator) -> None:
    x0, y0, z0 = (F(value) for value in pose.head)
    style = person.hair
    lean = float(random.uniform(-0.014, 0.014))
    long = style in ("medium", "long")
    line = {"short": 0.044 if not pose.female else 0.036}.get(style, 0.041)
    if person.hat != "none":
        line = 0.02
    cropped = style == "short" and not pose.female
    nape, side_end = (-0.026, 0.002) if cropped else (-0.046, -0.020 if style == "short" else -0.004)
    top = 0.034 if person.hat != "none" else 1.0  # a hat hides the rest
    ripple = float(random.uniform(0, 6.3))

    def cut(position: Floats) -> Bools:
        x, y, z = position[:, 0] - x0, position[:, 1] - y0, position[:, 2] - z0
        # The hairline: high over the forehead, curved, a little irregular; then down before the ears to the nape.
        wave = F(0.0022) * np.sin(x * F(210) + F(ripple)) + F(0.0014) * np.sin(x * F(430))
        forehead = F(line) - F(6.0) * (x - F(lean)) ** 2 + wave
        edge = np.where(y > F(0.004), F(0.018) + (y - F(0.004)) * F(0.9), F(0.004) + np.minimum(y, 0) * F(0.25))
        fade = F(0.35) * np.abs(x) if cropped else F(0)  # shorter beside the nape
        behind = (z < edge) & (y > np.where(z < F(-0.012), F(nape) + fade, F(side_end)))
        kept: Bools = ((y > forehead) | behind) & (y > F(nape)) & (y < F(top))
        return kept

    grow = 1.085 if cropped else 1.10 if style == "short" else 1.09
    figure.tube(head_rings(pose.head, grow, 0.003), paint, cut=cut)
    if cropped:
        return
    x, y, z = pose.head
    if long or (style == "short" and pose.female):
        end = {"short": 0.885, "medium": 0.835, "long": 0.725}[style] + pose.lift
        width = {"short": 0.048, "medium": 0.056, "long": 0.062}[style]
        opening = 0.006 if style == "long" else 0.012

        if style == "long":  # down the back, over whatever is worn
            thick = {"none": 0.0, "puffer": 0.026}.get(person.outer, 0.014) + (0.008 if person.top == "hoodie" else 0)
            fall = [
                (x, 0.852 + pose.lift, z * 0.5 - 0.042 - thick * 0.5, 0.060, 0.034),
                (x, 0.810 + pose.lift, -0.058 - thick, width, 0.022),
                (x, 0.765 + pose.lift, -0.066 - thick, width * 0.95, 0.019),
                (x, end, -0.070 - thick, width * 0.70, 0.013),
            ]
        else:
            fall = [
                (x, 0.5 * (y - 0.04 + end), z * 0.5 - 0.017, width, 0.044),
                (x, end, z * 0.3 - 0.024, width * 0.82, 0.024),
            ]

        def curtain(position: Floats) -> Bools:
            kept: Bools = position[:, 2] < z0 + F(opening) + np.minimum(position[:, 1] - y0, 0) * F(0.12)
            return kept

        figure.tube(
            [
                (x, y + (0.045 if person.hat == "none" else 0.026), z - 0.006, 0.042, 0.048),
                (x, y + 0.005, z - 0.008, 0.0515, 0.056),
                (x, y - 0.04, z - 0.012, 0.053, 0.052),
                *fall,
            ],
            paint,
            cut=curtain,
            ends=(0.0, 0.5),
            over=0.048 if person.outer != "none" or person.top == "hoodie" else 0.014,
        )
        if style == "long":
            for side in (1, -1):
                lock = [(x + side * 0.043, y + 0.004, z + 0.004, 0.010, 0.014),
                        (x + side * 0.050, y - 0.045, z, 0.014, 0.018),
                        (x + side * 0.056, 0.812 + pose.lift, z + 0.034, 0.019, 0.013),
                        (x + side * 0.054, 0.752 + pose.lift, z + 0.058, 0.011, 0.008)]  # fmt: skip
                figure.tube(lock, paint, ends=(0.5, 0.9), over=0.04)
    elif style == "ponytail":
        figure.tube(
            [
                (x, y + 0.026, z - 0.050, 0.014, 0.014),
                (x, y + 0.026, z - 0.074, 0.019, 0.018),
                (x, y - 0.015, z - 0.092, 0.023, 0.020),
                (x, y - 0.075, z - 0.088, 0.021, 0.018),
                (x, y - 0.125, z - 0.078, 0.008, 0.008),
            ],
            paint,
            ends=(0.5, 0.9),
        )
    elif style == "bun":
        height = (0.062, -0.034) if person.hat == "none" else (-0.004, -0.062)
        figure.ball((x, y + height[0], z + height[1]), (0.030, 0.027, 0.029), paint)
