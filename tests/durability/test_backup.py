"""A backup is consistent while others write; a torn one is refused, the target untouched; metadata can be exported."""

from __future__ import annotations

import csv
import json
import random
import shutil
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import workload
from damages import damage, make

from tipr.errors import ConfigError, GalleryCorrupt, GalleryError
from tipr.gallery import Gallery, backup
from tipr.gallery.backup import back_up, restore
from tipr.gallery.settings import write_settings
from tipr.gallery.tombstones import Tombstones
from tipr.gallery.verify import verify


def test_a_restored_gallery_is_the_one_that_was_backed_up(tmp_path: Path) -> None:
    state = make(tmp_path / "g")
    seen: list[tuple[int, int]] = []
    done = back_up(tmp_path / "g", tmp_path / "b", progress=lambda *counts: seen.append(counts))
    assert done.pictures == len(state)
    assert seen[-1][0] == seen[-1][1]
    restored = restore(tmp_path / "b", tmp_path / "again")
    assert restored.copied == done
    assert (restored.erased_in, restored.erased, restored.on_hold) == ((tmp_path / "g").resolve(), 0, 0)
    opened = workload.Opened.at(tmp_path / "again")
    assert opened.paths() == workload.Opened.at(tmp_path / "g").paths()
    for name in ("gallery.json", "erased.json", "certificates.jsonl"):
        assert (tmp_path / "again" / name).read_bytes() == (tmp_path / "g" / name).read_bytes()
    found = verify(tmp_path / "again")
    assert (found.damages, found.unproven) == ((), ())
    workload.Step("add", new=("/new/1.jpg",)).run(opened)
    workload.Step("erase", old=("/new/1.jpg",)).run(opened)
    assert opened.paths().keys() == state


def test_a_backup_under_load_holds_one_moment(tmp_path: Path) -> None:
    workload.create(tmp_path / "g")
    opened = workload.Opened.at(tmp_path / "g")
    state: frozenset[str] = frozenset()
    moments = [state]
    stop = threading.Event()

    def write() -> None:
        nonlocal state
        for step in workload.steps(random.Random(3), state, "load", ("add", "add", "remove", "erase", "update")):
            if stop.is_set():
                return
            moments.extend(step.states(state))  # before it is done: a backup may see it from then on
            while True:
                try:
                    step.run(opened)
                    break
                except GalleryError as error:  # the backup makes writers wait
                    if "another process is writing" not in str(error):
                        raise
            state = step.states(state)[-1]

    writer = threading.Thread(target=write)
    writer.start()
    try:
        for number in range(6):
            back_up(tmp_path / "g", tmp_path / f"b{number}")
    finally:
        stop.set()
        writer.join()
    made = sorted(tmp_path.glob("b*"))
    assert len(made) == 6
    for one in made:
        restore(one, tmp_path / f"from-{one.name}", as_it_was=True)
        held = workload.Opened.at(tmp_path / f"from-{one.name}")
        assert frozenset(held.paths()) in moments
        with held.writer.locked():  # an erasure that was under way is finished
            assert frozenset(held.paths()) in moments
    assert not list(tmp_path.glob(".*draft"))


def test_an_erasure_that_comes_between_starts_the_backup_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    state = make(tmp_path / "g")
    copy, drafts = backup._copy_version, []

    def erased_once(folder: Path, draft: Path, progress: backup.Progress | None) -> object:
        copied = copy(folder, draft, progress)
        drafts.append(draft)
        if len(drafts) == 1:
            raise backup._Changed
        return copied

    monkeypatch.setattr(backup, "_copy_version", erased_once)
    done = back_up(tmp_path / "g", tmp_path / "b")
    assert len(drafts) == 2
    assert done.pictures == len(state)
    restore(tmp_path / "b", tmp_path / "again")


def erase(folder: Path, *paths: str) -> None:
    """As a person is erased: with marks."""
    workload.Step("erase", old=paths).run(workload.Opened.at(folder))


def anywhere(folder: Path, mark: str) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file() and mark.encode() in path.read_bytes()]


