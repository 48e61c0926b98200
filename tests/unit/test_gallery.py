"""`Gallery` from Python: add, search, remove, and every refusal. A stand-in model keeps it quick."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from colour_model import ColourModel, paint

from tipr.data.manifest import Record, write_manifest
from tipr.errors import ConfigError, DatasetError, GalleryCorrupt, GalleryError, GalleryMismatch, WeightsError
from tipr.gallery import Gallery, filling
from tipr.metrics.ranking import full_order, stable_similarity


@pytest.fixture
def model() -> ColourModel:
    return ColourModel()


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    folder = tmp_path / "pictures"
    for seed, (upper, lower) in enumerate([("red", "blue"), ("green", "grey"), ("blue", "red"), ("red", "grey")]):
        paint(folder / f"{seed}.png", upper, lower, seed=seed)
    return folder


@pytest.fixture
def gallery(tmp_path: Path, pictures: Path, model: Any) -> Gallery:
    made = Gallery.create(tmp_path / "g", model)
    made.add([pictures])
    return made


def test_a_search_ranks_by_words_and_tells_what_is_known(gallery: Gallery, pictures: Path) -> None:
    hits = gallery.search("red coat grey trousers", k=2)
    assert [Path(hit.metadata["path"]).name for hit in hits] == ["3.png", "0.png"]
    assert hits[0].id == 3
    assert hits[0].score > hits[1].score
    assert hits[0].metadata["path"] == str((pictures / "3.png").resolve())
    assert (hits[0].metadata["width"], hits[0].metadata["height"]) == (20, 60)
    assert hits[0].metadata["camera"] is None
    assert hits[0].metadata["time"] is None
    assert hits[0].metadata["band"] in ("stands_out", "similar", "weak")
    assert json.dumps(dict(hits[0].metadata))
    assert len(gallery.search("red", k=100)) == 4


def test_scores_are_the_half_precision_vectors_by_the_one_ordering_rule(gallery: Gallery, model: ColourModel) -> None:
    ids, vectors = gallery.vectors()
    assert vectors.dtype == np.float16
    query = model.encode_text(["green"])[0]
    expected = stable_similarity(query, vectors)
    hits = gallery.search("green", k=4)
    order = full_order(expected)
    assert [hit.id for hit in hits] == ids[order].tolist()
    assert [hit.score for hit in hits] == expected[order].tolist()
    assert [hit.id for hit in gallery.search(query, k=4)] == ids[order].tolist()


def test_copies_tie_and_come_in_the_order_they_were_added(gallery: Gallery, pictures: Path, tmp_path: Path) -> None:
    for name in ("z.png", "a.png"):
        (tmp_path / name).write_bytes((pictures / "1.png").read_bytes())
        gallery.add([tmp_path / name])
    hits = gallery.search("green coat grey trousers", k=3)
    assert len({hit.score for hit in hits}) == 1
    assert [hit.id for hit in hits] == [1, 4, 5]
    assert next(hit.id for hit in gallery.search("green coat grey trousers", k=3, group_by="sha256")) == 1
    assert len(gallery.search("green", k=9, group_by="sha256")) == 4


def test_the_same_file_again_is_no_change(gallery: Gallery, pictures: Path, model: ColourModel) -> None:
    encoded, version = model.encoded, gallery.info().version
    calls: list[tuple[int, int]] = []
    report = gallery.add([pictures, pictures / "0.png"], progress=lambda done, total: calls.append((done, total)))
    assert (report.added, report.unchanged, report.skipped) == (0, 5, ())
    assert (model.encoded, gallery.info().version) == (encoded, version)
    assert calls[-1] == (5, 5)
    (pictures / "link.png").symlink_to(pictures / "0.png")
    assert gallery.add([pictures / "link.png"]).unchanged == 1


def test_a_file_named_twice_is_added_once(tmp_path: Path, pictures: Path, model: Any) -> None:
    report = Gallery.create(tmp_path / "g", model).add([pictures / "0.png", pictures, pictures / ".." / "pictures"])
    assert (report.added, report.unchanged) == (4, 5)


def test_new_content_replaces_the_old_row(gallery: Gallery, pictures: Path) -> None:
    paint(pictures / "1.png", "blue", "blue", seed=9)
    report = gallery.add([pictures])
    assert (report.added, report.unchanged, report.replaced) == (1, 3, 1)
    assert gallery.vectors()[0].tolist() == [0, 2, 3, 4]
    assert gallery.search("blue", k=1)[0].id == 4


def test_a_stopped_run_keeps_what_was_done_and_is_continued(
    tmp_path: Path, model: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(filling, "ENCODE_BATCH", 4)
    monkeypatch.setattr(filling, "COMMIT_ROWS", 8)
    for seed in range(30):
        paint(tmp_path / "many" / f"{seed:02d}.png", seed=seed)
    gallery = Gallery.create(tmp_path / "g", model)

    def stop(done: int, total: int) -> None:
        if done >= 20:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        gallery.add([tmp_path / "many"], progress=stop)
    kept = len(Gallery.open(tmp_path / "g", model=model))
    assert 16 <= kept <= 20
    report = Gallery.open(tmp_path / "g", model=model).add([tmp_path / "many"])
    assert (report.added, report.unchanged) == (30 - kept, kept)
    unbroken = Gallery.create(tmp_path / "h", model)
    unbroken.add([tmp_path / "many"])
    for one, two in zip(Gallery.open(tmp_path / "g").vectors(), unbroken.vectors(), strict=True):
        np.testing.assert_array_equal(one, two)


def test_a_stop_in_the_middle_of_a_commit_adds_no_row_twice(
    tmp_path: Path, pictures: Path, model: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(filling, "COMMIT_ROWS", 1)
    gallery = Gallery.create(tmp_path / "g", model)
    real = gallery._store.append

    def commit_then_stop(*rows: Any) -> None:
        real(*rows)
        raise KeyboardInterrupt

    monkeypatch.setattr(gallery._store, "append", commit_then_stop)
    with pytest.raises(KeyboardInterrupt):
        gallery.add([pictures])
    assert len(Gallery.open(tmp_path / "g")) == 4
    assert Gallery.open(tmp_path / "g", model=model).add([pictures]).unchanged == 4


def test_removed_rows_are_gone_and_their_ids_are_not_given_again(gallery: Gallery, pictures: Path) -> None:
    assert gallery.remove([0, pictures / "3.png"]) == 2
    assert gallery.vectors()[0].tolist() == [1, 2]
    assert {hit.id for hit in gallery.search("red", k=9)} == {1, 2}
    gallery.add([pictures])
    assert gallery.vectors()[0].tolist() == [1, 2, 4, 5]


def test_an_erasure_that_was_stopped_is_finished_by_the_next_writer(
    gallery: Gallery, tmp_path: Path, pictures: Path, model: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def remains() -> bool:
        name = str(pictures / "1.png").encode()
        return any(name in path.read_bytes() for path in (tmp_path / "g").rglob("*") if path.is_file())

    def stop() -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(gallery._store, "purge", stop)
    with pytest.raises(KeyboardInterrupt):
        gallery.remove([1])
    later = Gallery.open(tmp_path / "g", model=model)
    assert later.info().erasing
    assert remains()
    assert {hit.id for hit in later.search("red", k=9)} == {0, 2, 3}
    later.add([pictures / "0.png"])
    assert not Gallery.open(tmp_path / "g").info().erasing
    assert not remains()


def test_removing_what_is_not_there_removes_nothing(gallery: Gallery, pictures: Path) -> None:
    for wrong in (17, -1, pictures / "none.png"):
        with pytest.raises(GalleryError, match=r"not in gallery .* nothing was removed"):
            gallery.remove([0, wrong])
    assert len(gallery) == 4


def test_a_manifest_brings_boxes_cameras_times_identities_and_tags(tmp_path: Path, model: Any) -> None:
    paint(tmp_path / "m" / "frame.png", "red", "red", size=(120, 60))
    paint(tmp_path / "m" / "one.png", "green", "green")
    write_manifest(
        tmp_path / "m" / "list.jsonl",
        [
            Record("frame.png", box=(0, 0, 20, 60), identity=7, camera="gate", time="2026-03-01T09:30:00+01:00"),
            Record("frame.png", box=(40.5, 0, 200, 50), identity="b", tags=("walk=slow", "indoor")),
            Record("frame.png", box=(500, 0, 10, 10)),
            Record("one.png", identity=7, tags=("walk=slow",)),
        ],
    )
    gallery = Gallery.create(tmp_path / "g", model)
    report = gallery.add(manifest=tmp_path / "m" / "list.jsonl", camera="door")
    assert (report.added, report.wide_images) == (3, 1)
    assert "lies outside" in report.skipped[0].reason
    assert gallery.add([tmp_path / "m" / "list.jsonl"], camera="door").unchanged == 3
    first, second, third = sorted(gallery.search("red", k=9), key=lambda hit: hit.id)
    assert first.metadata["time"] == "2026-03-01T08:30:00Z"
    assert (first.metadata["camera"], second.metadata["camera"]) == ("gate", "door")
    assert (first.metadata["identity"], second.metadata["identity"]) == (7, "b")
    assert first.metadata["box"] == (0, 0, 20, 60)
    assert (second.metadata["width"], second.metadata["height"]) == (80, 50)
    assert second.metadata["tags"] == ("walk=slow", "indoor")
    assert {hit.id for hit in gallery.search("red", k=9, group_by="identity")} == {first.id, second.id}
    assert [hit.id for hit in gallery.search("green", k=9, group_by="walk")] == [third.id, first.id]
    with pytest.raises(ConfigError, match="no column 'gait'; there are identity, camera, path, sha256, walk"):
        gallery.search("red", group_by="gait")
    info = gallery.info()
    assert (info.count, info.people, info.cameras) == (3, 2, {"door": 2, "gate": 1})
    assert str(info.first) == str(info.last) == "2026-03-01 08:30:00+00:00"


def test_vectors_of_named_files_come_in_their_order(gallery: Gallery, pictures: Path) -> None:
    ids, vectors = gallery.vectors()
    files = sorted(path for path in pictures.iterdir() if path.suffix == ".png")
    named = [Path(hit.metadata["path"]) for hit in sorted(gallery.search("red", k=9), key=lambda hit: hit.id)]
    assert set(named) == {path.resolve() for path in files}
    some = [named[2], str(named[0])]
    chosen, rows = gallery.vectors(some)
    assert chosen.tolist() == ids[[2, 0]].tolist()
    np.testing.assert_array_equal(rows, vectors[[2, 0]])
    with pytest.raises(GalleryError, match="is not in gallery"):
        gallery.vectors([*some, pictures / "none.png"])


def test_filters_apply_before_ranking(tmp_path: Path, model: Any) -> None:
    gallery = Gallery.create(tmp_path / "g", model)
    gallery.add([paint(tmp_path / "a" / "x.png", "red", "red", seed=1)], camera="one")
    gallery.add([paint(tmp_path / "b" / "y.png", "blue", "blue", seed=2)], camera="two")
    assert [hit.id for hit in gallery.search("red", k=1, camera="two")] == [1]
    assert [hit.id for hit in gallery.search("red", k=1, camera=["two", "none"])] == [1]
    assert [hit.id for hit in gallery.search("red", k=1, path="/b/")] == [1]
    assert [hit.id for hit in gallery.search("red", k=1, path="*/y.*")] == [1]
    assert gallery.search("red", camera="' OR '1'='1") == []
    assert gallery.search("red", since="2020-01-01") == []  # no picture has a time


def test_thumbnails_are_small_jpegs_in_the_order_asked_for(gallery: Gallery) -> None:
    first, second = gallery.thumbnails([2, 0])
    assert first[:2] == second[:2] == b"\xff\xd8"
    assert gallery.thumbnails([0]) == [second]
    with pytest.raises(GalleryError, match="row 9 is not in gallery"):
        gallery.thumbnails([9])


@pytest.mark.parametrize("query", ["", "  \t\n", "\u3000"])
def test_an_empty_query_is_refused(gallery: Gallery, query: str) -> None:
    with pytest.raises(ConfigError, match="query is empty"):
        gallery.search(query)


def test_queries_that_cannot_be_encoded_are_refused(gallery: Gallery) -> None:
    with pytest.raises(ConfigError, match="k must be at least 1"):
        gallery.search("red", k=0)
    with pytest.raises(ConfigError, match="8 finite numbers"):
        gallery.search(np.zeros(7, dtype=np.float32))
    with pytest.raises(ConfigError, match="8 finite numbers"):
        gallery.search(np.full(8, np.nan, dtype=np.float32))
    with pytest.raises(ConfigError, match="not valid UTF-8"):
        gallery.search("red \udcff")


def test_another_model_is_refused_in_one_line(gallery: Gallery, tmp_path: Path) -> None:
    other: Any = ColourModel("ff" * 32, source="/models/other")
    with pytest.raises(GalleryMismatch, match=r"c0c0.* not by ffff.* \(/models/other\)"):
        gallery.search("red", model=other)
    with pytest.raises(GalleryMismatch):
        Gallery.open(tmp_path / "g", model=other).search("red")
    with pytest.raises(GalleryMismatch):
        Gallery.open(tmp_path / "g", model=other).add([paint(tmp_path / "new.png", seed=5)])
    assert len(gallery) == 4
    same: Any = ColourModel(source="elsewhere")
    assert gallery.search("red", model=same)


def test_a_model_that_moved_is_named_in_one_line(tmp_path: Path) -> None:
    moved: Any = ColourModel(source=str(tmp_path / "gone"))
    Gallery.create(tmp_path / "g", moved).add([paint(tmp_path / "a.png")])
    with pytest.raises(WeightsError, match=r"no model at .*gone, which gallery .* needs: if it was moved, use --model"):
        Gallery.open(tmp_path / "g").search("red")
    assert Gallery.open(tmp_path / "g", model=moved).search("red")


def test_one_process_writes_at_a_time_and_readers_do_not_wait(gallery: Gallery, tmp_path: Path, model: Any) -> None:
    second = Gallery.open(tmp_path / "g", model=model)
    with gallery._writer.locked():
        with pytest.raises(GalleryError, match="another process is writing"):
            second.add([paint(tmp_path / "late.png")])
        assert second.search("red")
    second.add([paint(tmp_path / "late.png")])
    assert len(gallery) == 5


def test_an_open_gallery_sees_what_others_add_and_erase(gallery: Gallery, tmp_path: Path, model: Any) -> None:
    reader = Gallery.open(tmp_path / "g", model=model)
    assert len(reader.search("red", k=9)) == 4
    gallery.add([paint(tmp_path / "more.png", "red", "red")])
    assert len(reader.search("red", k=9)) == 5
    gallery.remove([0, 1])
    assert next(hit.id for hit in reader.search("red", k=9)) == 4
    assert len(reader.search("red", k=9)) == 3
    assert len(reader.thumbnails([2, 3])) == 2


def test_a_reader_starts_again_when_an_erasure_took_its_version(
    gallery: Gallery, tmp_path: Path, model: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    reader = Gallery.open(tmp_path / "g", model=model)
    real = reader._store.blocks

    def erase_first() -> Any:
        monkeypatch.setattr(reader._store, "blocks", real)
        gallery.remove([0])
        return real()  # the files of this version are gone

    monkeypatch.setattr(reader._store, "blocks", erase_first)
    assert {hit.id for hit in reader.search("red", k=9)} == {1, 2, 3}


def test_damage_is_not_taken_for_an_erasure(gallery: Gallery, tmp_path: Path, model: Any) -> None:
    reader = Gallery.open(tmp_path / "g", model=model)
    for path in (tmp_path / "g" / "people.lance" / "data").iterdir():
        path.write_bytes(b"")
    with pytest.raises(GalleryCorrupt, match="is damaged"):
        reader.search("red")


def test_a_full_disk_is_one_error_and_keeps_what_was_there(gallery: Gallery, tmp_path: Path) -> None:
    paint(tmp_path / "late.png", seed=77)
    code = f"""
