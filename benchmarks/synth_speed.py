"""How fast a set of rendered people is made, captions in four languages and files included.

    python benchmarks/synth_speed.py [--write] [--people 100] [--workers 2]

For each picture size one training set is built with `tipr.data.synthetic.benchmark.build`. `images_per_second` is the
rate from the first finished person to the last; `with_start` counts the start of the workers and their backgrounds
too. CPU time is that of the workers between the same two moments; `images_per_second_by_cpu_time` is the number of
workers over it, an estimate of the rate on idle cores when other work shared the machine (see the load average).
CPU time itself grows on shared cores and caches.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import psutil

import record
from tipr.data.synthetic.benchmark import build
from tipr.data.synthetic.presets import knobs_of

RESULT = Path(__file__).parent / "results" / "synth_speed.json"
WANTED = {(48, 144): 150, (64, 192): 110, (128, 384): 60}
"""(width, height) -> images per second asked for on two cores."""


def measure(width: int, height: int, people: int, workers: int) -> dict[str, Any]:
    """Build one set into a temporary folder and time it."""
    knobs = knobs_of("tiny", {"identities": (people, 0, 0), "width": width, "height": height})
    steps: list[tuple[float, float, int]] = []

    def note(done: int, total: int) -> None:
        if not steps or done == total:  # asking for the workers' times at every person would slow this process
            times = [child.cpu_times() for child in psutil.Process().children()]
            steps.append((time.perf_counter(), sum(used.user + used.system for used in times), done))

    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        build(Path(folder) / "set", knobs, workers=workers, progress=note)
        stop = time.perf_counter()
    (first, cpu_first, done_first), (last, cpu_last, done_last) = steps
    images = done_last - done_first
    return {
        "width": width,
        "height": height,
        "images": knobs.image_count,
        "images_per_second": round(images / (last - first), 1),
        "with_start": round(knobs.image_count / (stop - start), 1),
        "cpu_ms_per_image": round(1000 * (cpu_last - cpu_first) / images, 2),
        "images_per_second_by_cpu_time": round(workers * images / (cpu_last - cpu_first), 1),
        "wanted": WANTED.get((width, height)),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true", help="write results/synth_speed.json")
    parser.add_argument("--people", type=int, default=100)
    parser.add_argument("--workers", type=int, default=2)
    options = parser.parse_args()
    load = [round(value, 2) for value in os.getloadavg()]
    rows = []
    for width, height in WANTED:
        rows.append(measure(width, height, options.people, options.workers))
        print(json.dumps(rows[-1]))
    results = {
        "what": "rendered people: images per second with captions in four languages, files written",
        "load_average_before": load,
        "workers": options.workers,
        "sizes": rows,
    }
    if options.write:
        record.write("synth_speed", "python benchmarks/synth_speed.py " + " ".join(sys.argv[1:]), results)


if __name__ == "__main__":
    main()
