"""`Gallery`: a folder of people that remembers which model filled it.

GALLERY/gallery.json         format, store, model (path, fingerprint, width of a vector), time of creation
GALLERY/people.lance/        the rows
GALLERY/digests.jsonl        by which damaged files are told
GALLERY/set_aside/           files that cannot be read; nothing is deleted because it looks damaged
GALLERY/.lock                held by the one process that writes; readers never wait
GALLERY/erased.json          marks of erased pictures, which keep them from coming back
GALLERY/holds.json           rows that must not be erased, with reason and end
GALLERY/certificates.jsonl   what was erased, in counts
GALLERY/erasing.json         an erasure that is not complete; the next writer completes it
GALLERY/background.json      vectors of made-up queries that tell what a band means here; nothing of the pictures
GALLERY/bands.json           what they told
GALLERY/reports/, cache/     what can be made again; an erasure removes it
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Unpack, get_args

import numpy as np
from numpy.typing import NDArray

from tipr.errors import ConfigError, GalleryError, WeightsError
from tipr.gallery.calibration import Calibration, calibrate
from tipr.gallery.creation import make_folder
from tipr.gallery.erase import ids_of
from tipr.gallery.export import export
from tipr.gallery.filling import Progress
from tipr.gallery.filters import Filters
from tipr.gallery.indexing import Indexing
from tipr.gallery.info import GalleryInfo, summary
from tipr.gallery.ingest import IngestReport
from tipr.gallery.model import GalleryModel, Say, reranker_of
from tipr.gallery.privacy import Privacy
from tipr.gallery.query import Query
from tipr.gallery.reader import Reader
from tipr.gallery.search import Hit, Page, SearchOptions, whole_pictures
from tipr.gallery.searching import Searching
from tipr.gallery.settings import NAME as SETTINGS
from tipr.gallery.settings import read_settings, token_shape
from tipr.gallery.stores import STORES, Durability, Pieces, Store
from tipr.gallery.writer import Writer

if TYPE_CHECKING:
    from tipr.retrieval import Retriever

logger = logging.getLogger(__name__)


class Gallery:
    """People on disk; made by `create` or `open`. Several processes may read while one writes."""

    def __init__(
        self,
        path: Path,
        settings: dict[str, Any],
        store: Store,
        load: Callable[[], Retriever],
        *,
        memory: int | None = None,
    ) -> None:
        self.path = path
        self._settings = settings
        self._store = store
        self._model = GalleryModel(path, settings, load)
        self._reader = Reader(path, store, settings["model"]["dim"], memory)
        self._searching = Searching(path, self._model, store, self._reader)
        self._writer = Writer(path, settings, store, self._reader)
        self._indexing = Indexing(path, store, self._reader, self._writer, self._model)

    @classmethod
    def create(
        cls,
        path: Path | str,
        model: Path | str | Retriever = "demo",
        *,
        store_tokens: bool = False,
        durability: Durability = "power",
        device: str = "cpu",
        threads: int | None = None,
    ) -> Gallery:
        """Make an empty gallery for a model.

        Args:
            path: a folder that does not exist yet, or is empty.
            model: "demo", a model folder, a run folder, or a loaded retriever that came from one.
            store_tokens: keep the image tokens of every picture, `token_bytes` each, so that reranking need not encode
                its shortlist again.
            durability: what an acknowledged commit survives: "process", the death of the process; "power", a power cut
                too, which takes some milliseconds more for each commit.
            device: where the model runs.
            threads: CPU threads for the model.

        Raises:
            GalleryError: the folder is in use, or cannot be written.
            WeightsError: the model cannot be loaded.
            ConfigError: tokens are to be kept for a model that cannot rerank, or an unknown durability.
        """
        path = Path(path)
        if durability not in get_args(Durability):
            raise ConfigError(f"unknown durability {durability!r}; known: {', '.join(get_args(Durability))}")
        if path.exists() and (not path.is_dir() or any(path.iterdir())):
            what = "is a gallery already: use `index add`" if (path / SETTINGS).is_file() else "is in use"
            raise GalleryError(f"{path} {what}; a new gallery needs a new or empty folder")
        retriever = _load(model, device, threads) if isinstance(model, Path | str) else model
        shape = reranker_of(retriever).token_shape if store_tokens else None
        lies = _model_path(model if isinstance(model, Path | str) else retriever.source)
        make_folder(path, retriever, lies, shape, durability=durability)
        gallery = cls.open(path, device=device, threads=threads)
        gallery._model.use(retriever)
        return gallery

    @classmethod
    def open(
        cls,
        path: Path | str,
        *,
        model: Path | str | Retriever | None = None,
        device: str = "cpu",
        threads: int | None = None,
        memory: int | None = None,
    ) -> Gallery:
        """Open a gallery; its model is loaded when something has to be encoded.

        Args:
            path: the gallery's folder.
            model: where its model lies now, when that was moved; another model is refused at first use.
            device: where the model runs.
            threads: CPU threads for the model.
            memory: bytes that the vectors may take; half of the machine's memory by default. A gallery with more is
                searched through the index that `index` built, or without one by reading all its rows for each search.

        Raises:
            GalleryError: nothing there, or something else than a gallery.
            GalleryCorrupt: damaged on disk.
        """
        path = Path(path)
        settings = read_settings(path)
        durability = settings.get("durability", "power")
        store = STORES[settings["store"]]().open(
            path, settings["model"]["dim"], token_shape(settings), durability=durability
        )

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

        return cls(path, settings, store, load, memory=memory)

    def __len__(self) -> int:
        return self._reader.consistently(lambda: len(self._reader.ids()))

    @property
    def model(self) -> str | None:
        """Where the gallery's model lies: "demo", a folder, or None for one that was built in memory."""
        path: str | None = self._settings["model"]["path"]
        return path

    @property
    def token_bytes(self) -> int:
        """What the image tokens of one picture take on disk; 0 where the gallery keeps none."""
        tokens, width = self._model.token_shape or (0, 0)
        return 2 * tokens * width

    @property
    def retriever(self) -> Retriever:
        """The gallery's model, loaded at first use.

        Raises:
            GalleryMismatch: the model there is not the one that filled the gallery.
        """
        return self._model.retriever

    def add(
        self,
        paths: Sequence[Path | str] = (),
        *,
        recursive: bool = False,
        manifest: Path | str | Sequence[Path | str] | None = None,
        camera: str | None = None,
        pattern: str | None = None,
        progress: Progress | None = None,
    ) -> IngestReport:
        """Add pictures; what is there already stays, so a stopped run is continued by running it again.

        A file with the content of another one is a row of its own, and is not encoded again.

        Args:
            paths: image files, folders, manifests (`.jsonl`, `.csv`, `.tsv`, `.parquet`).
            recursive: descend into folders.
            manifest: one or more manifests, whatever their names.
            camera: camera of pictures that have none of their own.
            pattern: what paths say, see `tipr.gallery.path_pattern`; files of another form are skipped.
            progress: called with (done, total) pictures.

        Raises:
            ConfigError: a bad pattern or camera.
            DatasetError: a manifest is not usable.
            GalleryError: another process is writing, or the disk is full; what was committed stays.
            WeightsError, GalleryMismatch: the model is gone or is another one.
        """
        manifests = () if manifest is None else (manifest,) if isinstance(manifest, Path | str) else tuple(manifest)
        report = self._indexing.add(
            paths, recursive=recursive, manifests=manifests, camera=camera, pattern=pattern, progress=progress
        )
        return self._measured(report)

    def sync(
        self,
        folder: Path | str,
        *,
        camera: str | None = None,
        pattern: str | None = None,
        progress: Progress | None = None,
    ) -> IngestReport:
        """Follow a folder and all below it: new files are added, and rows whose file is gone are erased.

        A file that moved inside the folder, or whose content changed, keeps camera, identity and tags; one that only
        moved is not encoded again. Rows from elsewhere, and those on legal hold, stay.

        Args:
            folder: to follow.
            camera, pattern, progress: as in `add`.

        Raises:
            GalleryError: no such folder, an empty one that the gallery has rows of, or as in `add`.
        """
        return self._measured(self._indexing.sync(folder, camera=camera, pattern=pattern, progress=progress))

    def calibrate(self) -> Calibration | None:
        """Measure what the bands mean in this gallery, where that is due; `add` does so by itself.

        Returns:
            What holds now; None for a gallery with too few pictures.

        Raises:
            GalleryError: another process is writing.
            WeightsError, GalleryMismatch: the model is gone or is another one.
        """
        with self._writer.locked():
            self._reader.refresh()
            if not len(self._reader.ids()):
                return None
            return calibrate(self.path, self._reader.scan(), lambda: self.retriever)

    def _measured(self, report: IngestReport) -> IngestReport:
        """Calibrate after pictures came; the pictures are in whatever becomes of that."""
        if report.added:
            try:
                self.calibrate()
            except GalleryError as error:
                logger.warning("the bands were not measured anew: %s", error)
        return report

    def remove(self, rows: Sequence[int | Path | str]) -> int:
        """Erase rows: no byte of their vectors, tokens, thumbnails or paths stays in any file of the gallery.

        Args:
            rows: ids, or paths of files (all rows made from them).

        Returns:
            How many rows were erased.

        Raises:
            GalleryError: one of them is not in the gallery (then nothing is erased), or another process is writing.
        """
        with self._writer.locked():
            ids = ids_of(rows, self._reader, self.path)
            if kept := self._writer.held().intersection(ids):
                raise GalleryError(f"row {min(kept)} of gallery {self.path} is on legal hold: nothing was removed")
            self._writer.erase(ids, "remove")
        return len(ids)

    def search(
        self, query: str | Query | NDArray[np.float32], k: int = 10, **options: Unpack[SearchOptions]
    ) -> list[Hit]:
        """Rank the pictures whose appearance is most similar to a description.

        Args:
            query: words in one of the model's languages, a `Query` of words and pictures, or a (D,) vector of the
                gallery's model.
            k: how many, >= 1.
            options: see `search_page`.

        Returns:
            At most k hits: score falling, ties by rising id; reranked ones first, match score falling.
        """
        return self.search_page(query, k, **options).hits

    def search_page(
        self,
        query: str | Query | NDArray[np.float32],
        k: int = 10,
        *,
        after: str | None = None,
        **options: Unpack[SearchOptions],
    ) -> Page:
        """As `search`, with a cursor for the hits that follow.

        Args:
            query, k: see `search`.
            after: cursor of the page before. Pages are consistent while others write: what was added after the first
                page stays out, nothing comes twice, and what was erased is missing.
            camera, since, until, path, tags, where: filters, applied before ranking; see
                `tipr.gallery.filters.Filters` and `tipr.gallery.where`.
            group_by: keep only the best picture of each `identity`, `camera`, `path`, `sha256`, or value of a tag
                `key=value`; pictures without a value stay.
            language: of the words, one of `tipr.data.samples.LANGUAGES`; found out by default, where the model has a
                projection for each language.
            rerank: so many of the best pictures are scored a second time, words and picture together, and come first
                by that score (`Hit.match`); at most what passes the filters. The others keep their order behind.
            approximate: of candidates, by codes where an exact search has brought the vectors into memory, else by the
                index of `index`: faster, but may miss a row; exact where a filter keeps a tenth of the rows or less.
            model: a loaded retriever to encode with; it must be the one that filled the gallery.
            say: called with sentences that must be read with the results, such as pictures that were not found; they
                are logged when None.
            progress: called with (pictures reranked, pictures to rerank).

        Raises:
            ConfigError: an empty query, a bad filter, an unknown column or language, k or rerank < 1, a model that
                cannot rerank, reranking by anything but words alone, a cursor of another search or with reranking.
            GalleryError: the gallery is empty, or the query's picture cannot be read.
            GalleryMismatch: another model.
        """
        return self._searching.page(query, k, after=after, **options)

    def search_many(
        self,
        queries: Sequence[str | Query],
        k: int = 10,
        *,
        filters: Filters | None = None,
        group_by: str | None = None,
        language: str | None = None,
        say: Say | None = None,
    ) -> list[list[Hit]]:
        """Many searches of one version of the gallery, in one pass over it.

        Args:
            queries: Q of them.
            k: how many hits of each, >= 1.
            filters: of all of them.
            group_by, language, say: see `search_page`.

        Returns:
            For each query what `search` gives.
        """
        return self._searching.many(
            queries, k, filters=filters or Filters(), group_by=group_by, language=language, say=say
        )

    def index(self) -> None:
        """Build an index for `search(approximate=True)`, or build it anew; an erasure takes it away.

        It is also what a gallery is searched by whose vectors do not fit into memory.

        Raises:
            GalleryError: the gallery is empty, or another process is writing.
        """
        with self._writer.locked():
            if not len(self._reader.ids()):
                raise GalleryError(f"gallery {self.path} is empty: there is nothing to index")
            self._store.index()
            self._reader.refresh()

    def thumbnails(self, ids: Sequence[int]) -> list[bytes]:
        """The small JPEG of each row, in the order of `ids`.

        Raises:
            GalleryError: an id is not in the gallery.
        """
        try:
            return self._reader.consistently(lambda: self._store.thumbnails(ids))
        except KeyError as error:
            raise GalleryError(f"row {error.args[0]} is not in gallery {self.path}") from None

    def vectors(self, paths: Sequence[Path | str] | None = None) -> tuple[NDArray[np.int64], NDArray[np.float16]]:
        """Ids and vectors as stored: (N,) int64 and (N, D) float16.

        Args:
            paths: files, whose whole pictures are wanted in this order; all rows by rising id when None.

        Raises:
            GalleryError: one of the files is not in the gallery.
        """
        return self._reader.consistently(lambda: self._chosen_vectors(paths))

    def _chosen_vectors(self, paths: Sequence[Path | str] | None) -> tuple[NDArray[np.int64], NDArray[np.float16]]:
        ids, vectors = self._reader.ids(), self._reader.vectors()
        if paths is None:
            return ids, vectors
        places = whole_pictures(paths, self._reader.columns(("path", "box")), self.path)
        return ids[places], vectors[places]

    def info(self) -> GalleryInfo:
        """What the gallery holds."""
        columns = self._reader.consistently(lambda: self._reader.columns(("camera", "time", "identity")))
        return summary(self.path, self._settings, columns, self._reader.version, self._store.pieces())

    def compact(self) -> tuple[Pieces, Pieces]:
        """Merge the small pieces that many commits leave behind, and drop what no reader needs any more.

        Returns:
            What the store was made of before, and after.

        Raises:
            GalleryError: another process is writing, or the disk is full; what was there stays.
        """
        with self._writer.locked():
            before = self._store.pieces()
            self._store.compact()
            self._reader.refresh()
            return before, self._store.pieces()

    def export(self, target: Path | str) -> int:
        """Write what is known of all pictures to a file; see `tipr.gallery.export.export`."""
        return export(self._reader, target)

    @property
    def privacy(self) -> Privacy:
        """Erasure, retention, legal holds and certificates."""
        return Privacy(self.path, self._reader, self._writer, self._model)


def _load(model: Path | str, device: str, threads: int | None) -> Retriever:
    from tipr.retrieval import Retriever

    return Retriever.load(model, device=device, threads=threads)


def _model_path(model: Path | str | None) -> str | None:
    if model is None or str(model) == "demo":
        return None if model is None else "demo"
    return str(Path(model).resolve())
