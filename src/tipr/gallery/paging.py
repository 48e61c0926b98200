"""Pages of one search that stay consistent while others write.

A cursor names the last row that was shown, by score and id, and the newest row that was there when the first page was
made. A row's score never changes and ids only rise, so the next page is what stood behind that row then: no row comes
twice, none is left out, later rows do not push in, and what was erased meanwhile is simply missing. Nothing is kept
open on disk for it.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import struct
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tipr.errors import ConfigError
from tipr.gallery.filters import Filters

FORM = struct.Struct("<BqqqfQ")
VERSION = 1


@dataclass(frozen=True, slots=True)
class Cursor:
    """Where the next page starts.

    Attributes:
        seen: rows shown so far.
        newest: highest id that takes part.
        id, score: of the last row shown.
        search: `fingerprint` of the search that it belongs to.
    """

    seen: int
    newest: int
    id: int
    score: float
    search: int

    def __str__(self) -> str:
        packed = FORM.pack(VERSION, self.seen, self.newest, self.id, self.score, self.search)
        return base64.urlsafe_b64encode(packed).decode().rstrip("=")

    @classmethod
    def read(cls, text: str, search: int) -> Cursor:
        """The cursor that `str` wrote.

        Raises:
            ConfigError: it is none, or belongs to another search.
        """
        try:
            packed = base64.b64decode(text.encode() + b"=" * (-len(text) % 4), altchars=b"-_", validate=True)
            version, seen, newest, last, score, belongs = FORM.unpack(packed)
        except (binascii.Error, struct.error, ValueError):
            raise ConfigError("after: this is not a cursor; use the one that the page before gave") from None
        if version != VERSION or seen < 1 or newest < 0 or not np.isfinite(score):
            raise ConfigError("after: this is not a cursor; use the one that the page before gave")
        if belongs != search:
            raise ConfigError("after: this cursor belongs to another query, other filters or another gallery")
        return cls(seen, newest, last, score, belongs)

    def follows(self, scores: NDArray[np.float32], ids: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Which rows stand behind the last one shown; (n,) scores and ids."""
        last = np.float32(self.score)
        return np.asarray((scores < last) | ((scores == last) & (ids > self.id)))


def fingerprint(query: NDArray[np.float32], filters: Filters, group_by: str | None, gallery: str) -> int:
    """What a cursor belongs to: 64 bits of the query's vector, the filters, the grouping and the gallery."""
    digest = hashlib.sha256(query.tobytes())
    digest.update(repr((filters, group_by, gallery)).encode("utf-8", "surrogatepass"))
    return int.from_bytes(digest.digest()[:8], "little")
