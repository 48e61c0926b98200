"""Queries of words, pictures and both, what must not be there, files of queries, and pages beside a writer."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from colour_model import ColourModel, paint
from test_where import PAYLOADS

from tipr.errors import ConfigError, GalleryError
from tipr.gallery import Gallery
from tipr.gallery.conditions import quoted
from tipr.gallery.filters import Filters
from tipr.gallery.query import Query, read_queries

COLOURS = ("red", "green", "blue", "grey")


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """16 colour pairs, two noisy pictures of each, and copies of the first four: ties."""
    folder = tmp_path_factory.mktemp("pictures")
    for seed in range(32):
        paint(folder / f"{seed:02d}.png", COLOURS[seed % 4], COLOURS[seed // 4 % 4], seed=seed)
    for seed in range(4):
        (folder / f"copy{seed}.png").write_bytes((folder / f"{seed:02d}.png").read_bytes())
    return folder


@pytest.fixture(scope="module")
def gallery(tmp_path_factory: pytest.TempPathFactory, pictures: Path) -> Gallery:
    model: Any = ColourModel()
    made = Gallery.create(tmp_path_factory.mktemp("galleries") / "g", model)
    made.add([pictures])
    return made


def names(hits: list[Any]) -> list[str]:
    return [Path(hit.metadata["path"]).name for hit in hits]


def test_a_picture_finds_itself_and_what_is_alike(gallery: Gallery, pictures: Path) -> None:
    hits = gallery.search(Query(image=pictures / "06.png"), k=2)
    assert set(names(hits)) == {"06.png", "22.png"}  # the other noisy picture of the same colours
    assert hits[0].score == pytest.approx(1, abs=1e-3)
    with pytest.raises(GalleryError, match=r"no\.png: .*does not exist|no\.png: "):
        gallery.search(Query(image=pictures / "no.png"))


def test_weights_move_between_words_and_picture(gallery: Gallery, pictures: Path) -> None:
    both = [
        gallery.search(Query("red coat red trousers", image=pictures / "06.png", image_weight=weight), k=36)
        for weight in (0.0, 0.5, 1.0)
    ]
    for mixed, pure in ((both[0], "red coat red trousers"), (both[2], Query(image=pictures / "06.png"))):
        alone = gallery.search(pure, k=36)
        assert names(mixed) == names(alone)
        np.testing.assert_allclose([hit.score for hit in mixed], [hit.score for hit in alone], atol=2e-6)
    assert names(both[1]) not in (names(both[0]), names(both[2]))
    assert all(-1.001 <= hit.score <= 1.001 for hit in both[1])  # still a cosine


def test_what_must_not_be_there_pushes_down(gallery: Gallery) -> None:
    words = Query("red coat grey trousers", without="grey coat grey trousers", without_weight=0.6)
    model = ColourModel()
    with_, without = (model.encode_text([text])[0].astype(np.float64) for text in (words.text, words.without))  # type: ignore[list-item]
    mixed = with_ - 0.6 * without
    expected = gallery.search((mixed / np.linalg.norm(mixed)).astype(np.float32), k=5)
    found = gallery.search(words, k=5)
    assert [(hit.id, hit.score) for hit in found] == [(hit.id, hit.score) for hit in expected]
    with pytest.raises(ConfigError, match="cancel each other out"):
        gallery.search(Query("red", without="red", without_weight=1.0))


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({}, "the query is empty: describe a person in words, or give a picture"),
        ({"text": "  "}, "the query is empty"),
        ({"text": "a", "without": ""}, "the query's `not` is empty"),
        ({"text": "\udcff"}, "the query is not valid UTF-8"),
        ({"text": "a", "image_weight": 1.2}, "image_weight must lie between 0 and 1, not 1.2"),
        ({"text": "a", "image_weight": float("nan")}, "image_weight must lie"),
        ({"text": "a", "without": "b", "without_weight": 0.0}, "not_weight must lie above 0"),
    ],
)
def test_a_query_that_says_nothing_is_refused(given: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Query(**given)


def test_only_words_are_reranked(gallery: Gallery, pictures: Path) -> None:
    for query in (Query(image=pictures / "06.png"), Query("red", without="blue"), np.ones(8, np.float32)):
        with pytest.raises(ConfigError, match="reranking needs a query in words"):
            gallery.search(query, rerank=3)
    with pytest.raises(ConfigError, match="after: a reranked search has one page"):
        gallery.search_page("red", rerank=3, after="x")


def test_a_file_of_queries(tmp_path: Path) -> None:
    (tmp_path / "plain.txt").write_text("\ufeffa red coat\n\n  一名女士  \n", encoding="utf-8")
    assert read_queries(tmp_path / "plain.txt") == [Query("a red coat"), Query("一名女士")]
    lines = [
        {"text": "a", "not": "b", "not_weight": 0.3},
        {"image": "x.png"},
        {"text": "c", "image": "y.png", "image_weight": 1},
    ]
    (tmp_path / "q.jsonl").write_text("\n".join(map(json.dumps, lines)), encoding="utf-8")
    assert read_queries(tmp_path / "q.jsonl") == [
        Query("a", without="b", without_weight=0.3),
        Query(image=tmp_path / "x.png"),
        Query("c", image=tmp_path / "y.png", image_weight=1),
    ]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("[1]", "not a JSON object"),
        ("{", "not a JSON object"),
        ('{"words": "a"}', "'words' is not known; allowed: text, image, image_weight, not, not_weight"),
        ('{"text": 3}', "text must be a text, not 3"),
        ('{"text": "a", "not_weight": true}', "not_weight must be a number, not True"),
        ('{"not": "a"}', "the query is empty"),
    ],
)
def test_a_bad_line_is_named(tmp_path: Path, line: str, message: str) -> None:
    (tmp_path / "q.jsonl").write_text(f'{{"text": "a"}}\n{line}\n', encoding="utf-8")
    with pytest.raises(ConfigError, match=rf"q\.jsonl, line 2: {message}"):
        read_queries(tmp_path / "q.jsonl")


def test_a_file_without_queries_is_refused(tmp_path: Path) -> None:
    (tmp_path / "empty.txt").write_text("\n \n", encoding="utf-8")
    (tmp_path / "latin.txt").write_bytes(b"caf\xe9")
    for name, message in (("empty.txt", "holds no query"), ("latin.txt", "not UTF-8"), ("none.txt", "No such file")):
        with pytest.raises(ConfigError, match=message):
            read_queries(tmp_path / name)


def test_many_queries_give_what_each_gives(gallery: Gallery, pictures: Path) -> None:
    queries: list[str | Query] = [f"{a} coat {b} trousers" for a in COLOURS for b in COLOURS]
    queries += [Query(image=pictures / "06.png"), Query("red", without="blue")]
    filters = Filters.of(where="path *= 1 or path *= copy")
    for group_by in (None, "sha256"):
        together = gallery.search_many(queries, 6, filters=filters, group_by=group_by)
        assert together == [gallery.search(query, 6, where=filters.where, group_by=group_by) for query in queries]
    assert gallery.search_many([], 3) == []


@pytest.mark.parametrize("group_by", [None, "sha256"])
def test_pages_beside_a_writer_are_the_first_search_without_what_was_erased(
    gallery: Gallery, tmp_path: Path, group_by: str | None
) -> None:
    shutil.copytree(gallery.path, tmp_path / "g")
    gallery = Gallery.open(tmp_path / "g", model=ColourModel())  # type: ignore[arg-type]
    rng = np.random.default_rng(4)
    options: dict[str, Any] = {"where": "not path *= 17", "group_by": group_by}
    whole = [hit.id for hit in gallery.search("green coat red trousers", k=99, **options)]
    assert len(whole) == (31 if group_by else 35)
    writer = Gallery.open(gallery.path, model=ColourModel())  # type: ignore[arg-type]
    shown: list[int] = []
    erased: set[int] = set()
    cursor = None
    for step in range(99):
        page = gallery.search_page("green coat red trousers", 4, after=cursor, **options)
        shown += [hit.id for hit in page.hits]
        cursor = page.cursor
        if cursor is None:
            break
        assert len(page.hits) == 4
        writer.add([paint(tmp_path / f"new{step}.png", "green", "red", seed=100 + step)])  # would come first
        if step < 3:
            going = int(rng.choice([row for row in whole if row not in erased]))
            writer.remove([going])
            erased.add(going)
    assert len(shown) == len(set(shown))
    if group_by is None:
        assert [row for row in shown if row not in erased] == [row for row in whole if row not in erased]
    else:  # where the best of a group was erased, another of it may stand in its place
        assert [row for row in shown if row in whole and row not in erased] == [r for r in whole if r not in erased]
    assert set(erased) & set(shown[4 * 4 :]) == set()


def test_a_cursor_belongs_to_its_search(gallery: Gallery) -> None:
    page = gallery.search_page("red", 3)
    assert page.cursor is not None
    assert gallery.search_page("red", 3, after=page.cursor).hits[0].id != page.hits[0].id
    for query, options in (("blue", {}), ("red", {"path": "1"}), ("red", {"group_by": "camera"})):
        with pytest.raises(ConfigError, match="belongs to another query"):
            gallery.search_page(query, 3, after=page.cursor, **options)  # type: ignore[arg-type]
    for wrong in ("", "x", "ü", "AAAA", page.cursor[:-3], page.cursor + "AA", "!" * 47):
        with pytest.raises(ConfigError, match="this is not a cursor"):
            gallery.search_page("red", 3, after=wrong)
    assert gallery.search_page("red", 99).cursor is None


def test_a_thousand_payloads_change_nothing_and_find_nothing(gallery: Gallery) -> None:
    def state() -> dict[Path, bytes]:
        return {path: path.read_bytes() for path in gallery.path.rglob("*") if path.is_file()}

    before = state()
    query = np.ones(8, np.float32)
    assert gallery.search(query, camera=PAYLOADS) == []
    for payload in PAYLOADS[::40]:
        given: list[dict[str, Any]] = [{"camera": payload}, {"tags": payload}, {"where": f"path = {quoted(payload)}"}]
        for options in given:
            assert gallery.search(query, **options) == []
    assert state() == before
    assert len(gallery.search(query, 99)) == 36


def test_the_rows_of_a_filter_are_remembered_until_the_gallery_changes(
    gallery: Gallery, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(gallery.path, tmp_path / "g")
    gallery = Gallery.open(tmp_path / "g", model=ColourModel())  # type: ignore[arg-type]
    asked: list[str] = []
    mask = Filters.mask

    def counting(filters: Filters, *given: Any) -> Any:
        asked.append(str(filters.where))
        return mask(filters, *given)

    monkeypatch.setattr(Filters, "mask", counting)
    for _ in range(2):
        for number in range(1, 5):
            assert gallery.search("red", 3, where=f"path *= '{number}.png'")
    assert len(asked) == 4
    gallery.search("red", where="path *= new")
    gallery.search("red", where="path *= '1.png'")  # the first of five is forgotten
    assert len(asked) == 6
    gallery.add([paint(tmp_path / "new.png", "red", "red", seed=7)])
    assert names(gallery.search("red", where="path *= new")) == ["new.png"]
