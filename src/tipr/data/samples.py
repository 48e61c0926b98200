"""Image-caption records and immutable splits of them, with a query view and a gallery view."""

from __future__ import annotations

import logging
import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tipr.errors import DatasetError

logger = logging.getLogger(__name__)

LANGUAGES = ("en", "zh", "fr", "de")
"""The languages of captions and queries, in the order of every table."""
SPLITS = ("train", "val", "test")
"""The splits a record may belong to; one identity belongs to at most one side of train | val and test."""
UNKNOWN = -1
"""Number of an identity that the data set does not give."""
MISSING_SHOWN = 5


class SplitMissing(DatasetError):
    """A data set that can be read has no such split."""


@dataclass(frozen=True, slots=True)
class Sample:
    """One image-caption pair; `image_id` is the gallery position.

    `identity` counts from 0 inside its split, or is None where the data set gives none.
    """

    image_path: Path
    caption: str
    identity: int | None
    image_id: int
    language: str
    camera: str | None = None


@dataclass(frozen=True, slots=True)
class ImageItem:
    """One image as a reader hands it over, before identities are numbered.

    Attributes:
        path: the image file.
        identity: the original id, as the data set writes it; None when it gives none.
        captions: (language, text) pairs; none for an image that is only searched in.
        camera: name of the camera.
        time: RFC 3339 time of the photograph.
        tags: free words about the image.
    """

    path: Path
    identity: int | str | None
    captions: tuple[tuple[str, str], ...] = ()
    camera: str | None = None
    time: str | None = None
    tags: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, eq=False)
class Queries:
    """The captions of a split as queries: Q captions, `identity` and `image_id` (Q,) int64, `language` per caption."""

    captions: tuple[str, ...]
    identity: NDArray[np.int64]
    image_id: NDArray[np.int64]
    language: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.captions)


@dataclass(frozen=True, slots=True, eq=False)
class Pairs:
    """A split as N bare pairs: which caption goes with which image, and nothing about who is shown.

    Attributes:
        captions: N texts.
        image_id: (N,) int64 position of each caption's image in `images`.
        language: N codes.
        images: G paths, each image once.
        missing_images: as in `Split`.
    """

    captions: tuple[str, ...]
    image_id: NDArray[np.int64]
    language: tuple[str, ...]
    images: tuple[Path, ...]
    missing_images: int = 0

    def __len__(self) -> int:
        return len(self.captions)


@dataclass(frozen=True, slots=True, eq=False)
class Split:
    """An immutable split of N image-caption pairs over G images, with P identities as far as they are known.

    `pairs` needs no identities; `queries` does, of all images.

    Attributes:
        name: "train", "val", "test" or another name of the data set.
        samples: N pairs, in the order of the images, then of their captions.
        images: the gallery view: G paths, each image once; position == `image_id`.
        image_identity: (G,) int64 in 0..P-1, `UNKNOWN` where the data set gives none.
        image_camera: camera of each image, or None.
        image_time: RFC 3339 time of each image, or None.
        image_tags: tags of each image.
        identity_map: original id -> 0..P-1, numbered in sorted order (integers before strings).
        empty_captions: how many of the N captions hold nothing but white space.
        missing_images: images that the data set names and that were left out because they are not on disk.
    """

    name: str
    samples: tuple[Sample, ...]
    images: tuple[Path, ...]
    image_identity: NDArray[np.int64]
    image_camera: tuple[str | None, ...]
    image_time: tuple[str | None, ...]
    image_tags: tuple[tuple[str, ...], ...]
    identity_map: Mapping[int | str, int] = field(repr=False)
    empty_captions: int = 0
    missing_images: int = 0

    @classmethod
    def build(
        cls, name: str, items: Iterable[ImageItem], *, languages: Sequence[str] | None = None, check_files: bool = True
    ) -> Split:
        """Number identities and images, keep the captions of the wanted languages, and check everything.

        Args:
            name: name of the split.
            items: the images, in gallery order.
            languages: languages to keep, some of `LANGUAGES`; all when None.
            check_files: see that every image file is there.

        Raises:
            DatasetError: no images, an image twice, a missing file, an unknown language, or a wanted language that
                no caption has.
        """
        items = tuple(items)
        if not items:
            raise DatasetError(f"split {name!r} has no images")
        wanted = None if languages is None else tuple(languages)
        for language in wanted or ():
            check_language(language, source=f"split {name!r}")
        _check_unique(name, items)
        if check_files:
            check_images_exist([item.path for item in items], source=f"split {name!r}")
        identity_map = number_identities(item.identity for item in items if item.identity is not None)
        samples: list[Sample] = []
        present: set[str] = set()
        empty = 0
        for image_id, item in enumerate(items):
            identity = None if item.identity is None else identity_map[item.identity]
            for language, text in item.captions:
                if language not in present:
                    check_language(language, source=str(item.path))
                    present.add(language)
                if wanted is not None and language not in wanted:
                    continue
                empty += not text.strip()
                samples.append(Sample(item.path, text, identity, image_id, language, item.camera))
        for language in wanted or ():
            if language not in present:
                there = ", ".join(code for code in LANGUAGES if code in present) or "none"
                raise DatasetError(f"split {name!r} has no captions in {language!r}; languages there: {there}")
        if empty:
            logger.warning("split %r: %d of %d captions are empty", name, empty, len(samples))
        image_identity = np.array(
            [UNKNOWN if item.identity is None else identity_map[item.identity] for item in items], dtype=np.int64
        )
        image_identity.flags.writeable = False
        return cls(
            name=name,
            samples=tuple(samples),
            images=tuple(item.path for item in items),
            image_identity=image_identity,
            image_camera=tuple(item.camera for item in items),
            image_time=tuple(item.time for item in items),
            image_tags=tuple(item.tags for item in items),
            identity_map=identity_map,
            empty_captions=empty,
        )

    @property
    def identity_count(self) -> int:
        """P, the number of different people that are known."""
        return len(self.identity_map)

    @property
    def incomplete(self) -> str | None:
        """What must be said with every score on this split where images were left out; None where it is whole."""
        if not self.missing_images:
            return None
        total, verb = len(self.images) + self.missing_images, "is" if self.missing_images == 1 else "are"
        return (
            f"{self.missing_images:,} of {total:,} images of split {self.name!r} {verb} "
            "missing and left out, with captions: its scores are not comparable with published ones."
        )

    @property
    def without_identity(self) -> int:
        """How many of the G images have no identity."""
        return int((self.image_identity == UNKNOWN).sum())

    def __len__(self) -> int:
        return len(self.samples)

    def languages(self) -> tuple[str, ...]:
        """The languages of the captions, in the order of `LANGUAGES`."""
        present = {sample.language for sample in self.samples}
        return tuple(language for language in LANGUAGES if language in present)

    def require_identities(self, purpose: str) -> None:
        """See that every image has an identity, for what cannot do without.

        Args:
            purpose: who asks, in a plural such as "labelled training and evaluation".

        Raises:
            DatasetError: how many images have none, and the first of them.
        """
        missing = np.flatnonzero(self.image_identity == UNKNOWN)
        if len(missing):
            raise DatasetError(
                f"split {self.name!r}: {len(missing)} of {len(self.images)} images have no identity, "
                f"first {self.images[missing[0]]}; {purpose} need one for every image"
            )

    def pairs(self) -> Pairs:
        """Every caption with its image, in the order of `samples`, without identities."""
        return Pairs(
            captions=tuple(sample.caption for sample in self.samples),
            image_id=np.array([sample.image_id for sample in self.samples], dtype=np.int64),
            language=tuple(sample.language for sample in self.samples),
            images=self.images,
            missing_images=self.missing_images,
        )

    def queries(self, language: str | None = None) -> Queries:
        """Every caption as a query, in the order of `samples`; only those of one language when it is given.

        Raises:
            DatasetError: the split has no caption in that language, or an image has no identity.
        """
        self.require_identities("labelled training and evaluation")
        chosen = [sample for sample in self.samples if language is None or sample.language == language]
        if not chosen and language is not None:
            there = ", ".join(self.languages()) or "none"
            raise DatasetError(f"split {self.name!r} has no captions in {language!r}; languages there: {there}")
        return Queries(
            captions=tuple(sample.caption for sample in chosen),
            identity=np.array([sample.identity for sample in chosen], dtype=np.int64),
            image_id=np.array([sample.image_id for sample in chosen], dtype=np.int64),
            language=tuple(sample.language for sample in chosen),
        )


