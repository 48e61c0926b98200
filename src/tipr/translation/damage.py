"""Translations of synthetic captions, damaged in known ways: what a filter of translations is trained and tested on.

A pair is made from one set of facts: the source words them in one language, the translation in another. Damage changes
the facts before they are worded, so a damaged translation is as fluent as a clean one and only its content betrays it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from tipr.data.samples import LANGUAGES
from tipr.data.synthetic.attributes import (
    BAGS,
    BOTTOMS,
    COLORS,
    HAIR_COLORS,
    HATS,
    OUTER,
    SHOES,
    TOPS,
    sample_person,
    sample_shot,
)
from tipr.data.synthetic.captions import Facts, Item, facts
from tipr.data.synthetic.captions.chance import Chance
from tipr.data.synthetic.captions.composition import LOOSE, Writer
from tipr.data.synthetic.captions.english import with_article
from tipr.data.synthetic.captions.facts import DARK_COLORS
from tipr.data.synthetic.captions.french import elided
from tipr.data.synthetic.captions.german import ARTICLES, ENDINGS
from tipr.translation.wordings import Plans, style_of

DAMAGES = ("colour swapped", "garment swapped", "negation", "dropped clause", "wrong language", "empty")
"""The six kinds of damage, in the order of every table."""
CONTENT_DAMAGES = DAMAGES[:4]
"""The kinds that change what is said, not how."""
DENIAL_SHARE = 0.15
"""Share of statements that deny a thing ("she has no bag"); else a word of negation alone would betray the damage."""
DENIABLE = ("bag", "hat", "scarf", "umbrella", "bottom", "shoes")
"""Things whose absence can be stated; a top is never absent."""
COLOURED = ("top", "inner", "bottom", "shoes", "hat", "scarf", "bag", "umbrella", "hair")
DROPPABLE = ("inner", "bottom", "shoes", *LOOSE)
CATALOGUE: Mapping[str, tuple[tuple[str, ...], ...]] = {
    "top": (tuple(kind for kind in TOPS if kind != "dress"), OUTER[1:]),
    "inner": (tuple(kind for kind in TOPS if kind != "dress"),),
    "bottom": (BOTTOMS[1:],),
    "shoes": (SHOES,),
    "bag": (BAGS[1:],),
    "hat": (HATS[1:],),
    "scarf": (("scarf",),),
    "umbrella": (("umbrella",),),
}
"""Garment or bag of the facts -> groups of kinds that can be put in each other's place."""
EMPTY_TEXTS = ("", " ", "\n", ".", "。", '""', "...", "-")
DENIALS: Mapping[tuple[str, str], tuple[str, ...]] = {
    ("en", "training"): (
        "{Pronoun} does not have {item}.",
        "{Pronoun} has no {bare}.",
        "{Pronoun} is without {item}.",
        "Without {item}.",
        "No {bare} can be seen.",
        "{Pronoun} is not wearing or carrying {item}.",
    ),
    ("en", "paraphrase"): ("No sign of {item}.", "Do not expect {item}.", "Today {pronoun} came without {item}."),
    ("zh", "training"): (
        "{pronoun}没有{item}。",
        "{pronoun}没有带{item}。",
        "{pronoun}身上无{item}。",
        "{pronoun}不带{item}。",
        "没有看到{item}。",
        "{pronoun}未带{item}。",
        "看不见{item}。",
    ),
    ("zh", "paraphrase"): ("此处没有出现{item}。", "画面里不见{item}。", "另外，并无{item}。"),
    ("fr", "training"): (
        "{Pronoun} n'a pas {de_item}.",
        "{Pronoun} ne porte pas {de_item}.",
        "{Pronoun} est sans {item}.",
        "Pas {de_item}.",
        "Il n'y a pas {de_item}.",
        "Sans {item}.",
    ),
    ("fr", "paraphrase"): ("On ne voit pas {de_item}.", "Le tout sans {item}.", "Ne cherchez pas {de_item}."),
    ("de", "training"): (
        "{Pronoun} hat {none} {item}.",
        "{Pronoun} trägt {none} {item}.",
        "{Pronoun} ist ohne {item} da.",
        "Ohne {item}.",
        "Hier gibt es {none} {item}.",
        "{Pronoun} hat leider {none} {item}.",
    ),
    ("de", "paraphrase"): ("Man sieht {none} {item}.", "Das alles ohne {item}.", "Dabei hat {pronoun} {none} {item}."),
}
"""Sentences that deny a thing. The two styles share the few negators a language has, and no sentence."""


