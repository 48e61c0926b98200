"""What a report holds, before it becomes a page: plain frozen records, no drawing and no wording."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from tipr.evaluation import Overlap

LANGUAGE_NAMES = {"en": "English", "zh": "中文", "fr": "Français", "de": "Deutsch"}
HTML_LANGUAGE = {"zh": "zh-Hans"}
"""`lang` attribute where it differs from our code, so that Chinese gets the Chinese face."""


@dataclass(frozen=True, slots=True)
class Fact:
    """One labelled fact at the head of the report; `code` sets it in the code face."""

    label: str
    value: str
    code: bool = False


@dataclass(frozen=True, slots=True)
class ScoreRow:
    """Scores of one query language (or of their mean), in percent.

    Attributes:
        language: code such as "en", or None for the mean.
        recall: k -> R@k.
        mean_ap: mAP.
        mean_inp: mINP.
        interval: (low, high) of R@1, or None when it was not computed.
        label: row heading when `language` is None.
    """

    language: str | None
    recall: Mapping[int, float]
    mean_ap: float
    mean_inp: float
    interval: tuple[float, float] | None = None
    label: str = "Mean"


@dataclass(frozen=True, slots=True)
class Picture:
    """One picture of a ranked row.

    Attributes:
        jpeg: encoded picture.
        rank: 1, 2, ... in the whole gallery.
        right: it shows the person the words were written about.
        band: key of `tipr.gallery.bands.BANDS`.
        camera: name of the camera, if known.
    """

    jpeg: bytes
    rank: int
    right: bool
    band: str
    camera: str | None = None


@dataclass(frozen=True, slots=True)
class ShownQuery:
    """One search with its first pictures; `right_ranks` are the ranks of all right pictures, rising."""

    language: str
    text: str
    pictures: tuple[Picture, ...]
    right_ranks: tuple[int, ...]
    average_precision: float
    same_in_english: str | None = None


@dataclass(frozen=True, slots=True)
class Extreme:
    """An especially easy or hard query: a few first pictures and, when it is not among them, the first right one."""

    language: str
    text: str
    average_precision: float
    first_right: int
    pictures: tuple[Picture, ...]


@dataclass(frozen=True, slots=True)
class Curve:
    """One line of a chart; `language` None draws the thick mean line."""

    language: str | None
    x: tuple[float, ...]
    y: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class BandRow:
    """How often pictures of one band show the right person; `right_share` in percent."""

    band: str
    pictures_per_query: float
    right_share: float


@dataclass(frozen=True, slots=True)
class Series:
    """One number that the training wrote down, over the optimiser steps."""

    name: str
    x: tuple[float, ...]
    y: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class WordLook:
    """One word on a picture.

    Attributes:
        word: as written in the caption.
        jpeg: the picture, dark where the word has no part in it.
        thirds: per cent of the word's weight on the upper, the middle and the lower third.
        effect: what the word adds to the cosine similarity of caption and picture.
    """

    word: str
    jpeg: bytes
    thirds: tuple[float, float, float]
    effect: float


@dataclass(frozen=True, slots=True)
class Looked:
    """A caption on the picture that it was written for; `parts` are (text, it is one of `words`) in order."""

    language: str
    parts: tuple[tuple[str, bool], ...]
    jpeg: bytes
    words: tuple[WordLook, ...]


@dataclass(frozen=True, slots=True)
class WordPatches:
    """Words on patches.

    Attributes:
        attention: the weights are the attention of the fusion layers; else what a word adds to the similarity.
        adds_up: the patches add up to the similarity; False: they are a hint.
        examples: captions with their pictures.
    """

    attention: bool
    adds_up: bool
    examples: tuple[Looked, ...]


@dataclass(frozen=True, slots=True)
class MapPoint:
    """A picture (`language` None) or a caption of person 1, 2, ... on the map."""

    x: float
    y: float
    person: int
    language: str | None


@dataclass(frozen=True, slots=True)
class PeopleMap:
    """People in the first two principal components.

    Attributes:
        points: pictures and captions.
        pictures: one JPEG of each person.
        shares: per cent of the variance in each of the two components.
        nearest_here: per cent of the captions that lie nearest to their own person's pictures on the map.
        nearest: the same in all dimensions.
    """

    points: tuple[MapPoint, ...]
    pictures: tuple[bytes, ...]
    shares: tuple[float, float]
    nearest_here: float
    nearest: float


@dataclass(frozen=True)
class ReportData:
    """Everything `write_report` needs.

    Attributes:
        run: short name of the run.
        made: when the numbers were made, with time zone.
        seconds: how long it took.
        synthetic: the people are rendered, so the page says what the numbers do not show.
        facts: twelve or fewer facts for the head.
        scores: one row per language, then the mean.
        reference: row of the reference reader, or None.
        chance: row of random ranking, or None.
        gallery_size: pictures in the gallery.
        seed: seed that drew the shown queries.
        draws: bootstrap draws behind the intervals.
        queries: the shown searches.
        found: per language, share of queries whose right person is within the first k, k = 1, 2, ...
        learning: R@1 per epoch on `scored_on`, may be empty.
        chosen_epoch: epoch that was kept, and what it was chosen on.
        right_scores, other_scores: similarities for the histogram.
        bands: one row per band.
        easiest, hardest: extremes.
        configuration: YAML text of the model's run.
        environment: package -> version.
        notes: sentences that must be read with the numbers (for example a choice made on the test split).
        again: shell lines that make this report once more.
        overlap: what the versions of one query in several languages have in common, or None.
        split: name of the evaluated split.
        skipped: queries left out because the gallery has nothing relevant.
        drawn: positions of the shown searches among the captions of the split.
        took: words before `seconds`.
        scored_on: the people that the run was scored on between epochs.
        training: losses and other numbers of the training run over its steps.
        words: words on patches, or None.
        people: the map, or None.
        trained_in: name -> value of the environment of the training run.
        before_reranking: the mean row of the first stage, where a second one made the scores.
        absent: id of a panel -> why it is not there.
    """

    run: str
    made: datetime
    seconds: float
    synthetic: bool
    facts: tuple[Fact, ...]
    scores: tuple[ScoreRow, ...]
    reference: ScoreRow | None
    chance: ScoreRow | None
    gallery_size: int
    seed: int
    draws: int
    queries: tuple[ShownQuery, ...]
    found: tuple[Curve, ...]
    learning: tuple[Curve, ...]
    chosen_epoch: tuple[int, str] | None
    right_scores: np.ndarray
    other_scores: np.ndarray
    band_limits: tuple[float, float]
    bands: tuple[BandRow, ...]
    easiest: tuple[Extreme, ...]
    hardest: tuple[Extreme, ...]
    configuration: str
    environment: Mapping[str, str]
    notes: tuple[str, ...] = ()
    again: tuple[str, ...] = field(default=("make demo",))
    overlap: Overlap | None = None
    split: str = "test"
    skipped: int = 0
    drawn: tuple[int, ...] = ()
    took: str = "finished in"
    scored_on: str = "the validation people"
    training: tuple[Series, ...] = ()
    words: WordPatches | None = None
    people: PeopleMap | None = None
    trained_in: Mapping[str, str] = field(default_factory=dict)
    before_reranking: ScoreRow | None = None
    absent: Mapping[str, str] = field(default_factory=dict)

    @property
    def mean(self) -> ScoreRow:
        """The row over all languages (the only row when there is one language)."""
        return next((row for row in self.scores if row.language is None), self.scores[-1])

    @property
    def languages(self) -> tuple[str, ...]:
        """Codes of the query languages, as scored."""
        return tuple(row.language for row in self.scores if row.language is not None)

    @property
    def overlap_rows(self) -> tuple[tuple[str, tuple[float | None, ...]], ...]:
        """(language, shares in percent with every language): a square, None with itself; empty without overlap."""
        if self.overlap is None:
            return ()
        pairs = self.overlap.pairs
        codes = tuple(dict.fromkeys(code for pair in pairs for code in pair))
        return tuple((one, tuple(pairs.get((one, other), pairs.get((other, one))) for other in codes)) for one in codes)
