"""Ranking metrics by counting against a full argsort of each row, side by side in one process, both warm.

    python benchmarks/ranking.py [--write] [--name ranking] [--repeat 3] [--threads N] [--most-queries N]

Both start from float32 features and end with R@1, R@5, R@10, mAP and mINP, the matrix product included. The baseline
scores blocks of 1,024 queries, sorts every row in full with `torch.argsort(descending=True, stable=True)`, which obeys
the same tie rule, and computes the metrics the usual way, by cumulative sums over the sorted rows. Beside it stand
leaner baselines that read only the ranks of the relevant images from the order: with the same sort, with NumPy's stable
sort, and with NumPy's quicker sort that breaks ties in any order. The product alone is timed too: it is most of our
time, so how much quicker the whole can be than a sort depends on how quick a processor multiplies and sorts. Wall-clock
and CPU seconds are both recorded; look at the CPU seconds of one thread where other work shares the machine.
`--most-queries` scores only the first ones, for a quicker look: both sides work row by row, so the ratio changes
little. Memory is what the process needs at most beyond what it held before, inputs and warm-up excluded.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

import record
from tipr.metrics import RetrievalMetrics, retrieval_metrics_from_features
from tipr.metrics.ranking import numba_installed

BLOCK = 1024
WIDTH = 512
KS = (1, 5, 10)


@dataclass(frozen=True)
class Size:
    """Queries, gallery images and identities of a test split, and the ratio that is asked for."""

    name: str
    queries: int
    gallery: int
    identities: int
    wanted: float


SIZES = (
    Size("CUHK-PEDES test", 6_156, 3_074, 1_000, wanted=8.0),
    Size("ICFG-PEDES test", 19_848, 19_848, 1_000, wanted=12.0),
)
SMALL = Size("warm-up", BLOCK, BLOCK, 100, wanted=1.0)
Sort = Callable[[torch.Tensor], np.ndarray]


def torch_stable(scores: torch.Tensor) -> np.ndarray:
    """Full order of each row, ties by rising position."""
    return torch.argsort(scores, dim=1, descending=True, stable=True).numpy()


def numpy_stable(scores: torch.Tensor) -> np.ndarray:
    """Full order of each row, ties by rising position."""
    return np.argsort(-scores.numpy(), axis=1, kind="stable")


def numpy_any(scores: torch.Tensor) -> np.ndarray:
    """Full order of each row, ties in any order."""
    return np.argsort(-scores.numpy(), axis=1)


def features(size: Size, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Unit rows near one centre a person, so that the relevant images stand high, though not all first."""
    random = np.random.default_rng(seed)
    centres = random.standard_normal((size.identities, WIDTH), dtype=np.float32)

    def side(count: int) -> tuple[np.ndarray, np.ndarray]:
        identity = np.sort(np.arange(count) % size.identities)
        rows = centres[identity] + 3.0 * random.standard_normal((count, WIDTH), dtype=np.float32)
        return rows / np.linalg.norm(rows, axis=1, keepdims=True), identity

    (query, of_queries), (gallery, of_gallery) = side(size.queries), side(size.gallery)
    return query, gallery, of_queries, of_gallery


def by_cumulative_sums(
    sort: Sort,
    query: np.ndarray,
    gallery: np.ndarray,
    of_queries: np.ndarray,
    of_gallery: np.ndarray,
) -> dict[str, float]:
    """The metrics the usual way, from cumulative sums over the full order of every row, in blocks."""
    right = torch.from_numpy(gallery).T.contiguous()  # the same quick product as ours
    at = np.arange(1, len(gallery) + 1)
    found = dict.fromkeys(KS, 0)
    precision = penalty = 0.0
    for begin in range(0, len(query), BLOCK):
        order = sort(torch.from_numpy(query[begin : begin + BLOCK]) @ right)
        relevant = of_gallery[order] == of_queries[begin : begin + BLOCK, None]
        seen = relevant.cumsum(axis=1)
        count = seen[:, -1]
        precision += float(((seen / at * relevant).sum(axis=1) / count).sum())
        penalty += float((count / (1 + (seen == count[:, None]).argmax(axis=1))).sum())
        for k in KS:
            found[k] += int((seen[:, k - 1] > 0).sum())
    share = 100.0 / len(query)
    return {**{f"R@{k}": found[k] * share for k in KS}, "mAP": precision * share, "mINP": penalty * share}


