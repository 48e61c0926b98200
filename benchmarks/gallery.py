"""Speed of a gallery's search, as ratios within one run, beside plain NumPy in single precision.

    python benchmarks/gallery.py [--rows 1000000] [--queries 20] [--folder DIR] [--write]

The vectors are made here: identities of `VIEWS` noisy views each, a power-law spectrum and a shared mean direction, as
image-text models give them. One memory pass is the sum over the bytes that an exact search reads, by as many threads.
Every time is the median over the queries; the ratios are what is compared with the wanted ones. A gallery is filled
through its store, so that nothing is encoded; it needs some 5 KB a row in memory, for NumPy's copy above all. torch is
loaded, as it is where a model has encoded the queries.

With --folder an interrupted run is continued: what a finished step (filling, searching, the index on disk) found is
kept there, and so is the gallery.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from record import write
from tipr.gallery import Gallery
from tipr.gallery.filters import Filters
from tipr.gallery.stores import Row
from tipr.gallery.stores.exact import ExactScan
from tipr.gallery.stores.near import NearScan
from tipr.gallery.stores.on_disk import OnDisk
from tipr.gallery.stores.segment import faiss_installed
from tipr.metrics.ranking import stable_similarity, top_k

DIM = 512
VIEWS = 50
CAMERAS = 100
START = datetime(2026, 3, 1, tzinfo=UTC)
DAYS = 30
CHUNK = 20_000
BATCH = 64
WANTED = {
    "exact_top10_over_memory_pass": "<= 1.5",
    "filter_1_percent_over_exact": "<= 0.15",
    "filter_10_percent_over_exact": "<= 0.8",
    "filter_time_1_percent_over_exact": "<= 0.15",
    "filter_recall": ">= 1.0",
    "top256_over_top10": "<= 1.1",
    "batch_a_query_over_exact": "<= 0.25",
    "approximate_over_exact": "<= 0.35",
    "approximate_recall_at_10": ">= 0.95",
    "cold_open_to_first_answer_seconds": "<= 1.0",
    "ingest_rows_a_second": ">= 50000",
    "disk_over_vectors_and_metadata": "<= 1.1",
}
COLD = """
import json, sys, time
import numpy as np
import tipr.gallery.stores.lance
from tipr.gallery import Gallery
query = np.load(sys.argv[2])
start = time.perf_counter()
hits = Gallery.open(sys.argv[1]).search(query, 10, approximate=True)
print(json.dumps({"seconds": time.perf_counter() - start, "ids": [hit.id for hit in hits]}))
"""


def people(rows: int, rng: np.random.Generator) -> tuple[NDArray[np.float16], NDArray[np.float32]]:
    """(rows, DIM) float16 unit vectors, and (rows / VIEWS, DIM) float32 centres of their identities."""
    spectrum = np.arange(1, DIM + 1, dtype=np.float32) ** -0.5
    mean = rng.normal(size=DIM).astype(np.float32)
    mean *= 1.2 * np.linalg.norm(spectrum) / np.linalg.norm(mean)
    centres = rng.normal(size=(max(1, rows // VIEWS), DIM)).astype(np.float32) * spectrum + mean
    vectors = np.empty((rows, DIM), dtype=np.float16)
    for start in range(0, rows, CHUNK):
        who = np.arange(start, min(start + CHUNK, rows)) % len(centres)
        part = centres[who] + 0.5 * spectrum * rng.normal(size=(len(who), DIM)).astype(np.float32)
        vectors[start : start + len(who)] = part / np.linalg.norm(part, axis=1, keepdims=True)
    return vectors, centres


def row(number: int, vector: NDArray[np.float16], rows: int) -> Row:
    """A row with metadata as a camera system gives it; no thumbnail, which is counted apart."""
    name = f"/archive/camera{number % CAMERAS:03d}/{number // CAMERAS:08d}.jpg"
    taken = START + timedelta(days=DAYS * number / rows)
    digest = f"{number * 2654435761 % 2**256:064x}"
    camera = f"camera{number % CAMERAS:03d}"
    return Row(name, digest, vector, b"", 128, 384, camera=camera, time=taken, tags=(f"track={number // 8}",))


def filled(folder: Path, vectors: NDArray[np.float16]) -> tuple[Gallery, dict[str, float]]:
    """A gallery of the vectors, and what filling it took."""
    model: Any = SimpleNamespace(embed_dim=DIM, fingerprint="0" * 64, source=None)
    gallery = Gallery.create(folder, model, durability="process")
    store, seconds, metadata = gallery._store, 0.0, 0
    for start in range(0, len(vectors), CHUNK):
        rows = [row(n, vectors[n], len(vectors)) for n in range(start, min(start + CHUNK, len(vectors)))]
        metadata += sum(len(r.path) + len(r.sha256) + len(r.camera or "") + len(r.tags[0]) + 5 for r in rows)
        begin = time.perf_counter()
        store.append(rows, start)
        seconds += time.perf_counter() - begin
    begin = time.perf_counter()
    store.compact()
    compacting = time.perf_counter() - begin
    store.purge()  # as after a quiet hour: no older version is on disk
    fixed = 8 + 8 + 8 + 4 + 4 + 3 * 4  # id, times, sizes, offsets of texts
    expected = len(vectors) * (2 * DIM + fixed) + metadata
    size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    return gallery, {
        "ingest_rows_a_second": len(vectors) / seconds,
        "compact_seconds": compacting,
        "disk_bytes": size,
        "disk_over_vectors_and_metadata": size / expected,
    }


def median(step: Callable[[int], object], times: int) -> float:
    """Seconds of one call; `step` gets the number of the call."""
    seconds = []
    for turn in range(times):
        begin = time.perf_counter()
        step(turn)
        seconds.append(time.perf_counter() - begin)
    return float(np.median(seconds))


def memory_pass(scan: ExactScan, times: int) -> float:
    """Seconds to read all bytes of the scan once, by as many threads as it has cores."""
    parts = [part for segment in scan.segments for part in np.array_split(segment.rows.view(np.uint32).ravel(), 2)]
    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        return median(lambda _: list(pool.map(lambda part: int(part.max()), parts)), times)


def reference(vectors: NDArray[np.float16], query: NDArray[np.float32], k: int, keep: Any = None) -> set[int]:
    """The k best rows, by the slow way."""
    places = np.arange(len(vectors)) if keep is None else np.flatnonzero(keep)
    found = np.concatenate(
        [stable_similarity(query, vectors[part]) for part in np.array_split(places, 1 + len(places) // 100_000)]
    )
    return set(places[top_k(found, k)].tolist())


def numpy_beside(vectors: NDArray[np.float16], queries: NDArray[np.float32], masks: dict[str, Any]) -> dict[str, float]:
    """What plain NumPy in single precision takes."""
    wide = np.empty(vectors.shape, dtype=np.float32)
    for start in range(0, len(vectors), CHUNK):
        wide[start : start + CHUNK] = vectors[start : start + CHUNK]

    def best(scores: NDArray[np.float32], k: int) -> NDArray[np.int64]:
        found = np.argpartition(-scores, k)[:k]
        return found[np.argsort(-scores[found])]

    times = len(queries)
    result = {f"top{k}_seconds": median(lambda n, k=k: best(wide @ queries[n], k), times) for k in (10, 256)}
    for name, mask in masks.items():
        result[f"{name}_seconds"] = median(lambda n, mask=mask: best(wide[mask] @ queries[n], 10), min(times, 5))
    many = np.resize(queries, (BATCH, DIM))
    result["batch_a_query_seconds"] = median(lambda _: [best(row, 10) for row in many @ wide.T], 2) / BATCH
    return result


def looked_for(centres: NDArray[np.float32], count: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """(count, DIM) unit queries near identities, and the same moved away, as words lie away from pictures."""
    rng = np.random.default_rng(1)
    spectrum = np.arange(1, DIM + 1) ** -0.5
    near = centres[rng.integers(0, len(centres), count)] + 0.3 * rng.normal(size=(count, DIM)) * spectrum
    near /= np.linalg.norm(near, axis=1, keepdims=True)
    away = rng.normal(size=DIM) * spectrum**0.5
    far = 0.6 * near + 0.8 * away / np.linalg.norm(away)
    far += 0.5 * rng.normal(size=(count, DIM)) * spectrum / np.linalg.norm(spectrum)
    return near.astype(np.float32), (far / np.linalg.norm(far, axis=1, keepdims=True)).astype(np.float32)


def recall(found: Any, scan: ExactScan, queries: NDArray[np.float32], k: int) -> float:
    """Share of the k best rows that a search by candidates finds."""
    pairs = zip(found.best(queries, k), scan.best(queries, k), strict=True)
    return float(np.mean([np.isin(exact.positions, some.positions).mean() for some, exact in pairs]))


def fill(folder: Path, rows: int, count: int) -> dict[str, Any]:
    """Make vectors, queries and the gallery."""
    vectors, centres = people(rows, np.random.default_rng(0))
    near, far = looked_for(centres, count)
    for name, array in (("vectors", vectors), ("near", near), ("far", far)):
        np.save(folder / f"{name}.npy", array)
    shutil.rmtree(folder / "gallery", ignore_errors=True)
    return filled(folder / "gallery", vectors)[1]


def search(folder: Path, rows: int, count: int) -> dict[str, Any]:
    """Search the rows in memory, every way."""
    vectors, queries, far = (np.load(folder / f"{name}.npy") for name in ("vectors", "near", "far"))
    gallery = Gallery.open(folder / "gallery")
    reader = gallery._reader
    reader.refresh()
    begin = time.perf_counter()
    scan = reader.scan()
    results = {"fill_seconds": time.perf_counter() - begin}
    assert isinstance(scan, ExactScan)
    last_day = (START + timedelta(days=DAYS * 0.99)).isoformat()
    filters = {
        "filter_1_percent": Filters.of(camera="camera007"),
        "filter_10_percent": Filters.of(camera=[f"camera{n:03d}" for n in range(10)]),
        "filter_time_1_percent": Filters.of(since=last_day),
    }
    columns = reader.coded(("camera", "time"))
    scan.best(queries[:1], 10)
    seconds = {"memory_pass": memory_pass(scan, count)}
    for k in (10, 256):
        seconds[f"top{k}"] = median(lambda n, k=k: scan.best(queries[n : n + 1], k), count)
    for name, chosen in filters.items():
        seconds[name] = median(
            lambda n, chosen=chosen: scan.best(queries[n : n + 1], 10, chosen.mask(columns, rows)), count
        )
    many = np.resize(queries, (BATCH, DIM))
    scan.best(many, 10)
    seconds["batch_a_query"] = median(lambda _: scan.best(many, 10), 3) / BATCH
    begin = time.perf_counter()
    codes = NearScan(scan)
    codes.best(queries[:1], 10)
    results["codes_seconds"] = time.perf_counter() - begin
    seconds["approximate"] = median(lambda n: codes.best(queries[n : n + 1], 10), count)
    seconds["search_with_hits"] = median(lambda n: gallery.search(queries[n], 10), count)
    exact = [set(ranked.positions.tolist()) for ranked in scan.best(queries, 10)]
    checked = min(count, 5)
    masks = {name: chosen.mask(columns, rows) for name, chosen in filters.items()}
    alike = [
        len(
            set(scan.best(queries[n : n + 1], 10, mask)[0].positions.tolist())
            & reference(vectors, queries[n], 10, mask)
        )
        for mask in masks.values()
        for n in range(checked)
    ]
    assert all(exact[n] == reference(vectors, queries[n], 10) for n in range(checked))
    results |= {
        "exact_top10_over_memory_pass": seconds["top10"] / seconds["memory_pass"],
        **{f"{name}_over_exact": seconds[name] / seconds["top10"] for name in filters},
        "filter_recall": float(np.sum(alike)) / (10 * len(alike)),
        "top256_over_top10": seconds["top256"] / seconds["top10"],
        "batch_a_query_over_exact": seconds["batch_a_query"] / seconds["top10"],
        "approximate_over_exact": seconds["approximate"] / seconds["top10"],
        "approximate_recall_at_10": recall(codes, scan, queries, 10),
        "approximate_recall_at_256": recall(codes, scan, queries, 256),
        "approximate_recall_at_10_of_far_queries": recall(codes, scan, far, 10),
    }
    beside = numpy_beside(vectors, queries, masks)
    return {**results, "faiss": scan.fast, "seconds": seconds, "numpy_seconds": beside}


def index_on_disk(folder: Path, rows: int, count: int) -> dict[str, Any]:
    """Search by the index on disk: warm, and by a process that has just begun."""
    queries = np.load(folder / "near.npy")
    gallery = Gallery.open(folder / "gallery")
    scan = gallery._reader.scan() if gallery._reader.refresh() else None
    assert isinstance(scan, ExactScan)
    begin = time.perf_counter()
    gallery.index()
    building = time.perf_counter() - begin
    index = OnDisk(gallery._store, indexed=True)
    index.best(queries[:1], 10)
    seconds = median(lambda n: index.best(queries[n : n + 1], 10), count)
    np.save(folder / "query.npy", queries[0])
    cold = json.loads(
        subprocess.run(
            [sys.executable, "-c", COLD, str(folder / "gallery"), str(folder / "query.npy")],
            check=True,
            capture_output=True,
            text=True,
        ).stdout
    )
    return {
        "index_build_seconds": building,
        "index_on_disk_seconds": seconds,
        "index_on_disk_recall_at_10": recall(index, scan, queries, 10),
        "cold_open_to_first_answer_seconds": cold["seconds"],
    }


STEPS = {"fill": fill, "search": search, "index": index_on_disk}


def measure(folder: Path, rows: int, count: int) -> dict[str, Any]:
    """All figures; what a step has found before is taken from the folder."""
    results: dict[str, Any] = {}
    for name, step in STEPS.items():
        kept = folder / f"{name}-{rows}-{count}.json"
        if not kept.exists():
            print(f"{name} ...", file=sys.stderr)
            found = {**step(folder, rows, count), "load_average": round(os.getloadavg()[0], 1)}
            kept.write_text(json.dumps(found))
        found = json.loads(kept.read_text())
        results |= {**found, "load_average": {**results.get("load_average", {}), name: found["load_average"]}}
    return {
        "rows": rows,
        "dim": DIM,
        "queries": count,
        "faiss": results.pop("faiss"),
        "ratios": {name: {"measured": round(results[name], 3), "wanted": wanted} for name, wanted in WANTED.items()},
        "seconds": {name: round(value, 5) for name, value in results.pop("seconds").items()},
        "numpy_seconds": {name: round(value, 5) for name, value in results.pop("numpy_seconds").items()},
        "load_average": results.pop("load_average"),
        **{name: round(value, 3) for name, value in results.items() if name not in WANTED},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--queries", type=int, default=20)
    parser.add_argument("--folder", type=Path, help="where the gallery is made and kept; a temporary folder by default")
    parser.add_argument("--write", action="store_true", help="write benchmarks/results/gallery.json")
    options = parser.parse_args()
    if not faiss_installed():
        print("faiss-cpu is not installed: NumPy scans", file=sys.stderr)
    with tempfile.TemporaryDirectory() if options.folder is None else nullcontext(options.folder) as folder:
        Path(folder).mkdir(parents=True, exist_ok=True)
        torch.set_num_threads(len(os.sched_getaffinity(0)))
        results = measure(Path(folder), options.rows, options.queries)
    json.dump(results, sys.stdout, indent=2)
    print()
    if options.write:
        given = ["DIR" if options.folder and word == str(options.folder) else word for word in sys.argv[1:]]
        print(write("gallery", " ".join(["python", "benchmarks/gallery.py", *given]), results))


if __name__ == "__main__":
    main()
