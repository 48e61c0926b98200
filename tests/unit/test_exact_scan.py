"""The exact scan gives the order of the one rule, ties among it, whatever its pieces, and follows its store."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from tipr.errors import MissingExtra
from tipr.gallery.stores import exact
from tipr.gallery.stores.exact import ExactScan
from tipr.gallery.stores.segment import Segment, faiss_installed, load_faiss
from tipr.metrics import best_rows, first_scores
from tipr.metrics.best_rows import block_of, ranked_from_blocks
from tipr.metrics.first_scores import FirstScores, slack
from tipr.metrics.ranking import full_order, stable_similarity

DIM = 32
needs_faiss = pytest.mark.skipif(not faiss_installed(), reason="the extra `scan` is not installed")
WAYS = [False, pytest.param(True, marks=needs_faiss)]


class Rows:
    """What a scan needs of a store; its pieces come in any order, as after a merge."""

    def __init__(self, vectors: NDArray[np.float16], ids: NDArray[np.int64] | None = None) -> None:
        self.vectors = vectors
        self.numbers = np.arange(len(vectors)) if ids is None else ids
        self.read = 0

    def ids(self) -> NDArray[np.int64]:
        return self.numbers.copy()

    def blocks(self, after: int = -1) -> Iterator[tuple[NDArray[np.int64], NDArray[np.float16]]]:
        chosen = np.flatnonzero(self.numbers > after)
        for part in reversed(np.array_split(chosen, max(1, len(chosen) // 70))) if after < 0 else [chosen]:
            self.read += len(part)
            yield self.numbers[part], self.vectors[part]


@pytest.fixture(autouse=True)
def small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exact, "SEGMENT", 200)
    monkeypatch.setattr(first_scores, "PRODUCT", 64)
    monkeypatch.setattr(first_scores, "SHARE", 48)
    monkeypatch.setattr(best_rows, "SCORES", 700)
    monkeypatch.setattr(best_rows, "BEGINNING", 16)
    monkeypatch.setattr(best_rows, "HELD", 20)


def people(rng: np.random.Generator, count: int, kind: str) -> NDArray[np.float16]:
    """Unit vectors; "copies" repeats a few of them, "close" tells them apart by the last bit of half precision."""
    vectors = rng.normal(size=(count, DIM))
    if kind != "spread":
        vectors = vectors[rng.integers(0, 7, count)]
    half = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float16)
    if kind == "close":
        flips = rng.random(half.shape) < 0.02
        half.view(np.uint16)[flips] ^= 1
    return half


def expected(
    query: NDArray[np.float32], rows: Rows, count: int, keep: NDArray[np.bool_] | None
) -> tuple[list[int], list[float]]:
    scores = stable_similarity(query, rows.vectors)
    order = [int(place) for place in full_order(scores) if keep is None or keep[place]][:count]
    return order, scores[order].tolist()


@pytest.mark.parametrize("kind", ["spread", "copies", "close"])
@pytest.mark.parametrize("fast", WAYS)
@pytest.mark.parametrize("coarse", [False, True])
def test_the_order_is_that_of_the_one_rule(
    fast: bool, kind: str, coarse: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if coarse:
        pytest.importorskip("torch")
    monkeypatch.setattr(first_scores, "_multiplies_bfloat16", lambda: coarse)
    rng = np.random.default_rng(3)
    rows = Rows(people(rng, 900, kind))
    scan = ExactScan.of(rows, DIM, fast=fast)  # type: ignore[arg-type]
    assert len(scan.segments) == 5
    queries = people(rng, 9, "spread").astype(np.float32) * np.float32(1.7)
    queries[3] = rows.vectors[5]
    for share in (None, 0.5, 0.02, 0.0):
        keep = None if share is None else rng.random(900) < share
        for count in (1, 10, 250, 2000):
            together = scan.best(queries, count, keep)
            for query, ranked in zip(queries, together, strict=True):
                alone = scan.best(query[None], count, keep)[0]
                wanted = expected(query, rows, count, keep)
                assert (ranked.positions.tolist(), ranked.scores.tolist()) == wanted
                assert (alone.positions.tolist(), alone.scores.tolist()) == wanted


@needs_faiss
def test_many_copies_at_the_edge_are_all_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    vectors = people(rng, 1000, "spread")
    vectors[100:] = vectors[100]
    scan = ExactScan.of(Rows(vectors), DIM, fast=True)  # type: ignore[arg-type]
    asked: list[int] = []
    search = Segment.search

    def counting(segment: Segment, query: Any, count: int, keep: Any) -> Any:
        asked.append(count)
        return search(segment, query, count, keep)

    monkeypatch.setattr(Segment, "search", counting)
    query = vectors[100].astype(np.float32)
    assert scan.best(query[None], 5)[0].positions.tolist() == [100, 101, 102, 103, 104]
    assert max(asked) == 200  # the whole of a piece, since none of its rows could be ruled out


@needs_faiss
def test_arithmetic_outside_its_bound_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(5)
    rows = Rows(people(rng, 600, "close"))
    scan = ExactScan.of(rows, DIM, fast=True)  # type: ignore[arg-type]
    search = Segment.search

    def rough(segment: Segment, query: Any, count: int, keep: Any) -> Any:
        places, values = search(segment, query, count, keep)
        return places, values + np.float32(0.01)

    monkeypatch.setattr(Segment, "search", rough)
    query = people(rng, 1, "spread")[0].astype(np.float32)
    assert scan.best(query[None], 7)[0].positions.tolist() == expected(query, rows, 7, None)[0]


@needs_faiss
def test_the_bound_holds_with_room_to_spare() -> None:
    rng = np.random.default_rng(1)
    vectors = people(rng, 150, "spread")
    segment = Segment(vectors, fast=True)
    for query in people(rng, 20, "spread").astype(np.float32):
        places, values = segment.search(query, 150, None)
        wrong = np.abs(values - stable_similarity(query, vectors)[places]).max()
        assert wrong <= slack(DIM, float(np.linalg.norm(query)), segment.longest)


@pytest.mark.parametrize("coarse", [False, True])
def test_first_scores_are_wrong_by_less_than_they_say(coarse: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("torch")
    monkeypatch.setattr(first_scores, "_multiplies_bfloat16", lambda: coarse)
    rng = np.random.default_rng(4)
    for factor in (1.0, 0.01):
        rows = people(rng, 500, "spread") * np.float16(factor)
        queries = np.asarray(3 * rng.normal(size=(40, DIM)), dtype=np.float32)
        queries[0], queries[1] = 1 + 2.0**-8, np.sign(rows[7]) * (1 + 2.0**-8)  # rounded as far as can be
        first = FirstScores(queries)
        wrong = np.abs(first.of(rows) - stable_similarity(queries, rows)).max(axis=1)
        told = first.wrong(np.linalg.norm(queries, axis=1), factor * 1.001)
        assert (wrong <= told).all()
        assert (wrong > 1e-4 * told).any()


@pytest.mark.parametrize("fast", WAYS)
def test_it_follows_what_is_added_and_what_is_gone(fast: bool) -> None:
    rng = np.random.default_rng(7)
    everything = people(rng, 3000, "close")
    ids = np.arange(500)
    rows = Rows(everything[:500], ids)
    scan = ExactScan.of(rows, DIM, fast=fast)  # type: ignore[arg-type]
    assert scan.follow(rows) is scan  # type: ignore[arg-type]
    taken = 500
    for step in range(25):
        stays = rng.random(len(ids)) > (0.9 if step == 11 else 0.05)
        new = int(rng.integers(0, 130))
        ids = np.concatenate([ids[stays], np.arange(taken, taken + new)])
        taken += new
        rows = Rows(everything[ids], ids)
        before, scan = scan, scan.follow(rows)  # type: ignore[arg-type]
        assert rows.read == new  # nothing that was known is read again
        np.testing.assert_array_equal(scan.ids, ids)
        np.testing.assert_array_equal(scan.rows(np.arange(len(ids))), rows.vectors)
        query = everything[step].astype(np.float32)
        assert scan.best(query[None], 20)[0].positions.tolist() == expected(query, rows, 20, None)[0]
        assert len(before.rows(np.arange(len(before)))) == len(before)  # a reader of the older version is not disturbed
    empty = Rows(everything[:0], ids[:0])
    assert scan.follow(empty).best(everything[:1].astype(np.float32), 3)[0].positions.tolist() == []  # type: ignore[arg-type]


def test_a_store_that_lost_its_history_is_read_anew() -> None:
    rng = np.random.default_rng(9)
    vectors = people(rng, 60, "spread")
    scan = ExactScan.of(Rows(vectors[:20], np.arange(10, 30)), DIM, fast=False)  # type: ignore[arg-type]
    other = Rows(vectors[20:], np.arange(40))
    np.testing.assert_array_equal(scan.follow(other).rows(np.arange(40)), vectors[20:])  # type: ignore[arg-type]


def test_blocks_need_not_come_in_order_nor_fit_together() -> None:
    rng = np.random.default_rng(2)
    rows = Rows(people(rng, 400, "copies") * np.float16(0.5))
    rows.vectors[300:] *= np.float16(4)  # later blocks hold longer rows: their error is larger
    queries = people(rng, 3, "spread").astype(np.float32)
    places = rng.permutation(400)
    blocks = [block_of(part, rows.vectors[part]) for part in np.array_split(places, 13)]
    for query, ranked in zip(queries, ranked_from_blocks(queries, blocks, 30), strict=True):
        assert (ranked.positions.tolist(), ranked.scores.tolist()) == expected(query, rows, 30, None)
    assert ranked_from_blocks(queries, [], 3)[0].positions.tolist() == []


def test_without_the_extra_numpy_does_it_and_asking_for_it_says_how(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = Rows(people(np.random.default_rng(0), 300, "spread"))
    monkeypatch.setitem(__import__("sys").modules, "faiss", None)
    monkeypatch.setattr(exact, "faiss_installed", lambda: False)
    monkeypatch.setattr(exact, "FAISS_FROM", 10)
    load_faiss.cache_clear()
    with pytest.raises(MissingExtra, match=r'faiss-cpu is not installed: run  pip install "tipr\[scan\]"'):
        ExactScan.of(rows, DIM, fast=True)  # type: ignore[arg-type]
    scan = ExactScan.of(rows, DIM)  # type: ignore[arg-type]
    assert not scan.fast
    query = rows.vectors[4].astype(np.float32)
    assert scan.best(query[None], 6)[0].positions.tolist() == expected(query, rows, 6, None)[0]
    load_faiss.cache_clear()
