"""Loss functions: pure, tensors in, one scalar out, float32 inside, inputs never modified."""

from tipr.losses.cmpm import cmpm_loss
from tipr.losses.identity import identity_loss
from tipr.losses.itc import itc_loss
from tipr.losses.itm import HardNegatives, hard_negatives, itm_loss
from tipr.losses.mim import reconstruction_loss
from tipr.losses.mlm import mlm_loss
from tipr.losses.relation import (
    GlobalReading,
    GlobalRelation,
    global_relation,
    global_relation_loss,
    local_links,
    local_relation_target,
    relation_loss,
)
from tipr.losses.sdm import sdm_loss

__all__ = [
    "GlobalReading",
    "GlobalRelation",
    "HardNegatives",
    "cmpm_loss",
    "global_relation",
    "global_relation_loss",
    "hard_negatives",
    "identity_loss",
    "itc_loss",
    "itm_loss",
    "local_links",
    "local_relation_target",
    "mlm_loss",
    "reconstruction_loss",
    "relation_loss",
    "sdm_loss",
]
