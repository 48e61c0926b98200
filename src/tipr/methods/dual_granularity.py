"""Dual-granularity identity association: relations mined inside the batch and across the training set, no labels.

Source: Zhang, Shang and Li, "Dual-Granularity Cross-Modal Identity Association for Weakly-Supervised Text-to-Person
Image Matching", ACM MM 2025; equation numbers are the paper's. docs/methods/dual_granularity.md lists our readings.
"""

from __future__ import annotations

from typing import ClassVar, Literal, Self

import torch
from pydantic import Field, PositiveInt, field_validator, model_validator
from torch import Tensor

from tipr.data.batch import PairBatch, TrainBatch
from tipr.data.views import PairViews
from tipr.encoders.base import Encoder
from tipr.errors import ConfigError
from tipr.losses import (
    GlobalReading,
    GlobalRelation,
    global_relation,
    global_relation_loss,
    itc_loss,
    local_links,
    local_relation_target,
    relation_loss,
)
from tipr.losses.relation import Left, Modality
from tipr.methods.base import (
    EpochReport,
    Method,
    MethodConfig,
    StepContext,
    StepOutput,
    TrainingFacts,
    TrainingFeatures,
    some_and_distinct,
)
from tipr.methods.memory_bank import MemoryBank, Update

Term = Literal["itc", "local", "global", "consistency"]
MINED = "mined"
"""Name of the array of an epoch: (N, k) int32 rows that each pair mined at its step, best first; -1: none."""
COUNTS = ("pairs", "samples", "linked_image", "linked_text", "linked_both", "own_weight", MINED)
"""What is summed over the steps of an epoch: ordered pairs of different samples, samples, how many of the pairs are
linked (Eq. 3-4), q_ii of Eq. 7, and |J_i| of Eq. 12."""
Keys = tuple[Tensor, Tensor]
LINKED_SHARE_LIMIT = 0.5
"""Above this share of linked pairs the mined relations say next to nothing, and contradict the contrastive loss."""


