"""What a gallery has read of its store, kept as long as the store's version is the same."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from tipr.errors import ConfigError, GalleryCorrupt, GalleryError
from tipr.gallery.filters import Filters
from tipr.gallery.stores import Coded, Store
from tipr.gallery.stores.exact import ExactScan
from tipr.gallery.stores.near import NearScan
from tipr.gallery.stores.on_disk import OnDisk, memory_for_vectors

ATTEMPTS = 5
"""Times a reader starts again because the version it reads was erased."""
REMEMBERED = 4
"""Filters whose rows are kept, as pages and files of queries ask for the same ones again."""

Result = TypeVar("Result")


class Reader:
    """Columns of all rows, in the order of their ids.

    Args:
        path: of the gallery, for errors.
        store: what is read.
        dim: width of a vector.
        memory: bytes that the vectors may take; by default `memory_for_vectors`.
    """

    def __init__(self, path: Path, store: Store, dim: int, memory: int | None = None) -> None:
        self.path = path
        self._folder = os.stat(path).st_ino
        self._store = store
        self._dim = dim
        self._memory = memory_for_vectors() if memory is None else memory
        self._scan: ExactScan | None = None
        self._following = threading.Lock()
        self._cache: dict[str, Any] = {}

    @property
    def version(self) -> int:
        """Of the store, at the last `refresh`."""
        version: int = self._cache["version"]
        return version

    def consistently(self, step: Callable[[], Result]) -> Result:
        """Run a reading step on the newest version; again when an erasure took that version away meanwhile.

        Raises:
            GalleryCorrupt: damaged on disk.
            GalleryError: the gallery keeps changing.
        """
        for _ in range(ATTEMPTS):
            version = self.refresh()
            try:
                return step()
            except GalleryCorrupt:
                if self.refresh() == version:
                    raise  # nobody changed it: it is damaged
        raise GalleryError(f"gallery {self.path} keeps changing: try again later")

    def refresh(self) -> int:
        """Step to the newest version and return its number; what was read of another one is forgotten."""
        try:
            if os.stat(self.path).st_ino != self._folder:
                raise GalleryError(f"gallery {self.path} was replaced after it was opened: open it again")
        except OSError as error:
            raise GalleryCorrupt(self.path, f"its folder is gone ({error.strerror})") from None
        version = self._store.refresh()
        if version != self._cache.get("version"):
            self._cache = {"version": version}
        return version

    def ids(self) -> NDArray[np.int64]:
        """(N,) int64, rising."""
        return self._cached("ids", self._store.ids)

    def vectors(self) -> NDArray[np.float16]:
        """(N, D) float16."""
        return self._cached("vectors", self._store.vectors)

    def scan(self) -> ExactScan | OnDisk:
        """All vectors in memory, or on disk where they are too many.

        In memory they are kept from version to version, so that only what changed is read.
        """
        with self._following:
            if "scan" not in self._cache:
                before, self._scan = self._scan, None
                if 2 * self._dim * len(self.ids()) > self._memory:
                    self._cache["scan"] = OnDisk(self._store, indexed=self._store.indexed)
                else:
                    self._scan = ExactScan.of(self._store, self._dim) if before is None else before.follow(self._store)
                    self._cache["scan"] = self._scan
            scan: ExactScan | OnDisk = self._cache["scan"]
            return scan

    def index(self) -> NearScan | OnDisk:
        """The rows for a search that may miss one: by codes where their vectors are in memory already, else through
        the store's index.

        Raises:
            ConfigError: they are not, and there is no index.
        """
        if self._scan is not None and isinstance(scan := self.scan(), ExactScan) and scan.codable:
            return NearScan(scan)
        if "index" not in self._cache:
            if not self._store.indexed:
                raise ConfigError(f"gallery {self.path} has no index: build one with `tipr index approximate`")
            self._cache["index"] = OnDisk(self._store, indexed=True)
        found: OnDisk = self._cache["index"]
        return found

    def coded(self, names: Sequence[str]) -> dict[str, NDArray[Any] | Coded]:
        """Some of `tipr.gallery.stores.COLUMNS`, for filtering."""
        missing = [name for name in names if f"coded {name}" not in self._cache]
        if missing:
            self._cache.update({f"coded {name}": values for name, values in self._store.coded(missing).items()})
        return {name: self._cache[f"coded {name}"] for name in names}

    def passing(self, filters: Filters) -> NDArray[np.bool_] | None:
        """(N,) bool, the rows that pass filters; None where there are none. Those of the last few are remembered.

        Raises:
            ConfigError: they name a key that no tag has.
        """
        if not filters.columns:
            return None
        known: dict[Filters, NDArray[np.bool_]] = self._cache.setdefault("passing", {})
        if filters not in known:
            mask = filters.mask(self.coded(filters.columns), len(self.ids()))
            while len(known) >= REMEMBERED:
                known.pop(next(iter(known)), None)
            known[filters] = mask
        return known[filters]

    def rows(self, ids: NDArray[np.int64], names: Sequence[str]) -> dict[str, NDArray[Any]]:
        """Some columns of some rows of this version, in the order of `ids`."""
        return self._store.rows(ids.tolist(), names)

    def columns(self, names: Sequence[str]) -> dict[str, NDArray[Any]]:
        """Some of `tipr.gallery.stores.COLUMNS`, each (N,)."""
        missing = [name for name in names if f"column {name}" not in self._cache]
        if missing:
            self._cache.update({f"column {name}": values for name, values in self._store.columns(missing).items()})
        return {name: self._cache[f"column {name}"] for name in names}

    def _cached(self, name: str, read: Callable[[], NDArray[Any]]) -> NDArray[Any]:
        if name not in self._cache:
            self._cache[name] = read()
        values: NDArray[Any] = self._cache[name]
        return values
