"""`Gallery`: a folder of people that remembers which model filled it.

GALLERY/gallery.json     format, store, model (path, fingerprint, width of a vector), time of creation
GALLERY/people.lance/    the rows
GALLERY/.lock            held by the one process that writes; readers never wait
"""

from __future__ import annotations

import os
import shutil
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from tipr.errors import ConfigError, GalleryCorrupt, GalleryError, GalleryMismatch, WeightsError
from tipr.gallery.filling import ENCODE_BATCH, Filling, Progress
from tipr.gallery.filters import Filters, Moment
from tipr.gallery.info import GalleryInfo, summary
from tipr.gallery.ingest import IngestReport, Known, list_entries, prepare_all
from tipr.gallery.lock import exclusive
from tipr.gallery.search import GROUPS, Hit, group_values, hits, rank, scores, whole_pictures
from tipr.gallery.settings import FORMAT, read_settings, write_settings
from tipr.gallery.settings import NAME as SETTINGS
from tipr.gallery.stores import COLUMNS, STORES, Row, Store

if TYPE_CHECKING:
    from PIL.Image import Image

    from tipr.retrieval import Retriever

READ_ATTEMPTS = 5
"""Times a reader starts again because the version it reads was erased."""

Result = TypeVar("Result")


class Gallery:
    """People on disk; made by `create` or `open`. Several processes may read while one writes."""

    def __init__(self, path: Path, settings: dict[str, Any], store: Store, load: Callable[[], Retriever]) -> None:
        self.path = path
        self._settings = settings
        self._store = store
        self._load = load
        self._loaded: Retriever | None = None
        self._loading = threading.Lock()
        self._cache: dict[str, Any] = {}

    @classmethod
    def create(
        cls,
        path: Path | str,
        model: Path | str | Retriever = "demo",
        *,
        device: str = "cpu",
        threads: int | None = None,
    ) -> Gallery:
        """Make an empty gallery for a model.

        Args:
            path: a folder that does not exist yet, or is empty.
            model: "demo", a model folder, a run folder, or a loaded retriever that came from one.
            device: where the model runs.
            threads: CPU threads for the model.

        Raises:
            GalleryError: the folder is in use, or cannot be written.
            WeightsError: the model cannot be loaded.
        """
        path = Path(path)
        if path.exists() and (not path.is_dir() or any(path.iterdir())):
            what = "is a gallery already: use `index add`" if (path / SETTINGS).is_file() else "is in use"
            raise GalleryError(f"{path} {what}; a new gallery needs a new or empty folder")
        retriever = _load(model, device, threads) if isinstance(model, Path | str) else model
        settings = {
            "format": FORMAT,
            "store": "lance",
            "model": {
                "path": _model_path(model if isinstance(model, Path | str) else retriever.source),
                "fingerprint": retriever.fingerprint,
                "dim": retriever.embed_dim,
            },
            "created": datetime.now(UTC).isoformat(timespec="seconds"),
            "next_id": 0,
        }
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            draft = Path(tempfile.mkdtemp(prefix=f".{path.name}.", suffix=".draft", dir=path.parent))
            try:
                draft.chmod(0o755)
                STORES["lance"]().create(draft, retriever.embed_dim)
                write_settings(draft, settings)
                draft.rename(path)
            finally:
                shutil.rmtree(draft, ignore_errors=True)
        except OSError as error:
            raise GalleryError(f"cannot create gallery {path}: {error.strerror or error}") from None
        gallery = cls.open(path, device=device, threads=threads)
        gallery._loaded = retriever
        return gallery

    @classmethod
    def open(
        cls,
        path: Path | str,
        *,
        model: Path | str | Retriever | None = None,
        device: str = "cpu",
        threads: int | None = None,
    ) -> Gallery:
        """Open a gallery; its model is loaded when something has to be encoded.

        Args:
            path: the gallery's folder.
            model: where its model lies now, when that was moved; another model is refused at first use.
            device: where the model runs.
            threads: CPU threads for the model.

        Raises:
            GalleryError: nothing there, or something else than a gallery.
            GalleryCorrupt: damaged on disk.
        """
        path = Path(path)
        settings = read_settings(path)
        store = STORES[settings["store"]]().open(path, settings["model"]["dim"])

        def load() -> Retriever:
            if model is not None and not isinstance(model, Path | str):
                return model
            if model is not None:
                return _load(model, device, threads)
            stored = settings["model"]["path"]
            if stored is None:
                raise GalleryError(f"gallery {path} does not know where its model lies: name it with --model PATH")
            if stored != "demo" and not Path(stored).exists():
                raise WeightsError(
                    f"no model at {stored}, which gallery {path} needs: if it was moved, use --model PATH"
                )
            return _load(stored, device, threads)

        return cls(path, settings, store, load)

    def __len__(self) -> int:
        return self._read(lambda: len(self._ids()))

    @property
    def model(self) -> str | None:
        """Where the gallery's model lies: "demo", a folder, or None for one that was built in memory."""
        path: str | None = self._settings["model"]["path"]
        return path

    @property
    def retriever(self) -> Retriever:
        """The gallery's model, loaded at first use.

        Raises:
            GalleryMismatch: the model there is not the one that filled the gallery.
        """
        with self._loading:
            if self._loaded is None:
                loaded = self._load()
                self._check(loaded)
                self._loaded = loaded
            return self._loaded

    def add(
        self,
        paths: Sequence[Path | str] = (),
        *,
        recursive: bool = False,
        manifest: Path | str | Sequence[Path | str] | None = None,
        camera: str | None = None,
        progress: Progress | None = None,
    ) -> IngestReport:
        """Add pictures; what is there already stays, so a stopped run is continued by running it again.

        Args:
            paths: image files, folders, manifests (`.jsonl`).
            recursive: descend into folders.
            manifest: one or more manifests, whatever their names.
            camera: camera of pictures that have none of their own.
            progress: called with (done, total) pictures.

        Raises:
            DatasetError: a manifest is not usable.
            GalleryError: another process is writing, or the disk is full; what was committed stays.
            WeightsError, GalleryMismatch: the model is gone or is another one.
        """
        if camera is not None and not camera.strip():
            raise ConfigError("camera: the name must not be empty")
        manifests = () if manifest is None else (manifest,) if isinstance(manifest, Path | str) else tuple(manifest)
        entries, listed = list_entries(paths, recursive=recursive, manifests=manifests, camera=camera)
        with self._writing():
            run = Filling(self._encode_images, self._append, total=len(entries) + len(listed), progress=progress)
            run.skipped.extend(listed)
            try:
                for outcome in prepare_all(entries, self._known(), self._shrink):
                    run.take(outcome)
                run.encode()
            except KeyboardInterrupt:
                run.commit()
                raise
            run.commit()
            self._erase(sorted(run.stale))
            if run.added:
                self._store.maintain()
        return run.report()

    def remove(self, rows: Sequence[int | Path | str]) -> int:
        """Erase rows: no byte of their vectors, thumbnails or paths stays in any file of the gallery.

        Args:
            rows: ids, or paths of files (all rows made from them).

        Returns:
            How many rows were erased.

        Raises:
            GalleryError: one of them is not in the gallery (then nothing is erased), or another process is writing.
        """
        with self._writing():
            ids = self._ids()
            paths = self._columns(("path",))["path"] if any(not isinstance(row, int) for row in rows) else ()
            wanted: set[int] = set()
            for row in rows:
                found = [row] if isinstance(row, int) else [int(i) for i in ids[paths == os.path.realpath(row)]]
                if not found or (isinstance(row, int) and row not in set(ids.tolist())):
                    what = f"row {row}" if isinstance(row, int) else str(row)
                    raise GalleryError(f"{what} is not in gallery {self.path}: nothing was removed")
                wanted.update(found)
            self._erase(sorted(wanted))
        return len(wanted)

    def search(
        self,
        query: str | NDArray[np.float32],
        k: int = 10,
        *,
        camera: str | Sequence[str] | None = None,
        since: Moment | None = None,
        until: Moment | None = None,
        path: str | None = None,
        group_by: str | None = None,
        model: Retriever | None = None,
    ) -> list[Hit]:
        """Rank the pictures whose appearance is most similar to a description.

        Args:
            query: words in one of the model's languages, or a (D,) vector of the gallery's model.
            k: how many, >= 1.
            camera, since, until, path: filters, applied before ranking; see `tipr.gallery.filters.Filters`.
            group_by: keep only the best picture of each `identity`, `camera`, `path`, `sha256`, or value of a tag
                `key=value`; pictures without a value stay.
            model: a loaded retriever to encode with; it must be the one that filled the gallery.

        Returns:
            At most k hits: score falling, ties by rising id.

        Raises:
            ConfigError: an empty query, a bad filter, an unknown column or k < 1.
            GalleryError: the gallery is empty.
            GalleryMismatch: another model.
        """
        if k < 1:
            raise ConfigError(f"k must be at least 1, not {k}")
        if isinstance(query, str) and not query.strip():
            raise ConfigError("the query is empty: describe a person in words")
        if isinstance(query, str) and query.encode("utf-8", "replace").decode("utf-8") != query:  # lone surrogates
            raise ConfigError("the query is not valid UTF-8: check the encoding of your terminal")
        filters = Filters.of(camera=camera, since=since, until=until, path=path)
        if model is not None:
            self._check(model)
        return self._read(lambda: self._search(query, k, filters, group_by, model))

    def _search(
        self,
        query: str | NDArray[np.float32],
        k: int,
        filters: Filters,
        group_by: str | None,
        model: Retriever | None,
    ) -> list[Hit]:
        ids = self._ids()
        if not len(ids):
            raise GalleryError(f"gallery {self.path} is empty: add pictures with `tipr index add`")
        needed = self._columns(filters.columns)
        keep = filters.mask(needed, len(ids)) if filters.columns else None
        groups = None if group_by is None else group_values(group_by, self._columns((*GROUPS, "tags")))
        vector = self._query_vector(query, model)
        found = scores(self._vectors(), vector)
        return hits(rank(found, k, keep=keep, groups=groups), found, ids, self._columns(COLUMNS))

    def thumbnails(self, ids: Sequence[int]) -> list[bytes]:
        """The small JPEG of each row, in the order of `ids`.

        Raises:
            GalleryError: an id is not in the gallery.
        """
        try:
            return self._read(lambda: self._store.thumbnails(ids))
        except KeyError as error:
            raise GalleryError(f"row {error.args[0]} is not in gallery {self.path}") from None

    def vectors(self, paths: Sequence[Path | str] | None = None) -> tuple[NDArray[np.int64], NDArray[np.float16]]:
        """Ids and vectors as stored: (N,) int64 and (N, D) float16.

        Args:
            paths: files, whose whole pictures are wanted in this order; all rows by rising id when None.

        Raises:
            GalleryError: one of the files is not in the gallery.
        """
        return self._read(lambda: self._chosen_vectors(paths))

    def _chosen_vectors(self, paths: Sequence[Path | str] | None) -> tuple[NDArray[np.int64], NDArray[np.float16]]:
        ids, vectors = self._ids(), self._vectors()
        if paths is None:
            return ids, vectors
        places = whole_pictures(paths, self._columns(("path", "box")), self.path)
        return ids[places], vectors[places]

    def info(self) -> GalleryInfo:
        """What the gallery holds."""
        columns = self._read(lambda: self._columns(("camera", "time", "identity")))
        return summary(self.path, self._settings, columns, self._cache["version"])

    def _check(self, retriever: Retriever) -> None:
        own = self._settings["model"]
        if retriever.fingerprint != own["fingerprint"]:
            source = retriever.source or "a model in memory"
            state = f"model {own['fingerprint'][:12]} ({own['path'] or 'built in memory'})"
            raise GalleryMismatch(
                f"gallery {self.path} was filled by {state}, not by {retriever.fingerprint[:12]} ({source}): "
                "search it with its own model, or create a new gallery"
            )

    def _query_vector(self, query: str | NDArray[np.float32], model: Retriever | None) -> NDArray[np.float32]:
        if isinstance(query, str):
            return np.asarray((model or self.retriever).encode_text([query.strip()])[0], dtype=np.float32)
        vector = np.asarray(query, dtype=np.float32)
        if vector.shape != (self._settings["model"]["dim"],) or not np.isfinite(vector).all():
            dim = self._settings["model"]["dim"]
            raise ConfigError(f"a query vector must be {dim} finite numbers, not of shape {vector.shape}")
        return vector

    def _encode_images(self, pictures: list[Any]) -> NDArray[np.float32]:
        return self.retriever.encode_images(pictures, batch_size=ENCODE_BATCH)

    def _shrink(self, image: Image) -> Image:
        from PIL import Image as images

        from tipr.data.images import resize

        return images.fromarray(resize(image, self.retriever.preprocessing.image_size))

    def _known(self) -> Known:
        columns = self._columns(("path", "box", "sha256"))
        known: dict[Any, dict[str, list[int]]] = {}
        for i, path, box, sha256 in zip(self._ids(), *columns.values(), strict=True):
            known.setdefault((path, box), {}).setdefault(sha256, []).append(int(i))
        return known

    def _read(self, step: Callable[[], Result]) -> Result:
        """Run a reading step on the newest version; again when an erasure took that version away meanwhile."""
        for _ in range(READ_ATTEMPTS):
            version = self._refresh()
            try:
                return step()
            except GalleryCorrupt:
                if self._refresh() == version:
                    raise  # nobody changed it: it is damaged
        raise GalleryError(f"gallery {self.path} keeps changing: try again later")

    def _refresh(self) -> int:
        version = self._store.refresh()
        if version != self._cache.get("version"):
            self._cache = {"version": version}
        return version

    def _ids(self) -> NDArray[np.int64]:
        return self._cached("ids", self._store.ids)

    def _vectors(self) -> NDArray[np.float16]:
        return self._cached("vectors", self._store.vectors)

    def _columns(self, names: Sequence[str]) -> dict[str, NDArray[Any]]:
        missing = [name for name in names if f"column {name}" not in self._cache]
        if missing:
            self._cache.update({f"column {name}": values for name, values in self._store.columns(missing).items()})
        return {name: self._cache[f"column {name}"] for name in names}

    def _cached(self, name: str, read: Callable[[], NDArray[Any]]) -> NDArray[Any]:
        if name not in self._cache:
            self._cache[name] = read()
        values: NDArray[Any] = self._cache[name]
        return values

    def _append(self, rows: Sequence[Row]) -> None:
        ids = self._ids()
        first = max(self._settings["next_id"], int(ids[-1]) + 1 if len(ids) else 0)
        self._store.append(rows, first)
        self._refresh()

    def _erase(self, ids: Sequence[int]) -> None:
        if not ids:
            return
        # noted first: an erasure that is killed half-way is finished by the next writer
        last = int(self._ids()[-1])
        taken = last + 1 if ids[-1] == last else self._settings["next_id"]  # an id is never given twice
        self._note(next_id=taken, erasing=True)
        self._store.erase(ids)
        self._note(erasing=False)
        self._refresh()

    def _note(self, **values: Any) -> None:
        self._settings = {**self._settings, **values}
        write_settings(self.path, self._settings)

    @contextmanager
    def _writing(self) -> Iterator[None]:
        """Hold the gallery's lock: one process writes at a time."""
        with exclusive(self.path):
            self._settings = read_settings(self.path)
            if self._settings.get("erasing"):
                self._store.purge()
                self._note(erasing=False)
            self._refresh()
            yield


def _load(model: Path | str, device: str, threads: int | None) -> Retriever:
    from tipr.retrieval import Retriever

    return Retriever.load(model, device=device, threads=threads)


def _model_path(model: Path | str | None) -> str | None:
    if model is None or str(model) == "demo":
        return None if model is None else "demo"
    return str(Path(model).resolve())
