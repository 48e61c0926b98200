"""Is a data set complete and sound: what its files say, laid beside what is published about it, and one verdict."""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from tipr.data.annotated import count_export
from tipr.data.caption_lint import TOKEN_LIMIT, CountTokens, lint_captions
from tipr.data.dataset import Counts, DatasetReader, Edition, Reading, splits_of_images
from tipr.data.images import ImageProblem, read_image
from tipr.data.manifest import Record
from tipr.data.problems import Problem, Problems
from tipr.data.samples import LANGUAGES, SPLITS
from tipr.errors import DatasetError

Verdict = Literal["ready", "usable with warnings", "unusable"]
Progress = Callable[[int, int], None]
SHOWN_FOLDERS = 8
"""Folders with missing images that the verdict names."""
_CHUNK = 64


@dataclass(frozen=True, slots=True)
class SplitCount:
    """What is there of a split; `captions` by language, `official` what is published (None: nothing)."""

    identities: int
    images: int
    captions: Mapping[str, int]
    official: Counts | None = None


@dataclass(frozen=True, slots=True)
class Folder:
    """One image folder: images that the annotation names in it, and how many of them are not there."""

    name: str
    named: int
    missing: int


@dataclass(frozen=True, slots=True)
class OtherExport:
    """Another annotation that lies there, with its own counts."""

    files: tuple[str, ...]
    splits: Mapping[str, Counts]


@dataclass(frozen=True, slots=True)
class Report:
    """The outcome of a check.

    Attributes:
        root: what was checked.
        title: official name of the data set.
        files: annotation files with their SHA-256, relative to the folder of the data set.
        splits: counts by split, in the order of `SPLITS`.
        edition: the published edition whose counts these are; None when they are nobody's.
        others: other annotation files that lie there.
        folders: image folders, those that are missing as a whole first.
        problems: everything found, in the order of `tipr.data.problems.KINDS`.
        missing: all images that are not there, relative to the folder of the data set.
        unreadable: all images that cannot be decoded, each with the reason.
        verdict: the outcome; `reason` says why it is not "ready".
        decoded: whether every image was decoded.
    """

    root: str
    title: str
    verdict: Verdict
    reason: str = ""
    files: Mapping[str, str] = field(default_factory=dict)
    splits: Mapping[str, SplitCount] = field(default_factory=dict)
    edition: str | None = None
    others: tuple[OtherExport, ...] = ()
    folders: tuple[Folder, ...] = ()
    problems: tuple[Problem, ...] = ()
    missing: tuple[str, ...] = ()
    unreadable: tuple[str, ...] = ()
    decoded: bool = False

    def line(self) -> str:
        """The verdict in one line."""
        return f"{self.verdict}: {self.reason}" if self.reason else self.verdict

    def to_json(self) -> dict[str, Any]:
        """A tree of JSON values."""
        tree = asdict(self)
        tree["problems"] = [problem.to_json() for problem in self.problems]
        return tree


def check_dataset(
    reader: DatasetReader,
    root: Path | str,
    *,
    decode: bool = True,
    limit: int = TOKEN_LIMIT,
    count_tokens: CountTokens | None = None,
    workers: int = 1,
    allow_missing: bool = False,
    progress: Progress | None = None,
) -> Report:
    """Check a data set; nothing is raised for a defect of it.

    Args:
        reader: of its layout.
        root: its folder, or its manifest or annotation file.
        decode: read every image; without, only that it is there.
        limit: tokens that the model reads of a caption.
        count_tokens: the model's tokenizer; a lower bound without.
        workers: threads that decode.
        allow_missing: judge as a run does that leaves missing images out; no split may lose all of them.
        progress: called with (images decoded, images in all).
    """
    title = reader.facts.title
    try:
        reading = reader.read(root)
    except DatasetError as error:
        return Report(str(root), title, "unusable", str(error))
    if not reading.records and not reading.problems:
        return Report(str(root), title, "unusable", f"{reading.files[0]}: no records")
    problems = Problems()
    problems.extend(reading.problems)
    splits = _count(reading.records, reader)
    edition = _compare_with_editions(reader, splits, problems)
    others = _compare_with_others(reading, splits, problems)
    _check_identities(reading.records, problems)
    _check_images_stand_once(reading, problems)
    present, missing = _find_images(reading)
    folders = _folders(reading, missing, reader.facts.folders)
    if missing:
        kind = "left_out" if allow_missing and _every_split_keeps_some(reading.records, missing) else "missing"
        gone = [f"{folder.name}/ {folder.missing:,}" for folder in folders if folder.missing]
        for name in missing:
            problems.add(kind, name, detail=", ".join(gone[:SHOWN_FOLDERS]))
    problems.extend(lint_captions(reading.records, limit=limit, count_tokens=count_tokens))
    unreadable = _decode(reading.folder, present, workers, progress) if decode else []
    for example in unreadable:
        problems.add("unreadable", example)
    found = problems.found()
    verdict, reason = _verdict(found)
    return Report(
        root=str(root),
        title=title,
        verdict=verdict,
        reason=reason,
        files={_relative(path, reading.folder): _sha256(path) for path in reading.files},
        splits=splits,
        edition=edition.name if edition else None,
        others=others,
        folders=folders,
        problems=found,
        missing=tuple(missing),
        unreadable=tuple(unreadable),
        decoded=decode,
    )


