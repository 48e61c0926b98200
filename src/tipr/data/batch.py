"""The typed batch that collation makes and a method consumes."""

from __future__ import annotations

from dataclasses import dataclass, fields

import torch
from torch import Tensor


@dataclass  # not frozen: Lightning Fabric walks the fields of what passes through `forward`
class TrainBatch:
    """One training batch of B captions and the M images they describe.

    Usually M = B. With several captions of each image in a step, B = M * n: rows i * n to i * n + n - 1 of all other
    tensors belong to image i, so the image tower, the costly one, runs once for n captions.

    Attributes:
        pixels: (M, 3, H, W) float32, augmented and normalised.
        ids: (B, L) int64 token ids of the clean caption.
        mask: (B, L) bool, True at real tokens.
        masked_ids: (B, L) int64 ids with some tokens masked for MLM; equals `ids` when nothing is masked.
        mlm_labels: (B, L) int64 original id at selected positions, `IGNORE` elsewhere.
        identity: (B,) int64 in 0..P-1.
        row: (B,) int64 position of the sample in the training split.
    """

    pixels: Tensor
    ids: Tensor
    mask: Tensor
    masked_ids: Tensor
    mlm_labels: Tensor
    identity: Tensor
    row: Tensor

    @property
    def captions_per_image(self) -> int:
        """n, captions of each image."""
        return len(self.ids) // len(self.pixels)

    def to(self, device: torch.device | str) -> TrainBatch:
        """The same batch with every tensor on `device`."""
        return TrainBatch(**{f.name: getattr(self, f.name).to(device, non_blocking=True) for f in fields(self)})


IGNORE = -100
"""Label of a position that MLM does not score."""
