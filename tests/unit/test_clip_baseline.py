"""The contrastive baseline: which caption, which target, which temperature."""

from __future__ import annotations

import math
from typing import ClassVar

import pytest
import torch
from torch import Tensor, nn

from tipr.config import parse
from tipr.data.batch import TrainBatch
from tipr.encoders.base import Encoded, Encoder
from tipr.errors import ConfigError
from tipr.losses import itc_loss
from tipr.methods import ClipBaseline, StepContext, TrainingFacts
from tipr.methods.clip_baseline import ClipBaselineConfig


class Flat(Encoder):
    """Means of channels and of word vectors."""

    name: ClassVar[str] = "flat"

    def __init__(self) -> None:
        super().__init__()
        self.embed_dim, self.image_size, self.max_tokens, self.vocabulary_size = 8, (4, 4), 5, 20
        self.pixel, self.word = nn.Linear(3, 8), nn.Embedding(20, 8)

    def encode_image(self, pixels: Tensor) -> Encoded:
        tokens = self.pixel(pixels.flatten(2).transpose(1, 2))
        return Encoded(tokens, tokens.mean(1), torch.ones(tokens.shape[:2], dtype=torch.bool))

    def encode_text(self, ids: Tensor, mask: Tensor) -> Encoded:
        tokens = self.word(ids)
        return Encoded(tokens, tokens.mean(1), mask)


def make(**settings: object) -> ClipBaseline:
    torch.manual_seed(0)
    config = parse(settings, ClipBaselineConfig, source="test")
    return ClipBaseline.build(config, Flat(), TrainingFacts(pairs=0, mask_id=3, vocabulary_size=20, identities=2))


def make_batch() -> TrainBatch:
    g = torch.Generator().manual_seed(0)
    ids = torch.randint(4, 20, (3, 5), generator=g)
    mask = torch.ones_like(ids, dtype=torch.bool)
    pixels = torch.randn(3, 3, 4, 4, generator=g)
    return TrainBatch(
        pixels, ids, mask, torch.full_like(ids, 3), torch.full_like(ids, -100), torch.tensor([0, 0, 1]), torch.arange(3)
    )


def pooled(method: ClipBaseline, batch: TrainBatch) -> tuple[Tensor, Tensor]:
    return method.encoder.encode_image(batch.pixels).pooled, method.encoder.encode_text(batch.ids, batch.mask).pooled


def test_it_contrasts_clean_captions() -> None:
    method, batch = make(), make_batch()
    output = method(batch, StepContext())
    assert list(output.losses) == ["itc"]
    assert output.logs == {}
    torch.testing.assert_close(output.losses["itc"], itc_loss(*pooled(method, batch), temperature=0.02))
    assert not method.uses_mlm


def test_soft_targets_use_the_identity() -> None:
    method, batch = make(soft_targets=True), make_batch()
    expected = itc_loss(*pooled(method, batch), temperature=0.02, identity=batch.identity)
    torch.testing.assert_close(method(batch, StepContext()).losses["itc"], expected)
    assert float((expected - itc_loss(*pooled(method, batch), temperature=0.02)).detach().abs()) > 1e-3


def test_learnt_temperature_starts_where_told_and_stops_at_clips_ceiling() -> None:
    method, batch = make(learnable_temperature=True, temperature=0.07), make_batch()
    output = method(batch, StepContext())
    assert float(output.logs["temperature"]) == pytest.approx(0.07)
    output.losses["itc"].backward()
    assert method.log_scale.grad is not None
    assert float(method.log_scale.grad.abs()) > 0
    with torch.no_grad():
        method.log_scale.fill_(math.log(1e6))
    assert float(method(batch, StepContext()).logs["temperature"]) == pytest.approx(0.01)


def test_learning_rate_rules() -> None:
    method = make(learnable_temperature=True)
    assert {name: method.learning_rate_factor(name, each) for name, each in method.named_parameters()} == {
        "log_scale": (1, 0),
        "encoder.pixel.weight": (1, 1),
        "encoder.pixel.bias": (2, 0),
        "encoder.word.weight": (1, 1),
    }


def test_gathered_rows_are_contrasted() -> None:
    method, batch = make(), make_batch()
    output = method(batch, StepContext(gather=lambda rows: torch.cat([rows, rows.flip(0)])))
    image, text = pooled(method, batch)
    expected = itc_loss(torch.cat([image, image.flip(0)]), torch.cat([text, text.flip(0)]), temperature=0.02)
    torch.testing.assert_close(output.losses["itc"], expected)


def test_too_small_a_temperature_is_refused() -> None:
    with pytest.raises(ConfigError, match="temperature"):
        make(temperature=0.001)
