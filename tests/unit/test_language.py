"""The language of a query: what is told apart, what is not known, what a forced or a foreign one leads to."""

from __future__ import annotations

import py3langid
import pytest

from tipr.errors import ConfigError
from tipr.retrieval.language import UNKNOWN, Detection, checked_language, detect_language, foreign_note


@pytest.mark.parametrize(
    ("text", "language"),
    [
        ("a woman in a red coat", "en"),
        ("A WOMAN IN RED", "en"),
        ("une femme en manteau rouge", "fr"),
        ("eine Frau in einem roten Mantel", "de"),
        ("穿红色外套的女人", "zh"),
        ("穿 Nike 外套的男人", "zh"),
        ("a man with a 龙 tattoo", "en"),
        ("ａ ｗｏｍａｎ in a ｒｅｄ coat", "en"),
    ],
)
def test_a_sentence_is_told_by_its_script_and_its_letters(text: str, language: str) -> None:
    found = detect_language(text)
    assert found.language == language
    assert 0.5 < found.confidence <= 1.0


@pytest.mark.parametrize("text", ["", "  ", "123 456", "?!", "man", "красное пальто", "赤いコート", "한국 여자", "🧥"])
def test_a_text_that_speaks_for_no_language_is_unknown(text: str) -> None:
    assert detect_language(text) == UNKNOWN
    assert UNKNOWN.name == "unknown"
    assert UNKNOWN.language is None


def test_the_answer_is_the_same_whoever_else_uses_the_detector() -> None:
    before = detect_language("eine Frau in Rot")
    py3langid.set_languages(["sv", "da"])
    try:
        assert detect_language("eine Frau in Rot") == before
    finally:
        py3langid.set_languages(None)


def test_a_forced_language_must_be_one_of_ours() -> None:
    assert checked_language("fr") == "fr"
    with pytest.raises(ConfigError, match=r"language 'es'; allowed: en, zh, fr, de"):
        checked_language("es")
    assert Detection("zh", 1.0).name == "Chinese"


def test_a_language_without_projection_is_said() -> None:
    assert foreign_note(["fr", "de"], ()) is None
    assert foreign_note(["en", "zh"], ("en", "zh")) is None
    note = foreign_note(["en", "fr", None, "fr"], ("en", "zh"))
    assert note == (
        "this model has projections for English, Chinese; queries in French, an unknown language go through that of "
        "English"
    )
