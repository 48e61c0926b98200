"""Storage engines of a gallery: what a row is, what a store can do, and the table of engines.

A new engine is one file with a `Store` and one line in `STORES`; `tests/contract/test_stores.py` runs over all of them.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, ClassVar, Literal, Self

import numpy as np
from numpy.typing import NDArray

Box = tuple[float, float, float, float]
"""(x, y, width, height) in pixels of the upright picture."""

TokenShape = tuple[int, int]
"""(T, W): image tokens of one row, and their width."""

Durability = Literal["process", "power"]
"""What an acknowledged commit survives: the death of the process, or a power cut too (the files are synced first)."""

COLUMNS = ("path", "sha256", "camera", "time", "box", "width", "height", "identity", "tags")
"""What is known of a row besides its id, vector and thumbnail."""


@dataclass(frozen=True, slots=True, eq=False)
class Row:
    """One picture of one person, as it is committed.

    Attributes:
        path: resolved path of the file.
        sha256: hex digest of the file's bytes.
        vector: (D,) float16, about unit length.
        thumbnail: a small JPEG of what was encoded.
        width, height: pixels of what was encoded (the crop when there is a box).
        camera: name of the camera.
        time: aware time of the photograph.
        box: the crop.
        identity: who is shown, where that is known.
        tags: free words; `key=value` makes a column.
        tokens: (T, W) float16 image tokens for reranking, in a store that keeps them.
        indexed: aware time of its indexing; that of the commit when None. Kept as the column `indexed`.
    """

    path: str
    sha256: str
    vector: NDArray[np.float16]
    thumbnail: bytes
    width: int
    height: int
    camera: str | None = None
    time: datetime | None = None
    box: Box | None = None
    identity: int | str | None = None
    tags: tuple[str, ...] = ()
    tokens: NDArray[np.float16] | None = None
    indexed: datetime | None = None


@dataclass(frozen=True, slots=True)
class Pieces:
    """What the rows of a store lie in on disk.

    Attributes:
        fragments: pieces of the newest version.
        versions: versions on disk, the newest among them.
        deleted_rows: rows that the newest version hides and its pieces still hold.
    """

    fragments: int
    versions: int
    deleted_rows: int


@dataclass(frozen=True, slots=True, eq=False)
class Coded:
    """A column of N rows in which values repeat: the different ones, and (N,) int32 `codes`, positions in them."""

    values: list[Any]
    codes: NDArray[np.int32]

    def __getitem__(self, position: int) -> Any:
        return self.values[self.codes[position]]


class Store(ABC):
    """Rows on disk. Reads see the version of the last `refresh`, writes go after the newest one.

    All methods raise `GalleryCorrupt` when what they read is damaged and `GalleryError` when a write fails; what was
    committed before stays.
    """

    name: ClassVar[str]

    @classmethod
    @abstractmethod
    def create(
        cls, folder: Path, dim: int, tokens: TokenShape | None = None, *, durability: Durability = "power"
    ) -> Self:
        """A new empty store of `dim`-wide vectors below an existing folder; with image tokens of one shape, or none."""

    @classmethod
    @abstractmethod
    def open(
        cls, folder: Path, dim: int, tokens: TokenShape | None = None, *, durability: Durability = "power"
    ) -> Self:
        """The store below `folder`, at its newest version; `dim` and `tokens` as it was created."""

    @abstractmethod
    def refresh(self) -> int:
        """Step to the newest version and return its number."""

    @abstractmethod
    def append(self, rows: Sequence[Row], first_id: int) -> None:
        """Commit rows with the ids `first_id`, `first_id` + 1, ... at once: all of them or none."""

    @abstractmethod
    def ids(self) -> NDArray[np.int64]:
        """(N,) int64, rising."""

    @abstractmethod
    def vectors(self) -> NDArray[np.float16]:
        """(N, D) float16, in the order of `ids`."""

    @abstractmethod
    def blocks(self, after: int = -1) -> Iterator[tuple[NDArray[np.int64], NDArray[np.float16]]]:
        """Ids (n,) and vectors (n, D) of all rows with a higher id than `after`, piece by piece, in any order."""

    @abstractmethod
    def coded(self, names: Sequence[str]) -> dict[str, NDArray[Any] | Coded]:
        """As `columns`, for filtering: what `columns` gives as objects comes as the different values and codes."""

    @abstractmethod
    def rows(self, ids: Sequence[int], names: Sequence[str]) -> dict[str, NDArray[Any]]:
        """As `columns`, of some rows, in the order asked for; KeyError for an id that is not there."""

    @abstractmethod
    def index(self) -> None:
        """Build an index for `nearest`, or build it anew. `purge` takes it away: it holds all rows once more."""

    @property
    @abstractmethod
    def indexed(self) -> bool:
        """Whether there is an index."""

    @abstractmethod
    def nearest(self, query: NDArray[np.float32], count: int) -> tuple[NDArray[np.int64], NDArray[np.float16]]:
        """Ids and vectors of at most `count` rows with the largest dot product with a (D,) query, in any order, as far
        as the index finds them; it must be there."""

    @abstractmethod
    def columns(self, names: Sequence[str]) -> dict[str, NDArray[Any]]:
        """Some of `COLUMNS` and `indexed`, each (N,) in the order of `ids`: `time` and `indexed` as datetime64[us] in
        UTC with NaT, `width` and `height` as integers, all others as objects with None."""

    @abstractmethod
    def thumbnails(self, ids: Sequence[int]) -> list[bytes]:
        """The thumbnails of rows, in the order asked for; KeyError for an id that is not there."""

    @abstractmethod
    def tokens(self, ids: Sequence[int]) -> NDArray[np.float16]:
        """(n, T, W) float16 image tokens of rows, in the order asked for; KeyError for an id that is not there.

        Only in a store that was created for tokens; they are read for these rows alone.
        """

    @abstractmethod
    def erase(self, ids: Sequence[int]) -> None:
        """Remove rows, then `purge`."""

    @abstractmethod
    def purge(self) -> None:
        """See that no byte of any removed row stays in any file of the store; the caller is the only writer."""

    @abstractmethod
    def maintain(self) -> None:
        """`compact` once there are many small pieces."""

    @abstractmethod
    def compact(self) -> None:
        """Merge small pieces that many commits leave behind, and drop old versions; nothing visible changes."""

    @abstractmethod
    def pieces(self) -> Pieces:
        """What the rows lie in, at the newest version."""

    @abstractmethod
    def files(self) -> dict[str, int]:
        """The files that the newest version needs, relative to the gallery, each with the rows that are lost without
        it."""

    @abstractmethod
    def let_go(self, files: Collection[str]) -> None:
        """Hide the rows that need these files, in one commit; no file is deleted. The caller is the only writer."""

    @property
    @abstractmethod
    def engine(self) -> str:
        """Name and version of the storage engine."""


def _lance() -> type[Store]:
    from tipr.gallery.stores.lance import LanceStore  # imports pyarrow: only when a gallery is used

    return LanceStore


STORES: dict[str, Callable[[], type[Store]]] = {"lance": _lance}
"""Name in `gallery.json` -> function that imports and returns the class."""
