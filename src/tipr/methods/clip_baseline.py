"""The plain baseline: two towers and a symmetric contrastive loss on clean captions."""

from __future__ import annotations

import math
from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import nn

from tipr.config import Section
from tipr.data.batch import TrainBatch
from tipr.encoders.base import Encoder
from tipr.losses import itc_loss
from tipr.methods.base import (
    MAX_SCALE,
    Method,
    StepContext,
    StepOutput,
    TrainingFacts,
    for_each_caption,
    temperature_of,
)


class ClipBaselineConfig(Section):
    """Settings of the contrastive baseline.

    Attributes:
        name: "clip_baseline".
        temperature: of the contrastive loss; its initial value when learnable. IRRA's baseline keeps 0.02.
        learnable_temperature: train log(1 / temperature) as CLIP does, never beyond a scale of 100.
        soft_targets: share the target among all rows of one person instead of the diagonal alone.
        bias_rate: learning-rate factor of biases.
        bias_decay: weight-decay factor of biases.
    """

    name: Literal["clip_baseline"] = "clip_baseline"
    temperature: float = Field(default=0.02, ge=1 / MAX_SCALE)
    learnable_temperature: bool = False
    soft_targets: bool = False
    bias_rate: float = Field(default=2.0, gt=0)
    bias_decay: float = Field(default=0.0, ge=0)


class ClipBaseline(Method):
    """Symmetric image-text contrast (ITC) over any encoder."""

    name: ClassVar[str] = "clip_baseline"
    Config: ClassVar[type[ClipBaselineConfig]] = ClipBaselineConfig

    def __init__(self, config: ClipBaselineConfig, encoder: Encoder) -> None:
        super().__init__()
        self.config = config
        self.encoder = encoder
        self.uses_mlm = False
        if config.learnable_temperature:
            self.log_scale = nn.Parameter(torch.tensor(-math.log(config.temperature)))

    @classmethod
    def build(cls, config: ClipBaselineConfig, encoder: Encoder, facts: TrainingFacts) -> ClipBaseline:
        """Make the method for an encoder; it has no classifier and masks nothing, so the facts are not used."""
        return cls(config, encoder)

    def forward(self, batch: TrainBatch, context: StepContext) -> StepOutput:
        """One training step: `itc` over the gathered rows; logs `temperature` when it is learnt."""
        image = context.gather(for_each_caption(self.encoder.encode_image(batch.pixels).pooled, batch))
        text = context.gather(self.encoder.encode_text(batch.ids, batch.mask).pooled)
        identity = context.gather(batch.identity) if self.config.soft_targets else None
        if not self.config.learnable_temperature:
            return StepOutput({"itc": itc_loss(image, text, temperature=self.config.temperature, identity=identity)})
        temperature = temperature_of(self.log_scale)
        loss = itc_loss(image, text, temperature=temperature, identity=identity)
        return StepOutput({"itc": loss}, {"temperature": temperature.detach()})

    def learning_rate_factor(self, name: str) -> tuple[float, float]:
        """Biases at their own rate and decay; the learnt scale is not decayed; all else 1."""
        if name == "log_scale":
            return 1.0, 0.0
        return (self.config.bias_rate, self.config.bias_decay) if "bias" in name else (1.0, 1.0)
