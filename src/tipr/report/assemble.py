"""From ranked features to what a report shows: drawn queries, curves, bands, extremes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tipr.evaluation import SecondStage
from tipr.gallery.bands import BANDS, band, band_limits
from tipr.metrics import QueryResults
from tipr.metrics.ranking import full_order, stable_similarity
from tipr.report.content import BandRow, Curve, Extreme, Picture, ShownQuery

SHOWN = 10
"""Pictures of a shown query."""
SAMPLED = 400
"""Queries of one language behind the histogram and the band table: enough for a share, small enough for any gallery."""
CURVE_KS = (1, 2, 3, 4, 5, 6, 8, 10, 13, 16, 20, 25, 32, 40, 50, 70, 100)


@dataclass(frozen=True, eq=False)
class LanguageQueries:
    """The queries of one language, encoded and ranked.

    Attributes:
        language: language code.
        captions: Q texts.
        identity: (Q,) int64, the person each caption was written about.
        features: (Q, D) unit float32 rows.
        results: ranks and precisions of the same queries over the whole gallery.
        second_stage: of all captions of the split, these being its `rows`; None: one stage.
        rows: (Q,) int64 positions among all captions of the split.
    """

    language: str
    captions: Sequence[str]
    identity: NDArray[np.int64]
    features: NDArray[np.float32]
    results: QueryResults
    second_stage: SecondStage | None
    rows: NDArray[np.int64]

    def ranked(self, index: int, gallery: RankedGallery) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """(positions best first, similarities by position) of one query; both (G,)."""
        scores = stable_similarity(self.features[index], gallery.features)
        if self.second_stage is None:
            return full_order(scores), scores
        return self.second_stage.order(int(self.rows[index]), scores), scores


@dataclass(frozen=True, eq=False)
class RankedGallery:
    """The gallery side: (G, D) features, (G,) identities, cameras, and a way to get a picture as JPEG bytes."""

    features: NDArray[np.floating]
    identity: NDArray[np.int64]
    cameras: Sequence[str | None]
    picture: Callable[[int], bytes]


def shown_queries(
    languages: Sequence[LanguageQueries],
    gallery: RankedGallery,
    *,
    per_language: int,
    seed: int,
    aligned_english: bool,
) -> tuple[tuple[ShownQuery, ...], tuple[tuple[str, int], ...]]:
    """Draw queries at random and rank the gallery for each.

    Args:
        languages: the queries to draw from.
        gallery: what they search.
        per_language: queries drawn per language.
        seed: seed of the draw.
        aligned_english: caption i says the same in every language, so the English one can be shown beside it.

    Returns:
        The shown queries, and (language, position in that language's queries) of each.
    """
    generator = np.random.default_rng(seed)
    english = next((group for group in languages if group.language == "en"), None)
    shown, drawn = [], []
    for group in languages:
        kept = np.flatnonzero(group.results.kept)
        for index in generator.choice(kept, size=min(per_language, len(kept)), replace=False):
            order, scores = group.ranked(int(index), gallery)
            right = gallery.identity[order] == group.identity[index]
            same = None
            if aligned_english and english is not None and group.language != "en":
                same = english.captions[index]
            shown.append(
                ShownQuery(
                    language=group.language,
                    text=group.captions[index],
                    pictures=_pictures(gallery, order, scores, right, range(min(SHOWN, len(order)))),
                    right_ranks=tuple(int(rank) + 1 for rank in np.flatnonzero(right)),
                    average_precision=float(group.results.average_precision[index]),
                    same_in_english=same,
                )
            )
            drawn.append((group.language, int(index)))
    return tuple(shown), tuple(drawn)


def extremes(
    languages: Sequence[LanguageQueries], gallery: RankedGallery, *, count: int
) -> tuple[tuple[Extreme, ...], tuple[Extreme, ...]]:
    """The easiest queries (highest AP) and the hardest (latest first right picture), of different people."""
    return (
        _extremes(languages, gallery, count, key=lambda results: -results.average_precision),
        _extremes(languages, gallery, count, key=lambda results: -results.first_rank.astype(np.float64)),
    )


def found_curves(languages: Sequence[LanguageQueries]) -> tuple[Curve, ...]:
    """Per language, the share of queries whose right person is within the first k."""
    size = languages[0].results.gallery
    ks = [k for k in CURVE_KS if k <= size]
    return tuple(
        Curve(group.language, tuple(map(float, ks)), tuple(group.results.mean(ks).recall[k] for k in ks))
        for group in languages
    )


@dataclass(frozen=True, eq=False)
class BandStatistics:
    """What the bands are worth on these queries; see `ReportData`."""

    right_scores: NDArray[np.float32]
    other_scores: NDArray[np.float32]
    limits: tuple[float, float]
    rows: tuple[BandRow, ...]


def band_statistics(languages: Sequence[LanguageQueries], gallery: RankedGallery, *, seed: int) -> BandStatistics:
    """Scores of right and other pictures, and how often a band is right, over a sample of the queries."""
    generator = np.random.default_rng(seed)
    right_scores, other_scores, limits = [], [], []
    pictures = dict.fromkeys(BANDS, 0)
    right_pictures = dict.fromkeys(BANDS, 0)
    queries = 0
    for group in languages:
        chosen = np.sort(generator.permutation(len(group.captions))[:SAMPLED])
        for index in chosen:
            scores = stable_similarity(group.features[index], gallery.features)
            right = gallery.identity == group.identity[index]
            limit = band_limits(scores)
            limits.append(limit)
            right_scores.append(scores[right])
            other_scores.append(scores[~right][:: max(1, len(scores) // 100)])
            weak, out = scores < limit.similar, scores >= limit.stands_out
            for name, member in (("stands_out", out), ("similar", ~weak & ~out), ("weak", weak)):
                pictures[name] += int(member.sum())
                right_pictures[name] += int((member & right).sum())
            queries += 1
    rows = tuple(
        BandRow(name, pictures[name] / queries, 100.0 * right_pictures[name] / max(1, pictures[name])) for name in BANDS
    )
    medians = np.median(np.array(limits), axis=0)
    return BandStatistics(
        np.concatenate(right_scores), np.concatenate(other_scores), (float(medians[0]), float(medians[1])), rows
    )


def learning_curves(history: Sequence[Mapping[str, object]]) -> tuple[Curve, ...]:
    """Curves of a training history: rows with `epoch` and `recall_1`, a mapping language -> R@1 with key "mean"."""
    lines: dict[str, list[tuple[float, float]]] = {}
    for row in history:
        epoch, recall = row.get("epoch"), row.get("recall_1")
        if not isinstance(epoch, int | float) or not isinstance(recall, Mapping):
            continue
        for language, value in recall.items():
            lines.setdefault(str(language), []).append((float(epoch), float(value)))
    return tuple(
        Curve(None if language == "mean" else language, tuple(x for x, _ in points), tuple(y for _, y in points))
        for language, points in lines.items()
        if len(points) > 1
    )


def _extremes(
    languages: Sequence[LanguageQueries],
    gallery: RankedGallery,
    count: int,
    *,
    key: Callable[[QueryResults], NDArray[np.float64]],
) -> tuple[Extreme, ...]:
    candidates = sorted(
        (float(value), position, int(index))
        for position, group in enumerate(languages)
        for index, value in enumerate(key(group.results))
        if group.results.kept[index]
    )
    chosen: list[tuple[int, int]] = []
    people: set[int] = set()
    spread = min(count, len(languages))
    for _, position, index in candidates:
        person = int(languages[position].identity[index])
        seen = {other for other, _ in chosen}
        if person in people or (position in seen and len(seen) < spread):
            continue
        chosen.append((position, index))
        people.add(person)
        if len(chosen) == count:
            break
    return tuple(_extreme(languages[position], gallery, index) for position, index in chosen)


def _extreme(group: LanguageQueries, gallery: RankedGallery, index: int) -> Extreme:
    order, scores = group.ranked(index, gallery)
    right = gallery.identity[order] == group.identity[index]
    first = int(np.flatnonzero(right)[0])
    shown = sorted({0, 1, 2, first} & set(range(len(order))))
    return Extreme(
        language=group.language,
        text=group.captions[index],
        average_precision=float(group.results.average_precision[index]),
        first_right=first + 1,
        pictures=_pictures(gallery, order, scores, right, shown),
    )


def _pictures(
    gallery: RankedGallery,
    order: NDArray[np.int64],
    scores: NDArray[np.float32],
    right: NDArray[np.bool_],
    places: Sequence[int],
) -> tuple[Picture, ...]:
    limits = band_limits(scores)
    return tuple(
        Picture(
            jpeg=gallery.picture(int(order[place])),
            rank=place + 1,
            right=bool(right[place]),
            band=band(float(scores[order[place]]), limits),
            camera=gallery.cameras[int(order[place])],
        )
        for place in places
    )
