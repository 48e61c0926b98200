"""English: articles, number, order of adjectives, pronouns."""

from __future__ import annotations

from tipr.data.synthetic.captions.composition import Writer
from tipr.data.synthetic.captions.facts import Item

PRONOUNS = {"f": ("she", "her", "her"), "m": ("he", "his", "him"), "neutral": ("the person", "their", "them")}


def with_article(phrase: str) -> str:
    """`a` or `an` by the first sound; among the words used here only vowel letters sound as vowels."""
    return ("an " if phrase[0] in "aeiou" else "a ") + phrase


def listed(parts: list[str], last: str = " and ") -> str:
    return parts[0] if len(parts) == 1 else ", ".join(parts[:-1]) + last + parts[-1]


class EnglishWriter(Writer):
    """Nouns are (text, number) or (text, number, adjective before the colour).

    The number is "s", "p" for a plural that comes in pairs, or "u" for an uncountable noun.
    """

    def set_subject(self) -> None:
        facts = self.facts
        key = facts.gender if facts.gender == "neutral" or not facts.age else f"{facts.gender}:{facts.age}"
        self.noun = self.word("subject:" + key)
        self.pronoun, self.possessive, self.object = PRONOUNS[facts.gender]

    def color(self, color: str) -> str:
        return self.color_forms(color)[0]

    def noun_phrase(self, item: Item, *, pair: float = 0.3) -> str:
        """A noun phrase with its article: a red and white striped shirt; a pair of blue jeans."""
        chance = self.chance
        noun, number, *before = self.noun_forms(item.kind)
        parts = list(before)
        after = ""
        color = self.color(item.color) if item.color else ""
        if color:
            parts.append(color)
        if item.pattern != "solid":
            second = self.color(item.pattern_color) if item.pattern_color else ""
            if item.pattern == "striped":
                if second and chance.below(0.5):
                    after = f" {self.word('with')} {second} {self.word('stripes')}"
                else:
                    parts += ["and", second] if second and color else [second] if second else []
                    parts.append(self.word("striped"))
            elif item.pattern == "plaid":
                parts += ["and", second] if second and color else [second] if second else []
                parts.append(self.word("plaid"))
            elif item.pattern == "dots":
                if second:
                    after = f" {self.word('with')} {second} {self.word('dots')}"
                else:
                    parts.append(self.word("dotted"))
            else:
                text = self.word("print:color" if second else "print")
                after = " " + (text.format(a=with_article(second), color=second) if second else text)
        parts.append(noun)
        text = " ".join(parts) + after
        if number == "s":
            return with_article(text)
        return f"a pair of {text}" if number == "p" and chance.below(pair) else text

    def upper(self) -> str:
        facts = self.facts
        text = self.noun_phrase(facts.top)
        if facts.inner is not None:
            text += f" {self.word('over')} {self.noun_phrase(facts.inner)}"
        return text

    def lower(self) -> list[str]:
        facts = self.facts
        return [self.noun_phrase(item) for item in (facts.bottom, facts.shoes) if item is not None]

    def accessories(self) -> list[str]:
        return [getattr(self, "slot_" + name)() for name in self.worn()]

    def listed(self, parts: list[str]) -> str:
        return listed(parts, ", and " if len(parts) > 2 and self.chance.below(0.4) else " and ")

    def slot_outfit(self) -> str:
        return self.listed([self.upper(), *self.lower(), *self.accessories()])

    def slot_upper(self) -> str:
        return self.upper()

    def slot_lower(self) -> str:
        return self.listed([*self.lower(), *self.accessories()])

    def slot_legs(self) -> str:
        return self.listed(self.lower())

    def slot_subject(self) -> str:
        determiner = self.word("determiner")
        return with_article(self.noun) if determiner == "a" else f"{determiner} {self.noun}"

    def slot_indefinite(self) -> str:
        return with_article(self.noun)

    def slot_definite(self) -> str:
        return f"the {self.noun}"

    def slot_pronoun(self) -> str:
        return self.pronoun

    def slot_poss(self) -> str:
        return self.possessive

    def slot_object(self) -> str:
        return self.object

    def slot_eyewear(self) -> str:
        return self.word(self.facts.eyewear)

    def slot_hair(self) -> str:
        hair = self.thing("hair")
        named = bool(hair.color)
        text = self.word(f"hair:{hair.kind}:color" if named else f"hair:{hair.kind}")
        return text.format(self.word("hair_color:" + hair.color)) if hair.color else text
