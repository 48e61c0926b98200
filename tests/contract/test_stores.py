"""What every storage engine of a gallery must do, erasure and process death among it."""

from __future__ import annotations

import hashlib
import os
import re
import signal
import subprocess
import sys
import time
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest

import tipr.gallery.stores as home
from tipr.errors import GalleryCorrupt, GalleryError
from tipr.gallery.stores import COLUMNS, STORES, Row, Store

DIM = 6
TOKENS = (3, 4)


def row(number: int) -> Row:
    """A row whose every part can be told from any other's in a file of bytes."""
    rng = np.random.default_rng(number)
    return Row(
        path=f"/pictures/needle-{number:04d}.png",
        sha256=hashlib.sha256(str(number).encode()).hexdigest(),
        vector=rng.normal(size=DIM).astype(np.float16),
        thumbnail=b"\xff\xd8thumb" + rng.bytes(24) + b"\xff\xd9",
        width=20 + number,
        height=60,
        camera=None if number % 3 == 0 else f"camera {number % 3}",
        time=None if number % 2 else datetime(2026, 3, 1, 8, number % 60, 0, 250_000, tzinfo=UTC),
        box=None if number % 2 else (0.5, 1, 2, 3),
        identity=None if number % 5 == 0 else number if number % 2 else f"Müller “{number}”",
        tags=("bag=red", "雨") if number % 4 == 0 else (),
    )


@pytest.fixture(params=sorted(STORES))
def engine(request: pytest.FixtureRequest) -> type[Store]:
    return STORES[request.param]()


def test_every_file_of_the_folder_is_in_the_table() -> None:
    names = {path.stem for path in Path(str(home.__file__)).parent.glob("*.py")}
    files = names - {"__init__", "exact", "near", "on_disk", "segment"}  # ways to search a store, which keep nothing
    assert files == {engine().__module__.rsplit(".", 1)[1] for engine in STORES.values()}
    assert all(engine().name == name for name, engine in STORES.items())


def test_rows_come_piece_by_piece_coded_and_one_by_one(engine: type[Store], tmp_path: Path) -> None:
    rows = [row(number) for number in range(30)]
    store = engine.create(tmp_path, DIM)
    assert list(store.blocks()) == []
    assert store.coded(["camera"])["camera"].values == []  # type: ignore[union-attr]
    store.append(rows[:20], 0)
    store.append(rows[20:], 20)
    store.erase([3, 21])
    kept = store.ids()
    numbers = np.concatenate([ids for ids, _ in store.blocks()])
    vectors = np.concatenate([block for _, block in store.blocks()])
    np.testing.assert_array_equal(np.sort(numbers), kept)
    np.testing.assert_array_equal(vectors[np.argsort(numbers)], store.vectors())
    assert np.concatenate([ids for ids, _ in store.blocks(after=15)]).tolist() == [16, 17, 18, 19, 20, *range(22, 30)]
    assert list(store.blocks(after=29)) == []
    plain, coded = store.columns(COLUMNS), store.coded(COLUMNS)
    for name in COLUMNS:
        if name in ("time", "width", "height"):
            np.testing.assert_array_equal(coded[name], plain[name])
        else:
            assert [coded[name][place] for place in range(len(kept))] == plain[name].tolist(), name
    assert len(coded["camera"].values) == 3  # type: ignore[union-attr]
    chosen = store.rows([22, 0, 7], [*COLUMNS, "vector"])
    places = np.searchsorted(kept, [22, 0, 7])
    for name in COLUMNS:
        np.testing.assert_array_equal(chosen[name], plain[name][places])
    np.testing.assert_array_equal(chosen["vector"], store.vectors()[places])
    assert store.rows([], ["path"])["path"].shape == (0,)
    for gone in (3, 999, -1):
        with pytest.raises(KeyError, match=str(gone)):
            store.rows([0, gone], ["path"])


