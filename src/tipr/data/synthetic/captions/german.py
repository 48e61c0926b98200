"""German: gender, case and number decide article and adjective ending; a fronted word turns verb and subject round."""

from __future__ import annotations

from tipr.data.synthetic.captions.composition import Writer
from tipr.data.synthetic.captions.facts import Item

ARTICLES = {
    "nom": {"m": "ein", "f": "eine", "n": "ein", "p": ""},
    "acc": {"m": "einen", "f": "eine", "n": "ein", "p": ""},
    "dat": {"m": "einem", "f": "einer", "n": "einem", "p": ""},
}
ENDINGS = {
    "nom": {"m": "er", "f": "e", "n": "es", "p": "e"},
    "acc": {"m": "en", "f": "e", "n": "es", "p": "e"},
    "dat": {"m": "en", "f": "en", "n": "en", "p": "en"},
}
"""Adjective endings after ein (mixed) and, for the plural, without an article (strong)."""
STRONG_DATIVE = {"m": "em", "f": "er", "n": "em", "p": "en"}
SUBJECT_DETERMINERS = {
    "nom": {"m": ("ein", "dieser", "der"), "f": ("eine", "diese", "die")},
    "acc": {"m": ("einen", "diesen", "den"), "f": ("eine", "diese", "die")},
    "dat": {"m": ("einem", "diesem", "dem"), "f": ("einer", "dieser", "der")},
}
OBLIQUE = {"Herr": "Herrn", "Mensch": "Menschen", "Bursche": "Burschen", "Passant": "Passanten"}
"""Nouns with another form outside the nominative."""


def in_dative_plural(noun: str) -> str:
    """Schuhe -> Schuhen; nouns in -n or -s stay."""
    return noun if noun[-1] in "ns" else noun + "n"


def compound_stem(forms: tuple[str, ...]) -> str:
    """The colour inside rot-weiß: orangefarben becomes orange."""
    return forms[0].removesuffix("farben")


