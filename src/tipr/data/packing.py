"""A data set's images decoded once: one memory-mapped file of uint8 pixels at training size, so that no step waits.

PACK/pack.json     size, interpolation, and every image with size, time and SHA-256 of the file it came from
PACK/pixels.u8     (G, 3, H, W) uint8, image after image

The pixels are those that reading the files gives, so a run on a pack is a run on the files, bit for bit.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tipr.data.images import ImageProblem, Interpolation, read_image, resize
from tipr.errors import DatasetError

FORMAT = 1
DESCRIPTION = "pack.json"
PIXELS = "pixels.u8"
DRAFT = ".part"
"""Behind the names of both files until the pack is whole."""
CHUNK = 256
"""Images between two notes of how far it is; a pack that was stopped goes on there."""
Progress = Callable[[int, int], None]
Stamp = tuple[int, int]
"""Size in bytes and time of change in nanoseconds of an image file."""


@dataclass(frozen=True, slots=True)
class Decoded:
    """One image: its pixels as they lie in the pack, and the SHA-256 of its file."""

    data: bytes
    sha256: str


@dataclass(frozen=True)
class Packed:
    """What packing did.

    Attributes:
        folder: the pack.
        images: in it.
        size_bytes: of its pixels.
        skipped: (file, reason) of images that cannot be read; they are not in the pack.
    """

    folder: Path
    images: int
    size_bytes: int
    skipped: tuple[tuple[str, str], ...]


def pack_images(
    paths: Sequence[Path],
    out: Path,
    size: tuple[int, int],
    *,
    root: Path,
    interpolation: Interpolation = "bilinear",
    threads: int = 1,
    progress: Progress | None = None,
) -> Packed:
    """Decode images into a pack; one that was stopped goes on where it was.

    Args:
        paths: image files, each once.
        out: folder to make.
        size: (height, width).
        root: what the names in the pack are relative to, so that data set and pack may move together.
        interpolation: of the resizing.
        threads: that decode.
        progress: called with (done, all).

    Raises:
        DatasetError: there is a pack of something else, or no image can be read.
        OSError: disk full or not writable; what is done stays, and the same call goes on.
    """
    out.mkdir(parents=True, exist_ok=True)
    names = [_name(path, root) for path in paths]
    wanted = {"format": FORMAT, "size": list(size), "interpolation": interpolation}
    stamps = [_stamp(path) for path in paths]
    if (out / DESCRIPTION).is_file():
        pack = Pack.open(out)
        if pack.describes(wanted) and pack.stamps == {
            n: s for n, s in zip(names, stamps, strict=True) if n in pack.row
        }:
            return Packed(out, len(pack.row), pack.pixels.nbytes, ())
        raise DatasetError(f"{out} holds a pack of other images or another size: choose another folder")
    state = out / f"{DESCRIPTION}{DRAFT}"
    done, kept, skipped = _resumed(state, wanted, names, stamps)
    each = 3 * size[0] * size[1]
    with (out / f"{PIXELS}{DRAFT}").open("r+b" if done else "wb") as stream, ThreadPoolExecutor(threads) as pool:
        stream.truncate(len(kept) * each)
        stream.seek(len(kept) * each)
        while done < len(paths):
            part = range(done, min(done + CHUNK, len(paths)))
            for place, pixels in zip(part, pool.map(lambda p: _read(paths[p], size, interpolation), part), strict=True):
                if isinstance(pixels, ImageProblem):
                    skipped.append((names[place], pixels.reason))
                else:
                    kept.append((place, pixels.sha256))
                    stream.write(pixels.data)
            stream.flush()
            os.fsync(stream.fileno())
            done = part.stop
            _write(state, {**wanted, "names": names, "stamps": stamps, "done": done, "kept": kept, "skipped": skipped})
            if progress is not None:
                progress(done, len(paths))
    if not kept:
        raise DatasetError(f"no image can be read, first {skipped[0][0]}: {skipped[0][1]}")
    images = [[names[place], *stamps[place], sha256] for place, sha256 in kept]
    os.replace(out / f"{PIXELS}{DRAFT}", out / PIXELS)
    _write(out / DESCRIPTION, {**wanted, "images": images})
    state.unlink()
    return Packed(out, len(kept), len(kept) * each, tuple(skipped))


class Pack:
    """A pack on disk.

    Attributes:
        folder: where it is.
        size: (height, width).
        interpolation: of the resizing.
        pixels: (G, 3, H, W) uint8, memory-mapped, read only.
        row: name of an image -> its position.
        stamps: name of an image -> `Stamp` of the file that it came from.
        sha256: of those files, in the order of `row`.
    """

    def __init__(
        self,
        folder: Path,
        pixels: NDArray[np.uint8],
        *,
        interpolation: Interpolation,
        stamps: dict[str, Stamp],
        sha256: Sequence[str],
    ) -> None:
        self.folder, self.interpolation = folder, interpolation
        self.pixels = pixels
        self.size: tuple[int, int] = pixels.shape[2], pixels.shape[3]
        self.stamps = stamps
        self.sha256 = tuple(sha256)
        self.row = {name: position for position, name in enumerate(stamps)}

    @classmethod
    def open(cls, folder: Path) -> Pack:
        """Open a pack.

        Raises:
            DatasetError: there is none, it is not whole, or it is damaged.
        """
        try:
            tree = json.loads((folder / DESCRIPTION).read_text(encoding="utf-8"))
            if tree["format"] != FORMAT:
                raise ValueError(f"format {tree['format']!r}; this version of tipr reads {FORMAT}")
            height, width = (int(side) for side in tree["size"])
            stamps = {str(name): (int(size), int(time)) for name, size, time, _ in tree["images"]}
            sha256 = [str(image[3]) for image in tree["images"]]
            shape = (len(stamps), 3, height, width)
            if (folder / PIXELS).stat().st_size != int(np.prod(shape)):
                raise ValueError(f"{PIXELS} has another size than {len(stamps):,} images of {height}x{width}")
            pixels = np.memmap(folder / PIXELS, dtype=np.uint8, mode="r", shape=shape)
        except FileNotFoundError:
            unfinished = (
                " (it was never finished: give the same command again)"
                if (folder / f"{DESCRIPTION}{DRAFT}").is_file()
                else ""
            )
            raise DatasetError(f"no pack at {folder}{unfinished}; tipr data pack makes one") from None
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise DatasetError(f"pack {folder} cannot be used: {error}") from None
        return cls(folder, pixels, interpolation=tree["interpolation"], stamps=stamps, sha256=sha256)

    def describes(self, wanted: dict[str, object]) -> bool:
        """Whether it was made with these settings."""
        return [list(self.size), self.interpolation] == [wanted["size"], wanted["interpolation"]]

    def rows(self, paths: Sequence[Path], root: Path) -> NDArray[np.int64]:
        """Positions of images; a file that is still there must have the content that was packed.

        Args:
            paths: image files.
            root: what the names in the pack are relative to.

        Raises:
            DatasetError: an image is not in the pack, or its file has changed since.
        """
        names = [_name(path, root) for path in paths]
        absent = [name for name in names if name not in self.row]
        if absent:
            raise DatasetError(f"{len(absent)} of {len(names)} images are not in pack {self.folder}, first {absent[0]}")
        for name, path in zip(names, paths, strict=True):
            if not path.exists() or _stamp(path) == self.stamps[name]:
                continue
            if _sha256(path) != self.sha256[self.row[name]]:  # else it was only copied or touched
                raise DatasetError(f"{path} has changed since pack {self.folder} was made: make it anew")
        return np.array([self.row[name] for name in names], dtype=np.int64)


def _name(path: Path, root: Path) -> str:
    return path.relative_to(root).as_posix() if path.is_relative_to(root) else path.as_posix()


def _stamp(path: Path) -> Stamp:
    try:
        facts = path.stat()
    except OSError:
        return (-1, -1)  # reported when it is read
    return facts.st_size, facts.st_mtime_ns


def _read(path: Path, size: tuple[int, int], interpolation: Interpolation) -> Decoded | ImageProblem:
    try:
        pixels = resize(read_image(path), size, interpolation).transpose(2, 0, 1)
        return Decoded(pixels.tobytes(), _sha256(path))
    except ImageProblem as problem:
        return problem


def _sha256(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _resumed(
    state: Path, wanted: dict[str, object], names: Sequence[str], stamps: Sequence[Stamp]
) -> tuple[int, list[tuple[int, str]], list[tuple[str, str]]]:
    """How far an unfinished pack of the same images is: images done, positions kept, files skipped."""
    try:
        tree = json.loads(state.read_text(encoding="utf-8"))
        same = all(tree[key] == value for key, value in wanted.items())
        if same and tree["names"] == list(names) and tree["stamps"] == [list(stamp) for stamp in stamps]:
            kept = [(int(place), str(sha256)) for place, sha256 in tree["kept"]]
            return int(tree["done"]), kept, [(str(name), str(reason)) for name, reason in tree["skipped"]]
    except (OSError, ValueError, KeyError):
        pass
    return 0, [], []


def _write(path: Path, tree: dict[str, object]) -> None:
    draft = path.with_name(f".{path.name}")
    with draft.open("w", encoding="utf-8") as stream:
        json.dump(tree, stream, ensure_ascii=False)
        stream.flush()
        os.fsync(stream.fileno())
    os.replace(draft, path)
