"""Legs and what is worn on them: trousers, shorts, tights, shoes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tipr.data.synthetic.attributes import Person
from tipr.data.synthetic.body import Leg, Pose
from tipr.data.synthetic.geometry import Figure, Paint, Surface
from tipr.data.synthetic.materials import Cloth, Denim, Plain, Skin, Weave, mix, step
from tipr.data.synthetic.palette import Floats, colour
from tipr.data.synthetic.wardrobe import Wardrobe

F = np.float32


def _limb(leg: Leg, rows: list[tuple[float, float, float, float]]) -> list[tuple[float, ...]]:
    """Rings along a leg from (share, radius sideways, radius across, forward shift)."""
    rings: list[tuple[float, ...]] = []
    for share, a, b, shift in rows:
        x, y, z = leg.at(share)
        rings.append((x, y, z + shift, a, b))
    return rings


def add_legs(figure: Figure, pose: Pose, person: Person, wardrobe: Wardrobe) -> None:
    """Both legs with trousers or bare, and the shoes."""
    g = 0.4 + 0.6 * pose.girth
    f = 1.04 if pose.female else 1.0
    cloth: Paint = Cloth(wardrobe.bottom, crease=0.13, girth=0.05)
    if person.bottom == "jeans":
        cloth = Denim(wardrobe.bottom.colour, wardrobe.bottom.shift)
    elif person.bottom == "leggings":
        cloth = Cloth(wardrobe.bottom, crease=0.04, girth=0.05, gloss=0.05)
    skin: Paint = Skin(wardrobe.skin)
    if wardrobe.tights and person.bottom == "skirt":
        skin = Plain(wardrobe.skin * F(0.25) + colour(40, 38, 42) * F(0.75), gloss=0.05)
    for leg in pose.legs:
        bare = [
            (0.04, 0.047 * g * f, 0.052 * g, -0.002),
            (0.22, 0.053 * g * f, 0.060 * g, -0.001),
            (0.50, 0.051 * g * f, 0.056 * g, 0.004),
            (0.88, 0.039 * g, 0.041 * g, 0.003),
            (1.0, 0.037 * g, 0.040 * g, 0.003),
            (1.3, 0.037 * g, 0.042 * g, -0.008),
            (1.65, 0.028 * g, 0.030 * g, -0.007),
            (1.92, 0.020 * g, 0.024 * g, -0.005),
            (2.05, 0.020 * g, 0.024 * g, -0.002),
        ]
        if person.bottom in ("trousers", "jeans", "leggings"):
            ease = {"trousers": 0.007 + 0.006 * wardrobe.flare, "jeans": 0.005, "leggings": 0.001}[person.bottom]
            wide = {"trousers": 0.009 + 0.010 * wardrobe.flare, "jeans": 0.008, "leggings": 0.001}[person.bottom]
            loose = [
                (s, a + ease * min(1.0, 0.3 + s) + wide * max(0.0, s - 1.0), b + ease + wide * max(0.0, s - 1.0), z)
                for s, a, b, z in bare[:-1]
            ]
            loose.append((1.965 if person.bottom != "leggings" else 1.95, *loose[-1][1:]))
            loose[-2] = (1.82, *loose[-2][1:])
            figure.tube(_limb(leg, loose), cloth, ends=(0.6, 0.15))
            if person.bottom == "leggings":
                figure.tube(_limb(leg, [(1.9, 0.0195, 0.0225, -0.004), (2.05, 0.019, 0.023, 0)]), Skin(wardrobe.skin))
        else:
            hidden = {"shorts": 3, "skirt": 1, "none": 1}[person.bottom]
            if person.skirt_length == "long" and person.bottom != "shorts":
                hidden = 5
            figure.tube(_limb(leg, bare[hidden - 1 :]), skin, ends=(0.2, 0.3))
            if person.bottom == "shorts":
                hem = 0.80 + 0.1 * wardrobe.flare
                shorts = [
                    (0.04, 0.047 * g * f, 0.054 * g, -0.002),
                    (0.22, 0.058 * g * f, 0.064 * g, -0.001),
                    (0.50, 0.062 * g * f, 0.068 * g, 0.003),
                    (hem, 0.061 * g, 0.066 * g, 0.003),
                ]
                figure.tube(_limb(leg, shorts), cloth, ends=(0.5, 0.12))
        add_shoe(figure, leg, person, wardrobe)


@dataclass(frozen=True, slots=True)
class ShoePaint:
    """Upper, sole, and what tells the kinds apart: laces, straps, shine."""

    kind: str
    upper: Floats
    skin: Floats
    gloss: float

    def __call__(self, surface: Surface) -> Floats:
        n = len(surface.angle)
        colours = np.broadcast_to(self.upper, (n, 3)).astype(F)
        low, along = np.sin(surface.angle), surface.along
        if self.kind == "sneakers":
            light = self.upper.mean() > 0.6
            top = step(low - F(0.72), 0.1) * step(F(0.105) - along, 0.004) * step(along - F(0.05), 0.004)
            laces = step(np.sin(along * F(2 * np.pi / 0.014)), 0.4)
            tone = colour(150, 150, 155) if light else colour(226, 226, 224)
            colours = mix(colours, top * laces * F(0.8), tone)
            flash = step(F(0.006) - np.abs(along - F(0.06) - F(0.02) * low), 0.003) * step(F(0.55) - np.abs(low), 0.1)
            colours = mix(colours, flash * F(0.55), tone)
            return mix(colours, step(-low - F(0.5), 0.12), colour(206, 206, 204) if light else colour(232, 232, 228))
        if self.kind == "sandals":
            open_skin = step(F(0.5) - np.abs((along / F(0.044)) % 1 - F(0.5)) * F(1.9), 0.12)
            edge = step(F(0.09) - np.abs(np.abs((along / F(0.044)) % 1 - F(0.5)) - F(0.263)), 0.05)
            shaded = self.skin * (1 - F(0.35) * edge)[:, None]
            colours = mix(shaded, 1 - open_skin, self.upper)
            return mix(colours, step(-low - F(0.45), 0.12), self.upper * F(0.6))
        if self.kind == "heels":
            instep = step(low - F(0.15), 0.15) * step(F(0.088) - along, 0.004) * step(along - F(0.012), 0.004)
            colours = mix(colours, instep, self.skin)
        if self.kind == "leather":
            seam = step(F(0.0022) - np.abs(along - F(0.118)), 0.002) * step(low - F(0.0), 0.2)
            colours = mix(colours, seam * F(0.6), self.upper * F(0.5))
        return mix(colours, step(-low - F(0.62), 0.1), self.upper * F(0.45) + F(0.02))


def add_shoe(figure: Figure, leg: Leg, person: Person, wardrobe: Wardrobe) -> None:
    """One foot in its shoe; the lower side is closed, so a lifted foot shows a sole."""
    kind, dye_ = person.shoes, wardrobe.shoes
    ankle, ahead = leg.ankle, leg.foot / np.linalg.norm(leg.foot)
    up = np.array([-ahead[0] * ahead[1], 1 - ahead[1] ** 2, -ahead[1] * ahead[2]])
    up /= np.linalg.norm(up)
    size = 0.94 if person.gender == "f" else 1.03
    thick = {"sneakers": 1.1, "boots": 1.15, "sandals": 0.86, "leather": 0.95, "heels": 0.8}[kind]
    profile = (
        # ahead of the ankle, half width, half height
        (-0.040, 0.020, 0.021),
        (-0.018, 0.0245, 0.0255),
        (0.012, 0.0265, 0.0265),
        (0.050, 0.0300, 0.0205),
        (0.085, 0.0320, 0.0160),
        (0.105, 0.0270 if kind not in ("leather", "heels") else 0.020, 0.0125),
    )
    rings = []
    for reach, a, b in profile:
        point = ankle + ahead * reach * size + up * (-0.036 + b * thick)
        rings.append((*point, a * (thick * 0.5 + 0.5) * size, b * thick))
    paint = ShoePaint(kind, dye_, wardrobe.skin, 0.22 if kind in ("leather", "heels") else 0.04)
    figure.tube(rings, paint, power=2.5, ends=(0.7, 0.9))
    if kind == "boots":
        shaft = _limb(leg, [(1.48, 0.040, 0.043, -0.007), (1.7, 0.034, 0.037, -0.006), (1.95, 0.0285, 0.033, -0.002),
                            (2.06, 0.028, 0.034, 0.0)])  # fmt: skip
        figure.tube(shaft, Cloth(Weave("solid", dye_, dye_, 1, 1, False, 0, (0.1, 0.4)), crease=0.06, gloss=0.12))
    elif kind == "heels":
        heel = ankle - ahead * 0.034 * size - up * 0.02
        foot = heel + np.array([0, -0.034, 0.0])
        figure.tube([(*heel, 0.011, 0.011), (*foot, 0.006, 0.006)], Plain(dye_ * F(0.8), gloss=0.2), ends=(0, 0.3))
