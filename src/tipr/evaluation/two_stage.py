"""The second stage of every query of a split: a shortlist by cosine, and the match score of each picture on it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from tipr.metrics import stable_similarity, top_k, two_stage_order
from tipr.metrics.ranking import Tail

if TYPE_CHECKING:
    from tipr.evaluation.evaluate import Features

BLOCK = 256
"""Queries whose cosines are in memory together."""

Progress = Callable[[int, int], None]
"""Called with (done, total)."""


class Scores(Protocol):
    """What a second stage needs of a model; `tipr.Reranker` has it."""

    def score(self, query: str, image_tokens: NDArray[Any]) -> NDArray[np.float32]:
        """(N,) float32 match scores of a description with N pictures, higher is better."""


@dataclass(frozen=True, eq=False)
class SecondStage:
    """Match scores of Q queries with the k pictures on the shortlist of each.

    Attributes:
        shortlist: (Q, k) int64 gallery positions, rising in each row.
        match: (Q, k) float32.
        tail: how pictures outside the shortlist are ordered.
    """

    shortlist: NDArray[np.int64]
    match: NDArray[np.float32]
    tail: Tail = "cosine"

    @property
    def k(self) -> int:
        """Pictures on a shortlist."""
        return int(self.shortlist.shape[1])

    def order(self, query: int, similarity: NDArray[np.floating[Any]]) -> NDArray[np.int64]:
        """All gallery positions for one query, best first.

        Args:
            query: its position.
            similarity: (G,) cosines of the query with the gallery.
        """
        return two_stage_order(similarity, self.shortlist[query], self.match[query], tail=self.tail)


def rerank_split(
    reranker: Scores,
    features: Features,
    image_tokens: NDArray[np.float16],
    k: int,
    *,
    tail: Tail = "cosine",
    progress: Progress | None = None,
) -> SecondStage:
    """Score the k best pictures of every query once more.

    Args:
        reranker: see `Scores`.
        features: the encoded split; its cosines make the shortlists.
        image_tokens: (G, T, W) of its images, from `tipr.Reranker.image_tokens`.
        k: pictures on a shortlist, >= 1; more than the gallery means the gallery.
        tail: order of the others: "cosine", or "constant" for the ties of Bi-IRRA's released code.
        progress: called with (pairs scored, pairs in all).

    Raises:
        ValueError: k is below 1, or there are not as many token rows as images.
    """
    if k < 1:
        raise ValueError(f"k is {k}; it must be 1 or more")
    queries, gallery = len(features.text), len(features.images)
    if len(image_tokens) != gallery:
        raise ValueError(f"{len(image_tokens)} rows of image tokens for {gallery} images")
    k = min(k, gallery)
    shortlist = np.empty((queries, k), dtype=np.int64)
    match = np.empty((queries, k), dtype=np.float32)
    wide = np.asarray(features.images, dtype=np.float64)
    for begin in range(0, queries, BLOCK):
        best = np.sort(top_k(stable_similarity(features.text[begin : begin + BLOCK], wide), k), axis=-1)
        for query, row in enumerate(best, begin):
            shortlist[query] = row
            match[query] = reranker.score(features.captions[query], image_tokens[row])
            if progress is not None:
                progress((query + 1) * k, queries * k)
    return SecondStage(shortlist, match, tail)
