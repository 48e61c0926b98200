"""The manifest: one JSON object a line that describes one image; read and written strictly.

    {"image": "images/a.jpg", "captions": [{"language": "en", "text": "A man in a red coat."}], "identity": 7,
     "camera": "gate", "time": "2026-03-01T08:30:00Z", "box": [10, 4, 64, 190], "split": "test", "tags": ["indoor"]}

`docs/manifest.schema.json` is the same rules as JSON Schema; a test holds the two together.
"""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from tipr.data.samples import LANGUAGES, SPLITS, check_language
from tipr.errors import DatasetError

MANIFEST_NAME = "manifest.jsonl"
"""File name of the manifest in a data-set folder."""
KEYS = ("image", "captions", "identity", "camera", "time", "box", "split", "tags")
"""The keys of a record, in writing order."""
TIME_PATTERN = (
    r"^[0-9]{4}-(0[1-9]|1[0-2])-(0[1-9]|[12][0-9]|3[01])[Tt ]([01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9]"
    r"(\.[0-9]{1,9})?([Zz]|[+-]([01][0-9]|2[0-3]):[0-5][0-9])(?![\s\S])"
)
"""RFC 3339 date-time with an offset, without leap seconds. Not `$` at the end: Python's would allow a line break."""
IMAGE_PATTERN = r"^(?!/)(?![A-Za-z]:)(?!(.*/)?\.\.(/|$))[^\\\x00-\x1f\x7f]*[^\\/\x00-\x1f\x7f](?![\s\S])"
"""Relative path with forward slashes that stays below the manifest's folder."""


@dataclass(frozen=True, slots=True)
class Caption:
    """A caption in one of `LANGUAGES`."""

    language: str
    text: str


@dataclass(frozen=True, slots=True)
class Record:
    """One line of a manifest.

    Attributes:
        image: path relative to the manifest's folder, with forward slashes.
        captions: any number of captions.
        identity: who is shown: an integer or a non-empty string.
        camera: name of the camera.
        time: RFC 3339 date and time with offset; `instant` parses it.
        box: (x, y, width, height) of the person in pixels of the oriented image.
        split: "train", "val" or "test".
        tags: free words about the image.
    """

    image: str
    captions: tuple[Caption, ...] = ()
    identity: int | str | None = None
    camera: str | None = None
    time: str | None = None
    box: tuple[float, float, float, float] | None = None
    split: str | None = None
    tags: tuple[str, ...] = ()

    @property
    def instant(self) -> datetime | None:
        """`time` as an aware datetime."""
        return None if self.time is None else parse_time(self.time)


def parse_time(text: str) -> datetime:
    """An RFC 3339 date-time with offset as an aware datetime.

    Raises:
        ValueError: the text is not of that form, or is no day of the calendar.
    """
    if not re.match(TIME_PATTERN, text):
        raise ValueError("not an RFC 3339 time such as 2026-03-01T08:30:00Z")
    whole, fraction = re.sub(r"\.[0-9]+", "", text), re.search(r"\.([0-9]+)", text)
    moment = datetime.fromisoformat(whole.upper().replace(" ", "T"))
    microsecond = int(fraction.group(1)[:6].ljust(6, "0")) if fraction else 0
    return moment.replace(microsecond=microsecond)


def iterate_manifest(path: Path | str) -> Iterator[tuple[int, Record]]:
    """Read a manifest line by line.

    Args:
        path: a JSON Lines file in UTF-8; blank lines are passed over.

    Yields:
        (line number from 1, record).

    Raises:
        DatasetError: the file cannot be read, or a line breaks a rule; the message starts with `file:line: key`.
    """
    path = Path(path)
    number = 0
    try:
        with path.open(encoding="utf-8-sig") as file:
            for number, line in enumerate(file, start=1):
                if line.strip():
                    yield number, parse_record(line, source=f"{path}:{number}")
    except FileNotFoundError:
        raise DatasetError(f"no manifest at {path}") from None
    except UnicodeDecodeError:
        raise DatasetError(f"{path}:{number + 1}: not UTF-8") from None
    except OSError as error:
        raise DatasetError(f"cannot read manifest {path}: {error.strerror or error}") from None


def read_manifest(path: Path | str) -> tuple[Record, ...]:
    """All records of a manifest; see `iterate_manifest`."""
    return tuple(record for _, record in iterate_manifest(path))


def write_manifest(path: Path | str, records: Iterable[Record]) -> None:
    """Write records as JSON Lines (UTF-8, keys in the order of `KEYS`, `\\n`), atomically.

    Raises:
        DatasetError: a record breaks a rule of the format, or the file cannot be written.
    """
    path = Path(path)
    partial = path.with_name(path.name + ".partial")
    try:
        with partial.open("w", encoding="utf-8", newline="\n") as file:
            for position, record in enumerate(records, start=1):
                line = format_record(record)
                parse_record(line, source=f"{path}:{position}")
                file.write(line + "\n")
        os.replace(partial, path)
    except OSError as error:
        raise DatasetError(f"cannot write manifest {path}: {error.strerror or error}") from None
    except UnicodeEncodeError as error:  # JSON can spell halves of a surrogate pair, a file cannot
        raise DatasetError(f"cannot write manifest {path}: {error.object[error.start]!r} is no sign") from None
    finally:
        partial.unlink(missing_ok=True)


