"""Bi-IRRA: two languages at once, contrast and matching, masked words and a distilled masked image.

Source: Cao et al., "Multilingual Text-to-Image Person Retrieval via Bidirectional Relation Reasoning and Aligning"
(arXiv 2510.17685); equation numbers are the paper's. Where the released code differs from it, the defaults follow the
code: docs/methods/bi_irra.md has the table.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, NamedTuple, Self

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tipr.data.batch import IGNORE, BilingualBatch, PairBatch, TrainBatch
from tipr.data.sampling import Stream, uniforms
from tipr.encoders.base import Encoded, Encoder
from tipr.encoders.beit_xlmr import BeitXlmrEncoder
from tipr.errors import ConfigError
from tipr.losses import hard_negatives, identity_loss, itc_loss, itm_loss, mlm_loss, reconstruction_loss, sdm_loss
from tipr.methods.base import Method, MethodConfig, StepContext, StepOutput, TrainingFacts, identity_classifier
from tipr.methods.bi_irra_config import PUBLISHED_WEIGHTS, BiIrraConfig, Language
from tipr.methods.interaction import TextHead
from tipr.methods.irra import labelled_positions

MLM_CAPACITY = 0.5
"""Share of all positions whose words are scored on an accelerator. Spans never label more than half of a caption's
tokens, independent draws label 0.4 of them."""
NO_DECAY = ("bias", "ln", "bn")
NEW = ("cross", "classifier", "mlm_head")


class Side(NamedTuple):
    """One language of a step.

    Attributes:
        text: its clean captions.
        feature: (B, D) their projection.
        image: what "itm" pairs them with: the whole or the masked images.
        image_feature: (B, D) their projection.
    """

    text: Encoded
    feature: Tensor
    image: Encoded
    image_feature: Tensor


class BiIrra(Method):
    """Bi-lingual contrast (ITC), asymmetric matching (A-ITM), masked words (MLM) and a distilled masked image (D-MIM).

    The target language of a step is the batch's, so one run may train any number of them; each has its own projection
    in the encoder, while everything else is shared.

    Args:
        config: settings.
        encoder: a `BeitXlmrEncoder`.
        facts: P identities for the classifier of "id", and the seed of the run for the negatives of "itm".

    Raises:
        ConfigError: another encoder; or there is an identity term, and identities are not known.
    """

    name: ClassVar[str] = "bi_irra"
    Config: ClassVar[type[MethodConfig]] = BiIrraConfig
    config: BiIrraConfig
    batch: ClassVar[type[TrainBatch] | type[PairBatch] | type[BilingualBatch]] = BilingualBatch
    encoder: BeitXlmrEncoder
    learns_log_scale: ClassVar[bool] = False

    def __init__(self, config: BiIrraConfig, encoder: BeitXlmrEncoder, facts: TrainingFacts) -> None:
        super().__init__(config, encoder)
        self.seed = facts.seed
        self.uses_mlm = "mlm" in config.losses
        self.uses_patch_mask = "mim" in config.losses or bool(config.masks_image_of)
        self.temp = nn.Parameter(torch.tensor(config.temperature), requires_grad=config.learnable_temperature)
        width = encoder.width
        if "mim" in config.losses:
            self.mim_head = nn.Sequential(
                nn.Linear(width, 2 * width), nn.LayerNorm(2 * width), nn.GELU(), nn.Linear(2 * width, width)
            )
        if self.uses_mlm:
            self.mlm_head = TextHead(encoder.word_embeddings, tied=config.tie_decoder)
        if "id" in config.losses:
            self.classifier = identity_classifier(encoder.embed_dim, facts)

    @classmethod
    def build(cls, config: BiIrraConfig, encoder: Encoder, facts: TrainingFacts) -> Self:
        """Make the method for an encoder, heads freshly initialised."""
        if not isinstance(encoder, BeitXlmrEncoder):
            raise ConfigError(f"method bi_irra needs encoder.name {BeitXlmrEncoder.name}, got {encoder.name}")
        return cls(config, encoder, facts)

    def project_image(self, pooled: Tensor) -> Tensor:
        """(B, W) pooled image features -> (B, D) unit vectors (a_i of section 4.3)."""
        return F.normalize(self.encoder.project_image(pooled), dim=-1)

    def project_text(self, pooled: Tensor, target: bool | str = False) -> Tensor:
        """(B, W) pooled text features -> (B, D) unit vectors (b_i of section 4.3).

        Args:
            pooled: (B, W).
            target: False: the source language; a language: its own projection, or the source's where it has none;
                True: the target language where there is only one.

        Raises:
            ValueError: True, and there is not exactly one target language.
        """
        targets = self.encoder.config.target_languages
        if target is True and len(targets) != 1:
            raise ValueError(f"target must name one of {', '.join(targets) or 'no language'}")
        language = targets[0] if target is True else target or None
        return F.normalize(self.encoder.project_text(pooled, language), dim=-1)

    def match(self, text_tokens: Tensor, text_mask: Tensor, image_tokens: Tensor) -> Tensor:
        """(N, L, W) text tokens, (N, L) mask and (N, T, W) image tokens -> (N, 2) logits; class 1 is a match.

        The text is the query of the fusion encoder, and its first token is what the match head sees (Eq. 14).
        """
        return self.encoder.match(text_tokens, text_mask, image_tokens)

    def temperature(self) -> tuple[Tensor, dict[str, Tensor]]:
        """What similarities are divided by, and what to log of it."""
        return self.temp, {"temperature": self.temp.detach()} if self.config.learnable_temperature else {}

    def learning_rate_factor(self, name: str, parameter: Tensor) -> tuple[float, float]:
        """Factors by name and dimensions, as released: without decay what is a vector or called bias, ln or bn."""
        c = self.config
        rate = c.new_rate if any(part in name for part in NEW) else 1.0
        decayed = parameter.ndim >= 2 and not any(part in name for part in NO_DECAY)
        return rate * (c.bias_rate if "bias" in name else 1.0), 1.0 if decayed else c.bias_decay

    def forward(self, batch: BilingualBatch, context: StepContext) -> StepOutput:
        """One training step (Eq. 17).

        "itc" and "sdm" compare the rows of all processes, and "itm" draws its negatives among them; means are those of
        the whole batch throughout.

        Returns:
            losses: one weighted () scalar for each configured term.
            logs: detached `temperature` when it is learnt, and `itm_accuracy`, `mlm_accuracy`, `id_accuracy` in 0..1
                for the terms in use.

        Raises:
            ValueError: the batch lacks the mask of patches.
        """
        c = self.config
        if self.training and c.temp_range is not None:
            with torch.no_grad():
                self.temp.clamp_(*c.temp_range)
        image = self.encoder.encode_image(batch.pixels)
        masked = self._masked_image(batch) if self.uses_patch_mask else image
        source, target, *masked_texts = self._encode_captions(batch)
        texts: dict[Language, Encoded] = {"source": source, "target": target}
        feature = self.encoder.project_image(image.pooled)
        text_features = [
            self.encoder.project_text(source.pooled),
            self.encoder.project_text(target.pooled, batch.target_language),
        ]
        identity = context.gather(batch.identity)

        losses: dict[str, Tensor] = {}
        logs = self.temperature()[1]
        if "itc" in c.losses or "sdm" in c.losses:
            losses |= self._contrast(feature, text_features, identity, context)
        parts = []
        if "id" in c.losses:
            parts.append(self._classify(feature, text_features, batch.identity))
        if "itm" in c.losses:
            masked_feature = self.encoder.project_image(masked.pooled)
            sides = [
                Side(
                    text,
                    text_feature,
                    *((masked, masked_feature) if language in c.masks_image_of else (image, feature)),
                )
                for (language, text), text_feature in zip(texts.items(), text_features, strict=True)
            ]
            parts.append(self._match_pairs(sides, identity, context))
        if self.uses_mlm:
            labels = batch.source_labels, batch.target_labels
            parts.append(self._restore_words(image, masked_texts, labels, context))
        if "mim" in c.losses:
            assert batch.patch_mask is not None
            losses["mim"] = self._restore_image(image, masked, texts, batch.patch_mask)
        for part in parts:
            losses |= part.losses
            logs |= part.logs
        weights = PUBLISHED_WEIGHTS | c.weights
        return StepOutput({name: losses[name] * weights.get(name, 1.0) for name in c.losses}, logs)

    def _encode_captions(self, batch: BilingualBatch) -> list[Encoded]:
        """Clean source and target captions, and with MLM the masked ones too; one pass for all."""
        ids, masks = [batch.source_ids, batch.target_ids], [batch.source_mask, batch.target_mask]
        if self.uses_mlm:
            ids, masks = [*ids, batch.masked_source_ids, batch.masked_target_ids], [*masks, *masks]
        encoded = self.encoder.encode_text(torch.cat(ids), torch.cat(masks))
        return [Encoded(*parts) for parts in zip(*(field.chunk(len(ids)) for field in encoded), strict=True)]

    def _masked_image(self, batch: BilingualBatch) -> Encoded:
        if batch.patch_mask is None:
            raise ValueError("these losses of bi_irra need a batch with a mask of patches")
        return self.encoder.encode_image(batch.pixels, batch.patch_mask)

    def _everyone(self, rows: Tensor, context: StepContext) -> Tensor:
        """(b, D) features of this process -> (W b, D) of all, with the gradient that the settings ask for."""
        scale = self.config.itc_gradient_scale
        if scale != 1:
            rows = rows.detach() + scale * (rows - rows.detach())  # the value stays as it is, bit by bit
        if self.config.itc_gather == "joint" or context.process_count == 1:
            return context.gather(rows)
        parts = list(context.gather(rows.detach()).chunk(context.process_count))
        parts[context.rank] = rows
        return torch.cat(parts)

    def _contrast(
        self, image: Tensor, texts: Sequence[Tensor], identity: Tensor, context: StepContext
    ) -> dict[str, Tensor]:
        """ "itc" (Eq. 10-13) and "sdm": the mean of both languages, always against the whole image.

        Args:
            image: (b, D).
            texts: (b, D) of each language.
            identity: (W b,).
            context: of the step.
        """
        c, losses = self.config, {}
        images, *captions = (self._everyone(rows, context) for rows in (image, *texts))
        if "itc" in c.losses:
            terms = [itc_loss(images, each, temperature=self.temp, identity=identity) for each in captions]
            losses["itc"] = torch.stack(terms).mean()
        if "sdm" in c.losses:
            terms = [sdm_loss(images, each, identity, temperature=c.sdm_temperature) for each in captions]
            losses["sdm"] = torch.stack(terms).mean()
        return losses

    def _classify(self, image: Tensor, texts: Sequence[Tensor], identity: Tensor) -> StepOutput:
        """ "id": one classifier for the image and both languages, over the rows of this process."""
        image_logits, *text_logits = (self.classifier(rows) for rows in (image, *texts))
        loss = torch.stack([identity_loss(image_logits, each, identity) for each in text_logits]).mean()
        return StepOutput({"id": loss}, {"id_accuracy": _accuracy(image_logits, identity)})

    def _match_pairs(self, sides: Sequence[Side], identity: Tensor, context: StepContext) -> StepOutput:
        """ "itm" (Eq. 14-16): the mean of both languages over matched pairs and two mismatched ones of each row."""
        losses, right = [], []
        for number, side in enumerate(sides):
            rows = len(side.feature)
            image, text = (context.gather(each.detach()) for each in (side.image_feature, side.feature))
            drawn = hard_negatives(
                image,
                text,
                identity,
                self._draws(len(image), context.step)[2 * number : 2 * number + 2].to(image.device),
                temperature=self.temp,
                group=self.config.itm_negative_group,
            )
            own = slice(context.rank * rows, (context.rank + 1) * rows)
            image_tokens, text_tokens, text_mask = self._within_reach(side, context)
            other_image, other_text = drawn.image[own], drawn.text[own]
            if len(image_tokens) == rows:
                other_image, other_text = other_image - own.start, other_text - own.start
            logits = self.match(
                torch.cat([side.text.tokens, side.text.tokens, text_tokens[other_text]]),
                torch.cat([side.text.mask, side.text.mask, text_mask[other_text]]),
                torch.cat([side.image.tokens, image_tokens[other_image], side.image.tokens]),
            )
            found = drawn.found[own]
            count = drawn.found.sum()
            losses.append(itm_loss(*logits.chunk(3), found=found, count=count) * context.process_count)
            label = torch.arange(3 * rows, device=logits.device) < rows
            right.append(_accuracy(logits, label.long()))
        return StepOutput({"itm": torch.stack(losses).mean()}, {"itm_accuracy": torch.stack(right).mean()})

    def _draws(self, rows: int, step: int) -> Tensor:
        """(4, rows) float64 in [0, 1) for the rows of the whole batch: the same on every process and after a resume."""
        # by step, not by epoch: a place in the batch is not a row of the split
        return torch.from_numpy(uniforms(self.seed, step, np.arange(rows), Stream.NEGATIVES, 4)).T

    def _within_reach(self, side: Side, context: StepContext) -> tuple[Tensor, Tensor, Tensor]:
        """Image tokens, text tokens and text mask of the rows among which negatives were drawn.

        Those of this process alone where no block crosses its border; else those of all processes, with gradient.
        """
        group, rows = self.config.itm_negative_group, len(side.feature)
        held = side.image.tokens, side.text.tokens, side.text.mask
        if context.process_count == 1 or (group is not None and rows % group == 0):
            return held
        image, text, mask = (context.gather(each) for each in (held[0], held[1], held[2].to(torch.uint8)))
        return image, text, mask.bool()

    def _restore_words(
        self, image: Encoded, masked: Sequence[Encoded], labels: Sequence[Tensor], context: StepContext
    ) -> StepOutput:
        """ "mlm" (Eq. 7-9): the sum of both languages, each the mean over its labelled positions.

        Args:
            image: the whole images.
            masked: captions of each language.
            labels: (b, L) of each language.
            context: of the step.
        """
        losses, right = [], []
        for text, label in zip(masked, labels, strict=True):
            fused = self.encoder.fusion(text.tokens, text.mask, image.tokens, None)
            position = labelled_positions(label, capacity=MLM_CAPACITY)
            place = position.clamp(min=0)
            target = label.flatten()[place].masked_fill(position < 0, IGNORE)
            logits = self.mlm_head(fused.flatten(0, 1)[place], self.encoder.word_embeddings.weight)
            count = context.reduce_sum((target != IGNORE).sum())
            losses.append(mlm_loss(logits, target, ignore_index=IGNORE, count=count) * context.process_count)
            hits = context.reduce_sum((logits.detach().argmax(dim=-1) == target).sum())
            right.append(hits / count.clamp(min=1))
        return StepOutput({"mlm": torch.stack(losses).sum()}, {"mlm_accuracy": torch.stack(right).mean()})

    def _restore_image(self, image: Encoded, masked: Encoded, texts: dict[Language, Encoded], hidden: Tensor) -> Tensor:
        """ "mim" (Eq. 4-6): the masked image beside one language must give the tokens of the whole beside another.

        Args:
            image, masked: the whole and the masked images.
            texts: clean captions of each language.
            hidden: (cells,) or (b, cells) bool, True = masked.
        """
        c = self.config
        words = texts[c.mim_student]
        student = self.mim_head(self.encoder.fusion(masked.tokens, None, words.tokens, words.mask))
        # After the student: some versions of torch reuse under autocast the half-precision copies of weights that were
        # made without gradient, which would leave the student without one.
        with torch.no_grad():
            words = texts[c.mim_teacher]
            teacher = self.encoder.fusion(image.tokens, None, words.tokens, words.mask)
        if c.mim_tokens == "global":
            return reconstruction_loss(student[:, :1], teacher[:, :1])
        scored = F.pad(hidden, (1, 0)) if c.mim_tokens == "masked" else None  # the global token is not a patch
        return reconstruction_loss(student, teacher, scored=scored)


def _accuracy(logits: Tensor, label: Tensor) -> Tensor:
    return (logits.detach().argmax(dim=1) == label).float().mean()
