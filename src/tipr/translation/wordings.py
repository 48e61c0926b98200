"""Styles of captions for the estimator: what it learns from, and what it never meets before its test.

A person who judges translations knows the words of both languages, but has not read these sentences before. So the
estimator learns the names of things and colours of both synthetic styles, always in the sentences of the training
style; the sentences of the paraphrase style (its plans, verb phrases, connectives and denials) belong to the test.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Literal

from tipr.data.samples import LANGUAGES
from tipr.data.synthetic.captions import STYLES
from tipr.data.synthetic.captions.composition import Style, Writer

Plans = Literal["training", "study", "paraphrase"]
"""`training`: as in the training captions; `study`: its sentences with the names of `paraphrase`; `paraphrase`."""
FAMILIAR_SHARE = 0.35
"""Share of nouns and colours of the study style that are those of the training style."""
NAMES = ("subject", "hair", "glasses", "sunglasses", "striped", "stripes", "plaid", "checks", "dots", "dotted", "print")
"""Topics (up to a colon or underscore) whose words name things; the other topics connect sentences."""
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
    return replace(
        paraphrase,
        plans=tuple(plan for plan in training.plans if unfit is None or unfit not in plan.text),
        words={**training.words, **names},
        phrases={**training.phrases, **ADAPTED_PHRASES.get(language, {})},
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
