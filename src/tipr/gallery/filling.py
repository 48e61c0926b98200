"""Filling a gallery: pictures wait for the encoder, rows wait for a commit, and everything is counted."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tipr.gallery.ingest import IngestReport, Outcome, Prepared, Refused, Skipped, Unchanged
from tipr.gallery.stores import Box, Row

ENCODE_BATCH = 64
"""Pictures encoded in one pass."""
COMMIT_ROWS = 256
"""Rows after which a commit is due."""
COMMIT_SECONDS = 10.0
"""Time after which a commit is due, so that a slow model loses no more than this when it is stopped."""

Content = tuple[str, Box | None]
"""SHA-256 and box: what makes a picture equal to another one."""

Progress = Callable[[int, int], None]
"""Called with (done, total) pictures."""


class Filling:
    """The state of one `Gallery.add`.

    Args:
        encode: pictures -> (n, D) float32 unit rows, and (n, T, W) float16 image tokens where they are kept.
        append: commits rows, and returns the id of the first.
        row_of: content -> a row that has it already; committed rows are added.
        stored: rows by their ids.
        total: pictures to come, for `progress`.
        progress: called after every picture.
    """

    def __init__(
        self,
        encode: Callable[[list[Any]], tuple[NDArray[np.float32], NDArray[np.float16] | None]],
        append: Callable[[Sequence[Row]], int],
        *,
        row_of: dict[Content, int],
        stored: Callable[[Sequence[int]], list[Row]],
        total: int,
        progress: Progress | None,
    ) -> None:
        self._encode, self._append, self._total, self._progress = encode, append, total, progress
        self._row_of, self._stored = row_of, stored
        self.added = self.unchanged = self.refused = self.wide = self.shared = 0
        self.skipped: list[Skipped] = []
        self.stale: set[int] = set()
        self._seen: set[Any] = set()
        self._waiting: list[Prepared] = []
        self._rows: list[Row] = []
        self._committed = time.monotonic()

    def take(self, outcome: Outcome) -> None:
        """Count one outcome; encode and commit when enough has gathered."""
        if isinstance(outcome, Skipped):
            self.skipped.append(outcome)
        elif isinstance(outcome, Unchanged):
            self.unchanged += 1
            self.stale.update(outcome.stale)
        elif isinstance(outcome, Refused):
            self.refused += 1
            self.stale.update(outcome.stale)
        elif (outcome.path, outcome.entry.box) in self._seen:  # named twice in one call
            self.unchanged += 1
        else:
            self._seen.add((outcome.path, outcome.entry.box))
            self._waiting.append(outcome)
            if len(self._waiting) >= ENCODE_BATCH:
                self.encode()
        self._tell()

    def encode(self) -> None:
        """Turn the waiting pictures into rows."""
        batch, self._waiting = self._waiting, []
        if batch:
            self._rows.extend(self._made(batch))
            self.stale.update(i for item in batch for i in item.stale)
            self.wide += sum(item.wide for item in batch)
            if len(self._rows) >= COMMIT_ROWS or time.monotonic() - self._committed >= COMMIT_SECONDS:
                self.commit()
        self._tell()

    def _made(self, batch: Sequence[Prepared]) -> Iterator[Row]:
        """Rows of a batch, in its order; only content that no row has yet is encoded."""
        made = {(row.sha256, row.box): row for row in self._rows}
        contents = [(item.sha256, item.entry.box) for item in batch]
        there = {key: self._row_of[key] for key in contents if key in self._row_of and key not in made}
        made.update(zip(there, self._stored(list(there.values())), strict=True))
        new = {key: item for key, item in zip(contents, batch, strict=True) if key not in made}
        if new:
            vectors, tokens = self._encode([item.picture for item in new.values()])
            kept = [None] * len(new) if tokens is None else tokens
            made.update(zip(new, map(_row, new.values(), vectors.astype(np.float16), kept), strict=True))
        self.shared += len(batch) - len(new)
        for key, item in zip(contents, batch, strict=True):
            same = made[key]
            yield _row(item, same.vector, same.tokens, same.thumbnail)

    def commit(self) -> None:
        """Make the rows durable."""
        rows, self._rows = self._rows, []  # taken first: when stopped half-way, they must not be committed again
        if rows:
            first = self._append(rows)
            self.added += len(rows)
            for place, row in enumerate(rows):
                self._row_of.setdefault((row.sha256, row.box), first + place)
        self._committed = time.monotonic()

    def report(self) -> IngestReport:
        """What was done so far."""
        return IngestReport(
            added=self.added,
            unchanged=self.unchanged,
            skipped=tuple(self.skipped),
            wide_images=self.wide,
            replaced=len(self.stale),
            refused=self.refused,
            shared=self.shared,
        )

    def _tell(self) -> None:
        if self._progress is not None:
            passed_over = self.unchanged + self.refused + len(self.skipped)
            self._progress(self.added + len(self._rows) + passed_over, self._total)


def _row(
    item: Prepared, vector: NDArray[np.float16], tokens: NDArray[np.float16] | None, thumbnail: bytes | None = None
) -> Row:
    entry = item.entry
    return Row(
        path=item.path,
        sha256=item.sha256,
        vector=vector,
        thumbnail=item.thumbnail if thumbnail is None else thumbnail,
        width=item.width,
        height=item.height,
        camera=entry.camera,
        time=entry.time,
        box=entry.box,
        identity=entry.identity,
        tags=entry.tags,
        tokens=tokens,
        indexed=item.indexed,
    )