def _count(records: Sequence[Record], reader: DatasetReader) -> dict[str, SplitCount]:
    official = reader.facts.editions[0].splits if reader.facts.editions else {}
    counts = {}
    for split in SPLITS:
        part = [record for record in records if (record.split or "test") == split]
        if part:
            languages = Counter(caption.language for record in part for caption in record.captions)
            counts[split] = SplitCount(
                identities=len({record.identity for record in part if record.identity is not None}),
                images=len({record.image for record in part}),
                captions={language: languages[language] for language in LANGUAGES if language in languages},
                official=official.get(split),
            )
    return counts


def _compare_with_editions(
    reader: DatasetReader, splits: Mapping[str, SplitCount], problems: Problems
) -> Edition | None:
    facts = reader.facts
    if not facts.editions:
        return None
    for edition in facts.editions:
        if _differences(splits, edition.splits) == []:
            if edition is not facts.editions[0]:
                problems.add("counts", detail=f"they are those of {edition.name}" + _note(edition))
            break
    else:
        edition = None
        for difference in _differences(splits, facts.editions[0].splits):
            problems.add("counts", difference)
    expected = edition or facts.editions[0]
    for split in expected.splits:
        if split not in splits and split not in facts.optional:
            problems.add("split_missing", split)
    present = {language for count in splits.values() for language in count.captions}
    for language in facts.languages:
        if language not in present:
            problems.add("language_missing", language)
    return edition


def _note(edition: Edition) -> str:
    return f" ({edition.note})" if edition.note else ""


def _differences(splits: Mapping[str, SplitCount], official: Mapping[str, Counts]) -> list[str]:
    """Where loaded counts are not the published ones, as "train: 5 images, official 6"; absent splits do not count."""
    found = []
    languages = [code for code in LANGUAGES if any(code in count.captions for count in splits.values())]
    for split, count in splits.items():
        if split not in official:
            found.append(f"{split}: {count.images:,} images, official none")
            continue
        expected = official[split]
        pairs = [
            ("identities", count.identities, expected.identities),
            ("images", count.images, expected.images),
            *((f"captions ({code})", count.captions.get(code, 0), expected.captions) for code in languages),
        ]
        found += [
            f"{split}: {loaded:,} {name}, official {wanted:,}"
            for name, loaded, wanted in pairs
            if wanted is not None and loaded != wanted
        ]
    return found


def _compare_with_others(
    reading: Reading, splits: Mapping[str, SplitCount], problems: Problems
) -> tuple[OtherExport, ...]:
    others = []
    for export in reading.unused:
        try:
            counts = count_export(export)
        except DatasetError:  # some other JSON file: not ours to judge
            continue
        names = tuple(_relative(path, reading.folder) for path in export.paths)
        others.append(OtherExport(names, counts))
        for split, count in counts.items():
            if split not in splits:
                continue
            used = splits[split]
            mine = Counts(used.identities, used.images, next(iter(used.captions.values()), 0))
            if mine != count:
                problems.add(
                    "other_export",
                    f"{', '.join(names)}: {split} has {count.images:,} images and {count.captions:,} captions, "
                    f"here {mine.images:,} and {mine.captions:,}",
                )
    return tuple(others)


