"""Several captions of each image in a step: which captions, which rows, and the same losses as repeated images."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from tipr.config import parse
from tipr.data.batch import IGNORE, TrainBatch
from tipr.data.sampling import RandomSampler
from tipr.encoders.compact import CompactConfig, CompactEncoder
from tipr.errors import ConfigError
from tipr.methods import METHODS, StepContext, TrainingFacts
from tipr.training.run_config import Data

IMAGES, EACH = 12, 3


def sampler(counts: list[int]) -> RandomSampler:
    image_id = np.repeat(np.arange(len(counts)), counts)
    return RandomSampler(image_id // 2, image_id, batch_size=4, seed=3, unit="image")


def test_captions_belong_to_their_image_and_differ() -> None:
    chosen = sampler([8] * IMAGES)
    rows = chosen.rows(1)
    captions = chosen.captions(1, rows, 4)
    assert captions.shape == (IMAGES, 4)
    assert (captions // 8 == (rows // 8)[:, None]).all()
    assert all(len(set(row)) == 4 for row in captions.tolist())
    assert not np.array_equal(captions, chosen.captions(2, rows, 4))
    assert np.array_equal(captions[::-1], chosen.captions(1, rows[::-1], 4)), "a function of the image alone"


def test_all_captions_come_up_alike() -> None:
    chosen = sampler([5] * 200)
    captions = chosen.captions(1, chosen.rows(1), 2) % 5
    shares = np.bincount(captions.flatten(), minlength=5) / captions.size
    assert np.abs(shares - 0.2).max() < 0.07


def test_images_with_few_captions_repeat_them() -> None:
    chosen = sampler([1, 2, 5])
    captions = chosen.captions(1, chosen.rows(1), 3)
    assert set(captions[0].tolist()) == {0}
    assert set(captions[1].tolist()) == {1, 2}
    assert len(set(captions[2].tolist())) == 3


def batch(generator: torch.Generator) -> TrainBatch:
    rows = IMAGES * EACH
    ids = torch.randint(4, 60, (rows, 9), generator=generator)
    labels = torch.full_like(ids, IGNORE)
    labels[:, 2] = ids[:, 2]
    masked = ids.clone()
    masked[:, 2] = 3
    return TrainBatch(
        pixels=torch.randn(IMAGES, 3, 48, 16, generator=generator),
        ids=ids,
        mask=torch.ones_like(ids, dtype=torch.bool),
        masked_ids=masked,
        mlm_labels=labels,
        identity=(torch.arange(IMAGES) // 2).repeat_interleave(EACH),
        row=torch.arange(rows),
    )


def encoder() -> CompactEncoder:
    torch.manual_seed(0)
    config = CompactConfig(
        image_size=(48, 16),
        widths=(8, 16),
        blocks=(0, 0),
        stripes=3,
        vocabulary_size=60,
        max_tokens=9,
        text_width=16,
        head_width=8,
        embed_dim=16,
    )
    return CompactEncoder.build(config)


def step(name: str, settings: dict[str, object], given: TrainBatch) -> tuple[dict[str, Tensor], list[Tensor]]:
    kind = METHODS[name]
    torch.manual_seed(1)
    method = kind.build(
        kind.Config(**settings), encoder(), TrainingFacts(pairs=0, mask_id=3, vocabulary_size=60, identities=IMAGES)
    )
    output = method(given, StepContext())
    sum(output.losses.values()).backward()
    return output.losses, [parameter.grad for parameter in method.parameters() if parameter.grad is not None]


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("irra", {"losses": ("sdm", "id", "mlm", "itc", "cmpm"), "depth": 1}),
        ("irra", {"losses": ("itc",), "itc_targets": "identity", "learnable_temperature": True, "temperature": 0.07}),
        ("clip_baseline", {"soft_targets": True}),
    ],
)
def test_a_step_equals_the_step_with_repeated_images(name: str, settings: dict[str, object]) -> None:
    given = batch(torch.Generator().manual_seed(0))
    repeated = replace(given, pixels=given.pixels.repeat_interleave(EACH, dim=0))
    assert (given.captions_per_image, repeated.captions_per_image) == (EACH, 1)
    losses, gradients = step(name, settings, given)
    expected, expected_gradients = step(name, settings, repeated)
    assert losses.keys() == expected.keys()
    for term, loss in losses.items():
        torch.testing.assert_close(loss, expected[term], rtol=1e-5, atol=1e-6)
    for one, other in zip(gradients, expected_gradients, strict=True):
        torch.testing.assert_close(one, other, rtol=2e-4, atol=2e-5)


def test_identity_targets_and_learnt_temperature_change_the_loss() -> None:
    given = batch(torch.Generator().manual_seed(0))
    diagonal, _ = step("irra", {"losses": ("itc",)}, given)
    identity, _ = step("irra", {"losses": ("itc",), "itc_targets": "identity"}, given)
    assert not torch.isclose(diagonal["itc"], identity["itc"])
    kind = METHODS["irra"]
    method = kind.build(
        kind.Config(losses=("itc",), learnable_temperature=True),
        encoder(),
        TrainingFacts(pairs=0, mask_id=3, vocabulary_size=60, identities=4),
    )
    assert method.learning_rate_factor("log_scale", method.log_scale) == (1.0, 0.0)
    output = method(given, StepContext())
    torch.testing.assert_close(output.logs["temperature"], torch.tensor(0.02))
    output.losses["itc"].backward()
    assert method.log_scale.grad is not None


def test_several_captions_need_image_epochs() -> None:
    with pytest.raises(ConfigError, match="captions_per_image above 1 needs epoch_unit: image"):
        parse({"dataset": "synthetic", "root": "x", "captions_per_image": 2}, Data, source="test")
