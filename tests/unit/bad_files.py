"""A corpus of files that no folder of pictures should hold, and some odd but sound ones; made anew, never stored."""

from __future__ import annotations

import io
import os
import random
import socket
import struct
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np
from PIL import Image

DEPTHS = 20
"""At so many depths each form of picture is cut off."""
FLIPS = 14
"""Copies of each form with some bits flipped."""
Fate = Literal["reported", "indexed", "either"]


@dataclass(frozen=True, slots=True)
class Odd:
    """One file: its name, what must become of it, and how it is made."""

    name: str
    fate: Fate
    make: Callable[[Path], object]


def person(seed: int = 0, size: tuple[int, int] = (32, 80)) -> Image.Image:
    """Noise with two colours, so that every form of packing has something to do."""
    width, height = size
    pixels = np.random.default_rng(seed).integers(0, 120, (height, width, 3), dtype=np.uint8)
    pixels[: height // 2, :, 0] += 100
    return Image.fromarray(pixels)


def packed(kind: str, image: Image.Image | None = None, **options: object) -> bytes:
    file = io.BytesIO()
    (image or person()).save(file, kind, **options)
    return file.getvalue()


def forms() -> dict[str, bytes]:
    """A sound picture in every form that is read."""
    deep = Image.fromarray(np.random.default_rng(1).integers(0, 65535, (80, 32), dtype=np.uint16))
    frames = [person(2), person(3)]
    return {
        "plain.jpg": packed("JPEG"),
        "progressive.jpg": packed("JPEG", progressive=True),
        "grey.jpg": packed("JPEG", person().convert("L")),
        "cmyk.jpg": packed("JPEG", person().convert("CMYK")),
        "plain.png": packed("PNG"),
        "palette.png": packed("PNG", person().convert("P")),
        "deep.png": packed("PNG", deep),
        "see-through.png": packed("PNG", person().convert("RGBA")),
        "lossy.webp": packed("WEBP"),
        "lossless.webp": packed("WEBP", lossless=True),
        "animated.webp": packed("WEBP", frames[0], save_all=True, append_images=frames[1:]),
        "plain.bmp": packed("BMP"),
        "plain.tif": packed("TIFF"),
        "deflate.tif": packed("TIFF", compression="tiff_adobe_deflate"),
    }


def corpus() -> list[Odd]:
    """All files, over 300 of which must be reported; the same ones every time."""
    return [*_cut(), *_flipped(), *_no_pictures(), *_bombs(), *_no_files(), *_odd_but_sound()]


def sample(files: list[Odd], count: int) -> list[Odd]:
    """So many of them, evenly from the whole list."""
    return [files[place * len(files) // count] for place in range(count)]


def _bytes(name: str, fate: Fate, data: bytes) -> Odd:
    return Odd(name, fate, lambda path: path.write_bytes(data))


def _cut() -> Iterator[Odd]:
    for form, data in forms().items():
        for depth in range(DEPTHS):
            # of an animation the first frame is used: it may be whole when the rest is not
            fate: Fate = "either" if form == "animated.webp" else "reported"
            yield _bytes(f"cut{depth:02d}-{form}", fate, data[: len(data) * depth // DEPTHS])


def _flipped() -> Iterator[Odd]:
    """A flipped bit may be seen (PNG has checksums) or may be one wrong pixel: both are fine, a crash is not."""
    for form, data in forms().items():
        for number in range(FLIPS):
            draw = random.Random(f"{form} {number}")
            broken = bytearray(data)
            reach = 64 if number % 2 else len(data)  # every second one in the header
            for _ in range(1 + number):
                broken[draw.randrange(reach)] ^= 1 << draw.randrange(8)
            yield _bytes(f"flip{number:02d}-{form}", "either", bytes(broken))


def _no_pictures() -> Iterator[Odd]:
    draw = random.Random(5)
    for suffix in ("jpg", "png", "webp", "bmp", "tif"):
        yield _bytes(f"nothing.{suffix}", "reported", b"")
        yield _bytes(f"one-byte.{suffix}", "reported", b"\xff")
        yield _bytes(f"zeros.{suffix}", "reported", bytes(5000))
        yield _bytes(f"text.{suffix}", "reported", b"a shopping list, whatever it is called\n" * 9)
        yield _bytes(f"noise.{suffix}", "reported", b"\1" + draw.randbytes(4000))
        yield _bytes(f"page.{suffix}", "reported", b"<html><script>alert(1)</script></html>")
        yield _bytes(f"document.{suffix}", "reported", b"%PDF-1.7\n" + draw.randbytes(500))
        yield _bytes(f"archive.{suffix}", "reported", b"PK\3\4" + draw.randbytes(500))
        yield _bytes(f"program.{suffix}", "reported", b"\x7fELF" + draw.randbytes(500))
        yield _bytes(f"gif.{suffix}", "reported", packed("GIF"))
        yield _bytes(f"drawing.{suffix}", "reported", b"<svg xmlns='http://www.w3.org/2000/svg'/>")
        yield _bytes(f"script.{suffix}", "reported", b"%!PS-Adobe-3.0 EPSF-3.0\n(x) run\n")
    for form, data in forms().items():
        yield _bytes(f"blank-{form}", "reported", data[:12] + bytes(len(data)))


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def _png(width: int, height: int, *chunks: bytes, depth: int = 8, colour: int = 2, rows: bytes = b"") -> bytes:
    header = _chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0))
    end = _chunk(b"IDAT", zlib.compress(rows)) + _chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + header + b"".join(chunks) + end


def _bmp(width: int, height: int, bits: int) -> bytes:
    header = struct.pack("<IiiHHIIiiII", 40, width, height, 1, bits, 0, 0, 0, 0, 0, 0)
    return b"BM" + struct.pack("<IHHI", 54, 0, 0, 54) + header + bytes(100)


def _tiff(width: int, height: int, compression: int, data: bytes) -> bytes:
    tags = {256: width, 257: height, 258: 8, 259: compression, 262: 1, 273: 8, 277: 1, 278: height, 279: len(data)}
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags.items())
    place = 8 + len(data) + len(data) % 2
    table = struct.pack("<H", len(tags)) + entries + struct.pack("<I", 0)
    return b"II*\0" + struct.pack("<I", place) + data + bytes(len(data) % 2) + table


def _jpeg_of(width: int, height: int) -> bytes:
    """A sound JPEG whose header claims another size."""
    data = bytearray(packed("JPEG"))
    place = data.index(b"\xff\xc0") + 5
    data[place : place + 4] = struct.pack(">HH", height, width)
    return bytes(data)


def _bombs() -> Iterator[Odd]:
    """A few bytes that claim, or unpack to, a great many pixels."""
    for side in (8_000, 20_000, 65_535, 2**31 - 1):
        for colour, depth in ((0, 8), (2, 16), (6, 8)):
            yield _bytes(f"bomb{side}-{colour}.png", "reported", _png(side, side, depth=depth, colour=colour))
        yield _bytes(f"bomb{side}.bmp", "reported", _bmp(side, side, 24))
        yield _bytes(f"bomb{side}-low.bmp", "reported", _bmp(side, -side, 1))
        for compression in (1, 5, 8):
            packing = zlib.compress(bytes(10_000)) if compression == 8 else bytes(100)
            yield _bytes(f"bomb{side}-{compression}.tif", "reported", _tiff(side, side, compression, packing))
    for width, height in ((65_500, 65_500), (65_535, 2_000), (2_000, 65_535)):
        yield _bytes(f"bomb{width}x{height}.jpg", "reported", _jpeg_of(width, height))
    # just below the limit of pixels: it unpacks, but its four channels need more memory than decoding may take
    yield Odd("bomb-of-memory.png", "either", lambda path: path.write_bytes(_blank_png(7_000)))
    for kind in (b"zTXt", b"iCCP", b"iTXt"):
        yield Odd(f"bomb-in-{kind.decode()}.png", "either", partial(_bomb_in_chunk, kind))


def _blank_png(side: int) -> bytes:
    packer = zlib.compressobj(9)
    rows = b"".join(packer.compress(bytes(1 + 4 * side)) for _ in range(side)) + packer.flush()
    header = _chunk(b"IHDR", struct.pack(">IIBBBBB", side, side, 8, 6, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + _chunk(b"IDAT", rows) + _chunk(b"IEND", b"")


def _bomb_in_chunk(kind: bytes, path: Path) -> None:
    words = b"a\0\0" if kind != b"iTXt" else b"a\0\1\0\0\0"
    text = _chunk(kind, words + zlib.compress(bytes(80_000_000), 9))
    path.write_bytes(_png(10, 30, text, rows=b"".join(b"\0" + bytes(30) for _ in range(30))))


def _socket(path: Path) -> None:
    here = os.getcwd()
    os.chdir(path.parent)  # the name of a socket may have some hundred signs at most
    try:
        with socket.socket(socket.AF_UNIX) as plug:
            plug.bind(path.name)
    finally:
        os.chdir(here)


def _closed(path: Path) -> None:
    if os.geteuid():
        path.write_bytes(packed("JPEG"))
        path.chmod(0)
    else:  # to the superuser a file is never closed; address 0 of a process is
        path.symlink_to("/proc/self/mem")


def _no_files() -> Iterator[Odd]:
    for suffix in ("jpg", "png", "bmp"):
        yield Odd(f"pipe.{suffix}", "reported", os.mkfifo)
        yield Odd(f"socket.{suffix}", "reported", _socket)
        yield Odd(f"closed.{suffix}", "reported", _closed)
        yield Odd(f"loop.{suffix}", "reported", lambda path: path.symlink_to(path.name))
        yield Odd(f"nowhere.{suffix}", "reported", lambda path: path.symlink_to("nothing-of-this-name"))
        yield Odd(f"device.{suffix}", "reported", lambda path: path.symlink_to("/dev/zero"))
        yield Odd(f"endless.{suffix}", "reported", lambda path: path.symlink_to("/dev/urandom"))
        yield Odd(f"long.{suffix}", "reported", lambda path: path.symlink_to("x" * 300))


def _with_exif(exif: bytes) -> bytes:
    return packed("JPEG", exif=b"Exif\0\0" + exif)


def _odd_but_sound() -> Iterator[Odd]:
    for form, data in forms().items():
        yield _bytes(f"sound-{form}", "indexed", data)
        yield _bytes(f"sound-{form}.doc", "indexed", data)
    for kind in ("JPEG", "PNG", "WEBP", "BMP", "TIFF"):
        suffix = kind.lower()
        yield _bytes(f"dot.{suffix}", "indexed", packed(kind, person(4, (1, 1))))
        wide = 16_383 if kind == "WEBP" else 65_500 if kind == "JPEG" else 65_535
        yield _bytes(f"wide.{suffix}", "indexed", packed(kind, person(5, (wide, 2))))
        yield _bytes(f"high.{suffix}", "indexed", packed(kind, person(6, (2, wide))))
    broken = [b"", b"II*\0", b"MM\0*\xff\xff\xff\xff", b"II*\0\x08\0\0\0\xff\xff", bytes(40), b"\xff" * 60]
    for number, exif in enumerate(broken):
        yield _bytes(f"exif{number}.jpg", "indexed", _with_exif(exif))
        yield _bytes(f"exif{number}.png", "indexed", packed("PNG", exif=exif or b"\0"))
    for number, profile in enumerate((b"x", bytes(128), b"\xff" * 3000)):
        yield _bytes(f"profile{number}.jpg", "indexed", packed("JPEG", icc_profile=profile))
        yield _bytes(f"profile{number}.png", "indexed", packed("PNG", icc_profile=profile))
        yield _bytes(f"profile{number}.webp", "indexed", packed("WEBP", icc_profile=profile))
    for kind in ("JPEG", "PNG", "BMP"):
        yield _bytes(f"tail.{kind.lower()}", "indexed", packed(kind) + b"PK\3\4 and more" * 50)
