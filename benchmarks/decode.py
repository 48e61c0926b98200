"""Processor time of decoding and shrinking one picture: through the confined child process, and plainly with Pillow.

    python benchmarks/decode.py [--write] [--files 64] [--rounds 15]

The files are baseline JPEGs of persons' size, 512 x 192 pixels and about 28 kB, shrunk to 384 x 128 pixels of 8 bits:

plain     Pillow opens a file, converts and resizes (bilinear)
worker    what filling a gallery does for each file: a child process reads, hashes and decodes files into shared memory,
          some at once, and the parent shrinks each as for evaluation

The processor time of both processes counts, one thread each, both on one core. Each round measures one way after the
other on all files, each once before it counts, as in a folder of many; the medians over the rounds are compared; the
whole is done three times, and the middle one counts. Beside them:
`plain_float`, the plain way up to a normalised tensor of single precision, as the transforms of published code go on,
and `ratio_float` against that (the worker's pixels are not normalised); `decode` and `hash`, libjpeg-turbo and SHA-256
alone, on bytes in memory; `resize`, on pixels in memory; and ways to decode that are not taken: `decode_fast`,
faster and less exact, `decode_grey`, brightness alone, `decode_scaled`, at six eighths of the size.
`largest_difference` is that of the pixels from the evaluation's transform, in levels of 255, `..._from_plain` from the
plain way's. The load average of the machine is in the record.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from operator import itemgetter
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import simplejpeg
import torch
from PIL import Image

from record import write
from tipr.data.decoding import FILES, Decoded, Decoder
from tipr.data.images import CLIP_MEAN, CLIP_STD, Preprocessing, resize

SIZE = (384, 128)
FAST = {"fastdct": True, "fastupsample": True}
GREY = {"colorspace": "GRAY"}
SCALED = {"min_height": SIZE[0], "min_width": SIZE[1]}
MEAN, STD = torch.tensor(CLIP_MEAN).view(3, 1, 1), torch.tensor(CLIP_STD).view(3, 1, 1)


def make_files(folder: Path, count: int) -> list[Path]:
    """JPEGs of 512 x 192 pixels, about 28 kB: smooth shapes with grain."""
    files = []
    for seed in range(count):
        random = np.random.default_rng(seed)
        coarse = Image.fromarray(random.integers(0, 256, (32, 12, 3), dtype=np.uint8))
        smooth = np.asarray(coarse.resize((192, 512), Image.Resampling.BICUBIC), dtype=np.float64)
        pixels = np.clip(smooth + random.normal(0, 8, smooth.shape), 0, 255).astype(np.uint8)
        files.append(folder / f"{seed:03d}.jpg")
        files[-1].write_bytes(simplejpeg.encode_jpeg(pixels, quality=87, colorsubsampling="420"))
    return files


def plain(file: Path) -> np.ndarray[Any, Any]:
    """Pillow alone."""
    with Image.open(file) as image:
        return np.array(image.convert("RGB").resize(SIZE[::-1], Image.Resampling.BILINEAR))


def plain_float(file: Path) -> torch.Tensor:
    """Pillow, and a float tensor."""
    pixels = torch.from_numpy(plain(file)).permute(2, 0, 1).contiguous()
    return pixels.float().div(255).sub_(MEAN).div_(STD)


def worker(decoder: Decoder, files: Sequence[Path]) -> Iterator[np.ndarray[Any, Any]]:
    """The child process, and the evaluation's resize."""
    left = [(str(file), ()) for file in files]
    while left:
        found = decoder.read_some(left[:FILES])
        for each in found:
            assert isinstance(each, Decoded)
            assert each.pixels is not None
            yield resize(each.pixels, SIZE)
        left = left[len(found) :]


def of_both(decoder: Decoder) -> float:
    """Seconds of processor time of this process and of the child."""
    running = Path(f"/proc/{decoder.pid}/schedstat").read_text(encoding="ascii").split()[0]
    return time.process_time() + int(running) / 1e9


def measure(files: Sequence[Path], rounds: int) -> dict[str, Any]:
    """Times in microseconds a picture, and their ratios."""
    torch.set_num_threads(1)
    cores = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(cores)})
    decoder, contents = Decoder(), [file.read_bytes() for file in files]
    pixels = [simplejpeg.decode_jpeg(data) for data in contents]
    expected = Preprocessing(SIZE).pixels(list(files)).permute(0, 2, 3, 1).numpy()
    smalls = list(worker(decoder, files))
    plainly = [plain(file) for file in files]
    ways: dict[str, Callable[[], Iterable[object]]] = {
        "plain": lambda: map(plain, files),
        "worker": lambda: worker(decoder, files),
        "plain_float": lambda: map(plain_float, files),
        "decode": lambda: (simplejpeg.decode_jpeg(data) for data in contents),
        "decode_fast": lambda: (simplejpeg.decode_jpeg(data, **FAST) for data in contents),
        "decode_grey": lambda: (simplejpeg.decode_jpeg(data, **GREY) for data in contents),
        "decode_scaled": lambda: (simplejpeg.decode_jpeg(data, **SCALED) for data in contents),
        "hash": lambda: (hashlib.sha256(data).digest() for data in contents),
        "resize": lambda: (resize(each, SIZE) for each in pixels),
    }
    costs: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(rounds):
        for name, way in ways.items():
            for _ in way():  # nothing is kept: memory that is new for each picture would be measured
                pass
            start = of_both(decoder)
            for _ in way():
                pass
            costs[name].append((of_both(decoder) - start) / len(files) * 1e6)
    decoder.close()
    os.sched_setaffinity(0, cores)
    middle = {name: median(found) for name, found in costs.items()}
    return {
        **{f"{name}_us": round(value) for name, value in middle.items()},
        "ratio": round(middle["plain"] / middle["worker"], 2),
        "ratio_float": round(middle["plain_float"] / middle["worker"], 2),
        "largest_difference": _largest(smalls, expected),
        "largest_difference_from_plain": _largest(smalls, plainly),
        "largest_difference_fast": _difference_fast(),
    }


def _difference_fast() -> int:
    """Of the faster ways to decode, on a picture of coloured patches, as clothes are."""
    colours = np.random.default_rng(1).integers(0, 256, (14, 7, 3), dtype=np.uint8)
    patches = colours.repeat(37, axis=0).repeat(29, axis=1)[:512, :192]
    data = simplejpeg.encode_jpeg(np.ascontiguousarray(patches), quality=87, colorsubsampling="420")
    exact, fast = simplejpeg.decode_jpeg(data), simplejpeg.decode_jpeg(data, **FAST)
    return _largest([resize(exact, SIZE)], [resize(fast, SIZE)])


def _largest(some: Sequence[np.ndarray[Any, Any]], others: Sequence[np.ndarray[Any, Any]]) -> int:
    return max(int(np.abs(one.astype(int) - other).max()) for one, other in zip(some, others, strict=True))


def main() -> None:
    """Measure and print; write the record when asked to."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--write", action="store_true")
    parser.add_argument("--files", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=15)
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        files = make_files(Path(folder), chosen.files)
        three = sorted((measure(files, chosen.rounds) for _ in range(3)), key=itemgetter("ratio"))
        found = {**three[1], "ratios": [each["ratio"] for each in three]}
        found["mean_bytes"] = round(sum(file.stat().st_size for file in files) / len(files))
        found["digest_of_files"] = hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()[:16]
    print(json.dumps(found, indent=2))
    if chosen.write:
        command = f"python benchmarks/decode.py --write --files {chosen.files} --rounds {chosen.rounds}"
        print(write("decode", command, found))


if __name__ == "__main__":
    main()
