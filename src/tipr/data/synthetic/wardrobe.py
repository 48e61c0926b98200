"""The dyes and weaves of one person, the same in every photograph."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tipr.data.synthetic.attributes import Person
from tipr.data.synthetic.materials import Weave
from tipr.data.synthetic.palette import SKIN, Floats, colour, dye

F = np.float32


@dataclass(frozen=True, slots=True)
class Wardrobe:
    """Dyes and weaves of one person, drawn in a fixed order so that every photograph shows the same clothes."""

    skin: Floats
    top: Weave
    outer: Weave
    bottom: Weave
    shoes: Floats
    bag: Weave
    hat: Weave
    scarf: Weave
    flare: float
    tights: bool
    long_sleeves: bool

    @classmethod
    def of(cls, person: Person) -> Wardrobe:
        dyes = {
            name: dye(np.random.default_rng([person.seed, number]), getattr(person, name))
            for number, name in enumerate(
                ("top_color", "pattern_color", "outer_color", "bottom_color", "shoe_color", "bag_color", "hat_color",
                 "scarf_color")
            )
        }  # fmt: skip
        random = np.random.default_rng([person.seed, 100])
        return cls(
            skin=colour(*SKIN[person.skin]),
            top=Weave.draw(random, dyes["top_color"], person.pattern, dyes["pattern_color"]),
            outer=Weave.draw(random, dyes["outer_color"]),
            bottom=Weave.draw(random, dyes["bottom_color"]),
            shoes=dyes["shoe_color"],
            bag=Weave.draw(random, dyes["bag_color"]),
            hat=Weave.draw(random, dyes["hat_color"]),
            scarf=Weave.draw(random, dyes["scarf_color"]),
            flare=float(random.random()),
            tights=bool(random.random() < 0.25),
            long_sleeves=bool(random.random() < 0.72),
        )
