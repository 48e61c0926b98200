"""How a caption is put together, the same for every language: a sentence plan, then sentences for what it left out.

A `Plan` is a text with named slots, so that the plans of two styles can be compared as text. Each language has a
`Writer` whose slot methods fill them; filling a slot marks its facts as told. What is left over is said with verb
phrases ("has short hair", "is carrying a red bag"), one or two to a sentence.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from string import Formatter
from typing import ClassVar

from tipr.data.synthetic.captions.chance import Chance
from tipr.data.synthetic.captions.facts import Facts, Item

LOOSE = ("hair", "beard", "eyewear", "hat", "scarf", "bag", "umbrella", "phone", "view", "action")
"""Facts that a plan may leave out, in the usual order of telling."""
WORN = ("hat", "scarf", "eyewear")
"""Loose facts that may also stand in the list of clothes."""
SLOT_FACTS = {"hair": "hair", "bag": "bag", "action": "action", "lower": "bottom", "legs": "bottom"}
"""First part of a slot's name -> the fact without which it cannot be filled."""
PAIR_SHARE = 0.45

Template = tuple[tuple[str, str, bool], ...]
"""(literal, slot or "", whether the slot starts a sentence)."""


def compile_template(text: str) -> Template:
    """Split "{Subject} wears {outfit}." into literals and slots; a capital slot starts a sentence."""
    return tuple(
        (literal, (slot or "").lower(), bool(slot) and (slot or "")[0].isupper())
        for literal, slot, _, _ in Formatter().parse(text)
    )


@dataclass(frozen=True, slots=True)
class Plan:
    """A way to open a caption. A plan of weight 3 is chosen three times as often as one of weight 1."""

    name: str
    text: str
    weight: int = 1
    template: Template = field(init=False)
    needs: frozenset[str] = field(init=False)

    def __post_init__(self) -> None:
        template = compile_template(self.text)
        heads = (slot.partition("_")[0] for _, slot, _ in template)
        object.__setattr__(self, "template", template)
        object.__setattr__(self, "needs", frozenset(SLOT_FACTS[head] for head in heads if head in SLOT_FACTS))


@dataclass(frozen=True, slots=True)
class Style:
    """One way to write in one language: its plans, words and verb phrases.

    Attributes:
        plans: the sentence plans; at least one needs no optional fact.
        colors: colour -> forms that can stand for each other, in the shape that the language's writer reads.
        nouns: kind -> nouns that can stand for each other; "kind:f" where a woman's has another name.
        words: the other lists of words by topic.
        phrases: verb phrases of loose facts; key "fact" or "fact:value", the longer key first.
        tails: sentence templates for one verb phrase (slot `a`) or two (`a`, `b`), in this order.
        familiar: another style, from which this share of nouns and colours is taken instead.
        accessories: chance that hat, scarf and glasses join the list of clothes.
    """

    plans: tuple[Plan, ...]
    colors: Mapping[str, tuple[tuple[str, ...], ...]]
    nouns: Mapping[str, tuple[tuple[str, ...], ...]]
    words: Mapping[str, tuple[str, ...]]
    phrases: Mapping[str, tuple[str, ...]]
    tails: tuple[tuple[str, ...], tuple[str, ...]]
    accessories: float = 0.5
    familiar: Style | None = None
    familiar_share: float = 0.0
    lots: tuple[Plan, ...] = field(init=False)
    phrase_templates: Mapping[str, tuple[Template, ...]] = field(init=False)
    tail_templates: tuple[tuple[Template, ...], ...] = field(init=False)

    def __post_init__(self) -> None:
        lots = tuple(plan for plan in self.plans for _ in range(plan.weight))
        phrases = {key: tuple(map(compile_template, texts)) for key, texts in self.phrases.items()}
        object.__setattr__(self, "lots", lots)
        object.__setattr__(self, "phrase_templates", phrases)
        object.__setattr__(self, "tail_templates", tuple(tuple(map(compile_template, tail)) for tail in self.tails))


