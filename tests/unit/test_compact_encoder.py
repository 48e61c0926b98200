"""The compact encoder: shapes, what may not influence what, and that it learns."""

from __future__ import annotations

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor, nn
from torch.nn import functional

from tipr.encoders.compact import CompactConfig, CompactEncoder, ScaledConv

SMALL = CompactConfig(
    image_size=(48, 16),
    widths=(8, 16, 16),
    blocks=(1, 1, 1),
    stripes=3,
    vocabulary_size=50,
    max_tokens=12,
    text_width=16,
    head_width=8,
    embed_dim=24,
)


@pytest.fixture
def encoder() -> CompactEncoder:
    torch.manual_seed(0)
    return CompactEncoder.build(SMALL)


def captions(lengths: list[int], size: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    mask = torch.arange(size)[None] < torch.tensor(lengths)[:, None]
    ids = torch.randint(4, 50, (len(lengths), size), generator=generator)
    return ids.masked_fill(~mask, 0), mask


def test_shapes_types_and_mask(encoder: CompactEncoder) -> None:
    image = encoder.encode_image(torch.randn(3, 3, 48, 16))
    assert SMALL.grid == (3, 1)
    assert image.tokens.shape == (3, 3, 24)
    assert image.pooled.shape == (3, 24)
    assert image.mask.all()
    ids, mask = captions([4, 9], 9)
    text = encoder.encode_text(ids, mask)
    assert text.tokens.shape == (2, 9, 24)
    assert text.pooled.shape == (2, 24)
    assert torch.equal(text.mask, mask)


def test_output_is_float32_under_autocast(encoder: CompactEncoder) -> None:
    plain = encoder.encode_image(torch.ones(2, 3, 48, 16))
    ids, mask = captions([4, 9], 9)
    with torch.autocast("cpu", torch.bfloat16):
        image = encoder.encode_image(torch.ones(2, 3, 48, 16))
        text = encoder.encode_text(ids, mask)
    assert {each.dtype for each in (image.tokens, image.pooled, text.tokens, text.pooled)} == {torch.float32}
    assert functional.cosine_similarity(image.pooled, plain.pooled).min() > 0.99


def test_padding_has_no_influence(encoder: CompactEncoder) -> None:
    ids, mask = captions([4, 9, 2], 9)
    short = encoder.encode_text(ids, mask)
    padded, longer = functional.pad(ids, (0, 3), value=17), functional.pad(mask, (0, 3))
    padded[0, 5] = 33
    long = encoder.encode_text(padded, longer)
    torch.testing.assert_close(long.pooled, short.pooled, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(long.tokens[:, :9][mask], short.tokens[mask], rtol=1e-5, atol=1e-6)


def test_samples_do_not_influence_each_other(encoder: CompactEncoder) -> None:
    """The point of having no batch statistics: a share of a batch gives what the whole batch gives."""
    pixels = torch.randn(5, 3, 48, 16)
    ids, mask = captions([4, 9, 2, 7, 5], 9)
    encoder.train()
    torch.testing.assert_close(
        encoder.encode_image(pixels).pooled[2:4], encoder.encode_image(pixels[2:4]).pooled, rtol=1e-5, atol=1e-6
    )
    torch.testing.assert_close(
        encoder.encode_text(ids, mask).pooled[2:4],
        encoder.encode_text(ids[2:4], mask[2:4]).pooled,
        rtol=1e-5,
        atol=1e-6,
    )
    assert not list(encoder.buffers())


def test_brightness_is_visible(encoder: CompactEncoder) -> None:
    """Black, gray and white clothes are the most frequent words: a constant image must not be normalised away."""
    shades = torch.tensor([-1.5, 0.0, 1.5]).view(3, 1, 1, 1).expand(3, 3, 48, 16)
    unit = functional.normalize(encoder.encode_image(shades).pooled, dim=1)
    assert (unit @ unit.T)[~torch.eye(3, dtype=torch.bool)].max() < 0.99


def test_word_order_matters(encoder: CompactEncoder) -> None:
    ids = torch.tensor([[1, 7, 8, 9, 10, 2], [1, 9, 8, 7, 10, 2]])
    pooled = encoder.encode_text(ids, torch.ones_like(ids, dtype=torch.bool)).pooled
    assert (pooled[0] - pooled[1]).abs().max() > 1e-4


def test_scaled_convolution_keeps_unit_variance() -> None:
    torch.manual_seed(0)
    grid = functional.relu(torch.randn(8, 64, 24, 24))
    out = ScaledConv(64, 64)(grid)[:, :, 1:-1, 1:-1]
    assert out.var().item() == pytest.approx(1.0, abs=0.1)
    conv = ScaledConv(64, 64)
    with torch.no_grad():
        before = conv(grid)
        conv.weight.mul_(3.0).add_(0.7)
    torch.testing.assert_close(conv(grid), before, rtol=1e-2, atol=1e-2)


def test_written_out_attention_is_attention() -> None:
    """Against torch's own pre-norm layer with the same weights."""
    torch.manual_seed(0)
    ours = CompactEncoder(SMALL).text.layers[0]
    theirs = nn.TransformerEncoderLayer(16, 2, 64, dropout=0.0, activation="relu", batch_first=True, norm_first=True)
    with torch.no_grad():
        theirs.self_attn.in_proj_weight.copy_(ours.query_key_value.weight)
        theirs.self_attn.in_proj_bias.copy_(ours.query_key_value.bias)
        for mine, other in (
            (ours.attention_out, theirs.self_attn.out_proj),
            (ours.mlp_in, theirs.linear1),
            (ours.mlp_out, theirs.linear2),
        ):
            other.weight.copy_(mine.weight)
            other.bias.copy_(mine.bias)
    from tipr.encoders.compact import Places

    _, mask = captions([4, 9, 6], 9)
    tokens = torch.randn(3, 9, 16)
    places = Places(3, 9, mask)
    wanted = theirs(tokens, src_key_padding_mask=~mask)
    torch.testing.assert_close(ours(places.collect(tokens), places), wanted[mask], rtol=1e-5, atol=1e-5)


def test_every_parameter_learns(encoder: CompactEncoder) -> None:
    image = encoder.encode_image(torch.randn(4, 3, 48, 16))
    text = encoder.encode_text(*captions([4, 9, 6, 12], 12))
    sum((each * torch.randn_like(each)).sum() for each in (*image[:2], *text[:2])).backward()
    still = [name for name, p in encoder.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    assert still == []


def test_two_towers_fit_a_toy_pairing(encoder: CompactEncoder) -> None:
    """The corners of the colour cube and their words: ITC finds every pair after a few steps."""
    torch.manual_seed(0)
    colour = 1.2 * torch.cartesian_prod(*[torch.tensor([-1.0, 1.0])] * 3)
    ids = torch.tensor([[1, 10 + word, 2] for word in range(8)])
    mask = torch.ones_like(ids, dtype=torch.bool)
    optimizer = torch.optim.AdamW(encoder.parameters(), lr=3e-3)
    for _ in range(60):
        pixels = colour.view(8, 3, 1, 1) + 0.2 * torch.randn(8, 3, 48, 16)
        image = functional.normalize(encoder.encode_image(pixels).pooled, dim=1)
        text = functional.normalize(encoder.encode_text(ids, mask).pooled, dim=1)
        logits = 10 * image @ text.T
        optimizer.zero_grad()
        (
            functional.cross_entropy(logits, torch.arange(8)) + functional.cross_entropy(logits.T, torch.arange(8))
        ).backward()
        optimizer.step()
    assert torch.equal(logits.argmax(1), torch.arange(8))


def test_weights_load_strictly(encoder: CompactEncoder) -> None:
    again = CompactEncoder.build(SMALL)
    again.load_state_dict(encoder.state_dict())
    pixels = torch.randn(2, 3, 48, 16)
    assert torch.equal(again.encode_image(pixels).pooled, encoder.encode_image(pixels).pooled)
    with pytest.raises(RuntimeError, match="Missing key"):
        again.load_state_dict({key: value for key, value in encoder.state_dict().items() if key != "text.norm.bias"})


def test_shipped_size_fits_in_half_precision() -> None:
    count = sum(parameter.numel() for parameter in CompactEncoder(CompactConfig()).parameters())
    assert count * 2 < 12_000_000


def test_other_sizes_are_refused(encoder: CompactEncoder) -> None:
    with pytest.raises(ValueError, match=r"\(B, 3, 48, 16\)"):
        encoder.encode_image(torch.zeros(1, 3, 96, 32))
    with pytest.raises(ValueError, match="L <= 12"):
        encoder.encode_text(torch.zeros(1, 13, dtype=torch.int64), torch.ones(1, 13, dtype=torch.bool))
    with pytest.raises(ValueError, match="both be"):
        encoder.encode_text(torch.zeros(1, 5, dtype=torch.int64), torch.ones(1, 6, dtype=torch.bool))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"image_size": (50, 16)}, "multiples of 16"),
        ({"blocks": (1, 1)}, "each of the 3 widths"),
        ({"blocks": (1, -1, 1)}, "at least 0"),
        ({"stripes": 2}, "divide the 3 rows"),
        ({"head_width": 12}, "head_width must divide"),
        ({"widths": ()}, "at least 1 item"),
        ({"depth": 3}, "Extra inputs"),
    ],
)
def test_sizes_that_do_not_fit_are_refused(change: dict[str, object], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        CompactConfig.model_validate({**SMALL.model_dump(), **change})
