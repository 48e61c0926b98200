"""A retriever whose encoder has a projection for each language, and tokens for a second stage."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from tipr.data.images import Preprocessing
from tipr.encoders import BeitXlmrEncoder
from tipr.encoders.tokenizers import SubwordTokenizer
from tipr.errors import WeightsError
from tipr.retrieval import Retriever

CAPTIONS = ["a red coat", "一件红色外套", "une longue veste rouge avec un sac", "ein roter Mantel"]


@pytest.fixture
def retriever() -> Retriever:
    torch.manual_seed(0)
    tokenizer = SubwordTokenizer.train(CAPTIONS, vocabulary_size=270, max_tokens=16)
    encoder = BeitXlmrEncoder.build(
        BeitXlmrEncoder.Config(
            image_size=(32, 16),
            patch=8,
            width=16,
            vision_layers=1,
            vision_heads=2,
            vision_mlp=32,
            text_layers=1,
            text_heads=2,
            text_mlp=32,
            fusion_layers=1,
            max_positions=16,
            max_tokens=16,
            vocabulary_size=tokenizer.vocabulary_size,
            pad_id=tokenizer.pad_id,
            embed_dim=8,
            target_languages=("zh", "fr"),
        )
    )
    for projection in encoder.target_projections.values():
        torch.nn.init.normal_(projection.weight)
    return Retriever(encoder, tokenizer, Preprocessing(encoder.image_size))


def test_each_caption_takes_the_projection_of_its_language(retriever: Retriever) -> None:
    languages = ["en", "zh", "fr", "de"]
    together = retriever.encode_text(CAPTIONS, language=languages, batch_size=3)
    np.testing.assert_allclose(np.linalg.norm(together, axis=1), 1, atol=1e-6)
    for row, (caption, language) in enumerate(zip(CAPTIONS, languages, strict=True)):
        alone = retriever.encode_text([caption], language=language)
        np.testing.assert_allclose(together[row], alone[0], atol=1e-5)
    plain = retriever.encode_text(CAPTIONS)
    np.testing.assert_allclose(plain[[0, 3]], together[[0, 3]], atol=1e-5)  # de has no projection: the source's
    assert np.abs(plain[1:3] - together[1:3]).max(axis=1).min() > 0.1
    np.testing.assert_allclose(retriever.encode_text(CAPTIONS, language="zh")[1], together[1], atol=1e-5)


def test_as_many_languages_as_captions(retriever: Retriever) -> None:
    with pytest.raises(ValueError, match="1 languages for 4 captions"):
        retriever.encode_text(CAPTIONS, language=["zh"])


def test_tokens_are_those_of_the_encoder_in_half_precision(retriever: Retriever) -> None:
    pictures = [Image.effect_noise((16, 32), spread).convert("RGB") for spread in (20, 60, 90)]
    calls: list[tuple[int, int]] = []
    tokens = retriever.image_tokens(pictures, batch_size=2, progress=lambda done, total: calls.append((done, total)))
    assert calls == [(2, 3), (3, 3)]
    assert tokens.shape == (3, *retriever.image_token_shape) == (3, 1 + 4 * 2, 16)
    assert tokens.dtype == np.float16
    with torch.inference_mode():
        expected = retriever.encoder.encode_image(retriever.preprocessing(pictures))
        projected = torch.nn.functional.normalize(retriever.encoder.project_image(expected.pooled), dim=-1)
    np.testing.assert_allclose(tokens, expected.tokens.numpy(), atol=2e-3)
    np.testing.assert_allclose(retriever.encode_images(pictures), projected.numpy(), atol=1e-6)


def test_text_tokens_do_not_depend_on_the_batch(retriever: Retriever) -> None:
    tokens, mask = retriever.text_tokens(CAPTIONS, batch_size=3)
    assert tokens.shape == (4, mask.shape[1], 16)
    assert mask.any(axis=0).all()  # no column is padding alone
    for row, caption in enumerate(CAPTIONS):
        alone, real = retriever.text_tokens([caption])
        assert real.all()
        length = int(mask[row].sum())
        np.testing.assert_allclose(tokens[row, :length], alone[0], atol=1e-5)


def test_tokens_beyond_half_precision_are_reported(retriever: Retriever) -> None:
    with torch.no_grad():
        retriever.encoder.vision_norm.weight.fill_(1e6)  # type: ignore[union-attr,operator]
    with pytest.raises(WeightsError, match="not finite"):
        retriever.image_tokens([Image.effect_noise((16, 32), 90).convert("RGB")])