def check_language(language: str, *, source: str) -> None:
    """Raise DatasetError for a code outside `LANGUAGES`; `source` names where it stands."""
    if language not in LANGUAGES:
        hint = "; Chinese is 'zh'" if language in ("ch", "cn") else ""
        raise DatasetError(f"{source}: unknown language {language!r}; allowed: {', '.join(LANGUAGES)}{hint}")


def number_identities(identities: Iterable[int | str]) -> dict[int | str, int]:
    """Original id -> 0..P-1 in sorted order, integers before strings."""
    ordered = sorted(set(identities), key=lambda identity: (isinstance(identity, str), identity))
    return {identity: position for position, identity in enumerate(ordered)}


def check_disjoint(identities: Mapping[str, Iterable[int | str]], *, source: str) -> None:
    """See that nobody of the training split is in validation or test.

    Raises:
        DatasetError: naming the split, how many people are shared, and one of them.
    """
    train = set(identities.get("train", ()))
    for name, people in identities.items():
        shared = train.intersection(people) if name != "train" else set()
        if shared:
            example = min(shared, key=str)
            raise DatasetError(
                f"{source}: {len(shared)} identities of {name} are in train as well, such as {example!r}"
            )


def check_images_exist(paths: Sequence[Path], *, source: str) -> None:
    """See that every file is there.

    Raises:
        DatasetError: how many are missing under each top folder below their common root, and the first of them.
    """
    missing = [path for path in paths if not os.path.isfile(path)]
    if not missing:
        return
    root = Path(os.path.commonpath([path.parent for path in paths]))
    counts: Counter[str] = Counter()
    for path in missing:
        parts = path.relative_to(root).parts
        counts[parts[0] + "/" if len(parts) > 1 else "./"] += 1
    folders = ", ".join(f"{folder} {count}" for folder, count in sorted(counts.items())[:MISSING_SHOWN])
    more = f" and {len(counts) - MISSING_SHOWN} more folders" if len(counts) > MISSING_SHOWN else ""
    raise DatasetError(
        f"{source}: {len(missing)} of {len(paths)} images are missing under {root} ({folders}{more}), "
        f"first {missing[0].relative_to(root)}; to do without them: --allow-missing, in a run data.allow_missing: true"
    )


def _check_unique(name: str, items: Sequence[ImageItem]) -> None:
    seen: set[Path] = set()
    for item in items:
        if item.path in seen:
            raise DatasetError(f"split {name!r}: image {item.path} occurs twice; put all its captions in one record")
        seen.add(item.path)
