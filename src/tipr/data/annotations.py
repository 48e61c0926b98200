"""Annotation files of the benchmarks: JSON lists in several dialects, read into one form; defects are counted."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tipr.data.image_index import clean_path
from tipr.data.problems import Problems
from tipr.errors import DatasetError

PATH_KEYS = ("file_path", "img_path", "image_path", "image", "filename", "file_name")
IDENTITY_KEYS = ("id", "person_id", "pid", "identity", "image_id")
"""`id` goes first: some exports have `image_id` for the image beside it, others `image_id` alone, for the person."""
CAPTION_KEYS = ("captions", "caption", "sentences", "sentence")
SPLIT_NAMES = {
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "dev": "val",
    "test": "test",
    "testing": "test",
}
"""Spellings of the splits, in small letters -> our name."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One record of an annotation file; `split` is None where it does not say."""

    image: str
    identity: int
    split: str | None
    captions: tuple[str, ...]


def read_entries(path: Path, problems: Problems) -> list[Entry]:
    """Read a list of objects with an image path, an id, captions (a list or one string) and perhaps a split.

    The list may be the whole file, stand under `annotations` or `images`, or there may be one under each split's name.
    A record that cannot be used is left out and counted.

    Args:
        path: the JSON file.
        problems: takes what is wrong with single records.

    Raises:
        DatasetError: the file cannot be read, or is not of that form.
    """
    try:
        tree = json.loads(path.read_text(encoding="utf-8-sig"))
    except FileNotFoundError:
        raise DatasetError(f"no annotation file at {path}") from None
    except json.JSONDecodeError as error:
        raise DatasetError(f"{path}:{error.lineno}: not JSON: {error.msg} at column {error.colno}") from None
    except (ValueError, RecursionError) as error:  # not UTF-8; nested without end
        raise DatasetError(f"{path}: not JSON: {error}") from None
    except OSError as error:
        raise DatasetError(f"cannot read {path}: {error.strerror or error}") from None
    entries = []
    position = 0
    for split, records in _lists(path, tree):
        for record in records:
            position += 1
            entry = _entry(record, split, f"{path.name} record {position}", problems)
            if entry is not None:
                entries.append(entry)
    if not position:
        raise DatasetError(f"{path}: no records")
    return entries


def _lists(path: Path, tree: Any) -> list[tuple[str | None, list[Any]]]:
    if isinstance(tree, list):
        return [(None, tree)]
    if isinstance(tree, Mapping):
        for key in ("annotations", "images"):
            if isinstance(tree.get(key), list):
                return [(None, tree[key])]
        parts = [
            (SPLIT_NAMES[key.lower()], value)
            for key, value in tree.items()
            if key.lower() in SPLIT_NAMES and isinstance(value, list)
        ]
        if parts:
            return [*parts]
    raise DatasetError(f"{path}: must be a list of records with file_path, id and captions")


def _entry(record: Any, split: str | None, place: str, problems: Problems) -> Entry | None:
    if not isinstance(record, Mapping):
        problems.add("not_a_record", place)
        return None
    image = _first(record, PATH_KEYS)
    if not isinstance(image, str) or not image:
        problems.add("no_image", place)
        return None
    place = f"{place} ({image if image.isprintable() else repr(image)})"
    cleaned = clean_path(image) if _is_unicode(image) else None
    identity = _identity(_first(record, IDENTITY_KEYS), place, problems)
    captions = _captions(_first(record, CAPTION_KEYS), place, problems)
    if "split" in record:
        split = SPLIT_NAMES.get(str(record["split"]).strip().lower())
        if split is None:
            problems.add("unknown_split", f"{place}: {record['split']!r}")
            return None
    if cleaned is None:
        problems.add("bad_path", place)
    if cleaned is None or identity is None or captions is None:
        return None
    return Entry(cleaned, identity, split, captions)


def _first(record: Mapping[str, Any], keys: tuple[str, ...]) -> Any:
    return next((record[key] for key in keys if key in record), None)


def _identity(value: Any, place: str, problems: Problems) -> int | None:
    if isinstance(value, str) and value.strip().isdecimal():
        problems.add("text_identity", place)
        return int(value)
    if isinstance(value, float) and value.is_integer():  # JSON does not tell 7.0 from 7
        return int(value)
    if isinstance(value, bool) or not isinstance(value, int):
        problems.add("bad_identity", f"{place}: {value!r}")
        return None
    return value


def _captions(value: Any, place: str, problems: Problems) -> tuple[str, ...] | None:
    captions = [value] if isinstance(value, str) else value
    if not isinstance(captions, list) or not captions:
        problems.add("no_captions", place)
        return None
    bad = [caption for caption in captions if not isinstance(caption, str) or not _is_unicode(caption)]
    if bad:
        problems.add("bad_caption", f"{place}: {bad[0]!r}", count=len(bad))
        return None
    return tuple(captions)


def _is_unicode(text: str) -> bool:
    """JSON can spell halves of a surrogate pair, which no file can be written with."""
    return not any("\ud800" <= sign <= "\udfff" for sign in text)
