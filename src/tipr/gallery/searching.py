"""Searches of a gallery: a query becomes a vector, ranked at one version, under bands measured for the gallery."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from tipr.errors import ConfigError, GalleryError
from tipr.gallery.bands import BandLimits
from tipr.gallery.calibration import limits_of, read_calibration
from tipr.gallery.conditions import Condition
from tipr.gallery.filling import Progress
from tipr.gallery.filters import Filters, Moment
from tipr.gallery.model import GalleryModel, Say, query_vector_of, reranker_of
from tipr.gallery.query import Query
from tipr.gallery.reader import Reader
from tipr.gallery.reranking import PicturesAgain, match
from tipr.gallery.search import Hit, Matched, Page, Search
from tipr.gallery.stores import Store
from tipr.gallery.stores.on_disk import OnDisk
from tipr.metrics.ranking import stable_similarity

if TYPE_CHECKING:
    from tipr.retrieval import Reranker, Retriever

logger = logging.getLogger(__name__)


class Searching:
    """The searching side of a gallery; the arguments of its calls are those of `tipr.gallery.Gallery`.

    Args:
        path: of the gallery.
        model: encodes queries.
        store: gives thumbnails and tokens.
        reader: the rows.
    """

    def __init__(self, path: Path, model: GalleryModel, store: Store, reader: Reader) -> None:
        self._path, self._model, self._store, self._reader = path, model, store, reader

    def page(
        self,
        query: str | Query | NDArray[np.float32],
        k: int,
        *,
        after: str | None,
        camera: str | Sequence[str] | None = None,
        since: Moment | None = None,
        until: Moment | None = None,
        path: str | None = None,
        tags: str | Sequence[str] | None = None,
        where: str | Condition | None = None,
        group_by: str | None = None,
        language: str | None = None,
        rerank: int | None = None,
        approximate: bool = False,
        model: Retriever | None = None,
        say: Say | None = None,
        progress: Progress | None = None,
    ) -> Page:
        """One page of a search."""
        for name, number in (("k", k), ("rerank", 1 if rerank is None else rerank)):
            if number < 1:
                raise ConfigError(f"{name} must be at least 1, not {number}")
        if isinstance(query, str):
            query = Query(query)
        if rerank is not None and (not isinstance(query, Query) or not query.plain):
            raise ConfigError("reranking needs a query in words, not a vector, a picture or what is not wanted")
        if rerank is not None and after is not None:
            raise ConfigError("after: a reranked search has one page; ask for more results instead")
        words = query.text if isinstance(query, Query) and query.plain else None
        filters = Filters.of(camera=camera, since=since, until=until, path=path, tags=tags, where=where)
        if model is not None:
            self._model.check(model)
        say = say or logger.warning

        def page() -> Page:
            search = self._search(filters, group_by, approximate=approximate, language=language, say=say)
            vector = self._query_vector(query, model, language, say)
            second = None
            if rerank is not None and words is not None:
                reranker = reranker_of(model or self._model.retriever)
                second = lambda best: self._match(reranker, words, best, say=say, progress=progress)  # noqa: E731
            return search.page(vector, k, words=words, after=after, rerank=rerank, second=second)

        return self._reader.consistently(page)

    def many(
        self,
        queries: Sequence[str | Query],
        k: int,
        *,
        filters: Filters,
        group_by: str | None,
        language: str | None,
        say: Say | None,
    ) -> list[list[Hit]]:
        """Many searches of one version."""
        if k < 1:
            raise ConfigError(f"k must be at least 1, not {k}")
        asked = [Query(query) if isinstance(query, str) else query for query in queries]
        told = say or logger.warning

        def search() -> list[list[Hit]]:
            found = self._search(filters, group_by, language=language, say=told)
            if not asked:
                return []
            vectors = np.stack([self._query_vector(query, None, language, told) for query in asked])
            return found.many(vectors, [query.text if query.plain else None for query in asked], k)

        return self._reader.consistently(search)

    def _search(
        self,
        filters: Filters,
        group_by: str | None,
        *,
        approximate: bool = False,
        language: str | None = None,
        say: Say,
    ) -> Search:
        if not len(self._reader.ids()):
            raise GalleryError(f"gallery {self._path} is empty: add pictures with `tipr index add`")
        scan = self._reader.index() if approximate else self._reader.scan()
        if isinstance(scan, OnDisk) and scan.indexed and not approximate:
            say(
                "the gallery's vectors are too many for memory: it was searched through its index, which may miss a "
                "picture"
            )
        measured = read_calibration(self._path)

        def limits(query: NDArray[np.float32], words: str | None) -> BandLimits:
            return limits_of(stable_similarity(query, scan.sample), measured, language=language, words=words)

        return Search(self._reader, scan, filters, group_by, limits=limits)

    def _query_vector(
        self, query: str | Query | NDArray[np.float32], model: Retriever | None, language: str | None, say: Say
    ) -> NDArray[np.float32]:
        if isinstance(query, Query):
            return query_vector_of(query, model or self._model.retriever, self._model.shrink, language, say)
        return self._model.query_vector(np.asarray(query))

    def _match(
        self,
        reranker: Reranker,
        query: str,
        best: NDArray[np.int64],
        *,
        say: Say,
        progress: Progress | None,
    ) -> Matched:
        """The second stage, from kept tokens or from the pictures."""
        ids = self._reader.ids()

        def kept(rows: NDArray[np.int64]) -> NDArray[np.float16]:
            return self._store.tokens(ids[rows].tolist())

        if self._model.token_shape is not None:
            return match(reranker, query, best, kept, progress)
        pictures = PicturesAgain(
            self._reader.columns(PicturesAgain.NEEDED),
            thumbnails=lambda rows: self._store.thumbnails(ids[rows].tolist()),
            shrink=self._model.shrink,
            encode=reranker.retriever.image_tokens,
        )
        matched = match(reranker, query, best, pictures.tokens, progress)
        if (note := pictures.note()) is not None:
            say(note)
        return matched
