"""`Reranker`: scores against one pair at a time, blocks, memory, cost, and every refusal."""

from __future__ import annotations

import gc
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from matching_model import matching_retriever
from numpy.typing import NDArray
from PIL import Image

import tipr
import tipr.retrieval.reranker as home
from tipr.data.images import Preprocessing
from tipr.encoders import BeitXlmrEncoder, CompactEncoder
from tipr.encoders.tokenizers import SubwordTokenizer
from tipr.errors import ConfigError, WeightsError
from tipr.retrieval import Reranker, Retriever

QUERY = "a woman in a red coat"


@pytest.fixture
def reranker() -> Reranker:
    return Reranker(matching_retriever())


@pytest.fixture
def pictures() -> list[Image.Image]:
    rng = np.random.default_rng(0)
    return [Image.fromarray(rng.integers(0, 255, (40, 20, 3), dtype=np.uint8)) for _ in range(11)]


def one_by_one(retriever: Retriever, query: str, tokens: NDArray[np.float16]) -> list[float]:
    """The definition: words as query, tokens of one picture as keys, all layers in full, logit of class 1."""
    encoder = retriever.encoder
    assert isinstance(encoder, BeitXlmrEncoder)
    ids, mask = (torch.from_numpy(part) for part in retriever.tokenizer.encode([query], trim=True))
    with torch.no_grad():
        text = encoder.encode_text(ids, mask).tokens
        fused = [encoder.fusion(text, mask, torch.from_numpy(row)[None].float(), None) for row in tokens]
        return [float(encoder.match_head(each[:, 0])[0, 1]) for each in fused]


def test_the_first_token_alone_has_the_gradient_of_the_whole() -> None:
    encoder = matching_retriever(hidden_dropout=0.0, attention_dropout=0.0).encoder.train()
    assert isinstance(encoder, BeitXlmrEncoder)
    words, pictures = torch.randn(3, 5, 16), torch.randn(3, 9, 16)
    mask = torch.tensor([[True] * 5, [True] * 4 + [False], [True, False, False, False, False]])
    gradients = []
    for step in (encoder.fusion.first_token, lambda *given: encoder.fusion(*given)[:, 0]):
        leaves = words.clone().requires_grad_(), pictures.clone().requires_grad_()
        encoder.zero_grad()
        first = step(leaves[0], mask, leaves[1], None)
        first.square().sum().backward()
        gradients.append(
            [first.detach(), *(leaf.grad for leaf in leaves), *(p.grad for p in encoder.fusion.parameters())]
        )
    for short, whole in zip(*gradients, strict=True):
        torch.testing.assert_close(short, whole, rtol=1e-4, atol=1e-5)


def test_scores_are_those_of_one_pair_at_a_time(reranker: Reranker, pictures: list[Image.Image]) -> None:
    tokens = reranker.image_tokens(pictures)
    assert tokens.shape == (11, *reranker.token_shape) == (11, 9, 16)
    assert tokens.dtype == np.float16
    scores = reranker.score(QUERY, tokens)
    assert scores.dtype == np.float32
    expected = one_by_one(reranker.retriever, QUERY, tokens)
    np.testing.assert_allclose(scores, expected, rtol=1e-5, atol=1e-5)
    assert np.ptp(expected) > 1e-2  # the pictures differ, so the line above says something
    assert np.abs(scores - reranker.score("eine Frau", tokens)).max() > 1e-2
    np.testing.assert_array_equal(reranker.score(f"  {QUERY} ", tokens.astype(np.float32)), scores)
    np.testing.assert_array_equal(reranker.score(QUERY, torch.from_numpy(tokens)), scores)
    assert reranker.score(QUERY, tokens[:0]).shape == (0,)


def test_blocks_bound_the_memory_and_change_nothing(
    reranker: Reranker, pictures: list[Image.Image], monkeypatch: pytest.MonkeyPatch
) -> None:
    tokens = reranker.image_tokens(pictures)
    whole = reranker.score(QUERY, tokens)
    monkeypatch.setattr(home, "BLOCK_BYTES", 3 * 4 * tokens[0].size)
    assert reranker.block == 3
    sizes: list[int] = []
    match = reranker.retriever.encoder.match
    monkeypatch.setattr(
        reranker.retriever.encoder,
        "match",
        lambda text, mask, image: sizes.append(len(image)) or match(text, mask, image),
    )
    seen: list[tuple[int, int]] = []
    parts = reranker.score(QUERY, tokens, progress=lambda done, total: seen.append((done, total)))
    np.testing.assert_allclose(parts, whole, rtol=1e-5, atol=1e-6)
    assert sizes == [3, 3, 3, 2]
    assert seen == [(3, 11), (6, 11), (9, 11), (11, 11)]
    monkeypatch.setattr(home, "BLOCK_BYTES", 1)
    assert reranker.block == 1


