"""Filling a gallery: pictures wait for the encoder, rows wait for a commit, and everything is counted."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tipr.gallery.ingest import IngestReport, Outcome, Prepared, Refused, Skipped, Unchanged
from tipr.gallery.stores import Row

ENCODE_BATCH = 64
"""Pictures encoded in one pass."""
COMMIT_ROWS = 256
"""Rows after which a commit is due."""
COMMIT_SECONDS = 10.0
"""Time after which a commit is due, so that a slow model loses no more than this when it is stopped."""

Progress = Callable[[int, int], None]
"""Called with (done, total) pictures."""


class Filling:
    """The state of one `Gallery.add`.

    Args:
        encode: pictures -> (n, D) float32 unit rows, and (n, T, W) float16 image tokens where they are kept.
        append: commits rows.
        total: pictures to come, for `progress`.
        progress: called after every picture.
    """

    def __init__(
        self,
        encode: Callable[[list[Any]], tuple[NDArray[np.float32], NDArray[np.float16] | None]],
        append: Callable[[Sequence[Row]], None],
        *,
        total: int,
        progress: Progress | None,
    ) -> None:
        self._encode, self._append, self._total, self._progress = encode, append, total, progress
        self.added = self.unchanged = self.refused = self.wide = 0
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
            vectors, tokens = self._encode([item.picture for item in batch])
            kept = [None] * len(batch) if tokens is None else tokens
            self._rows.extend(map(_row, batch, vectors.astype(np.float16), kept))
            self.stale.update(i for item in batch for i in item.stale)
            self.wide += sum(item.wide for item in batch)
            if len(self._rows) >= COMMIT_ROWS or time.monotonic() - self._committed >= COMMIT_SECONDS:
                self.commit()
        self._tell()

    def commit(self) -> None:
        """Make the rows durable."""
        rows, self._rows = self._rows, []  # taken first: when stopped half-way, they must not be committed again
        if rows:
            self._append(rows)
            self.added += len(rows)
        self._committed = time.monotonic()

    def report(self) -> IngestReport:
        """What was done so far."""
        return IngestReport(self.added, self.unchanged, tuple(self.skipped), self.wide, len(self.stale), self.refused)

    def _tell(self) -> None:
        if self._progress is not None:
            passed_over = self.unchanged + self.refused + len(self.skipped)
            self._progress(self.added + len(self._rows) + passed_over, self._total)


def _row(item: Prepared, vector: NDArray[np.float16], tokens: NDArray[np.float16] | None) -> Row:
    entry = item.entry
    return Row(
        path=item.path,
        sha256=item.sha256,
        vector=vector,
        thumbnail=item.thumbnail,
        width=item.width,
        height=item.height,
        camera=entry.camera,
        time=entry.time,
        box=entry.box,
        identity=entry.identity,
        tags=entry.tags,
        tokens=tokens,
    )
