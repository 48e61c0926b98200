"""The published IRRA loss on the rendered people, from a warm start, with masked and with clean captions.

    python benchmarks/published_loss.py STANDARD WARM_START [--seeds 3]

STANDARD is the set that `tipr data synth STANDARD --preset standard` makes, WARM_START the run of `tipr train
configs/irra/synthetic.yaml`. From those weights every setting trains the same steps (`configs/irra/
synthetic_published_loss.yaml`) with each seed: SDM, identity and MLM with `global_caption: masked` (as the published
code does) and `clean` (as the paper says), SDM alone, and the contrastive term alone. Writes
`benchmarks/results/published_loss.json` after every run.
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

CONFIG = "configs/irra/synthetic_published_loss.yaml"
METRICS = ("R@1", "R@5", "R@10", "mAP", "mINP")
SETTINGS = {
    "masked": ("method.global_caption=masked",),
    "clean": ("method.global_caption=clean",),
    "sdm_alone": ("method.losses=[sdm]", "method.global_caption=clean"),
    "itc_alone": ("method.losses=[itc]", "method.global_caption=clean"),
}


def scores(model: Path, standard: Path, split: str) -> dict[str, float]:
    """Mean of the four languages, in percent."""
    found = evaluate(
        Retriever.load(model), DATASETS["synthetic"].load(standard, split), bootstrap=0, image_to_text=False
    )
    mean = found.text_to_image.to_json()["mean"]
    return {metric: mean[metric] for metric in METRICS}


def one_run(standard: Path, warm: Path, setting: str, seed: int) -> dict[str, Any]:
    """Train and score one setting with one seed."""
    with tempfile.TemporaryDirectory() as folder:
        run = Path(folder) / "run"
        command = [sys.executable, "-m", "tipr", "train", str(record.ROOT / CONFIG), *SETTINGS[setting]]
        place = [f"seed={seed}", f"start_from={warm / 'last'}", f"data.root={standard}", "--out", str(run)]
        subprocess.run([*command, *place, "--threads", "2", "--quiet"], check=True, cwd=record.ROOT)
        minutes = Retriever.load(run).card["minutes"]
        return {
            "setting": setting,
            "seed": seed,
            "minutes": minutes,
            "test": scores(run, standard, "test"),
            "paraphrase": scores(run, standard, "paraphrase"),
        }


def summary(runs: list[dict[str, Any]]) -> dict[str, Any]:
    """Mean, spread and minutes of each setting."""
    found = {}
    for setting in SETTINGS:
        own = [run for run in runs if run["setting"] == setting]
        if not own:
            continue
        found[setting] = {"seeds": len(own), "minutes": statistics.mean(run["minutes"] for run in own)}
        for split in ("test", "paraphrase"):
            values = {metric: [run[split][metric] for run in own] for metric in METRICS}
            found[setting][split] = {metric: statistics.mean(row) for metric, row in values.items()}
            found[setting][f"{split}_standard_deviation"] = {
                metric: statistics.stdev(row) if len(row) > 1 else None for metric, row in values.items()
            }
    return found


def main() -> None:
    """Run every setting with every seed and write the summary."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("standard", type=Path)
    parser.add_argument("warm_start", type=Path)
    parser.add_argument("--seeds", type=int, default=3)
    arguments = parser.parse_args()
    standard, warm = arguments.standard.resolve(), arguments.warm_start.resolve()
    benchmark = json.loads((standard / "benchmark.json").read_text(encoding="utf-8"))
    start = {split: scores(warm / "last", standard, split) for split in ("test", "paraphrase")}
    runs: list[dict[str, Any]] = []
    for seed in range(1, arguments.seeds + 1):
        for setting in SETTINGS:
            runs.append(one_run(standard, warm, setting, seed))
            print(f"{setting} seed {seed}: R@1 {runs[-1]['test']['R@1']:.1f}", flush=True)
            record.write(
                "published_loss",
                f"python benchmarks/published_loss.py STANDARD WARM_START --seeds {arguments.seeds}",
                {
                    "config": CONFIG,
                    "manifest_sha256": benchmark["manifest_sha256"],
                    "warm_start": {"config": "configs/irra/synthetic.yaml", "seed": 1, **start},
                    "settings": summary(runs),
                    "runs": runs,
                },
            )


if __name__ == "__main__":
    main()
