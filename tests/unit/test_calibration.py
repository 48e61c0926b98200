"""Bands measured with a background sample: what they promise on other queries, and when they are measured again."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from colour_model import ColourModel
from test_exact_scan import Rows

from tipr.data.samples import LANGUAGES
from tipr.errors import GalleryCorrupt
from tipr.gallery import Gallery, calibration
from tipr.gallery.bands import DEFAULT, band
from tipr.gallery.calibration import Calibration, best_units, descriptions, length, limits_of, measure, read_calibration
from tipr.gallery.stores import Row
from tipr.gallery.stores.exact import ExactScan
from tipr.metrics.ranking import stable_similarity

DIM = 24


def people(rng: np.random.Generator, count: int, spread: float = 1.0) -> np.ndarray:
    """Unit vectors around a shared mean direction, as image-text models give them."""
    vectors = rng.normal(size=(count, DIM)) * spread + np.linspace(0.2, 1, DIM)
    return np.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True), dtype=np.float16)


@pytest.mark.parametrize("rows", [150, 3000])
def test_at_most_one_in_twenty_held_out_queries_stands_out(rows: int) -> None:
    rng = np.random.default_rng(rows)
    scan = ExactScan.of(Rows(people(rng, rows)), DIM)  # type: ignore[arg-type]
    spreads = dict(zip(LANGUAGES, (0.6, 1.0, 1.5, 3.0), strict=True))  # a model knows one language better than another
    sample = np.concatenate([people(rng, 300, spread) for spread in spreads.values()])
    measured = measure(scan, sample, [f"{name} long" for name in spreads for _ in range(300)])
    assert measured.rows == rows
    assert measured.queries == 1200
    for name, spread in spreads.items():
        best = best_units(scan, people(rng, 1000, spread).astype(np.float32))
        units = measured.units(name)
        assert 0 < np.mean(best >= units.stands_out) <= 0.05
        assert 0.4 < np.mean(best >= units.similar) < 0.6
        assert np.mean(best >= measured.units(None).stands_out) <= 0.05  # the strictest, for a language not known


def test_a_person_who_is_there_still_stands_out() -> None:
    rng = np.random.default_rng(1)
    vectors = people(rng, 2000)
    scan = ExactScan.of(Rows(vectors), DIM)  # type: ignore[arg-type]
    measured = measure(scan, people(rng, 1000), ["en short"] * 1000)
    close = vectors[:200].astype(np.float32) + 0.05 * rng.normal(size=(200, DIM)).astype(np.float32)
    assert np.mean(best_units(scan, close) >= measured.units("en").stands_out) > 0.9


def test_the_background_describes_nobody_in_four_languages_and_several_lengths() -> None:
    said = descriptions(50, calibration.SEED)
    assert Counter(language for language, _ in said) == dict.fromkeys(LANGUAGES, 50)
    assert len({text for _, text in said}) > 190
    descriptions.cache_clear()
    assert said == descriptions(50, calibration.SEED)
    assert said != descriptions(50, 1)
    for language in LANGUAGES:
        lengths = Counter(length(text) for spoken, text in said if spoken == language)
        assert lengths == {"short": 25, "long": 25}
    assert all(len(text) >= 2 for _, text in said)


@pytest.fixture
def gallery(tmp_path: Path) -> Gallery:
    model: Any = ColourModel()
    return Gallery.create(tmp_path / "g", model, durability="process")


def fill(gallery: Gallery, rows: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    vectors = rng.random(size=(rows, 8)) + 0.1
    half = np.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True), dtype=np.float16)
    first = len(gallery)
    gallery._store.append([Row(f"/{first + n}.jpg", "0" * 64, half[n], b"", 10, 20) for n in range(rows)], first)


def test_it_is_measured_again_when_the_gallery_has_grown_by_half(gallery: Gallery, tmp_path: Path) -> None:
    assert gallery.calibrate() is None
    fill(gallery, 90, 0)
    assert gallery.calibrate() is None  # too few
    assert read_calibration(gallery.path) is None
    fill(gallery, 10, 1)
    first = gallery.calibrate()
    assert first is not None
    assert (first.rows, first.queries) == (100, 1600)
    assert read_calibration(gallery.path) == first
    fill(gallery, 49, 2)
    assert gallery.calibrate() == first
    fill(gallery, 1, 3)
    without = Gallery.open(gallery.path, model=tmp_path / "no model is needed")
    second = without.calibrate()
    assert second is not None
    assert second.rows == 150
    gallery.remove(list(range(50)))
    third = gallery.calibrate()
    assert third is not None
    assert third.rows == 100


def test_a_search_shows_the_bands_of_its_language(gallery: Gallery) -> None:
    fill(gallery, 400, 0)
    assert gallery.calibrate() is not None
    similar, stands_out = {"en short": -9.0, "en long": 8.0}, {"en short": 0.5, "en long": 9.0}
    measured = Calibration(400, 1600, {**similar, "zh short": 8.5}, {**stands_out, "zh short": 9.5})
    (gallery.path / "bands.json").write_text(
        json.dumps({"rows": 400, "queries": 1600, "similar": measured.similar, "stands_out": measured.stands_out})
    )
    sample = gallery._reader.scan().sample
    for text in ("red coat grey trousers", "a person who wears a red coat above a pair of grey trousers"):
        for language in ("en", "zh", "fr", None):
            hits = gallery.search(text, k=400, language=language)
            assert gallery.search_many([text], k=400, language=language) == [hits]
            scores = stable_similarity(ColourModel().encode_text([text])[0], sample)
            limits = limits_of(scores, measured, language=language, words=text)
            assert [hit.metadata["band"] for hit in hits] == [band(hit.score, limits) for hit in hits]
            assert (hits[0].metadata["band"] == "stands_out") == (language == "en" and len(text) < 30)
    assert measured.units("zh", "长" * 90) == measured.units("en", "long" * 90)  # none of its own: the strictest


def test_pictures_and_vectors_are_held_to_the_default_limits_at_least() -> None:
    scores = np.random.default_rng(0).normal(size=500).astype(np.float32)
    low = Calibration(500, 1600, {"en short": 0.1}, {"en short": 0.2})
    assert limits_of(scores, low, language="en", words=None) == limits_of(scores, None, language=None, words="red")
    assert limits_of(scores, low, language="en", words="red") < limits_of(scores, low, language="en", words=None)
    assert DEFAULT.stands_out == 3.5


@pytest.mark.parametrize(
    "damage",
    [
        "[]",
        '{"rows": 1}',
        '{"rows":1,"queries":1,"similar":{},"stands_out":{}}',
        "{",
        '{"rows":1,"queries":1,"similar":{"en":1},"stands_out":{"en":2}}',
    ],
)
def test_a_damaged_file_is_named(gallery: Gallery, damage: str) -> None:
    fill(gallery, 100, 0)
    gallery.calibrate()
    (gallery.path / "bands.json").write_text(damage)
    with pytest.raises(GalleryCorrupt, match=r"bands\.json"):
        gallery.search("red")
