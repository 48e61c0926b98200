"""Which rows an erasure or a retention limit would take; to be looked at before anything is erased.

Exact copies of a chosen picture under other paths are chosen with it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tipr.gallery.bands import BandLimits, band
from tipr.gallery.conditions import matching, same_person
from tipr.gallery.filters import Filters
from tipr.gallery.holds import Hold
from tipr.gallery.info import utc
from tipr.gallery.reader import Reader
from tipr.gallery.tombstones import Tombstones
from tipr.metrics.ranking import stable_similarity, top_k

SHOWN = ("path", "camera", "time", "identity", "tags")


@dataclass(frozen=True, slots=True)
class Candidate:
    """One row that may be erased, as it is to be shown.

    Attributes:
        similarity: cosine with the picture it was chosen by, if it was chosen by one.
        band: a key of `tipr.gallery.bands.BAND_NAMES`, with the similarity.
        hold: name of the legal hold that keeps it.
    """

    id: int
    path: str
    camera: str | None
    time: datetime | None
    identity: int | str | None
    tags: tuple[str, ...]
    similarity: float | None = None
    band: str | None = None
    hold: str | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Candidates:
    """Rows that would be erased, at one version of a gallery.

    Attributes:
        chosen_by: one of `tipr.gallery.erase.REASONS`.
        ids: (n,) int64, rising, or best first where they were chosen by a picture; exact copies stand last.
        columns: `SHOWN`, each (n,).
        held: row -> name of the hold that keeps it; these are left.
        similarity: (n,) float32, where they were chosen by a picture.
        bands: n keys of `tipr.gallery.bands.BAND_NAMES`, where they were chosen by a picture.
        from_indexing: how many have no time, or one after their indexing, so that their age counts from indexing.
        marks: of the other gallery that they were erased from, if they were chosen by them.
    """

    chosen_by: str
    ids: NDArray[np.int64]
    columns: Mapping[str, NDArray[Any]]
    held: Mapping[int, str]
    similarity: NDArray[np.float32] | None = None
    bands: tuple[str, ...] | None = None
    from_indexing: int = 0
    marks: Tombstones | None = None

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def free(self) -> list[int]:
        """The rows that no hold keeps."""
        return [row for row in self.ids.tolist() if row not in self.held]

    def without(self, rows: Collection[int]) -> Candidates:
        """All but some rows, which a person found to be somebody else's."""
        keep = ~np.isin(self.ids, np.array(sorted(rows), dtype=np.int64))
        return replace(
            self,
            ids=self.ids[keep],
            columns={name: column[keep] for name, column in self.columns.items()},
            similarity=None if self.similarity is None else self.similarity[keep],
            bands=None if self.bands is None else tuple(np.array(self.bands)[keep].tolist()),
        )

    def __iter__(self) -> Iterator[Candidate]:
        for place, row in enumerate(self.ids.tolist()):
            values = {name: column[place] for name, column in self.columns.items()}
            taken = values["time"]
            values["time"] = None if np.isnat(taken) else utc(taken)
            similarity = None if self.similarity is None else float(self.similarity[place])
            found = None if self.bands is None else self.bands[place]
            yield Candidate(row, **values, similarity=similarity, band=found, hold=self.held.get(row))


def by_identity(reader: Reader, holds: Sequence[Hold], identity: int | str) -> Candidates:
    """The rows of one person, where identities are known; see `same_person`."""
    shown = matching(reader.columns(("identity",))["identity"], same_person([identity]))
    return _candidates("identity", reader, holds, _with_copies(reader, np.flatnonzero(shown)))


def by_filters(reader: Reader, holds: Sequence[Hold], filters: Filters) -> Candidates:
    """The rows that pass filters."""
    return _candidates("where", reader, holds, _with_copies(reader, np.flatnonzero(_passing(reader, filters))))


def by_tombstones(reader: Reader, holds: Sequence[Hold], marks: Tombstones) -> Candidates:
    """The rows that the marks of another gallery bury, such as the one that a restored backup was made of."""
    columns = reader.columns(("sha256", "box"))
    places = [place for place, picture in enumerate(zip(*columns.values(), strict=True)) if marks.buried(*picture)]
    return replace(_candidates("erased_in", reader, holds, np.array(places, dtype=np.int64)), marks=marks)