def by_ranks(
    sort: Sort,
    query: np.ndarray,
    gallery: np.ndarray,
    of_queries: np.ndarray,
    of_gallery: np.ndarray,
) -> dict[str, float]:
    """The metrics from the ranks of the relevant images in the full order; as lean after the sort as NumPy allows."""
    right = torch.from_numpy(gallery).T.contiguous()  # the same quick product as ours
    found = dict.fromkeys(KS, 0)
    precision = penalty = 0.0
    for begin in range(0, len(query), BLOCK):
        order = sort(torch.from_numpy(query[begin : begin + BLOCK]) @ right)
        row, column = np.nonzero(of_gallery[order] == of_queries[begin : begin + BLOCK, None])
        rank = column + 1
        count = np.bincount(row, minlength=len(order))
        start = np.concatenate([[0], np.cumsum(count)[:-1]])
        nth = np.arange(len(row)) - start[row] + 1
        precision += float((np.add.reduceat(nth / rank, start) / count).sum())
        penalty += float((count / rank[start + count - 1]).sum())
        for k in KS:
            found[k] += int((rank[start] <= k).sum())
    share = 100.0 / len(query)
    return {**{f"R@{k}": found[k] * share for k in KS}, "mAP": precision * share, "mINP": penalty * share}


BASELINES: dict[str, tuple[Callable[..., dict[str, float]], Sort]] = {
    "torch, stable, cumulative sums": (by_cumulative_sums, torch_stable),
    "torch, stable, ranks only": (by_ranks, torch_stable),
    "numpy, stable, ranks only": (by_ranks, numpy_stable),
    "numpy, any tie order, ranks only": (by_ranks, numpy_any),
}
MAIN = next(iter(BASELINES))


def product_alone(query: np.ndarray, gallery: np.ndarray) -> None:
    """The matrix product that every way of ranking needs, as the baselines make it, and nothing else."""
    right = torch.from_numpy(gallery).T.contiguous()
    for begin in range(0, len(query), BLOCK):
        torch.from_numpy(query[begin : begin + BLOCK]) @ right


def named(metrics: RetrievalMetrics) -> dict[str, float]:
    """Our metrics under the baseline's names."""
    return {
        **{f"R@{k}": value for k, value in metrics.recall.items()},
        "mAP": metrics.mean_ap,
        "mINP": metrics.mean_inp,
    }


