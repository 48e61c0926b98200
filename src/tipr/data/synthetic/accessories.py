"""What is worn or carried besides clothes: hats, scarf, bags, phone, umbrella."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from tipr.data.synthetic.attributes import Person, Shot
from tipr.data.synthetic.body import Pose, head_rings
from tipr.data.synthetic.geometry import Bools, Figure, Surface
from tipr.data.synthetic.materials import Cloth, Plain, mix, step
from tipr.data.synthetic.palette import Floats, colour, dye
from tipr.data.synthetic.wardrobe import Wardrobe

F = np.float32


def add_hat(figure: Figure, pose: Pose, person: Person, wardrobe: Wardrobe) -> None:
    """A baseball cap, a knitted beanie or a sun hat."""
    if person.hat == "none":
        return
    x, y, z = pose.head
    weave = wardrobe.hat
    edge = {"cap": 0.026, "beanie": 0.020, "hat": 0.030}[person.hat]
    low = F(y + edge)

    def above(position: Floats) -> Bools:
        return position[:, 1] > low - F(0.15) * (F(z) - position[:, 2])

    def ribs(surface: Surface, colours: Floats) -> Floats:
        band = step(low + F(0.018) - surface.position[:, 1], 0.002)
        knit = F(0.9) + F(0.1) * np.sin(surface.angle * F(60))
        result: Floats = colours * (knit * (1 - F(0.1) * band))[:, None]
        return result

    def seams(surface: Surface, colours: Floats) -> Floats:
        seam = step(F(0.06) - np.abs(np.sin(surface.angle * F(3))), 0.06)
        return colours * (1 - F(0.16) * seam)[:, None]

    detail = ribs if person.hat == "beanie" else seams
    grow = {"cap": 1.135, "beanie": 1.16, "hat": 1.14}[person.hat]
    figure.tube(head_rings(pose.head, grow, 0.006), Cloth(weave, crease=0.05, details=(detail,)), cut=above)
    if person.hat == "beanie":
        band = [(x, y + up + edge, z + shift, 0.0525, 0.0645) for up, shift in ((0.024, -0.004), (-0.002, 0.000))]
        figure.tube(band, Cloth(weave, crease=0.03, details=(ribs,)), ends=(0.12, 0.08))
    elif person.hat == "cap":
        brim = [(x, y + edge + 0.008, z + 0.030, 0.044, 0.006), (x, y + edge + 0.002, z + 0.066, 0.044, 0.006),
                (x, y + edge - 0.014, z + 0.104, 0.029, 0.004)]  # fmt: skip
        figure.tube(brim, Plain(weave.colour * F(0.74)), ends=(0.2, 0.6))
    elif person.hat == "hat":
        rim = y + edge
        top = [(x, rim + 0.006, z - 0.002, 0.046, 0.056), (x, rim + 0.002, z - 0.002, 0.072, 0.080),
               (x, rim - 0.012, z - 0.002, 0.098, 0.104)]  # fmt: skip
        figure.tube(top, Cloth(weave, crease=0.04), inside=True)
        figure.tube([(x, rim + 0.020, z - 0.002, 0.0475, 0.0585), (x, rim + 0.004, z - 0.002, 0.0485, 0.0595)],
                    Plain(weave.colour * F(0.5)))  # fmt: skip


def add_scarf(figure: Figure, pose: Pose, person: Person, wardrobe: Wardrobe) -> None:
    """A scarf around the neck with one end hanging on the chest."""
    if not person.scarf:
        return
    x, y, z = pose.trunk(0.86)
    room = 0.012 if person.has_outer else 0.0

    def fringe(surface: Surface, colours: Floats) -> Floats:
        ribs = F(0.92) + F(0.08) * np.sin(surface.along * F(260))
        result: Floats = colours * ribs[:, None]
        return result

    cloth = Cloth(wardrobe.scarf, crease=0.2, details=(fringe,))
    figure.tube([(x, y + 0.028, z - 0.004, 0.046, 0.048), (x, y + 0.010, z, 0.062 + room, 0.064 + room),
                 (x, y - 0.016, z + 0.002, 0.064 + room, 0.066 + room)], cloth, ends=(0.4, 0.4))  # fmt: skip
    front = z + 0.075 + room
    figure.tube([(x + 0.020, y - 0.012, front - 0.006, 0.022, 0.012),
                 (x + 0.025, y - 0.07, front + 0.010, 0.025, 0.010),
                 (x + 0.028, y - 0.155, front + 0.012, 0.027, 0.007)], cloth, ends=(0.5, 0.2))  # fmt: skip


@dataclass(frozen=True, slots=True)
class BagPaint:
    """Cloth of a bag with a lid seam, a zip and a buckle, placed by height in the bag."""

    cloth: Cloth
    centre: tuple[float, float, float]
    half: float
    kind: str
    gloss: float = 0.07

    def __call__(self, surface: Surface) -> Floats:
        colours = self.cloth(surface)
        local = surface.position - np.array(self.centre, dtype=F)
        y = local[:, 1] / F(self.half)
        if self.kind == "backpack":
            zips = step(F(0.02) - np.abs(y - F(0.42)), 0.02)
            return colours * (1 - F(0.35) * zips)[:, None]
        if self.kind == "suitcase":
            rib = F(0.9) + F(0.1) * np.sign(np.sin(surface.angle * F(14)))
            result: Floats = colours * rib[:, None]
            return result
        if self.kind == "shoppingbag":
            label = step(F(0.35) - np.abs(y + F(0.1)), 0.05) * step(F(0.035) - np.abs(local[:, 2]), 0.004)
            return mix(colours, label * F(0.35), 1 - self.cloth.weave.colour)
        flap = step(F(0.03) - np.abs(y - F(0.1)), 0.03)
        colours = colours * (1 - F(0.35) * flap)[:, None]
        buckle = step(F(0.008) - np.hypot(local[:, 2], local[:, 1] - F(0.1 * self.half)), 0.002)
        return mix(colours, buckle * F(0.8), colour(196, 176, 120))


def add_bag(figure: Figure, pose: Pose, person: Person, wardrobe: Wardrobe) -> None:
    """Backpack on the back, shoulder bag at the left hip, the others in the left hand."""
    weave, kind = wardrobe.bag, person.bag
    thick = 0.022 if person.outer in ("puffer", "coat") else 0.012 if person.has_outer else 0.0
    hand = pose.arms[0].hand
    cloth = Cloth(weave, crease=0.07 if kind != "shoppingbag" else 0.17, girth=0.05)
    strap = Plain(weave.colour * F(0.75), gloss=0.05)
    if kind == "backpack":
        x, y, z = pose.trunk(0.70)
        z -= 0.115 + thick
        paint = BagPaint(cloth, (x, y, z), 0.118, kind)
        figure.tube([(x, y + 0.108, z + 0.006, 0.066, 0.040),
                     (x, y + 0.085, z + 0.004, 0.080, 0.048), (x, y, z, 0.086, 0.056),
                     (x, y - 0.080, z - 0.002, 0.084, 0.056),
                     (x, y - 0.112, z + 0.004, 0.070, 0.044)], paint, power=3.2, ends=(0.3, 0.25))  # fmt: skip
        figure.box(
            (x, y - 0.042, z - 0.056), (0.060, 0.050, 0.020), Plain(weave.colour * F(0.84), gloss=0.05), soft=0.3
        )
    elif kind == "shoulderbag":
        x, y, z = pose.trunk(0.505)
        x += pose.hip + 0.030 + thick
        figure.box((x, y, z), (0.026, 0.058, 0.072), BagPaint(cloth, (x, y, z), 0.058, kind), soft=0.22)
        sx, sy, sz = pose.trunk(0.575)
        for shift in (0.035, -0.035):
            figure.tube([(sx + pose.waist * 0.9 + thick, sy + 0.04, sz + shift * 0.9, 0.006, 0.010),
                         (x, y + 0.05, z + shift, 0.005, 0.009)], strap)  # fmt: skip
    elif kind in ("handbag", "shoppingbag"):
        rx, ry, rz = (0.026, 0.046, 0.070) if kind == "handbag" else (0.034, 0.088, 0.072)
        x, y, z = hand[0] + 0.008, hand[1] - ry - 0.052, hand[2]
        centre = (float(x), float(y), float(z))
        if kind == "handbag":
            rings = [(x, y + ry, z, rx * 0.35, rz * 0.70), (x, y + ry * 0.6, z, rx * 0.8, rz * 0.88),
                     (x, y - ry * 0.5, z, rx, rz),
                     (x, y - ry * 0.92, z, rx, rz * 0.97), (x, y - ry, z, rx * 0.3, rz * 0.5)]  # fmt: skip
            figure.tube(rings, BagPaint(cloth, centre, ry, kind), power=3.4)
        else:
            rings = [(x, y + ry, z, rx * 0.4, rz * 0.62), (x, y + ry * 0.55, z, rx * 0.85, rz * 0.9),
                     (x, y - ry * 0.6, z, rx, rz),
                     (x, y - ry * 0.95, z, rx * 0.92, rz * 0.9), (x, y - ry, z, rx * 0.3, rz * 0.5)]  # fmt: skip
            figure.tube(rings, BagPaint(cloth, centre, ry, kind, gloss=0.1), power=3.4)
        for shift in (0.45, -0.45):
            top = (hand[0], hand[1] - 0.012, hand[2] + shift * 0.018)
            figure.tube([(*top, 0.0042, 0.0042), (x, y + ry + 0.02, z + shift * rz * 0.9, 0.0042, 0.0042),
                         (x, y + ry * 0.92, z + shift * rz, 0.0045, 0.0045)], strap)  # fmt: skip
    elif kind == "suitcase":
        x, z = float(hand[0] + 0.030), float(hand[2] - 0.075)
        y = pose.floor + 0.162
        figure.box(
            (x, y, z), (0.056, 0.135, 0.088), BagPaint(replace(cloth, crease=0.02), (x, y, z), 0.135, kind), soft=0.12
        )
        metal = Plain(colour(150, 152, 156), gloss=0.2)
        for shift in (0.03, -0.03):
            figure.tube([(hand[0], hand[1] - 0.005, hand[2] + shift * 0.6, 0.0042, 0.0042),
                         (x, y + 0.13, z + shift, 0.0042, 0.0042)], metal)  # fmt: skip
        for shift in (0.06, -0.06):
            figure.ball((x, pose.floor + 0.014, z + shift), (0.016, 0.015, 0.015), Plain(colour(30, 30, 32)))


def add_held(figure: Figure, pose: Pose, shot: Shot, seed: int) -> None:
    """The phone or the umbrella in the right hand."""
    hand = pose.arms[1].hand
    if shot.hold == "phone":
        figure.box(
            (hand[0], hand[1] + 0.026, hand[2] + 0.006), (0.020, 0.040, 0.006), Plain(colour(26, 27, 32), gloss=0.3)
        )
    elif shot.hold == "umbrella":
        cloth = dye(np.random.default_rng([seed, 9]), shot.umbrella_color)
        top = np.array([hand[0] * 0.55, 1.145 + pose.lift, hand[2] * 0.55 + 0.02])
        figure.tube([(*(hand - [0, 0.05, 0]), 0.008, 0.008), (*(hand - [0, 0.01, 0]), 0.005, 0.005),
                     (*top, 0.0045, 0.0045)], Plain(colour(60, 58, 60), gloss=0.2))  # fmt: skip
        x, y, z = top
        figure.tube([(x, y + 0.03, z, 0.003, 0.003), (x, y - 0.01, z, 0.004, 0.004)], Plain(colour(60, 58, 60)))
        arc = np.linspace(0, 1, 9)
        radius = 0.002 + 0.262 * np.sin(arc * 1.5)
        rings = [(x, y + 0.008 - 0.115 * t**2.1, z, wide, wide) for t, wide in zip(arc, radius, strict=True)]
        figure.tube(rings, UmbrellaPaint(cloth, float(top[1])), inside=True)


@dataclass(frozen=True, slots=True)
class UmbrellaPaint:
    """Eight panels with ribs; darker below."""

    colour: Floats
    top: float
    gloss: float = 0.08

    def __call__(self, surface: Surface) -> Floats:
        rib = step(F(0.05) - np.abs(np.sin(surface.angle * F(4))), 0.05)
        sag = F(0.9) + F(0.1) * np.abs(np.sin(surface.angle * F(4)))
        under = step(-surface.normal[:, 1], 0.1)
        shade = sag * (1 - F(0.25) * rib) * (1 - F(0.5) * under)
        result: Floats = self.colour * shade[:, None]
        return result
