"""A reader without pixels: knows the true attributes of every gallery image, ranks by agreement with a caption's facts.

Its score says how far words alone can lead on a set: siblings that differ in something the caption does not mention
cannot be told apart by anyone. It is a reference, not a strict bound: it also knows attributes that the view hides,
and its weights are simple.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import NDArray

from tipr.data.synthetic.captions import agrees

PHOTOGRAPH_WEIGHT = {"umbrella": 2.0, "umbrella_color": 2.0, "phone": 2.0}
"""Weights other than 1: these single out one photograph of a person."""
CONSPICUOUS = ("hat", "bag", "umbrella")
"""What a writer would rarely leave out, so an image that shows it fits a silent caption less well."""
SILENCE_PENALTY = 0.8
TIE_BREAK = 0.01
"""Width of the seeded noise that orders what the reader cannot tell apart."""
BLOCK = 512


@dataclass(frozen=True, slots=True)
class ReferenceScores:
    """Scores in percent over one split, text to image.

    Attributes:
        recall_1: R@1; `recall_5` and `recall_10` alike.
        mean_ap: mAP.
        mean_inp: mINP.
        chance_recall_1: expected R@1 of a random order.
        queries: number of captions (of one language; the four languages state the same facts).
        gallery: number of images.
    """

    recall_1: float
    recall_5: float
    recall_10: float
    mean_ap: float
    mean_inp: float
    chance_recall_1: float
    queries: int
    gallery: int

    def to_json(self) -> dict[str, float | int]:
        """Plain numbers under the field names, percentages to two decimals."""
        return {key: round(value, 2) for key, value in asdict(self).items()}


def reference_scores(
    stated: Sequence[Mapping[str, str]],
    true: Sequence[Mapping[str, str]],
    query_identity: NDArray[np.int64],
    gallery_identity: NDArray[np.int64],
    *,
    seed: int = 0,
) -> ReferenceScores:
    """Rank the gallery for every caption by agreement and score the ranking.

    Args:
        stated: Q mappings of `Facts.items()`.
        true: G mappings of `true_items()`.
        query_identity: (Q,) int64.
        gallery_identity: (G,) int64.
        seed: of the noise that breaks ties.
    """
    from tipr.metrics import retrieval_metrics

    totals = np.zeros(5)
    start = 0
    for similarity in similarity_blocks(stated, true, seed=seed):
        stop = start + len(similarity)
        scores = retrieval_metrics(similarity, query_identity[start:stop], gallery_identity)
        totals += len(similarity) * np.array([*(scores.recall[k] for k in (1, 5, 10)), scores.mean_ap, scores.mean_inp])
        start = stop
    means = totals / max(len(stated), 1)
    people, sizes = np.unique(gallery_identity, return_counts=True)
    own = sizes[np.searchsorted(people, query_identity)]
    recall_1, recall_5, recall_10, mean_ap, mean_inp = (float(mean) for mean in means)
    return ReferenceScores(
        recall_1=recall_1,
        recall_5=recall_5,
        recall_10=recall_10,
        mean_ap=mean_ap,
        mean_inp=mean_inp,
        chance_recall_1=float(100 * np.mean(own / len(gallery_identity))),
        queries=len(stated),
        gallery=len(true),
    )


def similarity_blocks(
    stated: Sequence[Mapping[str, str]], true: Sequence[Mapping[str, str]], *, seed: int = 0, block: int = BLOCK
) -> Iterator[NDArray[np.float32]]:
    """Agreement of Q captions with G images, `block` rows at a time: (<= block, G) float32, higher fits better."""
    keys = sorted(true[0]) if true else []
    columns = [_Column.make(key, stated, true) for key in keys]
    noise = np.random.default_rng(seed)
    for start in range(0, len(stated), block):
        rows = slice(start, min(start + block, len(stated)))
        similarity = noise.random((rows.stop - start, len(true)), dtype=np.float32) * np.float32(TIE_BREAK)
        for column in columns:
            # one row of scores per stated value (the last for silence), spread to queries, then to images
            similarity += column.scores[column.stated[rows]][:, column.true]
        yield similarity


@dataclass(frozen=True, slots=True, eq=False)
class _Column:
    """One attribute: codes of what each query states and each image shows, and the score of every pair of codes."""

    stated: NDArray[np.intp]
    true: NDArray[np.intp]
    scores: NDArray[np.float32]

    @classmethod
    def make(cls, key: str, stated: Sequence[Mapping[str, str]], true: Sequence[Mapping[str, str]]) -> _Column:
        said = sorted({facts[key] for facts in stated if key in facts})
        shown = sorted({image[key] for image in true})
        weight = PHOTOGRAPH_WEIGHT.get(key, 1.0)
        scores = np.zeros((len(said) + 1, len(shown)), dtype=np.float32)
        for column, value in enumerate(shown):
            for row, word in enumerate(said):
                scores[row, column] = weight if agrees(word, value) else -weight
            if key in CONSPICUOUS and value != "none":
                scores[-1, column] = -SILENCE_PENALTY
        said_code = {value: code for code, value in enumerate(said)}
        shown_code = {value: code for code, value in enumerate(shown)}
        silence = len(said)
        return cls(
            stated=np.array([said_code.get(facts.get(key, ""), silence) for facts in stated], dtype=np.intp),
            true=np.array([shown_code[image[key]] for image in true], dtype=np.intp),
            scores=scores,
        )
