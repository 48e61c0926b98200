"""Masking of captions in spans, as X2-VLM's generator does, and by independent draws (bi-irra.md 2.3)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tipr.data.batch import IGNORE
from tipr.data.masking import MASKED_SHARE, SUBSTITUTED_SHARE
from tipr.data.views import MlmMasking

Ids = NDArray[np.int64]
Mask = NDArray[np.bool_]
Draws = NDArray[np.float64]

SPAN_SHARE = 0.2
"""Probability that a pick is a span; of 2 or of 3 positions with equal odds."""
DRAWS_OF_A_POSITION = 5
"""Place in the order of visits, span or not, what to drop, what it becomes, substitute."""


@dataclass(frozen=True)
class SpanMasking:
    """How captions are masked for MLM.

    Attributes:
        mask_id: id of the mask token.
        vocabulary_size: V; a substitute is any id in [0, V), special tokens included.
        kind: "spans": a fixed number of positions, in runs of up to three; "bernoulli": the paper's words, every
            position by itself, always replaced by the mask token.
        share: of the positions that is masked.
        most: at most this many positions of a caption ("spans").
    """

    mask_id: int
    vocabulary_size: int
    kind: MlmMasking = "spans"
    share: float = 0.4
    most: int = 12

    def __call__(self, ids: Ids, mask: Mask, draws: Draws) -> tuple[Ids, Ids]:
        """Mask a batch of captions; the input stays as it is.

        "spans": with n real tokens, start and end included, exactly min(most, max(1, round(share * n))) of the
        positions 1..n-1, so the end token may be masked and the start token never. Positions are visited in random
        order; each visited one that is still free becomes masked, with probability 0.2 together with the next one or
        two. What is too much is dropped at random. Of the chosen, 80 % become the mask token, 10 % a substitute and
        10 % stay.

        "bernoulli": each of the positions 1..n-2, and where nothing was chosen the first of them.

        Args:
            ids: (B, L) int64 token ids.
            mask: (B, L) bool, True at real tokens; these come first.
            draws: (B, 5 L) float64 in [0, 1).

        Returns:
            (B, L) int64 masked ids and (B, L) int64 labels: the original id where chosen, `IGNORE` elsewhere.
        """
        rows, length = ids.shape
        order, span, drop, choice, substitute = draws.reshape(rows, length, DRAWS_OF_A_POSITION).transpose(2, 0, 1)
        tokens = mask.sum(axis=1)
        if self.kind == "bernoulli":
            chosen = self._independent(order, tokens)
            return np.where(chosen, self.mask_id, ids), np.where(chosen, ids, IGNORE)
        chosen = self._spans(order, span, drop, tokens)
        masked = np.where(chosen & (choice < MASKED_SHARE), self.mask_id, ids)
        other = chosen & (choice >= MASKED_SHARE) & (choice < MASKED_SHARE + SUBSTITUTED_SHARE)
        masked[other] = np.floor(substitute[other] * self.vocabulary_size).astype(np.int64)
        return masked, np.where(chosen, ids, IGNORE)

    def _independent(self, draws: Draws, tokens: NDArray[np.int64]) -> Mask:
        place = np.arange(draws.shape[1])
        words = (place >= 1) & (place < tokens[:, None] - 1)
        chosen = words & (draws < self.share)
        bare = np.flatnonzero(words.any(axis=1) & ~chosen.any(axis=1))
        chosen[bare, 1] = True
        return chosen

    def _spans(self, order: Draws, span: Draws, drop: Draws, tokens: NDArray[np.int64]) -> Mask:
        rows, length = order.shape
        place = np.arange(length)
        outside = (place < 1) | (place >= tokens[:, None])
        wanted = np.minimum(self.most, np.maximum(1, np.rint(self.share * tokens)))  # rint: half to even, like `round`
        visits = np.where(outside, np.inf, order).argsort(axis=1, kind="stable")
        width = 1 + (span < SPAN_SHARE) + (span < SPAN_SHARE / 2)
        # Two columns more, so that a run may go over the end; they are cut off again.
        chosen = np.zeros((rows, length + 2), np.bool_)
        count = np.zeros(rows, np.int64)
        every = np.arange(rows)
        for visit in range(length):
            start = visits[:, visit]
            run = width[every, start]
            active = (count < wanted) & (visit < tokens - 1) & ~chosen[every, start]
            if not active.any():
                if (count >= wanted).all() or visit >= tokens.max():
                    break
                continue
            for step in range(3):
                chosen[every, start + step] |= active & (step < run)
            chosen[:, :length] &= ~outside
            count = chosen[:, :length].sum(axis=1)
        inside: Mask = chosen[:, :length]
        rank = np.where(inside, drop, np.inf).argsort(axis=1, kind="stable").argsort(axis=1, kind="stable")
        kept: Mask = inside & (rank < wanted[:, None])
        return kept
