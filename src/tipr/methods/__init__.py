"""Training methods: a method is one file and one line in `METHODS`."""

from tipr.methods.base import EpochReport, Method, StepContext, StepOutput, TrainingFacts, TrainingFeatures
from tipr.methods.bi_irra import BiIrra
from tipr.methods.clip_baseline import ClipBaseline
from tipr.methods.cluster_relations import ClusterRelations
from tipr.methods.dual_granularity import DualGranularity
from tipr.methods.irra import Irra

METHODS: dict[str, type[Method]] = {
    "irra": Irra,
    "clip_baseline": ClipBaseline,
    "dual_granularity": DualGranularity,
    "cluster_relations": ClusterRelations,
    "bi_irra": BiIrra,
}
"""Name in a configuration -> class with `Config` and `build`."""

__all__ = [
    "METHODS",
    "BiIrra",
    "ClipBaseline",
    "ClusterRelations",
    "DualGranularity",
    "EpochReport",
    "Irra",
    "Method",
    "StepContext",
    "StepOutput",
    "TrainingFacts",
    "TrainingFeatures",
]
