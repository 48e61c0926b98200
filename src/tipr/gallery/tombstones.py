"""Marks of erased pictures, which keep the same files from coming back and tell nothing about them.

A mark is BLAKE2b of a picture's SHA-256, keyed with a secret that each gallery draws for itself: without the file in
hand nobody can tell from a mark what was erased, nor whether two galleries erased the same.

A file may show several people, each in a box of its own, so there are three kinds of marks:

file    all rows of the file are erased: nothing of it may come back
frame   some of its rows stay: the file as a whole picture may not come back
box     this box of it may not come back
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from tipr.errors import GalleryCorrupt
from tipr.gallery.durable import read_json, write_json
from tipr.gallery.stores import Box

NAME = "erased.json"
FORMAT = 1

Buried = Callable[[str, Box | None], bool]
"""SHA-256 and box -> whether that picture was erased and must stay away."""


class Tombstones:
    """The marks of one gallery; made by `read`.

    Attributes:
        marks: hex digests.
    """

    def __init__(self, folder: Path, secret: bytes, marks: frozenset[str]) -> None:
        self._folder, self._secret, self.marks = folder, secret, marks

    @classmethod
    def read(cls, folder: Path) -> Tombstones:
        """The marks below a gallery's folder; none, and a secret that is not written yet, where nothing was erased.

        Raises:
            GalleryCorrupt: the file is damaged; without it erased pictures could come back.
        """
        tree = read_json(folder / NAME)
        if tree is None:
            return cls(folder, secrets.token_bytes(32), frozenset())
        try:
            secret, marks = bytes.fromhex(tree["secret"]), tree["marks"]
            valid = tree["format"] == FORMAT and len(secret) == 32 and all(isinstance(mark, str) for mark in marks)
        except (KeyError, TypeError, ValueError):
            valid = False
        if not valid:
            raise GalleryCorrupt(folder, f"{NAME} holds values of the wrong kind")
        return cls(folder, secret, frozenset(marks))

    def __len__(self) -> int:
        return len(self.marks)

    @property
    def gallery(self) -> str:
        """16 hex digits by which certificates name the gallery; they tell nothing else."""
        return self._keyed("gallery")[:16]

    def buried(self, sha256: str, box: Box | None) -> bool:
        """Whether a picture was erased and must stay away."""
        if not self.marks:
            return False
        kinds = ("file", "frame") if box is None else ("file", "box")
        return any(self._mark(kind, sha256, box) in self.marks for kind in kinds)

    def of(self, erased: Iterable[tuple[str, Box | None]], staying: Iterable[str]) -> frozenset[str]:
        """The marks for some rows.

        Args:
            erased: SHA-256 and box of the rows to erase.
            staying: SHA-256 of the rows that stay.
        """
        left = frozenset(staying)
        marks = set()
        for sha256, box in erased:
            if sha256 not in left:
                marks.add(self._mark("file", sha256, None))
            else:
                marks.add(self._mark("frame", sha256, None))
                if box is not None:
                    marks.add(self._mark("box", sha256, box))
        return frozenset(marks)

    def keep(self, marks: Iterable[str] = ()) -> Tombstones:
        """Write these marks beside the ones that stand there, and return all; in order of size, which tells no time."""
        every = self.marks | frozenset(marks)
        tree: dict[str, Any] = {"format": FORMAT, "secret": self._secret.hex(), "marks": sorted(every)}
        write_json(self._folder / NAME, tree, indent=0)
        return Tombstones(self._folder, self._secret, every)

    def with_more(self, marks: Iterable[str]) -> Tombstones:
        """These marks and others of the same gallery; nothing is written."""
        return Tombstones(self._folder, self._secret, self.marks | frozenset(marks))

    def take_over(self, other: Tombstones) -> bool:
        """Keep another gallery's marks beside these; not where these are keyed with a secret of their own.

        A backup has the secret of its gallery, or none when it was made before the first erasure.
        """
        if self.marks and self._secret != other._secret:
            return False
        if not other.marks <= self.marks:
            Tombstones(self._folder, other._secret, self.marks).keep(other.marks)
        return True

    def _mark(self, kind: str, sha256: str, box: Box | None) -> str:
        place = "" if kind != "box" or box is None else ",".join(str(float(value)) for value in box)
        return self._keyed(f"{kind}:{sha256}:{place}")

    def _keyed(self, text: str) -> str:
        return hashlib.blake2b(text.encode(), key=self._secret, digest_size=24, person=b"tipr-tombstone").hexdigest()
