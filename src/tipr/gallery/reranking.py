"""The second stage of a search in a gallery: match scores of a shortlist, from kept tokens or from the pictures."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from tipr.gallery.filling import ENCODE_BATCH, Progress
from tipr.gallery.ingest import Entry, Outcome, Prepared, Shrink, prepare_all
from tipr.gallery.search import Matched

if TYPE_CHECKING:
    from PIL.Image import Image

    from tipr.retrieval import Reranker

Tokens = Callable[[NDArray[np.int64]], NDArray[np.float16]]
"""Positions of rows -> (n, T, W) float16 image tokens."""


def match(
    reranker: Reranker, query: str, shortlist: NDArray[np.int64], tokens: Tokens, progress: Progress | None = None
) -> Matched:
    """Score a shortlist, block by block, so that its tokens are never in memory together.

    Args:
        reranker: of the gallery's model.
        query: words.
        shortlist: (k,) int64 rows, rising.
        tokens: where their image tokens come from.
        progress: called with (pictures scored, k) after every block.
    """

    def blocks() -> Iterator[NDArray[np.float16]]:
        for start in range(0, len(shortlist), reranker.block):
            part = shortlist[start : start + reranker.block]
            yield tokens(part)
            if progress is not None:
                progress(start + len(part), len(shortlist))

    return Matched(shortlist, reranker.score_blocks(query, blocks()))


@dataclass
class PicturesAgain:
    """Image tokens of rows whose gallery keeps none: their files are read and encoded once more.

    A file that is gone, or holds something else than when it was added, is not what the row stands for: the row's own
    thumbnail is encoded in its place, and the row is listed.

    Attributes:
        columns: `NEEDED`, each (N,).
        thumbnails: positions of rows -> JPEG bytes.
        shrink: makes what the encoder takes.
        encode: RGB images -> (n, T, W) float16.
        missing: (path, reason) of rows that were not found.
    """

    NEEDED: ClassVar[tuple[str, ...]] = ("path", "box", "sha256")

    columns: Mapping[str, NDArray[Any]]
    thumbnails: Callable[[Sequence[int]], list[bytes]]
    shrink: Shrink
    encode: Callable[[list[Image]], NDArray[np.float16]]
    missing: list[tuple[str, str]] = field(default_factory=list)

    def tokens(self, rows: NDArray[np.int64]) -> NDArray[np.float16]:
        """(n, T, W) float16 of some rows."""
        entries = [Entry(self.columns["path"][row], self.columns["box"][row]) for row in rows]
        parts = []
        waiting: list[Image] = []
        for row, outcome in zip(rows.tolist(), prepare_all(entries, {}, self.shrink), strict=True):
            waiting.append(self._picture(row, outcome))
            if len(waiting) == ENCODE_BATCH:
                parts.append(self.encode(waiting))
                waiting = []
        if waiting:
            parts.append(self.encode(waiting))
        return np.concatenate(parts)

    def note(self) -> str | None:
        """What was not found, in one sentence."""
        if not self.missing:
            return None
        path, reason = self.missing[0]
        return (
            f"{len(self.missing):,} of the pictures to rerank are not as they were when added, first {path} "
            f"({reason}): their small kept thumbnails were reranked instead"
        )

    def _picture(self, row: int, outcome: Outcome) -> Image:
        if isinstance(outcome, Prepared) and outcome.sha256 == self.columns["sha256"][row]:
            return outcome.picture
        reason = "the file has changed" if isinstance(outcome, Prepared) else getattr(outcome, "reason", "unreadable")
        self.missing.append((str(self.columns["path"][row]), reason))
        from PIL import Image as images

        return self.shrink(images.open(io.BytesIO(self.thumbnails([row])[0])).convert("RGB"))
