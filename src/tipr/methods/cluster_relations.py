"""Relations by clustering: the family of CMMT (ICCV 2021) and CPCL (arXiv 2401.10011), for comparison.

Before each epoch the images of the training split are clustered; pairs of one cluster are then treated as one person.
Like the other methods without identities it sees bare pairs only.
"""

from __future__ import annotations

from typing import ClassVar, Literal, Self

import torch
from pydantic import Field, field_validator
from torch import Tensor

from tipr.data.batch import PairBatch
from tipr.data.views import PairViews
from tipr.encoders.base import Encoder
from tipr.errors import ConfigError
from tipr.losses import itc_loss, sdm_loss
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
from tipr.methods.clustering import pseudo_labels

Term = Literal["sdm", "itc"]
LARGEST_SHARE = 0.5
"""A cluster with more of the pairs than this says that nobody is told apart."""


class ClusterRelationsConfig(MethodConfig):
    """Settings of the clustering peer.

    Attributes:
        name: "cluster_relations".
        terms: losses that are summed: "sdm" on the pseudo identities; "itc" on the pairs themselves.
        k1: neighbours of the k-reciprocal sets.
        k2: neighbours whose encodings are averaged, at most k1.
        eps: largest Jaccard distance between neighbours of a cluster.
        min_samples: neighbours, itself included, that a pair needs to be the core of a cluster.
        relation_start_epoch: first epoch with clusters; before it every pair is related to itself alone.
        views: of these only `clean_view_augment` has an effect: there is no perturbed view.
        record_relations: keep the clusters of every epoch in the run folder.
    """

    name: Literal["cluster_relations"] = "cluster_relations"
    terms: tuple[Term, ...] = ("sdm",)
    k1: int = Field(default=30, ge=1)
    k2: int = Field(default=6, ge=1)
    eps: float = Field(default=0.6, gt=0, lt=1)
    min_samples: int = Field(default=4, ge=1)
    relation_start_epoch: int = Field(default=1, ge=1)
    views: PairViews = PairViews()
    record_relations: bool = True

    _terms = field_validator("terms")(some_and_distinct)


class ClusterRelations(Method):
    """SDM on clusters of the training images, made anew before each epoch.

    Args:
        config: settings.
        encoder: the two towers.
        pairs: N, of the training split.

    Attributes:
        cluster: (N,) int64 buffer, saved with the training state: cluster of each pair, -1 for none.
    """

    name: ClassVar[str] = "cluster_relations"
    Config: ClassVar[type[MethodConfig]] = ClusterRelationsConfig
    config: ClusterRelationsConfig
    batch = PairBatch
    cluster: Tensor

    def __init__(self, config: ClusterRelationsConfig, encoder: Encoder, *, pairs: int) -> None:
        super().__init__(config, encoder)
        self.register_buffer("cluster", torch.full((pairs,), -1))

    @classmethod
    def build(cls, config: ClusterRelationsConfig, encoder: Encoder, facts: TrainingFacts) -> Self:
        """Make the method for an encoder.

        Raises:
            ConfigError: k2 is above k1, or there are not more pairs than k1.
        """
        if config.k2 > config.k1:
            raise ConfigError(f"method.k2 {config.k2} is above method.k1 {config.k1}")
        if config.k1 >= facts.pairs:
            raise ConfigError(f"method.k1 {config.k1} must be below the number of training pairs, {facts.pairs}")
        return cls(config, encoder, pairs=facts.pairs)

    def begin_epoch(self, epoch: int, features: TrainingFeatures) -> None:
        """Cluster the training images as the encoder sees them now."""
        c = self.config
        if epoch >= c.relation_start_epoch:
            image, _ = features()
            self.cluster.copy_(pseudo_labels(image, k1=c.k1, k2=c.k2, eps=c.eps, min_samples=c.min_samples))

    def forward(self, batch: PairBatch, context: StepContext) -> StepOutput:
        """One training step over the gathered rows.

        Returns:
            losses: one () scalar for each configured term.
            logs: detached `linked`, share of the other pairs of the batch that a pair is related to, in 0..1;
                `temperature` when it is learnt.
        """
        image = context.gather(self.encoder.image_features(batch.pixels))
        text = context.gather(self.encoder.text_features(batch.ids, batch.mask))
        person = self.pseudo_identity(context.gather(batch.row))
        same = person[:, None] == person[None, :]
        temperature, logs = self.temperature()
        linked = (same.float().sum() - len(person)) / max(1, same.numel() - len(person))
        output = StepOutput({}, {"linked": linked, **logs})
        if "sdm" in self.config.terms:
            output.losses["sdm"] = sdm_loss(image, text, person, temperature=temperature)
        if "itc" in self.config.terms:
            output.losses["itc"] = itc_loss(image, text, temperature=temperature, reduction="sum")
        return output

    def pseudo_identity(self, row: Tensor) -> Tensor:
        """(B,) int64: equal for pairs of one cluster; a pair of no cluster has a number of its own.

        Args:
            row: (B,) int64 in 0..N-1.
        """
        cluster = self.cluster[row]
        return torch.where(cluster < 0, len(self.cluster) + row, cluster)

    def end_epoch(self, epoch: int) -> EpochReport:
        """How many clusters there were, and the clusters themselves."""
        kept = self.cluster[self.cluster >= 0]
        sizes = torch.bincount(kept).double() if len(kept) else torch.zeros(1)
        clusters, largest = int((sizes > 0).sum()), float(sizes.max()) / len(self.cluster)
        logs = {
            "clusters": float(clusters),
            "outliers": 1 - len(kept) / len(self.cluster),
            "mean_cluster": len(kept) / max(1, clusters),
            "largest_cluster": largest,
        }
        warning = None
        if largest > LARGEST_SHARE:
            warning = f"{largest:.0%} of the pairs are in one cluster: lower method.eps or start clusters later"
        elif not clusters and epoch >= self.config.relation_start_epoch:
            warning = "no clusters were found: every pair is related to itself alone"
        arrays = {"cluster": self.cluster.cpu().numpy().astype("int32")} if self.config.record_relations else {}
        return EpochReport(logs, arrays, warning)