def test_an_index_finds_rows_and_goes_with_an_erasure(engine: type[Store], tmp_path: Path) -> None:
    store = engine.create(tmp_path, DIM)
    rows = [row(number) for number in range(400)]
    store.append(rows, 0)
    assert not store.indexed
    store.index()
    store.append([row(400)], 400)
    store = engine.open(tmp_path, DIM)
    assert store.indexed
    query = rows[7].vector.astype(np.float32)
    products = store.vectors().astype(np.float32) @ query
    found, vectors = store.nearest(query, 10)
    np.testing.assert_array_equal(vectors, store.rows(found.tolist(), ["vector"])["vector"])
    assert len(set(found.tolist()) & set(np.argsort(-products)[:10].tolist())) >= 8
    assert 400 in store.nearest(row(400).vector.astype(np.float32), 10)[0]  # it came after the index
    before = {path for path in tmp_path.rglob("*") if path.is_file()}
    store.erase([7])
    assert not store.indexed
    kept = {path for path in tmp_path.rglob("*") if path.is_file()} & before
    assert not [path for path in kept if "_indices" in str(path)]
    store.index()
    assert 7 not in store.nearest(query, 50)[0]


def test_an_empty_store_answers(engine: type[Store], tmp_path: Path) -> None:
    store = engine.create(tmp_path, DIM)
    assert store.ids().shape == (0,)
    assert store.vectors().shape == (0, DIM)
    assert store.columns(COLUMNS)["time"].dtype == np.dtype("datetime64[us]")
    assert store.thumbnails([]) == []
    store.erase([])
    store.purge()
    store.maintain()
    assert store.ids().shape == (0,)


def test_rows_come_back_as_they_were(engine: type[Store], tmp_path: Path) -> None:
    rows = [row(number) for number in range(12)]
    store = engine.create(tmp_path, DIM)
    store.append(rows[:5], 0)
    store.append(rows[5:], 7)
    store = engine.open(tmp_path, DIM)
    assert store.ids().tolist() == [0, 1, 2, 3, 4, *range(7, 14)]
    assert store.vectors().dtype == np.float16
    np.testing.assert_array_equal(store.vectors(), np.stack([item.vector for item in rows]))
    columns = store.columns(COLUMNS)
    for place, item in enumerate(rows):
        for name in set(COLUMNS) - {"time"}:
            assert columns[name][place] == getattr(item, name), name
            assert type(columns["identity"][place]) is type(item.identity)
        moment = columns["time"][place].item()
        assert moment == (None if item.time is None else item.time.replace(tzinfo=None))
    assert store.thumbnails([13, 0]) == [rows[11].thumbnail, rows[0].thumbnail]
    with pytest.raises(KeyError):
        store.thumbnails([5])


def test_readers_step_when_they_are_told(engine: type[Store], tmp_path: Path) -> None:
    writer = engine.create(tmp_path, DIM)
    reader = engine.open(tmp_path, DIM)
    before = reader.refresh()
    writer.append([row(1)], 0)
    assert len(reader.ids()) == 0
    assert reader.refresh() > before
    assert len(reader.ids()) == 1


def test_a_batch_of_another_width_changes_nothing(engine: type[Store], tmp_path: Path) -> None:
    store = engine.create(tmp_path, DIM)
    wrong = Row("/p", "0", np.zeros(DIM + 1, dtype=np.float16), b"", 1, 1)
    with pytest.raises(GalleryError, match="vectors must be"):
        store.append([wrong], 0)
    assert engine.open(tmp_path, DIM).refresh() == store.refresh()
    with pytest.raises(GalleryCorrupt):
        engine.open(tmp_path, DIM + 1)


def with_tokens(number: int) -> Row:
    """A row with image tokens that can be told from any other's."""
    tokens = np.random.default_rng([number, 1]).normal(size=TOKENS).astype(np.float16)
    return replace(row(number), tokens=tokens)


