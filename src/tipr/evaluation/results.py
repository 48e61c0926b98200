"""What an evaluation found: frozen records that go to JSON and back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Self

from tipr.errors import DatasetError
from tipr.evaluation.overlap import Overlap
from tipr.metrics import RetrievalMetrics

FORMAT = 1
"""Version of the JSON."""
MEAN = "mean"
"""Key of the mean over languages, beside the language codes."""

Interval = tuple[float, float]


@dataclass(frozen=True, slots=True)
class Score:
    """Scores of one set of queries, in percent.

    Attributes:
        recall: R@k by k.
        mean_ap: mAP.
        mean_inp: mINP.
        queries: number of queries behind the means.
        gallery: number of items ranked for each query.
        skipped: queries left out because the gallery has nothing relevant.
        intervals: (low, high) by "R@1", ..., "mAP", "mINP"; empty when no bootstrap was asked for.
    """

    recall: Mapping[int, float]
    mean_ap: float
    mean_inp: float
    queries: int
    gallery: int
    skipped: int = 0
    intervals: Mapping[str, Interval] = field(default_factory=dict)

    @classmethod
    def of(cls, metrics: RetrievalMetrics, intervals: Mapping[str, Interval] | None = None) -> Self:
        """The score of one `RetrievalMetrics`."""
        return cls(
            recall=dict(metrics.recall),
            mean_ap=metrics.mean_ap,
            mean_inp=metrics.mean_inp,
            queries=metrics.queries,
            gallery=metrics.gallery,
            skipped=metrics.skipped,
            intervals=dict(intervals or {}),
        )

    @classmethod
    def mean(cls, scores: Sequence[Score], intervals: Mapping[str, Interval] | None = None) -> Self:
        """The mean over languages: every language counts the same, however many captions it has.

        Queries and skipped queries are added up; the gallery is the largest one.
        """
        return cls(
            recall={k: _mean([score.recall[k] for score in scores]) for k in scores[0].recall},
            mean_ap=_mean([score.mean_ap for score in scores]),
            mean_inp=_mean([score.mean_inp for score in scores]),
            queries=sum(score.queries for score in scores),
            gallery=max(score.gallery for score in scores),
            skipped=sum(score.skipped for score in scores),
            intervals=dict(intervals or {}),
        )

    def named(self) -> dict[str, float]:
        """The numbers by the names of the table: "R@1", ..., "mAP", "mINP"."""
        return {**{f"R@{k}": value for k, value in self.recall.items()}, "mAP": self.mean_ap, "mINP": self.mean_inp}

    def to_json(self) -> dict[str, Any]:
        """JSON values under the names of the table."""
        return {
            **self.named(),
            "queries": self.queries,
            "gallery": self.gallery,
            "skipped": self.skipped,
            "intervals": {name: list(interval) for name, interval in self.intervals.items()},
        }

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Self:
        """The inverse of `to_json`; KeyError, TypeError or ValueError for anything else."""
        return cls(
            recall={int(name[2:]): float(value) for name, value in values.items() if name.startswith("R@")},
            mean_ap=float(values["mAP"]),
            mean_inp=float(values["mINP"]),
            queries=int(values["queries"]),
            gallery=int(values["gallery"]),
            skipped=int(values["skipped"]),
            intervals={name: (float(low), float(high)) for name, (low, high) in values["intervals"].items()},
        )


@dataclass(frozen=True, slots=True)
class Scores:
    """One direction: a score for each language and their mean.

    Attributes:
        languages: language code -> score, in the order of tables.
        mean: the mean over languages; equal to the one score when there is one language.
        chance: what a random order scores on average, over the same queries.
    """

    languages: Mapping[str, Score]
    mean: Score
    chance: Score

    def to_json(self) -> dict[str, Any]:
        """JSON values."""
        return {
            **{language: score.to_json() for language, score in self.languages.items()},
            MEAN: self.mean.to_json(),
            "chance": self.chance.to_json(),
        }

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Self:
        """The inverse of `to_json`."""
        scores = {name: Score.from_json(value) for name, value in values.items()}
        mean, chance = scores.pop(MEAN), scores.pop("chance")
        return cls(languages=scores, mean=mean, chance=chance)


@dataclass(frozen=True, slots=True)
class Reranking:
    """How the gallery was reranked.

    Attributes:
        k: pictures of each query that the second stage scored.
        tail: order of the others: "cosine" or "constant".
        first_stage: scores of the cosines alone.
    """

    k: int
    tail: str
    first_stage: Scores

    def to_json(self) -> dict[str, Any]:
        """JSON values."""
        return {"k": self.k, "tail": self.tail, "first_stage": self.first_stage.to_json()}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Self:
        """The inverse of `to_json`."""
        return cls(int(values["k"]), str(values["tail"]), Scores.from_json(values["first_stage"]))


@dataclass(frozen=True, slots=True)
class Evaluation:
    """The scores of one model on one split, with what is needed to read them.

    Attributes:
        split: name of the split.
        identities, images, captions: its counts; captions of the evaluated languages.
        text_to_image: captions search the images; reranked where `reranking` says so.
        image_to_text: images search the captions of one language; None when not asked for.
        draws: bootstrap draws behind the intervals, over identities; 0 when there are none.
        seed: of the bootstrap.
        level: coverage of the intervals.
        model: name or path of the model, as given.
        fingerprint: hex SHA-256 of the model; "" when it has none.
        selection: how the weights were chosen, from the model card, such as "val" or "test"; "" when unknown.
        notes: sentences that must be read with the numbers.
        reference: score of a reference reader that sees no pixels (synthetic sets), or None.
        reranking: how the images were reranked, and the scores before; None for one stage.
        overlap: how alike the first results of the languages are; None with one language.
    """

    split: str
    identities: int
    images: int
    captions: int
    text_to_image: Scores
    image_to_text: Scores | None
    draws: int
    seed: int
    level: float
    model: str = ""
    fingerprint: str = ""
    selection: str = ""
    notes: tuple[str, ...] = ()
    reference: Score | None = None
    reranking: Reranking | None = None
    overlap: Overlap | None = None

    @property
    def languages(self) -> tuple[str, ...]:
        """Codes of the evaluated languages."""
        return tuple(self.text_to_image.languages)

    @property
    def skipped(self) -> int:
        """Queries left out of both directions."""
        reverse = self.image_to_text.mean.skipped if self.image_to_text is not None else 0
        return self.text_to_image.mean.skipped + reverse

    def to_json(self) -> dict[str, Any]:
        """JSON values; `json.dumps` takes them."""
        return {
            "format": FORMAT,
            "model": self.model,
            "fingerprint": self.fingerprint,
            "selection": self.selection,
            "split": self.split,
            "identities": self.identities,
            "images": self.images,
            "captions": self.captions,
            "bootstrap": {"over": "identities", "draws": self.draws, "seed": self.seed, "level": self.level},
            "notes": list(self.notes),
            "text_to_image": self.text_to_image.to_json(),
            "image_to_text": None if self.image_to_text is None else self.image_to_text.to_json(),
            "reference_reader": None if self.reference is None else self.reference.to_json(),
            "rerank": None if self.reranking is None else self.reranking.to_json(),
            "overlap": None if self.overlap is None else self.overlap.to_json(),
        }

    @classmethod
    def from_json(cls, values: Any) -> Self:
        """The inverse of `to_json`; `values` is what `json.loads` gives.

        Raises:
            DatasetError: it is no evaluation, or of another format version.
        """
        if not isinstance(values, Mapping) or values.get("format") != FORMAT:
            raise DatasetError(f"not the JSON of an evaluation in format {FORMAT}")
        try:
            reverse, reference, bootstrap = values["image_to_text"], values["reference_reader"], values["bootstrap"]
            reranking, overlap = values.get("rerank"), values.get("overlap")  # absent in older files
            return cls(
                split=str(values["split"]),
                identities=int(values["identities"]),
                images=int(values["images"]),
                captions=int(values["captions"]),
                text_to_image=Scores.from_json(values["text_to_image"]),
                image_to_text=None if reverse is None else Scores.from_json(reverse),
                draws=int(bootstrap["draws"]),
                seed=int(bootstrap["seed"]),
                level=float(bootstrap["level"]),
                model=str(values["model"]),
                fingerprint=str(values["fingerprint"]),
                selection=str(values["selection"]),
                notes=tuple(str(note) for note in values["notes"]),
                reference=None if reference is None else Score.from_json(reference),
                reranking=None if reranking is None else Reranking.from_json(reranking),
                overlap=None if overlap is None else Overlap.from_json(overlap),
            )
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise DatasetError(f"damaged JSON of an evaluation: {type(error).__name__}: {error}") from None


def _mean(values: Sequence[float]) -> float:
    return float(sum(values)) / len(values)