def test_the_tokens_of_many_pictures_lie_in_a_file_without_a_name(
    reranker: Reranker, pictures: list[Image.Image], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    expected = reranker.image_tokens(pictures)
    monkeypatch.setattr(home, "RAM_BYTES", 0)
    monkeypatch.setattr(home.tempfile, "tempdir", str(tmp_path))
    seen: list[tuple[int, int]] = []
    tokens = reranker.image_tokens(pictures, batch_size=4, progress=lambda done, total: seen.append((done, total)))
    assert isinstance(tokens, np.memmap)
    assert seen == [(4, 11), (8, 11), (11, 11)]
    np.testing.assert_allclose(tokens.astype(np.float32), expected.astype(np.float32), atol=2e-3)
    assert not list(tmp_path.iterdir())
    scores = reranker.score(QUERY, tokens[[2, 5]])
    np.testing.assert_allclose(scores, reranker.score(QUERY, expected)[[2, 5]], atol=1e-2)
    del tokens
    gc.collect()  # a file left open would warn here, and a warning is an error


def test_a_folder_is_loaded_and_gives_the_same(tmp_path: Path, reranker: Reranker, pictures: list[Image.Image]) -> None:
    reranker.retriever.save(tmp_path / "model")
    loaded = tipr.Reranker.load(tmp_path / "model", device="cpu")
    tokens = reranker.image_tokens(pictures)
    np.testing.assert_array_equal(loaded.score(QUERY, tokens), reranker.score(QUERY, tokens))


def test_a_model_without_match_head_is_refused_in_one_line(tmp_path: Path) -> None:
    tokenizer = SubwordTokenizer.train(["a"], vocabulary_size=260, max_tokens=8)
    settings = CompactEncoder.Config(
        image_size=(16, 8), widths=(8,), blocks=(1,), image_layers=0, stripes=2, vocabulary_size=260, max_tokens=8,
        text_width=8, text_layers=1, head_width=4, embed_dim=8,
    )  # fmt: skip
    Retriever(CompactEncoder.build(settings), tokenizer, Preprocessing((16, 8))).save(tmp_path / "m")
    with pytest.raises(ConfigError) as error:
        Reranker.load(tmp_path / "m")
    assert str(error.value) == (
        f"model {tmp_path / 'm'} cannot rerank: its encoder 'compact' has no match head; encoders with one: beit_xlmr"
    )


def test_bad_input_is_named(reranker: Reranker, pictures: list[Image.Image]) -> None:
    tokens = reranker.image_tokens(pictures)
    with pytest.raises(ConfigError, match="the query is empty"):
        reranker.score("  ", tokens)
    with pytest.raises(ValueError, match=r"shape \(11, 8, 16\) and type torch.float16; expected \(N, 9, 16\)"):
        reranker.score(QUERY, tokens[:, :8])
    with pytest.raises(ValueError, match=r"type torch\.int64"):
        reranker.score(QUERY, tokens.astype(np.int64))
    with torch.no_grad():
        reranker.retriever.encoder.get_parameter("match_head.3.bias").fill_(float("nan"))
    with pytest.raises(WeightsError, match="match scores that are not finite"):
        reranker.score(QUERY, tokens)


def test_reranking_costs_little_more_than_the_fusion_encoder_itself() -> None:
    """256 candidates: words encoded, half precision widened, match head and copies, beside one bare forward."""
    retriever = matching_retriever(
        image_size=(64, 32), width=128, vision_heads=4, text_heads=4, text_layers=2, text_mlp=512
    )
    reranker = Reranker(retriever)
    rng = np.random.default_rng(0)
    tokens = rng.normal(size=(256, *reranker.token_shape)).astype(np.float16)
    words, mask = (torch.from_numpy(part) for part in retriever.text_tokens([QUERY]))
    pairs = words.expand(256, -1, -1), mask.expand(256, -1), torch.from_numpy(tokens).float(), None

    def bare() -> None:
        with torch.inference_mode():
            retriever.encoder.fusion(*pairs)  # type: ignore[operator]

    def seconds(step: object) -> float:
        start = time.process_time()
        step()  # type: ignore[operator]
        return time.process_time() - start

    bare(), reranker.score(QUERY, tokens)
    rounds = [(seconds(lambda: reranker.score(QUERY, tokens)), seconds(bare)) for _ in range(4)]
    ours, theirs = (min(part) for part in zip(*rounds, strict=True))
    assert ours <= 1.25 * theirs, (ours, theirs)
