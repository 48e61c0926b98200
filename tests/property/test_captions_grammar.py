"""Thousands of captions read by checkers with their own words and grammar; and captions damaged on purpose."""

from __future__ import annotations

import random
import re
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import caption_checker_de
import caption_checker_en
import caption_checker_fr
import caption_checker_zh
import caption_checking
import pytest
from caption_samples import LANGUAGES, captions, expected_facts, some_facts

CHECKERS: dict[str, ModuleType] = {
    "en": caption_checker_en,
    "zh": caption_checker_zh,
    "fr": caption_checker_fr,
    "de": caption_checker_de,
}
COUNT = 1500


def test_checkers_share_nothing_with_the_package() -> None:
    for checker in (*CHECKERS.values(), caption_checking):
        assert checker.__file__ is not None
        assert re.search(r"^\s*(?:from|import) tipr", Path(checker.__file__).read_text("utf-8"), re.MULTILINE) is None


@pytest.mark.parametrize("language", LANGUAGES)
def test_captions_are_correct_and_state_the_facts(language: str) -> None:
    told = some_facts(2000)
    for caption, one in zip(captions(language, "training", COUNT), told, strict=False):
        report = CHECKERS[language].check(caption)
        assert report.errors == [], caption
        assert report.facts == expected_facts(one), caption


def test_the_four_languages_state_the_same_facts() -> None:
    """Read from the finished texts alone, without looking at the facts that were drawn."""
    texts = {language: captions(language, "training", 300) for language in LANGUAGES}
    for row in zip(*texts.values(), strict=True):
        read = [frozenset(CHECKERS[language].check(text).facts) for language, text in zip(LANGUAGES, row, strict=True)]
        assert len(set(read)) == 1, row


@pytest.mark.parametrize("language", LANGUAGES)
def test_paraphrases_agree_inside_every_noun_phrase(language: str) -> None:
    """The checkers know the things and colours of the paraphrases too, and find every one that is stated."""
    for caption, one in zip(captions(language, "paraphrase", 800), some_facts(2000), strict=False):
        errors: list[str] = []
        _, things = CHECKERS[language].signed(caption, errors)
        assert errors == [], caption
        assert CHECKERS[language].agreement_errors(caption) == [], caption
        stated = {fact.removeprefix("inner ") for fact in expected_facts(one) if ":" in fact}
        stated = {fact for fact in stated if not fact.startswith(("gender:", "hair:"))}
        assert sorted(thing.fact() for thing in things) == sorted(_as_list(one, stated)), caption


def _as_list(one: object, stated: set[str]) -> list[str]:
    inner = getattr(one, "inner", None)
    top = getattr(one, "top", None)
    same = inner is not None and top is not None and (inner.kind, inner.color) == (top.kind, top.color)
    return sorted(stated) if not same else sorted([*stated, f"{inner.kind}:{inner.color or '-'}"])


def _replace(pattern: str, replacement: str | Callable[[re.Match[str]], str]) -> Callable[[str, random.Random], str]:
    """A corruption that changes one place, chosen at random, where a pattern fits."""
    compiled = re.compile(pattern)

    def corrupt(caption: str, source: random.Random) -> str:
        places = list(compiled.finditer(caption))
        if not places:
            return caption
        place = source.choice(places)
        text = place.expand(replacement) if isinstance(replacement, str) else replacement(place)
        return caption[: place.start()] + text + caption[place.end() :]

    return corrupt


_DE_COLOR = r"(schwarz|weiß|grau|rot|grün|gelb|braun|blau|dunkelblau|hellblau)"
_FR_COLOR = r"(noir|blanc|gris|vert|bleu)"
_MEASURE = {"件": "条", "条": "双", "双": "顶", "个": "把", "顶": "副", "把": "件", "副": "个"}
_VERBS = {"脚穿": "头戴", "下身穿着": "脚踩", "背着": "打着", "挎着": "拉着", "戴着": "围着"}
_PRONOUN = {"She": "He", "He": "She", "Sie": "Er", "Er": "Sie", "Elle": "Il", "Il": "Elle", "她": "他", "他": "她"}
_OWNER = {"his": "her", "her": "his"}


