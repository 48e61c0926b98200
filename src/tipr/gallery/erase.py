"""Erasing people from a gallery so that no byte of them stays, that a kill cannot stop half-way, and that proves it.

The order makes a restart safe. `Erasure.decide` writes `erasing.json`, with row ids and marks only; from then on the
erasure happens, by this process or by the next one that writes. `Erasure.carry_out` can be repeated from any point:
tombstones, rows with all that hangs on them, `reports/` and `cache/`, the certificate, and last `erasing.json` itself.
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import secrets
from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tipr.errors import GalleryCorrupt, GalleryError
from tipr.gallery import durable
from tipr.gallery.info import PENDING
from tipr.gallery.reader import Reader
from tipr.gallery.stores import Store
from tipr.gallery.tombstones import Tombstones

CERTIFICATES = "certificates.jsonl"
DERIVED = ("reports", "cache", "set_aside")
"""Folders below a gallery with what can be made again from its rows, and with files that nobody can read. An erasure
empties them: neither a page of pictures nor a damaged file tells whom it shows."""
REASONS = ("identity", "like", "where", "erased_in", "retention", "remove", "replaced")
"""How the rows of an erasure were chosen; the last two leave no tombstone and no certificate."""


@dataclass(frozen=True, slots=True)
class Certificate:
    """What an erasure did, in counts; it says nothing about who was erased.

    Attributes:
        erasure: random name of the erasure.
        gallery: name of the gallery, 16 hex digits that tell nothing else.
        chosen_by: one of `REASONS`, without the value.
        started, finished: RFC 3339, UTC.
        pictures: rows erased, with vector, thumbnail, metadata and image tokens.
        files: different file contents among them.
        on_hold: rows that were chosen and left, because of a legal hold.
        tombstones: marks that keep the files away.
        derived_files: files of `DERIVED` folders removed.
        left: rows that the gallery still holds.
        version_before, version: of the table; no other version of it is left.
        tipr, store: versions of the software.
    """

    erasure: str
    gallery: str
    chosen_by: str
    started: str
    finished: str
    pictures: int
    files: int
    on_hold: int
    tombstones: int
    derived_files: int
    left: int
    version_before: int
    version: int
    tipr: str
    store: str


@dataclass(frozen=True, slots=True)
class Erasure:
    """A decided erasure, as `erasing.json` holds it: no value of it describes a person.

    Attributes:
        ids: rows to erase.
        marks: tombstones to leave.
        facts: what the certificate repeats.
    """

    ids: tuple[int, ...]
    marks: tuple[str, ...]
    facts: dict[str, Any]

    @classmethod
    def decide(cls, folder: Path, reader: Reader, ids: Collection[int], chosen_by: str, *, on_hold: int = 0) -> Erasure:
        """Note what is to be erased; it will be, whatever happens to this process.

        Args:
            folder: of the gallery; the caller holds its lock.
            reader: at the newest version.
            ids: rows that are there.
            chosen_by: one of `REASONS`.
            on_hold: rows that were chosen and are left.
        """
        chosen = frozenset(ids)
        columns = reader.columns(("sha256", "box"))
        rows = list(zip(reader.ids().tolist(), *columns.values(), strict=True))
        going = [(sha256, box) for row, sha256, box in rows if row in chosen]
        tombstones = Tombstones.read(folder)
        marks: frozenset[str] = frozenset()
        if chosen_by not in ("remove", "replaced"):
            tombstones = tombstones.keep()  # the secret, before anything depends on it
            marks = tombstones.of(going, (sha256 for row, sha256, _ in rows if row not in chosen))
        erasure = cls(
            ids=tuple(sorted(chosen)),
            marks=tuple(sorted(marks)),
            facts={
                "erasure": secrets.token_hex(8),
                "gallery": tombstones.gallery,
                "chosen_by": chosen_by,
                "started": _now(),
                "pictures": len(going),
                "files": len({sha256 for sha256, _ in going}),
                "on_hold": on_hold,
                "tombstones": len(marks),
                "derived_files": len(derived_files(folder)),
                "version_before": reader.version,
            },
        )
        durable.write_json(folder / PENDING, asdict(erasure), indent=None)
        return erasure

    @classmethod
    def pending(cls, folder: Path) -> Erasure | None:
        """The erasure that a killed process left behind.

        Raises:
            GalleryCorrupt: the note of it is damaged.
        """
        tree = durable.read_json(folder / PENDING)
        if tree is None:
            return None
        try:
            return cls(tuple(map(int, tree["ids"])), tuple(map(str, tree["marks"])), dict(tree["facts"]))
        except (KeyError, TypeError, ValueError):
            raise GalleryCorrupt(folder, f"{PENDING} holds values of the wrong kind") from None

    def carry_out(self, folder: Path, store: Store, reader: Reader) -> Certificate:
        """Do it, or what is left of it; the caller holds the gallery's lock.

        Raises:
            GalleryError: something cannot be written, or the store did not let go of the rows; `erasing.json` stays,
                and the next process that writes tries again.
        """
        if self.marks:
            Tombstones.read(folder).keep(self.marks)
        there = frozenset(reader.ids().tolist())
        if rows := [row for row in self.ids if row in there]:
            store.erase(rows)
        else:  # deleted before the kill, but perhaps not yet out of the files
            store.purge()
        if self.facts["chosen_by"] != "replaced":  # a file with new content is no reason to throw pages away
            remove_derived(folder)
        reader.refresh()
        pieces = store.pieces()
        if pieces.versions != 1 or pieces.deleted_rows:
            raise GalleryError(f"gallery {folder}: its store still holds files of erased rows; try again")
        certificate = Certificate(
            **self.facts,
            finished=_now(),
            left=len(reader.ids()),
            version=reader.version,
            tipr=importlib.metadata.version("tipr"),
            store=store.engine,
        )
        if self.facts["chosen_by"] not in ("remove", "replaced"):
            _file_certificate(folder, certificate)
        durable.remove(folder / PENDING)
        return certificate


def read_certificates(folder: Path) -> list[Certificate]:
    """The certificates of a gallery, oldest first.

    Raises:
        GalleryCorrupt: their file is damaged.
    """
    try:
        lines = (folder / CERTIFICATES).read_text(encoding="utf-8").splitlines()
        return [Certificate(**json.loads(line)) for line in lines]
    except FileNotFoundError:
        return []
    except (OSError, ValueError, TypeError):
        raise GalleryCorrupt(folder, f"{CERTIFICATES} cannot be read") from None


def derived_files(folder: Path) -> list[Path]:
    """The files of `DERIVED` folders; links to elsewhere are not followed."""
    return [
        Path(place, name)
        for derived in DERIVED
        for place, folders, names in os.walk(folder / derived)
        for name in (*names, *(name for name in folders if os.path.islink(os.path.join(place, name))))
    ]


def remove_derived(folder: Path) -> None:
    """Remove the `DERIVED` folders; of a link the link alone."""
    try:
        for derived in DERIVED:
            top = folder / derived
            if top.is_symlink():
                top.unlink()
            for place, folders, names in os.walk(top, topdown=False):
                for name in names:
                    os.unlink(os.path.join(place, name))
                for name in folders:
                    path = os.path.join(place, name)
                    os.unlink(path) if os.path.islink(path) else os.rmdir(path)
            if top.is_dir():
                top.rmdir()
        durable.sync_folder(folder)
    except OSError as error:
        raise GalleryError(f"cannot remove {error.filename or folder}: {error.strerror or error}") from None


def _file_certificate(folder: Path, certificate: Certificate) -> None:
    """Add it to the others, once, also when an erasure is finished a second time."""
    others = [other for other in read_certificates(folder) if other.erasure != certificate.erasure]
    lines = [json.dumps(asdict(item)) for item in (*others, certificate)]
    durable.write_text(folder / CERTIFICATES, "\n".join(lines) + "\n")


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


def ids_of(rows: Sequence[int | Path | str], reader: Reader, folder: Path) -> list[int]:
    """The ids of rows that a caller names by id, or by the path of the file they were made from.

    Raises:
        GalleryError: one of them is not in the gallery.
    """
    ids = reader.ids()
    known = frozenset(ids.tolist())
    files = {os.path.realpath(row) for row in rows if not isinstance(row, int)}
    paths = reader.columns(("path",))["path"] if files else ()
    of_file: dict[str, list[int]] = {}
    for number, path in zip(ids.tolist(), paths, strict=False):
        if path in files:
            of_file.setdefault(path, []).append(number)
    wanted: set[int] = set()
    for row in rows:
        one = [row] if isinstance(row, int) and row in known else []
        found = one if isinstance(row, int) else of_file.get(os.path.realpath(row), [])
        if not found:
            what = f"row {row}" if isinstance(row, int) else str(row)
            raise GalleryError(f"{what} is not in gallery {folder}: nothing was removed")
        wanted.update(found)
    return sorted(wanted)
