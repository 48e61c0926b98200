"""A large batch on small memory: the encoder works through it part by part, the losses see all of it.

Contrastive losses compare every row with every other, so a batch cannot be cut and its gradients added up. But only
the features must be there together: each part is encoded without keeping what its backward pass needs, and encoded
again, from the same random state, when the gradient of its features is known (GradCache, Gao et al., RepL4NLP 2021, by
means of torch's checkpointing). The gradients are those of the whole batch; a step costs one more forward pass.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from tipr.encoders.base import Encoded, Encoder


def encode_in_parts(encoder: Encoder, rows: int) -> None:
    """Let an encoder keep the activations of so many rows at a time in training; evaluation is as before.

    What a method does with the tokens afterwards, such as the interaction of IRRA's MLM or the fusion of Bi-IRRA's
    A-ITM, MLM and D-MIM, still takes the memory of the whole batch.

    Args:
        encoder: changed in place.
        rows: images or texts of a part, at least 1.
    """
    image, text = encoder.encode_image, encoder.encode_text
    own: Any = encoder
    own.encode_image = partial(_image_in_parts, image, rows)
    own.encode_text = partial(_in_parts, text, rows)


def _image_in_parts(
    encode: Callable[..., Encoded], rows: int, pixels: Tensor, patch_mask: Tensor | None = None
) -> Encoded:
    """Encode images; a mask of each image is cut with them, one mask of the whole batch is not."""
    if patch_mask is None:
        return _in_parts(encode, rows, pixels)
    grid = getattr(encode.__self__, "grid", None)  # type: ignore[attr-defined]
    if patch_mask.ndim == 1 or tuple(patch_mask.shape) == grid:
        return _in_parts(lambda part: encode(part, patch_mask), rows, pixels)
    return _in_parts(encode, rows, pixels, patch_mask)


def _in_parts(encode: Callable[..., Encoded], rows: int, *tensors: Tensor) -> Encoded:
    """The whole batch from its parts.

    Args:
        encode: of one part.
        rows: of a part.
        tensors: each with the batch in front.
    """
    count = len(tensors[0])
    if count <= rows or not torch.is_grad_enabled():
        return encode(*tensors)
    parts = [
        checkpoint(encode, *(tensor[start : start + rows] for tensor in tensors), use_reentrant=False)
        for start in range(0, count, rows)
    ]
    tokens, pooled, mask = (torch.cat(pieces) for pieces in zip(*parts, strict=True))
    return Encoded(tokens, pooled, mask)