def format_record(record: Record) -> str:
    """One line of JSON; keys that are not given are left out."""
    tree: dict[str, Any] = {
        "image": record.image,
        "captions": [{"language": caption.language, "text": caption.text} for caption in record.captions],
    }
    for key in KEYS[2:]:
        value = getattr(record, key)
        if value is not None and value != ():
            tree[key] = list(value) if isinstance(value, tuple) else value
    return json.dumps(tree, ensure_ascii=False, allow_nan=False)


def parse_record(line: str, *, source: str) -> Record:
    """Check one line and make it a record.

    Args:
        line: one JSON object.
        source: `file:line`, put in front of every error.

    Raises:
        DatasetError: not JSON, a key missing, unknown or given twice, or a value that is not allowed.
    """
    try:
        tree = json.loads(line, object_pairs_hook=_unique_keys, parse_constant=_refuse_constant)
    except json.JSONDecodeError as error:
        raise DatasetError(f"{source}: not JSON: {error.msg} at column {error.colno}") from None
    except (ValueError, RecursionError) as error:
        raise DatasetError(f"{source}: {error}") from None
    if not isinstance(tree, dict):
        raise DatasetError(f"{source}: a record must be a JSON object, not {_type_name(tree)}")
    for key in tree:
        if key not in KEYS:
            raise DatasetError(f"{source}: unknown key {key!r}; allowed: {', '.join(KEYS)}")
    if "image" not in tree:
        raise DatasetError(f"{source}: image: missing")
    if "captions" not in tree:
        raise DatasetError(f'{source}: captions: missing; write "captions": [] for an image without any')
    values: dict[str, Any] = {}
    for key, value in tree.items():
        try:
            values[key] = _READERS[key](value)
        except (ValueError, OverflowError) as error:
            raise DatasetError(f"{source}: {key}: {error}") from None
        except DatasetError as error:
            raise DatasetError(f"{source}: {error}") from None
    return Record(**values)


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    tree = dict(pairs)
    if len(tree) < len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for key in keys if keys.count(key) > 1)
        raise ValueError(f"key {twice!r} is given twice")
    return tree


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


def _type_name(value: object) -> str:
    names = {dict: "an object", list: "a list", str: "a string", bool: "true or false", type(None): "null"}
    return names.get(type(value), "a number")


def _string(value: object) -> str:
    if not isinstance(value, str):
        raise ValueError(f"must be a string, not {_type_name(value)}")
    return value


def _words(value: object) -> str:
    text = _string(value)
    if not text:
        raise ValueError("must not be empty")
    return text


def _image(value: object) -> str:
    text = _string(value)
    if not re.match(IMAGE_PATTERN, text):
        raise ValueError(
            f"{text!r} must be a relative path with forward slashes that stays below the manifest's folder"
        )
    return text


def _captions(value: object) -> tuple[Caption, ...]:
    if not isinstance(value, list):
        raise ValueError(f"must be a list of {{language, text}}, not {_type_name(value)}")
    captions = []
    for position, item in enumerate(value):
        if not isinstance(item, dict) or set(item) != {"language", "text"}:
            raise ValueError(f"item {position} must be an object with exactly language and text")
        language = item["language"]
        if not isinstance(language, str) or language not in LANGUAGES:
            check_language(str(language), source=f"captions: item {position}")
            raise ValueError(f"item {position}: language must be a string")
        if not isinstance(item["text"], str):
            raise ValueError(f"item {position}: text must be a string, not {_type_name(item['text'])}")
        captions.append(Caption(language, item["text"]))
    return tuple(captions)


def _identity(value: object) -> int | str:
    if isinstance(value, float) and value.is_integer():  # JSON does not tell 7.0 from 7
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int | str) or value == "":
        raise ValueError(f"must be an integer or a non-empty string, not {value!r}")
    return value


def _time(value: object) -> str:
    text = _string(value)
    try:
        parse_time(text)
    except ValueError as error:
        raise ValueError(f"{text!r}: {error}") from None
    return text


def _box(value: object) -> tuple[float, float, float, float]:
    rule = "must be [x, y, width, height] with x, y >= 0 and width, height > 0"
    if not isinstance(value, list) or len(value) != 4:
        raise ValueError(f"{rule}, not {value!r}")
    for number in value:
        if isinstance(number, bool) or not isinstance(number, int | float) or not math.isfinite(number):
            raise ValueError(f"{rule}, not {value!r}")
    x, y, width, height = value
    if min(x, y) < 0 or min(width, height) <= 0:
        raise ValueError(f"{rule}, not {value!r}")
    return x, y, width, height


def _split(value: object) -> str:
    if not isinstance(value, str) or value not in SPLITS:
        raise ValueError(f"unknown split {value!r}; allowed: {', '.join(SPLITS)}")
    return value


def _tags(value: object) -> tuple[str, ...]:
    if not isinstance(value, list) or not all(isinstance(tag, str) and tag for tag in value):
        raise ValueError("must be a list of non-empty strings")
    if len(set(value)) < len(value):
        raise ValueError("a tag is given twice")
    return tuple(value)


_READERS: dict[str, Callable[[Any], Any]] = {
    "image": _image,
    "captions": _captions,
    "identity": _identity,
    "camera": _words,
    "time": _time,
    "box": _box,
    "split": _split,
    "tags": _tags,
}
