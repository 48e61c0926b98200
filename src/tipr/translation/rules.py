"""What needs no model to be seen: a translation that is empty, in another script, or still the source.

Such captions are noisy whatever an estimator says; they are counted apart and are no part of a mean noise, which a few
dozen empty answers would shift (Bi-IRRA's LDAT takes the mean as the threshold).
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from difflib import SequenceMatcher
from functools import lru_cache

from tipr.errors import ConfigError

RULES = ("empty", "wrong_script", "untranslated")
"""The rules, in the order they are asked; the first that is broken names the caption."""
SCRIPTS = {"en": "LATIN", "fr": "LATIN", "de": "LATIN", "zh": "CJK"}
"""Language -> first word of the Unicode names of its letters."""
LARGEST_FOREIGN_SHARE = 0.5
"""Share of words in other scripts above which the script is wrong: T恤 and a brand name are no fault."""
SAME_TEXT = 0.8
"""Likeness of two texts, word for word, from which one counts as a copy of the other."""


def broken_rule(source: str, translation: str | None, language: str) -> str | None:
    """The first rule that a translation breaks, or None.

    Args:
        source: the text that was to be translated.
        translation: what came back; None when nothing did.
        language: the language asked for.

    Raises:
        ConfigError: the script of the language is not known here.
    """
    if language not in SCRIPTS:
        raise ConfigError(f"unknown language {language!r}; allowed: {', '.join(SCRIPTS)}")
    words = _words(translation or "")
    scripts = Counter(script for word in words if (script := _script(word[0])) is not None)
    if not scripts:
        return "empty"
    # asked before the script: a copy of the source is called that also where the scripts differ
    if SequenceMatcher(None, _words(source), words, autojunk=False).ratio() >= SAME_TEXT:
        return "untranslated"
    foreign = sum(scripts.values()) - scripts[SCRIPTS[language]]
    if foreign > LARGEST_FOREIGN_SHARE * sum(scripts.values()):
        return "wrong_script"
    return None


def _words(text: str) -> list[str]:
    """Runs of letters and digits in lower case, full-width forms made plain; a character of a script without blanks is
    a word of its own."""
    plain = unicodedata.normalize("NFKC", text).casefold()
    return [word for run in re.findall(r"[^\W_]+", plain) for word in _split(run)]


def _split(run: str) -> list[str]:
    words: list[str] = []
    joined = False
    for sign in run:
        alone = _script(sign) in ("CJK", "HIRAGANA", "KATAKANA")
        if joined and not alone:
            words[-1] += sign
        else:
            words.append(sign)
        joined = not alone
    return words


@lru_cache(maxsize=4096)
def _script(sign: str) -> str | None:
    """First word of a letter's Unicode name, None for what is no letter."""
    return unicodedata.name(sign, "UNKNOWN").split()[0] if sign.isalpha() else None