@pytest.mark.parametrize("erased_before", [True, False])
def test_who_was_erased_since_does_not_come_back(tmp_path: Path, erased_before: bool) -> None:
    folder, again = tmp_path / "g", tmp_path / "again"
    workload.create(folder)
    workload.Step("add", new=tuple(f"/p{i}/1.jpg" for i in range(6))).run(workload.Opened.at(folder))
    if erased_before:
        erase(folder, "/p5/1.jpg")
    back_up(folder, tmp_path / "b")
    workload.Step("add", new=("/late/1.jpg",)).run(workload.Opened.at(folder))
    erase(folder, "/p1/1.jpg", "/p2/1.jpg", "/late/1.jpg")
    assert anywhere(tmp_path / "b", "/p1/1.jpg")

    restored = restore(tmp_path / "b", again)
    assert (restored.erased_in, restored.erased) == (folder.resolve(), 2)
    left = {"/p0/1.jpg", "/p3/1.jpg", "/p4/1.jpg", *(() if erased_before else ["/p5/1.jpg"])}
    assert workload.Opened.at(again).paths().keys() == left
    assert not anywhere(again, "/p1/1.jpg")
    buried = Tombstones.read(again).buried
    assert buried(workload.row("/late/1.jpg").sha256, None), "nor does who came and went after the backup"
    assert buried(workload.row("/p1/1.jpg").sha256, None)
    assert (Gallery.open(again).privacy.certificates()[-1].chosen_by, verify(again).damages) == ("erased_in", ())

    back_up(folder, tmp_path / "b2")
    folder.rename(tmp_path / "elsewhere")
    assert restore(tmp_path / "b", tmp_path / "all").erased_in is None  # nobody to ask: the command says so
    assert len(workload.Opened.at(tmp_path / "all").paths()) == len(left) + 2
    for number, other in enumerate((tmp_path / "elsewhere", tmp_path / "b2")):
        assert restore(tmp_path / "b", tmp_path / f"again{number}", erased_in=other).erased == 2
        assert workload.Opened.at(tmp_path / f"again{number}").paths().keys() == left
    privacy = Gallery.open(tmp_path / "all").privacy
    privacy.erase(privacy.find(erased_in=tmp_path / "elsewhere"))
    assert Tombstones.read(tmp_path / "all").buried(workload.row("/late/1.jpg").sha256, None)


def test_marks_that_cannot_be_read_stop_a_restore(tmp_path: Path) -> None:
    make(tmp_path / "g")
    back_up(tmp_path / "g", tmp_path / "b")
    (tmp_path / "g" / "erased.json").write_text("{}")
    with pytest.raises(GalleryError, match="erased since the backup could come back; name a sound copy"):
        restore(tmp_path / "b", tmp_path / "again")
    with pytest.raises(GalleryError, match="is not a gallery"):
        restore(tmp_path / "b", tmp_path / "again", erased_in=tmp_path)
    assert not (tmp_path / "again").exists()
    assert not list(tmp_path.glob(".*draft"))
    assert restore(tmp_path / "b", tmp_path / "again", as_it_was=True).copied.pictures == 57
    make(tmp_path / "other")  # another gallery at the old place has nothing to say
    (tmp_path / "g").rename(tmp_path / "damaged")
    (tmp_path / "other").rename(tmp_path / "g")
    settings = json.loads((tmp_path / "g" / "gallery.json").read_text())
    write_settings(tmp_path / "g", {**settings, "created": "2026-02-02T00:00:00+00:00"})
    assert restore(tmp_path / "b", tmp_path / "again2").erased_in is None


