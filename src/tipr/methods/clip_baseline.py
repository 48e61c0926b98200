"""The plain baseline: two towers and a symmetric contrastive loss on clean captions."""

from __future__ import annotations

from typing import ClassVar, Literal

from tipr.data.batch import TrainBatch
from tipr.encoders.base import Encoder
from tipr.losses import itc_loss
from tipr.methods.base import (
    Method,
    MethodConfig,
    StepContext,
    StepOutput,
    TrainingFacts,
    for_each_caption,
)


class ClipBaselineConfig(MethodConfig):
    """Settings of the contrastive baseline.

    Attributes:
        name: "clip_baseline".
        soft_targets: share the target among all rows of one person instead of the diagonal alone.
    """

    name: Literal["clip_baseline"] = "clip_baseline"
    soft_targets: bool = False


class ClipBaseline(Method):
    """Symmetric image-text contrast (ITC) over any encoder."""

    name: ClassVar[str] = "clip_baseline"
    Config: ClassVar[type[MethodConfig]] = ClipBaselineConfig
    config: ClipBaselineConfig

    @classmethod
    def build(cls, config: ClipBaselineConfig, encoder: Encoder, facts: TrainingFacts) -> ClipBaseline:
        """Make the method for an encoder; it has no classifier and masks nothing, so the facts are not used."""
        return cls(config, encoder)

    def forward(self, batch: TrainBatch, context: StepContext) -> StepOutput:
        """One training step: `itc` over the gathered rows; logs `temperature` when it is learnt."""
        image = context.gather(for_each_caption(self.encoder.image_features(batch.pixels), batch))
        text = context.gather(self.encoder.text_features(batch.ids, batch.mask))
        identity = context.gather(batch.identity) if self.config.soft_targets else None
        temperature, logs = self.temperature()
        return StepOutput({"itc": itc_loss(image, text, temperature=temperature, identity=identity)}, logs)