import resource, signal, sys
sys.path.insert(0, {str(Path(__file__).parent)!r})
import lancedb
from colour_model import ColourModel
from tipr.data.decoding import shared_decoders
from tipr.errors import GalleryError
from tipr.gallery import Gallery
gallery = Gallery.open({str(tmp_path / "g")!r}, model=ColourModel())
list(shared_decoders().read([({str(tmp_path / "late.png")!r}, ())]))
# which starts the process that decodes: the limit below would refuse it its shared memory too
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (200, 200))  # writing more fails, as it does on a full disk
try:
    gallery.add([{str(tmp_path / "late.png")!r}])
except GalleryError as error:
    print(error)
"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.startswith(f"cannot write to gallery {tmp_path / 'g'}: ")
    assert result.stdout.count("\n") == 1
    assert len(gallery) == 4
    assert gallery.add([tmp_path / "late.png"]).added == 1  # works again once there is room


def test_what_is_no_gallery_is_refused(tmp_path: Path, model: Any) -> None:
    with pytest.raises(GalleryError, match=r"no gallery at .*nowhere"):
        Gallery.open(tmp_path / "nowhere")
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "a.txt").write_text("x")
    for path in (tmp_path / "photos", tmp_path / "photos" / "a.txt"):
        with pytest.raises(GalleryError, match="is not a gallery"):
            Gallery.open(path)
        with pytest.raises(GalleryError, match="is in use"):
            Gallery.create(path, model)
    Gallery.create(tmp_path / "g", model)
    with pytest.raises(GalleryError, match="is a gallery already"):
        Gallery.create(tmp_path / "g", model)
    with pytest.raises(GalleryError, match="is empty: add pictures"):
        Gallery.open(tmp_path / "g", model=model).search("red")
    assert not list(tmp_path.glob(".*"))


