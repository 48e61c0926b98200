"""Identity classification loss: one classifier for both modalities."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

from tipr.losses.inputs import check_identity, check_pairs, full_precision


@full_precision
def identity_loss(image_logits: Tensor, text_logits: Tensor, identity: Tensor) -> Tensor:
    """Mean over the two modalities of the cross-entropy of an identity classifier.

    Args:
        image_logits: (N, P) scores of the images, any float dtype.
        text_logits: (N, P) scores of the texts.
        identity: (N,) integers in 0..P-1.

    Returns:
        () scalar, float32 (float64 for float64 inputs); log(P) for constant logits.

    Raises:
        ValueError: shapes do not fit.

    Source: Zheng et al., "Dual-path convolutional image-text embeddings", TOMM 2020; halved as in IRRA's code.
    """
    check_pairs(image_logits, text_logits)
    check_identity(identity, len(image_logits))
    return (F.cross_entropy(image_logits, identity) + F.cross_entropy(text_logits, identity)) / 2
