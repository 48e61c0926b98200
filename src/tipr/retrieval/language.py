"""The language of a query: one of the four that `tipr` speaks, or not known.

Chinese is told by its script. What is written in Latin letters goes to py3langid, which is imported here alone: a naive
Bayes model over byte sequences, 5 MB, offline, restricted to the languages of ours in that script (Lui and Baldwin,
ACL 2012). How often it is right on short queries is measured in `benchmarks/language_detection.py`.
"""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from tipr.data.samples import LANGUAGES
from tipr.errors import ConfigError

LANGUAGE_NAMES = {"en": "English", "zh": "Chinese", "fr": "French", "de": "German"}
LATIN = tuple(code for code in LANGUAGES if code != "zh")
"""The languages written in Latin letters, which a script cannot tell apart."""


@dataclass(frozen=True, slots=True)
class Detection:
    """What a text is taken for.

    Attributes:
        language: one of `tipr.data.samples.LANGUAGES`; None when nothing in the text speaks for any of them.
        confidence: in [0, 1], the detector's own share for that language; 0 when it is None.
    """

    language: str | None
    confidence: float

    @property
    def name(self) -> str:
        """The language in English words, "unknown" for None."""
        return "unknown" if self.language is None else LANGUAGE_NAMES[self.language]


UNKNOWN = Detection(None, 0.0)


def detect_language(text: str) -> Detection:
    """The language of a query, however short.

    A Chinese sentence may name a brand in Latin letters, and the other way round: one Han character counts as one Latin
    word, and the script with more of them decides.

    Args:
        text: any text.

    Returns:
        `UNKNOWN` for a text without letters, in another script, or of which the detector knows no byte sequence.
    """
    text = unicodedata.normalize("NFKC", text)
    written = _words(text)
    if not written:
        return UNKNOWN
    script, _ = written.most_common(1)[0]
    if script == "CJK":
        return UNKNOWN if written["HIRAGANA"] or written["KATAKANA"] else Detection("zh", 1.0)
    if script != "LATIN":
        return UNKNOWN
    code, share = _identifier().classify(text)
    # equal shares: no known sequence in the text, and the first name would win
    return UNKNOWN if share <= 1.0 / len(LATIN) + 1e-6 else Detection(str(code), float(share))


def checked_language(code: str) -> str:
    """A language code that a user forces.

    Raises:
        ConfigError: it is none of `tipr.data.samples.LANGUAGES`.
    """
    if code not in LANGUAGES:
        raise ConfigError(f"language {code!r}; allowed: {', '.join(LANGUAGES)}")
    return code


def foreign_note(languages: Sequence[str | None], known: Sequence[str]) -> str | None:
    """What a user must know when a model has no projection for a language of the queries.

    Args:
        languages: of the queries; None where it is not known.
        known: languages with a projection of their own, the first of which serves the others; empty when one
            serves all.

    Returns:
        One sentence, or None when there is nothing to say.
    """
    if not known:
        return None
    foreign = [code for code in dict.fromkeys(languages) if code not in known]
    if not foreign:
        return None
    names = ", ".join("an unknown language" if code is None else LANGUAGE_NAMES.get(code, code) for code in foreign)
    own = [LANGUAGE_NAMES.get(code, code) for code in known]
    return f"this model has projections for {', '.join(own)}; queries in {names} go through that of {own[0]}"


def _words(text: str) -> Counter[str]:
    """How many words of each script; every Han character or kana is one."""
    written: Counter[str] = Counter()
    previous = ""
    for sign in text:
        script = unicodedata.name(sign, "").split(" ", 1)[0] if sign.isalpha() else ""
        if script and (script != previous or script != "LATIN"):
            written[script] += 1
        previous = script
    return written


@lru_cache(maxsize=1)
def _identifier() -> Any:
    """The detector, loaded at first use (half a second, some 100 MB)."""
    from py3langid.langid import MODEL_FILE, LanguageIdentifier

    # an instance of its own: the module's functions share one, which anybody in the process may restrict otherwise
    identifier = LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)
    identifier.set_languages(LATIN)
    return identifier
