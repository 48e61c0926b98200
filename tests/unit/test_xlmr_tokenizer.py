"""XLM-R's vocabulary from each of its files, against sentencepiece's own ids, and the cleaning of captions."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tipr.encoders.tokenizers import SubwordTokenizer, load_tokenizer
from tipr.encoders.xlmr_tokenizer import XlmrTokenizer, clean_caption
from tipr.errors import ConfigError, WeightsError
from tipr.training import assembly
from tipr.training.run_config import RunConfig

DATA = Path(__file__).parents[1] / "data"
MODEL = DATA / "xlmr_tokenizer" / "sentencepiece.bpe.model"
CLEANED = json.loads((DATA / "golden_bi_irra" / "expected.json").read_text())["caption_cleaning"]
EXPECTED = json.loads((DATA / "xlmr_tokenizer" / "expected.json").read_text())["captions"]


@pytest.fixture(scope="module")
def tokenizer() -> XlmrTokenizer:
    return XlmrTokenizer.from_file(MODEL)


@pytest.mark.parametrize("case", CLEANED, ids=range(len(CLEANED)))
def test_cleaning_is_the_released_one(case: dict[str, Any]) -> None:
    assert clean_caption(case["raw"], case["max_words"]) == case["cleaned"]


@given(st.text(alphabet=st.sampled_from("aB. !\t\n，。红~;-'"), max_size=40), st.integers(1, 5))
@settings(max_examples=200, deadline=None)
def test_cleaning_twice_changes_nothing_and_words_are_counted(text: str, most: int) -> None:
    cleaned = clean_caption(text, most)
    assert clean_caption(cleaned, most) == cleaned
    assert len(cleaned.split(" ")) <= most
    assert not set(cleaned) & set('.!"()*#:;~')


def test_ids_are_those_of_sentencepiece_one_higher(tokenizer: XlmrTokenizer) -> None:
    wrong = [case["caption"] for case in EXPECTED if tokenizer.pieces([case["caption"]]) != [case["ids"]]]
    assert len(EXPECTED) > 15
    assert wrong == []


def test_special_ids_and_rows(tokenizer: XlmrTokenizer) -> None:
    assert (tokenizer.start_id, tokenizer.pad_id, tokenizer.end_id, tokenizer.unknown_id) == (0, 1, 2, 3)
    assert tokenizer.mask_id == tokenizer.vocabulary_size - 1 == 421
    assert tokenizer.maskable == (4, 421)
    ids, mask = tokenizer.encode(["a red jacket", "word " * 90])
    assert ids.shape == (2, 77)
    length = int(mask[0].sum())
    assert ids[0, 0] == 0
    assert ids[0, length - 1] == 2
    assert (ids[0, length:] == 1).all()
    assert ids[1, -1] == 2  # cut before the end token
    np.testing.assert_array_equal(ids[1, 1:-1], tokenizer.pieces(["word " * 90])[0][:75])
    assert tokenizer.decode(ids[0].tolist()) == "a red jacket"


def test_a_caption_cannot_spell_a_special_token(tokenizer: XlmrTokenizer) -> None:
    ids = tokenizer.pieces(["<mask> <s> </s> <pad> <MASK>"])[0]
    assert all(3 <= number < tokenizer.mask_id for number in ids)


def test_words_are_cut_at_the_longest_row(tokenizer: XlmrTokenizer) -> None:
    short = XlmrTokenizer.from_file(MODEL, max_tokens=5)
    assert short.pieces(["a b c d e f g"]) == tokenizer.pieces(["a b c d e"])


def test_every_file_gives_the_same_ids(tokenizer: XlmrTokenizer, tmp_path: Path) -> None:
    captions = [case["caption"] for case in EXPECTED]
    expected = tokenizer.pieces(captions)
    (tmp_path / "published").mkdir()
    (tmp_path / "published" / "tokenizer.json").write_text(json.dumps(tokenizer.to_json()["engine"]))
    (tmp_path / "ours").mkdir()
    tokenizer.save(tmp_path / "ours")
    for path in (tmp_path / "published", tmp_path / "published" / "tokenizer.json", tmp_path / "ours", MODEL.parent):
        assert XlmrTokenizer.from_file(path).pieces(captions) == expected
    loaded = load_tokenizer(tmp_path / "ours")
    assert isinstance(loaded, XlmrTokenizer)
    assert loaded.pieces(captions) == expected
    assert loaded.max_tokens == 77


def test_a_run_takes_the_file_that_its_configuration_names(tokenizer: XlmrTokenizer, tmp_path: Path) -> None:
    config = RunConfig.model_validate(
        {
            "out": tmp_path,
            "method": {"name": "clip_baseline"},
            "encoder": {"name": "beit_xlmr", "max_tokens": 40, "target_languages": []},
            "tokenizer": {"kind": "xlmr", "path": MODEL},
            "data": {"dataset": "manifest", "root": tmp_path},
            "epochs": 1,
        }
    )
    made = assembly._tokenizer(config, None, SimpleNamespace(global_rank=0, barrier=lambda: None))  # type: ignore[arg-type]
    assert isinstance(made, XlmrTokenizer)
    assert made.max_tokens == 40
    assert made.pieces(["a red jacket"]) == tokenizer.pieces(["a red jacket"])


def test_what_is_not_there_or_another_vocabulary_is_refused_in_one_line(tmp_path: Path) -> None:
    SubwordTokenizer.train(["a red coat"], vocabulary_size=260, max_tokens=8).save(tmp_path)
    (tmp_path / "empty").mkdir()
    (tmp_path / "text.model").write_text("hello")
    (tmp_path / "list.json").write_text("[1]")
    subword = json.loads((tmp_path / "tokenizer.json").read_text())["engine"]
    (tmp_path / "other.json").write_text(json.dumps(subword))
    for name, message in (
        ("absent.json", "no vocabulary at"),
        ("empty", "no tokenizer.json and no sentencepiece.bpe.model in"),
        ("text.model", "is no SentencePiece model"),
        ("list.json", "is no XLM-R tokenizer"),
        ("other.json", "<s>, <pad>, </s>, <unk>, <mask> should have id 0"),
        ("tokenizer.json", "is no XLM-R tokenizer"),
    ):
        with pytest.raises(WeightsError, match=message) as error:
            XlmrTokenizer.from_file(tmp_path / name)
        assert "\n" not in str(error.value)
    with pytest.raises(ConfigError, match="max_tokens must be at least 3"):
        XlmrTokenizer.from_file(MODEL, max_tokens=2)


def test_a_cut_or_foreign_sentencepiece_file_is_refused(tmp_path: Path) -> None:
    whole = MODEL.read_bytes()
    path = tmp_path / "cut.model"
    for size in (0, 1, 7, 40, 1000, 5000):
        path.write_bytes(whole[:size])
        with pytest.raises(WeightsError, match=r"cut.model is no"):
            XlmrTokenizer.from_file(path)
    path.write_bytes(whole.replace(b"<unk>", b"<nix>", 1))
    with pytest.raises(WeightsError, match="is not XLM-R's: expected a unigram model"):
        XlmrTokenizer.from_file(path)
