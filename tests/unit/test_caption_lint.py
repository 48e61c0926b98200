"""Words, lengths and oddities of captions in four languages."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tipr.data.caption_lint import foreign_sign, lint_captions
from tipr.data.caption_words import fewest_tokens, words
from tipr.data.manifest import Caption, Record
from tipr.data.problems import KINDS, Problems
from tipr.data.statistics import statistics


def record(image: str, identity: int | None, *captions: str, language: str = "en", split: str = "test") -> Record:
    return Record(image, tuple(Caption(language, text) for text in captions), identity=identity, split=split)


def found(*records: Record, **options: object) -> dict[str, int]:
    return {problem.kind: problem.count for problem in lint_captions(records, **options)}  # type: ignore[arg-type]


def test_words_of_four_languages() -> None:
    assert words("A man's well-made coat, 25 EUR!") == ["a", "man's", "well-made", "coat", "25", "eur"]
    assert words("穿着NIKE红衣") == ["穿", "着", "nike", "红", "衣"]
    assert words("un manteau d’été") == ["un", "manteau", "d’été"]
    assert words("Mädchen_in Größe") == ["mädchen", "in", "größe"]
    assert words("") == []


@pytest.mark.parametrize(
    ("text", "tokens"), [("", 2), ("a man", 4), ("man's", 4), ("well-made.", 6), ("25 years", 5), ("a...b", 5)]
)
def test_the_lower_bound_of_tokens_by_hand(text: str, tokens: int) -> None:
    assert fewest_tokens(text) == tokens


def test_the_lower_bound_is_below_the_tokenizer_of_a_model() -> None:
    """Of words that the vocabulary holds whole it is exact, of others it is less."""
    from tipr.encoders.tokenizers import load_tokenizer
    from tipr.retrieval.model_folder import model_folder

    tokenizer = load_tokenizer(model_folder("demo"))
    captions = ["a woman in a red coat", "extraordinarily bespectacled", "a man with a backpack, black shoes."]
    for text, pieces in zip(captions, tokenizer.pieces(captions), strict=True):
        assert len(text.split()) + 2 <= fewest_tokens(text) <= len(pieces) + 2


@pytest.mark.parametrize(
    ("text", "language", "sign"),
    [
        ("café – “ok” … it’s ½", "en", None),
        ("ein Mädchen in Größe „M“", "de", None),
        ("une œuvre « ici »", "fr", None),
        ("一个穿NIKE的人，走路。（左）", "zh", None),
        ("a 红 coat", "en", "红"),
        ("a бag", "en", "б"),
        ("a\u200bcoat", "en", "\u200b"),
        ("ｃoat", "de", "ｃ"),
        ("a woman in a coat", "zh", "a"),
        ("一个かわいい人", "zh", "か"),
    ],
)
def test_foreign_signs(text: str, language: str, sign: str | None) -> None:
    assert foreign_sign(text, language) == sign


@pytest.mark.parametrize(
    "text", ["import os", "a.append(x)", "{'caption': 'a man'}", "see img_1.jpg", "print()", "__init__"]
)
def test_program_text(text: str) -> None:
    assert found(record("a", 1, text)) == {"code": 1}


@pytest.mark.parametrize(
    "text", ["a man (left) in a self-made coat", "a bag - an important one", "he was defending himself."]
)
def test_ordinary_sentences_are_no_program_text(text: str) -> None:
    assert found(record("a", 1, text)) == {}


def test_shared_captions_count_once_and_not_within_a_person() -> None:
    same = "a red coat"
    assert found(record("a", 1, same), record("b", 1, same)) == {}
    assert found(record("a", 1, same), record("b", 2, "A  red coat"), record("c", 3, same)) == {"shared": 1}
    assert found(record("a", None, same), record("b", None, same)) == {}
    assert found(record("a", 1, same), record("b", 2, same, language="fr")) == {}


def test_untranslated_captions_and_lengths() -> None:
    both = Record("a", (Caption("en", "a coat"), Caption("de", "A coat"), Caption("zh", "一")), identity=1)
    assert found(both) == {"untranslated": 1}
    assert found(both, limit=3) == {"untranslated": 1, "long": 2}  # Chinese has no lower bound
    assert found(both, limit=3, count_tokens=lambda texts: [len(text) for text in texts]) == {
        "untranslated": 1,
        "long": 2,
    }
    assert found(both, limit=0, count_tokens=lambda texts: [1 for _ in texts])["long"] == 3


def test_statistics_by_hand() -> None:
    records = [
        record("a", 1, "a red coat", "red", split="train"),
        record("b", 1, "blue", split="train"),
        record("c", 2, "a green coat", split="test"),
        record("d", 2, split="test"),
    ]
    result = statistics(records)
    assert result.splits == {
        "train": {"identities": 1, "images": 2, "captions": 3},
        "test": {"identities": 1, "images": 2, "captions": 1},
    }
    assert result.captions_per_image == {0: 1, 1: 2, 2: 1}
    assert result.images_per_identity == {2: 2}
    english = result.languages["en"]
    assert (english.captions, english.words, english.vocabulary, english.once) == (4, 8, 5, 2)
    assert english.unseen == pytest.approx(1 / 3)
    assert (english.shortest, english.median, english.mean, english.longest) == (1, 2.0, 2.0, 3)
    assert english.histogram == ((1, 2), (3, 2))
    assert english.frequent[0] == ("a", 2)
    assert set(result.languages) == {"en"}


def test_sentences_of_problems_go_with_their_number() -> None:
    for kind in KINDS:
        for count in (1, 2, 12_345):
            problems = Problems()
            problems.add(kind, "x", count=count)
            (problem,) = problems.found()
            assert problem.message.startswith(f"{count:,} ")
            assert not re.search(r"[\[\]|{}]", problem.message)
    with pytest.raises(ValueError, match="unknown kind of problem 'nothing'"):
        Problems().add("nothing")


def test_problems_keep_their_first_examples_and_are_taken_over_whole() -> None:
    problems = Problems()
    for number in range(9):
        problems.add("missing", f"{number}.jpg", detail="Market/ 9")
    (problem,) = problems.found()
    assert problem.examples == tuple(f"{number}.jpg" for number in range(5))
    assert problem.line() == "9 images are missing: Market/ 9, first 0.jpg"
    again = Problems()
    again.extend(problems.found())
    assert again.found() == problems.found()


def test_kinds_are_all_in_use() -> None:
    source = Path(__file__).parents[2] / "src" / "tipr" / "data"
    text = "".join(path.read_text(encoding="utf-8") for path in source.glob("*.py") if path.name != "problems.py")
    for kind in KINDS:
        assert f'"{kind}"' in text, kind
