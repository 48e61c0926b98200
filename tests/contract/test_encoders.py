"""What every entry of ENCODERS promises."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from small_encoders import SMALL, make_encoder

import tipr.encoders
from tipr.config import Section
from tipr.encoders import ENCODERS, Encoder
from tipr.errors import ConfigError

NOT_ENCODERS = {
    "__init__",
    "base",
    "cross_encoder",
    "relative_positions",
    "tokenizers",
    "clip_tokenizer",
    "xlmr_tokenizer",
    "sentencepiece_file",
}

every_encoder = pytest.mark.parametrize("name", ENCODERS)


def make(name: str) -> Encoder:
    return make_encoder(name).eval()


def captions() -> tuple[torch.Tensor, torch.Tensor]:
    ids = torch.zeros(3, 10, dtype=torch.long)
    for row, length in enumerate((4, 10, 7)):
        ids[row, :length] = torch.tensor([58, *range(5, 3 + length), 59])
    return ids, ids > 0


def test_every_file_is_listed() -> None:
    folder = Path(next(iter(tipr.encoders.__path__)))
    assert {path.stem for path in folder.glob("*.py")} - NOT_ENCODERS == set(ENCODERS)


@every_encoder
def test_config_round_trips(name: str) -> None:
    cls = ENCODERS[name]
    config = cls.Config.model_validate(SMALL[name])
    assert isinstance(config, Section)
    assert cls.name == config.name == name
    assert cls.Config.model_validate_json(config.model_dump_json()) == config
    assert make(name).config == config  # type: ignore[union-attr]


@every_encoder
def test_shapes_dtypes_and_attributes(name: str) -> None:
    encoder, (ids, mask) = make(name), captions()
    assert encoder.image_size == SMALL[name]["image_size"]
    assert (encoder.max_tokens, encoder.vocabulary_size) == (10, 60)
    image, text = encoder.encode_image(torch.randn(2, 3, *encoder.image_size)), encoder.encode_text(ids, mask)
    for encoded, rows in ((image, 2), (text, 3)):
        length = encoded.tokens.shape[1]
        assert encoded.tokens.shape == (rows, length, encoder.width)
        assert encoded.pooled.shape == (rows, encoder.width)
        assert encoded.mask.shape == (rows, length)
        assert encoded.mask.dtype == torch.bool
        assert encoded.tokens.dtype == encoded.pooled.dtype == torch.float32
    assert torch.equal(text.mask, mask)
    assert encoder.project_image(image.pooled).shape == (2, encoder.embed_dim)
    assert encoder.project_text(text.pooled).shape == (3, encoder.embed_dim)


@every_encoder
def test_the_language_picks_the_projection_and_an_unknown_one_uses_the_sources(name: str) -> None:
    encoder = make(name)
    pooled = torch.randn(3, encoder.width)
    common = encoder.project_text(pooled)
    assert torch.equal(encoder.project_text(pooled, "xx"), common)
    assert len(set(encoder.languages)) == len(encoder.languages)
    for language in encoder.languages[1:]:
        assert torch.equal(encoder.project_text(pooled, language), common)  # a copy at the start
        with torch.no_grad():
            encoder.target_projections[language].weight.mul_(-1)  # type: ignore[union-attr,index,operator]
        assert not torch.allclose(encoder.project_text(pooled, language), common)
        assert torch.equal(encoder.project_text(pooled), common)


@every_encoder
def test_pairs_are_matched_or_refused(name: str) -> None:
    encoder, (ids, mask) = make(name), captions()
    with torch.no_grad():
        text, image = encoder.encode_text(ids, mask), encoder.encode_image(torch.randn(3, 3, *encoder.image_size))
        if not encoder.can_rerank:
            with pytest.raises(ConfigError, match=f"encoder {name} has no match head"):
                encoder.match(text.tokens, text.mask, image.tokens)
            return
        together = encoder.match(text.tokens, text.mask, image.tokens)
        alone = encoder.match(text.tokens[:1, :4], text.mask[:1, :4], image.tokens[:1].half())
    assert together.shape == (3, 2)
    assert together.dtype == torch.float32
    torch.testing.assert_close(together[:1], alone, rtol=1e-3, atol=1e-3)


@every_encoder
def test_pooled_does_not_depend_on_padding_or_neighbours(name: str) -> None:
    encoder, (ids, mask) = make(name), captions()
    with torch.no_grad():
        together = encoder.encode_text(ids, mask).pooled
        alone = encoder.encode_text(ids[:1, :4], mask[:1, :4]).pooled
        pixels = torch.randn(3, 3, *encoder.image_size)
        images, image = encoder.encode_image(pixels).pooled, encoder.encode_image(pixels[1:2]).pooled
    torch.testing.assert_close(together[:1], alone, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(images[1:2], image, rtol=1e-4, atol=1e-5)


@every_encoder
def test_bf16_autocast_gives_float32_of_the_same_direction(name: str) -> None:
    encoder, (ids, mask) = make(name), captions()
    with torch.no_grad():
        expected = encoder.encode_text(ids, mask).pooled
        with torch.autocast("cpu", dtype=torch.bfloat16):
            got = encoder.encode_text(ids, mask).pooled
    assert got.dtype == torch.float32
    assert float(torch.cosine_similarity(got, expected).min()) > 0.999


@every_encoder
def test_different_inputs_give_different_features(name: str) -> None:
    encoder, (ids, mask) = make(name), captions()
    other = ids.clone()
    other[:, 1] = 40
    with torch.no_grad():
        assert not torch.allclose(encoder.encode_text(ids, mask).pooled, encoder.encode_text(other, mask).pooled)


@every_encoder
def test_patches_have_a_place_in_the_joint_space(name: str) -> None:
    encoder = make(name)
    pixels = torch.randn(2, 3, *encoder.image_size)
    with torch.inference_mode():
        patches, whole = encoder.patch_features(pixels), encoder.image_features(pixels)
    assert patches.shape == (2, *encoder.grid, encoder.embed_dim)
    assert patches.dtype == torch.float32
    assert torch.allclose(patches.mean((1, 2)), whole, atol=1e-5) == encoder.patches_add_up


@every_encoder
def test_words_look_at_patches_where_there_are_fusion_layers(name: str) -> None:
    encoder, (ids, mask) = make(name), captions()
    text = encoder.encode_text(ids, mask)
    image = encoder.encode_image(torch.randn(3, 3, *encoder.image_size))
    if not encoder.can_rerank:
        with pytest.raises(ConfigError, match="no fusion layers"):
            encoder.attention(text.tokens, text.mask, image.tokens)
        return
    weights = encoder.attention(text.tokens, text.mask, image.tokens.half())
    assert weights.shape == (3, 10, image.tokens.shape[1])
    assert torch.allclose(weights.sum(-1), torch.ones(3, 10), atol=1e-5)
