"""Two-stage ranking: the order against a slow reference, its mAP, the shortlist, both tails, the split, the files."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from tipr.data.samples import ImageItem, Split
from tipr.errors import ConfigError
from tipr.evaluation import Evaluation, Features, SecondStage, encode_split, evaluate, rerank_split, write_trec
from tipr.evaluation.evaluate import score_features
from tipr.metrics import query_results_two_stage, stable_similarity, top_k, two_stage_order
from tipr.metrics.ranking import Tail

TAILS: tuple[Tail, ...] = ("cosine", "constant")


def reference_order(similarity: list[float], match: dict[int, float], tail: Tail) -> list[int]:
    """The order by definition: compare any two pictures by what each of them has."""

    def key(position: int) -> tuple[float, ...]:
        if tail == "constant":
            return (-match.get(position, -100.0), position)
        if position in match:
            return (0, -match[position], position)
        return (1, -similarity[position], position)

    return sorted(range(len(similarity)), key=key)


def reference_average_precision(order: list[int], relevant: set[int]) -> float:
    """AP by definition, over the whole gallery."""
    right, total = 0, 0.0
    for rank, position in enumerate(order, 1):
        if position in relevant:
            right += 1
            total += right / rank
    return total / len(relevant)


@pytest.mark.parametrize("tail", TAILS)
@pytest.mark.parametrize("seed", range(20))
def test_the_order_is_the_slow_one_with_ties_everywhere(seed: int, tail: Tail) -> None:
    rng = np.random.default_rng(seed)
    size = int(rng.integers(1, 40))
    similarity = rng.integers(-3, 4, size).astype(np.float32) / 4
    shortlist = top_k(similarity, int(rng.integers(0, size + 1)))
    match = rng.choice([-150.0, -100.0, -1.5, 0.0, 2.0], len(shortlist)).astype(np.float32)
    found = two_stage_order(similarity, shortlist, match, tail=tail)
    scored = dict(zip(shortlist.tolist(), match.tolist(), strict=True))
    assert found.tolist() == reference_order(similarity.tolist(), scored, tail)


@pytest.mark.parametrize("tail", TAILS)
def test_scores_of_each_query_are_those_of_the_slow_order(tail: Tail) -> None:
    rng = np.random.default_rng(7)
    query, gallery = rng.normal(size=(25, 3)).astype(np.float32), rng.normal(size=(60, 3)).astype(np.float32)
    gallery = np.round(gallery)  # copies, so that ties decide
    query_identity, gallery_identity = rng.integers(0, 9, 25), rng.permutation(np.arange(60) % 9)
    similarity = stable_similarity(query, gallery)
    shortlist = top_k(similarity, 12)
    match = rng.integers(-4, 5, shortlist.shape).astype(np.float32)
    results = query_results_two_stage(
        query, gallery, query_identity, gallery_identity, shortlist=shortlist, match=match, tail=tail
    )
    moved = 0
    for q in range(25):
        scored = dict(zip(shortlist[q].tolist(), match[q].tolist(), strict=True))
        order = reference_order(similarity[q].tolist(), scored, tail)
        relevant = set(np.flatnonzero(gallery_identity == query_identity[q]).tolist())
        assert results.average_precision[q] == pytest.approx(reference_average_precision(order, relevant), abs=1e-12)
        assert results.first_rank[q] == 1 + min(order.index(position) for position in relevant)
        moved += order != np.argsort(-similarity[q], kind="stable").tolist()
    assert moved > 20


def test_the_tails_differ_only_behind_the_shortlist() -> None:
    rng = np.random.default_rng(3)
    similarity = rng.normal(size=50).astype(np.float32)
    shortlist = top_k(similarity, 8)
    match = rng.normal(size=8).astype(np.float32)
    cosine = two_stage_order(similarity, shortlist, match)
    constant = two_stage_order(similarity, shortlist, match, tail="constant")
    np.testing.assert_array_equal(cosine[:8], constant[:8])
    assert set(cosine[:8]) == set(shortlist)
    assert constant[8:].tolist() == sorted(constant[8:])
    assert (np.diff(similarity[cosine[8:]]) <= 0).all()


def test_a_tail_or_score_that_is_none_is_refused() -> None:
    similarity, shortlist, match = np.zeros(3, np.float32), np.array([1]), np.zeros(1, np.float32)
    with pytest.raises(ValueError, match="tail is 'none'; allowed: cosine, constant"):
        two_stage_order(similarity, shortlist, match, tail="none")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="NaN"):
        two_stage_order(similarity, shortlist, match * np.nan)


class Matcher:
    """Match scores from a table: token 0 of a picture is its gallery position."""

    def __init__(self, captions: tuple[str, ...], gallery: int) -> None:
        rng = np.random.default_rng(11)
        self.table = {caption: rng.normal(size=gallery).astype(np.float32) for caption in captions}

    def score(self, query: str, image_tokens: NDArray[np.float16]) -> NDArray[np.float32]:
        return self.table[query][image_tokens[:, 0, 0].astype(np.int64)]


class Words:
    """Rows of captions and images from their names alone; four numbers, so that everything is near everything."""

    def encode_text(self, captions: list[str], *, language: object = None, **_: object) -> NDArray[np.float32]:
        return self._rows([hash_of(caption) for caption in captions])

    def encode_images(self, images: list[Path], **_: object) -> NDArray[np.float32]:
        return self._rows([hash_of(path.name) for path in images])

    @staticmethod
    def _rows(seeds: list[int]) -> NDArray[np.float32]:
        rows = np.stack([np.random.default_rng(seed).normal(size=4) for seed in seeds])
        return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def hash_of(text: str) -> int:
    return int.from_bytes(text.encode()[-6:], "big")


@pytest.fixture
def split() -> Split:
    items = [
        ImageItem(
            Path(f"{number:03d}.jpg"), number % 10, tuple((code, f"{code} {number:03d}") for code in ("en", "de"))
        )
        for number in range(40)
    ]
    return Split.build("test", items, check_files=False)


@pytest.fixture
def features(split: Split) -> Features:
    return encode_split(Words(), split)  # type: ignore[arg-type]


def tokens_of(gallery: int) -> NDArray[np.float16]:
    return np.arange(gallery, dtype=np.float16).reshape(-1, 1, 1).repeat(2, axis=1)


@pytest.mark.parametrize("tail", TAILS)
def test_a_split_is_reranked_query_by_query(split: Split, features: Features, tail: Tail) -> None:
    matcher = Matcher(features.captions, 40)
    seen: list[tuple[int, int]] = []
    stage = rerank_split(
        matcher, features, tokens_of(40), 6, tail=tail, progress=lambda done, total: seen.append((done, total))
    )
    assert seen[-1] == (80 * 6, 80 * 6)
    similarity = stable_similarity(features.text, features.images)
    average = []
    for q, caption in enumerate(features.captions):
        best = sorted(range(40), key=lambda position: (-similarity[q, position], position))[:6]
        scored = {position: float(matcher.table[caption][position]) for position in best}
        order = reference_order(similarity[q].tolist(), scored, tail)
        assert stage.order(q, similarity[q]).tolist() == order
        relevant = set(np.flatnonzero(features.gallery_identity == features.query_identity[q]).tolist())
        average.append(reference_average_precision(order, relevant))
    result = evaluate(Words(), split, features=features, second_stage=stage, bootstrap=20)  # type: ignore[arg-type]
    english = [value for value, code in zip(average, features.language, strict=True) if code == "en"]
    assert result.text_to_image.languages["en"].mean_ap == pytest.approx(100 * np.mean(english), abs=1e-9)
    assert result.text_to_image.mean.mean_ap == pytest.approx(100 * np.mean(average), abs=1e-9)
    alone = evaluate(Words(), split, features=features, bootstrap=20)  # type: ignore[arg-type]
    assert result.reranking is not None
    assert (result.reranking.k, result.reranking.tail) == (6, tail)
    assert result.reranking.first_stage == alone.text_to_image != result.text_to_image
    assert result.image_to_text == alone.image_to_text
    assert alone.reranking is None
    assert Evaluation.from_json(json.loads(json.dumps(result.to_json()))) == result


def test_a_shortlist_is_capped_at_the_gallery(features: Features) -> None:
    matcher = Matcher(features.captions, 40)
    stage = rerank_split(matcher, features, tokens_of(40), 256)
    assert stage.k == 40
    np.testing.assert_array_equal(stage.match, [matcher.table[caption] for caption in features.captions])
    similarity = stable_similarity(features.text, features.images)
    other = rerank_split(matcher, features, tokens_of(40), 256, tail="constant")
    for q in range(80):  # with everything on the shortlist there is no tail
        np.testing.assert_array_equal(stage.order(q, similarity[q]), other.order(q, similarity[q]))


def test_what_does_not_fit_is_refused(features: Features) -> None:
    matcher = Matcher(features.captions, 40)
    with pytest.raises(ValueError, match="k is 0"):
        rerank_split(matcher, features, tokens_of(40), 0)
    with pytest.raises(ValueError, match="39 rows of image tokens for 40 images"):
        rerank_split(matcher, features, tokens_of(39), 5)
    stage = rerank_split(matcher, features, tokens_of(40), 5)
    with pytest.raises(ValueError, match="not captions for images"):
        score_features(
            features.text,
            features.images,
            features.query_identity,
            features.gallery_identity,
            direction="image_to_text",
            second_stage=stage,
        )


def test_a_model_without_match_head_is_one_clear_line(split: Split, features: Features) -> None:
    with pytest.raises(ConfigError, match=r"cannot rerank: its encoder 'Words' has no match head; .*: beit_xlmr$"):
        evaluate(Words(), split, features=features, rerank=5)  # type: ignore[arg-type]


def test_a_trec_run_lists_the_reranked_order(tmp_path: Path, features: Features) -> None:
    stage = SecondStage(
        shortlist=np.tile(np.array([3, 5, 30]), (80, 1)), match=np.tile(np.float32([-9.0, -7.0, -7.0]), (80, 1))
    )
    names = [f"{position:02d}" for position in range(40)]
    path = write_trec(
        tmp_path / "run", features.text, features.images, features.query_names(), names, depth=9, second_stage=stage
    )
    lines = [line.split() for line in path.read_text().splitlines()]
    similarity = stable_similarity(features.text, features.images)
    for q in range(80):
        part = lines[9 * q : 9 * q + 9]
        assert [int(line[2]) for line in part] == stage.order(q, similarity[q])[:9].tolist()
        assert [int(line[2]) for line in part[:3]] == [5, 30, 3]
        scores = [np.float32(line[4]) for line in part]
        assert all(one > other for one, other in pairwise(scores))
        assert scores[0] == -7.0
