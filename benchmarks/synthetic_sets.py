"""Make published sets of rendered people and record what identifies them and what the reference reader scores.

    python benchmarks/synthetic_sets.py FOLDER tiny demo standard --write
    python benchmarks/synthetic_sets.py FOLDER large --captions-only --write

A set that is already in FOLDER is read, not made again. Sets that are not named keep their recorded rows. With
`--captions-only` nothing is drawn (one grey picture stands for all) and no digest of the pictures is recorded: the
manifest, the paraphrases and the reference reader do not depend on them.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from unittest.mock import patch

import numpy as np

import record
from tipr.data.synthetic import benchmark
from tipr.data.synthetic.benchmark import build, read_info
from tipr.data.synthetic.presets import PRESETS

RESULT = Path(__file__).parent / "results" / "synthetic_sets.json"
RECORDED = ("manifest_sha256", "paraphrase_sha256", "images_sha256", "splits", "reference_reader", "versions")


def one_set(folder: Path, name: str, workers: int, captions_only: bool) -> dict[str, Any]:
    """One row: build or read the set, then what its `benchmark.json` says."""
    start = time.perf_counter()
    if captions_only:
        grey = np.full((8, 8, 3), 128, dtype=np.uint8)
        with TemporaryDirectory(dir=folder) as scratch, patch.object(benchmark, "render", lambda *_, **__: grey):
            made = build(Path(scratch) / name, PRESETS[name], workers=1)
            row: dict[str, Any] = {key: read_info(made.path)[key] for key in RECORDED}
        row["images_sha256"] = None
    else:
        made = build(folder / name, PRESETS[name], workers=workers)
        row = {key: read_info(made.path)[key] for key in RECORDED}
    row["when"] = datetime.now(UTC).isoformat(timespec="seconds")
    if made.built:
        row["seconds"] = round(time.perf_counter() - start, 1)
    return row


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("names", nargs="+", choices=list(PRESETS))
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--captions-only", action="store_true", help="draw nothing")
    parser.add_argument("--write", action="store_true", help=f"write {RESULT.name}")
    options = parser.parse_args()
    rows: dict[str, Any] = json.loads(RESULT.read_text(encoding="utf-8"))["sets"] if RESULT.exists() else {}
    made_with = record.commit()
    for name in options.names:
        rows[name] = {"commit": made_with, **one_set(options.folder, name, options.workers, options.captions_only)}
        print(name, json.dumps(rows[name]), flush=True)
    if options.write:
        results = {
            "what": "published sets of rendered people: digests and the score of the reader without pixels",
            "sets": {name: rows[name] for name in PRESETS if name in rows},
        }
        record.write("synthetic_sets", "python benchmarks/synthetic_sets.py FOLDER " + " ".join(sys.argv[2:]), results)


if __name__ == "__main__":
    main()
