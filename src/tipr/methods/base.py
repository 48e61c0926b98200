"""What a training method is: a module whose `forward` is one training step."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from tipr.config import Section
from tipr.data.batch import PairBatch, TrainBatch
from tipr.encoders.base import Encoder

TrainingFeatures = Callable[[], tuple[Tensor, Tensor]]
"""One pass over the training split, clean view, evaluation mode: (N, D) image and (N, D) text features of the pairs, as
the encoder gives them, float32, on the method's device, the same on every process."""


def keep(rows: Tensor) -> Tensor:
    """The gather of a single process: the rows themselves."""
    return rows


MAX_SCALE = 100.0
"""CLIP's ceiling of 1 / temperature, for methods that learn it."""


def temperature_of(log_scale: Tensor) -> Tensor:
    """() temperature of a learnt () log(1 / temperature), never below 1 / `MAX_SCALE`."""
    return (-log_scale.clamp(max=math.log(MAX_SCALE))).exp()


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
    """

    pairs: int
    mask_id: int
    vocabulary_size: int
    identities: int | None
    image_id: NDArray[np.int64] | None = None


@dataclass
class StepContext:
    """Where a step stands, and how rows of all processes come together.

    Attributes:
        epoch: 1, 2, ... .
        step: optimiser steps done before this one, from 0.
        total_steps: optimiser steps of the whole run.
        gather: (b, ...) rows of this process -> (W*b, ...) rows of all, differentiable. Because DDP averages
            gradients over processes and this gather's backward sums them, a loss over gathered rows needs no factor.
        process_count: W; DDP divides the summed gradients by it, so a loss over LOCAL rows that should be a mean
            over the global batch is `local_sum / global_count * process_count`.
        reduce_sum: sum of a detached () tensor over all processes.
    """

    epoch: int = 1
    step: int = 0
    total_steps: int = 1
    gather: Callable[[Tensor], Tensor] = keep
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
        batch: what `forward` takes. A method of bare pairs (`PairBatch`) is given nothing with an identity in it.
        encoder: the two towers; all that a `Retriever` needs.
        uses_mlm: whether a batch must carry masked captions and their labels.
        uses_perturbed_view: whether a batch of pairs must carry the perturbed view; its `Config` then has `views`.
        notices: what an importer found absent or left out; empty for a method that was not imported.
    """

    name: ClassVar[str]
    Config: ClassVar[type[Section]]
    batch: ClassVar[type[TrainBatch] | type[PairBatch]] = TrainBatch
    encoder: Encoder
    uses_mlm: bool
    uses_perturbed_view: bool = False
    notices: tuple[str, ...] = ()

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

    @abstractmethod
    def learning_rate_factor(self, name: str) -> tuple[float, float]:
        """(learning-rate factor, weight-decay factor) of the parameter called `name`."""