def by_picture(
    reader: Reader,
    holds: Sequence[Hold],
    vector: NDArray[np.float32],
    sha256: str,
    *,
    limits: BandLimits,
    at_least: float | None,
    top: int,
) -> Candidates:
    """The rows of the same file, and the rows that look like it.

    Args:
        reader: of the gallery.
        holds: of the gallery.
        vector: (D,) of the picture.
        sha256: of the picture's file.
        limits: the bands of the picture in this gallery.
        at_least: least similarity; by default the one from which a row stands out.
        top: how many rows at most, besides those of the same file.
    """
    same = np.flatnonzero(matching(reader.columns(("sha256",))["sha256"], lambda digest: digest == sha256))
    if at_least is None:
        at_least = limits.stands_out if limits.stands_out > limits.similar else np.inf
    (best,) = reader.scan().best(vector[None], top + len(same))
    alike = best.positions[(best.scores >= at_least) & ~np.isin(best.positions, same)][:top]
    chosen = np.sort(np.concatenate([same, alike]))
    chosen = chosen[top_k(_similarity(reader, chosen, vector), len(chosen))]
    chosen = _with_copies(reader, chosen)
    similarity = _similarity(reader, chosen, vector)
    bands = tuple(band(score, limits) for score in similarity.tolist())
    return replace(_candidates("like", reader, holds, chosen), similarity=similarity, bands=bands)


def _similarity(reader: Reader, places: NDArray[np.int64], vector: NDArray[np.float32]) -> NDArray[np.float32]:
    rows = reader.rows(reader.ids()[places], ("vector",))["vector"] if len(places) else np.empty((0, len(vector)))
    return stable_similarity(vector, rows)


def by_age(
    reader: Reader, holds: Sequence[Hold], older_than: timedelta, filters: Filters, *, now: datetime | None = None
) -> Candidates:
    """The rows whose picture was taken longer ago than a limit.

    The age of a row without a time counts from its indexing. So does that of a time after its indexing, which a wrong
    clock of a camera leaves behind: otherwise such a row would stay for ever.
    """
    columns = reader.columns(("time", "indexed"))
    taken, indexed = columns["time"], columns["indexed"]
    start = np.fmin(taken, indexed)
    limit = np.datetime64(((now or datetime.now(UTC)) - older_than).astimezone(UTC).replace(tzinfo=None), "us")
    places = _with_copies(reader, np.flatnonzero(_passing(reader, filters) & (start < limit)))
    uncertain = np.isnat(taken[places]) | (taken[places] > indexed[places])
    return replace(_candidates("retention", reader, holds, places), from_indexing=int(uncertain.sum()))


def _passing(reader: Reader, filters: Filters) -> NDArray[np.bool_]:
    return filters.mask(reader.columns(filters.columns), len(reader.ids()))


def _with_copies(reader: Reader, places: NDArray[np.int64]) -> NDArray[np.int64]:
    """Some rows, and behind them those of the same file and box under other paths: they show the same."""
    if not len(places):
        return places
    columns = reader.columns(("sha256", "box"))
    pictures = list(zip(columns["sha256"], columns["box"], strict=True))
    chosen = frozenset(places.tolist())
    shown = {pictures[place] for place in chosen}
    copies = [place for place, picture in enumerate(pictures) if picture in shown and place not in chosen]
    return np.concatenate([places, np.array(copies, dtype=np.int64)])


def _candidates(chosen_by: str, reader: Reader, holds: Sequence[Hold], places: NDArray[np.int64]) -> Candidates:
    ids = reader.ids()[places]
    chosen = frozenset(ids.tolist())
    return Candidates(
        chosen_by=chosen_by,
        ids=ids,
        columns={name: column[places] for name, column in reader.columns(SHOWN).items()},
        held={row: hold.name for hold in reversed(holds) for row in hold.ids & chosen},
    )
