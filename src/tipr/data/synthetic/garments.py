"""What is worn on trunk and arms: skirts, tops, sleeves, open and closed outer garments; and the hands."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from tipr.data.synthetic.attributes import Person, Shot
from tipr.data.synthetic.body import Arm, Pose
from tipr.data.synthetic.geometry import Bools, Figure, Paint, Surface
from tipr.data.synthetic.materials import Cloth, Denim, Detail, Plain, Skin, Weave, mix, step
from tipr.data.synthetic.palette import Floats, colour
from tipr.data.synthetic.wardrobe import Wardrobe

F = np.float32
HEMS = {"tshirt": 0.475, "shirt": 0.465, "sweater": 0.475, "hoodie": 0.465, "tank": 0.48, "dress": 0.56}
LOOSE = {"tshirt": 0.008, "shirt": 0.009, "sweater": 0.012, "hoodie": 0.016, "tank": 0.004, "dress": 0.005}
NECKLINES = {"tshirt": (0.834, 0.822), "tank": (0.806, 0.798), "dress": (0.81, 0.806)}
"""Height of a round neck in front, for men and women; garments that are not here have a collar."""
OUTER_HEMS = {"jacket": 0.475, "coat": 0.31, "blazer": 0.445, "puffer": 0.46}
OUTER_LOOSE = {"jacket": 0.019, "coat": 0.022, "blazer": 0.017, "puffer": 0.032}
SLEEVE_LOOSE = {"jacket": 0.012, "coat": 0.014, "blazer": 0.010, "puffer": 0.022}
SKIRT_HEMS = {"short": 0.365, "knee": 0.265, "long": 0.11}


def trunk_rings(pose: Pose, hem: float, loose: float, neck: float, flare: float = 0.0) -> list[tuple[float, ...]]:
    """Rings of a garment on the trunk from the height `neck` down to `hem`, `loose` wider than the body."""
    f = pose.female
    half = 0.4 + 0.6 * pose.girth
    profile = np.array(
        [
            (0.868, 0.036, 0.037, -0.004),
            (0.850, 0.049, 0.042, -0.003),
            (0.835, 0.071, 0.048, -0.002),
            (0.820, pose.shoulder * 0.86, 0.053 * half, 0.0),
            (0.795, pose.shoulder * 0.99, 0.062 * half, 0.002),
            (0.735, pose.chest, (0.071 if f else 0.068) * half, 0.006 if f else 0.003),
            (0.690, pose.chest * (0.93 if f else 0.96), 0.064 * half, 0.003),
            (0.635, pose.waist, 0.056 * pose.girth, 0.002),
            (0.580, 0.45 * pose.waist + 0.55 * pose.hip, 0.062 * pose.girth, 0.0),
            (0.530, pose.hip, 0.070 * (0.4 + 0.6 * pose.girth), -0.004),
            (0.480, pose.hip * 0.99, 0.069 * (0.4 + 0.6 * pose.girth), -0.004),
            (0.250, pose.hip * 0.97, 0.069 * (0.4 + 0.6 * pose.girth), -0.002),
        ]
    )
    heights = [neck, *(h for h in profile[:, 0] if hem + 0.012 < h < neck - 0.006), hem]
    rings: list[tuple[float, ...]] = []
    for height in heights:
        a, b, shift = (float(np.interp(-height, -profile[:, 0], profile[:, i])) for i in (1, 2, 3))
        wide = loose + flare * max(0.0, 0.62 - height)
        ease = loose * (0.35 if height > 0.84 else 1.0) + 0.06 * max(0.0, 0.56 - height) * (
            hem < 0.55 and loose > 0.005
        )
        x, y, z = pose.trunk(height)
        rings.append((x, y, z + shift, a + ease + wide - loose, b + ease * 1.05 + wide - loose))
    return rings


def add_hips(figure: Figure, pose: Pose, person: Person, wardrobe: Wardrobe) -> None:
    """The seat of trousers, or a skirt."""
    if person.bottom == "skirt" or person.top == "dress":
        hem = SKIRT_HEMS[person.skirt_length]
        weave = wardrobe.top if person.top == "dress" else wardrobe.bottom
        wide = 0.014 + 0.035 * wardrobe.flare * (0.6 if person.skirt_length == "long" else 1)
        step_room = pose.stride * (0.012 if person.skirt_length == "short" else 0.045)
        rings = trunk_rings(pose, 0.545, 0.012, 0.632)
        start, half, deep = 0.545, rings[-1][3], rings[-1][4]
        for share in (0.33, 0.66, 1.0):
            room = (wide + step_room) * share
            rings.append((*pose.trunk(start + (hem - start) * share), half + wide * share, deep + room))
        pleat = Cloth(weave, crease=0.15, girth=0.095, hanging=True, stretch=(2.0, 0.35))
        figure.tube(rings, pleat, ends=(0, 0.04), over=0.024)
    elif person.bottom != "none":
        paint: Paint = Cloth(wardrobe.bottom, crease=0.07, hanging=True)
        if person.bottom == "jeans":
            paint = Denim(wardrobe.bottom.colour, wardrobe.bottom.shift)
        rings = trunk_rings(pose, 0.475, 0.004, 0.63)
        x, y, z, a, b = rings[-1]
        rings.append((x, y - 0.028, z, a * 0.72, b * 0.8))
        figure.tube(rings, paint, power=2.3)


def _straps(person: Person, pose: Pose, wardrobe: Wardrobe) -> tuple[Detail, ...]:
    strap = wardrobe.bag.colour * F(0.88)
    lift = F(pose.lift)

    def backpack(surface: Surface, colours: Floats) -> Floats:
        x, y = np.abs(surface.position[:, 0]), surface.position[:, 1] - lift
        line = F(0.0125) - np.abs(x - F(0.062) - F(0.03) * (F(0.8) - y) * (y < 0.8))
        return mix(
            colours, step(line, 0.003) * step(y - F(0.655), 0.004) * step(surface.normal[:, 2] + F(0.2), 0.1), strap
        )

    def diagonal(surface: Surface, colours: Floats) -> Floats:
        x, y = surface.position[:, 0], surface.position[:, 1] - lift
        line = F(0.0105) - np.abs((x - F(0.085)) + (y - F(0.575)) * F(0.66)) * F(0.83)
        return mix(colours, step(line, 0.003), strap)

    if person.bag == "backpack":
        return (backpack,)
    return (diagonal,) if person.bag == "shoulderbag" else ()


def _top_details(person: Person, pose: Pose, wardrobe: Wardrobe) -> tuple[Detail, ...]:
    lift = F(pose.lift)
    kind = person.top

    def tailoring(surface: Surface, colours: Floats) -> Floats:
        x, y, z = surface.position[:, 0], surface.position[:, 1] - lift, surface.normal[:, 2]
        front = step(z - F(0.05), 0.1)
        if kind == "shirt":
            placket = step(F(0.0014) - np.abs(np.abs(x) - F(0.0085)), 0.0015) * front
            colours = colours * (1 - F(0.2) * placket)[:, None]
            button = F(0.0035) - np.hypot(x, (y / F(0.052) % 1 - F(0.5)) * F(0.052))
            colours = mix(colours, step(button, 0.002) * front * F(0.7), wardrobe.top.colour * F(0.35) + F(0.3))
            pocket = np.minimum(F(0.021) - np.abs(x - F(0.048)), F(0.024) - np.abs(y - F(0.745)))
            colours = colours * (1 - F(0.14) * step(F(0.0016) - np.abs(pocket), 0.0016) * front)[:, None]
        elif kind == "hoodie":
            pocket = np.minimum(
                F(0.062) - np.abs(x) - F(0.3) * np.maximum(y - F(0.53), 0), F(0.034) - np.abs(y - F(0.545))
            )
            colours = colours * (1 - F(0.3) * step(F(0.002) - np.abs(pocket), 0.002) * front)[:, None]
            cord = step(F(0.0022) - np.abs(np.abs(x) - F(0.02)), 0.0015) * step(F(0.028) - np.abs(y - F(0.8)), 0.002)
            colours = mix(colours, cord * front * F(0.8), colour(225, 225, 222))
        band = {"sweater": 0.022, "hoodie": 0.022, "tshirt": 0.004, "shirt": 0.003}.get(kind, 0.0)
        edge = step(F(HEMS[kind] + band) - y, 0.003) if band else np.zeros_like(y)
        rib = F(0.86) if band < 0.01 else F(0.86) + F(0.06) * np.sin(surface.angle * F(70))
        return colours * (1 - edge * (1 - rib))[:, None]

    return (tailoring,)


@dataclass(frozen=True, slots=True)
class Neckline:
    """A round neck, and arm holes where there are no sleeves."""

    low: float
    pose: Pose
    sleeveless: bool

    def _edge(self, position: Floats) -> Floats:
        """How far below the neckline a point lies."""
        x, y, z = np.abs(position[:, 0]), position[:, 1] - F(self.pose.lift), position[:, 2]
        back = F(0.828 if self.sleeveless else 0.842)
        line = np.where(z > 0, F(self.low), back) + F(9) * np.maximum(x - F(0.012), 0) ** 2
        return line - y

    def cut(self, position: Floats) -> Bools:
        inside = self._edge(position) > 0
        if self.sleeveless:
            x, y = np.abs(position[:, 0]), position[:, 1] - F(self.pose.lift)
            hole = F(self.pose.shoulder * 0.78) + F(2.2) * np.maximum(F(0.775) - y, 0)
            inside &= x < hole
        return inside

    def trim(self, surface: Surface, colours: Floats) -> Floats:
        band = step(F(0.007) - np.abs(self._edge(surface.position) - F(0.003)), 0.002)
        return colours * (1 - F(0.14) * band)[:, None]


def add_top(figure: Figure, pose: Pose, person: Person, shot: Shot, wardrobe: Wardrobe) -> None:
    """The garment next to the body and, over it, the outer one."""
    straps = _straps(person, pose, wardrobe)
    kind = person.top
    outer = person.has_outer
    details = _top_details(person, pose, wardrobe)
    hem = HEMS[kind] if not outer else max(HEMS[kind], OUTER_HEMS[person.outer] + 0.014)
    if person.bottom == "skirt":
        hem = 0.60  # tucked in
    if outer and not shot.outer_open:
        hem = 0.78  # the rest cannot be seen
    cut = None
    if kind in NECKLINES:
        neckline = Neckline(NECKLINES[kind][pose.female], pose, sleeve_share(person, wardrobe) == 0)
        details = (*details, neckline.trim)
        cut = neckline.cut
        if neckline.sleeveless:
            figure.tube(trunk_rings(pose, 0.68, 0.0015, 0.85), Skin(wardrobe.skin), power=2.25)
    rings = trunk_rings(pose, hem, LOOSE[kind], 0.860)
    paint = Cloth(wardrobe.top, crease=0.10, hanging=True, details=details if outer else details + straps)
    figure.tube(rings, paint, power=2.25, cut=cut, over=0.016)
    if outer:
        _add_outer(figure, pose, person, shot, wardrobe)
    elif kind in ("shirt", "hoodie", "sweater"):
        _add_collar(figure, pose, kind, wardrobe.top)


def _add_collar(figure: Figure, pose: Pose, kind: str, weave: Weave) -> None:
    x, y, z = pose.trunk(0.85)
    plain = Plain(weave.colour * F(0.93))
    if kind == "sweater":
        figure.tube(
            [(x, y + 0.022, z - 0.004, 0.042, 0.043), (x, y - 0.004, z - 0.002, 0.052, 0.047)], plain, ends=(0.1, 0.2)
        )
        return
    opening = 0.012 if kind == "shirt" else 0.02
    z0, top = F(z), F(y)

    def cut(position: Floats) -> Bools:
        gap = F(opening) + F(0.4) * np.maximum(position[:, 1] - top, 0)
        kept: Bools = ~((np.abs(position[:, 0]) < gap) & (position[:, 2] > z0))
        return kept

    rise = 0.028 if kind == "shirt" else 0.02
    figure.tube([(x, y + rise, z - 0.006, 0.041, 0.044), (x, y + 0.004, z - 0.002, 0.049, 0.049),
                 (x, y - 0.014, z, 0.064, 0.056)], plain, cut=cut, ends=(0.08, 0.05))  # fmt: skip
    if kind == "hoodie":
        hood = Cloth(replace(weave, pattern="solid"), crease=0.14)
        figure.tube([(x, y + 0.030, z - 0.052, 0.042, 0.022), (x, y + 0.008, z - 0.060, 0.060, 0.036),
                     (x, y - 0.035, z - 0.060, 0.050, 0.024)], hood, ends=(0.9, 0.9))  # fmt: skip


def _outer_details(person: Person, pose: Pose, shot: Shot, wardrobe: Wardrobe) -> tuple[Detail, ...]:
    lift = F(pose.lift)
    kind = person.outer
    hem = F(OUTER_HEMS[kind])

    def tailoring(surface: Surface, colours: Floats) -> Floats:
        x, y, z = surface.position[:, 0], surface.position[:, 1] - lift, surface.normal[:, 2]
        front = step(z - F(0.02), 0.1)
        if not shot.outer_open:
            zip_line = step(F(0.0022) - np.abs(x), 0.002) * front
            colours = colours * (1 - F(0.45) * zip_line)[:, None]
        if kind in ("blazer", "coat"):
            reach = F(0.018) + (y - F(0.68)) * F(0.26)
            lapel = step(reach - np.abs(x), 0.003) * step(y - F(0.68), 0.003) * front
            edge = step(F(0.0024) - np.abs(np.abs(x) - reach), 0.002) * step(y - F(0.68), 0.003) * front
            colours = colours * (1 - F(0.1) * lapel - F(0.35) * edge)[:, None]
            button = F(0.0055) - np.hypot(x - F(0.012), ((y / F(0.062)) % 1 - F(0.5)) * F(0.062))
            colours = mix(colours, step(button, 0.002) * front * step(F(0.68) - y, 0.01) * F(0.6), colour(30, 28, 28))
        pocket = np.minimum(F(0.026) - np.abs(np.abs(x) - F(0.066)), F(0.005) - np.abs(y - F(0.56)))
        colours = colours * (1 - F(0.28) * step(pocket, 0.003) * front)[:, None]
        if kind == "jacket":
            band = step(hem + F(0.024) - y, 0.003)
            colours = colours * (1 - band * (F(0.17) + F(0.05) * np.sin(surface.angle * F(70))))[:, None]
        return colours

    return (tailoring,)


def _quilting(surface: Surface, colours: Floats) -> Floats:
    """Horizontal stitches of a down jacket: dark seams, light pillows."""
    wave = np.abs(np.sin(surface.along * F(np.pi / 0.037)))
    result: Floats = colours * (F(0.72) + F(0.36) * np.sqrt(wave))[:, None]
    return result


def _add_outer(figure: Figure, pose: Pose, person: Person, shot: Shot, wardrobe: Wardrobe) -> None:
    kind = person.outer
    quilt: tuple[Detail, ...] = (_quilting,) if kind == "puffer" else ()
    details = quilt + _outer_details(person, pose, shot, wardrobe) + _straps(person, pose, wardrobe)
    paint = Cloth(wardrobe.outer, crease=0.09, hanging=True, gloss=0.05 if kind == "puffer" else 0.0, details=details)
    hem = OUTER_HEMS[kind] - (0.06 * wardrobe.flare if kind == "coat" else 0)
    rings = trunk_rings(pose, hem, OUTER_LOOSE[kind], 0.862, flare=0.09 if kind == "coat" else 0.0)
    lift = F(pose.lift)

    def opened(position: Floats) -> Bools:
        x, y, z = position[:, 0] - F(0.004), position[:, 1] - lift, position[:, 2]
        gap = F(0.020) + np.clip(F(0.86) - y, 0, 0.55) * F(0.085)
        kept: Bools = ~((np.abs(x) < gap) & (z > 0))
        return kept

    figure.tube(rings, paint, power=2.25, cut=opened if shot.outer_open else None, ends=(0, 0.03), over=0.034)
    x, y, z = pose.trunk(0.85)
    z0 = F(z)

    def collar_cut(position: Floats) -> Bools:
        gap = F(0.012 if kind in ("jacket", "puffer") and not shot.outer_open else 0.024)
        return ~((np.abs(position[:, 0]) < gap) & (position[:, 2] > z0))

    high = 0.034 if kind in ("puffer", "jacket") else 0.026
    figure.tube([(x, y + high, z - 0.007, 0.046, 0.048), (x, y + 0.005, z - 0.003, 0.055, 0.055),
                 (x, y - 0.018, z, 0.074, 0.063)],
                Cloth(wardrobe.outer, crease=0.05, details=quilt), cut=collar_cut, ends=(0.1, 0.05))  # fmt: skip


def _arm_rings(arm: Arm, inner: np.ndarray, rows: list[tuple[float, float]]) -> list[tuple[float, ...]]:
    rings = [(*inner, rows[0][1] * 0.85, rows[0][1] * 1.05)]
    return rings + [(*arm.at(share), a, a * 1.04) for share, a in rows]


def sleeve_share(person: Person, wardrobe: Wardrobe) -> float:
    """How far the sleeves of the top reach: 0 = none, 1 = elbow, 2 = wrist."""
    shirt = 1.97 if wardrobe.long_sleeves else 0.85
    dress = 0.55 if wardrobe.tights else 0.0
    return {"tshirt": 0.78, "shirt": shirt, "sweater": 1.97, "hoodie": 1.97, "tank": 0.0, "dress": dress}[person.top]


def add_arms(figure: Figure, pose: Pose, person: Person, wardrobe: Wardrobe) -> None:
    """Arms, sleeves and hands."""
    g = (0.5 + 0.5 * pose.girth) * (0.90 if pose.female else 1.06)
    skin = Skin(wardrobe.skin)
    reach = sleeve_share(person, wardrobe)
    weave, loose = wardrobe.top, LOOSE[person.top] * 0.8 + 0.001
    if weave.pattern == "print":
        weave = replace(weave, pattern="solid")
    details: tuple[Detail, ...] = ()
    if person.has_outer:
        reach, weave, loose = 1.97, wardrobe.outer, SLEEVE_LOOSE[person.outer]
        details = (_quilting,) if person.outer == "puffer" else ()
    bare = [(0.0, 0.0290), (0.3, 0.0320), (0.7, 0.0290), (1.0, 0.0262), (1.25, 0.0268), (1.65, 0.0205), (2.0, 0.0158)]
    for arm in pose.arms:
        x, y, z = arm.shoulder
        inner = np.array([x * 0.55, y + 0.016, z])
        rows = [(share, a * g) for share, a in bare]
        if reach < 1.9:
            if reach > 0:  # only what the sleeve leaves free
                point = reach - 0.12
                first = float(np.interp(point, [s for s, _ in rows], [a for _, a in rows]))
                free = [
                    (*arm.at(s), a, a * 1.04) for s, a in [(point, first), *(row for row in rows if row[0] > point)]
                ]
                figure.tube(free, skin)
            else:
                figure.tube(_arm_rings(arm, inner, rows), skin)
        if reach > 0:
            wide = [(s, a + loose * (0.7 + 0.5 * min(1.0, s))) for s, a in rows if s < reach - 0.05]
            wide.append((reach, wide[-1][1] * (1.04 if reach < 1.9 else 0.94)))
            paint = Cloth(weave, crease=0.14, girth=0.04, details=details)
            figure.tube(_arm_rings(arm, inner, wide), paint, ends=(0.3, 0.1))
        _add_hand(figure, arm, wardrobe.skin, g)


@dataclass(frozen=True, slots=True)
class HandPaint:
    """Skin with grooves between the fingers."""

    colour: Floats
    gloss: float = 0.05

    def __call__(self, surface: Surface) -> Floats:
        fingers = step(surface.along - F(0.040), 0.006)
        groove = np.clip(np.abs(np.sin(surface.angle * F(4))) * F(3) - F(0.2), 0, 1)
        shade = 1 - fingers * (1 - groove) * F(0.32)
        result: Floats = self.colour * shade[:, None]
        return result


def _add_hand(figure: Figure, arm: Arm, skin: Floats, g: float) -> None:
    along = arm.hand - arm.wrist
    along = along / np.linalg.norm(along)
    # The palm faces the body: thin sideways, wide in the plane of the step.
    rings = [(*(arm.wrist + along * reach), a * g, b * g) for reach, a, b in
             ((-0.012, 0.0145, 0.0165), (0.018, 0.0150, 0.0215), (0.046, 0.0135, 0.0225), (0.070, 0.0120, 0.0185),
              (0.084, 0.0085, 0.0115))]  # fmt: skip
    figure.tube(rings, HandPaint(skin), ends=(0, 0.8))
    forward = np.cross(np.array([1.0, 0, 0]), along)
    forward = forward / np.linalg.norm(forward) * (-1 if forward @ np.array([0, 0, 1]) < 0 else 1)
    base = arm.wrist + along * 0.012 + forward * 0.014
    tip = base + along * 0.032 + forward * 0.012
    figure.tube([(*base, 0.0085, 0.0085), (*tip, 0.0065, 0.0065)], Skin(skin * F(0.97)), ends=(0.5, 1.0))
