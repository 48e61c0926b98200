"""The digests of a gallery's files, by which damage on disk is told: Lance keeps no checksum of what it stores.

GALLERY/digests.jsonl, one line a commit: a checksum of the line, a blank, and {"files": {file: [bytes, SHA-256]},
"next_id": n}; null stands for a file that goes, and `next_id` is there after rows were added. The files of a table
never change, so a digest is written once, when the file is new. The small files beside the table are replaced in one
step, and their next digest is written before: after a kill the old one or the new one holds.
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
HINT = "latest_version_hint.json"
"""A file that Lance rewrites at every commit and does not rely on."""

TORN = b"\x18"
"""Ends what a kill or a full disk left of a line (CAN, cancel), once another line follows."""

Digest = tuple[int, str]
"""Bytes, and SHA-256 in hex."""


@dataclass(frozen=True, slots=True)
class Ledger:
    """What `digests.jsonl` says.

    Attributes:
        digests: file, relative to the gallery -> its digest; for a small file also the one before (None: no file).
        next_id: higher than the id of any row that was ever added.
        bad_lines: numbers of lines that are damaged, from 1.
        torn: the last line is not whole, as a kill or a full disk leaves it.
    """

    digests: Mapping[str, tuple[Digest | None, ...]]
    next_id: int = 0
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
        bad, next_id = [], 0
        *lines, rest = data.split(b"\n")
        for number, line in enumerate(lines, 1):
            check, _, text = line.partition(b" ")
            if check != _checksum(text):
                if not line.endswith(TORN):
                    bad.append(number)
                continue
            tree = json.loads(text)
            next_id = max(next_id, tree.get("next_id", 0))
            for name, value in tree["files"].items():
                digest = None if value is None else (int(value[0]), str(value[1]))
                before = digests.get(name, ())[-1:] if "/" not in name else ()
                digests[name] = (*before, digest)
        return cls(digests, next_id, tuple(bad), bool(rest))


def note(folder: Path, digests: Mapping[str, Digest | None], *, next_id: int = 0, sync: bool = True) -> None:
    """Add one line.

    Args:
        folder: of the gallery; the caller is its only writer.
        digests: file, relative to `folder` -> digest; None for one that goes.
        next_id: higher than the id of any row that was ever added; 0 where none was added now.
        sync: have it on disk when this returns.

    Raises:
        OSError: the line cannot be written.
    """
    new = not (folder / NAME).exists()
    line = _line(digests, next_id)
    handle = os.open(folder / NAME, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
    try:
        size = os.fstat(handle).st_size
        if size and os.pread(handle, 1, size - 1) != b"\n":  # a kill or a full disk cut the last line off
            line = TORN + b"\n" + line
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
    ledger = Ledger.read(folder)
    left = {name: known for name, known in ledger.digests.items() if name not in frozenset(gone)}
    small = {name: known[0] for name, known in left.items() if len(known) > 1}
    draft = folder / f".{NAME}.draft"
    with draft.open("wb") as file:
        file.write(_line(small) if small else b"")
        file.write(_line({name: known[-1] for name, known in left.items()}, ledger.next_id))
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


def _line(digests: Mapping[str, Digest | None], next_id: int = 0) -> bytes:
    tree = {"files": digests, **({"next_id": next_id} if next_id else {})}
    text = json.dumps(tree, ensure_ascii=False, separators=(",", ":")).encode()
    return _checksum(text) + b" " + text + b"\n"


def _checksum(text: bytes) -> bytes:
    return hashlib.sha256(text).hexdigest()[:16].encode()


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
