"""Scores a model on a split: text to image and image to text, per language and their mean, with intervals."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from tipr.data.samples import LANGUAGES, Split
from tipr.errors import DatasetError
from tipr.evaluation.bootstrap import DRAWS, LEVEL, bootstrap_intervals
from tipr.evaluation.overlap import language_overlap
from tipr.evaluation.results import Evaluation, Interval, Reranking, Score, Scores
from tipr.evaluation.two_stage import SecondStage, rerank_split
from tipr.metrics import QueryResults, chance_metrics, query_results_from_features, query_results_two_stage
from tipr.metrics.ranking import Tail
from tipr.metrics.retrieval import KS, WithoutRelevant

Direction = Literal["text_to_image", "image_to_text"]
Progress = Callable[[int, int], None]
"""Called with (done, total)."""

SELECTED_ON_TEST = (
    "The weights were chosen by their score on a test split: these scores are higher than a fair choice gives."
)


class Encodes(Protocol):
    """What an evaluation needs of a model; `tipr.Retriever` has it."""

    def encode_text(
        self,
        captions: Sequence[str],
        *,
        language: Sequence[str] = ...,
        batch_size: int = ...,
        progress: Progress | None = ...,
    ) -> NDArray[np.float32]:
        """(N, D) float32 unit rows of N captions, each in its language."""

    def encode_images(
        self, images: Sequence[Path], *, batch_size: int = ..., progress: Progress | None = ...
    ) -> NDArray[np.float32]:
        """(N, D) float32 unit rows of N image files."""


@dataclass(frozen=True, eq=False)
class Features:
    """An encoded split; row i of `text` is caption i of `split.queries()`, row g of `images` is gallery image g.

    Attributes:
        text: (Q, D) float32 unit rows.
        images: (G, D) float32 unit rows.
        captions: Q texts.
        query_identity: (Q,) int64.
        gallery_identity: (G,) int64.
        language: Q language codes.
        image_id: (Q,) int64, gallery position of the image each caption was written for.
    """

    text: NDArray[np.float32]
    images: NDArray[np.float32]
    captions: tuple[str, ...]
    query_identity: NDArray[np.int64]
    gallery_identity: NDArray[np.int64]
    language: tuple[str, ...]
    image_id: NDArray[np.int64]

    def query_names(self) -> list[str]:
        """One name a caption, such as `en-17`: the language and its position among the captions of that language."""
        counts: dict[str, int] = {}
        names = []
        for language in self.language:
            position = counts.get(language, 0)
            counts[language] = position + 1
            names.append(f"{language}-{position}")
        return names


def encode_split(
    model: Encodes,
    split: Split,
    *,
    images: NDArray[np.float32] | None = None,
    batch_size: int = 64,
    progress: Progress | None = None,
) -> Features:
    """Encode every image and every caption of a split once.

    Args:
        model: see `Encodes`.
        split: images and captions.
        images: (G, D) rows of the images when they are there already.
        batch_size: items per pass.
        progress: called with (items done, items in all).

    Raises:
        DatasetError: the split has no captions, or images without identity.
    """
    queries = split.queries()
    if not queries.captions:
        raise DatasetError(f"split {split.name!r} has no captions: there is nothing to search with")
    to_encode = 0 if images is not None else len(split.images)
    total = to_encode + len(queries.captions)

    def shifted(by: int) -> Progress | None:
        return None if progress is None else lambda done, _: progress(by + done, total)

    if images is None:
        images = model.encode_images(split.images, batch_size=batch_size, progress=shifted(0))
    text = model.encode_text(
        queries.captions, language=queries.language, batch_size=batch_size, progress=shifted(to_encode)
    )
    return Features(
        text=text,
        images=images,
        captions=queries.captions,
        query_identity=queries.identity,
        gallery_identity=split.image_identity,
        language=queries.language,
        image_id=queries.image_id,
    )


def score_features(
    text: NDArray[Any],
    images: NDArray[Any],
    query_identity: NDArray[np.int64],
    gallery_identity: NDArray[np.int64],
    query_language: Sequence[str] | None = None,
    *,
    direction: Direction = "text_to_image",
    ks: Sequence[int] = KS,
    bootstrap: int = 0,
    seed: int = 0,
    level: float = LEVEL,
    without_relevant: WithoutRelevant = "error",
    second_stage: SecondStage | None = None,
) -> Scores:
    """Score captions against a gallery, or a gallery against the captions, per language.

    Scores are those of `tipr.metrics.stable_similarity`, so a search for one caption ranks as the evaluation does.

    Args:
        text: (Q, D) unit rows of the captions.
        images: (G, D) unit rows of the gallery.
        query_identity: (Q,) integers, the person of each caption.
        gallery_identity: (G,) integers, the person of each image.
        query_language: Q codes; None when there is one language, which is then called "all".
        direction: `text_to_image`, or `image_to_text`, where each image searches the captions of one language.
        ks: the k of R@k.
        bootstrap: draws of the confidence interval over identities; 0 for none.
        seed: of the bootstrap.
        level: coverage of the intervals.
        without_relevant: `error`, or `skip` to leave out queries without anything relevant and count them.
        second_stage: of all Q captions, to score the reranked gallery; text to image only.

    Raises:
        ValueError: as `tipr.metrics.retrieval_metrics_from_features`.
    """
    languages = np.array(["all"] * len(text) if query_language is None else list(query_language))
    if len(languages) != len(text):
        raise ValueError(f"{len(languages)} languages for {len(text)} captions")
    if direction not in ("text_to_image", "image_to_text"):
        raise ValueError(f"direction is {direction!r}; allowed: text_to_image, image_to_text")
    if second_stage is not None and direction == "image_to_text":
        raise ValueError("a second stage ranks images for captions, not captions for images")
    caption_side = np.asarray(text), np.asarray(query_identity)
    image_side = np.asarray(images), np.asarray(gallery_identity)
    parts = {}
    for language in _in_order(languages):
        spoken = languages == language
        chosen = caption_side[0][spoken], caption_side[1][spoken]
        query, gallery = (chosen, image_side) if direction == "text_to_image" else (image_side, chosen)
        sides = query[0], gallery[0], query[1], gallery[1]
        if second_stage is None:
            results = query_results_from_features(*sides, without_relevant=without_relevant, stable=True)
        else:
            results = query_results_two_stage(
                *sides,
                shortlist=second_stage.shortlist[spoken],
                match=second_stage.match[spoken],
                tail=second_stage.tail,
                without_relevant=without_relevant,
            )
        parts[language] = (results, query[1])
    return _scores(parts, ks=ks, bootstrap=bootstrap, seed=seed, level=level)


def evaluate(
    model: Encodes | Path | str,
    split: Split,
    *,
    features: Features | None = None,
    batch_size: int = 64,
    bootstrap: int = DRAWS,
    seed: int = 0,
    without_relevant: WithoutRelevant = "error",
    image_to_text: bool = True,
    rerank: int | None = None,
    tail: Tail = "cosine",
    second_stage: SecondStage | None = None,
    reference: Score | None = None,
    notes: Sequence[str] = (),
    progress: Progress | None = None,
) -> Evaluation:
    """Encode a split and score it in both directions, with the overlap of the results in different languages.

    Args:
        model: a `tipr.Retriever`, or what `Retriever.load` takes: "demo", a model folder, a run folder.
        split: what to score on; captions of several languages are scored apart and averaged.
        features: the encoded split, when `encode_split` ran already.
        batch_size: items per encoding pass.
        bootstrap: draws of the 95 % interval over identities; 0 for none.
        seed: of the bootstrap.
        without_relevant: `error`, or `skip` to leave out queries without anything relevant and count them.
        image_to_text: score that direction too; it is never reranked.
        rerank: pictures of each query's shortlist that a second stage scores again; None for one stage. The scores of
            the first stage are kept beside.
        tail: order outside the shortlist; see `tipr.evaluation.rerank_split`.
        second_stage: of these features, when `rerank_split` ran already.
        reference: score of a reference reader, carried into the result.
        notes: sentences to carry into the result.
        progress: called with (items encoded, items in all).

    Raises:
        DatasetError: the split has no captions or images without identity, or a query has nothing relevant and is
            not to be skipped.
        WeightsError: the model cannot be loaded.
        ConfigError: the model cannot rerank.
    """
    if isinstance(model, Path | str):
        from tipr.retrieval import Retriever

        model = Retriever.load(model)
    if features is None:
        features = encode_split(model, split, batch_size=batch_size, progress=progress)

    if rerank is not None and second_stage is None:
        from tipr.retrieval import Reranker

        reranker = Reranker(model)  # type: ignore[arg-type] # refuses what is not a Retriever with a match head
        tokens = reranker.image_tokens(split.images, batch_size=batch_size)
        second_stage = rerank_split(reranker, features, tokens, rerank, tail=tail)

    def scored(direction: Direction, stage: SecondStage | None = None) -> Scores:
        return score_features(
            features.text,
            features.images,
            features.query_identity,
            features.gallery_identity,
            features.language,
            direction=direction,
            bootstrap=bootstrap,
            seed=seed,
            without_relevant=without_relevant,
            second_stage=stage,
        )

    try:
        forward = scored("text_to_image", second_stage)
        first = None if second_stage is None else scored("text_to_image")
        reverse = scored("image_to_text") if image_to_text else None
    except ValueError as error:
        raise DatasetError(f"split {split.name!r}: {error}") from None
    card = getattr(model, "card", None) or {}
    selection = str(card.get("selection", ""))
    return Evaluation(
        split=split.name,
        identities=len(np.unique(features.gallery_identity)),
        images=len(features.images),
        captions=len(features.captions),
        text_to_image=forward,
        image_to_text=reverse,
        draws=bootstrap,
        seed=seed,
        level=LEVEL,
        model=str(getattr(model, "source", None) or ""),
        fingerprint=str(getattr(model, "fingerprint", "")),
        selection=selection,
        notes=(*([split.incomplete] if split.incomplete else []), *_notes(model, selection, features), *notes),
        reference=reference,
        overlap=language_overlap(features, second_stage),
        reranking=None
        if second_stage is None or first is None
        else Reranking(k=second_stage.k, tail=second_stage.tail, first_stage=first),
    )


def _notes(model: Encodes, selection: str, features: Features) -> list[str]:
    """What must be read with the scores of this model on these queries."""
    from tipr.retrieval.language import foreign_note

    known = getattr(getattr(model, "encoder", None), "languages", ())
    foreign = foreign_note(features.language, known)
    chosen = [SELECTED_ON_TEST] if selection == "test" else []
    return chosen if foreign is None else [*chosen, f"{foreign[0].upper()}{foreign[1:]}."]


def _scores(
    parts: Mapping[str, tuple[QueryResults, NDArray[np.int64]]],
    *,
    ks: Sequence[int],
    bootstrap: int,
    seed: int,
    level: float,
) -> Scores:
    """Means, intervals and chance of each language's (results, identity of the queries)."""
    groups = [(_values(results, ks)[results.kept], identity[results.kept]) for results, identity in parts.values()]

    def intervals(chosen: Sequence[tuple[NDArray[np.float64], NDArray[np.int64]]]) -> dict[str, Interval]:
        if bootstrap == 0:
            return {}
        names = [*(f"R@{k}" for k in ks), "mAP", "mINP"]
        limits = bootstrap_intervals(chosen, draws=bootstrap, seed=seed, level=level)
        return {name: (float(low), float(high)) for name, (low, high) in zip(names, limits, strict=True)}

    languages, chances = {}, []
    for group, (language, (results, _)) in zip(groups, parts.items(), strict=True):
        languages[language] = Score.of(results.mean(ks), intervals([group]))
        chances.append(Score.of(chance_metrics(results.relevant, results.gallery, ks=ks)))
    scores = list(languages.values())
    mean = scores[0] if len(scores) == 1 else Score.mean(scores, intervals(groups))
    return Scores(languages=languages, mean=mean, chance=Score.mean(chances))


def _values(results: QueryResults, ks: Sequence[int]) -> NDArray[np.float64]:
    """(Q, len(ks) + 2) percent: what each query adds to R@k, mAP and mINP."""
    columns = [results.found_within(k) for k in ks]
    return 100.0 * np.stack([*columns, results.average_precision, results.inverse_penalty], axis=1)


def _in_order(languages: NDArray[np.str_]) -> list[str]:
    """Each language once, in the order of `LANGUAGES`, others after them."""
    present = set(languages.tolist())
    return [code for code in LANGUAGES if code in present] + sorted(present.difference(LANGUAGES))
