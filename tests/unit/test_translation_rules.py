"""What is caught without a model: empty, wrong script, untranslated."""

from __future__ import annotations

import pytest

from tipr.errors import ConfigError
from tipr.translation.rules import broken_rule

SOURCE = "A man is wearing a black T-shirt and blue jeans."


@pytest.mark.parametrize(
    ("translation", "language", "rule"),
    [
        (None, "zh", "empty"),
        ("", "zh", "empty"),
        (" \n\t", "fr", "empty"),
        ('"..."', "de", "empty"),
        ("。", "zh", "empty"),
        ("—— 1 ——", "fr", "empty"),
        ("一名男子身穿黑色T恤和蓝色牛仔裤。", "zh", None),
        ("一名男子身穿 Nike 的 T-shirt，背着 Adidas 双肩包。", "zh", None),
        ("Un homme porte un t-shirt noir et un jean bleu.", "zh", "wrong_script"),
        ("一名男子身穿黑色T恤和蓝色牛仔裤。", "fr", "wrong_script"),
        ("Мужчина в чёрной футболке.", "de", "wrong_script"),
        ("黒いTシャツとジーンズを着ているおとこのひとです。", "zh", "wrong_script"),
        ("Ein Mann trägt ein schwarzes T-Shirt und blaue Jeans.", "de", None),
        (SOURCE, "de", "untranslated"),
        (SOURCE, "zh", "untranslated"),
        (f'Translation: "{SOURCE.upper()}"', "fr", "untranslated"),
        ("Ａ ｍａｎ is wearing a black T-shirt and blue jeans", "fr", "untranslated"),
        ("Un T-shirt orange", "fr", None),
    ],
)
def test_each_rule(translation: str | None, language: str, rule: str | None) -> None:
    assert broken_rule(SOURCE, translation, language) == rule


def test_short_shared_words_are_no_copy() -> None:
    assert broken_rule("Orange jacket.", "Orange Jacke.", "de") is None


def test_an_unknown_language_is_named() -> None:
    with pytest.raises(ConfigError, match="'es'; allowed: en, fr, de, zh"):
        broken_rule(SOURCE, "Un hombre", "es")
