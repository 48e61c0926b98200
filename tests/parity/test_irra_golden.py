"""IRRA against tensors from the original code: features, losses, gradient norms, four optimiser steps.

The mutation tests at the end prove that these assertions see the mistakes that they are there for.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from tipr.data.batch import IGNORE, TrainBatch
from tipr.encoders.base import Encoded
from tipr.importers import read
from tipr.losses import cmpm_loss, itc_loss
from tipr.methods import Irra, StepContext
from tipr.methods.irra import IrraConfig
from tipr.training.optim import build_optimizer, parameter_groups, rate_factor, set_rate
from tipr.training.run_config import Optimizer, Schedule

GOLDEN = Path(__file__).parents[1] / "data" / "golden_irra"
EXPECTED: dict[str, Any] = json.loads((GOLDEN / "expected.json").read_text())
CLOSE = 1e-5
TRAJECTORY = 1e-4


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def tensors() -> dict[str, Tensor]:
    with np.load(GOLDEN / "tensors.npz") as stored:
        return {name: torch.from_numpy(stored[name]) for name in stored}


@pytest.fixture(scope="module")
def batch(tensors: dict[str, Tensor]) -> TrainBatch:
    ids = tensors["caption_ids"]
    return TrainBatch(
        pixels=tensors["pixels_times_64"].float() / 64,
        ids=ids,
        mask=torch.arange(ids.shape[1])[None] <= ids.argmax(dim=1, keepdim=True),
        masked_ids=tensors["mlm_ids"],
        mlm_labels=tensors["mlm_labels"].masked_fill(tensors["mlm_labels"] == 0, IGNORE),
        identity=tensors["person_ids"],
        row=torch.arange(len(ids)),
    )


def load(**changes: Any) -> Irra:
    method = read("irra", GOLDEN / "tiny.pth")
    assert isinstance(method, Irra)
    assert not method.training
    # the stored losses use the clean captions
    method.config = IrraConfig.model_validate({**method.config.model_dump(), "global_caption": "clean", **changes})
    return method


def relative(got: Tensor | float, expected: Tensor | float) -> float:
    """Largest difference over the largest expected magnitude."""
    got, expected = torch.as_tensor(got).detach().double(), torch.as_tensor(expected).double()
    return float((got - expected).abs().max() / expected.abs().max())


def gradient_norms(method: Irra) -> dict[str, float]:
    """Gradient norms under the published names (query, key and value of the towers fused again)."""
    names = {
        "vision_model.embeddings.class_embedding": "visual.class_embedding",
        "vision_model.embeddings.patch_embedding.weight": "visual.conv1.weight",
        "vision_model.embeddings.position_embedding.weight": "visual.positional_embedding",
        "text_model.embeddings.token_embedding.weight": "token_embedding.weight",
        "text_model.embeddings.position_embedding.weight": "positional_embedding",
        "visual_projection.weight": "visual.proj",
        "text_projection.weight": "text_projection",
    }
    parts = [
        ("text_model.final_layer_norm", "ln_final"),
        ("vision_model.pre_layrnorm", "visual.ln_pre"),
        ("vision_model.post_layernorm", "visual.ln_post"),
        ("vision_model.encoder.layers", "visual.transformer.resblocks"),
        ("text_model.encoder.layers", "transformer.resblocks"),
        ("layer_norm", "ln_"),
        ("mlp.fc1", "mlp.c_fc"),
        ("mlp.fc2", "mlp.c_proj"),
        ("self_attn", "attn"),
    ]
    squares: dict[str, float] = {}
    for full, parameter in method.named_parameters():
        assert parameter.grad is not None, full
        name = full.removeprefix("interaction.")
        if full.startswith("encoder."):
            name = full.removeprefix("encoder.")
            name = names.get(name, name)
            for ours, theirs in parts:
                name = name.replace(ours, theirs)
            for letter in "qkv":
                name = name.replace(f"{letter}_proj.", "in_proj_") if ".attn." in name else name
            name = f"base_model.{name}"
        squares[name] = squares.get(name, 0.0) + float(parameter.grad.double().square().sum())
    return {name: math.sqrt(square) for name, square in squares.items()}


def check_features(method: Irra, batch: TrainBatch, tensors: dict[str, Tensor]) -> None:
    with torch.no_grad():
        image = method.encoder.encode_image(batch.pixels)
        text = method.encoder.encode_text(batch.ids, batch.mask)
    assert image.tokens.dtype == image.pooled.dtype == text.pooled.dtype == torch.float32
    assert relative(image.pooled, tensors["image_features"]) < CLOSE
    assert relative(text.pooled, tensors["text_features"]) < CLOSE


def check_losses(method: Irra, batch: TrainBatch, **context: Any) -> None:
    with torch.no_grad():
        got = method(batch, StepContext(**context)).losses
        image = method.encoder.encode_image(batch.pixels).pooled
        text = method.encoder.encode_text(batch.ids, batch.mask).pooled
        got["itc"] = itc_loss(image, text, temperature=0.02)
        got["cmpm"] = cmpm_loss(image, text, batch.identity)
    for name in ("sdm", "id", "mlm", "itc", "cmpm"):
        assert relative(got[name], EXPECTED["losses"][f"{name}_loss"]) < CLOSE, name


def check_gradients(method: Irra, batch: TrainBatch) -> None:
    sum(method(batch, StepContext()).losses.values(), torch.tensor(0.0)).backward()
    got, expected = gradient_norms(method), EXPECTED["gradient_norms"]
    assert got.keys() == expected.keys()
    wrong = {name: relative(got[name], expected[name]) for name in got}
    assert max(wrong.values()) < CLOSE, max(wrong, key=wrong.__getitem__)


def check_trajectory(method: Irra, batch: TrainBatch, tensors: dict[str, Tensor], *, eps: float = 1e-3) -> None:
    solver = EXPECTED["solver"]
    settings = Optimizer(
        lr=solver["lr"], betas=(solver["alpha"], solver["beta"]), eps=eps, weight_decay=solver["weight_decay"]
    )
    schedule = Schedule(warmup=solver["warmup_epochs"], warmup_start=solver["warmup_factor"])
    groups = parameter_groups(
        method.named_parameters(), method.learning_rate_factor, lr=settings.lr, weight_decay=settings.weight_decay
    )
    assert len(groups) == 4
    optimiser = build_optimizer(groups, settings, device=torch.device("cpu"))
    for epoch, expected in enumerate(EXPECTED["trajectory"], start=1):
        set_rate(optimiser, rate_factor(schedule, done=epoch - 1, total=solver["num_epoch"]))
        rates = sorted({group["lr"] for group in optimiser.param_groups})
        assert rates == pytest.approx(expected["learning_rates"], rel=1e-9)
        losses = method(batch, StepContext(epoch=epoch)).losses
        for name, loss in losses.items():
            assert relative(loss, expected[name]) < TRAJECTORY, (epoch, name)
        total = sum(losses.values(), torch.tensor(0.0))
        assert relative(total, expected["total"]) < TRAJECTORY, epoch
        optimiser.zero_grad()
        total.backward()
        optimiser.step()
    with torch.no_grad():
        after = method.encoder.encode_image(batch.pixels).pooled
    assert relative(after, tensors["image_features_after_4_steps"]) < TRAJECTORY


def test_features(batch: TrainBatch, tensors: dict[str, Tensor]) -> None:
    check_features(load(), batch, tensors)


def test_eager_attention_gives_the_same_features(batch: TrainBatch, tensors: dict[str, Tensor]) -> None:
    method = load()
    for tower in (method.encoder.text_model, method.encoder.vision_model):
        tower.config._attn_implementation = "eager"
    check_features(method, batch, tensors)


def test_five_losses(batch: TrainBatch) -> None:
    check_losses(load(), batch)


def test_gradient_norms(batch: TrainBatch) -> None:
    check_gradients(load(), batch)


def test_four_steps(batch: TrainBatch, tensors: dict[str, Tensor]) -> None:
    check_trajectory(load(), batch, tensors)


def test_masked_captions_give_the_published_codes_other_sdm(batch: TrainBatch) -> None:
    """`masked`, the published slip, moves the global losses and leaves MLM where it is."""
    with torch.no_grad():
        masked = load(global_caption="masked")(batch, StepContext()).losses
    assert relative(masked["mlm"], EXPECTED["losses"]["mlm_loss"]) < CLOSE
    assert relative(masked["sdm"], EXPECTED["losses"]["sdm_loss"]) > 1e-3


# Mutations: each must make one of the checks above fail.


def fails(check: Callable[[], None]) -> None:
    with pytest.raises(AssertionError):
        check()


def test_mutation_small_adam_eps_is_seen(batch: TrainBatch, tensors: dict[str, Tensor]) -> None:
    fails(lambda: check_trajectory(load(), batch, tensors, eps=1e-8))


def test_mutation_reversed_divergence_is_seen(batch: TrainBatch, monkeypatch: pytest.MonkeyPatch) -> None:
    def reversed_divergence(logits: Tensor, log_target: Tensor) -> Tensor:
        return (log_target.exp() * (log_target - logits.log_softmax(dim=1))).sum(dim=1).mean()

    monkeypatch.setattr("tipr.losses.sdm.predicted_divergence", reversed_divergence)
    fails(lambda: check_losses(load(), batch))


def test_mutation_last_token_pooling_is_seen(
    batch: TrainBatch, tensors: dict[str, Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    method = load()
    encode = method.encoder.encode_text

    def last(ids: Tensor, mask: Tensor) -> Encoded:
        text = encode(ids, mask)
        return Encoded(text.tokens, text.tokens[:, -1], mask)

    monkeypatch.setattr(method.encoder, "encode_text", last)
    fails(lambda: check_features(method, batch, tensors))


def test_mutation_padding_mask_in_the_interaction_encoder_is_seen(batch: TrainBatch) -> None:
    fails(lambda: check_losses(load(padding="trimmed"), batch))


def test_mutation_padding_mask_in_the_text_tower_is_seen(batch: TrainBatch) -> None:
    method = load()

    def add_mask(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        return args, {
            **kwargs,
            "attention_mask": torch.cat([batch.mask, batch.mask])[: len(kwargs["input_ids"])].long(),
        }

    method.encoder.text_model.register_forward_pre_hook(add_mask, with_kwargs=True)
    fails(lambda: check_losses(method, batch))


def test_mutation_one_learning_rate_is_seen(batch: TrainBatch, tensors: dict[str, Tensor]) -> None:
    fails(lambda: check_trajectory(load(new_rate=1.0), batch, tensors))
