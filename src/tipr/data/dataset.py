"""What every data set gives: its facts, what its files say as records of the manifest, and checked splits of them."""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from tipr.data.exports import Export
from tipr.data.manifest import Record
from tipr.data.problems import Problem
from tipr.data.samples import (
    SPLITS,
    ImageItem,
    Split,
    SplitMissing,
    check_disjoint,
    check_language,
)
from tipr.errors import DatasetError

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Counts:
    """How large a split is; `captions` are those of one language, `identities` None where nobody states them."""

    identities: int | None
    images: int
    captions: int


@dataclass(frozen=True, slots=True)
class Edition:
    """Counts of a data set that are in circulation, such as the paper's or those of a withdrawn release."""

    name: str
    splits: Mapping[str, Counts]
    note: str = ""


@dataclass(frozen=True, slots=True)
class DatasetFacts:
    """What to know about a data set before using it.

    Attributes:
        title: the official name.
        licence: who may use it, and for what.
        research_only: a model that learned from it must not be declared fit for commercial use.
        languages: of its captions.
        splits: that may be there.
        layout: of its files, in one line.
        request: the page, or the address behind it, where it is asked for.
        citation: the paper to cite.
        editions: the official counts first, then others that are met.
        optional: splits of the official counts that need not be there.
        folders: image folders that a complete copy has, below the folder of images.
        defects: what is known to be wrong with it.
        note: anything else.
    """

    title: str
    licence: str
    languages: tuple[str, ...]
    splits: tuple[str, ...]
    layout: str
    request: str = ""
    citation: str = ""
    editions: tuple[Edition, ...] = ()
    optional: tuple[str, ...] = ()
    folders: tuple[str, ...] = ()
    defects: tuple[str, ...] = ()
    research_only: bool = False
    note: str = ""


@dataclass(frozen=True, slots=True)
class Reading:
    """All that the files of a data set say, before anything is asked of it.

    Attributes:
        folder: what the image paths of the records are relative to.
        files: the manifest or annotation files that were read.
        records: of all splits, in the order of the files; paths are those on disk where the file was found.
        lines: line of each record in a manifest, for messages; empty elsewhere.
        image_root: the part of every image path that holds no information, such as "imgs".
        problems: what is wrong with the files.
        unused: other annotation files of the data set that lie there.
    """

    folder: Path
    files: tuple[Path, ...]
    records: tuple[Record, ...] = field(repr=False)
    lines: tuple[int, ...] = ()
    image_root: str = ""
    problems: tuple[Problem, ...] = ()
    unused: tuple[Export, ...] = ()

    def require_usable(self) -> None:
        """See that nothing is wrong that would change what is learned or scored.

        Raises:
            DatasetError: the first error, with the file.
        """
        for problem in self.problems:
            if problem.level == "error":
                raise DatasetError(f"{self.files[0]}: {problem.line()}")

    def split_of(
        self,
        split: str,
        languages: Sequence[str] | None = None,
        *,
        name: str | None = None,
        allow_missing: bool = False,
    ) -> Split:
        """Check the records and make one split of them.

        Args:
            split: which records to take; `name` renames the result.
            languages: languages to keep; all when None.
            allow_missing: leave out images that are not on disk, with a warning, instead of refusing.

        Raises:
            SplitMissing: no record belongs to the split.
            DatasetError: an error of the files; records without split or with a box; people on both sides; missing
                files.
        """
        self.require_usable()
        source = str(self.files[0])
        without = sum(record.split is None for record in self.records)
        if without and without < len(self.records):
            raise DatasetError(
                f"{source}: {without} of {len(self.records)} records have no split: give it to all or to none"
            )
        chosen = [record for record in self.records if (record.split or "test") == split]
        if not chosen:
            there = sorted({record.split or "test" for record in self.records}, key=SPLITS.index)
            raise SplitMissing(f"{source}: no record of split {split!r}; splits there: {', '.join(there) or 'none'}")
        people: dict[str, set[int | str]] = {}
        for position, record in enumerate(self.records):
            if record.box is not None:
                place = f"{source}:{self.lines[position]}" if self.lines else f"{source}: record {position + 1}"
                raise DatasetError(f"{place}: box: training and evaluation read whole images: save the crops first")
            if record.identity is not None:
                people.setdefault(record.split or "test", set()).add(record.identity)
        for image, splits in splits_of_images(self.records).items():
            if len(set(splits)) > 1:
                raise DatasetError(f"{source}: {image} is in {' and '.join(dict.fromkeys(splits))}")
        check_disjoint(people, source=source)
        items = [
            ImageItem(
                path=self.folder / record.image,
                identity=record.identity,
                captions=tuple((caption.language, caption.text) for caption in record.captions),
                camera=record.camera,
                time=record.time,
                tags=record.tags,
            )
            for record in chosen
        ]
        if not allow_missing:
            return Split.build(name or split, items, languages=languages)
        present = _present(items, source=f"{source}: split {split!r}")
        made = Split.build(name or split, present, languages=languages, check_files=False)
        return replace(made, missing_images=len(items) - len(present))


def splits_of_images(records: Sequence[Record]) -> dict[str, list[str]]:
    """The split of every record of each image; a record without one belongs to test. Boxes cut people out: left out."""
    splits: dict[str, list[str]] = {}
    for record in records:
        if record.box is None:
            splits.setdefault(record.image, []).append(record.split or "test")
    return splits


def _present(items: list[ImageItem], *, source: str) -> list[ImageItem]:
    there = [item for item in items if item.path.is_file()]
    if not there:
        raise DatasetError(f"{source}: all {len(items)} images are missing, first {items[0].path}")
    if len(there) < len(items):
        logger.warning("%s: %d of %d images are missing and left out", source, len(items) - len(there), len(items))
    return there


class DatasetReader(ABC):
    """Reads one layout of files; an instance is an entry of `tipr.data.datasets.DATASETS`."""

    facts: DatasetFacts

    @abstractmethod
    def read(self, root: Path | str, languages: Sequence[str] | None = None) -> Reading:
        """Read everything that the manifest or the annotation files say.

        Args:
            root: the folder of the data set, or its manifest or annotation file.
            languages: languages to read where each has its own file; all when None.

        Raises:
            DatasetError: there is nothing that can be read at all; what is wrong with single records is part of the
                result.
        """

    def load(
        self, root: Path | str, split: str, languages: Sequence[str] | None = None, *, allow_missing: bool = False
    ) -> Split:
        """Read and check one split.

        Args:
            root: the folder of the data set, or its manifest or annotation file.
            split: one of `facts.splits`.
            languages: languages to keep; all when None.
            allow_missing: leave out images that are not on disk instead of refusing.

        Raises:
            SplitMissing: the data set is there and has no record of that split.
            DatasetError: what else is missing or wrong, in one line.
        """
        self.check_request(root, split, languages)
        return self.read(root, languages).split_of(split, languages, allow_missing=allow_missing)

    def check_request(self, root: Path | str, split: str, languages: Sequence[str] | None) -> None:
        """See that the data set can have such a split and such languages at all.

        Raises:
            DatasetError: naming what can be asked for.
        """
        if split not in self.facts.splits:
            raise DatasetError(f"{root}: unknown split {split!r}; allowed: {', '.join(self.facts.splits)}")
        for language in languages or ():
            check_language(language, source=f"split {split!r}")
            if language not in self.facts.languages:
                raise DatasetError(
                    f"{self.facts.title} has no captions in {language!r}; "
                    f"languages there: {', '.join(self.facts.languages)}"
                )