@pytest.mark.parametrize(
    ("text", "error", "message"),
    [
        ("", GalleryCorrupt, "gallery.json cannot be read"),
        ("{", GalleryCorrupt, "gallery.json cannot be read"),
        ("[]", GalleryCorrupt, "gallery.json cannot be read"),
        ('{"format": 1}', GalleryCorrupt, "gallery.json cannot be read"),
        (None, GalleryCorrupt, "values of the wrong kind"),
        ("format", GalleryError, "has format 7"),
    ],
)
def test_damaged_settings_are_named(
    gallery: Gallery, tmp_path: Path, text: str | None, error: type[Exception], message: str
) -> None:
    path = tmp_path / "g" / "gallery.json"
    settings = json.loads(path.read_text())
    if text is None:
        text = json.dumps({**settings, "next_id": "0"})
    elif text == "format":
        text = json.dumps({**settings, "format": 7})
    path.write_text(text)
    with pytest.raises(error, match=message) as caught:
        Gallery.open(tmp_path / "g")
    assert "\n" not in str(caught.value)


def test_a_bad_manifest_or_camera_adds_nothing(gallery: Gallery, tmp_path: Path) -> None:
    (tmp_path / "bad.jsonl").write_text('{"image": "a.png"}\n')
    with pytest.raises(DatasetError, match=r"bad\.jsonl:1: captions: missing"):
        gallery.add([tmp_path / "bad.jsonl"])
    with pytest.raises(ConfigError, match="camera"):
        gallery.add([tmp_path], camera=" ")
    assert len(gallery) == 4


def test_many_small_commits_are_merged_without_losing_order(
    tmp_path: Path, model: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    import lance

    import tipr.gallery.stores.lance as store

    monkeypatch.setattr(filling, "ENCODE_BATCH", 1)
    monkeypatch.setattr(filling, "COMMIT_ROWS", 1)
    monkeypatch.setattr(store, "FRAGMENTS", 4)
    for seed in range(7):
        paint(tmp_path / "many" / f"{seed:02d}.png", seed=seed)
    gallery = Gallery.create(tmp_path / "g", model)
    gallery.add([tmp_path / "many"])
    assert gallery.vectors()[0].tolist() == list(range(7))
    assert len(list((tmp_path / "g" / "people.lance" / "data").iterdir())) == 8  # the merged piece, and history
    assert len(lance.dataset(str(tmp_path / "g" / "people.lance")).get_fragments()) == 1


def test_importing_the_gallery_loads_no_torch_and_no_store() -> None:
    code = "import sys, tipr.gallery; print(*sorted(sys.modules))"
    result = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=True)
    loaded = set(result.stdout.split())
    assert "tipr.gallery.gallery" in loaded
    assert not loaded & {"torch", "transformers", "lance", "lancedb", "pyarrow", "numba", "click", "rich"}
