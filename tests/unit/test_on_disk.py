"""A gallery whose vectors stay on disk: the same hits without an index, good ones with it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from colour_model import ColourModel

from tipr.errors import ConfigError, GalleryError
from tipr.gallery import Gallery
from tipr.gallery.stores import Row
from tipr.gallery.stores.on_disk import OnDisk

PEOPLE = 3000


@pytest.fixture(scope="module")
def vectors() -> np.ndarray:
    rng = np.random.default_rng(0)
    centres = rng.normal(size=(300, 8))
    points = centres[rng.integers(0, 300, PEOPLE)] + 0.1 * rng.normal(size=(PEOPLE, 8))
    points[50:60] = points[49]  # ties
    return np.asarray(points / np.linalg.norm(points, axis=1, keepdims=True), dtype=np.float16)


@pytest.fixture
def gallery(tmp_path: Path, vectors: np.ndarray) -> Gallery:
    model: Any = ColourModel()
    made = Gallery.create(tmp_path / "g", model, durability="process")
    made._store.append(
        [
            Row(f"/p/{n:04d}.jpg", f"{n:064x}", vectors[n], b"jpeg", 10, 20, camera=f"camera {n % 100}")
            for n in range(PEOPLE)
        ],
        0,
    )
    return made


def test_too_many_vectors_for_memory_give_the_same_hits(gallery: Gallery, vectors: np.ndarray) -> None:
    small = Gallery.open(gallery.path, model=ColourModel(), memory=1000)  # type: ignore[arg-type]
    for query in vectors[[0, 49, 100]].astype(np.float32):
        for options in ({}, {"camera": "camera 7"}, {"group_by": "camera"}, {"where": "camera != 'camera 3'"}):
            given: Any = options
            assert small.search(query, 30, **given) == gallery.search(query, 30, **given)
    assert isinstance(small._reader.scan(), OnDisk)
    page = small.search_page(vectors[9].astype(np.float32), 5)
    following = gallery.search_page(vectors[9].astype(np.float32), 5, after=page.cursor)
    assert [*page.hits, *following.hits] == gallery.search(vectors[9].astype(np.float32), 10)


def test_an_index_is_asked_for_by_name_or_by_need(gallery: Gallery, vectors: np.ndarray) -> None:
    queries = vectors[::150].astype(np.float32)
    with pytest.raises(ConfigError, match="has no index: build one with `tipr index approximate`"):
        gallery.search(queries[0], approximate=True)
    gallery.index()
    small = Gallery.open(gallery.path, model=ColourModel(), memory=1000)  # type: ignore[arg-type]
    for options in ({}, {"where": "camera != 'camera 3'"}, {"camera": [f"camera {n}" for n in range(50)]}):
        given: Any = options
        overlap = []
        for query in queries:
            wanted = gallery.search(query, 10, **given)
            for found in (gallery.search(query, 10, approximate=True, **given), small.search(query, 10, **given)):
                scores = {hit.id: hit.score for hit in found}
                assert [hit.id for hit in found] == sorted(scores, key=lambda row: (-scores[row], row))  # exact scores
                overlap.append(len(scores.keys() & {hit.id for hit in wanted}) / 10)
        assert np.mean(overlap) >= 0.95
    told: list[str] = []
    small.search(queries[0], say=told.append)
    assert told == [
        "the gallery's vectors are too many for memory: it was searched through its index, which may miss a picture"
    ]
    small.search(queries[0], approximate=True, say=told.append)
    gallery.search(queries[0], say=told.append)
    assert len(told) == 1
    few: Any = {"camera": "camera 7", "approximate": True}  # a tenth or less: every one of them is scored
    assert gallery.search(queries[3], 30, **few) == gallery.search(queries[3], 30, camera="camera 7")


def test_an_erasure_takes_the_index_away(gallery: Gallery, vectors: np.ndarray) -> None:
    gallery.index()
    query = vectors[5].astype(np.float32)
    assert gallery.search(query, 1, approximate=True)[0].id == 5
    gallery.remove([5])
    with pytest.raises(ConfigError, match="has no index"):
        gallery.search(query, approximate=True)
    gallery.index()
    assert 5 not in [hit.id for hit in gallery.search(query, 100, approximate=True)]


def test_an_empty_gallery_has_nothing_to_index(tmp_path: Path) -> None:
    model: Any = ColourModel()
    with pytest.raises(GalleryError, match="is empty: there is nothing to index"):
        Gallery.create(tmp_path / "g", model).index()
