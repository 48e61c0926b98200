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
DARK_SHARE = {"top": 0.03, "bottom": 0.12, "shoes": 0.08, "bag": 0.05}
GENERIC_SHOES = {"sneakers": 0.62, "leather": 0.6, "heels": 0.25, "boots": 0.0, "sandals": 0.0}
GENERIC_BAG = {"backpack": 0.06, "shoulderbag": 0.25, "handbag": 0.16, "suitcase": 0.0, "shoppingbag": 0.1}
MENTION = {
    "bottom": 0.99,
    "hat": 0.92,
    "bag": 0.9,
    "umbrella": 0.9,
    "shoes": 0.86,
    "inner": 0.85,
    "phone": 0.7,
    "eyewear": 0.62,
    "scarf": 0.7,
    "hair": 0.46,
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
"""Chance of a mention by a writer who tells everything; each writer scales it by a level of detail."""
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


def facts(person: Person, shot: Shot, generator: np.random.Generator) -> Facts:
    """Draw what one writer mentions: visible things only, each with a chance, sometimes with a slip in the colour.

    Two calls for one photograph are two independent writers.
    """
    chance = Chance(generator)
    low, high = DETAIL
    detail = low + (high - low) * chance.draw()

    def mention(name: str) -> bool:
        return chance.below(MENTION[name] * detail)

    def color(true: str) -> str:
        return chance.pick(NEIGHBOURS[true]) if chance.below(COLOR_SLIP) else true

    def garment(name: str, kind: str, true: str) -> Item:
        said: str | None = color(true)
        if true in DARK_COLORS and chance.below(DARK_SHARE.get(name, 0.0)):
            said = "dark"
        if kind == "jeans" and true == "blue" and chance.below(0.5):
            said = None
        return Item(kind, said if chance.below(MENTION["bag_color" if name == "bag" else "color"]) else None)

    front = shot.from_front
    outer = person.has_outer
    in_dress = person.bottom == "none"
    inner = bottom = shoes = hat = scarf = hair = bag = umbrella = None
    if outer:
        top = garment("top", person.outer, person.outer_color)
        if in_dress:
            bottom = garment("bottom", "dress", person.top_color) if mention("bottom") else None
        elif shot.outer_open and front and mention("inner"):
            inner = garment("inner", person.top, person.top_color)
    else:
        top = garment("top", person.top, person.top_color)
        seen = front or person.pattern != "print"
        if person.pattern != "solid" and seen and chance.below(MENTION["pattern"]):
            second = color(person.pattern_color) if chance.below(MENTION["pattern_color"]) else None
            top = Item(top.kind, top.color, person.pattern, None if second == top.color else second)
    if not in_dress and mention("bottom"):
        bottom = garment("bottom", person.bottom, person.bottom_color)
    if shot.feet_visible and mention("shoes"):
        vague = chance.below(GENERIC_SHOES[person.shoes])
        shoes = garment("shoes", "shoes" if vague else person.shoes, person.shoe_color)
        if shoes.kind == "shoes" and shoes.color is None:
            shoes = Item("shoes", color(person.shoe_color))  # "shoes" alone says nothing
    if person.hat != "none" and mention("hat"):
        hat = garment("hat", person.hat, person.hat_color)
    if person.scarf and mention("scarf"):
        scarf = garment("scarf", "scarf", person.scarf_color)
    hidden = person.hat != "none" and person.hair in ("bald", "bun")
    if not hidden and mention("hair"):
        named = person.hair != "bald" and chance.below(MENTION["hair_color"])
        hair = Item(person.hair, person.hair_color if named else None)
    if person.bag != "none":
        share = MENTION["bag"]
        if (person.bag == "backpack" and front) or (person.bag == "handbag" and 60 < shot.degrees < 120):
            share *= 0.75  # mostly hidden by the body
        if chance.below(share * detail):
            vague = chance.below(GENERIC_BAG[person.bag])
            bag = garment("bag", "bag" if vague else person.bag, person.bag_color)
    if shot.hold == "umbrella" and mention("umbrella"):
        umbrella = garment("umbrella", "umbrella", shot.umbrella_color)
    return Facts(
        gender="neutral" if chance.below(NEUTRAL_SHARE) else person.gender,
        age=person.age if person.age != "adult" and mention("age") else "",
        top=top,
        inner=inner,
        bottom=bottom,
        shoes=shoes,
        hat=hat,
        scarf=scarf,
        hair=hair,
        beard=person.beard and front and mention("beard"),
        eyewear=person.eyewear if person.eyewear != "none" and front and mention("eyewear") else "",
        bag=bag,
        umbrella=umbrella,
        phone=shot.hold == "phone" and mention("phone"),
        action=("walking" if shot.stride > 0.3 else "standing") if mention("action") else "",
        view=view_of(shot) if mention("view") else "",
    )
