"""Image-text matching (ITM): hard negatives by similarity, and the loss over matched and mismatched pairs."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from tipr.losses.inputs import check_pairs, check_temperature, cosine, full_precision

FLOOR = 1e-5
"""Added to the softmax before a draw, so that no other person is ever out of reach."""


class HardNegatives(NamedTuple):
    """One drawn negative for each text and each image of a batch.

    Attributes:
        image: (N,) int64 row of the image that is put beside text i.
        text: (N,) int64 row of the text that is put beside image i.
        found: (N,) bool, False where everybody in reach is the same person; `image` and `text` are the own row there.
    """

    image: Tensor
    text: Tensor
    found: Tensor


@torch.no_grad()
@full_precision
def hard_negatives(
    image: Tensor,
    text: Tensor,
    identity: Tensor,
    uniforms: Tensor,
    *,
    temperature: float | Tensor,
    group: int | None = None,
) -> HardNegatives:
    """Draw for each text an image, and for each image a text, of another person: the likelier the more similar.

    The chance of column j is proportional to softmax(cosine / temperature)_j + 1e-5, and 0 where the identity is equal:
    all pictures and captions of the same person are out, not only the pair itself. No gradient flows through the draw.

    Args:
        image: (N, D) features, any float dtype, any scale.
        text: (N, D) features; row i is a caption of image i.
        identity: (N,) integer identities.
        uniforms: (2, N) draws in [0, 1): of the images for the texts, and of the texts for the images.
        temperature: > 0; a float or a () tensor.
        group: rows i with the same i // group are in reach of each other, softmax included; None: all rows are.

    Raises:
        ValueError: shapes do not fit, temperature <= 0, or group < 1.

    Source: Bi-IRRA (arXiv 2510.17685), section on asymmetric image-text matching; X2-VLM's draw.
    """
    check_pairs(image, text, identity)
    check_temperature(temperature)
    if uniforms.shape != (2, len(image)):
        raise ValueError(f"uniforms must be (2, {len(image)}), got {tuple(uniforms.shape)}")
    if group is not None and group < 1:
        raise ValueError(f"group must be >= 1, got {group}")
    row = torch.arange(len(image), device=image.device)
    block = row // (group or len(image))
    in_reach = block[:, None] == block[None, :]
    candidate = in_reach & (identity[:, None] != identity[None, :])
    logits = cosine(image, text) / temperature
    found = candidate.any(dim=1)
    drawn_image, drawn_text = (
        _draw(F.softmax(scores.masked_fill(~in_reach, -torch.inf), dim=1), candidate, draw)
        for scores, draw in ((logits.T, uniforms[0]), (logits, uniforms[1]))
    )
    return HardNegatives(torch.where(found, drawn_image, row), torch.where(found, drawn_text, row), found)


def _draw(share: Tensor, candidate: Tensor, uniform: Tensor) -> Tensor:
    """(N,) a column of each row of (N, M) `share`, by inversion of the cumulated weights."""
    # float64: the draw must never be rounded up to the end of the row, where the weight may be 0
    weight = ((share + FLOOR) * candidate).double().cumsum(dim=1)
    column = torch.searchsorted(weight, (uniform.double() * weight[:, -1])[:, None], right=True)
    return column.squeeze(1).clamp(max=share.shape[1] - 1)


@full_precision
def itm_loss(
    matched: Tensor, other_image: Tensor, other_text: Tensor, *, found: Tensor, count: Tensor | None = None
) -> Tensor:
    """Mean two-class cross-entropy over matched pairs and their two kinds of mismatched ones.

    Args:
        matched: (N, 2) logits of text i beside image i; class 1 is "match".
        other_image: (N, 2) logits of text i beside its drawn image.
        other_text: (N, 2) logits of the drawn text beside image i.
        found: (N,) bool; rows without a negative are left out with all three of their pairs.
        count: () rows to divide by (three pairs each), instead of those found here (several processes divide by the
            count of all).

    Returns:
        () scalar, float32 (float64 for float64 inputs); log(2) for equal logits, exactly 0 with zero gradient when no
        row has a negative.

    Raises:
        ValueError: shapes do not fit.

    Source: Bi-IRRA (arXiv 2510.17685), equations 14-15.
    """
    shapes = [tuple(logits.shape) for logits in (matched, other_image, other_text)]
    if set(shapes) != {(len(found), 2)} or found.ndim != 1:
        raise ValueError(f"all logits must be (N, 2) and found (N,), got {shapes} and {tuple(found.shape)}")
    score = F.log_softmax(torch.stack([matched, other_image, other_text]), dim=-1)
    pair_losses = -(score[0, :, 1] + score[1, :, 0] + score[2, :, 0])
    rows = found.sum() if count is None else count
    return torch.where(found, pair_losses, 0).sum() / (3 * rows.clamp(min=1))
