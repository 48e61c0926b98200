"""Image-text contrastive loss (ITC, InfoNCE)."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from tipr.losses.inputs import check_identity, check_pairs, check_temperature, cosine, full_precision, same_identity


@full_precision
def itc_loss(
    image: Tensor,
    text: Tensor,
    *,
    temperature: float | Tensor,
    identity: Tensor | None = None,
    image_id: Tensor | None = None,
    reduction: Literal["mean", "sum"] = "mean",
) -> Tensor:
    """Symmetric image-text contrastive loss (InfoNCE).

    Args:
        image: (N, D) embeddings, any float dtype, any scale.
        text: (N, D) embeddings; row i is the caption of image i.
        temperature: > 0; a float or a () tensor (learnable).
        identity: (N,) integer identities; when given, the target of a row is shared equally by all rows of its
            identity instead of being the diagonal alone.
        image_id: (N,) integers of the image files; when given, other rows of a row's file are left out of its
            denominator: another caption of the same picture is neither a positive nor a negative. Not with `identity`.
        reduction: "mean" or "sum" of the two directions.

    Returns:
        () scalar, float32 (float64 for float64 inputs); log(N) when all embeddings are equal ("mean").

    Raises:
        ValueError: shapes do not fit, temperature <= 0, an unknown reduction, or both `identity` and `image_id`.

    Source: Radford et al., "Learning Transferable Visual Models", ICML 2021, fig. 3; IRRA's baseline.
    """
    check_pairs(image, text, identity)
    check_temperature(temperature)
    if reduction not in ("mean", "sum"):
        raise ValueError(f"reduction must be 'mean' or 'sum', got {reduction!r}")
    logits = cosine(image, text) / temperature
    if image_id is not None:
        if identity is not None:
            raise ValueError("itc_loss takes identity or image_id, not both: one asks for what the other leaves out")
        check_identity(image_id, len(logits), "image_id")
        own = torch.eye(len(logits), dtype=torch.bool, device=logits.device)
        logits = logits.masked_fill((image_id[:, None] == image_id[None, :]) & ~own, -torch.inf)
    if identity is None:
        target = torch.arange(len(logits), device=logits.device)
    else:
        same = same_identity(identity, logits.dtype)
        target = same / same.sum(dim=1, keepdim=True)
    both = F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target)
    return both / 2 if reduction == "mean" else both
