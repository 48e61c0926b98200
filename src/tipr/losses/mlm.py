"""Masked language modelling (MLM) loss."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

from tipr.losses.inputs import full_precision


@full_precision
def mlm_loss(logits: Tensor, labels: Tensor, *, ignore_index: int, count: Tensor | None = None) -> Tensor:
    """Mean cross-entropy over the labelled positions of a batch.

    Args:
        logits: (..., V) scores over the vocabulary, any float dtype.
        labels: (...) int64 original ids; `ignore_index` where a position is not scored.
        ignore_index: the label of positions that are not scored.
        count: () number to divide the summed cross-entropy by, instead of the labelled positions given here (several
            processes divide by the count of all).

    Returns:
        () scalar, float32 (float64 for float64 inputs); exactly 0 with zero gradient when nothing is labelled.

    Raises:
        ValueError: shapes do not fit.

    Source: IRRA (CVPR 2023), "Implicit Relation Reasoning", without the division by |V| that its code does not do.
    """
    if logits.shape[:-1] != labels.shape or logits.ndim < 2:
        raise ValueError(f"logits must be (..., V) and labels (...), got {tuple(logits.shape)}, {tuple(labels.shape)}")
    flat = labels.reshape(-1)
    total = F.cross_entropy(logits.reshape(-1, logits.shape[-1]), flat, ignore_index=ignore_index, reduction="sum")
    if count is None:
        count = (flat != ignore_index).sum()
    return total / count.clamp(min=1)
