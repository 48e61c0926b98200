"""How long a check of a copy of CUHK-PEDES in its full size takes: 40,206 images and 80,440 captions.

    python benchmarks/data_check.py [--write] [--workers 2]

The annotation is written anew: the published layout and numbers, invented people. The images are links to 64 rendered
ones of 128 x 384 pixels, so reading them costs what it costs from a warm disk cache. `fast` does not decode; `whole`
decodes every image. `load` reads the training split as a run does.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

import record
from tipr.data.check import check_dataset
from tipr.data.datasets import DATASETS

FOLDERS = ("cam_a", "cam_b", "CUHK01", "CUHK03", "Market", "test_query", "train_query")
WORDS = (
    "a",
    "man",
    "woman",
    "in",
    "with",
    "the",
    "red",
    "blue",
    "green",
    "black",
    "white",
    "coat",
    "shirt",
    "shoes",
    "bag",
)


def write_copy(root: Path) -> None:
    """The layout, the counts and the uneven numbers of captions of the published file."""
    generator = np.random.default_rng(0)
    for number in range(64):
        pixels = generator.integers(0, 255, (24, 8, 3), dtype=np.uint8)
        buffer = io.BytesIO()
        Image.fromarray(pixels).resize((128, 384), Image.Resampling.BICUBIC).save(buffer, "JPEG", quality=92)
        (root / f"{number}.jpg").write_bytes(buffer.getvalue())
    for folder in FOLDERS:
        (root / "imgs" / folder).mkdir(parents=True)
    records = []
    first = 1
    for split, counts in DATASETS["cuhk_pedes"].facts.editions[0].splits.items():
        people = counts.identities or 1
        extra = counts.captions - 2 * counts.images
        for place in range(counts.images):
            number = len(records)
            path = f"{FOLDERS[number % len(FOLDERS)]}/{number:05d}.jpg"
            os.link(root / f"{number % 64}.jpg", root / "imgs" / path)
            captions = [
                " ".join(generator.choice(WORDS, 23)) + f" {number} {n}." for n in range(2 + 2 * (place < extra // 2))
            ]
            records.append(
                {
                    "split": split,
                    "captions": captions,
                    "file_path": path,
                    "processed_tokens": [caption.split() for caption in captions],
                    "id": first + place * people // counts.images,
                }
            )
        first += people
    (root / "reid_raw.json").write_text(json.dumps(records), encoding="utf-8")


def measure(root: Path, *, decode: bool, workers: int) -> dict[str, Any]:
    start, used = time.perf_counter(), time.process_time()
    report = check_dataset(DATASETS["cuhk_pedes"], root, decode=decode, workers=workers)
    return {
        "seconds": round(time.perf_counter() - start, 2),
        "cpu_seconds": round(time.process_time() - used, 2),
        "verdict": report.line(),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true", help="write results/data_check.json")
    parser.add_argument("--workers", type=int, default=2)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        write_copy(root)
        fast = measure(root, decode=False, workers=options.workers)
        print("fast", json.dumps(fast))
        start = time.perf_counter()
        pairs = len(DATASETS["cuhk_pedes"].load(root, "train"))
        load = {"seconds": round(time.perf_counter() - start, 2), "pairs": pairs}
        print("load", json.dumps(load))
        whole = measure(root, decode=True, workers=options.workers)
        print("whole", json.dumps(whole))
    results = {
        "what": "tipr data check on a copy of CUHK-PEDES in its full size",
        "images": 40_206,
        "workers": options.workers,
        "wanted_seconds_fast": 60,
        "fast": fast,
        "load": load,
        "whole": whole,
    }
    if options.write:
        command = " ".join(["python benchmarks/data_check.py", *sys.argv[1:]])
        print(record.write("data_check", command, results))


if __name__ == "__main__":
    main()
