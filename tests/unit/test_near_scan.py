"""Searches by codes in memory: nearly all of the best, scored exactly, of the rows that are there now."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from colour_model import ColourModel
from numpy.typing import NDArray
from test_exact_scan import Rows

from tipr.errors import ConfigError
from tipr.gallery import Gallery
from tipr.gallery.stores import Row, exact
from tipr.gallery.stores.exact import ExactScan
from tipr.gallery.stores.near import NearScan
from tipr.gallery.stores.on_disk import OnDisk
from tipr.gallery.stores.segment import Segment, faiss_installed
from tipr.metrics.ranking import stable_similarity

DIM = 128
pytestmark = pytest.mark.skipif(not faiss_installed(), reason="the extra `scan` is not installed")


def clustered(rng: np.random.Generator, count: int, dim: int = DIM) -> NDArray[np.float16]:
    """Views of people around a shared mean direction, most of it in few numbers, as image-text models give them."""
    spectrum = np.arange(1, dim + 1) ** -0.5
    centres = 1.2 * rng.normal(size=dim) * np.linalg.norm(spectrum) / dim**0.5 + rng.normal(size=(300, dim)) * spectrum
    vectors = centres[rng.integers(0, 300, count)] + 0.5 * spectrum * rng.normal(size=(count, dim))
    return np.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True), dtype=np.float16)


@pytest.fixture
def small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exact, "SEGMENT", 4_000)
    monkeypatch.setattr(exact, "FAISS_FROM", 1_000)


@pytest.mark.usefixtures("small_pieces")
def test_it_finds_nearly_all_of_the_best_with_exact_scores() -> None:
    rng = np.random.default_rng(0)
    rows = Rows(clustered(rng, 21_000))
    scan = ExactScan.of(rows, DIM)  # type: ignore[arg-type]
    near = NearScan(scan)
    assert len(near) == 21_000
    queries = clustered(rng, 30).astype(np.float32)
    cameras = np.arange(21_000) % 5
    for keep in (None, cameras != 2, cameras == 2):
        together = 0
        for query, found, wanted in zip(
            queries, near.best(queries, 10, keep), scan.best(queries, 10, keep), strict=True
        ):
            assert keep is None or keep[found.positions].all()
            np.testing.assert_array_equal(found.scores, stable_similarity(query, rows.vectors[found.positions]))
            assert (np.diff(found.scores) <= 0).all()
            together += len(set(found.positions.tolist()) & set(wanted.positions.tolist()))
        assert together >= 0.95 * 10 * len(queries)
    few = cameras == 2
    few[1000:] = False  # a tenth or less: all of them are scored
    assert (
        near.best(queries[:1], 50, few)[0].positions.tolist() == scan.best(queries[:1], 50, few)[0].positions.tolist()
    )
    assert len(near.best(queries[:1], 19_000)[0].positions) == 19_000
    first = cameras == 2  # a filter that none of the likely rows passes: all are looked at
    first[:3_000], first[3_000:] = stable_similarity(queries[0], rows.vectors[:3_000]) < 0.3, False
    assert first.mean() > 0.1
    assert (
        near.best(queries[:1], 90, first)[0].positions.tolist()
        == scan.best(queries[:1], 90, first)[0].positions.tolist()
    )


@pytest.mark.usefixtures("small_pieces")
def test_it_follows_what_is_added_and_what_is_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(1)
    everything = clustered(rng, 15_000)
    ids = np.arange(12_500)
    scan = ExactScan.of(Rows(everything[ids], ids), DIM)  # type: ignore[arg-type]
    coded: list[int] = []
    code = Segment._coded

    def counting(segment: Segment) -> Any:
        coded.append(len(segment))
        return code(segment)

    monkeypatch.setattr(Segment, "_coded", counting)

    def nearest(to: int) -> int:
        near = NearScan(scan)
        return int(near.ids[near.best(everything[to : to + 1].astype(np.float32), 1)[0].positions[0]])

    assert nearest(77) == 77
    assert coded == [4_000] * 3  # not the last piece, which grows
    ids = np.concatenate([np.delete(ids, [77, 4_500]), np.arange(12_500, 13_000)])
    scan = scan.follow(Rows(everything[ids], ids))  # type: ignore[arg-type]
    assert nearest(77) != 77
    assert nearest(4_501) == 4_501
    assert nearest(12_900) == 12_900
    assert sorted(coded[3:]) == [3_999, 3_999]  # only the pieces that rows left


@pytest.mark.usefixtures("small_pieces")
def test_a_gallery_uses_it_once_its_vectors_are_in_memory(tmp_path: Path) -> None:
    model: Any = ColourModel()
    gallery = Gallery.create(tmp_path / "g", model, durability="process")
    vectors = clustered(np.random.default_rng(2), 4_500, 8)
    gallery._store.append([Row(f"/{n}.jpg", "0" * 64, vectors[n], b"", 10, 20) for n in range(len(vectors))], 0)
    query = vectors[3].astype(np.float32)
    with pytest.raises(ConfigError, match="has no index"):
        gallery.search(query, approximate=True)
    gallery.index()
    assert gallery.search(query, 1, approximate=True)[0].id == 3
    assert isinstance(gallery._reader.index(), OnDisk)
    exactly = gallery.search(query, 10)
    assert isinstance(gallery._reader.index(), NearScan)
    assert gallery.search(query, 10, approximate=True) == exactly
    gallery.remove([3])  # takes the index on disk away; the rows in memory follow
    left = gallery.search(query, 10, approximate=True)
    assert [hit.id for hit in left][:9] == [hit.id for hit in exactly[1:]]
    assert left == gallery.search(query, 10)
    small = Gallery.open(gallery.path, model=model, memory=1000)
    small.search(query, 1)
    with pytest.raises(ConfigError, match="has no index"):
        small.search(query, approximate=True)
