"""Distillation-based masked image modelling (D-MIM): tokens of a masked image against those of the whole one."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from tipr.losses.inputs import full_precision


@full_precision
def reconstruction_loss(student: Tensor, teacher: Tensor, *, scored: Tensor | None = None) -> Tensor:
    """Mean over images of the mean over their tokens of 1 - cosine(student, teacher).

    Args:
        student: (N, T, D) reconstructed tokens, any float dtype, any scale.
        teacher: (N, T, D) tokens to be reconstructed; no gradient flows into them.
        scored: (N, T) bool, or (T,) for all images alike; only these tokens count. None: all do.

    Returns:
        () scalar in [0, 2], float32 (float64 for float64 inputs); 0 for parallel tokens. An image
        without scored tokens adds exactly 0 with zero gradient.

    Raises:
        ValueError: shapes do not fit.

    Source: Bi-IRRA (arXiv 2510.17685), equations 4-6. Equation 6 prints the cosine; what is minimised is 1 - cosine.
    """
    if student.shape != teacher.shape or student.ndim != 3:
        raise ValueError(
            f"student and teacher must both be (N, T, D), got {tuple(student.shape)} and {tuple(teacher.shape)}"
        )
    distance = 1 - F.cosine_similarity(student, teacher.detach(), dim=-1)
    if scored is None:
        return distance.mean()
    if scored.shape not in (distance.shape, distance.shape[-1:]):
        raise ValueError(f"scored must be {tuple(distance.shape)}, got {tuple(scored.shape)}")
    scored = scored.expand_as(distance)
    return (torch.where(scored, distance, 0).sum(dim=1) / scored.sum(dim=1).clamp(min=1)).mean()
