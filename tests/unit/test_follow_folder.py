"""Added, unchanged, changed, moved and vanished files; equal contents; the skip report; what a stop costs."""

from __future__ import annotations

import json
import shutil
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from colour_model import ColourModel, paint

from tipr.data.manifest import Record, write_manifest
from tipr.errors import DatasetError, GalleryError
from tipr.gallery import Gallery, filling
from tipr.gallery.filters import Filters


@pytest.fixture
def model() -> ColourModel:
    return ColourModel()


@pytest.fixture
def gallery(tmp_path: Path, model: Any) -> Gallery:
    return Gallery.create(tmp_path / "g", model)


def facts(gallery: Gallery) -> dict[str, Any]:
    """File name -> what is known of its row."""
    hits = gallery.search("red", k=99)
    return {Path(hit.metadata["path"]).name: (hit.id, hit.metadata) for hit in hits}


def indexed(gallery: Gallery) -> list[datetime]:
    columns = gallery._store.columns(["indexed"])
    return list(columns["indexed"])


def test_a_folder_is_followed(gallery: Gallery, model: ColourModel, tmp_path: Path) -> None:
    folder = tmp_path / "p"
    for seed, name in enumerate(("same.png", "deep/moves.png", "changes.png", "goes.png")):
        paint(folder / name, seed=seed)
    paint(tmp_path / "elsewhere.png", seed=9)
    gallery.add([tmp_path / "elsewhere.png"])
    first = gallery.sync(folder, camera="gate")
    assert (first.added, first.unchanged, first.moved, first.vanished) == (4, 0, 0, 0)
    encoded, since = model.encoded, indexed(gallery)[2]

    (folder / "deep" / "moves.png").rename(folder / "arrived.png")
    paint(folder / "changes.png", "green", seed=8)
    (folder / "goes.png").unlink()
    paint(folder / "new.png", "blue", seed=7)
    second = gallery.sync(folder)
    assert (second.added, second.unchanged, second.replaced, second.moved, second.vanished) == (3, 1, 1, 1, 1)
    assert second.shared == 1
    assert model.encoded == encoded + 2  # the changed and the new one
    rows = facts(gallery)
    assert rows.keys() == {"elsewhere.png", "same.png", "arrived.png", "changes.png", "new.png"}
    assert rows["arrived.png"][1]["camera"] == rows["changes.png"][1]["camera"] == "gate"
    assert rows["new.png"][1]["camera"] is None
    place = gallery.vectors()[0].tolist().index(rows["arrived.png"][0])
    assert indexed(gallery)[place] == since  # a move does not make the picture younger
    third = gallery.sync(folder)
    assert (third.added, third.unchanged, third.moved, third.vanished) == (0, 4, 0, 0)


def test_a_moved_file_keeps_what_a_manifest_said(gallery: Gallery, tmp_path: Path) -> None:
    paint(tmp_path / "p" / "a.png")
    record = Record("a.png", identity=7, camera="door", time="2026-03-01T08:30:00Z", tags=("indoor",))
    write_manifest(tmp_path / "p" / "list.jsonl", [record])
    gallery.add([tmp_path / "p" / "list.jsonl"])
    (tmp_path / "p" / "list.jsonl").unlink()
    (tmp_path / "p" / "a.png").rename(tmp_path / "p" / "b.png")
    assert gallery.sync(tmp_path / "p").moved == 1
    ((_, known),) = facts(gallery).values()
    assert (known["identity"], known["camera"], known["tags"]) == (7, "door", ("indoor",))
    assert known["time"] == "2026-03-01T08:30:00Z"


def test_boxes_of_a_manifest_are_followed_box_by_box(gallery: Gallery, tmp_path: Path) -> None:
    frame = paint(tmp_path / "p" / "frame.png", size=(80, 60))
    write_manifest(tmp_path / "m.jsonl", [Record("p/frame.png", box=(x, 0, 20, 60), identity=x) for x in (0, 20)])
    gallery.add([tmp_path / "m.jsonl"])
    assert gallery.sync(tmp_path / "p").unchanged == 2
    paint(frame, "green", size=(80, 60))
    assert (report := gallery.sync(tmp_path / "p")).added == report.replaced == 2
    assert sorted(hit.metadata["identity"] for hit in gallery.search("green")) == [0, 20]


def test_a_missing_disk_erases_nothing(gallery: Gallery, tmp_path: Path) -> None:
    paint(tmp_path / "p" / "a.png")
    gallery.sync(tmp_path / "p")
    shutil.rmtree(tmp_path / "p")
    with pytest.raises(GalleryError, match=r"no folder at .* nothing was changed"):
        gallery.sync(tmp_path / "p")
    (tmp_path / "p").mkdir()
    with pytest.raises(GalleryError, match="is a disk missing"):
        gallery.sync(tmp_path / "p")
    assert len(gallery) == 1


def test_a_file_that_turned_bad_keeps_its_row_and_is_reported(gallery: Gallery, tmp_path: Path) -> None:
    path = paint(tmp_path / "p" / "a.png")
    paint(tmp_path / "p" / "b.png", seed=1)
    gallery.sync(tmp_path / "p")
    path.write_bytes(path.read_bytes()[:100])
    report = gallery.sync(tmp_path / "p")
    assert ([item.code for item in report.skipped], report.vanished, len(gallery)) == (["truncated"], 0, 2)


