"""What a training method is: a module whose `forward` is one training step."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, ClassVar, Self, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor, nn

from tipr.config import Section
from tipr.data.batch import BilingualBatch, PairBatch, TrainBatch
from tipr.encoders.base import Encoder
from tipr.errors import ConfigError

Name = TypeVar("Name", bound=str)

TrainingFeatures = Callable[[], tuple[Tensor, Tensor]]
"""One pass over the training split, clean view, evaluation mode: (N, D) image and (N, D) text features of the pairs, as
the encoder gives them, float32, on the method's device, the same on every process."""


def keep(rows: Tensor) -> Tensor:
    """The gather of a single process: the rows themselves."""
    return rows


MAX_SCALE = 100.0
"""CLIP's ceiling of 1 / temperature, for methods that learn it."""


LEARNT_SCALE = "log_scale"
"""Parameter of a method that learns its temperature: () log(1 / temperature)."""


class MethodConfig(Section):
    """What every method lets one set.

    Attributes:
        name: key in `METHODS`.
        temperature: of its contrastive losses; the initial value when it is learnable.
        learnable_temperature: train log(1 / temperature) as CLIP does, never beyond a scale of 100. From random
            weights a constant 0.02 is too sharp to start with; pretrained towers do not need this.
        bias_rate: learning-rate factor of biases.
        bias_decay: weight-decay factor of biases.
    """

    name: str
    temperature: float = Field(default=0.02, ge=1 / MAX_SCALE)
    learnable_temperature: bool = False
    bias_rate: float = Field(default=2.0, gt=0)
    bias_decay: float = Field(default=0.0, ge=0)

    @property
    def trains_fusion(self) -> bool:
        """Whether the encoder's fusion layers learn, if it has any: else what they attend to means nothing."""
        return False


def some_and_distinct(names: tuple[Name, ...]) -> tuple[Name, ...]:
    """The names, as a validator of a list of loss terms.

    Raises:
        ValueError: there is none, or one stands there twice.
    """
    if not names or len(set(names)) != len(names):
        raise ValueError("name at least one term, each once")
    return names


def for_each_caption(rows: Tensor, batch: TrainBatch) -> Tensor:
    """(M, ...) rows of images -> (B, ...), one row for each caption of `batch`; the rows themselves when M = B."""
    return rows if batch.captions_per_image == 1 else rows.repeat_interleave(batch.captions_per_image, dim=0)


@dataclass(frozen=True)
class TrainingFacts:
    """What a method is told about the run that it is made for.

    Attributes:
        pairs: N, image-caption pairs of the training split; 0 for a method that was trained elsewhere.
        mask_id: id of the tokenizer's mask token; the loader masks, a method only carries the number.
        vocabulary_size: V, ids of the tokenizer.
        identities: P, training identities; batches carry 0..P-1. None for a method of bare pairs: it never learns it.
        image_id: (N,) int64 position of the image file of each pair; None where it is not known.
        seed: of the run, for what a method draws.
    """

    pairs: int
    mask_id: int
    vocabulary_size: int
    identities: int | None
    image_id: NDArray[np.int64] | None = None
    seed: int = 0


def identity_classifier(embed_dim: int, facts: TrainingFacts) -> nn.Linear:
    """(..., D) joint features -> (..., P) logits of the training identities, its first weights small as in IRRA.

    Raises:
        ConfigError: identities are not known.
    """
    if facts.identities is None:
        raise ConfigError("method.losses: id needs training data with identities")
    classifier = nn.Linear(embed_dim, facts.identities)
    nn.init.normal_(classifier.weight, std=0.001)
    nn.init.zeros_(classifier.bias)
    return classifier


@dataclass
class StepContext:
    """Where a step stands, and how rows of all processes come together.

    Attributes:
        epoch: 1, 2, ... .
        step: optimiser steps done before this one, from 0.
        total_steps: optimiser steps of the whole run.
        gather: (b, ...) rows of this process -> (W*b, ...) rows of all, differentiable. Because DDP averages
            gradients over processes and this gather's backward sums them, a loss over gathered rows needs no factor.
        rank: of this process, from 0; its rows are the rank-th share of gathered ones.
        process_count: W; DDP divides the summed gradients by it, so a loss over LOCAL rows that should be a mean
            over the global batch is `local_sum / global_count * process_count`.
        reduce_sum: sum of a detached () tensor over all processes.
    """

    epoch: int = 1
    step: int = 0
    total_steps: int = 1
    gather: Callable[[Tensor], Tensor] = keep
    rank: int = 0
    process_count: int = 1
    reduce_sum: Callable[[Tensor], Tensor] = keep


