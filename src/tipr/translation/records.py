"""What the four stages hand to each other: one JSON object a line and (caption, language), in append-only files.

    OUT/translations.jsonl   Item + draft, error, provenance
    OUT/filtered.jsonl       + rule, noise, suspect, noisy, threshold, estimator
    OUT/rewritten.jsonl      + rewrite, rewrite_noise, draft_noise, kept, refused, rewriter, text

Beside `NAME.jsonl` lies `NAME.meta.json`: the settings that made it, their hash, and whether the stage is complete.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from tipr.data.manifest import Record
from tipr.data.samples import check_language
from tipr.errors import ConfigError, DatasetError

TRANSLATIONS = "translations.jsonl"
"""File of stage 1 in the output folder."""
FILTERED = "filtered.jsonl"
"""File of stage 2 in the output folder."""
REWRITTEN = "rewritten.jsonl"
"""File of stage 4 in the output folder."""
BLOCK = 1 << 16
"""Bytes looked at at a time for the end of the last whole line."""

Row = dict[str, Any]
"""One line of a stage's file: the fields of an `Item`, and what the stages added."""


@dataclass(frozen=True, slots=True)
class Item:
    """One caption to be put into one language.

    Attributes:
        key: `IMAGE#n@LANGUAGE`, unique in a file; n = `index`.
        image: the image's path as the manifest gives it.
        index: position among the image's captions in the source language, from 0.
        source_language: language of `source`.
        language: the language it is put into.
        source: the caption.
        split: split of the image; None where the manifest names none.
    """

    key: str
    image: str
    index: int
    source_language: str
    language: str
    source: str
    split: str | None = None

    def to_row(self) -> Row:
        """The fields by name, in writing order."""
        return asdict(self)

    @classmethod
    def of(cls, row: Mapping[str, Any]) -> Self:
        """The item of a row, whatever the stages added to it.

        Raises:
            DatasetError: a field is missing.
        """
        try:
            return cls(**{field.name: row[field.name] for field in fields(cls)})
        except KeyError as error:
            raise DatasetError(f"row {row.get('key', '?')!r}: {error.args[0]} is missing") from None


def items_of(
    records: Sequence[Record], *, source_language: str, languages: Sequence[str], source: str
) -> tuple[Item, ...]:
    """What is to be translated, in the order of the records, then of the captions, then of the languages.

    An image that has captions in a language already keeps them: they are not made again.

    Args:
        records: those of the manifest.
        source_language: language of the captions to translate.
        languages: languages to make.
        source: names the manifest in errors.

    Raises:
        ConfigError: a language that is unknown, given twice or the source's.
        DatasetError: an image occurs twice, or has captions in a language but not as many as in the source language,
            or there is no caption in the source language.
    """
    check_targets(source_language, languages)
    for image, count in Counter(record.image for record in records).items():
        if count > 1:
            raise DatasetError(f"{source}: image {image} occurs in {count} records; put all its captions in one record")
    items = []
    found = False
    for record in records:
        texts = [caption.text for caption in record.captions if caption.language == source_language]
        found = found or bool(texts)
        there = Counter(caption.language for caption in record.captions)
        for language in languages:
            if there[language] not in (0, len(texts)):
                raise DatasetError(
                    f"{source}: image {record.image} has {there[language]} captions in {language} and {len(texts)} in "
                    f"{source_language}: give as many, or none"
                )
        for index, text in enumerate(texts):
            for language in languages:
                if not there[language]:
                    key = f"{record.image}#{index}@{language}"
                    items.append(Item(key, record.image, index, source_language, language, text, record.split))
    if not found:
        raise DatasetError(f"{source}: no caption in {source_language!r}")
    return tuple(items)


def check_targets(source_language: str, languages: Sequence[str]) -> None:
    """See that the languages to make are known, different, and not the source's.

    Raises:
        ConfigError: they are not.
    """
    for language in (source_language, *languages):
        try:
            check_language(language, source="languages")
        except DatasetError as error:
            raise ConfigError(str(error)) from None
    if not languages:
        raise ConfigError("no language to translate into: name some, such as zh fr de")
    for language, count in Counter([source_language, *languages]).items():
        if count > 1:
            where = "the source's" if language == source_language else "given twice"
            raise ConfigError(f"language {language!r} to translate into is {where}")


