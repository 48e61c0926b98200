"""The instructions: filling them, own ones, and what is taken off an answer."""

from __future__ import annotations

from pathlib import Path

import pytest

from tipr.errors import ConfigError
from tipr.translation.prompts import LANGUAGE_NAMES, clean_answer, load_prompt
from tipr.translation.records import Item


def _item(source: str, language: str = "zh") -> Item:
    return Item(f"a.jpg#0@{language}", "a.jpg", 0, "en", language, source)


@pytest.mark.parametrize("name", ["translate", "rewrite"])
@pytest.mark.parametrize("language", ["zh", "fr", "de"])
def test_an_instruction_quotes_the_caption_and_names_both_languages(name: str, language: str) -> None:
    text = load_prompt(name).fill(_item("A {source} coat,\n{red}.", language))
    assert '"A {source} coat, {red}."' in text
    assert "English sentence" in text
    assert f"into {LANGUAGE_NAMES[language]}" in text


def test_an_own_instruction_replaces_one_and_changes_the_hash(tmp_path: Path) -> None:
    (tmp_path / "translate.txt").write_text("{language}, bitte: {source}\n", encoding="utf-8")
    own = load_prompt("translate", tmp_path)
    assert own.fill(_item("A coat.")) == "Chinese, bitte: A coat."
    assert own.sha256 != load_prompt("translate").sha256
    assert load_prompt("rewrite", tmp_path) == load_prompt("rewrite")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"Translate {caption}", "unknown field {caption}; allowed: {source}, {source_language}, {language}"),
        (b"Translate into {language}", "the caption has no place: write {source} where it belongs"),
        (b"\xff{source}", "not UTF-8"),
    ],
)
def test_an_instruction_that_cannot_be_used_is_refused(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "translate.txt").write_bytes(content)
    with pytest.raises(ConfigError) as caught:
        load_prompt("translate", tmp_path)
    assert str(caught.value) == f"{tmp_path / 'translate.txt'}: {message}"


def test_a_folder_of_instructions_must_be_there(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no folder of prompts"):
        load_prompt("translate", tmp_path / "none")


@pytest.mark.parametrize(
    ("answer", "caption"),
    [
        ("  一个人。\n", "一个人。"),
        ('"Ein Mantel."', "Ein Mantel."),
        ("„Ein Mantel.“", "Ein Mantel."),
        ("« Un manteau. »", "Un manteau."),
        ("「红色」和「蓝色」", "「红色」和「蓝色」"),
        ('Ein "roter" Mantel', 'Ein "roter" Mantel'),
        ("L'homme", "L'homme"),
        ("<think>\nred is rot\n</think>\n\nEin roter\nMantel.", "Ein roter Mantel."),
        ('"', '"'),
        ("", ""),
    ],
)
def test_what_is_not_the_caption_is_taken_off(answer: str, caption: str) -> None:
    assert clean_answer(answer, source="A coat.") == caption


def test_quotation_marks_of_the_caption_itself_stay() -> None:
    assert clean_answer('"Nike" steht darauf, sagt "er"', source="x") == '"Nike" steht darauf, sagt "er"'
    assert clean_answer("„Ein Mantel.“", source='"A coat."') == "„Ein Mantel.“"
