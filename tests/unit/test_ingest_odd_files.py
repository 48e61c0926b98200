"""What a folder of real pictures may hold: turned, CMYK, 16-bit, animated, empty, misnamed, and worse."""

from __future__ import annotations

import io
import os
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from colour_model import ColourModel, paint
from PIL import Image

from tipr.data import decoding
from tipr.data.manifest import Record, write_manifest
from tipr.gallery import Gallery
from tipr.gallery.ingest import Entry, list_entries


@pytest.fixture
def gallery(tmp_path: Path) -> Gallery:
    model: Any = ColourModel()
    return Gallery.create(tmp_path / "g", model)


def _upper_red(size: tuple[int, int] = (20, 60)) -> Image.Image:
    image = Image.new("RGB", size, "blue")
    image.paste((255, 0, 0), (0, 0, size[0], size[1] // 2))
    return image


def _turned(path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera lay on its side: shown upright after a quarter turn clockwise
    _upper_red().transpose(Image.Transpose.ROTATE_90).save(path, "JPEG", exif=exif, quality=95)


def _deep_grey(path: Path) -> None:
    Image.fromarray(np.full((60, 20), 40_000, dtype=np.uint16)).save(path, "PNG")


def _animated(path: Path) -> None:
    _upper_red().save(path, "WEBP", save_all=True, append_images=[Image.new("RGB", (20, 60), "lime")], lossless=True)


def _palette(path: Path) -> None:
    _upper_red().convert("P", palette=Image.Palette.ADAPTIVE).save(path, "PNG")


def _see_through(path: Path) -> None:
    image = _upper_red().convert("RGBA")
    image.putalpha(200)
    image.save(path, "PNG")


GOOD = {
    "plain.jpg": lambda path: _upper_red().save(path, "JPEG", quality=95),
    "plain.tif": lambda path: _upper_red().save(path, "TIFF"),
    "plain.bmp": lambda path: _upper_red().save(path, "BMP"),
    "turned.jpg": _turned,
    "cmyk.jpg": lambda path: _upper_red().convert("CMYK").save(path, "JPEG", quality=95),
    "animated.webp": _animated,
    "palette.png": _palette,
    "see-through.png": _see_through,
    "a jpeg called.png": lambda path: _upper_red().save(path, "JPEG", quality=95),
    "no_suffix": lambda path: _upper_red().save(path, "PNG"),
    "名字 – ünïcode.JPG": lambda path: _upper_red().save(path, "JPEG", quality=95),
}


@pytest.mark.parametrize("name", GOOD)
def test_odd_but_good_files_are_indexed_upright(gallery: Gallery, tmp_path: Path, name: str) -> None:
    (tmp_path / "p").mkdir()
    GOOD[name](tmp_path / "p" / name)
    paint(tmp_path / "p" / "other.png", "blue", "red")
    report = gallery.add([tmp_path / "p"])
    assert (report.added, report.skipped) == (2, ())
    best = gallery.search("red coat blue trousers", k=1)[0]
    assert Path(best.metadata["path"]).name == name
    assert (best.metadata["width"], best.metadata["height"]) == (20, 60)


def test_the_time_of_a_photograph_can_be_searched_for(gallery: Gallery, tmp_path: Path) -> None:
    exif = Image.Exif()
    exif.get_ifd(0x8769)[0x9003] = "2026:03:01 08:30:00"
    _upper_red().save(tmp_path / "dated.jpg", exif=exif)
    _upper_red().save(tmp_path / "undated.jpg", quality=90)
    given = Record("dated.jpg", time="2024-01-01T00:00:00Z", box=(0, 0, 20, 50))
    write_manifest(tmp_path / "list.jsonl", [given, Record("dated.jpg", box=(0, 0, 20, 40))])
    assert gallery.add([tmp_path / "dated.jpg", tmp_path / "undated.jpg", tmp_path / "list.jsonl"]).added == 4
    times = [hit.metadata["time"] for hit in sorted(gallery.search("red", k=9), key=lambda hit: hit.id)]
    taken = "2026-03-01T08:30:00Z"
    assert times == [taken, None, "2024-01-01T00:00:00Z", taken]  # what a manifest says goes first
    assert {hit.id for hit in gallery.search("red", since="2026-03-01", until="2026-03-01")} == {0, 3}


def test_sixteen_bits_are_scaled_and_not_clipped(gallery: Gallery, tmp_path: Path) -> None:
    _deep_grey(tmp_path / "deep.png")
    gallery.add([tmp_path / "deep.png"])
    Image.new("RGB", (20, 60), (156, 156, 156)).save(tmp_path / "flat.png")
    gallery.add([tmp_path / "flat.png"])
    one, two = gallery.vectors()[1].astype(np.float32)
    assert abs(one - two).max() < 0.01


def _bomb(path: Path) -> None:
    """A PNG of 60,000 x 60,000 pixels in a few hundred bytes."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    data = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" * 1000)) + chunk(b"IEND", b"")
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + data)


def _jpeg(size: tuple[int, int] = (40, 80)) -> bytes:
    file = io.BytesIO()
    Image.effect_noise(size, 80).convert("RGB").save(file, "JPEG")
    return file.getvalue()


def _gif(path: Path) -> None:
    _upper_red().save(path, "GIF")


BAD = {
    "empty.jpg": (lambda path: path.write_bytes(b""), "empty file"),
    "cut.jpg": (lambda path: path.write_bytes(_jpeg()[:600]), "truncated"),
    "text.jpg": (lambda path: path.write_text("not a picture, whatever it is called"), "not an image"),
    "notes.txt": (lambda path: path.write_text("shopping list"), "not an image"),
    "drawing.svg": (lambda path: path.write_text("<svg xmlns='http://www.w3.org/2000/svg'/>"), "unsupported format"),
    "moving.gif": (_gif, "unsupported format"),
    "called.png": (_gif, "unsupported format"),
    "bomb.png": (_bomb, "too large"),
    "page.html": (lambda path: path.write_text("<script>alert(1)</script>"), "not an image"),
    "loop.jpg": (lambda path: path.symlink_to(path.name), "unreadable"),
    "dangling.jpg": (lambda path: path.symlink_to("nothing"), "missing"),
    "pipe.jpg": (os.mkfifo, "unreadable"),
}


def test_bad_files_become_lines_with_path_reason_and_hint(gallery: Gallery, tmp_path: Path) -> None:
    (tmp_path / "p").mkdir()
    for name, (make, _) in BAD.items():
        make(tmp_path / "p" / name)
    good = [paint(tmp_path / "p" / f"good{seed}.png", seed=seed) for seed in range(3)]
    report = gallery.add([tmp_path / "p"])
    assert report.added == len(good)
    found = {Path(item.path).name: item for item in report.skipped}
    assert found.keys() == BAD.keys()
    for name, (_, reason) in BAD.items():
        assert found[name].reason.startswith(reason), found[name]
        assert found[name].hint
        assert "\n" not in found[name].reason + found[name].hint


def test_truncation_at_any_depth_never_stops_the_run(gallery: Gallery, tmp_path: Path) -> None:
    data = _jpeg()
    for depth in range(20):
        (tmp_path / f"cut{depth:02d}.jpg").write_bytes(data[: len(data) * depth // 20])
    report = gallery.add([tmp_path])
    assert report.added + len(report.skipped) == 20
    assert len(report.skipped) >= 10


def test_a_file_that_grows_beyond_reason_is_not_read(
    gallery: Gallery, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(decoding, "MAX_BYTES", 1000)
    (tmp_path / "huge.jpg").write_bytes(b"\xff\xd8\xff" + b"\0" * 2000)
    assert gallery.add([tmp_path / "huge.jpg"]).skipped[0].reason.startswith("too large")


def test_an_unreadable_file_is_named(gallery: Gallery, tmp_path: Path) -> None:
    (tmp_path / "secret.png").symlink_to("/proc/self/mem")  # not even the superuser can read address 0
    item = gallery.add([tmp_path / "secret.png"]).skipped[0]
    assert (item.reason, item.code) == ("unreadable (Input/output error)", "unreadable")


def test_names_that_are_not_utf8_are_listed(gallery: Gallery, tmp_path: Path) -> None:
    name = os.fsencode(tmp_path) + b"/caf\xe9.png"
    paint(tmp_path / "ok.png")
    os.rename(tmp_path / "ok.png", name)
    item = gallery.add([tmp_path]).skipped[0]
    assert item.reason == "the name is not valid UTF-8"
    assert gallery.add([os.fsdecode(name) + "\0"]).skipped[0].reason == "missing"


def test_wide_pictures_are_counted(gallery: Gallery, tmp_path: Path) -> None:
    paint(tmp_path / "street.png", size=(100, 60))
    paint(tmp_path / "edge.png", size=(48, 60))
    paint(tmp_path / "over.png", size=(49, 60))
    assert gallery.add([tmp_path]).wide_images == 2


def test_folders_are_listed_in_order_without_hidden_files_and_galleries(gallery: Gallery, tmp_path: Path) -> None:
    names = ["b.png", "a.png", "sub/c.png", "sub/deep/d.png", ".hidden.png", ".git/e.png"]
    for name in names:
        paint(tmp_path / "p" / name)
    (tmp_path / "p" / "sub" / "up").symlink_to(tmp_path / "p")  # a loop of folders
    gallery.path.rename(tmp_path / "p" / "gallery")

    def listed(recursive: bool) -> list[str]:
        entries, skipped = list_entries([tmp_path / "p"], recursive=recursive)
        assert not skipped
        return [str(Path(entry.path).relative_to(tmp_path / "p")) for entry in entries]

    assert listed(recursive=False) == ["a.png", "b.png"]
    assert listed(recursive=True) == ["a.png", "b.png", "sub/c.png", "sub/deep/d.png"]


def test_a_folder_without_files_says_what_to_do(tmp_path: Path) -> None:
    paint(tmp_path / "p" / "sub" / "a.png")
    entries, skipped = list_entries([tmp_path / "p"])
    assert entries == []
    assert skipped[0].hint == "use --recursive to descend"
    (tmp_path / "q").mkdir()
    assert "holds pictures" in list_entries([tmp_path / "q"])[1][0].hint
    entries, _ = list_entries([tmp_path / "nothing.png"], camera="door")
    assert entries == [Entry(str(tmp_path / "nothing.png"), camera="door")]


def test_a_manifest_inside_a_folder_is_pointed_out(tmp_path: Path) -> None:
    paint(tmp_path / "a.png")
    (tmp_path / "manifest.jsonl").write_text('{"image": "a.png", "captions": []}\n')
    entries, skipped = list_entries([tmp_path])
    assert [Path(entry.path).name for entry in entries] == ["a.png"]
    assert skipped[0].hint == "name it to add the pictures that it lists"