def test_image_tokens_come_back_in_the_order_asked_for(engine: type[Store], tmp_path: Path) -> None:
    store = engine.create(tmp_path, DIM, TOKENS)
    assert store.tokens([]).shape == (0, *TOKENS)
    store.append([with_tokens(number) for number in range(5)], 0)
    store.append([with_tokens(number) for number in range(5, 9)], 5)
    store = engine.open(tmp_path, DIM, TOKENS)
    found = store.tokens([7, 0, 3])
    assert found.dtype == np.float16
    np.testing.assert_array_equal(found, np.stack([with_tokens(number).tokens for number in (7, 0, 3)]))
    np.testing.assert_array_equal(store.vectors()[4], row(4).vector)
    assert store.thumbnails([7]) == [row(7).thumbnail]
    with pytest.raises(KeyError):
        store.tokens([9])


def test_rows_with_and_without_tokens_do_not_mix(engine: type[Store], tmp_path: Path) -> None:
    for name, tokens, wrong in (("with", TOKENS, row(1)), ("without", None, with_tokens(1))):
        (tmp_path / name).mkdir()
        store = engine.create(tmp_path / name, DIM, tokens)
        with pytest.raises(GalleryError, match="image tokens must be of shape"):
            store.append([wrong], 0)
        assert len(store.ids()) == 0
    with pytest.raises(GalleryCorrupt):
        engine.open(tmp_path / "with", DIM)
    with pytest.raises(GalleryCorrupt):
        engine.open(tmp_path / "without", DIM, TOKENS)
    with pytest.raises(ValueError, match="keeps no image tokens"):
        engine.open(tmp_path / "without", DIM).tokens([1])


def test_the_tokens_of_an_erased_row_are_gone(engine: type[Store], tmp_path: Path) -> None:
    store = engine.create(tmp_path, DIM, TOKENS)
    store.append([with_tokens(number) for number in range(40)], 0)
    needles = {number: with_tokens(number).tokens.tobytes() for number in (5, 39)}
    assert all(_files_with(tmp_path, needle) for needle in needles.values())
    store.erase(list(needles))
    assert not [hit for needle in needles.values() for hit in _files_with(tmp_path, needle)]
    np.testing.assert_array_equal(engine.open(tmp_path, DIM, TOKENS).tokens([6]), with_tokens(6).tokens[None])


def _files_with(folder: Path, needle: bytes) -> list[str]:
    return [str(path) for path in folder.rglob("*") if path.is_file() and needle in path.read_bytes()]