class DualGranularityConfig(MethodConfig):
    """Settings of the method; the defaults are the paper's, and our reading of it where it is silent ([D] numbers).

    Attributes:
        name: "dual_granularity".
        terms: of the sum in Eq. 22, each with weight 1: "itc" (Eq. 1-2), "local" (Eq. 3-10), "global" (Eq. 11-18) and
            "consistency" (Eq. 19-21). Without "global" there are no memory banks, without "consistency" no second view.
        eps: added to a target inside the logarithm (Eq. 9, 17) [D3].
        kl_left: what stands on the left of the divergence (Eq. 9, 17): the "prediction" or the "target" [D7].
        threshold: two features are linked when their cosine is strictly larger (Eq. 3, 12).
        softness: lambda of Eq. 5: a mined pair gets e^(lambda - 1) of the weight of the true pair [D5].
        local_relation: what must link two rows of a batch: "both" modalities, "image" (LRCI) or "text" (LRCT) alone.
        k: rows of the memory that a pair is related to, at most (Eq. 12) [D11].
        global_anchor: what finds them: "image" features, "text" features (GSRC-T), or "both" (GSRC-IT).
        repeat_columns: columns of Eq. 16 are the mined rows of all pairs side by side, repeats kept, instead of every
            row once [D12].
        drop_batch_rows: leave the stored rows of the batch's own pairs out of the columns of Eq. 16 [D13].
        negative_batch_mates: having mined a batch mate's row makes its stored column positive, not its fresh one [D14].
        own_twin_at_one: the stored column of a pair's own row scores 1 as its fresh one does, instead of Eq. 14 [D15].
        flat_weights: every related column weighs the same, without Eq. 14 [D15].
        image_to_text_target: of the images against texts in Eq. 18: the "same" as the other direction's, or one that
            the "text" features mine and weigh, whatever `global_anchor` is [D16].
        link_same_image: declare two captions of one image file related, instead of leaving it to be found [D1].
        itc_ignore_same_image: leave other captions of a row's image out of its denominator in Eq. 1-2 [D4].
        bank_momentum: alpha of Eq. 11 [D9].
        bank_update: when a stored row becomes readable: in the next "epoch", or at the next "step" [D8].
        bank_normalise: store unit vectors [D10].
        iasc_target: of the consistency term: the target that the "clean" view has shown, or the one that the
            "perturbed" view shows itself [D19].
        relation_start_epoch: first epoch of the terms "local", "global" and "consistency". The banks start from a fresh
            pass over the training split then; in the epochs before they only serve the numbers of the journal.
        views: the clean and the perturbed view [D2, D17, D18].
        record_relations: keep which rows every pair mined, for `tipr analyse relations`.
    """

    name: Literal["dual_granularity"] = "dual_granularity"
    terms: tuple[Term, ...] = ("itc", "local", "global", "consistency")
    eps: float = Field(default=1e-8, gt=0)
    kl_left: Left = "prediction"
    threshold: float = Field(default=0.7, gt=0, le=1)
    softness: float = Field(default=0.5, gt=0, lt=1)
    local_relation: Modality = "both"
    k: PositiveInt = 10
    global_anchor: Modality = "image"
    repeat_columns: bool = False
    drop_batch_rows: bool = False
    negative_batch_mates: bool = False
    own_twin_at_one: bool = False
    flat_weights: bool = False
    image_to_text_target: Literal["same", "text"] = "same"
    link_same_image: bool = False
    itc_ignore_same_image: bool = False
    bank_momentum: float = Field(default=0.5, gt=0, lt=1)
    bank_update: Update = "epoch"
    bank_normalise: bool = False
    iasc_target: Literal["clean", "perturbed"] = "clean"
    relation_start_epoch: PositiveInt = 1
    views: PairViews = PairViews()
    record_relations: bool = True

    _terms = field_validator("terms")(some_and_distinct)

    @model_validator(mode="after")
    def _something_to_start_with(self) -> Self:
        if self.relation_start_epoch > 1 and "itc" not in self.terms:
            raise ValueError("relation_start_epoch above 1 needs the term itc: no other is there before")
        return self


