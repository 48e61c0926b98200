"""How alike the results of the language versions of one query are."""

from __future__ import annotations

import numpy as np
import pytest

from tipr.evaluation import Features, Overlap, SecondStage, language_overlap
from tipr.evaluation.overlap import first_results, versions


def features(language: tuple[str, ...], image_id: list[int], text: np.ndarray, gallery: int = 30) -> Features:
    """Queries over a gallery whose n-th image scores highest for the direction n."""
    images = np.eye(gallery, dtype=np.float32)
    identity = np.zeros(len(language), np.int64)
    return Features(
        text=text.astype(np.float32),
        images=images,
        captions=tuple(f"query {row}" for row in range(len(language))),
        query_identity=identity,
        gallery_identity=np.arange(gallery, dtype=np.int64),
        language=language,
        image_id=np.array(image_id, dtype=np.int64),
    )


def ranking(first: list[int], gallery: int = 30) -> np.ndarray:
    """A query row whose best pictures are these, in this order."""
    row = np.zeros(gallery)
    row[first] = np.arange(len(first), 0, -1) / len(first)
    return row


def test_shares_are_counted_pair_by_pair() -> None:
    ten = list(range(10))
    rows = [
        ranking(ten),  # en
        ranking(ten[::-1]),  # zh: the same ten in another order
        ranking([*range(5), *range(20, 25)]),  # fr: half of them
    ]
    found = language_overlap(features(("en", "zh", "fr"), [4, 4, 4], np.stack(rows)))
    assert found is not None
    assert (found.first, found.queries) == (10, 1)
    assert found.pairs == {("en", "zh"): 100.0, ("en", "fr"): 50.0, ("zh", "fr"): 50.0}
    assert found.mean == pytest.approx(200 / 3)
    assert Overlap.from_json(found.to_json()) == found
    assert found.to_json()["pairs"] == {"en-zh": 100.0, "en-fr": 50.0, "zh-fr": 50.0}


def test_the_slow_count_agrees() -> None:
    rng = np.random.default_rng(5)
    language = tuple(code for _ in range(12) for code in ("en", "en", "de"))
    data = features(language, [n // 3 for n in range(36)], rng.normal(size=(36, 30)))
    found = language_overlap(data)
    assert found is not None
    assert found.queries == 12  # the second English caption has no German version
    shared = []
    for image in range(12):
        one, other = data.text[3 * image], data.text[3 * image + 2]
        shared.append(len(set(np.argsort(-one)[:10]) & set(np.argsort(-other)[:10])) / 10)
    assert found.mean == pytest.approx(100 * float(np.mean(shared)))
    assert 0 < found.mean < 100


def test_versions_are_matched_by_image_and_place() -> None:
    language = ("de", "en", "en", "de", "en", "fr")
    rows = versions(np.array([1, 1, 1, 1, 0, 1]), language)
    assert {code: row.tolist() for code, row in rows.items()} == {"en": [1], "fr": [5], "de": [0]}
    rows = versions(np.array([1, 1, 1, 1, 0]), language[:5])
    assert {code: row.tolist() for code, row in rows.items()} == {"en": [1, 2], "de": [0, 3]}


def test_one_language_or_no_common_query_has_no_overlap() -> None:
    assert language_overlap(features(("en", "en"), [0, 1], np.eye(2, 30))) is None
    assert language_overlap(features(("en", "de"), [0, 1], np.eye(2, 30))) is None


def test_a_small_gallery_and_a_second_stage_count() -> None:
    data = features(("en", "de"), [0, 0], np.stack([ranking([0, 1], 12), ranking([0, 1], 12)]), gallery=12)
    stage = SecondStage(np.tile(np.arange(12), (2, 1)), np.stack([np.arange(12), -np.arange(12)]).astype(np.float32))
    assert first_results(data, 3, stage).tolist() == [[11, 10, 9], [0, 1, 2]]
    same, reranked = language_overlap(data), language_overlap(data, stage)
    assert same is not None
    assert reranked is not None
    assert same.mean == 100.0
    assert reranked.mean == 80.0  # 10 of 12 each: 8 are in both
    tiny = features(("en", "de"), [0, 0], np.stack([ranking([0], 4), ranking([3], 4)]), gallery=4)
    overlap = language_overlap(tiny)
    assert overlap is not None
    assert (overlap.first, overlap.mean) == (4, 100.0)