@dataclass(frozen=True, slots=True)
class Statement:
    """What a caption says: facts, and perhaps one thing (`DENIABLE` name, kind) that it says is absent."""

    facts: Facts
    denied: tuple[str, str] | None = None

    def items(self) -> dict[str, str]:
        """The stated values under the keys of `Facts.items`; a denied thing has the value "denied"."""
        stated = self.facts.items()
        if self.denied is not None:
            stated[self.denied[0]] = "denied"
        return stated


@dataclass(frozen=True, slots=True)
class Pair:
    """A source caption and a translation of it.

    Attributes:
        source, translation: the texts.
        source_language, language: their languages as they should be.
        stated, told: what source and translation say, as `Statement.items`.
        damage: one of `DAMAGES`, or None for a faithful translation.
        detail: what exactly was damaged, for example "top replaced"; empty for a faithful translation.
    """

    source: str
    translation: str
    source_language: str
    language: str
    stated: dict[str, str]
    told: dict[str, str]
    damage: str | None = None
    detail: str = ""


Damaged = tuple[Statement, str] | None
"""The changed statement and what was changed; None where a statement offers nothing to damage in this way."""


def draw_statement(generator: np.random.Generator) -> Statement:
    """What a writer says of a new person on a new photograph; some say that a thing is absent."""
    person = sample_person(generator)
    said = facts(person, sample_shot(generator, person, 0), generator)
    absent = [name for name in ("bag", "hat", "scarf", "umbrella") if getattr(said, name) is None]
    if absent and generator.random() < DENIAL_SHARE:
        name = _pick(generator, absent)
        return Statement(said, (name, _pick(generator, CATALOGUE[name][0])))
    return Statement(said)


def word(statement: Statement, language: str, generator: np.random.Generator, plans: Plans) -> str:
    """The statement as one caption."""
    writer_class, style = style_of(language, plans)
    writer = writer_class(statement.facts, style, Chance(generator))
    text = writer.caption()
    if statement.denied is None:
        return text
    return text + writer.space + _denial(writer, statement.denied[1], language, plans)


def draw_pair(
    statement: Statement,
    language: str,
    generator: np.random.Generator,
    *,
    damage: str | None = None,
    plans: Plans = "training",
    source_language: str = "en",
) -> Pair | None:
    """Word a statement twice: as the source, and as a translation that may be damaged.

    Args:
        statement: what the source says.
        language: language of the translation.
        generator: chooses words and the exact damage.
        damage: one of `DAMAGES`, or None for a faithful translation.
        plans: the style of both captions.
        source_language: language of the source.

    Returns:
        The pair; None when the statement offers nothing to damage in this way.
    """
    source = word(statement, source_language, generator, plans)
    if damage == "empty":
        return Pair(
            source, _pick(generator, EMPTY_TEXTS), source_language, language, statement.items(), {}, damage, damage
        )
    if damage == "wrong language":
        other = _pick(generator, [code for code in LANGUAGES if code != language])
        # an answer in the source's language is the source itself: what a model that did not translate gives back
        text = source if other == source_language else word(statement, other, generator, plans)
        stated = statement.items()
        return Pair(source, text, source_language, language, stated, stated, damage, f"answered in {other}")
    damaged = (statement, "") if damage is None else change(statement, damage, generator)
    if damaged is None:
        return None
    told, detail = damaged
    text = word(told, language, generator, plans)
    return Pair(source, text, source_language, language, statement.items(), told.items(), damage, detail)


def change(statement: Statement, damage: str, generator: np.random.Generator) -> Damaged:
    """What a damaged translation says instead, for one of `CONTENT_DAMAGES`."""
    return _CHANGES[damage](statement, generator)


def _pick(generator: np.random.Generator, choices: tuple[str, ...] | list[str]) -> str:
    return choices[int(generator.integers(len(choices)))]


def _with(said: Facts, changes: Mapping[str, Any]) -> Facts:
    return replace(said, **changes)


