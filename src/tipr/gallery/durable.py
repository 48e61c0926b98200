"""Small files of a gallery that are there whole, or not at all, after a kill or a power cut."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from tipr.errors import GalleryCorrupt, GalleryError
from tipr.gallery import digests


def write_json(path: Path, value: Any, *, indent: int | None = 2) -> None:
    """Write a value in one step, on disk when this returns: a reader sees the old file or the new one.

    Raises:
        GalleryError: the file cannot be written.
    """
    write_text(path, json.dumps(value, indent=indent, ensure_ascii=False) + "\n")


def write_text(path: Path, text: str) -> None:
    """The same for a text.

    Raises:
        GalleryError: the file cannot be written.
    """
    draft = path.with_name(f".{path.name}.draft")
    try:
        digests.note(path.parent, {path.name: digests.digest_of_bytes(text.encode("utf-8"))})
        with draft.open("w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(draft, path)
        sync_folder(path.parent)
    except OSError as error:
        raise GalleryError(f"cannot write to gallery {path.parent}: {error.strerror or error}") from None


def read_json(path: Path) -> Any:
    """The value in a file of a gallery; None when there is no such file.

    Raises:
        GalleryCorrupt: the file cannot be read.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, RecursionError) as error:
        raise GalleryCorrupt(path.parent, f"{path.name} cannot be read ({type(error).__name__})") from None


def remove(path: Path) -> None:
    """Take a file away, for good when this returns; nothing happens when it is not there.

    Raises:
        GalleryError: it cannot be removed.
    """
    try:
        digests.note(path.parent, {path.name: None})
        path.unlink(missing_ok=True)
        sync_folder(path.parent)
    except OSError as error:
        raise GalleryError(f"cannot write to gallery {path.parent}: {error.strerror or error}") from None


def sync_folder(folder: Path) -> None:
    """Force the names in a folder to disk."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
