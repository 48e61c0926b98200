"""IRRA: implicit relation reasoning and aligning (Jiang and Ye, CVPR 2023)."""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from pydantic import Field, field_validator
from torch import Tensor

from tipr.data.batch import IGNORE, TrainBatch
from tipr.encoders.base import Encoded, Encoder
from tipr.losses import cmpm_loss, identity_loss, itc_loss, mlm_loss, sdm_loss
from tipr.methods.base import (
    LEARNT_SCALE,
    Method,
    MethodConfig,
    StepContext,
    StepOutput,
    TrainingFacts,
    for_each_caption,
    identity_classifier,
    some_and_distinct,
)
from tipr.methods.interaction import InteractionEncoder, MlmHead, default_heads

LossName = Literal["sdm", "id", "mlm", "itc", "cmpm"]


class IrraConfig(MethodConfig):
    """Settings of IRRA; the defaults are the published recipe.

    Attributes:
        name: "irra".
        losses: terms that are summed; any of sdm, id, mlm, itc, cmpm.
        weights: factor of a term; 1 where none is given.
        itc_targets: "diagonal": a row's own caption, as published; "identity": shared by all rows of one person.
        depth: self-attention blocks of the interaction encoder.
        heads: attention heads of the interaction encoder; None: width / 64, at least 1.
        global_caption: which caption the global losses see. "masked": the one MLM sees, as the published code does
            through a slip (one text pass serves both). "clean": the paper's text (two captions, still one pass).
        padding: "exact": padding takes part in the interaction encoder, as in the published models; captions must
            come padded to the same length. "trimmed": padding is cut off where that is free and hidden from the
            interaction encoder, so that the result depends neither on the batch nor on the number of processes.
        new_rate: learning-rate factor of the new modules (names with cross, classifier, mlm_head).
        mlm_capacity: share of all positions for which logits are computed on an accelerator, where the exact number of
            labelled positions is not known without waiting for the device. Masking labels about 15 % of real tokens.
    """

    name: Literal["irra"] = "irra"
    losses: tuple[LossName, ...] = ("sdm", "id", "mlm")
    weights: dict[LossName, float] = Field(default_factory=dict)
    itc_targets: Literal["diagonal", "identity"] = "diagonal"
    depth: int = Field(default=4, ge=1)
    heads: int | None = Field(default=None, ge=1)
    global_caption: Literal["masked", "clean"] = "masked"
    padding: Literal["exact", "trimmed"] = "exact"
    new_rate: float = Field(default=5.0, gt=0)
    mlm_capacity: float = Field(default=0.25, gt=0, le=1)

    _losses = field_validator("losses")(some_and_distinct)


