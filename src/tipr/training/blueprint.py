"""The model of a configuration without its data and without its weights: full size, built in no time, never searched.

On the meta device it costs no memory and says what a run would hold; on a real one its weights are random, and one real
step says that every part fits. Batches stand in for real ones by their shapes.
"""

from __future__ import annotations

import math
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from tipr.data.batch import IGNORE, BilingualBatch, PairBatch, TrainBatch
from tipr.data.datasets import DATASETS
from tipr.data.synthetic.presets import PRESETS
from tipr.encoders import ENCODERS
from tipr.methods import METHODS, Method, StepContext, StepOutput, TrainingFacts
from tipr.training import environment
from tipr.training.parts import encode_in_parts
from tipr.training.run_config import RunConfig, SubwordTokenizerConfig
from tipr.training.sources import load_split

Batch = TrainBatch | PairBatch | BilingualBatch
CAPTIONS_OF_RENDERED_PEOPLE = 2
"""Captions of one image in one language in a set of `tipr data synth`."""
SPAN_SHARE = 0.4
"""Share of a caption's tokens that Bi-IRRA's MLM labels (`tipr.data.span_masking`)."""
ORDINARY_IDS = 5
"""The first id that is a word in every vocabulary in use: padding, start, end and the like stand before it."""


@dataclass(frozen=True)
class Scale:
    """How much data a run has, as far as memory depends on it.

    Attributes:
        pairs: image-caption pairs of the training split; for a run in two languages captions of one of them.
        images: of the training split.
        identities: of the training split.
        held_out_images: of the split that selection scores; 0 without one.
        filled: mean share of a caption's columns that hold real tokens, in (0, 1].
        missing_images: of the training split that are not on disk and left out.
    """

    pairs: int
    images: int
    identities: int
    held_out_images: int = 0
    filled: float = 0.5
    missing_images: int = 0


def published_scale(config: RunConfig) -> Scale | None:
    """What the official counts of the data set say; None for a data set of one's own."""
    data, selected = config.data, config.selection.split
    if data.dataset == "synthetic":
        knobs = PRESETS.get(data.root.name)
        if knobs is None:
            return None
        images = {split: knobs.people(split) * knobs.images for split in ("train", "val", "test")}
        identities = knobs.people("train")
        captions = CAPTIONS_OF_RENDERED_PEOPLE * images["train"]
        languages = len(data.languages or knobs.languages)
    else:
        editions = DATASETS[data.dataset].facts.editions
        train = editions[0].splits.get("train") if editions else None
        if train is None:
            return None
        images = {split: count.images for split, count in editions[0].splits.items()}
        captions = train.captions
        identities = train.identities or train.images  # where nobody states it: no more than that
        languages = len(data.languages or DATASETS[data.dataset].facts.languages)
    return Scale(
        pairs=captions * (1 if config.bilingual else languages),
        images=images["train"],
        identities=identities,
        held_out_images=0 if selected == "last" else images.get(selected, 0),
    )


def encoder_settings(config: RunConfig) -> Any:
    """The encoder's section with the vocabulary of a full tokenizer; a published one is the encoder's own."""
    if not isinstance(config.tokenizer, SubwordTokenizerConfig):
        return config.encoder
    return config.encoder.model_copy(update={"vocabulary_size": config.tokenizer.vocabulary_size})


def with_one_layer(config: RunConfig) -> RunConfig:
    """The same widths with one layer where there are several, for real tensors on a small machine."""
    encoder = {key: 1 for key in type(config.encoder).model_fields if key.endswith("_layers")}
    method = {"depth": 1} if "depth" in type(config.method).model_fields else {}
    return config.model_copy(
        update={
            "encoder": config.encoder.model_copy(update=encoder),
            "method": config.method.model_copy(update=method),
        }
    )


def build_method(config: RunConfig, scale: Scale) -> Method:
    """The method of a run in training mode, with random weights, on torch's default device.

    Args:
        config: of the run; neither `start_from` nor the data set is read.
        scale: how much data it is for.

    Raises:
        ConfigError: method, encoder and scale do not fit.
    """
    settings = encoder_settings(config)
    encoder = ENCODERS[settings.name].build(settings)
    bare = config.bare_pairs
    facts = TrainingFacts(
        pairs=scale.pairs,
        mask_id=0,
        vocabulary_size=encoder.vocabulary_size,
        identities=None if bare else scale.identities,
        image_id=torch.arange(scale.pairs, device="cpu").remainder(max(scale.images, 1)).numpy() if bare else None,
        seed=config.seed,
    )
    method = METHODS[config.method.name].build(config.method, encoder, facts)
    if config.precision == "reference_half":
        environment.hold_in_half(method)
    if config.data.micro_batch is not None:
        encode_in_parts(encoder, config.data.micro_batch)
    return method.train()


