"""How fast people are rendered, captions and files apart.

    python benchmarks/render_speed.py [--write] [--images 240] [--processes 2]

Each process renders its own share of people after a warm-up that draws all background plates; one thread each.
`images_per_second` is the wall-clock rate of all processes together, `cpu_ms_per_image` the processor time of one
image, and `best_cpu_ms_per_image` the mean over images of the quickest of three renderings, which says most when
other work shares the machine. The load average before the run is in the record.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from multiprocessing import get_context
from typing import Any

import numpy as np

from record import write
from tipr.data.synthetic.attributes import sample_person, sample_shot
from tipr.data.synthetic.photograph import render
from tipr.data.synthetic.scene import PLATES, World

WANTED = {(48, 144): 170, (64, 192): 125, (128, 384): 68}
"""(width, height) -> images per second asked for on two idle cores."""
REPEATS = 3


def work(share: int, images: int, size: tuple[int, int]) -> tuple[float, float, float, float]:
    """Render one share; wall-clock begin and end, mean CPU seconds of an image, mean of each image's quickest."""
    world = World()
    for camera in range(world.cameras):
        for plate in range(PLATES):
            world.plate(camera, plate)
    random = np.random.default_rng([share, 1])
    jobs = []
    for number in range(images):
        person = sample_person(random)
        jobs.append((person, sample_shot(random, person, number % world.cameras)))
    for person, shot in jobs[:8]:
        render(world, person, shot, size)
    quickest = np.full(images, np.inf)
    begin, spent = time.time(), time.process_time()
    for person, shot in jobs:
        render(world, person, shot, size)
    end, spent = time.time(), time.process_time() - spent
    for _ in range(REPEATS):
        for number, (person, shot) in enumerate(jobs):
            start = time.process_time()
            render(world, person, shot, size)
            quickest[number] = min(quickest[number], time.process_time() - start)
    return begin, end, spent / images, float(quickest.mean())


def measure(width: int, height: int, images: int, processes: int) -> dict[str, Any]:
    """Render `images` pictures of one size in all processes together."""
    share = -(-images // processes)
    context = get_context("spawn")
    with context.Pool(processes) as pool:
        parts = pool.starmap(work, [(number, share, (height, width)) for number in range(processes)])
    wall = max(part[1] for part in parts) - min(part[0] for part in parts)
    best = float(np.mean([part[3] for part in parts])) * 1000
    return {
        "size": f"{width}x{height}",
        "images": share * processes,
        "images_per_second": round(share * processes / wall, 1),
        "cpu_ms_per_image": round(float(np.mean([part[2] for part in parts])) * 1000, 2),
        "best_cpu_ms_per_image": round(best, 2),
        "images_per_second_of_best": round(processes * 1000 / best, 1),
        "wanted_images_per_second": WANTED.get((width, height)),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--write", action="store_true", help="write benchmarks/results/render_speed.json")
    parser.add_argument("--images", type=int, default=240)
    parser.add_argument("--processes", type=int, default=2)
    options = parser.parse_args()
    load = os.getloadavg()[0]
    start = time.perf_counter()
    World()
    started = time.perf_counter() - start
    rows = [measure(width, height, options.images, options.processes) for width, height in WANTED]
    results = {
        "processes": options.processes,
        "load_average_before": round(load, 2),
        "world_start_seconds": round(started, 4),
        "sizes": rows,
    }
    json.dump(results, sys.stdout, indent=2)
    print()
    if options.write:
        command = " ".join(["python", "benchmarks/render_speed.py", *sys.argv[1:]])
        print(write("render_speed", command, results))


if __name__ == "__main__":
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ[name] = "1"  # read by the spawned processes when they import NumPy
    main()
