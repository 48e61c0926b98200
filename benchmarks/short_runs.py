"""Train from scratch for five minutes with several seeds, and report mean and spread.

    python benchmarks/short_runs.py STANDARD [--seeds 3]

STANDARD is the set that `tipr data synth STANDARD --preset standard` makes. Each run is `tipr train
configs/irra/synthetic.yaml` with two threads and its own seed; only training counts, not rendering and scoring. Writes
`benchmarks/results/short_runs.json`.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import record
from tipr.data.datasets import DATASETS
from tipr.evaluation import evaluate
from tipr.retrieval import Retriever

CONFIG = "configs/irra/synthetic.yaml"
METRICS = ("R@1", "R@5", "R@10", "mAP", "mINP")


def one_run(standard: Path, seed: int) -> dict[str, Any]:
    """Train and score one seed."""
    with tempfile.TemporaryDirectory() as folder:
        run = Path(folder) / "run"
        command = [sys.executable, "-m", "tipr", "train", str(record.ROOT / CONFIG), f"seed={seed}"]
        subprocess.run(
            [*command, f"data.root={standard}", "--threads", "2", "--out", str(run)], check=True, cwd=record.ROOT
        )
        model = Retriever.load(run)
        found = evaluate(model, DATASETS["synthetic"].load(standard, "test"), bootstrap=0, image_to_text=False)
        scores = found.text_to_image.to_json()
        return {
            "seed": seed,
            "minutes": model.card["minutes"],
            "best": model.card["best"],
            "scores": {name: {metric: row[metric] for metric in METRICS} for name, row in scores.items()},
        }


def main() -> None:
    """Run the missing seeds and write the summary."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("standard", type=Path)
    parser.add_argument("--seeds", type=int, default=3)
    arguments = parser.parse_args()
    benchmark = json.loads((arguments.standard / "benchmark.json").read_text(encoding="utf-8"))
    runs: list[dict[str, Any]] = []
    for seed in range(1, arguments.seeds + 1):
        runs.append(one_run(arguments.standard.resolve(), seed))
        values = {metric: [run["scores"]["mean"][metric] for run in runs] for metric in METRICS}
        spread = {metric: statistics.stdev(row) if len(row) > 1 else None for metric, row in values.items()}
        path = record.write(
            "short_runs",
            f"python benchmarks/short_runs.py STANDARD --seeds {len(runs)}",
            {
                "config": CONFIG,
                "manifest_sha256": benchmark["manifest_sha256"],
                "minutes": statistics.mean(run["minutes"] for run in runs),
                "mean": {metric: statistics.mean(row) for metric, row in values.items()},
                "standard_deviation": spread,
                "runs": runs,
            },
        )
        print(f"{path}: R@1 {', '.join(f'{value:.1f}' for value in values['R@1'])}", flush=True)


if __name__ == "__main__":
    main()
