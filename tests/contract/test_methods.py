"""What every entry of METHODS promises, over every encoder that it takes."""

from __future__ import annotations

import copy
import math
from dataclasses import fields
from pathlib import Path

import pytest
import torch
from small_encoders import make_encoder
from torch import Tensor

import tipr.methods
from tipr.config import Section
from tipr.data.batch import IGNORE, BilingualBatch, PairBatch, TrainBatch
from tipr.encoders import ENCODERS
from tipr.methods import METHODS, Method, StepContext, TrainingFacts

NOT_METHODS = {"__init__", "base", "bi_irra_config", "clustering", "interaction", "memory_bank"}
Batch = TrainBatch | PairBatch | BilingualBatch

PAIRS = 40

every_method = pytest.mark.parametrize("name", METHODS)


def encoders_of(name: str) -> list[str]:
    """Encoders that a method takes: one in two languages needs a fusion encoder, the others take any."""
    return [key for key, kind in ENCODERS.items() if kind.can_rerank or METHODS[name].batch is not BilingualBatch]


every_pair = pytest.mark.parametrize(
    ("name", "encoder_name"), [(name, encoder) for name in METHODS for encoder in encoders_of(name)]
)


def make(name: str, encoder_name: str | None = None) -> Method:
    cls = METHODS[name]
    encoder = make_encoder(encoder_name or ("beit_xlmr" if cls.batch is BilingualBatch else "compact"))
    facts = TrainingFacts(
        pairs=PAIRS,
        mask_id=57,
        vocabulary_size=encoder.vocabulary_size,
        identities=None if cls.batch is PairBatch else 3,
    )
    return cls.build(cls.Config(), encoder, facts)


def make_batch(method: Method, rows: int = 4) -> Batch:
    g = torch.Generator().manual_seed(0)
    ids = torch.zeros(rows, 10, dtype=torch.long)
    ids[:, 0], ids[:, 1:7], ids[:, 7] = 58, torch.randint(4, 50, (rows, 6), generator=g), 59
    labels = torch.full_like(ids, IGNORE)
    labels[:, 2] = ids[:, 2]
    masked = torch.where(labels == IGNORE, ids, 57)
    pixels = torch.randn(rows, 3, *method.encoder.image_size, generator=g)
    if method.batch is PairBatch:
        return PairBatch(
            pixels=pixels,
            perturbed_pixels=pixels.flip(3) if method.uses_perturbed_view else None,
            ids=ids,
            mask=ids > 0,
            perturbed_ids=masked if method.uses_perturbed_view else None,
            image_id=torch.arange(rows) // 2,
            row=torch.arange(rows),
        )
    identity = torch.arange(rows) % 3
    if method.batch is BilingualBatch:
        patches = torch.arange(math.prod(method.encoder.grid)) % 2 == 0
        captions = {"source_ids": ids, "source_mask": ids > 0, "masked_source_ids": masked, "source_labels": labels}
        captions |= {key.replace("source", "target"): value.flip(0) for key, value in captions.items()}
        return BilingualBatch(
            pixels=pixels,
            patch_mask=patches if method.uses_patch_mask else None,
            **captions,
            identity=identity,
            row=torch.arange(rows),
            target_language=method.encoder.languages[1],
        )
    return TrainBatch(
        pixels=pixels,
        ids=ids,
        mask=ids > 0,
        masked_ids=masked,
        mlm_labels=labels,
        identity=identity,
        row=torch.arange(rows),
    )


def without_gradient(method: Method, total: Tensor) -> set[str]:
    """Encoder parameters that a scalar does not depend on."""
    names, parameters = zip(*method.encoder.named_parameters(), strict=True)
    gradients = torch.autograd.grad(total, parameters, allow_unused=True)
    return {f"encoder.{name}" for name, gradient in zip(names, gradients, strict=True) if gradient is None}


def may_be_unused(method: Method, batch: Batch) -> set[str]:
    """Encoder parameters on which neither feature depends and, for a method with MLM, no token does.

    A method in two languages has a use for all but the projections of other languages.
    """
    encoder = method.encoder
    if isinstance(batch, BilingualBatch):
        others = set(encoder.languages[1:]) - {batch.target_language}
        return {f"encoder.target_projections.{code}.{kind}" for code in others for kind in ("weight", "bias")}
    image, text = encoder.encode_image(batch.pixels), encoder.encode_text(batch.ids, batch.mask)
    total = encoder.project_image(image.pooled).sum() + encoder.project_text(text.pooled).sum()
    if method.uses_mlm:
        total = total + image.tokens.sum() + text.tokens.sum()
    return without_gradient(method, total)


def test_every_file_is_listed() -> None:
    folder = Path(next(iter(tipr.methods.__path__)))
    assert {path.stem for path in folder.glob("*.py")} - NOT_METHODS == set(METHODS)


@every_method
def test_name_config_and_key_agree(name: str) -> None:
    cls = METHODS[name]
    assert cls.name == name
    assert issubclass(cls.Config, Section)
    assert cls.Config().name == name


@every_pair
def test_a_step_gives_finite_scalars_and_a_gradient_for_what_is_used(name: str, encoder_name: str) -> None:
    method = make(name, encoder_name)
    batch = make_batch(method)
    before = copy.deepcopy(batch)
    output = method(batch, StepContext())
    assert output.losses
    for key, value in {**output.losses, **output.logs}.items():
        assert value.shape == (), key
        assert torch.isfinite(value), key
    assert not any(log.requires_grad for log in output.logs.values())
    sum(output.losses.values(), torch.tensor(0.0)).backward()
    silent = {key for key, parameter in method.named_parameters() if parameter.grad is None}
    assert silent <= may_be_unused(method, batch)
    for each in fields(batch):
        now, then = getattr(batch, each.name), getattr(before, each.name)
        assert torch.equal(now, then) if isinstance(then, Tensor) else now == then, each.name


@every_method
def test_factors_cover_every_parameter_in_few_groups(name: str) -> None:
    method = make(name)
    factors = {method.learning_rate_factor(*named) for named in method.named_parameters()}
    assert all(rate > 0 and decay >= 0 for rate, decay in factors)
    assert len(factors) <= 5


@every_method
def test_state_survives_a_strict_reload(name: str) -> None:
    method, other = make(name), make(name)
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.zero_()
    other.load_state_dict(method.state_dict(), strict=True)
    batch = make_batch(method)
    torch.testing.assert_close(*(each.eval()(batch, StepContext()).losses for each in (other, method)))


@every_method
def test_an_epoch_begins_and_ends_with_a_report_that_can_be_kept(name: str) -> None:
    method = make(name)
    g = torch.Generator().manual_seed(1)
    image, text = torch.randn(2, PAIRS, method.encoder.embed_dim, generator=g)
    method.begin_epoch(1, lambda: (image, text))
    method(make_batch(method), StepContext())
    report = method.end_epoch(1)
    assert all(isinstance(value, float) and math.isfinite(value) for value in report.logs.values())
    assert all(len(array) == PAIRS and array.dtype == "int32" for array in report.arrays.values())
    assert report.warning is None or "\n" not in report.warning
    assert (method.batch is PairBatch) == bool(report.logs)


@every_method
def test_search_needs_the_encoder_only(name: str) -> None:
    method = make(name)
    assert {key.removeprefix("encoder.") for key in method.state_dict() if key.startswith("encoder.")} == set(
        method.encoder.state_dict()
    )
    assert isinstance(method.uses_mlm, bool)
    assert method.notices == ()
