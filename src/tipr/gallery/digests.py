"""The digests of a gallery's files, by which damage on disk is told: Lance keeps no checksum of what it stores.

GALLERY/digests.jsonl, one line a commit: a checksum of the line, a blank, and {file: [bytes, SHA-256]}; null is a file
that goes. The files of a table never change, so a digest is written once, when the file is new. The small files beside
the table are replaced in one step, and their next digest is written before: after a kill the old one or the new one
holds.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from tipr.errors import GalleryError

NAME = "digests.jsonl"
CHANGING = frozenset({"people.lance/_versions/latest_version_hint.json"})
"""A hint that Lance rewrites at every commit and does not rely on."""

Digest = tuple[int, str]
"""Bytes, and SHA-256 in hex."""


@dataclass(frozen=True, slots=True)
class Ledger:
    """What `digests.jsonl` says.

    Attributes:
        digests: file, relative to the gallery -> its digest; for a small file also the one before (None: no file).
        bad_lines: numbers of lines that are damaged, from 1. A last line that was cut off by a kill is not counted.
        torn: the file does not end with a whole line.
    """

    digests: Mapping[str, tuple[Digest | None, ...]]
    bad_lines: tuple[int, ...] = ()
    torn: bool = False

    @classmethod
    def read(cls, folder: Path) -> Ledger:
        """Of a gallery's folder; empty where there is none.

        Raises:
            GalleryError: the file cannot be read.
        """
        try:
            data = (folder / NAME).read_bytes()
        except FileNotFoundError:
            return cls({})
        except OSError as error:
            raise GalleryError(f"cannot read {folder / NAME}: {error.strerror or error}") from None
        digests: dict[str, tuple[Digest | None, ...]] = {}
        bad = []
        *lines, rest = data.split(b"\n")
        for number, line in enumerate(lines, 1):
            check, _, text = line.partition(b" ")
            if check != _checksum(text):
                bad.append(number)
                continue
            for name, value in json.loads(text).items():
                digest = None if value is None else (int(value[0]), str(value[1]))
                before = digests.get(name, ())[-1:] if "/" not in name else ()
                digests[name] = (*before, digest)
        return cls(digests, tuple(bad), bool(rest))


def note(folder: Path, digests: Mapping[str, Digest | None], *, sync: bool = True) -> None:
    """Add one line.

    Args:
        folder: of the gallery; the caller is its only writer.
        digests: file, relative to `folder` -> digest; None for one that goes.
        sync: have it on disk when this returns.

    Raises:
        OSError: the line cannot be written.
    """
    new = not (folder / NAME).exists()
    line = _line(digests)
    handle = os.open(folder / NAME, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
    try:
        size = os.fstat(handle).st_size
        if size and os.pread(handle, 1, size - 1) != b"\n":  # a kill or a full disk cut the last line off
            line = b"\n" + line
        if (written := os.write(handle, line)) != len(line):
            raise OSError(28, f"only {written} of {len(line)} bytes were written")
        if sync:
            os.fsync(handle)
    finally:
        os.close(handle)
    if new and sync:
        _sync_folder(folder)


def prune(folder: Path, gone: Iterable[str]) -> None:
    """Forget files, and damaged lines with them; in one step.

    Raises:
        OSError: the new file cannot be written; the old one stays.
    """
    left = {name: known for name, known in Ledger.read(folder).digests.items() if name not in frozenset(gone)}
    small = {name: known[0] for name, known in left.items() if len(known) > 1}
    draft = folder / f".{NAME}.draft"
    with draft.open("wb") as file:
        file.write(_line(small) if small else b"")
        file.write(_line({name: known[-1] for name, known in left.items()}))
        file.flush()
        os.fsync(file.fileno())
    os.replace(draft, folder / NAME)
    _sync_folder(folder)


def digest_of(path: Path | str) -> Digest:
    """Bytes and SHA-256 of a file.

    Raises:
        OSError: it cannot be read.
    """
    with open(path, "rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        return file.tell(), digest


def digest_of_bytes(data: bytes) -> Digest:
    """The same for what will be a file."""
    return len(data), hashlib.sha256(data).hexdigest()


def _line(digests: Mapping[str, Digest | None]) -> bytes:
    text = json.dumps(digests, ensure_ascii=False, separators=(",", ":")).encode()
    return _checksum(text) + b" " + text + b"\n"


def _checksum(text: bytes) -> bytes:
    return hashlib.sha256(text).hexdigest()[:16].encode()


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
