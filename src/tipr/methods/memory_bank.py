"""Memory of one modality: a feature for every training pair, moved towards the fresh one each time it is seen."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tipr.losses.relation import inverse_norms

Update = Literal["epoch", "step"]

BLOCK = 4096
"""Rows that are filled at a time, so that normalising them needs no further copy of the bank."""


class MemoryBank(nn.Module):
    """Stored features of all training pairs in one modality (Eq. 11), saved with the training state.

    With `update="epoch"` every read of an epoch sees the rows as the epoch before left them: writes go to a second
    copy, which `end_epoch` makes the one that is read. Rows that were not written keep their value.

    The buffers follow `Module.to`; features are converted to their dtype, float32 unless the module was converted. No
    call waits for an accelerator.

    Args:
        pairs: N, rows of the training split.
        width: D, width of a feature.
        momentum: alpha, in (0, 1): new = alpha * fresh + (1 - alpha) * old.
        update: when writes become readable: "epoch" or "step" (at once).
        normalise: store unit vectors: fresh features are normalised before they are mixed in and rows afterwards.

    Raises:
        ValueError: a value is not as above.

    Source: Zhang, Shang and Li, "Dual-Granularity Cross-Modal Identity Association for Weakly-Supervised
    Text-to-Person Image Matching", ACM MM 2025, Eq. 11.
    """

    current: Tensor
    inverse_norm: Tensor
    coming: Tensor

    def __init__(
        self, pairs: int, width: int, *, momentum: float = 0.5, update: Update = "epoch", normalise: bool = False
    ) -> None:
        super().__init__()
        if pairs < 1 or width < 1:
            raise ValueError(f"a memory bank needs pairs >= 1 and width >= 1, got {pairs} and {width}")
        if not 0 < momentum < 1:
            raise ValueError(f"momentum must lie in (0, 1), got {momentum}")
        if update not in ("epoch", "step"):
            raise ValueError(f"update must be 'epoch' or 'step', got {update!r}")
        self.momentum = momentum
        self.update = update
        self.normalise = normalise
        self.register_buffer("current", torch.zeros(pairs, width))
        self.register_buffer("inverse_norm", torch.zeros(pairs))
        if update == "epoch":
            self.register_buffer("coming", torch.zeros(pairs, width))

    @staticmethod
    def memory_needed(pairs: int, width: int, *, update: Update = "epoch") -> int:
        """Bytes that one float32 bank holds: N x D x 4, twice that with `update="epoch"`, and N x 4 of norms."""
        return 4 * pairs * (width * (2 if update == "epoch" else 1) + 1)

    def read(self) -> Tensor:
        """(N, D) rows as reads see them now: the storage itself, not a copy; do not modify it."""
        return self.current

    @torch.no_grad()
    def fill(self, rows: Tensor, features: Tensor) -> None:
        """Set rows as they are, readable at once; how a bank starts.

        Args:
            rows: (M,) int64, distinct.
            features: (M, D), any float dtype.
        """
        for start in range(0, len(rows), BLOCK):
            some, part = rows[start : start + BLOCK], features[start : start + BLOCK]
            stored = self._as_stored(part)
            self.current.index_copy_(0, some, stored)
            self.inverse_norm.index_copy_(0, some, inverse_norms(stored))
            if self.update == "epoch":
                self.coming.index_copy_(0, some, stored)

    @torch.no_grad()
    def write(self, rows: Tensor, features: Tensor) -> None:
        """Mix fresh features into their rows (Eq. 11); call it after the losses of the step.

        Args:
            rows: (M,) int64, distinct: the pairs of the whole batch, the same on every process.
            features: (M, D) fresh features, any float dtype.
        """
        mixed = torch.lerp(self.current[rows], self._as_stored(features), self.momentum)
        mixed = F.normalize(mixed, dim=1) if self.normalise else mixed
        if self.update == "epoch":
            self.coming.index_copy_(0, rows, mixed)
        else:
            self.current.index_copy_(0, rows, mixed)
            self.inverse_norm.index_copy_(0, rows, inverse_norms(mixed))

    @torch.no_grad()
    def end_epoch(self) -> None:
        """Make the writes of the epoch readable; nothing to do with `update="step"`."""
        if self.update == "epoch":
            # a copy, not a swap: rows that the next epoch leaves out must still be there when it ends
            self.current.copy_(self.coming)
            self.inverse_norm.copy_(inverse_norms(self.current))

    def _as_stored(self, features: Tensor) -> Tensor:
        features = features.detach().to(self.current.dtype)
        return F.normalize(features, dim=1) if self.normalise else features