@dataclass
class StepOutput:
    """Result of one step.

    Attributes:
        losses: name -> () weighted scalar; the loop sums exactly these.
        logs: name -> () detached scalar for the journal.
    """

    losses: dict[str, Tensor]
    logs: dict[str, Tensor] = field(default_factory=dict)


@dataclass
class EpochReport:
    """What a method has to say about an epoch.

    Attributes:
        logs: name -> number for the journal.
        arrays: name -> array with a row for each of the N pairs, kept in the run folder for later analysis.
        warning: one line for the user, or None.
    """

    logs: dict[str, float] = field(default_factory=dict)
    arrays: dict[str, NDArray[Any]] = field(default_factory=dict)
    warning: str | None = None


class Method(nn.Module, ABC):
    """Owns an encoder, training heads and memory banks; what outlives training is the encoder alone.

    Attributes:
        name: key in `METHODS`.
        Config: its section of a run configuration.
        config: an instance of `Config`.
        batch: what `forward` takes. A method of bare pairs (`PairBatch`) is given nothing with an identity in it.
        encoder: the two towers; all that a `Retriever` needs.
        uses_mlm: whether a batch must carry masked captions and their labels.
        uses_perturbed_view: whether a batch of pairs must carry the perturbed view; its `Config` then has `views`.
        uses_patch_mask: whether a batch in two languages must carry a mask of patches.
        learns_log_scale: whether a learnable temperature is kept as `LEARNT_SCALE`; a method that keeps it in another
            way has its own `temperature`.
        notices: what an importer found absent or left out; empty for a method that was not imported.
    """

    name: ClassVar[str]
    Config: ClassVar[type[MethodConfig]]
    batch: ClassVar[type[TrainBatch] | type[PairBatch] | type[BilingualBatch]] = TrainBatch
    config: MethodConfig
    encoder: Encoder
    uses_mlm: bool
    uses_perturbed_view: bool = False
    uses_patch_mask: bool = False
    learns_log_scale: ClassVar[bool] = True
    notices: tuple[str, ...] = ()

    def __init__(self, config: MethodConfig, encoder: Encoder) -> None:
        super().__init__()
        self.config = config
        self.encoder = encoder
        self.uses_mlm = False
        if config.learnable_temperature and self.learns_log_scale:
            self.log_scale = nn.Parameter(torch.tensor(-math.log(config.temperature)))

    @classmethod
    @abstractmethod
    def build(cls, config: Any, encoder: Encoder, facts: TrainingFacts) -> Self:
        """Make the method for an encoder, everything else freshly initialised.

        Args:
            config: an instance of `Config`.
            encoder: the two towers.
            facts: of the run.

        Raises:
            ConfigError: the configuration does not fit the facts.
        """

    @classmethod
    def memory_needed(cls, config: Any, width: int, facts: TrainingFacts) -> int:
        """Bytes of what the method keeps of every training pair, at their most; asked for before it is built.

        Args:
            config: an instance of `Config`.
            width: of a feature.
            facts: of the run.
        """
        return 0

    @abstractmethod
    def forward(self, batch: Any, context: StepContext) -> StepOutput:
        """Run one training step on an instance of `batch`; no side effects on it."""

    def begin_epoch(self, epoch: int, features: TrainingFeatures) -> None:
        """Prepare an epoch; called before its first step, and not again when a run is resumed in the middle of it.

        Args:
            epoch: 1, 2, ... .
            features: makes the features of the whole training split with the weights as they are now.
        """

    def end_epoch(self, epoch: int) -> EpochReport:
        """Close an epoch and report on it; called after its last step, and before the checkpoint that follows it."""
        return EpochReport()

    def learning_rate_factor(self, name: str, parameter: Tensor) -> tuple[float, float]:
        """(learning-rate factor, weight-decay factor) of a parameter, by its name and perhaps its dimensions.

        Biases have their own rate and decay, a learnt temperature is not decayed, and all else has 1.
        """
        if name == LEARNT_SCALE:
            return 1.0, 0.0
        return (self.config.bias_rate, self.config.bias_decay) if "bias" in name else (1.0, 1.0)

    def temperature(self) -> tuple[float | Tensor, dict[str, Tensor]]:
        """The temperature, never below 1 / `MAX_SCALE`, and what to log of it: itself, detached, when it is learnt."""
        if not self.config.learnable_temperature:
            return self.config.temperature, {}
        learnt = (-self.log_scale.clamp(max=math.log(MAX_SCALE))).exp()
        return learnt, {"temperature": learnt.detach()}
