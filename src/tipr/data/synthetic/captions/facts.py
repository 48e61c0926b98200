"""What one writer says about one photograph, before it is put into words of any language.

Everything that differs in content is decided here: what is mentioned, how exactly, and the occasional slip in a
colour. The four languages then word the same `Facts`, so their captions can be compared with each other. Skin tone
and build are never part of the facts.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tipr.data.synthetic.attributes import Person, Shot
from tipr.data.synthetic.captions.chance import Chance

COLOR_SLIP = 0.04
"""Chance that a named colour is replaced by one that looks much the same."""
NEIGHBOURS = {
    "black": ("navy", "gray"),
    "navy": ("black", "blue"),
    "gray": ("lightblue", "black"),
    "white": ("gray", "beige"),
    "brown": ("black", "beige"),
    "purple": ("blue", "pink"),
    "red": ("orange", "pink"),
    "orange": ("red", "yellow"),
    "blue": ("navy", "purple"),
    "beige": ("white", "yellow"),
    "green": ("gray", "blue"),
    "pink": ("red", "purple"),
    "lightblue": ("white", "blue"),
    "yellow": ("orange", "beige"),
}
DARK_COLORS = frozenset({"black", "navy", "brown"})
"""What a writer may sum up as `dark`."""
DARK_SHARE = {"top": 0.03, "bottom": 0.15, "shoes": 0.08, "bag": 0.05}
BARE_JEANS = {"blue": 0.7, "navy": 0.3}
"""Share of writers who leave out the colour of jeans, for jeans are blue."""
GENERIC_SHOES = {"sneakers": 0.62, "leather": 0.6, "heels": 0.25, "boots": 0.0, "sandals": 0.0}
GENERIC_BAG = {"backpack": 0.06, "shoulderbag": 0.25, "handbag": 0.16, "suitcase": 0.0, "shoppingbag": 0.1}
MENTION = {
    "bottom": 1.1,
    "hat": 0.92,
    "bag": 0.9,
    "umbrella": 0.9,
    "shoes": 0.88,
    "inner": 0.85,
    "phone": 0.6,
    "eyewear": 0.7,
    "scarf": 0.7,
    "hair": 0.43,
    "beard": 0.3,
    "pattern": 0.9,
    "pattern_color": 0.75,
    "hair_color": 0.85,
    "color": 0.97,
    "bag_color": 0.88,
    "action": 0.5,
    "view": 0.16,
    "age": 0.4,
}
"""Chance of a mention at full detail (above 1: said by nearly all); each writer scales it by a level of detail."""
DETAIL = (0.7, 1.0)
NEUTRAL_SHARE = 0.1
"""Share of writers who say "person" instead of man or woman."""


@dataclass(frozen=True, slots=True)
class Item:
    """One thing seen: `kind` is a garment, bag or hair style; a colour that is not stated is None."""

    kind: str
    color: str | None = None
    pattern: str = "solid"
    pattern_color: str | None = None


@dataclass(frozen=True, slots=True)
class Facts:
    """What one writer mentions about one photograph; None, False or "" where nothing is said.

    Colours are keys of `attributes.COLORS` or the vague "dark"; hair colours are keys of `HAIR_COLORS`. Kinds are keys
    of the attribute lists or the vague "shoes" and "bag". A dress under a coat is the `bottom`.

    Attributes:
        gender: "f", "m" or "neutral".
        age: "young", "old" or "".
        action: "walking", "standing" or "".
        view: "front", "back", "side" or "".
    """

    gender: str
    top: Item
    age: str = ""
    inner: Item | None = None
    bottom: Item | None = None
    shoes: Item | None = None
    hat: Item | None = None
    scarf: Item | None = None
    hair: Item | None = None
    beard: bool = False
    eyewear: str = ""
    bag: Item | None = None
    umbrella: Item | None = None
    phone: bool = False
    action: str = ""
    view: str = ""

    def items(self) -> dict[str, str]:
        """The stated facts under the keys of `true_items`; only what is stated is in it."""
        stated: dict[str, str] = {}
        if self.gender != "neutral":
            stated["gender"] = self.gender
        for name, item, color_name in (
            ("top", self.top, "top_color"),
            ("inner", self.inner, "inner_color"),
            ("bottom", self.bottom, "bottom_color"),
            ("shoes", self.shoes, "shoe_color"),
            ("hat", self.hat, "hat_color"),
            ("scarf", self.scarf, "scarf_color"),
            ("hair", self.hair, "hair_color"),
            ("bag", self.bag, "bag_color"),
            ("umbrella", self.umbrella, "umbrella_color"),
        ):
            if item is None:
                continue
            stated[name] = item.kind
            if item.color is not None:
                stated[color_name] = item.color
        if self.top.pattern != "solid":
            stated["pattern"] = self.top.pattern
            if self.top.pattern_color is not None:
                stated["pattern_color"] = self.top.pattern_color
        for name, value in (("age", self.age), ("eyewear", self.eyewear), ("action", self.action), ("view", self.view)):
            if value:
                stated[name] = value
        if self.beard:
            stated["beard"] = "yes"
        if self.phone:
            stated["phone"] = "yes"
        return stated


def true_items(person: Person, shot: Shot) -> dict[str, str]:
    """What is truly there, under the keys of `Facts.items`; "none" where a thing is absent.

    A key is never missing. Compare with `agrees`, which knows that "dark" may be black.
    """
    outer = person.has_outer
    patterned = not outer and person.pattern != "solid"
    in_dress = person.bottom == "none"
    return {
        "gender": person.gender,
        "age": person.age,
        "top": person.outer if outer else person.top,
        "top_color": person.outer_color if outer else person.top_color,
        "pattern": person.pattern if patterned else "none",
        "pattern_color": person.pattern_color if patterned else "none",
        "inner": person.top if outer and not in_dress else "none",
        "inner_color": person.top_color if outer and not in_dress else "none",
        "bottom": "dress" if in_dress else person.bottom,
        "bottom_color": person.top_color if in_dress else person.bottom_color,
        "shoes": person.shoes,
        "shoe_color": person.shoe_color,
        "hat": person.hat,
        "hat_color": person.hat_color if person.hat != "none" else "none",
        "scarf": "scarf" if person.scarf else "none",
        "scarf_color": person.scarf_color if person.scarf else "none",
        "hair": person.hair,
        "hair_color": person.hair_color if person.hair != "bald" else "none",
        "beard": "yes" if person.beard else "none",
        "eyewear": person.eyewear,
        "bag": person.bag,
        "bag_color": person.bag_color if person.bag != "none" else "none",
        "umbrella": "umbrella" if shot.hold == "umbrella" else "none",
        "umbrella_color": shot.umbrella_color if shot.hold == "umbrella" else "none",
        "phone": "yes" if shot.hold == "phone" else "none",
        "action": "walking" if shot.stride > 0.3 else "standing",
        "view": view_of(shot),
    }


def agrees(stated: str, true: str) -> bool:
    """Whether a stated value fits the true one: equal, or vague and not contradicted."""
    if stated == "dark":
        return true in DARK_COLORS
    if stated in ("bag", "shoes"):
        return true != "none"
    return stated == true


def view_of(shot: Shot) -> str:
    """The side of the body that faces the camera: "front", "back" or "side"."""
    if shot.from_behind:
        return "back"
    return "front" if shot.degrees < 50 or shot.degrees > 310 else "side"


class _Witness:
    """One writer looking at one photograph: a level of detail, and for every visible thing a chance to be named."""

    def __init__(self, person: Person, shot: Shot, chance: Chance) -> None:
        self.person = person
        self.shot = shot
        self.chance = chance
        self.detail = DETAIL[0] + (DETAIL[1] - DETAIL[0]) * chance.draw()

    def mentions(self, name: str, share: float = 1.0) -> bool:
        return self.chance.below(MENTION[name] * self.detail * share)

    def color(self, true: str) -> str:
        return self.chance.pick(NEIGHBOURS[true]) if self.chance.below(COLOR_SLIP) else true

    def garment(self, name: str, kind: str, true: str) -> Item:
        if true in DARK_COLORS and self.chance.below(DARK_SHARE.get(name, 0.0)):
            return Item(kind, "dark")
        if kind == "jeans" and self.chance.below(BARE_JEANS.get(true, 0.0)):
            return Item(kind)
        named = kind == "shoes" or self.chance.below(MENTION["bag_color" if name == "bag" else "color"])
        return Item(kind, self.color(true) if named else None)

    def top(self) -> Item:
        person = self.person
        if person.has_outer:
            return self.garment("top", person.outer, person.outer_color)
        top = self.garment("top", person.top, person.top_color)
        visible = person.pattern != "solid" and (person.pattern != "print" or self.shot.from_front)
        if not visible or not self.mentions("pattern"):
            return top
        second = self.color(person.pattern_color) if self.chance.below(MENTION["pattern_color"]) else None
        if top.color is None or second == top.color:
            second = None  # a lone colour would read as that of the cloth
        return Item(top.kind, top.color, person.pattern, second)

    def inner(self) -> Item | None:
        person, shot = self.person, self.shot
        visible = person.has_outer and person.bottom != "none" and shot.outer_open and shot.from_front
        return self.garment("inner", person.top, person.top_color) if visible and self.mentions("inner") else None

    def bottom(self) -> Item | None:
        person = self.person
        in_dress = person.bottom == "none"
        if (in_dress and not person.has_outer) or not self.mentions("bottom"):
            return None
        if in_dress:
            return self.garment("bottom", "dress", person.top_color)
        return self.garment("bottom", person.bottom, person.bottom_color)

    def shoes(self) -> Item | None:
        if not self.shot.feet_visible or not self.mentions("shoes"):
            return None
        vague = self.chance.below(GENERIC_SHOES[self.person.shoes])
        return self.garment("shoes", "shoes" if vague else self.person.shoes, self.person.shoe_color)

    def bag(self) -> Item | None:
        person, shot = self.person, self.shot
        hidden = (person.bag == "backpack" and shot.from_front) or (
            person.bag == "handbag" and 60 < shot.degrees < 120  # the far side of the body
        )
        if person.bag == "none" or not self.mentions("bag", 0.75 if hidden else 1.0):
            return None
        vague = self.chance.below(GENERIC_BAG[person.bag])
        return self.garment("bag", "bag" if vague else person.bag, person.bag_color)

    def hair(self) -> Item | None:
        person = self.person
        hidden = person.hat != "none" and person.hair in ("bald", "bun")
        if hidden or not self.mentions("hair"):
            return None
        named = person.hair != "bald" and self.chance.below(MENTION["hair_color"])
        return Item(person.hair, person.hair_color if named else None)


def facts(person: Person, shot: Shot, generator: np.random.Generator) -> Facts:
    """Draw what one writer mentions: visible things only, each with a chance, sometimes with a slip in the colour.

    Two calls for one photograph are two independent writers.
    """
    chance = Chance(generator)
    witness = _Witness(person, shot, chance)
    front = shot.from_front
    neutral = chance.below(NEUTRAL_SHARE)
    worn_hat = person.hat != "none" and witness.mentions("hat")
    worn_scarf = person.scarf and witness.mentions("scarf")
    umbrella = shot.hold == "umbrella" and witness.mentions("umbrella")
    return Facts(
        gender="neutral" if neutral else person.gender,
        age=person.age if person.age != "adult" and not neutral and witness.mentions("age") else "",
        top=witness.top(),
        inner=witness.inner(),
        bottom=witness.bottom(),
        shoes=witness.shoes(),
        hat=witness.garment("hat", person.hat, person.hat_color) if worn_hat else None,
        scarf=witness.garment("scarf", "scarf", person.scarf_color) if worn_scarf else None,
        hair=witness.hair(),
        beard=person.beard and front and witness.mentions("beard"),
        eyewear=person.eyewear if person.eyewear != "none" and front and witness.mentions("eyewear") else "",
        bag=witness.bag(),
        umbrella=witness.garment("umbrella", "umbrella", shot.umbrella_color) if umbrella else None,
        phone=shot.hold == "phone" and witness.mentions("phone"),
        action=("walking" if shot.stride > 0.3 else "standing") if witness.mentions("action") else "",
        view=view_of(shot) if witness.mentions("view") else "",
    )
