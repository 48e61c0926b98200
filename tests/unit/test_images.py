"""Untrusted image files: what is read is right, what is refused says why, and nothing but `ImageProblem` escapes."""

from __future__ import annotations

import io
import json
import os
import pickle
import struct
import subprocess
import sys
import zlib
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps

from tipr.data.images import (
    CLIP_MEAN,
    CLIP_STD,
    HINTS,
    IMAGENET_MEAN,
    IMAGENET_STD,
    ImageProblem,
    Preprocessing,
    capture_time,
    normalise,
    read_image,
    resize,
)
from tipr.data.thumbnails import thumbnail
from tipr.errors import ConfigError, DatasetError


def picture(width: int = 20, height: int = 30) -> Image.Image:
    """A smooth colour gradient that no flip or turn leaves as it is."""
    y, x = np.mgrid[0:height, 0:width]
    return Image.fromarray(np.stack([x * 255 // width, y * 255 // height, (x + y) * 2], axis=2).astype(np.uint8))


def packed(image: Image.Image, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def pixels(data: bytes) -> np.ndarray:
    image = read_image(io.BytesIO(data))
    assert image.mode == "RGB"
    return np.asarray(image).astype(int)


def problem(data: bytes, **options: int) -> ImageProblem:
    with pytest.raises(ImageProblem) as caught:
        read_image(io.BytesIO(data), **options)
    assert "\n" not in str(caught.value)
    assert caught.value.hint == HINTS[caught.value.reason]
    return caught.value


def png(width: int, height: int, depth: int, kind: int, raw: bytes) -> bytes:
    """A PNG of given scan lines; the writer under test cannot write 16-bit colour."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = struct.pack(">IIBBBBB", width, height, depth, kind, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(raw)) + chunk(b"IEND", b"")


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "BMP", "TIFF"])
def test_every_format_is_read_whatever_the_file_is_called(kind: str, tmp_path: Path) -> None:
    image = picture()
    lossless = {"lossless": True} if kind == "WEBP" else {}
    path = tmp_path / "Bild 图.txt"
    path.write_bytes(packed(image, kind, **lossless))
    read = np.asarray(read_image(path)).astype(int)
    assert np.abs(read - np.asarray(image)).mean() <= (4 if kind == "JPEG" else 0)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("turn", range(1, 9))
def test_exif_orientation_is_applied(kind: str, turn: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = turn
    data = packed(picture(), kind, exif=exif, **({"lossless": True} if kind == "WEBP" else {}))
    expected = np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(data))).convert("RGB"))
    assert expected.shape == ((30, 20, 3) if turn < 5 else (20, 30, 3))
    assert np.array_equal(pixels(data), expected)


@pytest.mark.parametrize("subsampling", [0, 1, 2])
@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_fast_jpeg_path_gives_the_pixels_of_the_slow_one(subsampling: int, mode: str) -> None:
    options = {"subsampling": subsampling} if mode == "RGB" else {}
    data = packed(picture(37, 53).convert(mode), "JPEG", quality=85, **options)
    slow = np.asarray(Image.open(io.BytesIO(data)).convert("RGB")).astype(int)
    assert np.abs(pixels(data) - slow).max() <= 1


def test_cmyk_is_read_as_its_colours() -> None:
    red = Image.new("RGB", (16, 16), (200, 30, 40))
    for kind in ("JPEG", "TIFF"):
        assert np.abs(pixels(packed(red.convert("CMYK"), kind)) - [200, 30, 40]).max() < 12


def test_sixteen_bits_are_scaled_not_clipped() -> None:
    levels = np.array([[0, 257, 32768, 65535]], dtype=np.uint16)
    for data in (
        packed(Image.fromarray(levels), "PNG"),
        packed(Image.fromarray(levels), "TIFF"),
        png(4, 1, 16, 0, b"\0" + levels.astype(">u2").tobytes()),
        png(4, 1, 16, 2, b"\0" + np.repeat(levels, 3).astype(">u2").tobytes()),
    ):
        assert np.abs(pixels(data)[0, :, 1] - [0, 1, 128, 255]).max() <= 1


def test_deep_tiffs_are_scaled_or_refused() -> None:
    half = np.array([[0.0, 0.5, 1.0]], dtype=np.float32)
    assert pixels(packed(Image.fromarray(half), "TIFF"))[0, :, 0].tolist() == [0, 128, 255]
    whole = np.array([[0, 65535]], dtype=np.int32)
    assert pixels(packed(Image.fromarray(whole), "TIFF"))[0, :, 0].tolist() == [0, 255]
    for bad in (np.array([[-1.0, 0.0]]), np.array([[np.nan, 0.0]]), np.array([[0.0, 300.0]])):
        assert problem(packed(Image.fromarray(bad.astype(np.float32)), "TIFF")).reason == "unsupported format"


def test_palette_and_transparency_are_composited_on_white() -> None:
    clear = Image.new("RGBA", (4, 4), (10, 20, 30, 0))
    clear.putpixel((0, 0), (10, 20, 30, 255))
    for data in (packed(clear, "PNG"), packed(clear, "WEBP", lossless=True), packed(clear, "TIFF")):
        assert pixels(data)[0, 0].tolist() == [10, 20, 30]
        assert pixels(data)[3, 3].tolist() == [255, 255, 255]
    palette = picture().quantize(16)
    assert np.array_equal(pixels(packed(palette, "PNG")), np.asarray(palette.convert("RGB")))
    assert (pixels(packed(palette, "PNG", transparency=palette.getpixel((0, 0))))[0, 0] == 255).all()
    assert (pixels(packed(palette, "PNG", transparency=bytes(16))) == 255).all()
    assert (pixels(packed(Image.new("L", (4, 4), 7), "PNG", transparency=7)) == 255).all()
    assert (pixels(packed(Image.new("1", (4, 4), 1), "PNG")) == 255).all()
    assert (pixels(packed(Image.new("LA", (4, 4), (0, 0)), "PNG")) == 255).all()


@pytest.mark.parametrize("kind", ["WEBP", "PNG", "TIFF"])
def test_first_frame_of_several(kind: str) -> None:
    first, second = Image.new("RGB", (8, 8), "red"), Image.new("RGB", (8, 8), "blue")
    options = {"lossless": True} if kind == "WEBP" else {}
    data = packed(first, kind, save_all=True, append_images=[second], **options)
    assert (pixels(data) == [255, 0, 0]).all()


def test_refusals_name_the_reason(tmp_path: Path) -> None:
    jpeg = packed(picture(200, 300), "JPEG")
    assert problem(b"").reason == "empty file"
    assert problem(b"hello, this is no picture").reason == "not an image"
    assert problem(packed(picture(), "GIF")).reason == "unsupported format"
    assert problem(b"<?xml version='1.0'?><svg xmlns='x'/>").reason == "unsupported format"
    assert problem(jpeg[: len(jpeg) // 2]).reason == "truncated"
    assert problem(jpeg[:20]).reason == "truncated"
    for kind in ("PNG", "WEBP", "BMP", "TIFF"):
        whole = packed(picture(200, 300), kind)
        assert problem(whole[: len(whole) // 2]).reason == "truncated", kind
    assert problem(jpeg, max_pixels=59_999).reason == "too large"
    assert problem(packed(picture(200, 300), "PNG"), max_pixels=59_999).reason == "too large"
    assert pixels(packed(picture(200, 300), "PNG")).shape == (300, 200, 3)
    with pytest.raises(ImageProblem, match="missing"):
        read_image(tmp_path / "nothing.jpg")
    with pytest.raises(ImageProblem, match="a folder"):
        read_image(tmp_path)
    with pytest.raises(ImageProblem, match="unreadable"):
        read_image("a\0b.jpg")
    pipe = tmp_path / "pipe.jpg"
    os.mkfifo(pipe)
    with pytest.raises(ImageProblem, match="not a regular file"):
        read_image(pipe)


def test_a_bomb_is_refused_before_decoding() -> None:
    bomb = png(60_000, 60_000, 1, 0, b"")
    found = problem(bomb)
    assert found.reason == "too large"
    assert "60000 x 60000" in str(found)


def test_damaged_exif_does_not_spoil_a_picture() -> None:
    jpeg = packed(picture(), "JPEG")
    for body in (
        b"",
        b"II*\0",
        b"II*\0\xff\xff\xff\xff",
        b"MM\0*\0\0\0\x08\xff\xff" + b"\x01\x12\0\x03\0\0\0\x01\0\x06" * 3,
    ):
        segment = b"Exif\0\0" + body
        data = jpeg[:2] + b"\xff\xe1" + struct.pack(">H", len(segment) + 2) + segment + jpeg[2:]
        assert pixels(data).size == 20 * 30 * 3


def tiff(channels: int, bits: int) -> bytes:
    """An uncompressed RGB TIFF of 4 x 4 pixels with further channels, as microscopes and scanners write them."""
    raw = bytes(4 * 4 * channels * bits // 8)
    more = [struct.pack(f"<{channels}H", *[bits] * channels), struct.pack(f"<{channels}H", *[0] * channels)]
    place = 8 + 2 + 11 * 12 + 4  # behind header and directory
    fields = [(256, 3, 1, 4), (257, 3, 1, 4), (258, 3, channels, place), (259, 3, 1, 1), (262, 3, 1, 2)]
    fields += [(273, 4, 1, place + 4 * channels), (277, 3, 1, channels), (278, 3, 1, 4), (279, 4, 1, len(raw))]
    fields += [(284, 3, 1, 1), (338, 3, channels - 3, place + 2 * channels)]
    directory = b"".join(struct.pack("<HHII", *field) for field in fields)
    return b"II*\0" + struct.pack("<IH", 8, len(fields)) + directory + bytes(4) + b"".join(more) + raw


def test_tiffs_of_many_channels_are_unsupported_and_not_damaged(capfd: pytest.CaptureFixture[str]) -> None:
    assert pixels(tiff(6, 8)).shape == (4, 4, 3)  # the first three of them are colours
    for channels, bits in ((6, 16), (8, 8), (9, 16)):
        found = problem(tiff(channels, bits))
        assert found.reason == "unsupported format", str(found)
        assert "ordinary RGB picture" in found.hint
    assert capfd.readouterr() == ("", ""), "the imaging library's own log must not reach the terminal"


def dated(kind: str, clock: object, offset: str | None = None) -> bytes:
    exif = Image.Exif()
    exif[0x0132] = "1999:01:01 00:00:00"  # when the file was changed: says nothing about the photograph
    details = exif.get_ifd(0x8769)
    details[0x9003] = clock
    if offset is not None:
        details[0x9011] = offset
    return packed(picture(), kind, exif=exif.tobytes())


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_the_time_of_a_photograph_is_read(kind: str) -> None:
    assert capture_time(dated(kind, "2024:05:06 07:08:09")) == datetime(2024, 5, 6, 7, 8, 9, tzinfo=UTC)
    assert capture_time(dated(kind, "2024:05:06 07:08:09", "+02:00")) == datetime(2024, 5, 6, 5, 8, 9, tzinfo=UTC)
    assert capture_time(packed(picture(), kind)) is None


def test_a_time_that_cannot_be_read_is_none() -> None:
    for clock in ("0000:00:00 00:00:00", "    :  :     :  :  ", "yesterday", "2024:13:06 07:08:09", ""):
        assert capture_time(dated("JPEG", clock)) is None, clock
    assert capture_time(dated("JPEG", "2024:05:06 07:08:09", "nonsense")) == datetime(2024, 5, 6, 7, 8, 9, tzinfo=UTC)
    assert capture_time(dated("JPEG", "0001:01:01 00:00:00", "+14:00")) is None  # before the calendar begins
    jpeg = packed(picture(), "JPEG")
    assert capture_time(packed(picture(), "BMP")) is None
    assert capture_time(b"no picture: Exif\0") is None
    for cut in range(0, 400, 7):
        capture_time(dated("JPEG", "2024:05:06 07:08:09")[:cut])
    assert capture_time(jpeg[:2] + b"\xff\xe1\0\x0cExif\0\0II*\0" + jpeg[2:]) is None


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "BMP", "TIFF"])
def test_nothing_but_image_problem_escapes_from_damaged_files(kind: str) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    whole = packed(picture(), kind, **({} if kind == "BMP" else {"exif": exif}))
    generator = np.random.default_rng(7)
    refused = 0
    for _ in range(150):
        data = np.frombuffer(whole, dtype=np.uint8).copy()
        where = generator.integers(len(data), size=generator.integers(1, 6))
        data[where] = generator.integers(256, size=len(where))
        try:
            image = read_image(io.BytesIO(data[: generator.integers(1, len(data) + 1)].tobytes()), max_pixels=100_000)
            assert image.mode == "RGB"
        except ImageProblem:
            refused += 1
    assert refused > 20


def test_threads_read_side_by_side_without_disturbing_warnings() -> None:
    import warnings

    data = [packed(picture(), kind) for kind in ("PNG", "TIFF", "JPEG", "WEBP")] * 10
    before = list(warnings.filters)
    with ThreadPoolExecutor(4) as pool:
        assert {image.size for image in pool.map(lambda item: read_image(io.BytesIO(item)), data)} == {(20, 30)}
    assert list(warnings.filters) == before


def test_problem_is_a_dataset_error_that_crosses_processes() -> None:
    found = pickle.loads(pickle.dumps(ImageProblem("a b.jpg", "truncated", "12 bytes\nleft")))
    assert isinstance(found, DatasetError)
    assert str(found) == f"a b.jpg: truncated (12 bytes left); {HINTS['truncated']}"


def test_resize_is_antialiased_and_keeps_constants() -> None:
    assert (resize(np.full((50, 40, 3), 77, np.uint8), (12, 7)) == 77).all()
    stripes = np.zeros((64, 64, 3), np.uint8)
    stripes[:, ::2] = 255
    small = resize(stripes, (16, 16))
    assert small.shape == (16, 16, 3)
    assert small.dtype == np.uint8
    assert abs(int(small[8, 8, 0]) - 128) <= 2  # point sampling would give 0 or 255
    image = picture(64, 96)
    other = np.asarray(image.resize((24, 32), Image.Resampling.BILINEAR)).astype(int)
    assert np.abs(resize(image, (32, 24)).astype(int) - other).max() <= 2
    same = np.asarray(image)
    assert np.array_equal(resize(image, (96, 64)), same)
    with pytest.raises(ValueError, match="RGB"):
        resize(np.zeros((4, 4), np.uint8), (2, 2))


def test_preprocessing_normalises_and_travels_through_json(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    picture().save(path)
    preprocessing = Preprocessing((48, 16))
    batch = preprocessing([path, picture(100, 50)])
    assert batch.shape == (2, 3, 48, 16)
    assert batch.dtype == torch.float32
    assert torch.equal(batch, normalise(preprocessing.pixels([path, picture(100, 50)])))
    white = normalise(torch.full((1, 3, 2, 2), 255, dtype=torch.uint8))
    expected = (1 - torch.tensor(CLIP_MEAN)) / torch.tensor(CLIP_STD)
    torch.testing.assert_close(white[0, :, 0, 0], expected)
    assert preprocessing([]).shape == (0, 3, 48, 16)
    assert Preprocessing.from_json(preprocessing.to_json()) == preprocessing
    for tree in ({}, {**preprocessing.to_json(), "more": 1}, {**preprocessing.to_json(), "mean": [1, 2]}):
        with pytest.raises(ConfigError):
            Preprocessing.from_json(tree)
    with pytest.raises(ConfigError, match="image_size"):
        Preprocessing((0, 16))


def test_thumbnail_is_a_small_jpeg() -> None:
    small = Image.open(io.BytesIO(thumbnail(picture(400, 600), height=160)))
    assert (small.format, small.height) == ("JPEG", 160)
    assert Image.open(io.BytesIO(thumbnail(picture(20, 30)))).size == (20, 30)
    assert Image.open(io.BytesIO(thumbnail(picture(2000, 10), height=20))).width == 80


def test_reading_does_not_import_torch() -> None:
    code = "import sys, tipr.data.images; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_bicubic_resizing_is_that_of_the_imaging_library_and_travels_with_the_model() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (60, 40, 3), dtype=np.uint8)
    expected = np.asarray(Image.fromarray(pixels).resize((14, 28), Image.Resampling.BICUBIC), np.int64)
    assert np.abs(resize(pixels, (28, 14), "bicubic") - expected).max() <= 1
    assert np.abs(resize(pixels, (28, 14)) - expected).max() > 5
    preprocessing = Preprocessing((28, 14), IMAGENET_MEAN, IMAGENET_STD, "bicubic")
    assert Preprocessing.from_json(json.loads(json.dumps(preprocessing.to_json()))) == preprocessing
    assert "interpolation" not in Preprocessing((28, 14)).to_json()
    found = preprocessing.pixels([Image.fromarray(pixels)])[0].permute(1, 2, 0)
    assert np.array_equal(found, resize(pixels, (28, 14), "bicubic"))
    with pytest.raises(ConfigError, match="interpolation must be bilinear or bicubic, not 'nearest'"):
        Preprocessing.from_json({**preprocessing.to_json(), "interpolation": "nearest"})
