"""French: gender and number of the noun decide article and colour; the colour follows the noun."""

from __future__ import annotations

from tipr.data.synthetic.captions.composition import Writer
from tipr.data.synthetic.captions.facts import Item

FORMS = {"m": 0, "f": 1, "mp": 2, "fp": 3}
ARTICLES = {"m": "un", "f": "une", "mp": "des", "fp": "des"}
VOWELS = frozenset("aeiouéèêâh")


def after_de(phrase: str) -> str:
    """`de` before a noun phrase: elided before un and une, and swallowing `des`."""
    if phrase.startswith("des "):
        return elided("de", phrase[4:])
    return elided("de", phrase)


def elided(word: str, phrase: str) -> str:
    """`de`, `que` or `le` before a phrase; every h among the words used here is mute."""
    return f"{word[:-1]}'{phrase}" if phrase[0] in VOWELS else f"{word} {phrase}"


class FrenchWriter(Writer):
    """Nouns are (text, gender) or (text, gender, complement after the colour); subjects "text|gender"."""

    def set_subject(self) -> None:
        facts = self.facts
        key = facts.gender if facts.gender == "neutral" or not facts.age else f"{facts.gender}:{facts.age}"
        self.noun, _, self.gender = self.word("subject:" + key).partition("|")
        self.pronoun = "elle" if self.gender == "f" else "il"

    def color(self, color: str, form: int) -> str:
        forms = self.color_forms(color)
        return forms[form] if len(forms) > 1 else forms[0]

    def noun_phrase(self, item: Item) -> str:
        """A noun phrase with its indefinite article: des chaussures blanches; un haut noir à manches courtes."""
        noun, gender, *complement = self.noun_forms(item.kind)
        form = FORMS[gender]
        parts = [ARTICLES[gender], noun]
        color = item.color
        second = item.pattern_color
        pattern = item.pattern
        if pattern == "striped" and color and second and self.chance.below(0.6):
            first = self.color(color, 3)
            parts += [*complement, self.word("stripes"), first, "et", self.color(second, 3)]
        elif pattern == "plaid" and color and not second and self.chance.below(0.5):
            parts += [*complement, self.word("plaid"), self.color(color, 2)]
        else:
            if color:
                parts.append(self.color(color, form))
            parts += complement
            if pattern == "striped":
                parts += [self.word("stripes")] + ([self.color(second, 3)] if second else [])
            elif pattern == "plaid":
                parts += [self.word("plaid")] + ([self.color(second, 2)] if second else [])
            elif pattern == "dots":
                parts += [self.word("dots")] + ([self.color(second, 2)] if second else [])
            elif pattern == "print":
                parts.append(self.word("print:color").format(self.color(second, 0)) if second else self.word("print"))
        return " ".join(parts)

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

    @staticmethod
    def listed(parts: list[str]) -> str:
        return parts[0] if len(parts) == 1 else ", ".join(parts[:-1]) + " et " + parts[-1]

    def slot_outfit(self) -> str:
        return self.listed([self.upper(), *self.lower(), *self.accessories()])

    def slot_outfit_of(self) -> str:
        """The outfit after `vêtu`: d'une veste, de baskets."""
        return self.listed([after_de(part) for part in (self.upper(), *self.lower(), *self.accessories())])

    def slot_upper(self) -> str:
        return self.upper()

    def slot_lower(self) -> str:
        return self.listed([*self.lower(), *self.accessories()])

    def slot_lower_of(self) -> str:
        return self.listed([after_de(part) for part in (*self.lower(), *self.accessories())])

    def slot_legs(self) -> str:
        return self.listed(self.lower())

    def slot_subject(self) -> str:
        determiner = self.word("determiner:" + self.gender)
        if determiner == "ce" and self.noun[0] in VOWELS:
            determiner = "cet"
        if determiner in ("le", "la"):
            return elided(determiner, self.noun)
        return f"{determiner} {self.noun}"

    def slot_indefinite(self) -> str:
        return f"{ARTICLES[self.gender]} {self.noun}"

    def slot_definite(self) -> str:
        return elided("la" if self.gender == "f" else "le", self.noun)

    def slot_bag_of(self) -> str:
        return after_de(self.slot_bag())

    def slot_hat_of(self) -> str:
        return after_de(self.slot_hat())

    def slot_pronoun(self) -> str:
        return self.pronoun

    def slot_agree(self) -> str:
        """The ending of a participle that agrees with the subject."""
        return "e" if self.gender == "f" else ""

    def slot_eyewear(self) -> str:
        return self.word(self.facts.eyewear)

    def hair(self, topic: str) -> str:
        hair = self.thing("hair")
        key = f"{topic}:{hair.kind}:color" if hair.color else f"{topic}:{hair.kind}"
        text = self.word(key)
        return text.format(self.word("hair_color:" + hair.color)) if hair.color else text

    def slot_hair(self) -> str:
        return self.hair("hair")

    def slot_hair_with(self) -> str:
        """Hair after the subject: aux cheveux longs."""
        return self.hair("hair_with")
