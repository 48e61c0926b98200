"""The BEiT and XLM-R encoder: relative positions on any grid, first weights, drop path, what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError

from tipr.encoders import BeitXlmrEncoder
from tipr.encoders.beit_xlmr import BeitXlmrConfig
from tipr.encoders.relative_positions import RelativePositions

TINY = Path(__file__).parents[1] / "data" / "golden_bi_irra" / "tiny_finetuned.pth"
SMALL: dict[str, Any] = {
    "image_size": (24, 40),
    "patch": 8,
    "width": 16,
    "vision_layers": 3,
    "vision_heads": 2,
    "vision_mlp": 32,
    "text_layers": 2,
    "text_heads": 2,
    "text_mlp": 32,
    "fusion_layers": 2,
    "max_positions": 20,
    "max_tokens": 12,
    "vocabulary_size": 50,
    "embed_dim": 8,
}


def encoder(**changes: Any) -> BeitXlmrEncoder:
    torch.manual_seed(0)
    return BeitXlmrEncoder.build(BeitXlmrConfig.model_validate(SMALL | changes))


def test_the_index_of_the_published_grid_is_the_published_one() -> None:
    state = torch.load(TINY, weights_only=True)["state_dict"]
    published = state["vision_encoder.blocks.0.attn.relative_position_index"]
    assert torch.equal(RelativePositions((14, 14), 2).index, published)


@pytest.mark.parametrize("grid", [(3, 5), (5, 3), (1, 4), (4, 1), (1, 1)])
def test_every_offset_of_a_grid_has_a_row_of_its_own(grid: tuple[int, int]) -> None:
    rows, columns = grid
    positions = RelativePositions(grid, heads=2)
    with torch.no_grad():
        positions.relative_position_bias_table.copy_(torch.randn_like(positions.relative_position_bias_table))
        bias = positions()[0, 1]
    cells = [(row, column) for row in range(rows) for column in range(columns)]
    seen: dict[Any, float] = {}
    for i, one in enumerate([None, *cells]):
        for j, two in enumerate([None, *cells]):
            if one is None or two is None:
                kind: Any = (one is None, two is None)  # class to patch, patch to class, class to class
            else:
                kind = one[0] - two[0], one[1] - two[1], "cells"
            assert seen.setdefault(kind, float(bias[i, j])) == float(bias[i, j])
    assert len(set(seen.values())) == len(seen) == len(positions.relative_position_bias_table)


def test_the_library_would_get_grids_that_are_not_square_wrong() -> None:
    """Why the module is ours: the library interpolates a table of 5x9 offsets as if it were 9x5."""
    from transformers import BeitConfig
    from transformers.models.beit.modeling_beit import BeitRelativePositionBias

    theirs = BeitRelativePositionBias(BeitConfig(image_size=(24, 40), patch_size=8, num_attention_heads=2))
    ours = RelativePositions((3, 5), heads=2)
    table = torch.randn(ours.relative_position_bias_table.shape)
    with torch.no_grad():
        theirs.relative_position_bias_table.copy_(table)
        ours.relative_position_bias_table.copy_(table)
        assert theirs((3, 5)).shape == ours().shape
        assert not torch.allclose(theirs((3, 5)), ours(), atol=0.1)


def test_the_global_image_token_is_the_mean_of_normalised_patches() -> None:
    model = encoder().eval()
    torch.nn.init.normal_(model.vision_norm.weight)
    with torch.no_grad():
        image = model.encode_image(torch.randn(2, 3, 24, 40))
    assert model.grid == (3, 5)
    assert image.tokens.shape == (2, 16, 16)
    torch.testing.assert_close(image.pooled, image.tokens[:, 1:].mean(1))
    assert torch.equal(image.pooled, image.tokens[:, 0])


def test_hidden_patches_tell_nothing_but_their_place() -> None:
    model = encoder().eval()
    pixels = torch.randn(1, 3, 24, 40)
    other = pixels.clone()
    other[:, :, :8, :8] = 5  # the first patch
    hidden = torch.zeros(3, 5, dtype=torch.bool)
    hidden[0, 0] = True
    with torch.no_grad():
        assert torch.equal(model.encode_image(pixels, hidden).tokens, model.encode_image(other, hidden).tokens)
        assert not torch.allclose(model.encode_image(pixels).tokens, model.encode_image(other).tokens)


def test_first_weights() -> None:
    model = encoder(width=256, vision_heads=4, text_heads=4, target_languages=("zh", "fr"))
    embeddings = model.vision.embeddings
    for token in (embeddings.cls_token, embeddings.mask_token, model.text.embeddings.position_embeddings.weight):
        assert 0.015 < token.std().item() < 0.025
    for layer in model.fusion.layers:
        spread = layer.crossattention.self.key.weight.std().item()
        assert spread == pytest.approx(0.02 * (768 / 256) ** 0.5, rel=0.1)  # BERT's 0.02 at its width
        assert not layer.crossattention.self.key.bias.any()
    for projection in model.target_projections.values():
        assert torch.equal(projection.weight, model.text_projection.weight)
        assert projection.weight is not model.text_projection.weight


def test_drop_path_rises_from_nothing_and_acts_in_training_alone() -> None:
    model = encoder(drop_path=0.4)
    rates = [getattr(layer.drop_path, "drop_prob", 0.0) for layer in model.vision.layers]
    assert rates == pytest.approx([0, 0.2, 0.4])
    pixels = torch.randn(2, 3, 24, 40)
    with torch.no_grad():
        assert not torch.equal(model.encode_image(pixels).tokens, model.encode_image(pixels).tokens)
        model.eval()
        assert torch.equal(model.encode_image(pixels).tokens, model.encode_image(pixels).tokens)


def test_padding_is_no_word_and_every_position_of_a_token_is_trained() -> None:
    ids, mask = torch.randint(4, 50, (2, 9)), torch.ones(2, 9, dtype=torch.bool)
    ids[1, 5:], mask[1, 5:] = 1, False
    for offset in (0, 2):
        model = encoder(position_offset=offset).eval()
        with torch.no_grad():
            assert torch.equal(model.word_embeddings.weight[1], torch.zeros(16))
        model.encode_text(ids, mask).pooled.pow(3).sum().backward()
        gradient = model.text.embeddings.position_embeddings.weight.grad
        used = gradient.abs().amax(1) > 0
        assert used.nonzero().flatten().tolist() == list(range(offset, 9 + offset))


def test_both_directions_of_fusion_share_weights_and_see_real_tokens_only() -> None:
    model = encoder().eval()
    text, image = torch.randn(2, 9, 16), torch.randn(2, 16, 16)
    mask = torch.arange(9)[None] < torch.tensor([[9], [4]])
    with torch.no_grad():
        read = model.fusion(text, mask, image, None)
        looked = model.fusion(image, None, text, mask)
        assert (read.shape, looked.shape) == ((2, 9, 16), (2, 16, 16))
        alone = model.fusion(text[1:, :4], None, image[1:], None), model.fusion(image[1:], None, text[1:, :4], None)
        torch.testing.assert_close(read[1:, :4], alone[0], rtol=0, atol=1e-5)
        torch.testing.assert_close(looked[1:], alone[1], rtol=0, atol=1e-5)
        logits = model.match(text, mask, image)
        torch.testing.assert_close(logits, model.match_head(read[:, 0]))


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_autocast_gives_float32_of_the_same_direction(attention: str) -> None:
    model = encoder(attention=attention).eval()
    pixels, hidden = torch.randn(2, 3, 24, 40), torch.arange(15) < 7
    ids, mask = torch.randint(4, 50, (2, 9)), torch.arange(9)[None] < torch.tensor([[9], [4]])

    def passes() -> list[torch.Tensor]:
        image, text = model.encode_image(pixels, hidden), model.encode_text(ids, mask)
        fused = model.fusion(image.tokens, None, text.tokens, text.mask)
        return [
            image.tokens,
            text.tokens,
            fused,
            model.match(text.tokens, mask, image.tokens),
            model.project_image(image.pooled),
        ]

    with torch.no_grad():
        exact = passes()
        with torch.autocast("cpu", dtype=torch.bfloat16):
            fast = passes()
    for one, two in zip(exact, fast, strict=True):
        assert one.dtype == two.dtype == torch.float32
        assert torch.cosine_similarity(one.flatten(), two.flatten(), dim=0).item() > 0.999


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"image_size": (20, 40)}, "must be multiples of patch 8"),
        ({"text_heads": 3}, "width 16 is not a multiple of text_heads 3"),
        ({"fusion_heads": 5}, "not a multiple of fusion_heads 5"),
        ({"max_positions": 13, "position_offset": 2}, "needs max_positions of at least 14"),
        ({"pad_id": 50}, "pad_id 50 is not below vocabulary_size 50"),
        ({"target_languages": ("zh", "zh")}, "name one twice: en, zh, zh"),
        ({"source_language": "zh"}, "name one twice: zh, zh"),
    ],
)
def test_sizes_that_do_not_fit_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        BeitXlmrConfig.model_validate(SMALL | changes)


def test_inputs_of_another_shape_are_refused() -> None:
    model = encoder()
    for wrong in (torch.zeros(2, 3, 40, 24), torch.zeros(3, 24, 40), torch.zeros(2, 1, 24, 40)):
        with pytest.raises(ValueError, match=r"pixels must be \(B, 3, 24, 40\)"):
            model.encode_image(wrong)
    ids = torch.zeros(2, 13, dtype=torch.long)
    for mask in (torch.ones(2, 13, dtype=torch.bool), torch.ones(2, 5, dtype=torch.bool)):
        with pytest.raises(ValueError, match="L <= 12"):
            model.encode_text(ids, mask)
