"""CLIP's tokenizer: against stored ids of the original one where the merge list is at hand, and on a small list."""

from __future__ import annotations

import gzip
import json
import os
from pathlib import Path

import pytest

from tipr.encoders.clip_tokenizer import ClipTokenizer, byte_symbols, clean
from tipr.encoders.tokenizers import load_tokenizer
from tipr.errors import ConfigError, WeightsError

GOLDEN = json.loads((Path(__file__).parents[1] / "data" / "golden_irra" / "tokens.json").read_text())
VARIABLE = "TIPR_CLIP_VOCABULARY"
MERGES = ["t h", "th e</w>", "m a", "ma n</w>", "r e", "re d</w>", "j e", "je k"]


@pytest.fixture(scope="module")
def published() -> ClipTokenizer:
    path = os.environ.get(VARIABLE)
    if not path:
        pytest.skip(f"set {VARIABLE} to bpe_simple_vocab_16e6.txt.gz to compare with the original tokenizer")
    return ClipTokenizer.from_file(path)


@pytest.fixture
def small(tmp_path: Path) -> ClipTokenizer:
    """The layout of the published file: header, merges, more lines than are taken would follow."""
    path = tmp_path / "merges.txt.gz"
    path.write_bytes(gzip.compress(("#version: 0.2\n" + "\n".join(MERGES) + "\n").encode()))
    return ClipTokenizer.from_file(path, max_tokens=8)


@pytest.mark.parametrize("row", GOLDEN, ids=[str(i) for i in range(len(GOLDEN))])
def test_ids_equal_the_original_tokenizer(published: ClipTokenizer, row: dict[str, object]) -> None:
    ids, mask = published.encode([str(row["text"])])
    assert ids[0].tolist() == row["ids"]
    assert mask.sum() == ids[0].tolist().index(49407) + 1


def test_published_numbers(published: ClipTokenizer) -> None:
    t = published
    assert (t.mask_id, t.start_id, t.end_id, t.vocabulary_size, t.maskable) == (49405, 49406, 49407, 49408, (1, 49405))


def test_the_word_that_lost_its_symbol_is_still_text(published: ClipTokenizer) -> None:
    row = published.pieces(["Dr Jekyll"])[0]
    assert published.decode(row) == "dr jekyll"
    assert max(row) < published.mask_id


def test_small_vocabulary_has_the_published_layout(small: ClipTokenizer) -> None:
    symbols = list(byte_symbols().values())
    assert len(symbols) == len(set(symbols)) == 256
    assert symbols[:2] == ["!", '"']
    assert small.vocabulary_size == 512 + len(MERGES) - 1 + 3
    assert (small.mask_id, small.start_id, small.end_id) == (519, 520, 521)
    assert small.pad_id == 0
    assert small.maskable == (1, 519)


def test_merges_apply_by_rank(small: ClipTokenizer) -> None:
    assert small.pieces(["The RED man"]) == [[513, 517, 515]]
    # "th" alone is merged, its end-of-word form is not; "jek" was the last merge and is given up
    t, h_end = 512, 256 + list(byte_symbols().values()).index("x")
    assert small.pieces(["thx"]) == [[t, h_end]]
    assert small.pieces(["jekx"])[0][0] == 518


def test_rows_are_cut_padded_and_trimmed(small: ClipTokenizer) -> None:
    ids, mask = small.encode(["the the the the the the the the the", "man", ""])
    assert ids.shape == (3, 8)
    assert ids[0].tolist() == [520, *[513] * 6, 521]
    assert ids[1].tolist() == [520, 515, 521, 0, 0, 0, 0, 0]
    assert ids[2].tolist()[:3] == [520, 521, 0]
    assert mask.sum(axis=1).tolist() == [8, 3, 2]
    assert small.encode(["man", ""], trim=True)[0].shape == (2, 3)


def test_special_strings_are_single_tokens(small: ClipTokenizer) -> None:
    assert small.pieces(["<|MASK|> man"]) == [[519, 515]]


@pytest.mark.parametrize("text", ["un sac à dos élégant", "黑色外套", "straße 42", "it's 50% off!", "emoji 😀 ok"])
def test_any_text_survives_a_round_trip(small: ClipTokenizer, text: str) -> None:
    assert small.decode(small.pieces([text])[0]).replace(" ", "") == text.replace(" ", "")


@pytest.mark.parametrize(
    ("raw", "cleaned"),
    [
        ("  A\tman \n walks ", "a man walks"),
        ("black &amp;amp; white", "black & white"),
        ("the man&rsquo;s bag", "the man's bag"),
        ("the man’s “red” bag", 'the man\'s "red" bag'),
        ("ＡＢＣ，１２", "abc,12"),
        ("ﬁne\u0000 o\u0301k", "fine ók"),
        ("", ""),
    ],
)
def test_cleaning(raw: str, cleaned: str) -> None:
    assert clean(raw) == cleaned


def test_saved_and_loaded_it_is_the_same(small: ClipTokenizer, tmp_path: Path) -> None:
    small.save(tmp_path)
    again = load_tokenizer(tmp_path)
    assert isinstance(again, ClipTokenizer)
    assert again.to_json() == small.to_json()
    assert (again.encode(["the red jek man"])[0] == small.encode(["the red jek man"])[0]).all()


def test_unpacked_list_reads_the_same(small: ClipTokenizer, tmp_path: Path) -> None:
    path = tmp_path / "merges.txt"
    path.write_text("#version: 0.2\n" + "\n".join(MERGES) + "\n", encoding="utf-8")
    assert ClipTokenizer.from_file(path, max_tokens=8).to_json() == small.to_json()


def test_wrong_files_are_refused_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="no merge list at"):
        ClipTokenizer.from_file(tmp_path / "gone.gz")
    (tmp_path / "bad").write_text("header\na b\na b c\n")
    with pytest.raises(WeightsError, match="merge 2 is not a pair of symbols: 'a b c'"):
        ClipTokenizer.from_file(tmp_path / "bad")
    (tmp_path / "cut.gz").write_bytes(gzip.compress(b"header\na b\n")[:12])
    with pytest.raises(WeightsError, match="cannot read the merge list"):
        ClipTokenizer.from_file(tmp_path / "cut.gz")
    with pytest.raises(ConfigError, match="empty"):
        ClipTokenizer([])
    with pytest.raises(ConfigError, match="at least 3, not 2"):
        ClipTokenizer([("a", "b")], max_tokens=2)
