"""Damaged translations: each kind changes exactly what it says, and the sentences of the two styles differ."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from tipr.data.samples import LANGUAGES
from tipr.data.synthetic.captions import Facts, Item
from tipr.translation.caption_reader import SLOTS
from tipr.translation.damage import (
    CATALOGUE,
    CONTENT_DAMAGES,
    DAMAGES,
    DENIALS,
    EMPTY_TEXTS,
    Statement,
    change,
    draw_pair,
    draw_statement,
    word,
)
from tipr.translation.rules import broken_rule

WOMAN = Facts("f", Item("jacket", "red"), inner=Item("tshirt", "white"), bottom=Item("jeans", "blue"), view="front")


def differences(first: dict[str, str], second: dict[str, str]) -> set[str]:
    return {name for name in first.keys() | second.keys() if first.get(name) != second.get(name)}


@pytest.mark.parametrize("kind", CONTENT_DAMAGES)
def test_content_damage_changes_what_it_names(kind: str) -> None:
    generator = np.random.default_rng(3)
    details: Counter[str] = Counter()
    for _ in range(400):
        statement = draw_statement(generator)
        changed = change(statement, kind, generator)
        if changed is None:
            continue
        told, detail = changed
        details[detail] += 1
        names = differences(statement.items(), told.items())
        if kind == "colour swapped":
            assert names
            assert all(name.endswith("_color") for name in names)
            assert len(names) == (2 if detail == "colours exchanged" else 1)
        elif kind == "garment swapped":
            (name,) = names
            assert detail == f"{name} replaced"
            assert any({statement.items()[name], told.items()[name]} <= set(group) for group in CATALOGUE[name])
        elif kind == "negation":
            assert "denied" in {
                side[name] for side in (statement.items(), told.items()) for name in names & side.keys()
            }
        else:
            assert names
            assert names <= statement.items().keys() - told.items().keys()
    assert sum(details.values()) > 300
    assert len(details) > 2


def test_a_statement_without_the_thing_cannot_be_damaged() -> None:
    bare = Statement(Facts("m", Item("tshirt")))
    generator = np.random.default_rng(0)
    assert change(bare, "colour swapped", generator) is None
    assert change(bare, "negation", generator) is None
    assert change(bare, "dropped clause", generator) is None
    assert draw_pair(bare, "zh", generator, damage="negation") is None


def test_a_vague_dark_is_not_replaced_by_a_dark_colour() -> None:
    generator = np.random.default_rng(1)
    dark = Statement(Facts("m", Item("coat", "dark")))
    colors = {change(dark, "colour swapped", generator)[0].facts.top.color for _ in range(200)}  # type: ignore[index]
    assert len(colors) > 5
    assert not colors & {"black", "navy", "brown", "dark"}


@pytest.mark.parametrize("damage", [None, *DAMAGES])
@pytest.mark.parametrize("plans", ["training", "paraphrase"])
def test_a_pair_is_a_function_of_its_generator(damage: str | None, plans: str) -> None:
    first, second = (
        draw_pair(Statement(WOMAN), "fr", np.random.default_rng(5), damage=damage, plans=plans)  # type: ignore[arg-type]
        for _ in range(2)
    )
    assert first == second
    assert first is not None
    assert first.damage == damage
    if damage == "empty":
        assert first.translation in EMPTY_TEXTS
        assert broken_rule(first.source, first.translation, "fr") == "empty"
    elif damage in CONTENT_DAMAGES:
        assert first.stated != first.told
        assert broken_rule(first.source, first.translation, "fr") is None
    else:
        assert first.stated == first.told


def test_a_wrong_language_is_one_of_the_others_and_english_is_the_source_itself() -> None:
    generator = np.random.default_rng(2)
    seen = set()
    for _ in range(60):
        pair = draw_pair(Statement(WOMAN), "de", generator, damage="wrong language")
        assert pair is not None
        seen.add(pair.detail)
        assert (pair.translation == pair.source) == (pair.detail == "answered in en")
    assert seen == {f"answered in {language}" for language in LANGUAGES if language != "de"}


@pytest.mark.parametrize(
    ("language", "expected"),
    [
        ("en", {"She does not have a scarf.", "She has no scarf.", "She is without a scarf."}),
        ("fr", {"Elle n'a pas d'écharpe.", "Elle ne porte pas d'écharpe.", "Elle est sans écharpe."}),
        ("de", {"Sie hat keinen Schal.", "Sie trägt keinen Schal.", "Sie ist ohne Schal da."}),
        ("zh", {"她没有围巾。", "她没有带围巾。", "她身上无围巾。", "她不带围巾。"}),
    ],
)
def test_a_denial_in_words(language: str, expected: set[str]) -> None:
    generator = np.random.default_rng(0)
    texts = {word(Statement(WOMAN, ("scarf", "scarf")), language, generator, "training") for _ in range(80)}
    found = {sentence for sentence in expected if any(text.endswith(sentence) for text in texts)}
    assert found == expected


def test_plural_and_adjective_of_denied_things() -> None:
    generator = np.random.default_rng(0)
    man = Facts("m", Item("tshirt", "red"))

    def said(thing: tuple[str, str], language: str) -> str:
        return "\n".join(word(Statement(man, thing), language, generator, "training") for _ in range(60))

    assert "He does not have boots." in said(("shoes", "boots"), "en")
    assert "Il n'a pas de bottes." in said(("shoes", "boots"), "fr")
    assert "Er hat keine Stiefel." in said(("shoes", "boots"), "de")
    assert "Er trägt keine kurze Hose." in said(("bottom", "shorts"), "de")


def test_no_denying_sentence_belongs_to_both_styles() -> None:
    for language in LANGUAGES:
        assert not set(DENIALS[language, "training"]) & set(DENIALS[language, "paraphrase"])


def test_every_stated_value_has_a_class() -> None:
    generator = np.random.default_rng(4)
    for _ in range(500):
        for name, value in draw_statement(generator).items().items():
            assert value in SLOTS[name]
