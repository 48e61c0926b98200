"""`rebuild`: ids and metadata stay, vectors are new, a stop is continued, a kill at the exchange leaves one gallery."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from colour_model import ColourModel, paint

from tipr.data.manifest import Record, write_manifest
from tipr.errors import GalleryError
from tipr.gallery import Gallery, calibration, rebuild
from tipr.gallery.rebuild import Rebuilt
from tipr.gallery.rebuild import rebuild as again


class WideModel(ColourModel):
    """Another model, with wider vectors."""

    embed_dim = 10

    def __init__(self) -> None:
        super().__init__("d1" * 32)

    def encode_images(self, images: Any, *, batch_size: int = 64) -> Any:
        return np.pad(super().encode_images(images), ((0, 0), (0, 2)))

    def encode_text(self, captions: Any, **_: Any) -> Any:
        return np.pad(super().encode_text(captions), ((0, 0), (0, 2)))


@pytest.fixture
def wide() -> Any:
    return WideModel()


@pytest.fixture
def gallery(tmp_path: Path) -> Gallery:
    model: Any = ColourModel()
    made = Gallery.create(tmp_path / "g", model)
    for seed in range(6):
        paint(tmp_path / "p" / f"{seed}.png", ("red", "green", "blue")[seed % 3], seed=seed)
    paint(tmp_path / "p" / "frame.png", size=(80, 60), seed=9)
    boxes = [Record("p/frame.png", box=(x, 0, 20, 60), identity=x, camera="door", tags=("a",)) for x in (0, 20)]
    write_manifest(tmp_path / "m.jsonl", boxes)
    made.add([tmp_path / "p" / f"{seed}.png" for seed in range(6)])
    made.add([tmp_path / "m.jsonl"])
    made.remove([2])  # leaves a gap in the ids
    return made


def known(gallery: Gallery) -> dict[int, Any]:
    names = ["path", "sha256", "camera", "time", "box", "identity", "tags", "indexed"]
    columns = gallery._store.columns(names)
    return {row: [str(columns[name][place]) for name in names] for place, row in enumerate(gallery._store.ids())}


def names_below(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_everything_but_the_vectors_stays(gallery: Gallery, wide: Any, tmp_path: Path) -> None:
    before, thumbnails, around = known(gallery), gallery.thumbnails([0, 7]), names_below(tmp_path)
    chosen = gallery.privacy.find(identity=20)
    gallery.privacy.hold("case", chosen, reason="asked for", until=datetime.now(UTC) + timedelta(days=1))
    gallery.privacy.erase(gallery.privacy.find(identity=0))
    del before[6]
    calls: list[tuple[int, int]] = []
    done = again(tmp_path / "g", wide, progress=lambda done, total: calls.append((done, total)))
    assert done == Rebuilt(pictures=6, encoded=6, missing=(), swapped=True)
    assert calls[-1] == (6, 6)
    new = Gallery.open(tmp_path / "g", model=wide)
    assert known(new) == before
    assert new.thumbnails([0, 7]) == thumbnails
    assert new.vectors()[1].shape == (6, 10)
    assert new.search("green", k=1)[0].id in (1, 4)
    assert [hold.name for hold in new.privacy.holds()] == ["case"]
    assert len(new.privacy.certificates()) == 1
    assert new.add([tmp_path / "m.jsonl"]).refused == 1  # what was erased stays away
    assert names_below(tmp_path) == around
    assert not (tmp_path / "g" / "cache").exists()
    paint(tmp_path / "late.png", seed=77)
    assert new.add([tmp_path / "late.png"]).added == 1
    assert new.vectors()[0][-1] == 8


def test_the_bands_are_measured_with_the_new_model(
    gallery: Gallery, wide: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(calibration, "FEWEST_ROWS", 4)
    before = gallery.calibrate()
    assert before is not None
    again(gallery.path, wide)
    opened = Gallery.open(gallery.path, model=wide)
    after = calibration.read_calibration(gallery.path)
    assert after is not None
    assert after.rows == len(opened)
    assert opened.calibrate() == after  # nothing is due any more


def test_an_open_gallery_says_that_it_was_replaced(gallery: Gallery, wide: Any, tmp_path: Path) -> None:
    reader = Gallery.open(tmp_path / "g", model=ColourModel())  # type: ignore[arg-type]
    assert reader.search("red")
    again(tmp_path / "g", wide)
    for step in (lambda: reader.search("red"), lambda: gallery.add([tmp_path / "p"])):
        with pytest.raises(GalleryError, match="was replaced after it was opened: open it again"):
            step()


def test_missing_files_are_listed_and_nothing_changes(gallery: Gallery, wide: Any, tmp_path: Path) -> None:
    (tmp_path / "p" / "0.png").unlink()
    paint(tmp_path / "p" / "1.png", "grey", seed=50)
    done = again(tmp_path / "g", wide)
    assert not done.swapped
    assert [(Path(path).name, reason) for path, reason in done.missing] == [
        ("0.png", "missing"),
        ("1.png", "the file has changed"),
    ]
    assert gallery.search("green", k=1)  # the old one serves
    done = again(tmp_path / "g", wide, without_missing=True)
    assert (done.encoded, done.pictures, done.swapped) == (0, 5, True)
    assert Gallery.open(tmp_path / "g").vectors()[0].tolist() == [3, 4, 5, 6, 7]


def test_a_row_on_hold_is_not_left_out(gallery: Gallery, wide: Any, tmp_path: Path) -> None:
    chosen = gallery.privacy.find(identity=20)
    gallery.privacy.hold("case", chosen, reason="asked for", until=datetime.now(UTC) + timedelta(days=1))
    (tmp_path / "p" / "frame.png").unlink()
    with pytest.raises(GalleryError, match=r"row 7 of gallery .* is on legal hold"):
        again(tmp_path / "g", wide, without_missing=True)
    assert len(gallery) == 7


def test_a_stopped_rebuild_goes_on(
    gallery: Gallery, wide: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rebuild, "ENCODE_BATCH", 2)
    monkeypatch.setattr(rebuild, "COMMIT_ROWS", 2)

    def stop(done: int, total: int) -> None:
        if done >= 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        again(tmp_path / "g", wide, progress=stop)
    assert gallery.search("red")
    gallery.privacy.erase(gallery.privacy.find(identity=0))  # takes the unfinished copy along
    assert not (tmp_path / "g" / "cache").exists()
    with pytest.raises(KeyboardInterrupt):
        again(tmp_path / "g", wide, progress=stop)
    wide.encoded = 0
    done = again(tmp_path / "g", wide)
    assert (done.pictures, done.swapped) == (6, True)
    assert done.encoded == wide.encoded == 2


@pytest.mark.parametrize("moment", ["before", "after"])
def test_a_kill_at_the_exchange_leaves_one_gallery(
    gallery: Gallery, wide: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    class Killed(BaseException):
        """As by SIGKILL: nothing is put in order."""

    real: Callable[[Path, Path], None] = rebuild._swap

    def die(one: Path, two: Path) -> None:
        if moment == "after":
            real(one, two)
        raise Killed

    around = names_below(tmp_path)
    monkeypatch.setattr(rebuild, "_swap", die)
    with pytest.raises(Killed):
        again(tmp_path / "g", wide)
    model: Any = wide if moment == "after" else ColourModel()
    left = Gallery.open(tmp_path / "g", model=model)
    assert len(left.search("red", k=9)) == 7
    left.compact()  # any writer
    assert names_below(tmp_path) == around
    monkeypatch.setattr(rebuild, "_swap", real)
    assert again(tmp_path / "g", wide).swapped


def test_a_file_system_without_exchange_keeps_the_old_one(
    gallery: Gallery, wide: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(one: Path, two: Path) -> None:
        raise OSError(22, "Invalid argument")

    around = names_below(tmp_path)
    monkeypatch.setattr(rebuild, "_swap", refuse)
    with pytest.raises(GalleryError, match=r"cannot exchange two folders in one step \(Invalid argument\)"):
        again(tmp_path / "g", wide)
    assert len(gallery.search("red", k=9)) == 7
    assert names_below(tmp_path) == around
    monkeypatch.undo()
    assert again(tmp_path / "g", wide).encoded == 0
