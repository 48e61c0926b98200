"""The CLIP encoder: shapes, position tables, pooling, what the text mask does, real sizes on the meta device."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch

from tipr.config import parse
from tipr.encoders.clip import ClipConfig, ClipEncoder, resize_image_positions, resize_text_positions
from tipr.errors import ConfigError

TINY = {
    "image_size": (48, 32),
    "patch_size": 16,
    "vision_width": 32,
    "vision_layers": 2,
    "vision_heads": 2,
    "text_width": 24,
    "text_layers": 2,
    "text_heads": 2,
    "embed_dim": 16,
    "max_tokens": 12,
    "vocabulary_size": 40,
}


def tiny(**changes: object) -> ClipEncoder:
    torch.manual_seed(0)
    return ClipEncoder.build(ClipConfig.model_validate({**TINY, **changes})).eval()


def captions() -> tuple[torch.Tensor, torch.Tensor]:
    ids = torch.zeros(2, 12, dtype=torch.long)
    ids[0, :6] = torch.tensor([38, 3, 4, 5, 6, 39])
    ids[1, :4] = torch.tensor([38, 7, 8, 39])
    return ids, ids > 0


def test_all_tokens_are_projected_and_pooled_is_one_of_them() -> None:
    encoder, (ids, mask) = tiny(), captions()
    image = encoder.encode_image(torch.randn(2, 3, 48, 32))
    text = encoder.encode_text(ids, mask)
    assert image.tokens.shape == (2, 1 + 3 * 2, 16)
    assert image.mask.shape == (2, 7)
    assert image.mask.all()
    assert text.tokens.shape == (2, 12, 16)
    assert torch.equal(image.pooled, image.tokens[:, 0])
    assert torch.equal(text.pooled, text.tokens[[0, 1], [5, 3]])
    assert text.mask is mask
    assert float(text.pooled.norm(dim=1).detach().sub(1).abs().min()) > 1e-3  # un-normalised


def test_text_mask_changes_nothing() -> None:
    encoder, (ids, mask) = tiny(), captions()
    a, b = encoder.encode_text(ids, mask), encoder.encode_text(ids, torch.ones_like(mask))
    assert torch.equal(a.tokens, b.tokens)


def test_padding_and_trimming_do_not_reach_the_pooled_token() -> None:
    encoder, (ids, mask) = tiny(), captions()
    full, cut = encoder.encode_text(ids, mask), encoder.encode_text(ids[:, :6], mask[:, :6])
    torch.testing.assert_close(full.pooled, cut.pooled)
    other = ids.clone()
    other[1, 6:] = 9
    torch.testing.assert_close(encoder.encode_text(other, mask).pooled, full.pooled)


def test_last_token_pooling_serves_vocabularies_with_a_small_end_id() -> None:
    ids, mask = captions()
    ids[0, 5] = ids[1, 3] = 2
    largest, last = tiny().encode_text(ids, mask), tiny(text_pooling="last_token").encode_text(ids, mask)
    assert torch.equal(last.pooled, last.tokens[[0, 1], [5, 3]])
    assert torch.equal(largest.pooled, largest.tokens[:, 0])  # the start token: wrong for such a vocabulary


def test_patches_run_row_by_row_through_the_position_table() -> None:
    encoder = tiny()
    embeddings = encoder.vision_model.embeddings
    with torch.no_grad():
        embeddings.patch_embedding.weight.zero_()
        embeddings.patch_embedding.weight[0, 0] = 1 / 256
    pixels = torch.zeros(1, 3, 48, 32)
    pixels[0, 0, 16:32, 0:16] = 7  # second row, first column
    patches = embeddings(pixels)[0, 1:, 0] - embeddings.position_embedding.weight[1:, 0]
    torch.testing.assert_close(patches.detach(), torch.tensor([0.0, 0, 7, 0, 0, 0]))


def test_sdpa_and_eager_agree() -> None:
    ids, mask = captions()
    pixels = torch.randn(2, 3, 48, 32)
    a, b = tiny(attention="sdpa"), tiny(attention="eager")
    torch.testing.assert_close(a.encode_image(pixels).tokens, b.encode_image(pixels).tokens, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(a.encode_text(ids, mask).tokens, b.encode_text(ids, mask).tokens, rtol=1e-5, atol=1e-5)


def test_every_parameter_learns() -> None:
    encoder, (ids, mask) = tiny(), captions()
    (
        encoder.encode_image(torch.randn(2, 3, 48, 32)).tokens.sum() + encoder.encode_text(ids, mask).tokens.sum()
    ).backward()
    assert all(p.grad is not None for p in encoder.parameters())
    rows = encoder.vision_model.embeddings.position_embedding.weight.grad
    assert rows is not None
    assert (rows.abs().sum(dim=1) > 0).all()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_low_precision_weights_and_autocast_give_float32(dtype: torch.dtype) -> None:
    ids, mask = captions()
    pixels = torch.randn(2, 3, 48, 32)
    expected = tiny().encode_image(pixels).pooled
    low = tiny().to(dtype)
    for encoded in (low.encode_image(pixels), low.encode_text(ids, mask)):
        assert encoded.tokens.dtype == encoded.pooled.dtype == torch.float32
    with torch.autocast("cpu", dtype=dtype):
        auto = tiny().encode_image(pixels).pooled
    assert auto.dtype == torch.float32
    for got in (low.encode_image(pixels).pooled, auto):
        assert float(torch.cosine_similarity(got, expected).min().detach()) > 0.999


def test_overlapping_patches() -> None:
    encoder = tiny(patch_stride=8)
    assert encoder.config.grid == (5, 3)
    assert encoder.encode_image(torch.randn(1, 3, 48, 32)).tokens.shape == (1, 16, 16)


def test_real_size_on_the_meta_device() -> None:
    with torch.device("meta"):
        encoder = ClipEncoder.build(ClipConfig())
        image = encoder.encode_image(torch.zeros(2, 3, 384, 128))
        text = encoder.encode_text(torch.zeros(2, 77, dtype=torch.long), torch.ones(2, 77, dtype=torch.bool))
    assert encoder.config.grid == (24, 8)
    assert image.tokens.shape == (2, 193, 512)
    assert text.tokens.shape == (2, 77, 512)
    assert sum(p.numel() for p in encoder.parameters()) == 149_617_664
    assert {encoder.config.heads("vision"), encoder.config.heads("text")} == {12, 8}


def test_state_dict_keys_are_the_librarys() -> None:
    from transformers import CLIPConfig
    from transformers.models.clip.modeling_clip import CLIPModel

    sizes = {"num_hidden_layers": 2, "num_attention_heads": 2}
    stock = CLIPModel(
        CLIPConfig(
            text_config={**sizes, "hidden_size": 24, "vocab_size": 40, "bos_token_id": 38, "eos_token_id": 39},
            vision_config={**sizes, "hidden_size": 32, "image_size": 48},
            projection_dim=16,
        )
    )
    assert {*tiny().state_dict(), "logit_scale"} == set(stock.state_dict())


def test_transformers_is_imported_only_when_an_encoder_is_made() -> None:
    code = "import sys, tipr.encoders, tipr.methods; sys.exit('transformers' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_image_positions_keep_the_class_row_and_resize_bilinearly() -> None:
    # a table that is linear in row and column stays linear in the middle, and ends are kept by clamping
    rows, columns = torch.meshgrid(torch.arange(4.0), torch.arange(4.0), indexing="ij")
    table = torch.cat([torch.tensor([[9.0, -9.0]]), torch.stack([rows.flatten(), columns.flatten()], dim=1)])
    resized = resize_image_positions(table, (4, 4), (8, 2))
    assert resized.shape == (17, 2)
    assert resized[0].tolist() == [9, -9]
    grid = resized[1:].view(8, 2, 2)
    # half-pixel centres: row centres of 8 on 4 lie at (i + 0.5) / 2 - 0.5, clamped to [0, 3]
    torch.testing.assert_close(grid[:, 0, 0], torch.tensor([0, 0.25, 0.75, 1.25, 1.75, 2.25, 2.75, 3]))
    torch.testing.assert_close(grid[0, :, 1], torch.tensor([0.5, 2.5]))
    assert resize_image_positions(table, (4, 4), (4, 4)) is table


def test_text_positions_keep_both_ends() -> None:
    table = torch.arange(6.0)[:, None] * torch.tensor([1.0, 10.0])
    longer = resize_text_positions(table, 10)
    assert longer.shape == (10, 2)
    assert longer[0].tolist() == [0, 0]
    assert longer[-1].tolist() == [5, 50]
    torch.testing.assert_close(longer[1:-1, 0], torch.tensor([1, 1.25, 1.75, 2.25, 2.75, 3.25, 3.75, 4]))
    assert resize_text_positions(table, 6) is table
    assert resize_text_positions(table.half(), 9).dtype == torch.float16


def test_wrong_shapes_are_named() -> None:
    encoder, (ids, mask) = tiny(), captions()
    with pytest.raises(ValueError, match=r"pixels must be \(B, 3, 48, 32\), got \(1, 3, 32, 48\)"):
        encoder.encode_image(torch.zeros(1, 3, 32, 48))
    with pytest.raises(ValueError, match=r"L <= 12, got \(2, 24\)"):
        encoder.encode_text(ids.repeat(1, 2), mask.repeat(1, 2))
    with pytest.raises(ValueError, match=r"a 4x4 grid needs \(1 \+ 16, D\), got \(16, 2\)"):
        resize_image_positions(torch.zeros(16, 2), (4, 4), (8, 2))
    with pytest.raises(ValueError, match="at least 3 rows"):
        resize_text_positions(torch.zeros(2, 2), 5)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"image_size": (8, 32)}, "smaller than one patch of 16"),
        ({"vision_heads": 5}, "vision_width 32 is not a multiple of vision_heads 5"),
        ({"text_heads": 7}, "text_width 24 is not a multiple of text_heads 7"),
        ({"attention": "flash"}, "attention"),
        ({"layers": 3}, "layers: unknown key"),
    ],
)
def test_impossible_sizes_are_refused(change: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        parse({**TINY, **change}, ClipConfig, source="test")
