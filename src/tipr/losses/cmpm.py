"""Cross-modal projection matching (CMPM): the older global loss that SDM replaced."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

from tipr.losses.inputs import check_pairs, full_precision, same_identity
from tipr.losses.sdm import predicted_divergence


@full_precision
def cmpm_loss(image: Tensor, text: Tensor, identity: Tensor, *, eps: float = 1e-8) -> Tensor:
    """Cross-modal projection matching between images and texts.

    As SDM with two differences: the query is NOT normalised and there is no temperature (logits v_i . t_j / |t_j|),
    and a target row is divided by its L2 norm, so it is not a distribution when a row has several positives.

    Args:
        image: (N, D) features, any float dtype; the scale matters.
        text: (N, D) features; row i is a caption of image i.
        identity: (N,) integer identities.
        eps: added to the target inside the logarithm.

    Returns:
        () scalar, float32 (float64 for float64 inputs): the sum of the two directions.

    Raises:
        ValueError: shapes do not fit.

    Source: Zhang and Lu, "Deep Cross-Modal Projection Learning", ECCV 2018, as the IRRA code has it.
    """
    check_pairs(image, text, identity)
    same = same_identity(identity, image.dtype)
    log_target = (same / same.norm(dim=1, keepdim=True) + eps).log()
    image_to_text = image @ F.normalize(text, dim=-1).T
    text_to_image = text @ F.normalize(image, dim=-1).T
    return predicted_divergence(image_to_text, log_target) + predicted_divergence(text_to_image, log_target)
