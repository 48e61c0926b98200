"""Masking of captions: for masked language modelling, and for the perturbed view of a pair.

Sources: IRRA (CVPR 2023), section 3.2 (irra.md 3.3); dual-granularity identity association (ACM MM 2025), equation 20
(dual-granularity.md 6).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tipr.data.batch import IGNORE
from tipr.data.views import TextMask

Ids = NDArray[np.int64]

MASKED_SHARE = 0.8
SUBSTITUTED_SHARE = 0.1


@dataclass(frozen=True)
class Masking:
    """How captions are masked.

    Attributes:
        mask_id: id of the mask token.
        maskable: ids in [low, high) may be masked, and are what a substitute is drawn from.
        probability: share of the maskable positions that is selected, in [0, 1].
    """

    mask_id: int
    maskable: tuple[int, int]
    probability: float = 0.15

    def __call__(self, ids: Ids, draws: NDArray[np.float64]) -> tuple[Ids, Ids]:
        """Mask a batch of captions; the input stays as it is.

        A maskable position with u < probability is selected; of the selected, 80 % become the mask token, 10 % another
        token and 10 % stay. A caption where nothing was selected gets its first maskable position masked (position 1 in
        CLIP's layout); a caption without one is left alone.

        Args:
            ids: (B, L) int64 token ids.
            draws: (B, 2 L) float64 in [0, 1): two draws for each position.

        Returns:
            (B, L) int64 masked ids and (B, L) int64 labels: the original id where selected, `IGNORE` elsewhere.
        """
        low, high = self.maskable
        rows, length = ids.shape
        choice, substitute = draws.reshape(rows, length, 2).transpose(2, 0, 1)
        maskable = (ids >= low) & (ids < high)
        selected = maskable & (choice < self.probability)
        part = choice / self.probability if self.probability > 0 else np.ones_like(choice)

        forced = np.zeros_like(selected)
        if self.probability > 0:
            bare = np.flatnonzero(maskable.any(axis=1) & ~selected.any(axis=1))
            forced[bare, maskable[bare].argmax(axis=1)] = True

        masked = np.where((selected & (part < MASKED_SHARE)) | forced, self.mask_id, ids)
        other = selected & (part >= MASKED_SHARE) & (part < MASKED_SHARE + SUBSTITUTED_SHARE)
        masked[other] = low + np.floor(substitute[other] * (high - low)).astype(np.int64)
        return masked, np.where(selected | forced, ids, IGNORE)


@dataclass(frozen=True)
class CaptionPerturbation:
    """Replaces a share of a caption's ordinary tokens by the mask token: no labels, no substitutes (equation 20).

    Attributes:
        mask_id: id of the mask token.
        maskable: ids in [low, high) are ordinary tokens; start, end and padding lie outside.
        ratio: share that is replaced, in [0, 1]; 0 replaces nothing.
        kind: "exact": max(1, floor(ratio * n + 0.5)) of the n ordinary tokens of each caption, drawn without
            replacement; "bernoulli": each of them by itself with probability `ratio`.
    """

    mask_id: int
    maskable: tuple[int, int]
    ratio: float = 0.5
    kind: TextMask = "exact"

    def __call__(self, ids: Ids, draws: NDArray[np.float64]) -> Ids:
        """Perturb a batch of captions; the input stays as it is, and a caption without ordinary tokens does too.

        Args:
            ids: (B, L) int64 token ids.
            draws: (B, L) float64 in [0, 1), one draw for each position.

        Returns:
            (B, L) int64, a new array.
        """
        low, high = self.maskable
        ordinary = (ids >= low) & (ids < high)
        if self.ratio == 0:
            return ids.copy()
        if self.kind == "bernoulli":
            return np.where(ordinary & (draws < self.ratio), self.mask_id, ids)
        number = np.maximum(1, np.floor(self.ratio * ordinary.sum(axis=1) + 0.5))
        place = np.where(ordinary, draws, np.inf).argsort(axis=1, kind="stable").argsort(axis=1, kind="stable")
        return np.where(ordinary & (place < number[:, None]), self.mask_id, ids)