class Irra(Method):
    """SDM + identity + MLM over any encoder; the interaction encoder and heads serve training only.

    Args:
        config: settings.
        encoder: the two towers.
        facts: P identities for the classifier, V ids for the MLM output, and the mask token.

    Raises:
        ConfigError: there is an identity term, and identities are not known.
    """

    name: ClassVar[str] = "irra"
    Config: ClassVar[type[MethodConfig]] = IrraConfig
    config: IrraConfig

    def __init__(self, config: IrraConfig, encoder: Encoder, facts: TrainingFacts) -> None:
        super().__init__(config, encoder)
        self.mask_id = facts.mask_id
        self.uses_mlm = "mlm" in config.losses
        width = encoder.width
        if "id" in config.losses:
            self.classifier = identity_classifier(encoder.embed_dim, facts)
        if self.uses_mlm:
            self.interaction = InteractionEncoder(width, config.heads or default_heads(width), config.depth)
            self.mlm_head = MlmHead(width, facts.vocabulary_size, config.depth)

    @classmethod
    def build(cls, config: IrraConfig, encoder: Encoder, facts: TrainingFacts) -> Irra:
        """Make the method for an encoder, heads freshly initialised."""
        return cls(config, encoder, facts)

    def forward(self, batch: TrainBatch, context: StepContext) -> StepOutput:
        """One training step.

        The global losses (sdm, id, itc, cmpm) run over the gathered rows of all processes. MLM runs over local rows
        and divides by the number of labelled positions of all processes.

        Returns:
            losses: one weighted () scalar for each configured term.
            logs: detached `id_image_accuracy`, `id_text_accuracy`, `mlm_accuracy` in 0..1 for the terms in use; on an
                accelerator also `mlm_left_out`, labelled positions beyond `mlm_capacity`.
        """
        if self.config.padding == "trimmed":
            batch = trim(batch)
        image = self.encoder.encode_image(batch.pixels)
        pooled, masked = self._encode_captions(batch)
        output = self._global_losses(
            context.gather(for_each_caption(self.encoder.project_image(image.pooled), batch)),
            context.gather(self.encoder.project_text(pooled)),
            context.gather(batch.identity),
        )
        if masked is not None:
            mlm = self._mlm(for_each_caption(image.tokens, batch), masked, batch.mlm_labels, context)
            output.losses.update(mlm.losses)
            output.logs.update(mlm.logs)
        weights = self.config.weights
        output.losses = {name: output.losses[name] * weights.get(name, 1.0) for name in self.config.losses}
        return output

    def learning_rate_factor(self, name: str, parameter: Tensor) -> tuple[float, float]:
        """Factors by parameter name, in the published order of rules: a later rule overrides an earlier one.

        As in the published code the interaction encoder's LayerNorms count as old and its biases get the bias rate.
        Inside the encoder only the bias rule applies, whatever its modules are called.
        """
        c = self.config
        if name == LEARNT_SCALE:
            return 1.0, 0.0
        new = not name.startswith("encoder.")
        rate, decay = 1.0, 1.0
        if new and "cross" in name:
            rate = c.new_rate
        if "bias" in name:
            rate, decay = c.bias_rate, c.bias_decay
        if new and ("classifier" in name or "mlm_head" in name):
            rate = c.new_rate
        return rate, decay

    def _encode_captions(self, batch: TrainBatch) -> tuple[Tensor, Encoded | None]:
        """One text pass: (pooled features for the global losses, encoding of the masked captions for MLM or None)."""
        if self.config.global_caption == "masked":
            text = self.encoder.encode_text(batch.masked_ids, batch.mask)
            return text.pooled, text if self.uses_mlm else None
        if not self.uses_mlm:
            return self.encoder.encode_text(batch.ids, batch.mask).pooled, None
        both = self.encoder.encode_text(torch.cat([batch.ids, batch.masked_ids]), torch.cat([batch.mask, batch.mask]))
        rows = len(batch.ids)
        return both.pooled[:rows], Encoded(*(field[rows:] for field in both))

    def _global_losses(self, image: Tensor, text: Tensor, identity: Tensor) -> StepOutput:
        """The unweighted terms over (N, D) features of the global batch."""
        c = self.config
        temperature, logs = self.temperature()
        output = StepOutput({}, logs)
        if "sdm" in c.losses:
            output.losses["sdm"] = sdm_loss(image, text, identity, temperature=temperature)
        if "itc" in c.losses:
            shared = identity if c.itc_targets == "identity" else None
            output.losses["itc"] = itc_loss(image, text, temperature=temperature, identity=shared)
        if "cmpm" in c.losses:
            output.losses["cmpm"] = cmpm_loss(image, text, identity)
        if "id" in c.losses:
            image_logits, text_logits = self.classifier(image), self.classifier(text)
            output.losses["id"] = identity_loss(image_logits, text_logits, identity)
            for key, logits in (("id_image_accuracy", image_logits), ("id_text_accuracy", text_logits)):
                output.logs[key] = (logits.detach().argmax(dim=1) == identity).float().mean()
        return output

    def _mlm(self, image: Tensor, text: Encoded, labels: Tensor, context: StepContext) -> StepOutput:
        """MLM loss and logs; the vocabulary is scored at labelled positions only."""
        mask = text.mask if self.config.padding == "trimmed" else None
        position = labelled_positions(labels, capacity=self.config.mlm_capacity)
        target = labels.flatten()[position.clamp(min=0)].masked_fill(position < 0, IGNORE)
        logits = self.mlm_head(self.interaction(text.tokens, image, mask, position.clamp(min=0)))
        count = context.reduce_sum((target != IGNORE).sum())
        loss = mlm_loss(logits, target, ignore_index=IGNORE, count=count) * context.process_count
        correct = context.reduce_sum((logits.detach().argmax(dim=-1) == target).sum())
        output = StepOutput({"mlm": loss}, {"mlm_accuracy": correct / count.clamp(min=1)})
        if labels.device.type != "cpu":
            output.logs["mlm_left_out"] = (labels != IGNORE).sum() - (target != IGNORE).sum()
        return output


def labelled_positions(labels: Tensor, *, capacity: float) -> Tensor:
    """Flat positions of the labels that are not `IGNORE`, found without waiting for the device.

    Args:
        labels: (B, L) int64.
        capacity: share of B * L to return on an accelerator; labels beyond it are left out there.

    Returns:
        (K,) int64. On the CPU K is their exact number; elsewhere K is fixed by the shape and the rest is -1.
    """
    chosen = labels.flatten() != IGNORE
    if labels.device.type == "cpu":
        return chosen.nonzero().flatten()
    size = max(1, round(capacity * chosen.numel()))
    return torch.nonzero_static(chosen, size=size, fill_value=-1).flatten()


def trim(batch: TrainBatch) -> TrainBatch:
    """The batch without the columns that are padding in every caption.

    On an accelerator the batch comes back as it is: its longest caption is not known there without waiting for the
    device, so the loader must trim.
    """
    if batch.mask.device.type != "cpu":
        return batch
    length = int(batch.mask.sum(dim=1).max())
    return TrainBatch(
        pixels=batch.pixels,
        ids=batch.ids[:, :length],
        mask=batch.mask[:, :length],
        masked_ids=batch.masked_ids[:, :length],
        mlm_labels=batch.mlm_labels[:, :length],
        identity=batch.identity,
        row=batch.row,
    )