def test_rows_on_hold_stay_though_their_file_is_gone(gallery: Gallery, tmp_path: Path) -> None:
    for name in ("a.png", "b.png"):
        paint(tmp_path / "p" / name, seed=ord(name[0]))
    gallery.sync(tmp_path / "p")
    chosen = gallery.privacy.find(where=Filters.of(path="*/a.png"))
    gallery.privacy.hold("case", chosen, reason="asked for", until=datetime.now(UTC) + timedelta(days=1))
    (tmp_path / "p" / "a.png").unlink()
    assert gallery.sync(tmp_path / "p").vanished == 0
    assert facts(gallery).keys() == {"a.png", "b.png"}


def test_equal_contents_are_encoded_once(
    gallery: Gallery, model: ColourModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(filling, "ENCODE_BATCH", 2)
    monkeypatch.setattr(filling, "COMMIT_ROWS", 4)
    first = paint(tmp_path / "p" / "00.png", "green")
    for number in range(1, 8):  # in the same batch, the same commit, and after it
        shutil.copy(first, tmp_path / "p" / f"{number:02d}.png")
    report = gallery.add([tmp_path / "p"])
    assert (report.added, report.shared, model.encoded) == (8, 7, 1)
    shutil.copy(first, tmp_path / "later.png")
    assert gallery.add([tmp_path / "later.png"], camera="yard").shared == 1
    assert model.encoded == 1
    vectors = gallery.vectors()[1]
    np.testing.assert_array_equal(vectors, np.repeat(vectors[:1], 9, axis=0))
    assert len(set(gallery.thumbnails(range(9)))) == 1
    assert facts(gallery)["later.png"][1]["camera"] == "yard"


def test_after_a_stop_at_most_one_batch_is_repeated(
    tmp_path: Path, model: ColourModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(filling, "ENCODE_BATCH", 4)
    monkeypatch.setattr(filling, "COMMIT_ROWS", 8)
    for seed in range(30):
        paint(tmp_path / "p" / f"{seed:02d}.png", seed=seed)
    either: Any = model

    class Killed(BaseException):
        """As by SIGKILL: nothing is put in order."""

    for stop_at in (5, 13, 29):
        gallery = Gallery.create(tmp_path / f"g{stop_at}", either)
        model.encoded = 0

        def stop(done: int, total: int, last: int = stop_at) -> None:
            if done >= last:
                raise Killed

        with pytest.raises(Killed):
            gallery.sync(tmp_path / "p", progress=stop)
        report = Gallery.open(tmp_path / f"g{stop_at}", model=either).sync(tmp_path / "p")
        assert report.added + report.unchanged == 30
        assert model.encoded <= 30 + 8


def test_the_skip_report_has_a_line_for_each_bad_file(gallery: Gallery, tmp_path: Path) -> None:
    paint(tmp_path / "p" / "a.png")
    (tmp_path / "p" / "empty.jpg").write_bytes(b"")
    (tmp_path / "p" / "notes.txt").write_text("no picture")
    report = gallery.sync(tmp_path / "p")
    assert report.skip_report == str(tmp_path / "g" / "reports" / "skipped.jsonl")
    lines = [json.loads(line) for line in Path(report.skip_report).read_text().splitlines()]
    assert [(Path(line["path"]).name, line["code"]) for line in lines] == [
        ("empty.jpg", "empty file"),
        ("notes.txt", "not an image"),
    ]
    (tmp_path / "p" / "empty.jpg").unlink()
    (tmp_path / "p" / "notes.txt").unlink()
    assert gallery.sync(tmp_path / "p").skip_report is None
    assert not Path(report.skip_report).exists()


def test_what_paths_say(gallery: Gallery, tmp_path: Path) -> None:
    for name in ("gate/20260301/17.jpg.png", "yard/20260302/18.jpg.png", "yard/20261341/19.jpg.png", "loose.png"):
        paint(tmp_path / "p" / name, seed=len(name) + ord(name[0]) + ord(name[-9]))
    report = gallery.sync(tmp_path / "p", pattern="{camera}/{time:%Y%m%d}/{track}.jpg.png")
    assert (report.added, sorted(item.code for item in report.skipped)) == (2, ["pattern", "pattern"])
    rows = facts(gallery)
    assert rows["17.jpg.png"][1]["camera"] == "gate"
    assert rows["17.jpg.png"][1]["tags"] == ("track=17",)
    assert rows["18.jpg.png"][1]["time"] == datetime(2026, 3, 2, tzinfo=UTC).isoformat().replace("+00:00", "Z")
    assert {hit.id for hit in gallery.search("red", since="2026-03-02")} == {rows["18.jpg.png"][0]}


@pytest.mark.parametrize("form", ["csv", "parquet"])
def test_tables_fill_a_gallery_and_name_the_line_of_an_error(gallery: Gallery, tmp_path: Path, form: str) -> None:
    import pyarrow.csv
    import pyarrow.parquet

    paint(tmp_path / "a.png")
    paint(tmp_path / "b.png", seed=1)

    def write(name: str, times: list[str]) -> Path:
        columns = {"image": ["a.png", "b.png"], "camera": ["gate", "yard"], "time": times}
        path = tmp_path / f"{name}.{form}"
        table = pyarrow.table(columns)
        (pyarrow.csv.write_csv if form == "csv" else pyarrow.parquet.write_table)(table, path)
        return path

    bad = write("bad", ["2026-03-01T08:30:00Z", "yesterday"])
    line = 3 if form == "csv" else 2
    with pytest.raises(DatasetError, match=rf"bad\.{form}:{line}: time: 'yesterday'"):
        gallery.add([bad])
    assert len(gallery) == 0
    assert gallery.add([write("good", ["2026-03-01T08:30:00Z", "2026-03-02T08:30:00Z"])]).added == 2
    rows = facts(gallery)
    assert (rows["a.png"][1]["camera"], rows["b.png"][1]["time"]) == ("gate", "2026-03-02T08:30:00Z")
