"""What a training method is: a module whose `forward` is one training step."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import ClassVar

from torch import Tensor, nn

from tipr.data.batch import TrainBatch
from tipr.encoders.base import Encoder


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


class Method(nn.Module, ABC):
    """Owns an encoder, training heads and memory banks; what outlives training is the encoder alone.

    Attributes:
        name: key in `METHODS`.
        encoder: the two towers; all that a `Retriever` needs.
        uses_mlm: whether a batch must carry masked captions and their labels.
        notices: what an importer found absent or left out; empty for a method that was not imported.
    """

    name: ClassVar[str]
    encoder: Encoder
    uses_mlm: bool
    notices: tuple[str, ...] = ()

    @abstractmethod
    def forward(self, batch: TrainBatch, context: StepContext) -> StepOutput:
        """Run one training step; no side effects on the batch."""

    @abstractmethod
    def learning_rate_factor(self, name: str) -> tuple[float, float]:
        """(learning-rate factor, weight-decay factor) of the parameter called `name`."""
