"""Captions of rendered people: what a writer mentions (`facts`) and its wording in four languages (`realise`)."""

from __future__ import annotations

from typing import Literal

import numpy as np

from tipr.data.synthetic.captions.chance import Chance
from tipr.data.synthetic.captions.chinese import ChineseWriter
from tipr.data.synthetic.captions.composition import Style, Writer
from tipr.data.synthetic.captions.english import EnglishWriter
from tipr.data.synthetic.captions.facts import Facts, Item, agrees, facts, true_items
from tipr.data.synthetic.captions.french import FrenchWriter
from tipr.data.synthetic.captions.german import GermanWriter
from tipr.data.synthetic.captions.lexicon_de import TRAINING as GERMAN
from tipr.data.synthetic.captions.lexicon_en import TRAINING as ENGLISH
from tipr.data.synthetic.captions.lexicon_fr import TRAINING as FRENCH
from tipr.data.synthetic.captions.lexicon_zh import TRAINING as CHINESE
from tipr.data.synthetic.captions.paraphrase_de import PARAPHRASE as GERMAN_PARAPHRASE
from tipr.data.synthetic.captions.paraphrase_en import PARAPHRASE as ENGLISH_PARAPHRASE
from tipr.data.synthetic.captions.paraphrase_fr import PARAPHRASE as FRENCH_PARAPHRASE
from tipr.data.synthetic.captions.paraphrase_zh import PARAPHRASE as CHINESE_PARAPHRASE
from tipr.errors import ConfigError

__all__ = ["STYLES", "Facts", "Item", "agrees", "facts", "realise", "true_items"]

STYLES: dict[tuple[str, str], tuple[type[Writer], Style]] = {
    ("en", "training"): (EnglishWriter, ENGLISH),
    ("zh", "training"): (ChineseWriter, CHINESE),
    ("fr", "training"): (FrenchWriter, FRENCH),
    ("de", "training"): (GermanWriter, GERMAN),
    ("en", "paraphrase"): (EnglishWriter, ENGLISH_PARAPHRASE),
    ("zh", "paraphrase"): (ChineseWriter, CHINESE_PARAPHRASE),
    ("fr", "paraphrase"): (FrenchWriter, FRENCH_PARAPHRASE),
    ("de", "paraphrase"): (GermanWriter, GERMAN_PARAPHRASE),
}
"""(language, plans) -> its grammar and its words."""


def realise(
    facts: Facts,
    language: str,
    generator: np.random.Generator,
    *,
    plans: Literal["training", "paraphrase"] = "training",
) -> str:
    """Word the facts as one caption.

    Args:
        facts: what to say; all of it is said, and nothing else.
        language: "en", "zh", "fr" or "de".
        generator: chooses plan, order and synonyms.
        plans: "training", or "paraphrase": other sentences and other words for a harder test.

    Raises:
        ConfigError: a language or plans that do not exist.
    """
    try:
        writer, style = STYLES[language, plans]
    except KeyError:
        known = ", ".join(f"{name}/{kind}" for name, kind in STYLES)
        raise ConfigError(f"captions: no {language}/{plans}; there are {known}") from None
    return writer(facts, style, Chance(generator)).caption()
