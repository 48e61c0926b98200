"""The benchmarks with JSON annotation: from whatever export lies in a folder to records with images found on disk."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

from tipr.data.annotations import Entry, read_entries
from tipr.data.dataset import Counts, DatasetReader, Reading
from tipr.data.exports import AnnotationFile, Export, find_exports, home_of
from tipr.data.image_index import ImageIndex, Placement
from tipr.data.manifest import Caption, Record
from tipr.data.problems import Problems
from tipr.data.samples import LANGUAGES, SPLITS
from tipr.errors import DatasetError


@dataclass(slots=True)
class _Image:
    """One image while its records are joined."""

    identity: int
    split: str
    captions: dict[str, list[str]] = field(default_factory=dict)
    records: int = 0


class AnnotatedDataset(DatasetReader):
    """A benchmark with `file_path`, `id`, `captions` and perhaps `split` in JSON, in any export in circulation.

    Attributes:
        names: file names of the whole annotation, the best first.
        by_language: whether each language has its own files, aligned by position.
    """

    names: ClassVar[tuple[str, ...]] = ()
    by_language: ClassVar[bool] = False

    def read(self, root: Path | str, languages: Sequence[str] | None = None) -> Reading:
        """See `DatasetReader.read`. Images are looked for exactly, then but for capitals, then for the suffix."""
        root = Path(root)
        if not root.exists():
            raise DatasetError(f"no folder or annotation file at {root}; {self.wanted()}")
        home = home_of(root, [self.facts.title.removesuffix("(M)"), *(Path(name).stem for name in self.names)])
        exports = find_exports(root, home, self.names, by_language=self.by_language)
        export, files, images, problems = self._first_usable(home, exports, languages)
        index = ImageIndex(home)
        placement = index.placement(list(images))
        names = _on_disk(images, index, placement, problems)
        records = [
            Record(
                name,
                tuple(Caption(language, text) for language in LANGUAGES for text in image.captions.get(language, ())),
                identity=image.identity,
                split=image.split,
            )
            for name, image in zip(names, images.values(), strict=True)
        ]
        listed = set(names)
        top = f"{placement.root}/" if placement.root else ""
        for path in sorted(index.paths - listed):
            if path.startswith(top):
                problems.add("unlisted", path)
        return Reading(
            folder=home,
            files=tuple(file.path for file in files),
            records=tuple(records),
            image_root=placement.root,
            problems=problems.found(),
            unused=tuple(other for other in exports if other is not export),
        )

    def wanted(self) -> str:
        """What should be there and where it is asked for, as the end of an error message."""
        return f"{self.facts.title} needs {self.facts.layout}; request: {self.facts.request}"

    def _first_usable(
        self, home: Path, exports: Sequence[Export], languages: Sequence[str] | None
    ) -> tuple[Export, Sequence[AnnotationFile], dict[str, _Image], Problems]:
        """The first export that has splits; some annotation files are distributed that have none."""
        without_split = []
        for export in exports:
            files = [file for file in export.files if not languages or (file.language or "en") in languages]
            if not files:
                there = sorted({file.language or "en" for file in export.files}, key=LANGUAGES.index)
                raise DatasetError(
                    f"{export.paths[0].parent} has no files of {', '.join(languages or ())}; "
                    f"languages there: {', '.join(there)}"
                )
            problems = Problems()
            images = _read(files, problems)
            if images or not any(problem.kind == "no_split" for problem in problems.found()):
                return export, files, images, problems
            without_split.append(export.paths[0].name)
        if without_split:
            raise DatasetError(f"{home}: {', '.join(without_split)} has no splits; {self.wanted()}")
        raise DatasetError(f"no annotation file in {home}; {self.wanted()}")


def count_export(export: Export) -> dict[str, Counts]:
    """How large each split of an export is, to lay it beside another; captions are those of its first language.

    Raises:
        DatasetError: a file cannot be read.
    """
    images = _read(export.files, Problems())
    counts = {}
    for split in SPLITS:
        part = [image for image in images.values() if image.split == split]
        if part:
            captions = sum(len(next(iter(image.captions.values()), ())) for image in part)
            counts[split] = Counts(len({image.identity for image in part}), len(part), captions)
    return counts


def _read(files: Sequence[AnnotationFile], problems: Problems) -> dict[str, _Image]:
    """Images by path, in the order of splits and files; what is wrong goes to `problems`."""
    by_split: dict[str | None, dict[str, list[Entry]]] = {}
    for file in files:
        by_split.setdefault(file.split, {})[file.language or "en"] = read_entries(file.path, problems)
    images: dict[str, _Image] = {}
    names = {(file.split, file.language or "en"): file.path.name for file in files}
    for split, by_language in by_split.items():
        first, *others = by_language
        _join(images, by_language[first], split, first, problems, first=True)
        for language in others:
            source, target = names[split, first], names[split, language]
            if _aligned(by_language[first], by_language[language], source, target, problems):
                _join(images, by_language[language], split, language, problems, first=False)
    for path, image in images.items():
        if image.records > 1:
            problems.add("joined", path)
    return dict(sorted(images.items(), key=lambda item: SPLITS.index(item[1].split)))


def _join(
    images: dict[str, _Image],
    entries: Sequence[Entry],
    split_of_file: str | None,
    language: str,
    problems: Problems,
    *,
    first: bool,
) -> None:
    for entry in entries:
        split = entry.split or split_of_file
        if split is None:
            problems.add("no_split", entry.image)
            continue
        image = images.setdefault(entry.image, _Image(entry.identity, split))
        if image.split != split:
            problems.add("two_splits", f"{entry.image}: {image.split} and {split}")
        elif image.identity != entry.identity:
            problems.add("two_identities", f"{entry.image}: {image.identity} and {entry.identity}")
        else:
            image.captions.setdefault(language, []).extend(entry.captions)
            image.records += first


def _on_disk(paths: Iterable[str], index: ImageIndex, placement: Placement, problems: Problems) -> list[str]:
    """The file that each path means, or the path itself where there is none; no file serves two paths."""
    placed = [placement.place(path) for path in paths]
    taken = set(index.paths.intersection(placed))  # a file that is named exactly is nobody else's
    names = []
    for path in placed:
        found = index.find(path)
        if found is None or found[1] == "exact" or found[0] in taken:
            names.append(path)
            continue
        name, bent = found
        problems.add(bent, f"{path} is {name}")
        taken.add(name)
        names.append(name)
    for path, count in Counter(names).items():
        if count > 1:
            problems.add("same_file", path, count=count - 1)
    return names


def _aligned(
    source: Sequence[Entry], target: Sequence[Entry], source_name: str, target_name: str, problems: Problems
) -> bool:
    """Same number of entries; same image, id and number of captions at each position (bi-irra.md section 9)."""
    if len(source) != len(target):
        problems.add("misaligned", f"{source_name} has {len(source)} entries, {target_name} {len(target)}")
        return False
    aligned = True
    for position, (one, other) in enumerate(zip(source, target, strict=True), start=1):
        difference = _difference(one, other)
        if difference is not None:
            aligned = False
            here, there = difference
            problems.add("misaligned", f"{target_name} record {position} and {source_name}: {there} and {here}")
    return aligned


def _difference(one: Entry, other: Entry) -> tuple[str, str] | None:
    """What differs between the same position of two languages' files, or None."""
    if one.image != other.image:
        return one.image, other.image
    if one.identity != other.identity:
        return f"id {one.identity}", f"id {other.identity}"
    if len(one.captions) != len(other.captions):
        return f"{len(one.captions)} captions", f"{len(other.captions)} captions"
    return None