class GermanWriter(Writer):
    """Colours are (stem, "" or "fixed"); nouns (text, gender) or (text, gender, stem of an adjective before it).

    Subjects are "noun|gender|stem of an adjective or nothing". A phrase has a bar between the finite verb and the rest.
    """

    def set_subject(self) -> None:
        facts = self.facts
        key = facts.gender if facts.gender == "neutral" or not facts.age else f"{facts.gender}:{facts.age}"
        self.noun, self.gender, self.adjective = self.word("subject:" + key).split("|")
        self.pronoun = "sie" if self.gender == "f" else "er"

    def color(self, color: str, ending: str) -> str:
        stem, *fixed = self.color_forms(color)
        return stem if fixed else stem + ending

    def noun_phrase(self, item: Item, case: str = "acc") -> str:
        """A noun phrase in a case: einen rot-weiß gestreiften Pullover; schwarzen Schuhen (dative)."""
        noun, gender, *before = self.noun_forms(item.kind)
        ending = ENDINGS[case][gender]
        article = ARTICLES[case][gender]
        parts = [article] if article else []
        parts += [stem + ending for stem in before]
        after = ""
        color, second = item.color, item.pattern_color
        if item.pattern == "striped" and color and second and "striped:compound" in self.style.words:
            stems = (compound_stem(self.color_forms(key)) for key in (color, second))
            parts.append(f"{'-'.join(stems)} {self.word('striped:compound')}{ending}")
        elif item.pattern == "plaid" and color and not second:
            parts.append(f"{self.color_forms(color)[0]} {self.word('plaid')}{ending}")
        else:
            if color:
                parts.append(self.color(color, ending))
            if item.pattern in ("striped", "plaid", "dots"):
                if second:
                    after = f" mit {self.color(second, 'en')} {self.word(item.pattern + ':dative')}"
                else:
                    parts.append(self.word(item.pattern) + ending)
            elif item.pattern == "print":
                after = " " + self.print_phrase(second)
        if gender == "p" and case == "dat":
            noun = in_dative_plural(noun)
        parts.append(noun)
        return " ".join(parts) + after

    def print_phrase(self, color: str | None) -> str:
        """mit weißem Aufdruck; mit einem weißen Motiv auf der Brust."""
        text, gender = self.word("print").split("|")
        has_article = "{article}" in text
        ending = ENDINGS["dat"][gender] if has_article else STRONG_DATIVE[gender]
        return text.format(article=ARTICLES["dat"][gender], color=self.color(color, ending) + " " if color else "")

    def upper(self, case: str) -> str:
        facts = self.facts
        text = self.noun_phrase(facts.top, case)
        if facts.inner is not None:
            text += f" {self.word('over')} {self.noun_phrase(facts.inner, 'dat')}"
        return text

    def lower(self, case: str) -> list[str]:
        facts = self.facts
        return [self.noun_phrase(item, case) for item in (facts.bottom, facts.shoes) if item is not None]

    def accessories(self, case: str) -> list[str]:
        parts = []
        for name in self.worn():
            value = getattr(self.facts, name)
            parts.append(self.eyewear(case) if name == "eyewear" else self.noun_phrase(value, case))
        return parts

    @staticmethod
    def listed(parts: list[str]) -> str:
        return parts[0] if len(parts) == 1 else ", ".join(parts[:-1]) + " und " + parts[-1]

    def slot_outfit(self) -> str:
        return self.listed([self.upper("acc"), *self.lower("acc"), *self.accessories("acc")])

    def slot_outfit_dative(self) -> str:
        return self.listed([self.upper("dat"), *self.lower("dat"), *self.accessories("dat")])

    def slot_upper(self) -> str:
        return self.upper("acc")

    def slot_upper_dative(self) -> str:
        return self.upper("dat")

    def slot_lower(self) -> str:
        return self.listed([*self.lower("acc"), *self.accessories("acc")])

    def slot_lower_dative(self) -> str:
        return self.listed([*self.lower("dat"), *self.accessories("dat")])

    def subject(self, case: str) -> str:
        """The person with an indefinite, demonstrative or definite article."""
        position = self.chance.pick((0, 0, 1, 2))
        return self.person(case, position)

    def person(self, case: str, position: int) -> str:
        parts = [SUBJECT_DETERMINERS[case][self.gender][position]]
        if self.adjective:
            weak = "e" if case == "nom" or (case == "acc" and self.gender == "f") else "en"
            parts.append(self.adjective + (ENDINGS[case][self.gender] if position == 0 else weak))
        noun = self.noun if case == "nom" else OBLIQUE.get(self.noun, self.noun)
        return " ".join([*parts, noun])

    def slot_subject(self) -> str:
        return self.subject("nom")

    def slot_indefinite(self) -> str:
        return self.person("nom", 0)

    def slot_indefinite_acc(self) -> str:
        return self.person("acc", 0)

    def slot_definite(self) -> str:
        return self.person("nom", 2)

    def slot_upper_nominative(self) -> str:
        return self.upper("nom")

    def slot_legs_nominative(self) -> str:
        return self.listed(self.lower("nom"))

    def slot_pronoun(self) -> str:
        return self.pronoun

    def slot_relative(self) -> str:
        """The relative pronoun in the nominative."""
        return "die" if self.gender == "f" else "der"

    def slot_bag_dative(self) -> str:
        return self.noun_phrase(self.thing("bag"), "dat")

    def slot_scarf_dative(self) -> str:
        return self.noun_phrase(self.thing("scarf"), "dat")

    def slot_hat_dative(self) -> str:
        return self.noun_phrase(self.thing("hat"), "dat")

    def eyewear(self, case: str) -> str:
        return f"{ARTICLES[case]['f']} {self.word(self.facts.eyewear)}"

    def slot_eyewear(self) -> str:
        return self.eyewear("acc")

    def hair(self, topic: str, ending: str) -> str:
        hair = self.thing("hair")
        key = f"{topic}:{hair.kind}:color" if hair.color else f"{topic}:{hair.kind}"
        text = self.word(key)
        return text.format(self.word("hair_color:" + hair.color) + ending) if hair.color else text

    def slot_hair(self) -> str:
        return self.hair("hair", "e")

    def slot_hair_dative(self) -> str:
        return self.hair("hair_dative", "en")

    def slot_a(self) -> str:
        return self.fill(self.phrases[0]).replace("|", " ", 1)

    def slot_b(self) -> str:
        return self.fill(self.phrases[1]).replace("|", " ", 1)

    def slot_a_inverted(self) -> str:
        """After a fronted word: verb, pronoun, rest."""
        return self.inverted(self.fill(self.phrases[0]), self.pronoun)

    def slot_b_inverted(self) -> str:
        return self.inverted(self.fill(self.phrases[1]), self.pronoun)

    def slot_action_inverted(self) -> str:
        return self.inverted(super().slot_action(), self.person("nom", 0))

    @staticmethod
    def inverted(phrase: str, subject: str) -> str:
        verb, _, rest = phrase.partition("|")
        return f"{verb} {subject} {rest}".rstrip()

    def slot_action(self) -> str:
        return super().slot_action().replace("|", " ", 1).rstrip()

    def slot_bag_phrase(self) -> str:
        return super().slot_bag_phrase().replace("|", " ", 1)
