"""Similarity distribution matching (SDM): the global loss of IRRA."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

from tipr.losses.inputs import check_pairs, check_temperature, cosine, full_precision, same_identity


@full_precision
def sdm_loss(
    image: Tensor, text: Tensor, identity: Tensor, *, temperature: float | Tensor = 0.02, eps: float = 1e-8
) -> Tensor:
    """Similarity distribution matching between images and texts.

    Per direction the mean over rows of KL(p || q): p is the softmax of cosine / temperature, q the row-normalised
    same-identity matrix. The PREDICTION p stands on the left. The two directions are added, not averaged.

    Args:
        image: (N, D) features, any float dtype, any scale.
        text: (N, D) features; row i is a caption of image i.
        identity: (N,) integer identities; equal values are positives of each other.
        temperature: > 0; a float or a () tensor.
        eps: added to q inside the logarithm.

    Returns:
        () scalar, float32 (float64 for float64 inputs).

    Raises:
        ValueError: shapes do not fit, or temperature <= 0.

    Source: Jiang and Ye, "Cross-Modal Implicit Relation Reasoning and Aligning", CVPR 2023, section "Similarity
    Distribution Matching".
    """
    check_pairs(image, text, identity)
    check_temperature(temperature)
    logits = cosine(image, text) / temperature
    same = same_identity(identity, logits.dtype)
    log_target = (same / same.sum(dim=1, keepdim=True) + eps).log()
    return predicted_divergence(logits, log_target) + predicted_divergence(logits.T, log_target)


def predicted_divergence(logits: Tensor, log_target: Tensor) -> Tensor:
    """Mean over rows of sum_j p_j (log p_j - log_target_j), p = softmax(logits).

    Args:
        logits: (N, M).
        log_target: (N, M) logarithm of the target; it need not be normalised.
    """
    log_p = F.log_softmax(logits, dim=1)
    return (log_p.exp() * (log_p - log_target)).sum(dim=1).mean()
