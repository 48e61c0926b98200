"""Retention, legal holds and what erasing people leaves alone, in a gallery whose clock the test sets."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from colour_model import ColourModel, paint
from PIL import Image

from tipr.cli import main
from tipr.data.images import resize
from tipr.data.manifest import Record, write_manifest
from tipr.errors import ConfigError, GalleryCorrupt, GalleryError
from tipr.gallery import Gallery
from tipr.gallery.calibration import LIMITS
from tipr.gallery.durable import write_json
from tipr.gallery.erase import read_certificates, remove_derived
from tipr.gallery.filters import Filters
from tipr.gallery.holds import Hold, held, read_holds
from tipr.gallery.query import Query
from tipr.gallery.retention import duration
from tipr.gallery.stores import STORES, Row

NOW = datetime.now(UTC)
LATER = NOW + timedelta(days=400)


def hours(count: float) -> timedelta:
    return timedelta(hours=count)


def row(number: int, taken: datetime | None, indexed: datetime, camera: str = "gate") -> Row:
    vector = np.random.default_rng(number).normal(size=8).astype(np.float16)
    sha256 = f"{number:064x}"
    return Row(
        f"/p/{number}.png",
        sha256,
        vector,
        b"\xff\xd8",
        20,
        60,
        camera=camera,
        time=taken,
        identity=number % 2,
        indexed=indexed,
    )


@pytest.fixture
def gallery(tmp_path: Path) -> Gallery:
    """Rows 0 to 7; the age that counts is 100 h for 0, 2, 3, 5 and 1 h for 1, 4, 6, 7."""
    model: Any = ColourModel()
    made = Gallery.create(tmp_path / "g", model)
    old, new = NOW - hours(100), NOW - hours(1)
    rows = [
        row(0, old, new),
        row(1, new, new),
        row(2, old, old),
        row(3, None, old),
        row(4, None, new),
        row(5, NOW + hours(9999), old),  # the clock of the camera is wrong
        row(6, NOW + hours(9999), new),
        row(7, new, new, camera="door"),
    ]
    STORES["lance"]().open(tmp_path / "g", 8).append(rows, 0)
    return made


def test_age_counts_from_the_photograph_or_else_from_indexing(gallery: Gallery) -> None:
    chosen = gallery.privacy.expired(hours(72))
    assert chosen.ids.tolist() == [0, 2, 3, 5]
    assert chosen.from_indexing == 2
    assert gallery.privacy.expired(hours(101)).ids.tolist() == []
    assert gallery.privacy.expired(hours(0.5)).ids.tolist() == list(range(8))
    doors = gallery.privacy.expired(hours(0.5), Filters.of(camera="door"))
    assert (doors.ids.tolist(), doors.from_indexing) == ([7], 0)
    with pytest.raises(ConfigError, match="above zero"):
        gallery.privacy.expired(hours(0))


def test_a_commit_stamps_what_has_no_time_of_indexing(tmp_path: Path) -> None:
    model: Any = ColourModel()
    made = Gallery.create(tmp_path / "g", model)
    before = datetime.now(UTC)
    made.add([paint(tmp_path / "p" / "a.png")])
    stamped = made._store.columns(("indexed",))["indexed"][0].item().replace(tzinfo=UTC)
    assert before <= stamped <= datetime.now(UTC)


def test_what_expired_is_erased_and_stays_away(tmp_path: Path) -> None:
    model: Any = ColourModel()
    gallery = Gallery.create(tmp_path / "g", model)
    for seed in range(3):
        paint(tmp_path / "p" / f"{seed}.png", seed=seed)
    gallery.add([tmp_path / "p"])
    certificate = gallery.privacy.erase(gallery.privacy.expired(timedelta(microseconds=1)))
    assert certificate is not None
    assert (certificate.chosen_by, certificate.pictures, certificate.left) == ("retention", 3, 0)
    report = gallery.add([tmp_path / "p"])
    assert (report.added, report.refused, report.skipped) == (0, 3, ())


def test_a_hold_keeps_rows_from_every_kind_of_erasure(gallery: Gallery, tmp_path: Path) -> None:
    privacy = gallery.privacy
    privacy.hold("case 7", privacy.find(where="path *= /2 or path *= /3"), reason="court order", until=LATER)
    chosen = privacy.expired(hours(72))
    assert (chosen.free, dict(chosen.held)) == ([0, 5], {2: "case 7", 3: "case 7"})
    assert {item.id: item.hold for item in chosen}[2] == "case 7"
    certificate = privacy.erase(chosen)
    assert certificate is not None
    assert (certificate.pictures, certificate.on_hold, certificate.left) == (2, 2, 6)
    with pytest.raises(GalleryError, match=r"row 2 .* is on legal hold: nothing was removed"):
        gallery.remove([1, 2])
    assert privacy.erase(privacy.find(where="path *= /2")) is None
    assert gallery.vectors()[0].tolist() == [1, 2, 3, 4, 6, 7]
    assert gallery.info().held == 2
    privacy.release("case 7")
    assert privacy.erase(privacy.expired(hours(72))) is not None
    assert gallery.vectors()[0].tolist() == [1, 4, 6, 7]


def test_a_hold_made_after_the_review_is_kept_too(gallery: Gallery) -> None:
    privacy = gallery.privacy
    reviewed = privacy.find(identity=0)
    Gallery.open(gallery.path).privacy.hold("late", privacy.find(where="path *= /4"), reason="x", until=LATER)
    certificate = privacy.erase(reviewed)
    assert certificate is not None
    assert (certificate.pictures, certificate.on_hold) == (3, 1)
    assert 4 in gallery.vectors()[0]


def test_a_changed_file_does_not_take_a_held_row_away(tmp_path: Path) -> None:
    model: Any = ColourModel()
    gallery = Gallery.create(tmp_path / "g", model)
    picture = paint(tmp_path / "p" / "a.png", "red")
    gallery.add([picture])
    gallery.privacy.hold("case", gallery.privacy.find(where="path *= a.png"), reason="x", until=LATER)
    paint(picture, "blue")
    report = gallery.add([picture])
    assert (report.added, report.replaced) == (1, 0)
    assert gallery.vectors()[0].tolist() == [0, 1]
    gallery.privacy.release("case")
    assert gallery.add([picture]).replaced == 1
    assert gallery.vectors()[0].tolist() == [1]


def test_holds_end_by_themselves_and_are_named(gallery: Gallery) -> None:
    privacy = gallery.privacy
    chosen = privacy.find(identity=1)
    privacy.hold("b", chosen, reason="one", until=LATER)
    privacy.hold("a", chosen, reason="two", until=NOW + hours(24))
    privacy.hold("b", privacy.find(where="path *= /3"), reason="three", until=LATER)
    assert [(hold.name, hold.reason, len(hold.ids)) for hold in privacy.holds()] == [("a", "two", 4), ("b", "three", 1)]
    assert held(read_holds(gallery.path, NOW + hours(23))) == {1, 3, 5, 7}
    assert held(read_holds(gallery.path, NOW + hours(25))) == {3}
    for name, reason, until, message in (
        (" ", "x", LATER, "needs a name"),
        ("c", "", LATER, "needs a reason"),
        ("c", "x", NOW - hours(1), "which is over"),
    ):
        with pytest.raises(ConfigError, match=message):
            privacy.hold(name, chosen, reason=reason, until=until)
    with pytest.raises(GalleryError, match="nothing to hold"):
        privacy.hold("c", privacy.find(identity="nobody"), reason="x", until=LATER)
    with pytest.raises(GalleryError, match="has no hold 'c'; there are: a, b"):
        privacy.release("c")


@pytest.mark.parametrize(
    "text", ["{", "7", '[{"name": "a"}]', '[{"name":"a","reason":"b","until":"2999-01-01","ids":[]}]']
)
def test_damaged_holds_stop_every_erasure(gallery: Gallery, text: str) -> None:
    chosen = gallery.privacy.find(identity=1)
    (gallery.path / "holds.json").write_text(text)
    with pytest.raises(GalleryCorrupt, match=r"holds\.json"):
        gallery.privacy.erase(chosen)
    assert len(gallery.vectors()[0]) == 8


def test_rows_that_others_took_meanwhile_are_left_out(gallery: Gallery) -> None:
    chosen = gallery.privacy.find(identity=1)
    Gallery.open(gallery.path).remove([1, 3])
    certificate = gallery.privacy.erase(chosen)
    assert certificate is not None
    assert certificate.pictures == 2
    assert gallery.privacy.erase(chosen) is None
    assert len(gallery.privacy.certificates()) == 1, "removing leaves no certificate"


def test_choosing_needs_exactly_one_way(gallery: Gallery) -> None:
    for given in ({}, {"identity": 1, "where": "camera = gate"}):
        with pytest.raises(ConfigError, match="exactly one of identity, like, where and erased_in"):
            gallery.privacy.find(**given)
    with pytest.raises(ConfigError, match="top must be at least 1"):
        gallery.privacy.find(identity=1, top=0)
    with pytest.raises(GalleryError, match=r"none\.png: missing"):
        gallery.privacy.find(like="none.png")
    for spelled in (1, "1", "0001"):  # a folder's name may have zeros in front
        assert gallery.privacy.find(identity=spelled).ids.tolist() == [1, 3, 5, 7]
    assert gallery.privacy.find(identity=1).without([3, 99]).free == [1, 5, 7]


def test_look_alikes_are_those_that_stand_out_in_this_gallery(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    model: Any = ColourModel()
    picture = paint(tmp_path / "person.png")
    noise = np.random.default_rng(1).normal(size=(60, 8))
    (like,) = model.encode_images([resize(np.asarray(Image.open(picture)), (12, 6))])
    noise -= 0.7 * np.outer(noise @ like, like)  # nobody looks much like the picture
    noise[:2] = 9 * like + 0.1 * noise[:2]
    units = (noise / np.linalg.norm(noise, axis=1, keepdims=True)).astype(np.float16)
    gallery = Gallery.create(tmp_path / "g", model)
    rows = [replace(row(number, NOW, NOW), vector=unit) for number, unit in enumerate(units)]
    STORES["lance"]().open(tmp_path / "g", 8).append(rows, 0)
    units_of = {"similar": {"en long": 0.5}, "stands_out": {"en long": 0.9}}  # of words, below what pictures need
    write_json(gallery.path / LIMITS, {"rows": 60, "queries": 1600, **units_of})

    def proposed(at_least: float | None = None) -> list[tuple[int, str | None]]:
        return [(each.id, each.band) for each in gallery.privacy.find(like=picture, at_least=at_least)]

    assert sorted(proposed()) == [(0, "stands_out"), (1, "stands_out")]
    hits = gallery.search(Query(image=picture), k=60)
    assert proposed(-1) == [(hit.id, hit.metadata["band"]) for hit in hits], "as a search has them"
    assert {band for _, band in proposed(-1)} == {"stands_out", "similar", "weak"}
    units_of["stands_out"]["en long"] = 99.0  # what else this gallery has stands out as far
    write_json(gallery.path / LIMITS, {"rows": 60, "queries": 1600, **units_of})
    assert proposed() == []
    assert {band for _, band in proposed(-1)} == {"similar", "weak"}
    assert len(proposed(-1)) == 60

    monkeypatch.setattr("tipr.gallery.gallery._load", lambda *_: model)
    command = ["erase", str(gallery.path), "--like", str(picture), "--at-least", "0.9", "--dry-run", "--json"]
    with pytest.raises(SystemExit):
        main([*command, "--review", str(tmp_path / "review.html")])
    told = capsys.readouterr()
    assert json.loads(told.out)["bands"] == {"0": "similar", "1": "similar"}
    assert told.err.count("similar") == 2
    assert (tmp_path / "review.html").read_text(encoding="utf-8").count("<br>similar") == 2


def test_what_was_erased_later_leaves_a_restored_backup_too(tmp_path: Path) -> None:
    model: Any = ColourModel()
    gallery = Gallery.create(tmp_path / "g", model)
    for seed in range(4):
        paint(tmp_path / "p" / f"{seed}.png", seed=seed)
    gallery.add([tmp_path / "p"])
    shutil.copytree(tmp_path / "g", tmp_path / "backup")
    gallery.privacy.erase(gallery.privacy.find(where="path *= /1.png or path *= /2.png"))
    restored = Gallery.open(tmp_path / "backup", model=model)
    chosen = restored.privacy.find(erased_in=gallery.path)
    assert chosen.ids.tolist() == [1, 2]
    certificate = restored.privacy.erase(chosen)
    assert certificate is not None
    assert (certificate.chosen_by, certificate.tombstones) == ("erased_in", 2)
    assert restored.add([tmp_path / "p"]).refused == 2
    assert not len(restored.privacy.find(erased_in=gallery.path))
    with pytest.raises(GalleryError, match="is not a gallery"):
        restored.privacy.find(erased_in=tmp_path / "p")


def test_exact_copies_go_with_a_picture(tmp_path: Path) -> None:
    model: Any = ColourModel()
    gallery = Gallery.create(tmp_path / "g", model)
    picture = paint(tmp_path / "p" / "a.png", seed=1)
    copy = tmp_path / "q" / "b.png"
    copy.parent.mkdir()
    copy.write_bytes(picture.read_bytes())
    gallery.add([picture], camera="gate")
    gallery.add([copy], camera="door")
    gallery.add([paint(tmp_path / "p" / "c.png", seed=2)])
    for chosen in (
        gallery.privacy.find(where="camera = door"),
        gallery.privacy.find(like=picture, at_least=2),
        gallery.privacy.expired(timedelta(microseconds=1), Filters.of(camera="gate")),
    ):
        assert sorted(chosen.free) == [0, 1]
    privacy = gallery.privacy
    privacy.hold("case", privacy.find(where="camera = door").without([0]), reason="x", until=LATER)
    assert privacy.erase(privacy.find(where="camera = gate")) is not None
    assert gallery.vectors()[0].tolist() == [1, 2], "the held copy stays"
    assert (gallery.add([picture]).refused, gallery.add([copy]).unchanged) == (1, 1)
    privacy.release("case")
    assert privacy.erase(privacy.find(where="camera = door")) is not None
    assert gallery.add([picture, copy]).refused == 2


def test_a_certificate_tells_counts_and_no_person(tmp_path: Path) -> None:
    model: Any = ColourModel()
    paint(tmp_path / "p" / "frame.png", size=(120, 60))
    write_manifest(
        tmp_path / "p" / "list.jsonl",
        [
            Record("frame.png", box=(0, 0, 20, 60), identity="Ada"),
            Record("frame.png", box=(40, 0, 20, 60), identity="Bob"),
        ],
    )
    gallery = Gallery.create(tmp_path / "g", model)
    gallery.add(manifest=tmp_path / "p" / "list.jsonl")
    certificate = gallery.privacy.erase(gallery.privacy.find(identity="Ada"))
    assert certificate is not None
    assert (certificate.pictures, certificate.files, certificate.tombstones) == (1, 1, 2)
    text = (gallery.path / "certificates.jsonl").read_text()
    assert json.loads(text)["erasure"] == certificate.erasure
    assert not any(word in text for word in ("Ada", "frame", "box", str(tmp_path)))
    report = gallery.add(manifest=tmp_path / "p" / "list.jsonl")
    assert (report.added, report.unchanged, report.refused) == (0, 1, 1), "Bob stays"
    assert gallery.add([tmp_path / "p" / "frame.png"]).refused == 1, "the whole frame shows Ada"
    assert read_certificates(gallery.path) == [certificate]


def test_pages_go_with_a_removed_row_but_not_with_a_replaced_one(tmp_path: Path) -> None:
    model: Any = ColourModel()
    gallery = Gallery.create(tmp_path / "g", model)
    picture = paint(tmp_path / "p" / "a.png", "red")
    gallery.add([picture])
    page = gallery.path / "reports" / "page.html"
    page.parent.mkdir()
    page.write_text("x")
    paint(picture, "blue")
    assert gallery.add([picture]).replaced == 1
    assert page.exists()
    gallery.remove([picture])
    assert not page.parent.exists()


def test_what_was_made_from_rows_goes_and_links_are_not_followed(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "kept.txt").write_text("x")
    folder = tmp_path / "g"
    (folder / "reports" / "deep" / "er").mkdir(parents=True)
    (folder / "reports" / "deep" / "er" / "a.html").write_text("x")
    (folder / "reports" / "link").symlink_to(outside)
    (folder / "cache").symlink_to(outside)
    remove_derived(folder)
    assert list(folder.iterdir()) == []
    assert (outside / "kept.txt").exists()


def test_compact_merges_what_many_additions_leave(tmp_path: Path) -> None:
    model: Any = ColourModel()
    gallery = Gallery.create(tmp_path / "g", model)
    for seed in range(4):
        gallery.add([paint(tmp_path / "p" / f"{seed}.png", seed=seed)])
    info = gallery.info()
    assert (info.fragments, info.versions) == (4, 5)
    rows = gallery.vectors()[1].tolist()
    before, after = gallery.compact()
    assert (before.fragments, after.fragments) == (4, 1)
    assert gallery.vectors()[1].tolist() == rows
    gallery.remove([0])
    assert (gallery.info().fragments, gallery.info().versions) == (1, 1)


@pytest.mark.parametrize(
    ("text", "wanted"), [("72h", hours(72)), ("30d", hours(720)), ("2 w", hours(336)), ("0.5h", hours(0.5))]
)
def test_lengths_of_time(text: str, wanted: timedelta) -> None:
    assert duration(text) == wanted


@pytest.mark.parametrize("text", ["", "72", "h", "-1h", "0h", "1y", "1e9h", "72h; rm", "９h"])
def test_what_is_no_length_of_time_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="is not a length of time such as 72h, 30d or 2w"):
        duration(text)


def test_a_hold_is_a_value() -> None:
    one = Hold("a", "b", LATER, frozenset({1}))
    assert held([one, Hold("c", "d", LATER, frozenset({2}))]) == {1, 2}
    assert held([]) == frozenset()