def test_what_a_kill_leaves_behind_goes_with_the_next_backup(tmp_path: Path) -> None:
    make(tmp_path / "g")
    code = """
import os, signal, sys
from tipr.gallery import backup
backup._sync_tree = lambda folder: os.kill(os.getpid(), signal.SIGKILL)
backup.back_up(sys.argv[1], sys.argv[2])
"""
    command = [sys.executable, "-c", code, str(tmp_path / "g"), str(tmp_path / "b")]
    assert subprocess.run(command, check=False).returncode == -signal.SIGKILL
    (left,) = tmp_path.glob(".b.*.draft")
    assert anywhere(left, "/part0/005.jpg")
    others = tmp_path / ".b.mine.draft"  # somebody else's folder
    others.mkdir()
    with backup._Draft(tmp_path / "b") as at_work:
        assert not left.exists()
        back_up(tmp_path / "g", tmp_path / "b")
        assert at_work.exists()
        shutil.rmtree(tmp_path / "b")
    assert others.exists()
    assert not any((tmp_path / "b").iterdir())


def test_a_torn_backup_is_refused_and_the_target_untouched(tmp_path: Path) -> None:
    make(tmp_path / "g")
    back_up(tmp_path / "g", tmp_path / "b")
    rng = random.Random(5)
    names = sorted(str(path.relative_to(tmp_path / "b")) for path in (tmp_path / "b").rglob("*") if path.is_file())
    (tmp_path / "target").mkdir()
    for name in names:
        for how in ("damaged", "missing"):
            shutil.copytree(tmp_path / "b", tmp_path / "torn")
            damage(tmp_path / "torn" / name, rng) if how == "damaged" else (tmp_path / "torn" / name).unlink()
            for target in ("target", "new"):
                with pytest.raises(GalleryError, match="backup"):
                    restore(tmp_path / "torn", tmp_path / target)
            assert list((tmp_path / "target").iterdir()) == []
            assert not (tmp_path / "new").exists()
            shutil.rmtree(tmp_path / "torn")
    assert not list(tmp_path.glob(".*draft"))


def test_refusals(tmp_path: Path) -> None:
    make(tmp_path / "g")
    with pytest.raises(GalleryError, match="is in use; a backup needs a new"):
        back_up(tmp_path / "g", tmp_path)
    with pytest.raises(GalleryError, match="no gallery"):
        back_up(tmp_path / "none", tmp_path / "b")
    with pytest.raises(GalleryError, match="no whole backup"):
        restore(tmp_path / "g", tmp_path / "new")
    back_up(tmp_path / "g", tmp_path / "b")
    with pytest.raises(GalleryError, match="is in use"):
        restore(tmp_path / "b", tmp_path / "g")
    piece = next((tmp_path / "g" / "people.lance" / "data").iterdir())
    damage(piece, random.Random(1))
    with pytest.raises(GalleryCorrupt, match=r"data/.* is damaged, so that no backup was made"):
        back_up(tmp_path / "g", tmp_path / "b2")
    assert not (tmp_path / "b2").exists()


def test_metadata_is_exported(tmp_path: Path) -> None:
    import pyarrow.parquet

    workload.create(tmp_path / "g")
    opened = workload.Opened.at(tmp_path / "g")
    with opened.writer.locked():
        opened.writer.append([workload.row("/a/1.jpg"), workload.row("/=cmd/2.jpg")])
    gallery = Gallery.open(tmp_path / "g")
    for name in ("m.jsonl", "m.csv", "m.parquet"):
        assert gallery.export(tmp_path / name) == 2
    lines = [json.loads(line) for line in (tmp_path / "m.jsonl").read_text().splitlines()]
    assert [line["path"] for line in lines] == ["/a/1.jpg", "/=cmd/2.jpg"]
    assert lines[0]["indexed"].endswith("Z")
    assert "time" not in lines[0]
    assert not {"vector", "thumbnail"} & lines[0].keys()
    with (tmp_path / "m.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["camera"] for row in rows] == ["a", "'=cmd"]  # a spreadsheet must not calculate it
    table = pyarrow.parquet.read_table(tmp_path / "m.parquet").to_pylist()
    assert [(row["id"], row["camera"], row["tags"]) for row in table] == [(0, "a", []), (1, "=cmd", [])]
    with pytest.raises(ConfigError, match=r"must end in \.jsonl, \.csv, \.parquet"):
        gallery.export(tmp_path / "m.txt")
    with pytest.raises(GalleryError, match="cannot write"):
        gallery.export(tmp_path / "none" / "m.csv")
