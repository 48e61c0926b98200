"""Tokenizers: no unknown words in any script, a closed contract, one file that brings everything back."""

from __future__ import annotations

import json
import random
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tipr.encoders.tokenizers import TOKENIZERS, SubwordTokenizer, load_tokenizer
from tipr.errors import ConfigError, WeightsError

COLOURS = {
    "en": ("red", "blue", "black", "white", "green"),
    "zh": ("红色", "蓝色", "黑色", "白色", "绿色"),
    "fr": ("rouge", "bleue", "noire", "blanche", "verte"),
    "de": ("rote", "blaue", "schwarze", "weiße", "grüne"),
}
PATTERNS = {
    "en": "A person in a {} shirt and {} trousers walks.",
    "zh": "一个人上身穿着{}的衬衫，下身穿着{}的长裤。",
    "fr": "Une personne porte une chemise {} et une jupe {}.",
    "de": "Eine Person trägt eine {} Bluse und eine {} Hose.",
}
CAPTIONS = [
    PATTERNS[language].format(first, second)
    for language, words in COLOURS.items()
    for first in words
    for second in words
]


@pytest.fixture(scope="module")
def tokenizer() -> SubwordTokenizer:
    return SubwordTokenizer.train(CAPTIONS, vocabulary_size=400, max_tokens=24)


def test_row_is_start_caption_end_padding(tokenizer: SubwordTokenizer) -> None:
    ids, mask = tokenizer.encode(["A red shirt", ""])
    assert ids.shape == mask.shape == (2, 24)
    assert (ids.dtype, mask.dtype) == (np.int64, np.bool_)
    for row, real in zip(ids, mask, strict=True):
        length = int(real.sum())
        assert real[:length].all()
        assert not real[length:].any()
        assert row[0] == tokenizer.start_id
        assert row[length - 1] == tokenizer.end_id
        assert (row[length:] == tokenizer.pad_id).all()
    assert mask[1].sum() == 2, "an empty caption is start, end"


def test_trim_cuts_at_the_longest_caption(tokenizer: SubwordTokenizer) -> None:
    captions = ["red", "A red shirt and blue trousers"]
    whole, mask = tokenizer.encode(captions)
    ids, short = tokenizer.encode(captions, trim=True)
    assert ids.shape[1] == mask.sum(1).max() < 24
    np.testing.assert_array_equal(ids, whole[:, : ids.shape[1]])
    np.testing.assert_array_equal(short, mask[:, : ids.shape[1]])
    assert tokenizer.encode([], trim=True)[0].shape[0] == 0


def test_long_caption_keeps_its_end_token(tokenizer: SubwordTokenizer) -> None:
    ids, mask = tokenizer.encode([" ".join(CAPTIONS)])
    assert mask.all()
    assert ids[0, -1] == tokenizer.end_id


@settings(max_examples=200, deadline=None)
@given(text=st.text(st.characters(codec="utf-8"), max_size=40))
def test_any_text_has_ordinary_ids_and_comes_back(tokenizer: SubwordTokenizer, text: str) -> None:
    (pieces,) = tokenizer.pieces([text])
    low, high = tokenizer.maskable
    assert all(low <= piece < high for piece in pieces)
    wanted = tokenizer._engine.normalizer.normalize_str(text).strip()
    assert tokenizer.decode(pieces) == wanted


def test_special_words_in_a_caption_are_only_letters(tokenizer: SubwordTokenizer) -> None:
    (pieces,) = tokenizer.pieces(["a <mask> and <pad> <start><end>"])
    assert min(pieces) >= len(SubwordTokenizer.SPECIAL)


def test_case_and_width_do_not_matter(tokenizer: SubwordTokenizer) -> None:
    assert tokenizer.pieces(["A RED Shirt"]) == tokenizer.pieces(["a red shirt"])
    assert tokenizer.pieces(["红色，白色"]) == tokenizer.pieces(["红色,白色"])


def test_frequent_words_are_one_token_and_phrases_are_not(tokenizer: SubwordTokenizer) -> None:
    assert len(tokenizer.pieces(["shirt"])[0]) == 1
    tokens = json.loads(tokenizer._engine.to_str())["model"]["vocab"]
    assert max(len(token) for token in tokens) <= SubwordTokenizer.LONGEST_TOKEN


def test_same_captions_in_any_order_give_the_same_vocabulary(tokenizer: SubwordTokenizer) -> None:
    mixed = list(CAPTIONS)
    random.Random(1).shuffle(mixed)
    again = SubwordTokenizer.train(mixed, vocabulary_size=400, max_tokens=24)
    assert again.to_json() == tokenizer.to_json()


def test_special_ids_and_sizes(tokenizer: SubwordTokenizer) -> None:
    assert (tokenizer.pad_id, tokenizer.start_id, tokenizer.end_id, tokenizer.mask_id) == (0, 1, 2, 3)
    assert 260 < tokenizer.vocabulary_size <= 400
    assert tokenizer.maskable == (4, tokenizer.vocabulary_size)


def test_saved_and_loaded_is_the_same(tokenizer: SubwordTokenizer, tmp_path: Path) -> None:
    tokenizer.save(tmp_path)
    again = load_tokenizer(tmp_path)
    assert isinstance(again, SubwordTokenizer)
    unseen = [*CAPTIONS[::7], "Ein Mädchen mit Regenschirm ☂", "穿羽绒服的人", "<mask>"]
    for before, after in zip(tokenizer.encode(unseen), again.encode(unseen), strict=True):
        np.testing.assert_array_equal(before, after)
    assert again.to_json() == tokenizer.to_json()
    assert (again.vocabulary_size, again.max_tokens, again.maskable) == (
        tokenizer.vocabulary_size,
        tokenizer.max_tokens,
        tokenizer.maskable,
    )


def test_each_kind_is_its_table_key() -> None:
    for kind, load in TOKENIZERS.items():
        assert load().kind == kind


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "no tokenizer.json"),
        ("{", "cannot read"),
        ("[]", "kind must be one of clip, subword"),
        ('{"kind": "words"}', "kind must be one of clip, subword"),
        ('{"kind": "subword", "max_tokens": 9}', "damaged"),
        ('{"kind": "subword", "max_tokens": 9, "engine": {"model": 1}}', "damaged"),
    ],
)
def test_unusable_file_is_one_line(content: str | None, said: str, tmp_path: Path) -> None:
    if content is not None:
        (tmp_path / "tokenizer.json").write_text(content)
    with pytest.raises(WeightsError, match=said) as caught:
        load_tokenizer(tmp_path)
    assert "\n" not in str(caught.value)


def test_foreign_special_tokens_are_refused(tokenizer: SubwordTokenizer, tmp_path: Path) -> None:
    tokenizer.save(tmp_path)
    path = tmp_path / "tokenizer.json"
    path.write_text(path.read_text().replace("<mask>", "<hide>"))
    with pytest.raises(WeightsError, match="first tokens"):
        load_tokenizer(tmp_path)


def test_sizes_that_cannot_work() -> None:
    with pytest.raises(ConfigError, match="at least 260"):
        SubwordTokenizer.train(CAPTIONS, vocabulary_size=259, max_tokens=24)
    with pytest.raises(ConfigError, match="at least 3"):
        SubwordTokenizer.train(CAPTIONS, vocabulary_size=300, max_tokens=2)
