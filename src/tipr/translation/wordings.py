"""Styles of captions for the estimator: what it learns from, and what it never meets before its test.

A person who judges translations knows the words of both languages, but has not read these sentences before. So the
estimator learns the names of things and colours of both synthetic styles, in the sentences of the training style and
in plain lists; the sentences of the paraphrase style (plans, verb phrases, connectives, denials) belong to the test.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Literal

from tipr.data.samples import LANGUAGES
from tipr.data.synthetic.captions import STYLES
from tipr.data.synthetic.captions.composition import Plan, Style, Writer

Plans = Literal["training", "study", "paraphrase"]
"""Two as the captions have them; `study` has the names of `paraphrase` in sentences of `training` and in lists."""
FAMILIAR_SHARE = 0.35
"""Share of nouns and colours of the study style that are those of the training style."""
NAMES = ("subject", "hair", "glasses", "sunglasses", "striped", "stripes", "plaid", "checks", "dots", "dotted", "print")
"""Topics (up to a colon or underscore) whose words name things; the other topics connect sentences."""
LISTS: Mapping[str, tuple[Plan, ...]] = {
    "en": (
        Plan("list", "{Indefinite}, {outfit}.", 4),
        Plan("list, then who", "{Outfit} on {indefinite}.", 4),
        Plan("parts", "{Upper}, {lower}: {indefinite}.", 3),
        Plan("parts turned round", "{Lower}, {upper}, {indefinite}.", 3),
        Plan("with", "{Definite} with {upper} and {lower}.", 3),
        Plan("hair in a list", "{Hair}, {outfit}, {indefinite}.", 3),
        Plan("bag in a list", "{Indefinite} with {bag}: {outfit}.", 3),
    ),
    "zh": (
        Plan("list", "{indefinite}：{things}。", 4),
        Plan("list, then who", "{things}，{indefinite}。", 4),
        Plan("clauses, then who", "{outfit}，{indefinite}。", 4),
        Plan("parts", "{indefinite}。{upper}。{lower}。", 3),
        Plan("parts turned round", "{subject}，{lower}，{upper}。", 3),
        Plan("bag in a list", "{bag}，{outfit}，{indefinite}。", 3),
    ),
    "fr": (
        Plan("list", "{Indefinite} : {outfit}.", 4),
        Plan("list, then who", "{Outfit} sur {indefinite}.", 4),
        Plan("parts", "{Upper}, {lower} : {indefinite}.", 3),
        Plan("parts turned round", "{Lower}, {upper}, {indefinite}.", 3),
        Plan("with", "{Indefinite} avec {outfit}.", 3),
        Plan("hair in a list", "{Hair}, {outfit}, {indefinite}.", 3),
        Plan("outfit of", "{Outfit_of}, {definite}.", 3),
        Plan("bag in a list", "{Indefinite} avec {bag} : {outfit}.", 3),
    ),
    "de": (
        Plan("list", "{Outfit}. {Indefinite}.", 4),
        Plan("with", "{Indefinite} mit {outfit_dative}.", 4),
        Plan("parts", "{Indefinite}, {upper_nominative}, {legs_nominative}.", 3),
        Plan("parts turned round", "{Lower}, {upper}: {indefinite}.", 3),
        Plan("hair in a list", "{Hair}, {outfit}: {definite}.", 3),
        Plan("bag in a list", "{Bag}, {outfit}, {indefinite_acc}.", 3),
    ),
}
"""Plans of the study style that name things with hardly a sentence around them: the names must be enough."""
BARE_PHRASES: Mapping[str, Mapping[str, str]] = {
    "hair": {"en": "{hair}", "zh": "{hair}", "fr": "{hair}", "de": "|{hair}"},
    "eyewear": {"en": "{eyewear}", "zh": "{eyewear}", "fr": "{eyewear}", "de": "|{eyewear}"},
    "hat": {"en": "{hat}", "zh": "{hat}", "fr": "{hat}", "de": "|{hat}"},
    "scarf": {"en": "{scarf}", "zh": "{scarf}", "fr": "{scarf}", "de": "|{scarf}"},
    "bag": {"en": "{bag}", "zh": "{bag}", "fr": "{bag}", "de": "|{bag}"},
    "umbrella": {"en": "{umbrella}", "zh": "{umbrella}", "fr": "{umbrella}", "de": "|{umbrella}"},
}
"""Loose things of the study style without a verb, half of the time."""
BARE_WORDS: Mapping[str, Mapping[str, tuple[str, ...]]] = {
    "zh": {
        "top": ("", "上面是", "有", "配"),
        "whole": ("", "有"),
        "inner": ("{}，里面{}", "{}里有{}"),
        "bottom": ("", "下面是", "有", "配"),
        "dress_under": ("", "里头有"),
        "shoes": ("", "鞋是", "有", "配"),
        "covering": ("穿在{}外面的", "在{}之上的"),
    }
}
"""Connectives of the study style beside those of the training style; "" is none."""
ADAPTED_PHRASES: Mapping[str, Mapping[str, tuple[str, ...]]] = {"zh": {"hair": ("是{hair}",)}}
"""Verb phrases where the paraphrase's names do not fit the training style's: its Chinese hair styles are nouns."""
UNFIT_SLOTS = {"zh": "{hair}", "fr": "{hair_with}"}
"""A plan with this slot is left out for the same reason."""


def _study_style(language: str) -> Style:
    training, paraphrase = (STYLES[language, plans][1] for plans in ("training", "paraphrase"))
    unfit = UNFIT_SLOTS.get(language)
    names = {
        topic: words for topic, words in paraphrase.words.items() if topic.partition(":")[0].partition("_")[0] in NAMES
    }
    connectives = {
        topic: (*training.words.get(topic, ()), *words) for topic, words in BARE_WORDS.get(language, {}).items()
    }
    phrases = {**training.phrases, **ADAPTED_PHRASES.get(language, {})}
    for fact, texts in phrases.items():
        bare = BARE_PHRASES.get(fact.partition(":")[0])
        if bare is not None:
            phrases[fact] = (*texts, *[bare[language]] * len(texts))
    plans = tuple(plan for plan in training.plans if unfit is None or unfit not in plan.text)
    return replace(
        paraphrase,
        plans=(*plans, *LISTS[language]),
        words={**training.words, **connectives, **names},
        phrases=phrases,
        tails=training.tails,
        accessories=training.accessories,
        familiar_share=FAMILIAR_SHARE,
    )


_STUDY = {language: _study_style(language) for language in LANGUAGES}


def style_of(language: str, plans: Plans) -> tuple[type[Writer], Style]:
    """The grammar of a language and the words of a style of it."""
    if plans == "study":
        return STYLES[language, "training"][0], _STUDY[language]
    return STYLES[language, plans]