def memory(field: str) -> float:
    """A memory field of this process in MiB, such as VmRSS."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field):
            return int(line.split()[1]) / 1024
    raise RuntimeError(f"no {field} in /proc/self/status")


def peak_beyond(run: Callable[[], object]) -> float:
    """MiB that `run` needs at most beyond what the process holds before it."""
    ctypes.CDLL(None).malloc_trim(0)  # what earlier work freed must not hide what this call takes
    before = memory("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # resets the high-water mark
    run()
    return memory("VmHWM") - before


def seconds(run: Callable[[], object]) -> tuple[float, float]:
    """Wall-clock and CPU seconds (of all threads) of one call."""
    wall, cpu = time.perf_counter(), time.process_time()
    run()
    return time.perf_counter() - wall, time.process_time() - cpu


def measure(size: Size, repeat: int, most_queries: int) -> dict[str, object]:
    """One row of the result: times, ratios, memory, agreement."""
    query, gallery, of_queries, of_gallery = features(size)
    arguments = (query[:most_queries], gallery, of_queries[:most_queries], of_gallery)

    def ours() -> RetrievalMetrics:
        return retrieval_metrics_from_features(*arguments)

    if numba_installed():  # both sides warm: as in a process that scored a split before
        retrieval_metrics_from_features(*features(SMALL), backend="numba")

    for compute, sort in BASELINES.values():
        compute(sort, *features(SMALL))
    result = named(ours())
    peak = peak_beyond(ours)
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in ("ours", *BASELINES)}
    product = []
    for turn in range(repeat):
        product.append(seconds(lambda: product_alone(arguments[0], gallery))[0])
        times["ours"].append(seconds(ours))
        for name, (compute, sort) in BASELINES.items():
            times[name].append(seconds(lambda run=compute, sort=sort: run(sort, *arguments)))
        print(f"  turn {turn + 1}: {times['ours'][-1][0]:.2f} s against {times[MAIN][-1][0]:.2f} s", flush=True)
    compute, sort = BASELINES[MAIN]
    slow = compute(sort, *arguments)
    worst = max(abs(slow[name] - result[name]) for name in slow)
    ratios = {
        name: [
            round(statistics.median(s[of] / f[of] for s, f in zip(times[name], times["ours"], strict=True)), 2)
            for of in (0, 1)
        ]
        for name in BASELINES
    }
    return {
        "name": size.name,
        "queries": len(arguments[0]),
        "queries_of_the_split": size.queries,
        "gallery": size.gallery,
        "identities": size.identities,
        "width": WIDTH,
        "metrics": {name: round(value, 4) for name, value in result.items()},
        "largest_difference_of_metrics": worst,
        "wall_seconds": {name: [round(t, 3) for t, _ in values] for name, values in times.items()},
        "cpu_seconds": {name: [round(t, 3) for _, t in values] for name, values in times.items()},
        "product_alone_wall_seconds": [round(each, 3) for each in product],
        "median_wall_ratio": ratios[MAIN][0],
        "median_cpu_ratio": ratios[MAIN][1],
        "wanted_ratio": size.wanted,
        "median_wall_ratios": {name: wall for name, (wall, _) in ratios.items()},
        "median_cpu_ratios": {name: cpu for name, (_, cpu) in ratios.items()},
        "peak_mib_beyond_inputs": round(peak, 1),
    }


def first_call() -> float:
    """Seconds that the first compiled call of a process takes longer than the second, in a process of its own."""
    program = (
        "import time, numpy as np; from tipr.metrics import retrieval_metrics as m; import torch\n"
        "s = np.eye(8, dtype=np.float32); t = []\n"
        "for _ in range(2): b = time.perf_counter(); m(s, range(8), range(8), backend='numba');"
        " t.append(time.perf_counter() - b)\n"
        "print(t[0] - t[1])"
    )
    done = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True)
    return float(done.stdout)


def main() -> None:
    """Measure, print, and write the result file on request."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeat", type=int, default=3, help="turns; the median ratio counts")
    parser.add_argument("--write", action="store_true", help="write results/NAME.json")
    parser.add_argument("--name", default="ranking", help="of the result file, to keep machines apart")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="threads of both sides")
    parser.add_argument("--most-queries", type=int, default=max(size.queries for size in SIZES))
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    load = os.getloadavg()
    rows = []
    for size in SIZES:
        print(f"{size.name}: {size.queries} x {size.gallery}", flush=True)
        rows.append(measure(size, options.repeat, options.most_queries))
        print(json.dumps(rows[-1], indent=2), flush=True)
    results = {
        "threads_used": options.threads,
        "load_before": [round(value, 2) for value in load],
        "baseline": f"argsort by {MAIN} of each row in blocks of {BLOCK} queries, the product included",
        "first_call_extra_seconds": round(min(first_call() for _ in range(3)), 2),
        "sizes": rows,
    }
    if options.write:
        print(f"wrote {record.write(options.name, 'python benchmarks/ranking.py ' + ' '.join(sys.argv[1:]), results)}")


if __name__ == "__main__":
    main()
