"""How alike the results are when the same thing is asked in several languages.

Each caption of an image stands in every language at the same place among the image's captions of that language, so the
n-th ones are versions of one query. Two versions agree by the share of pictures that both have among their first k.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import NDArray

from tipr.data.samples import LANGUAGES
from tipr.metrics import stable_similarity, top_k

if TYPE_CHECKING:
    from tipr.evaluation.evaluate import Features
    from tipr.evaluation.two_stage import SecondStage

FIRST = 10
"""Results compared."""
BLOCK = 256


@dataclass(frozen=True, slots=True)
class Overlap:
    """Shared results of the versions of one query, in percent, as means over queries.

    Attributes:
        first: results compared, k: 10, or the gallery where that is smaller.
        queries: queries that stand in all the languages.
        mean: over the pairs of languages.
        pairs: (language, language) -> percent, in the order of tables.
    """

    first: int
    queries: int
    mean: float
    pairs: Mapping[tuple[str, str], float]

    def to_json(self) -> dict[str, Any]:
        """JSON values; a pair is spelled "en-zh"."""
        pairs = {"-".join(pair): value for pair, value in self.pairs.items()}
        return {"first": self.first, "queries": self.queries, "mean": self.mean, "pairs": pairs}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Self:
        """The inverse of `to_json`."""
        pairs = {}
        for name, value in values["pairs"].items():
            one, other = name.split("-")
            pairs[one, other] = float(value)
        return cls(int(values["first"]), int(values["queries"]), float(values["mean"]), pairs)


def language_overlap(features: Features, second_stage: SecondStage | None = None) -> Overlap | None:
    """Compare the first results of the versions of each query.

    Args:
        features: the encoded split.
        second_stage: when the gallery is reranked.

    Returns:
        None when there are fewer than two languages, or no query that stands in all of them.
    """
    rows = versions(features.image_id, features.language)
    if len(rows) < 2 or not len(next(iter(rows.values()))):
        return None
    first = first_results(features, FIRST, second_stage)
    pairs = {
        (one, other): 100.0 * float(np.mean(_shared(first[rows[one]], first[rows[other]])))
        for one, other in combinations(rows, 2)
    }
    queries = len(next(iter(rows.values())))
    return Overlap(first.shape[1], queries, float(np.mean(list(pairs.values()))), pairs)


def first_results(features: Features, k: int, second_stage: SecondStage | None = None) -> NDArray[np.int64]:
    """(Q, min(k, G)) gallery positions: the first k results of every query, best first."""
    first = np.empty((len(features.text), min(k, len(features.images))), dtype=np.int64)
    wide = np.asarray(features.images, dtype=np.float64)
    for begin in range(0, len(first), BLOCK):
        scores = stable_similarity(features.text[begin : begin + BLOCK], wide)
        if second_stage is None:
            first[begin : begin + BLOCK] = top_k(scores, k)
            continue
        for query, similarity in enumerate(scores, begin):
            first[query] = second_stage.order(query, similarity)[:k]
    return first


def versions(image_id: NDArray[np.int64], language: Sequence[str]) -> dict[str, NDArray[np.int64]]:
    """The rows of each language, in the order of `LANGUAGES`; the n-th rows of all languages are versions of one query.

    Args:
        image_id: (Q,) int64, the image of each caption.
        language: Q codes.

    Returns:
        language -> (N,) int64; captions that do not stand in every language are left out.
    """
    places: dict[str, dict[tuple[int, int], int]] = {}
    for row, (image, code) in enumerate(zip(image_id.tolist(), language, strict=True)):
        of_language = places.setdefault(code, {})
        nth = 0
        while (image, nth) in of_language:
            nth += 1
        of_language[image, nth] = row
    codes = [code for code in LANGUAGES if code in places] + sorted(places.keys() - set(LANGUAGES))
    everywhere = [key for key in places[codes[0]] if all(key in places[code] for code in codes)] if codes else []
    return {code: np.array([places[code][key] for key in everywhere], dtype=np.int64) for code in codes}


def _shared(one: NDArray[np.int64], other: NDArray[np.int64]) -> NDArray[np.float64]:
    """(N,) share of each row of `one` that stands in the same row of `other`, in [0, 1]."""
    found = (one[:, :, None] == other[:, None, :]).any(axis=2)
    return np.asarray(found.mean(axis=1), dtype=np.float64)
