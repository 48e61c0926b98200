"""The typed batches that collation makes and a method consumes: with identities, of bare pairs, or in two languages."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

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


@dataclass  # not frozen, as above
class PairBatch:
    """One training batch of B image-caption pairs; it holds nothing from which an identity could be read.

    Attributes:
        pixels: (B, 3, H, W) float32, clean view, normalised.
        perturbed_pixels: (B, 3, H, W) float32, perturbed view; None when the method does not use it.
        ids: (B, L) int64 token ids of the clean caption.
        mask: (B, L) bool, True at real tokens.
        perturbed_ids: (B, L) int64 ids with some tokens masked; None when the method does not use the perturbed view.
        image_id: (B,) int64 position of the image FILE in the training split, never of a person.
        row: (B,) int64 position of the pair in the training split, in 0..N-1.
    """

    pixels: Tensor
    perturbed_pixels: Tensor | None
    ids: Tensor
    mask: Tensor
    perturbed_ids: Tensor | None
    image_id: Tensor
    row: Tensor

    def to(self, device: torch.device | str) -> PairBatch:
        """The same batch with every tensor on `device`."""

        def moved(tensor: Tensor | None) -> Any:
            return None if tensor is None else tensor.to(device, non_blocking=True)

        return PairBatch(**{f.name: moved(getattr(self, f.name)) for f in fields(self)})


@dataclass  # not frozen, as above
class BilingualBatch:
    """One training batch of B images, each with one caption in the source language and in a target language.

    Attributes:
        pixels: (B, 3, H, W) float32, augmented and normalised.
        patch_mask: bool, True = masked: (cells,), one mask of the whole global batch, or (B, cells), one of each image;
            None when the method has no masked image.
        source_ids: (B, L) int64 token ids of the clean caption in the source language.
        source_mask: (B, L) bool, True at real tokens.
        target_ids: (B, L) int64 token ids of the clean caption in the target language, padded to the same L.
        target_mask: (B, L) bool.
        masked_source_ids: (B, L) int64 ids with some tokens masked for MLM; `source_ids` when the method has none.
        source_labels: (B, L) int64 original id at selected positions, `IGNORE` elsewhere.
        masked_target_ids: (B, L) int64.
        target_labels: (B, L) int64.
        identity: (B,) int64 in 0..P-1.
        row: (B,) int64 position of the source caption in the training split.
        target_language: code of the target language, one for the whole global batch.
    """

    pixels: Tensor
    patch_mask: Tensor | None
    source_ids: Tensor
    source_mask: Tensor
    target_ids: Tensor
    target_mask: Tensor
    masked_source_ids: Tensor
    source_labels: Tensor
    masked_target_ids: Tensor
    target_labels: Tensor
    identity: Tensor
    row: Tensor
    target_language: str

    def to(self, device: torch.device | str) -> BilingualBatch:
        """The same batch with every tensor on `device`."""

        def moved(value: Tensor | str | None) -> Any:
            return value.to(device, non_blocking=True) if isinstance(value, Tensor) else value

        return BilingualBatch(**{f.name: moved(getattr(self, f.name)) for f in fields(self)})


IGNORE = -100
"""Label of a position that MLM does not score."""