class Writer(ABC):
    """Words one set of facts in one language; a fresh one for every caption."""

    space: ClassVar[str] = " "

    def __init__(self, facts: Facts, style: Style, chance: Chance) -> None:
        self.facts = facts
        self.style = style
        self.chance = chance
        self.untold = [name for name in LOOSE if getattr(facts, name)]
        self.phrases: Sequence[Template] = ()
        self.set_subject()

    def caption(self) -> str:
        """The finished text."""
        plan = self.chance.pick(self.style.lots)
        while not all(getattr(self.facts, name) for name in plan.needs):
            plan = self.chance.pick(self.style.lots)
        # a slot that tells a fact later in the plan must not find it told by an earlier list
        self.untold = [name for name in self.untold if name not in plan.needs]
        sentences = [self.fill(plan.template)]
        order = {name: position + 4.0 * self.chance.draw() for position, name in enumerate(self.untold)}
        names = sorted(order, key=order.__getitem__)
        tail: Template = ()
        while names:
            count = 2 if len(names) > 1 and self.chance.below(PAIR_SHARE) else 1
            self.phrases = [self.phrase(name) for name in names[:count]]
            choices = [other for other in self.style.tail_templates[count - 1] if other is not tail]
            tail = self.chance.pick(choices or self.style.tail_templates[count - 1])
            sentences.append(self.fill(tail))
            del names[:count]
        return self.space.join(sentences)

    def fill(self, template: Template) -> str:
        parts: list[str] = []
        for literal, slot, starts in template:
            parts.append(literal)
            if slot:
                text: str = getattr(self, "slot_" + slot)()
                parts.append(text[0].upper() + text[1:] if starts else text)
        return "".join(parts)

    def phrase(self, name: str) -> Template:
        """A verb phrase for a loose fact."""
        value = getattr(self.facts, name)
        kind = value.kind if isinstance(value, Item) else value
        templates = self.style.phrase_templates
        return self.chance.pick(templates.get(f"{name}:{kind}") or templates[name])

    def source(self) -> Style:
        """Where the next noun or colour comes from: the style itself or the familiar words beside it."""
        style = self.style
        return style.familiar if style.familiar is not None and self.chance.below(style.familiar_share) else style

    def color_forms(self, color: str) -> tuple[str, ...]:
        return self.chance.pick(self.source().colors[color])

    def noun_forms(self, kind: str) -> tuple[str, ...]:
        """A noun for a thing; a few things are called otherwise on a woman."""
        nouns = self.source().nouns
        return self.chance.pick(nouns.get(f"{kind}:{self.facts.gender}") or nouns[kind])

    def word(self, topic: str) -> str:
        return self.chance.pick(self.style.words[topic])

    def worn(self) -> list[str]:
        """Hat, scarf and glasses that join the list of clothes; they count as told."""
        if not self.untold or not self.chance.below(self.style.accessories):
            return []
        names = [name for name in self.untold if name in WORN]
        self.untold = [name for name in self.untold if name not in WORN]
        return names

    def slot_a(self) -> str:
        return self.fill(self.phrases[0])

    def slot_b(self) -> str:
        return self.fill(self.phrases[1])

    def slot_action(self) -> str:
        return self.fill(self.phrase("action"))

    def slot_bag_phrase(self) -> str:
        return self.fill(self.phrase("bag"))

    def thing(self, name: str) -> Item:
        """A stated thing; a slot is only filled when its fact is there."""
        item = getattr(self.facts, name)
        assert isinstance(item, Item)
        return item

    def slot_bag(self) -> str:
        return self.noun_phrase(self.thing("bag"))

    def slot_hat(self) -> str:
        return self.noun_phrase(self.thing("hat"))

    def slot_scarf(self) -> str:
        return self.noun_phrase(self.thing("scarf"))

    def slot_umbrella(self) -> str:
        return self.noun_phrase(self.thing("umbrella"))

    @abstractmethod
    def noun_phrase(self, item: Item) -> str:
        """A thing with its article or measure word, colour and pattern."""

    @abstractmethod
    def set_subject(self) -> None:
        """Choose how the person is called; pronouns and agreement follow."""
