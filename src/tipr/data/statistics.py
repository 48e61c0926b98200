"""Numbers about a data set's captions: how many words, which words, how long, by language and split."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tipr.data.caption_words import words
from tipr.data.manifest import Record
from tipr.data.samples import LANGUAGES, SPLITS

FREQUENT = 20
"""Most frequent words that are listed."""


@dataclass(frozen=True, slots=True)
class LanguageStatistics:
    """Captions of one language.

    Attributes:
        captions: how many.
        words: all their words; in Chinese, where no blank parts them, every Han sign is one.
        vocabulary: different words, in small letters.
        once: those of them that occur a single time.
        unseen: share of the words of val and test captions that no train caption has, in [0, 1]; None without a split.
        shortest, median, mean, percentile_95, longest: words of a caption.
        histogram: (words, captions) for every length that occurs, rising.
        frequent: (word, times), the most frequent first.
    """

    captions: int
    words: int
    vocabulary: int
    once: int
    unseen: float | None
    shortest: int
    median: float
    mean: float
    percentile_95: float
    longest: int
    histogram: tuple[tuple[int, int], ...]
    frequent: tuple[tuple[str, int], ...]


@dataclass(frozen=True, slots=True)
class Statistics:
    """A data set in numbers: identities, images and captions by split, captions by language."""

    splits: dict[str, dict[str, int]]
    captions_per_image: dict[int, int]
    images_per_identity: dict[int, int]
    languages: dict[str, LanguageStatistics]

    def to_json(self) -> dict[str, Any]:
        """A tree of JSON values."""
        return asdict(self)


def statistics(records: Sequence[Record]) -> Statistics:
    """Count the words, lengths and sizes of a data set.

    Args:
        records: of all splits; a record without split belongs to test.
    """
    splits = {}
    for split in SPLITS:
        part = [record for record in records if (record.split or "test") == split]
        if part:
            splits[split] = {
                "identities": len({record.identity for record in part if record.identity is not None}),
                "images": len({record.image for record in part}),
                "captions": sum(len(record.captions) for record in part),
            }
    images = Counter(record.identity for record in records if record.identity is not None)
    # captions of one language: the four versions of a sentence are not four things said about an image
    per_image = Counter(
        max(Counter(caption.language for caption in record.captions).values(), default=0) for record in records
    )
    return Statistics(
        splits=splits,
        captions_per_image=dict(sorted(per_image.items())),
        images_per_identity=dict(sorted(Counter(images.values()).items())),
        languages={language: found for language in LANGUAGES if (found := _of_language(records, language)) is not None},
    )


def _of_language(records: Sequence[Record], language: str) -> LanguageStatistics | None:
    known: Counter[str] = Counter()
    other: Counter[str] = Counter()
    lengths = []
    for record in records:
        vocabulary = known if record.split == "train" else other
        for caption in record.captions:
            if caption.language == language:
                found = words(caption.text)
                lengths.append(len(found))
                vocabulary.update(found)
    if not lengths:
        return None
    counts = known + other
    numbers: NDArray[np.int64] = np.array(lengths, dtype=np.int64)
    held_out = other.total()
    unseen = sum(times for word, times in other.items() if word not in known)
    return LanguageStatistics(
        captions=len(lengths),
        words=counts.total(),
        vocabulary=len(counts),
        once=sum(times == 1 for times in counts.values()),
        unseen=unseen / held_out if known and held_out else None,
        shortest=int(numbers.min()),
        median=float(np.median(numbers)),
        mean=float(numbers.mean()),
        percentile_95=float(np.percentile(numbers, 95)),
        longest=int(numbers.max()),
        histogram=tuple(sorted(Counter(lengths).items())),
        frequent=tuple(counts.most_common(FREQUENT)),
    )
