"""Chinese: measure words, a verb for each way of wearing or carrying, no plural and no agreement."""

from __future__ import annotations

from typing import ClassVar

from tipr.data.synthetic.captions.composition import Writer
from tipr.data.synthetic.captions.facts import Item

MEASURES = {
    "trousers": "条", "jeans": "条", "shorts": "条", "skirt": "条", "leggings": "条", "dress": "条", "scarf": "条",
    "shoes": "双", "sneakers": "双", "boots": "双", "sandals": "双", "leather": "双", "heels": "双",
    "bag": "个", "backpack": "个", "shoulderbag": "个", "handbag": "个", "suitcase": "个", "shoppingbag": "个",
    "cap": "顶", "beanie": "顶", "hat": "顶", "umbrella": "把",
}  # fmt: skip
"""Measure word by kind; clothes of the upper body take 件."""


class ChineseWriter(Writer):
    """A caption is a chain of clauses; every clause names the body part or the way of carrying.

    Subjects are "noun|measure words that suit it".
    """

    space: ClassVar[str] = ""

    def set_subject(self) -> None:
        facts = self.facts
        key = facts.gender if facts.gender == "neutral" or not facts.age else f"{facts.gender}:{facts.age}"
        self.noun, _, self.measures = self.word("subject:" + key).partition("|")
        self.pronoun = self.word("pronoun:" + facts.gender)

    def color(self, color: str) -> str:
        return self.color_forms(color)[0]

    def pattern(self, item: Item, color: str) -> tuple[str, str]:
        """What stands before the colour and what stands between colour and noun."""
        second = self.color(item.pattern_color) if item.pattern_color else ""
        having = self.word("having")
        if item.pattern == "striped":
            if second and color and self.chance.below(0.6):
                link = self.word("and")
                return "", f"{link}{second}{self.word('striped:two')}"
            return (f"{having}{second}{self.word('stripes')}的", "") if second else ("", self.word("striped"))
        if item.pattern == "plaid":
            return (f"{having}{second}{self.word('checks')}的", "") if second else ("", self.word("plaid"))
        if item.pattern == "dots":
            return (f"{having}{second}{self.word('dots')}的", "") if second else ("", self.word("dotted"))
        return self.word("print").format(second), ""

    def noun_phrase(self, item: Item, *, counted: float = 0.7) -> str:
        """A noun phrase, counted or bare: 一件红色的毛衣; 红色毛衣."""
        chance = self.chance
        noun = self.noun_forms(item.kind)[0]
        color = self.color(item.color) if item.color else ""
        before, middle = self.pattern(item, color) if item.pattern != "solid" else ("", "")
        link = "的" if color and not middle and chance.below(0.4) else ""
        text = f"{before}{color}{middle}{link}{noun}"
        return f"一{MEASURES.get(item.kind, '件')}{text}" if chance.below(counted) else text

    def upper(self) -> str:
        facts = self.facts
        if facts.inner is not None:
            return self.word("inner").format(self.noun_phrase(facts.top), self.noun_phrase(facts.inner))
        topic = "whole" if facts.top.kind == "dress" else "top"
        return self.word(topic) + self.noun_phrase(facts.top)

    def lower(self) -> list[str]:
        facts = self.facts
        clauses = []
        if facts.bottom is not None:
            topic = "dress_under" if facts.bottom.kind == "dress" else "bottom"
            clauses.append(self.word(topic) + self.noun_phrase(facts.bottom))
        if facts.shoes is not None:
            clauses.append(self.word("shoes") + self.noun_phrase(facts.shoes))
        return clauses

    def accessories(self) -> list[str]:
        return [self.fill(self.phrase(name)) for name in self.worn()]

    def slot_outfit(self) -> str:
        return "，".join([self.upper(), *self.lower(), *self.accessories()])

    def slot_upper(self) -> str:
        return self.upper()

    def slot_lower(self) -> str:
        return "，".join([*self.lower(), *self.accessories()])

    def things(self) -> list[str]:
        """The clothes as noun phrases: 罩在白色T恤外面的黑色夹克、一条蓝色牛仔裤."""
        facts = self.facts
        top = self.noun_phrase(facts.top)
        if facts.inner is not None:
            inner = self.noun_phrase(facts.inner, counted=0.0)
            top = self.word("covering").format(inner) + self.noun_phrase(facts.top, counted=0.0)
        return [top, *(self.noun_phrase(item) for item in (facts.bottom, facts.shoes) if item is not None)]

    def slot_things(self) -> str:
        """Top, bottom and shoes as a list of noun phrases."""
        parts = self.things()
        return parts[0] if len(parts) == 1 else "、".join(parts[:-1]) + self.word("and") + parts[-1]

    def slot_indefinite(self) -> str:
        return "一" + self.chance.pick(self.measures) + self.noun

    def slot_definite(self) -> str:
        that = self.word("that")
        return that + self.noun if that == "该" else that + self.chance.pick(self.measures) + self.noun

    def slot_subject(self) -> str:
        return self.word("determiner") + self.chance.pick(self.measures) + self.noun

    def slot_noun(self) -> str:
        return self.noun

    def slot_pronoun(self) -> str:
        return self.pronoun

    def slot_hair(self) -> str:
        hair = self.thing("hair")
        color = self.word("hair_color:" + hair.color) if hair.color else ""
        return self.word("hair:" + hair.kind).format(color)

    def slot_eyewear(self) -> str:
        return self.word(self.facts.eyewear)