class DualGranularity(Method):
    """Contrast, local relation, global relation and consistency over any encoder.

    Args:
        config: settings.
        encoder: the two towers.
        facts: N pairs, for the memory banks.

    Raises:
        ConfigError: k is larger than N.
    """

    name: ClassVar[str] = "dual_granularity"
    Config: ClassVar[type[MethodConfig]] = DualGranularityConfig
    config: DualGranularityConfig
    batch: ClassVar[type[TrainBatch] | type[PairBatch]] = PairBatch
    tally: Tensor
    mined: Tensor
    image_of: Tensor

    def __init__(self, config: DualGranularityConfig, encoder: Encoder, facts: TrainingFacts) -> None:
        super().__init__(config, encoder)
        self.uses_perturbed_view = "consistency" in config.terms
        # float64: sums over an epoch of counts that a float32 could not hold exactly
        self.register_buffer("tally", torch.zeros(len(COUNTS), dtype=torch.float64))
        if "global" not in config.terms:
            return
        if config.k > facts.pairs:
            raise ConfigError(f"method.k {config.k} is above {facts.pairs}, the number of training pairs")
        self.image_bank, self.text_bank = (
            MemoryBank(
                facts.pairs,
                encoder.embed_dim,
                momentum=config.bank_momentum,
                update=config.bank_update,
                normalise=config.bank_normalise,
            )
            for _ in range(2)
        )
        if config.record_relations:
            self.register_buffer(MINED, torch.full((facts.pairs, config.k), -1, dtype=torch.int32))
        if config.link_same_image:
            if facts.image_id is None:
                raise ConfigError("method.link_same_image needs to know the image file of every training pair")
            self.register_buffer("image_of", torch.as_tensor(facts.image_id), persistent=False)

    @classmethod
    def build(cls, config: DualGranularityConfig, encoder: Encoder, facts: TrainingFacts) -> DualGranularity:
        """Make the method for an encoder, its memory banks empty until the first epoch begins."""
        return cls(config, encoder, facts)

    @classmethod
    def memory_needed(cls, config: DualGranularityConfig, width: int, facts: TrainingFacts) -> int:
        """Both banks, and once more all features while the banks are filled with them."""
        if "global" not in config.terms:
            return 0
        bank = MemoryBank.memory_needed(facts.pairs, width, update=config.bank_update)
        return 2 * (bank + facts.pairs * width * 4)

    @torch.no_grad()
    def begin_epoch(self, epoch: int, features: TrainingFeatures) -> None:
        """Forget the numbers of the epoch before; fill the banks at the start and when the relations come into use."""
        self.tally.zero_()
        if "global" not in self.config.terms:
            return
        if self.config.record_relations:
            self.mined.fill_(-1)
        if epoch in (1, self.config.relation_start_epoch):
            image, text = features()
            rows = torch.arange(len(image), device=image.device)
            self.image_bank.fill(rows, image)
            self.text_bank.fill(rows, text)

    def forward(self, batch: PairBatch, context: StepContext) -> StepOutput:
        """One training step over the pairs of all processes; writes the banks.

        Returns:
            losses: the terms in use (Eq. 22); before `relation_start_epoch` that is "itc" alone.
            logs: detached `temperature` when it is learnt.
        """
        c = self.config
        image = context.gather(self.encoder.image_features(batch.pixels))
        text = context.gather(self.encoder.text_features(batch.ids, batch.mask))
        image_id, rows = context.gather(batch.image_id), context.gather(batch.row)
        temperature, logs = self.temperature()
        output = StepOutput({}, logs)
        target = self._target(image, text, image_id)
        relation = self._mine(image, text, rows, c.global_anchor) if "global" in c.terms else None
        self._count(image, text, target, relation)
        if "itc" in c.terms:
            known = image_id if c.itc_ignore_same_image else None
            output.losses["itc"] = itc_loss(image, text, temperature=temperature, image_id=known, reduction="sum")
        if context.epoch >= c.relation_start_epoch:
            if "local" in c.terms:
                output.losses["local"] = self._both_directions(image, text, target)
            if relation is not None:
                output.losses["global"] = global_relation_loss(
                    image,
                    text,
                    self.image_bank.read(),
                    self.text_bank.read(),
                    relation,
                    image_to_text=self._mine(image, text, rows, "text") if c.image_to_text_target == "text" else None,
                    temperature=temperature,
                    eps=c.eps,
                    left=c.kl_left,
                )
            if "consistency" in c.terms:
                output.losses["consistency"] = self._consistency(batch, context, image, text, target)
        if relation is not None:
            self._remember(rows, image, text, relation)
        return output

    def end_epoch(self, epoch: int) -> EpochReport:
        """Make what the banks were given readable; report the links of the epoch and what each pair mined."""
        c = self.config
        count = dict(zip(COUNTS, self.tally.tolist(), strict=True))
        samples, pairs = max(count["samples"], 1), max(count["pairs"], 1)
        report = EpochReport({name: count[name] / pairs for name in ("linked_image", "linked_text", "linked_both")})
        report.logs["own_weight"] = count["own_weight"] / samples
        share = report.logs[f"linked_{c.local_relation}"]
        if share > LINKED_SHARE_LIMIT and epoch >= c.relation_start_epoch and c.terms != ("itc",):
            report.warning = (
                f"{share:.0%} of the pairs in a batch count as related at method.threshold {c.threshold:g}, so the "
                "targets say little: raise it, or set method.relation_start_epoch"
            )
        if "global" in c.terms:
            report.logs["mined_per_pair"] = count[MINED] / samples
            self.image_bank.end_epoch()
            self.text_bank.end_epoch()
            if c.record_relations:
                report.arrays[MINED] = self.mined.cpu().numpy().copy()
        return report

    def _target(self, image: Tensor, text: Tensor, image_id: Tensor) -> Tensor:
        """(B, B) target inside a batch (Eq. 3-7)."""
        c = self.config
        return local_relation_target(
            image,
            text,
            threshold=c.threshold,
            softness=c.softness,
            modality=c.local_relation,
            image_id=image_id if c.link_same_image else None,
        )

    def _mine(self, image: Tensor, text: Tensor, rows: Tensor, anchor: Modality) -> GlobalRelation:
        """What the batch is related to in the banks (Eq. 12-15)."""
        c = self.config
        features, bank, also = image, self.image_bank, None
        if anchor == "text":
            features, bank = text, self.text_bank
        elif anchor == "both":
            also = text, self.text_bank.read(), self.text_bank.inverse_norm
        return global_relation(
            features,
            bank.read(),
            rows,
            k=c.k,
            threshold=c.threshold,
            inverse_norm=bank.inverse_norm,
            also=also,
            image_of=self.image_of if c.link_same_image else None,
            reading=GlobalReading(
                repeat_columns=c.repeat_columns,
                drop_batch_rows=c.drop_batch_rows,
                negative_batch_mates=c.negative_batch_mates,
                own_twin_at_one=c.own_twin_at_one,
                flat_weights=c.flat_weights,
            ),
            pad=rows.device.type != "cpu",
        )

    def _both_directions(self, image: Tensor, text: Tensor, target: Tensor, *, keys: Keys | None = None) -> Tensor:
        """Images against texts plus texts against images, the same target for both (Eq. 10, 21).

        Args:
            image, text: (B, D) queries.
            target: (B, B).
            keys: (B, D) images and texts that they are compared with; None: each other.
        """
        key_image, key_text = keys or (image, text)
        c = self.config
        image_to_text, text_to_image = (
            relation_loss(query, key, target, temperature=self.temperature()[0], eps=c.eps, left=c.kl_left)
            for query, key in ((image, key_text), (text, key_image))
        )
        return image_to_text + text_to_image

    def _consistency(
        self, batch: PairBatch, context: StepContext, image: Tensor, text: Tensor, target: Tensor
    ) -> Tensor:
        """The relation loss of the perturbed view (Eq. 19-21); `image`, `text` and `target` are of the clean one."""
        assert batch.perturbed_pixels is not None
        assert batch.perturbed_ids is not None
        c = self.config
        perturbed_image = context.gather(self.encoder.image_features(batch.perturbed_pixels))
        perturbed_text = context.gather(self.encoder.text_features(batch.perturbed_ids, batch.mask))
        if c.iasc_target == "perturbed":
            target = self._target(perturbed_image, perturbed_text, context.gather(batch.image_id))
        keys = (image, text) if c.views.perturb == "crossed" else None
        return self._both_directions(perturbed_image, perturbed_text, target, keys=keys)

    def _remember(self, rows: Tensor, image: Tensor, text: Tensor, relation: GlobalRelation) -> None:
        """Write the fresh features (Eq. 11), after everything that reads the banks, and what was mined."""
        self.image_bank.write(rows, image)
        self.text_bank.write(rows, text)
        if self.config.record_relations:
            self.mined.index_copy_(0, rows, relation.mined.to(self.mined.dtype))

    @torch.no_grad()
    def _count(self, image: Tensor, text: Tensor, target: Tensor, relation: GlobalRelation | None) -> None:
        """Add the links of a batch to the tally; nothing waits for the device."""
        size = len(image)
        links = [local_links(features, threshold=self.config.threshold) for features in (image, text)]
        linked = [each.sum() - size for each in (*links, links[0] & links[1])]
        mined = target.new_zeros(()) if relation is None else (relation.mined >= 0).sum()
        sizes = [target.new_full((), count) for count in (size * (size - 1), size)]
        self.tally += torch.stack([*sizes, *linked, target.diagonal().sum(), mined])