def _swap(table: dict[str, str]) -> Callable[[re.Match[str]], str]:
    return lambda place: place[0].replace(place[1], table[place[1]], 1)


CORRUPTIONS: dict[str, tuple[str, Callable[[str, random.Random], str]]] = {
    "de accusative becomes dative": ("de", _replace(r"\beinen\b", "einem")),
    "de dative becomes accusative": ("de", _replace(r"\beinem\b", "einen")),
    "de article of another gender": ("de", _replace(r"\beine\b", "einen")),
    "de neuter with a feminine article": ("de", _replace(r"\bein\b", "eine")),
    "de article left out": ("de", _replace(r"\beine[nm]? (?=[a-zäöüß]|[A-Z])", "")),
    "de feminine ending -e becomes -es": ("de", _replace(rf"\b{_DE_COLOR}e\b", r"\1es")),
    "de ending -en becomes -e": ("de", _replace(rf"\b{_DE_COLOR}en\b", r"\1e")),
    "de neuter ending -es becomes -en": ("de", _replace(rf"\b{_DE_COLOR}es\b", r"\1en")),
    "de ending left out": ("de", _replace(rf"\b{_DE_COLOR}e[ns]?\b(?! kariert)", r"\1")),
    "de dative plural without n": ("de", _replace(r"([Ss]chuhe|Stiefel)n\b", r"\1")),
    "de dative plural after an accusative verb": ("de", _replace(r"([Ss]chuhe|Stiefel)\b", r"\1n")),
    "de noun without its capital": ("de", _replace(r"(?<= )(Hose|Hemd|Schuhe|Jacke)\b", lambda m: m[0].lower())),
    "de compound colour taken apart": ("de", _replace(r"(\w+)-(\w+) gestreift", r"\1e \2 gestreift")),
    "de plural with an article": ("de", _replace(r"(?<= )(?=(schwarze|weiße|rote|braune) Schuhe\b)", "eine ")),
    "fr masculine article on a feminine noun": ("fr", _replace(r"\bune\b", "un")),
    "fr feminine article on a masculine noun": ("fr", _replace(r"\bun\b", "une")),
    "fr feminine colour loses its e": ("fr", _replace(r"\b(noir|gris|vert|bleu)e\b", r"\1")),
    "fr plural colour loses its s": ("fr", _replace(r"\b(noire|blanche|rouge|verte|bleue)s\b", r"\1")),
    "fr masculine colour made feminine": ("fr", _replace(r"\b(noir|gris|vert)\b", r"\1e")),
    "fr invariable colour inflected": ("fr", _replace(r"\b(marron|bleu marine|bleu clair|bleu foncé)\b", r"\1s")),
    "fr colour before the noun": ("fr", _replace(rf"\b(pantalon|pull|short|t-shirt|sac) {_FR_COLOR}\b", r"\2 \1")),
    "fr elision left out": ("fr", _replace(r"\bd'(?=une?\b)", "de ")),
    "fr elision where none belongs": ("fr", _replace(r"\bde (?=chaussures|bottes|sandales|baskets)", "d'")),
    "fr article kept after de": ("fr", _replace(r"\bde (?=chaussures \w+|baskets)(?<!sac de )", "de des ")),
    "fr participle of the other gender": ("fr", _replace(r"\b(vêtu|habillé|vu)e\b", r"\1")),
    "fr plural article made singular": ("fr", _replace(r"\bdes (?=chaussures|bottes|baskets)", "une ")),
    "zh measure word of another thing": ("zh", _replace(r"一([件条双个顶把])(?=[^人女男])", _swap(_MEASURE))),
    "zh measure word left out": ("zh", _replace(r"一[件条双顶把]", "一")),
    "zh verb of another body part": ("zh", _replace(r"(?<!上)(脚穿|下身穿着|背着|挎着|戴着)", _swap(_VERBS))),
    "zh person with the measure word of things": ("zh", _replace(r"^([一这])[名位个]", r"\1件")),
    "zh western full stop": ("zh", _replace(r"。$", ".")),
    "zh two 的 in a row": ("zh", _replace(r"色的", "色的的")),
    "en a before a vowel": ("en", _replace(r"\ban (?=orange|older|elderly|overcoat|umbrella)", "a ")),
    "en an before a consonant": ("en", _replace(r"\ba (?=black|white|red|blue|gray|green|pink)", "an ")),
    "en article left out": ("en", _replace(r"\ba (?=(black|white|gray) (T-shirt|shirt|dress)\b)", "")),
    "en plural with an article": ("en", _replace(r"(?<!of )\b(?=(black|white|gray) (pants|shoes|shorts)\b)", "a ")),
    "en verb in the plural": ("en", _replace(r"\bis (?=wearing|carrying|walking|holding|standing|dressed)", "are ")),
    "en colour after the noun": ("en", _replace(r"\b(black|white|red) (shirt|pants|shoes)\b", r"\2 \1")),
    "en singular thing in the plural": ("en", _replace(r"\b(shirt|jacket|skirt|backpack|bag|purse)\b", r"\1s")),
    "en possessive of the other gender": ("en", _replace(r"\b(his|her)(?= (back|head|hand|phone))", _swap(_OWNER))),
    "pronoun of the other gender, en": ("en", _replace(r"(?<=\. )(She|He)\b", _swap(_PRONOUN))),
    "pronoun of the other gender, de": ("de", _replace(r"(?<=\. )(Sie|Er)\b", _swap(_PRONOUN))),
    "pronoun of the other gender, fr": ("fr", _replace(r"(?<=\. )(Elle|Il)\b", _swap(_PRONOUN))),
    "pronoun of the other gender, zh": ("zh", _replace(r"(?<=。)(她|他)", _swap(_PRONOUN))),
}  # fmt: skip


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_every_corruption_is_caught(name: str) -> None:
    language, corrupt = CORRUPTIONS[name]
    source = random.Random(name)
    damaged = 0
    for caption in captions(language, "training", COUNT):
        wrong = corrupt(caption, source)
        if wrong == caption:
            continue
        damaged += 1
        assert CHECKERS[language].check(wrong).errors, wrong
        if damaged == 40:
            break
    assert damaged >= 20