@pytest.mark.parametrize("commits", [1, 7])
def test_no_byte_of_an_erased_row_stays(engine: type[Store], tmp_path: Path, commits: int) -> None:
    count = 70
    store = engine.create(tmp_path, DIM)
    for part in range(commits):
        ids = range(part * count // commits, (part + 1) * count // commits)
        store.append([row(number) for number in ids], ids[0])
    gone, kept = [3, 33, 69], [4, 34, 68]

    def needles(number: int) -> list[bytes]:
        item = row(number)
        return [item.path.encode(), item.sha256.encode(), item.thumbnail, item.vector.tobytes()]

    assert all(_files_with(tmp_path, needle) for number in gone for needle in needles(number))
    store.erase(gone)
    assert not [hit for number in gone for needle in needles(number) for hit in _files_with(tmp_path, needle)]
    for store_now in (store, engine.open(tmp_path, DIM)):
        assert store_now.ids().tolist() == [number for number in range(count) if number not in gone]
        assert store_now.thumbnails(kept) == [row(number).thumbnail for number in kept]
    store.erase([number for number in range(count) if number not in gone])
    assert not _files_with(tmp_path, b"/pictures/needle-")
    assert len(engine.open(tmp_path, DIM).ids()) == 0


def test_the_pieces_are_counted_and_merged(engine: type[Store], tmp_path: Path) -> None:
    store = engine.create(tmp_path, DIM)
    for number in range(4):
        store.append([row(number)], number)
    assert store.pieces().fragments == 4
    assert store.pieces().deleted_rows == 0
    store.compact()
    assert store.pieces().fragments == 1
    assert store.ids().tolist() == [0, 1, 2, 3]
    store.erase([1])
    assert (store.pieces().versions, store.pieces().deleted_rows) == (1, 0)
    assert store.engine


def test_a_row_keeps_the_time_of_its_indexing(engine: type[Store], tmp_path: Path) -> None:
    store = engine.create(tmp_path, DIM)
    before = datetime.now(UTC).replace(tzinfo=None)
    store.append([replace(row(1), indexed=datetime(2020, 5, 1, 12, tzinfo=UTC)), row(2)], 0)
    first, second = store.columns(("indexed",))["indexed"]
    assert first.item() == datetime(2020, 5, 1, 12)
    assert before <= second.item() <= datetime.now(UTC).replace(tzinfo=None)
    store.compact()
    assert store.columns(("indexed",))["indexed"][0].item() == datetime(2020, 5, 1, 12)


def test_damage_is_named_in_one_line_and_never_gives_wrong_rows(
    engine: type[Store], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    store = engine.create(tmp_path, DIM)
    store.append([row(number) for number in range(5)], 0)
    expected = store.vectors()
    messages, steps_back = [], 0
    for path in [path for path in tmp_path.rglob("*") if path.is_file()]:
        whole = path.read_bytes()
        for size in (0, len(whole) // 2):
            path.write_bytes(whole[:size])
            caplog.clear()
            try:
                found = engine.open(tmp_path, DIM).vectors()
            except GalleryCorrupt as error:
                messages.append(str(error))
                continue
            if caplog.messages:  # the newest version cannot be read: the one before is served, and loudly
                assert "going back to version" in caplog.text
                assert len(found) == 0
                steps_back += 1
            else:
                np.testing.assert_array_equal(found, expected)  # a file of its history
        path.write_bytes(whole)
    assert (len(messages), steps_back) == (2, 2)  # the rows themselves, and what lists them
    for message in messages:
        assert re.fullmatch(r"gallery [^\n]* is damaged: [^\n/]*", message), message
    assert len(engine.open(tmp_path, DIM).ids()) == 5


def test_a_missing_table_is_damage(engine: type[Store], tmp_path: Path) -> None:
    with pytest.raises(GalleryCorrupt, match="is missing"):
        engine.open(tmp_path, DIM)


WRITER = """
import sys
sys.path.insert(0, {tests!r})
from pathlib import Path
from test_stores import DIM, row
from tipr.gallery.stores import STORES
store = STORES[{name!r}]().open(Path({folder!r}), DIM)
first = len(store.ids())
print("ready", flush=True)
while True:
    store.append([row(first + place) for place in range(10)], first)
    first += 10
    print(first, flush=True)
"""


def _kill_rounds(engine: type[Store], folder: Path, rounds: int) -> None:
    engine.create(folder, DIM)
    code = WRITER.format(tests=str(Path(__file__).parent), name=engine.name, folder=str(folder))
    rng = np.random.default_rng(rounds)
    for _ in range(rounds):
        log = folder.parent / "log.txt"
        with log.open("w") as stream:
            child = subprocess.Popen(
                [sys.executable, "-c", code], stdout=stream, env={**os.environ, "OMP_NUM_THREADS": "1"}
            )
            while len(log.read_text().split()) < 3:
                assert child.poll() is None
                time.sleep(0.01)
            time.sleep(float(rng.uniform(0, 0.15)))
            child.send_signal(signal.SIGKILL)
            child.wait()
        acknowledged = int(log.read_text().split()[-1])
        ids = engine.open(folder, DIM).ids()
        assert acknowledged <= len(ids) <= acknowledged + 10
        assert len(ids) % 10 == 0  # a batch is there as a whole or not at all
        assert ids.tolist() == list(range(len(ids)))
        paths = engine.open(folder, DIM).columns(("path",))["path"]
        assert paths.tolist() == [row(number).path for number in range(len(ids))]


def test_a_killed_writer_loses_nothing_that_was_acknowledged(engine: type[Store], tmp_path: Path) -> None:
    (tmp_path / "store").mkdir()
    _kill_rounds(engine, tmp_path / "store", rounds=1)


@pytest.mark.slow
def test_a_writer_killed_many_times_loses_nothing(engine: type[Store], tmp_path: Path) -> None:
    (tmp_path / "store").mkdir()
    _kill_rounds(engine, tmp_path / "store", rounds=12)
