"""The model of a gallery: loaded at first use, checked against the one that filled it, asked for vectors and tokens."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from tipr.errors import ConfigError, GalleryMismatch
from tipr.gallery.filling import ENCODE_BATCH
from tipr.gallery.query import Query, picture_vector
from tipr.gallery.settings import token_shape

if TYPE_CHECKING:
    from PIL.Image import Image

    from tipr.retrieval import Reranker, Retriever

Say = Callable[[str], None]
"""Called with a sentence that must be read with the results."""


class GalleryModel:
    """What a gallery needs of its model.

    Args:
        path: of the gallery, for errors.
        settings: of the gallery.
        load: loads the model.

    Attributes:
        token_shape: (T, W) of the image tokens that are kept of every picture; None where none are.
    """

    def __init__(self, path: Path, settings: dict[str, Any], load: Callable[[], Retriever]) -> None:
        self._path = path
        self._own = settings["model"]
        self._load = load
        self._loaded: Retriever | None = None
        self._loading = threading.Lock()
        self.token_shape = token_shape(settings)

    @property
    def retriever(self) -> Retriever:
        """The model.

        Raises:
            GalleryMismatch: it is not the one that filled the gallery.
        """
        with self._loading:
            if self._loaded is None:
                loaded = self._load()
                self.check(loaded)
                self._loaded = loaded
            return self._loaded

    def use(self, retriever: Retriever) -> None:
        """Take a model that is loaded already, without a check."""
        self._loaded = retriever

    def check(self, retriever: Retriever) -> None:
        """See that a model is the one that filled the gallery.

        Raises:
            GalleryMismatch: it is another one.
        """
        if retriever.fingerprint != self._own["fingerprint"]:
            source = retriever.source or "a model in memory"
            state = f"model {self._own['fingerprint'][:12]} ({self._own['path'] or 'built in memory'})"
            raise GalleryMismatch(
                f"gallery {self._path} was filled by {state}, not by {retriever.fingerprint[:12]} ({source}): "
                "search it with its own model, or create a new gallery"
            )

    def query_vector(self, query: NDArray[np.float32]) -> NDArray[np.float32]:
        """(D,) float32 of a vector that a caller gives.

        Raises:
            ConfigError: it has another shape, or is not finite.
        """
        vector = np.asarray(query, dtype=np.float32)
        if vector.shape != (self._own["dim"],) or not np.isfinite(vector).all():
            raise ConfigError(f"a query vector must be {self._own['dim']} finite numbers, not of shape {vector.shape}")
        return vector

    def encode(self, pictures: list[Any]) -> tuple[NDArray[np.float32], NDArray[np.float16] | None]:
        """(n, D) float32 vectors of a batch of pictures, and (n, T, W) float16 tokens where the gallery keeps them."""
        if self.token_shape is not None:
            return reranker_of(self.retriever).vectors_and_tokens(pictures)
        return self.retriever.encode_images(pictures, batch_size=ENCODE_BATCH), None

    def shrink(self, image: Image | NDArray[np.uint8]) -> Image:
        """An RGB image, or (H, W, 3) uint8, at the encoder's size."""
        from PIL import Image as images

        from tipr.data.images import resize

        return images.fromarray(resize(image, self.retriever.preprocessing.image_size))


def encode_query(query: str, retriever: Retriever, language: str | None, say: Say) -> NDArray[np.float32]:
    """(D,) float32 of words, through the projection of their language where the model has one for each.

    Args:
        query: words.
        retriever: the model.
        language: of the words; found out when None and the model needs it.
        say: told when the model has no projection for that language.

    Raises:
        ConfigError: an unknown language is forced.
    """
    from tipr.retrieval.language import checked_language, detect_language, foreign_note

    spoken = None if language is None else checked_language(language)
    known = getattr(getattr(retriever, "encoder", None), "languages", ())
    if known and spoken is None:
        spoken = detect_language(query).language
    if (note := foreign_note([spoken], known)) is not None:
        say(note)
    return np.asarray(retriever.encode_text([query.strip()], language=spoken)[0], dtype=np.float32)


def query_vector_of(
    query: Query, retriever: Retriever, shrink: Callable[[Image], Image], language: str | None, say: Say
) -> NDArray[np.float32]:
    """(D,) float32 of words, a picture, or both.

    Raises:
        ConfigError: an unknown language is forced, or the parts cancel each other out.
        GalleryError: the picture cannot be read.
    """
    return query.vector(
        lambda words: encode_query(words, retriever, language, say),
        lambda path: picture_vector(path, retriever, shrink),
    )


def reranker_of(retriever: Retriever) -> Reranker:
    """The second stage of a model; ConfigError when it has none."""
    from tipr.retrieval import Reranker

    return Reranker(retriever)
