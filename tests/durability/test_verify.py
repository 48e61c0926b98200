"""`verify` finds flipped bits and truncation, names the file, and keeps the rest searchable; it deletes nothing."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import workload
from damages import Outcome, damage_many, make

from tipr.errors import GalleryError
from tipr.gallery.verify import verify


def _check(outcome: Outcome, damages: int) -> None:
    assert outcome.damages == damages
    assert set(outcome.kinds) == {"flipped bit", "truncation"}
    assert outcome.not_found == []
    assert outcome.wrong_rows == []
    assert outcome.not_searchable == []
    assert outcome.files_gone == []


def test_damage_is_found_and_named(tmp_path: Path) -> None:
    _check(damage_many(tmp_path, 60, seed=1), 60)


@pytest.mark.slow
def test_much_damage_is_found_and_named(tmp_path: Path) -> None:
    _check(damage_many(tmp_path, 300, seed=2), 300)


def test_pieces_that_were_put_aside_can_be_filled_again(tmp_path: Path) -> None:
    state = make(tmp_path / "g")
    opened = workload.Opened.at(tmp_path / "g")
    ids = opened.paths()
    pieces = [name for name in opened.store.files() if "/data/" in name]
    newest = max(pieces, key=lambda name: (tmp_path / "g" / name).stat().st_mtime_ns)
    data = bytearray((tmp_path / "g" / newest).read_bytes())
    data[len(data) // 2] ^= 4
    (tmp_path / "g" / newest).write_bytes(data)
    (damage,) = verify(tmp_path / "g").damages
    assert damage.file == newest
    assert damage.problem == "is not as it was written: bits have changed"
    assert damage.rows
    done = verify(tmp_path / "g", put_aside=True)
    assert done.moved == (f"set_aside/{Path(newest).name}",)
    assert (tmp_path / "g" / done.moved[0]).read_bytes() == data
    assert verify(tmp_path / "g").damages == ()
    left = workload.Opened.at(tmp_path / "g")
    lost = state - left.paths().keys()
    assert len(lost) == damage.rows
    with left.writer.locked():
        left.writer.append([workload.row(path) for path in sorted(lost)])
    again = left.paths()
    assert again.keys() == state
    assert min(again[path] for path in lost) > max(ids.values())  # an id is never given twice


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    make(tmp_path / "g")
    name = next(name for name in workload.Opened.at(tmp_path / "g").store.files() if name.endswith(".lance"))
    (tmp_path / "g" / name).unlink()
    (tmp_path / "g" / "certificates.jsonl").unlink()
    found = {damage.file: damage.problem for damage in verify(tmp_path / "g").damages}
    assert found == {name: "is missing", "certificates.jsonl": "is missing"}
    verify(tmp_path / "g", put_aside=True)
    assert workload.Opened.at(tmp_path / "g").paths()


def test_tombstones_are_never_put_aside(tmp_path: Path) -> None:
    make(tmp_path / "g")
    (tmp_path / "g" / "erased.json").write_text("{}")
    assert [damage.file for damage in verify(tmp_path / "g", put_aside=True).damages] == ["erased.json"]
    assert (tmp_path / "g" / "erased.json").read_text() == "{}"


def test_what_is_no_gallery_is_refused(tmp_path: Path) -> None:
    with pytest.raises(GalleryError, match="is not a gallery"):
        verify(tmp_path)


def test_a_gallery_of_format_1_is_upgraded(tmp_path: Path) -> None:
    from tipr.gallery import Gallery
    from tipr.gallery.upgrade import upgrade

    old = Path(__file__).parents[1] / "data" / "gallery_format_1"
    shutil.copytree(old, tmp_path / "g")
    with pytest.raises(GalleryError, match="older format 1: run `tipr index upgrade"):
        Gallery.open(tmp_path / "g")
    assert upgrade(tmp_path / "g") == (1, 2)
    assert upgrade(tmp_path / "g") == (2, 2)
    gallery = Gallery.open(tmp_path / "g")
    assert gallery.vectors()[0].tolist() == [0, 1, 2]
    assert gallery._store.columns(["indexed"])["indexed"][0].item().year == 2026
    assert verify(tmp_path / "g").damages == ()
    assert verify(tmp_path / "g").unproven == ()


def test_a_killed_upgrade_is_continued(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from tipr.gallery import Gallery, upgrade

    shutil.copytree(Path(__file__).parents[1] / "data" / "gallery_format_1", tmp_path / "g")

    def die(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(upgrade, "write_settings", die)
        with pytest.raises(KeyboardInterrupt):
            upgrade.upgrade(tmp_path / "g")
    with pytest.raises(GalleryError, match="older format 1"):
        Gallery.open(tmp_path / "g")
    assert upgrade.upgrade(tmp_path / "g") == (1, 2)
    assert len(Gallery.open(tmp_path / "g")) == 3


def test_a_newer_gallery_is_refused_and_left_alone(tmp_path: Path) -> None:
    from tipr.gallery import Gallery
    from tipr.gallery.upgrade import upgrade

    workload.create(tmp_path / "g")
    path = tmp_path / "g" / "gallery.json"
    path.write_text(path.read_text().replace('"format": 2', '"format": 9'))
    for attempt in (Gallery.open, upgrade):
        with pytest.raises(GalleryError, match="made by a newer version of tipr: it has format 9"):
            attempt(tmp_path / "g")