def stand_in_batch(config: RunConfig, method: Method, *, rows: int, filled: float = 0.5) -> Batch:
    """A batch of the right shapes on the CPU; values are in range and say nothing.

    Args:
        config: of the run.
        method: says what its batches carry.
        rows: B; images, where a step has several captions of each.
        filled: share of the columns that hold real tokens, over all captions; the first caption fills all.

    Returns:
        an instance of `method.batch`; its pixels share the storage of one image.
    """
    image = torch.randn(1, 3, *method.encoder.image_size, device="cpu")
    pixels = image.expand(rows, -1, -1, -1)
    captions = rows * config.data.captions_per_image
    share = SPAN_SHARE if config.bilingual else config.data.mlm_probability
    ids, mask, masked, labels = _captions(config, method, captions, filled, share)
    place = torch.arange(captions, device="cpu")
    identity = place.div(2, rounding_mode="floor")
    if issubclass(method.batch, PairBatch):
        second = method.uses_perturbed_view
        return PairBatch(pixels, pixels if second else None, ids, mask, ids if second else None, place, place)
    if issubclass(method.batch, BilingualBatch):
        settings: Any = config.encoder
        cells = math.prod(settings.grid)
        patches = torch.arange(cells, device="cpu") % 2 == 0
        return BilingualBatch(
            pixels=pixels,
            patch_mask=patches if method.uses_patch_mask else None,
            source_ids=ids,
            source_mask=mask,
            target_ids=ids,
            target_mask=mask,
            masked_source_ids=masked,
            source_labels=labels,
            masked_target_ids=masked,
            target_labels=labels,
            identity=identity,
            row=place,
            target_language=settings.target_languages[0],
        )
    return TrainBatch(pixels, ids, mask, masked, labels, identity, place)


def _captions(
    config: RunConfig, method: Method, captions: int, filled: float, share: float
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """(captions, L) ids, mask, masked ids and labels; every (1 / share)-th real token is labelled with MLM."""
    columns = config.max_tokens
    place = torch.arange(columns, device="cpu")[None]
    length = torch.full((captions, 1), max(3, round(filled * columns)), device="cpu")
    length[0] = columns
    mask = place < length
    words = (place * 7 + torch.arange(captions, device="cpu")[:, None] * 31) % (
        method.encoder.vocabulary_size - ORDINARY_IDS - 1
    ) + ORDINARY_IDS
    words = torch.where(place == length - 1, method.encoder.vocabulary_size - 1, words)  # CLIP's end of text
    ids = torch.where(mask, words, getattr(config.encoder, "pad_id", 0))
    if not method.uses_mlm or share <= 0:
        return ids, mask, ids, torch.full_like(ids, IGNORE)
    labelled = mask & (place % max(1, round(1 / share)) == 1)
    return ids, mask, torch.where(labelled, ORDINARY_IDS, ids), torch.where(labelled, ids, IGNORE)


def autocast(config: RunConfig, device: str) -> AbstractContextManager[object]:
    """The precision of a forward pass, as in a run."""
    if config.precision == "32":
        return nullcontext()
    return torch.autocast(device, dtype=torch.bfloat16 if config.precision == "bf16" else torch.float16)


def one_step(
    config: RunConfig, method: Method, optimizer: torch.optim.Optimizer, batch: Batch, *, device: str = "cpu"
) -> StepOutput:
    """One optimisation step as the training loop makes it."""
    context = StepContext(epoch=getattr(config.method, "relation_start_epoch", 1))
    with autocast(config, device):
        output: StepOutput = method(batch, context)
    torch.stack(list(output.losses.values())).sum().backward()  # type: ignore[no-untyped-call]
    if config.optimizer.clip_grad_norm is not None:
        torch.nn.utils.clip_grad_norm_(method.parameters(), config.optimizer.clip_grad_norm)
    optimizer.step()
    optimizer.zero_grad()
    return output


def scale_of(config: RunConfig) -> Scale:
    """How much data is really there; reads annotation, no image.

    Raises:
        DatasetError: the data set is not there, or cannot be used.
    """
    languages, selected = config.data.languages, config.selection.split
    train = load_split(config, "train", languages=languages)
    held_out = 0 if selected == "last" else len(load_split(config, selected, languages=languages).images)
    pairs = len(train)
    if config.bilingual:
        pairs = sum(sample.language == config.encoder.source_language for sample in train.samples)
    return Scale(pairs, len(train.images), train.identity_count, held_out, missing_images=train.missing_images)