class Journal:
    """The file of one stage: a row is appended as one whole line, so that a stage killed at any moment goes on.

    Only one process writes to a file. On opening, a last line torn by a kill is dropped, and the stage
    is not complete any more.

    Args:
        path: the `.jsonl` file; made with its folder when it is not there.
        settings: JSON-like; everything that decides what the rows hold, such as the hash of the stage's input file. A
            file that other settings made is refused.

    Attributes:
        complete: the stage was finished.

    Raises:
        ConfigError: other settings made the file, or another process writes to it.
        DatasetError: a line of the file is not a row, or a key occurs twice.
    """

    def __init__(self, path: Path | str, settings: Mapping[str, Any]) -> None:
        self.path = Path(path)
        self.settings = json.loads(json.dumps(settings))
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._stream = os.open(self.path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o644)
        try:
            self._lock()
            self.complete = self._check_settings()
            self._drop_torn_line()
            self._keys = {row["key"] for row in self.read()}
        except BaseException:
            os.close(self._stream)
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __len__(self) -> int:
        return len(self._keys)

    def keys(self) -> frozenset[str]:
        """The keys of all rows."""
        return frozenset(self._keys)

    def append(self, row: Mapping[str, Any]) -> None:
        """Write one row; it is whole in the file, or not there, after a kill.

        Raises:
            ValueError: a row of that key is there.
            OSError: disk full; nothing of the row stays.
        """
        key = row["key"]
        if key in self._keys:
            raise ValueError(f"{self.path}: a row of {key!r} is there already")
        line = (json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n").encode()
        before = os.fstat(self._stream).st_size
        if os.write(self._stream, line) < len(line):
            os.ftruncate(self._stream, before)
            raise OSError(28, "No space left on device", str(self.path))
        self._keys.add(key)

    def read(self) -> Iterator[Row]:
        """The rows, in the order of the file."""
        return read_rows(self.path)

    def finish(self) -> None:
        """Mark the stage complete, once every row is on the disk."""
        os.fsync(self._stream)
        self.complete = True
        self._write_meta()

    def close(self) -> None:
        """Give the file back."""
        os.close(self._stream)

    def _lock(self) -> None:
        try:
            fcntl.flock(self._stream, fcntl.LOCK_EX | fcntl.LOCK_NB)  # the kernel frees it when the process dies
        except BlockingIOError:
            raise ConfigError(f"another process is writing {self.path}") from None

    def _check_settings(self) -> bool:
        meta = _read_meta(self.path)
        if meta is not None and meta["settings_sha256"] == settings_sha256(self.settings):
            return bool(meta["complete"])
        if meta is None or not os.fstat(self._stream).st_size:
            self.complete = False
            self._write_meta()
            return False
        raise ConfigError(
            f"{self.path} was made with other settings ({_difference(meta['settings'], self.settings)}): "
            "give those again, or another output folder, or delete the file"
        )

    def _drop_torn_line(self) -> None:
        size = end = os.fstat(self._stream).st_size
        whole = 0
        while end and not whole:  # from the end: a file may be large
            start = max(0, end - BLOCK)
            found = os.pread(self._stream, end - start, start).rfind(b"\n")
            whole = start + found + 1 if found >= 0 else 0
            end = start
        if whole < size:
            os.ftruncate(self._stream, whole)
            self.complete = False
            self._write_meta()

    def _write_meta(self) -> None:
        meta = {
            "settings": self.settings,
            "settings_sha256": settings_sha256(self.settings),
            "complete": self.complete,
        }
        path = _meta_path(self.path)
        draft = path.with_name(path.name + ".partial")
        draft.write_text(json.dumps(meta, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
        os.replace(draft, path)


def read_rows(path: Path | str) -> Iterator[Row]:
    """The rows of a stage's file, in its order; no meta file is needed, so a file may come from elsewhere.

    Raises:
        DatasetError: there is no such file, a line is not a JSON object with a key, or a key occurs twice.
    """
    path = Path(path)
    seen: set[str] = set()
    try:
        with path.open(encoding="utf-8") as file:
            for number, line in enumerate(file, start=1):
                try:
                    row = json.loads(line)
                except ValueError as error:
                    if not line.endswith("\n"):
                        return  # being written, or torn by a kill
                    raise DatasetError(f"{path}:{number}: not JSON: {error}") from None
                if not isinstance(row, dict) or not isinstance(row.get("key"), str):
                    raise DatasetError(f"{path}:{number}: a row is a JSON object with a key")
                if row["key"] in seen:
                    raise DatasetError(f"{path}:{number}: key {row['key']!r} occurs twice")
                seen.add(row["key"])
                yield row
    except FileNotFoundError:
        raise DatasetError(f"no file {path}: run the stage that makes it first") from None
    except UnicodeDecodeError:
        raise DatasetError(f"{path}: not UTF-8") from None


def is_complete(path: Path | str) -> bool:
    """Whether a stage's file is there and its stage was finished."""
    meta = _read_meta(Path(path))
    return Path(path).is_file() and meta is not None and bool(meta["complete"])


def require_complete(path: Path | str) -> None:
    """See that the stage that makes a file was finished; a file without a meta file, from elsewhere, passes.

    Raises:
        DatasetError: there is no such file, or its stage was stopped.
    """
    path = Path(path)
    if not path.is_file():
        raise DatasetError(f"no file {path}: run the stage that makes it first")
    meta = _read_meta(path)
    if meta is not None and not meta["complete"]:
        raise DatasetError(f"{path} is not complete: run the stage that makes it to its end first")


def settings_of(path: Path | str) -> dict[str, Any] | None:
    """The settings that made a stage's file; None for a file without a meta file."""
    meta = _read_meta(Path(path))
    return None if meta is None else dict(meta["settings"])


def settings_sha256(settings: Mapping[str, Any]) -> str:
    """Hash of JSON-like settings; the order of the keys does not matter."""
    return hashlib.sha256(json.dumps(settings, sort_keys=True, ensure_ascii=False).encode()).hexdigest()


def file_sha256(path: Path | str) -> str:
    """Hash of a file's bytes."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _meta_path(path: Path) -> Path:
    return path.with_name(path.stem + ".meta.json")


def _read_meta(path: Path) -> dict[str, Any] | None:
    meta = _meta_path(path)
    try:
        content = json.loads(meta.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except ValueError:
        content = None
    if not isinstance(content, dict) or not {"settings", "settings_sha256", "complete"} <= content.keys():
        raise DatasetError(f"{meta} is damaged: delete it and {path.name} to make them anew")
    return content


def _difference(old: Mapping[str, Any], new: Mapping[str, Any]) -> str:
    names = [name for name in sorted({*old, *new}) if old.get(name) != new.get(name)]
    return ", ".join(f"{name}: {_short(old.get(name))} -> {_short(new.get(name))}" for name in names)


def _short(value: object) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else text[:57] + "..."
