"""What a rendered person looks like and what one photograph of them shows.

A `Person` holds everything that stays the same over the photographs of one identity; a `Shot` holds what
changes from photograph to photograph. Both are drawn from a seeded generator, so a set is a function of its seed.
Skin tone is rendered, drawn in equal shares, and never captioned; nor is origin or any judgement of the body.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

COLORS = (
    "black", "white", "gray", "red", "blue", "navy", "lightblue",
    "green", "yellow", "orange", "purple", "pink", "brown", "beige",
)  # fmt: skip
HAIR_COLORS = ("black", "brown", "blond", "gray", "red")
HAIR_STYLES = ("short", "medium", "long", "ponytail", "bun", "bald")
TOPS = ("tshirt", "shirt", "sweater", "hoodie", "tank", "dress")
OUTER = ("none", "jacket", "coat", "blazer", "puffer")
BOTTOMS = ("none", "trousers", "jeans", "shorts", "skirt", "leggings")
SKIRT_LENGTHS = ("short", "knee", "long")
SHOES = ("sneakers", "boots", "sandals", "leather", "heels")
BAGS = ("none", "backpack", "shoulderbag", "handbag", "suitcase", "shoppingbag")
HATS = ("none", "cap", "beanie", "hat")
EYEWEAR = ("none", "glasses", "sunglasses")
PATTERNS = ("solid", "striped", "plaid", "dots", "print")
BUILDS = ("slim", "average", "heavy")
AGES = ("young", "adult", "old")
SKIN_TONES = 6
VIEWS = {
    "front": 0.0, "front_left": 40.0, "left": 90.0, "back_left": 140.0,
    "back": 180.0, "back_right": 220.0, "right": 270.0, "front_right": 320.0,
}  # fmt: skip
"""View name -> turn of the body in degrees; 0 faces the camera."""
OCCLUSIONS = ("none", "pole", "low", "plant")


@dataclass(frozen=True, slots=True)
class Person:
    """One identity. Colours are keys of `COLORS`; `height` is relative to the mean; `seed` drives dyes and texture."""

    gender: str
    age: str
    build: str
    height: float
    skin: int
    hair: str
    hair_color: str
    beard: bool
    hat: str
    hat_color: str
    eyewear: str
    top: str
    top_color: str
    pattern: str
    pattern_color: str
    outer: str
    outer_color: str
    bottom: str
    bottom_color: str
    skirt_length: str
    shoes: str
    shoe_color: str
    bag: str
    bag_color: str
    scarf: bool
    scarf_color: str
    seed: int

    @property
    def has_outer(self) -> bool:
        return self.outer != "none"


@dataclass(frozen=True, slots=True)
class Shot:
    """One photograph of a person: camera, pose and what hides the view.

    Attributes:
        camera: 0 .. cameras-1.
        view: key of `VIEWS`.
        yaw: turn of the body in radians, the view plus a little noise.
        phase: walk phase in radians.
        stride: 0 = standing, 1 = long steps.
        hold: "none", "phone" or "umbrella", in the right hand.
        umbrella_color: key of `COLORS`.
        outer_open: the outer garment is open at the front.
        feet_cut: the feet are below the lower edge of the picture.
        occlusion: key of `OCCLUSIONS`; what stands in front.
        seed: drives framing, background, light jitter and noise.
    """

    camera: int
    view: str
    yaw: float
    phase: float
    stride: float
    hold: str
    umbrella_color: str
    outer_open: bool
    feet_cut: bool
    occlusion: str
    seed: int

    @property
    def degrees(self) -> float:
        """Turn of the body in [0, 360)."""
        return float(np.degrees(self.yaw)) % 360.0

    @property
    def from_behind(self) -> bool:
        return 115.0 < self.degrees < 245.0

    @property
    def from_front(self) -> bool:
        """The chest and the face can be seen."""
        return self.degrees < 80.0 or self.degrees > 280.0

    @property
    def feet_visible(self) -> bool:
        return not self.feet_cut and self.occlusion in ("none", "pole")


TOP_COLORS = dict(
    black=23, white=25, gray=9, red=8, blue=5, navy=3, lightblue=3, green=5, yellow=4, orange=3, purple=4, pink=4,
    brown=2, beige=3,
)  # fmt: skip
BOTTOM_COLORS = dict(
    black=40, navy=5, blue=3, gray=9, beige=9, brown=4, white=11, green=4, red=3, lightblue=2, pink=2, purple=2,
    yellow=1, orange=1,
)  # fmt: skip
SHOE_COLORS = dict(black=38, white=35, gray=5, brown=7, red=3, blue=3, navy=1, pink=3, beige=3, green=1, orange=1)
BAG_COLORS = dict(
    black=36, brown=7, gray=5, red=6, blue=5, navy=3, white=9, green=6, pink=5, beige=6, yellow=4, purple=4,
    orange=3, lightblue=1,
)  # fmt: skip
LIGHT_COLORS = ("white", "beige", "yellow", "lightblue", "pink")


def pick(generator: np.random.Generator, weights: Mapping[str, float]) -> str:
    """Draw one key with probability proportional to its weight."""
    keys = list(weights)
    shares = np.cumsum(np.fromiter(weights.values(), dtype=np.float64))
    position = int(np.searchsorted(shares / shares[-1], generator.random(), side="right"))
    return keys[min(position, len(keys) - 1)]


def sample_person(generator: np.random.Generator) -> Person:
    """Draw one identity."""
    r = generator
    female = bool(r.random() >= 0.52)
    age = pick(r, dict(young=45, adult=45, old=10))
    hair = pick(
        r,
        dict(short=18, medium=22, long=32, ponytail=18, bun=10)
        if female
        else dict(short=78, bald=9, medium=10, ponytail=3),
    )
    gray_haired = age == "old" and r.random() < 0.8
    hair_color = "gray" if gray_haired else pick(r, dict(black=50, brown=28, blond=16, red=6))
    dress = female and r.random() < 0.16
    top = "dress" if dress else pick(r, dict(tshirt=47, shirt=36, sweater=9, hoodie=7, tank=5 if female else 2))
    outer = "none"
    if top != "hoodie" and r.random() < 0.21:
        outer = pick(r, dict(jacket=52, coat=18, blazer=14, puffer=16))
    top_color = pick(r, TOP_COLORS)
    pattern = pick(r, dict(solid=66, striped=9, plaid=7, dots=5, print=13))
    if top == "hoodie" and pattern in ("plaid", "dots"):
        pattern = "solid"
    if top == "dress" and pattern == "print":
        pattern = "dots"
    on_light = dict(black=4, navy=3, red=3, blue=3, gray=1, green=1)
    on_dark = dict(white=8, yellow=2, gray=1, red=1, lightblue=1)
    pattern_color = pick(r, on_light if top_color in LIGHT_COLORS else on_dark)
    if pattern_color == top_color:
        pattern_color = "white" if top_color != "white" else "black"
    bottom = "none"
    if not dress:
        bottom = pick(
            r,
            dict(trousers=36, jeans=20, shorts=24, skirt=14, leggings=6)
            if female
            else dict(trousers=48, jeans=21, shorts=31),
        )
    jeans_colors = dict(blue=48, navy=14, lightblue=8, black=22, gray=8)
    bag = pick(r, dict(none=40, backpack=24, shoulderbag=15, handbag=17 if female else 3, suitcase=3, shoppingbag=5))
    return Person(
        gender="f" if female else "m",
        age=age,
        build=pick(r, dict(slim=25, average=55, heavy=20)),
        height=float(np.clip(r.normal(0.965 if female else 1.02, 0.035), 0.88, 1.12)),
        skin=int(r.integers(SKIN_TONES)),
        hair=hair,
        hair_color=hair_color,
        beard=bool(not female and r.random() < 0.2),
        hat=pick(r, dict(none=194, cap=3, beanie=2, hat=1)),
        hat_color=pick(r, BAG_COLORS),
        eyewear=pick(r, dict(none=68, glasses=26, sunglasses=6)),
        top=top,
        top_color=top_color,
        pattern=pattern,
        pattern_color=pattern_color,
        outer=outer,
        outer_color=pick(r, {key: weight for key, weight in TOP_COLORS.items() if key != top_color}),
        bottom=bottom,
        bottom_color=pick(r, jeans_colors if bottom == "jeans" else BOTTOM_COLORS),
        skirt_length=pick(r, dict(short=5, knee=5, long=2)),
        shoes=pick(
            r,
            dict(sneakers=54, boots=13, sandals=11, leather=6, heels=16)
            if female
            else dict(sneakers=66, boots=9, sandals=6, leather=19),
        ),
        shoe_color=pick(r, SHOE_COLORS),
        bag=bag,
        bag_color="white" if bag == "shoppingbag" and r.random() < 0.6 else pick(r, BAG_COLORS),
        scarf=bool(outer in ("coat", "puffer") and r.random() < 0.3),
        scarf_color=pick(r, BAG_COLORS),
        seed=int(r.integers(1 << 31)),
    )


def hard_sibling(generator: np.random.Generator, person: Person) -> tuple[Person, str]:
    """An identity that differs from `person` in exactly one attribute that captions name, and that attribute.

    Body, skin tone, texture seed and all else stay, so only words about that attribute tell the two apart.
    """
    r = generator
    names = ["bottom_color", "shoe_color", "bag", "hat"]
    names += ["outer_color"] if person.has_outer else ["top_color", "pattern"]
    if person.bottom == "none":
        names.remove("bottom_color")
    if person.bag != "none":
        names.append("bag_color")
    if person.gender == "f" and person.hair in ("long", "short"):
        names.append("hair")
    name = names[int(r.integers(len(names)))]
    while True:
        value = getattr(sample_person(r), name)
        if name == "hair" and value not in ("long", "short"):
            continue
        if name == "bottom_color" and person.bottom == "jeans":
            value = pick(r, dict(blue=1, lightblue=1, black=1))
        if name in ("top_color", "outer_color") and value in (person.pattern_color, person.top_color):
            continue
        if name == "pattern" and person.top in ("hoodie", "dress") and value not in ("solid", "striped"):
            continue
        if value != getattr(person, name):
            return replace(person, **{name: value}), name


def sample_shot(generator: np.random.Generator, person: Person, camera: int, *, difficulty: float = 1.0) -> Shot:
    """Draw one photograph.

    Args:
        generator: source of randomness.
        person: who is photographed.
        camera: number of the camera.
        difficulty: 0 = studio (nothing hidden), 1 = standard, up to 1.5.
    """
    r = generator
    view = pick(
        r,
        dict(front=20, back=20, left=10, right=10, front_left=10, front_right=10, back_left=10, back_right=10),
    )
    chance = r.random()
    hold = "phone" if chance < 0.07 else "umbrella" if chance < 0.095 else "none"
    return Shot(
        camera=camera,
        view=view,
        yaw=float(np.radians(VIEWS[view] + r.normal(0, 9))),
        phase=float(r.uniform(0, 2 * np.pi)),
        stride=0.06 if r.random() < 0.22 else float(r.uniform(0.5, 1.0)),
        hold=hold,
        umbrella_color=pick(r, BAG_COLORS),
        outer_open=bool(r.random() < 0.5),
        feet_cut=bool(r.random() < 0.06 * difficulty),
        occlusion=pick(r, dict(pole=4, low=4, plant=2)) if r.random() < 0.1 * difficulty else "none",
        seed=int(r.integers(1 << 31)),
    )