PARAPHRASE_CORRUPTIONS: dict[str, tuple[str, Callable[[str, random.Random], str]]] = {
    "de accusative becomes dative": ("de", _replace(r"\beinen (?=\w+ (Pullover|Sweater|Stoffrock)\b)", "einem ")),
    "de dative becomes accusative": ("de", _replace(r"\beinem (?=\w+ (T-Shirt|Hemd|Oberhemd|Knopfhemd)\b)", "einen ")),
    "de article of another gender": ("de", _replace(r"\beine (?=\w+ (Hose|Stoffhose|Chinohose|Jeans)\b)", "einen ")),
    "de feminine ending -e becomes -en": ("de", _replace(r"\beine (\w+)e (?=(Hose|Stoffhose)\b)", r"eine \1en ")),
    "de dative plural without n": ("de", _replace(r"(?<=en )(\w*[Ss]chuhe)n\b", r"\1")),
    "fr article of the other gender": ("fr", _replace(r"\bune (?=chemise|liquette|robe|veste|jupe)", "un ")),
    "fr colour of the other gender": ("fr", _replace(r"\b(chemise|liquette|robe|jupe) (noir|gris|vert)e\b", r"\1 \2")),
    "fr elision left out": ("fr", _replace(r"\bd'(?=une? )", "de ")),
    "zh measure word of another thing": ("zh", _replace(r"一([件条双顶把])", _swap(_MEASURE))),
    "en an before a consonant": ("en", _replace(r"\ba (?=black|white|snowy|red|crimson|blue)", "an ")),
    "en a before a vowel": ("en", _replace(r"\ban (?=ivory|ebony|orange|emerald)", "a ")),
}  # fmt: skip


@pytest.mark.parametrize("name", PARAPHRASE_CORRUPTIONS)
def test_corruptions_of_paraphrases_are_caught(name: str) -> None:
    language, corrupt = PARAPHRASE_CORRUPTIONS[name]
    source = random.Random(name)
    damaged = 0
    for caption in captions(language, "paraphrase", COUNT):
        wrong = corrupt(caption, source)
        if wrong != caption:
            damaged += 1
            assert CHECKERS[language].agreement_errors(wrong), wrong
    assert damaged >= 10