def _swap_color(statement: Statement, generator: np.random.Generator) -> Damaged:
    """Another colour for one thing, or the colours of two things exchanged, half the time where both can be done."""
    said = statement.facts
    colored: dict[str, Item] = {}
    for name in COLOURED:
        item = getattr(said, name)
        if item is not None and item.color is not None:
            colored[name] = item
    if not colored:
        return None
    plain = [name for name in colored if name != "hair" and colored[name].color != "dark"]
    first, second = (_pick(generator, plain), _pick(generator, plain)) if plain else ("", "")
    if first != second and colored[first].color != colored[second].color and generator.random() < 0.5:
        changes = {
            first: replace(colored[first], color=colored[second].color),
            second: replace(colored[second], color=colored[first].color),
        }
        if all(item.color != item.pattern_color for item in changes.values()):
            return replace(statement, facts=_with(said, changes)), "colours exchanged"
    name = _pick(generator, list(colored))
    item = colored[name]
    unlike = DARK_COLORS if item.color == "dark" else {item.color, item.pattern_color}
    color = _pick(generator, [key for key in (HAIR_COLORS if name == "hair" else COLORS) if key not in unlike])
    return replace(statement, facts=_with(said, {name: replace(item, color=color)})), f"colour of {name} replaced"


def _swap_garment(statement: Statement, generator: np.random.Generator) -> Damaged:
    """Another kind in place of one garment or bag, of the same group: a coat for a jacket, a skirt for trousers."""
    said = statement.facts
    choices: list[tuple[str, Item, list[str]]] = []
    for name, groups in CATALOGUE.items():
        item = getattr(said, name)
        for group in groups:
            if item is not None and item.kind in group and len(group) > 1:
                choices.append((name, item, [kind for kind in group if kind != item.kind]))
    if not choices:
        return None
    name, item, others = choices[int(generator.integers(len(choices)))]
    changed = replace(item, kind=_pick(generator, others))
    return replace(statement, facts=_with(said, {name: changed})), f"{name} replaced"


def _negate(statement: Statement, generator: np.random.Generator) -> Damaged:
    """Deny a thing that is stated, or state the thing that is denied."""
    said = statement.facts
    if statement.denied is not None:
        name, kind = statement.denied
        stated = _with(said, {name: Item(kind, _pick(generator, COLORS))})
        return Statement(stated), f"absence of {name} lost"
    present = [name for name in DENIABLE if getattr(said, name) is not None]
    if not present:
        return None
    name = _pick(generator, present)
    return Statement(_with(said, {name: None}), (name, getattr(said, name).kind)), f"{name} denied"


def _drop(statement: Statement, generator: np.random.Generator) -> Damaged:
    """Leave out one thing that the source says."""
    said = statement.facts
    told = [name for name in DROPPABLE if getattr(said, name)]
    if not told:
        return None
    name = _pick(generator, told)
    nothing = {"beard": False, "phone": False, "eyewear": "", "action": "", "view": ""}.get(name)
    return replace(statement, facts=_with(said, {name: nothing})), f"{name} dropped"


_CHANGES: Mapping[str, Callable[[Statement, np.random.Generator], Damaged]] = {
    "colour swapped": _swap_color,
    "garment swapped": _swap_garment,
    "negation": _negate,
    "dropped clause": _drop,
}


def _denial(writer: Writer, kind: str, language: str, plans: Plans) -> str:
    """The sentence that says that a thing is absent."""
    noun, *more = writer.noun_forms(kind)
    words = {"item": noun}
    if language == "en":
        bare = " ".join([*more[1:], noun])
        words = {"bare": bare, "item": with_article(bare) if more[0] == "s" else bare}
    elif language == "fr":
        bare = " ".join([noun, *more[1:]])
        words = {"item": bare, "de_item": elided("de", bare)}
    elif language == "de":
        gender = more[0]
        bare = " ".join([*(stem + ENDINGS["acc"][gender] for stem in more[1:]), noun])
        words = {"item": bare, "none": "k" + (ARTICLES["acc"][gender] or "eine")}
    pronoun: str = writer.slot_pronoun()  # type: ignore[attr-defined]  # every language's writer has this slot
    sentence = writer.chance.pick(DENIALS[language, "paraphrase" if plans == "paraphrase" else "training"])
    return sentence.format(pronoun=pronoun, Pronoun=pronoun[0].upper() + pronoun[1:], **words)