def _check_identities(records: Sequence[Record], problems: Problems) -> None:
    people: dict[str, set[int | str]] = {split: set() for split in SPLITS}
    images: Counter[int | str] = Counter()
    for record in records:
        if record.identity is None:
            problems.add("without_identity", record.image)
        else:
            people[record.split or "test"].add(record.identity)
            images[record.identity] += 1
        if record.box is not None:
            problems.add("box", record.image)
    some = [record.split is None for record in records]
    if any(some) and not all(some):
        problems.add("no_split", records[some.index(True)].image, count=sum(some))
    for identity in sorted(people["train"] & (people["val"] | people["test"]), key=str):
        problems.add("train_identity_elsewhere", f"id {identity}")
    for identity in sorted(people["val"] & people["test"], key=str):
        problems.add("val_identity_in_test", f"id {identity}")
    for identity, count in images.items():
        if count == 1:
            problems.add("single_image", f"id {identity}")


def _check_images_stand_once(reading: Reading, problems: Problems) -> None:
    known = {problem.kind for problem in reading.problems}  # an annotation's reader has counted them already
    for name, splits in splits_of_images(reading.records).items():
        if len(set(splits)) > 1:
            problems.add("two_splits", f"{name}: {' and '.join(dict.fromkeys(splits))}")
        elif len(splits) > 1 and "same_file" not in known:
            problems.add("same_file", name, count=len(splits) - 1)


def _find_images(reading: Reading) -> tuple[list[str], list[str]]:
    names = dict.fromkeys(record.image for record in reading.records)
    present: list[str] = []
    missing: list[str] = []
    for name in names:
        (present if os.path.isfile(reading.folder / name) else missing).append(name)
    return present, missing


def _every_split_keeps_some(records: Sequence[Record], missing: Sequence[str]) -> bool:
    gone = set(missing)
    kept = {record.split for record in records if record.image not in gone}
    return kept == {record.split for record in records}


def _folders(reading: Reading, missing: Iterable[str], expected: Sequence[str]) -> tuple[Folder, ...]:
    """Images by the first folder below the image root; published folders that no record names count as well."""
    prefix = f"{reading.image_root}/" if reading.image_root else ""

    def top(name: str) -> str:
        head, slash, _ = name.removeprefix(prefix).partition("/")
        return head if slash else reading.image_root or "."

    named = Counter(top(name) for name in {record.image for record in reading.records})
    gone = Counter(top(name) for name in missing)
    known = {name.casefold() for name in named}
    named.update({name: 0 for name in expected if name.casefold() not in known})
    folders = [Folder(name, count, gone[name]) for name, count in named.items()]
    return tuple(sorted(folders, key=lambda folder: (-folder.missing, folder.name.casefold())))


def _decode(folder: Path, names: Sequence[str], workers: int, progress: Progress | None) -> list[str]:
    """Read every image; what cannot be read, with the reason."""

    def problems_of(chunk: Sequence[str]) -> list[str]:
        return [problem for name in chunk if (problem := _image_problem(folder / name, name))]

    chunks = [names[start : start + _CHUNK] for start in range(0, len(names), _CHUNK)]
    unreadable: list[str] = []
    done = 0
    pool = ThreadPoolExecutor(workers)
    try:
        for chunk, found in zip(chunks, pool.map(problems_of, chunks), strict=True):
            unreadable += found
            done += len(chunk)
            if progress is not None:
                progress(done, len(names))
    finally:  # Ctrl-C waits for the few images that are being read, not for all that are left
        pool.shutdown(wait=True, cancel_futures=True)
    return unreadable


def _image_problem(path: Path, name: str) -> str | None:
    try:
        read_image(path)
    except ImageProblem as problem:
        return f"{name}: {problem.reason}"
    return None


def _verdict(problems: Sequence[Problem]) -> tuple[Verdict, str]:
    errors = [problem.message for problem in problems if problem.level == "error"]
    warnings = [problem.message for problem in problems if problem.level == "warning"]
    if errors:
        return "unusable", "; ".join(errors)
    return ("usable with warnings", "; ".join(warnings)) if warnings else ("ready", "")


def _relative(path: Path, folder: Path) -> str:
    return path.relative_to(folder).as_posix() if path.is_relative_to(folder) else str(path)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
