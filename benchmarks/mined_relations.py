"""How true the relations of the ablation's runs are, epoch by epoch, and how many pairs of a batch they link.

    python benchmarks/mined_relations.py [--folder benchmarks/ablation/dual_granularity] [--write]

Every run of FOLDER that recorded its relations counts; means over the seeds of a setting, in per cent. The data set
must be where the runs found it.

precision, recall   of the relations of a pair to pairs of OTHER images (`tipr analyse relations`)
rand_index          adjusted Rand index of clusters, at most 1
linked_in_batch     share of the other pairs of a batch that the local relation links
same_person         share of the other pairs of a batch that show the same person, by chance: what may be linked
mined_per_pair      mean number of stored rows that a pair is related to, itself included
"""

from __future__ import annotations

import argparse
import json
from collections import defaultdict
from pathlib import Path
from statistics import fmean
from typing import Any

from record import ROOT, write
from tipr.analysis.relations import analyse_relations
from tipr.training import journal, load_config
from tipr.training import relations as recorded
from tipr.training.sources import load_split

Figures = dict[str, float]
LOGS = {"linked_both": ("linked_in_batch", 100.0), "mined_per_pair": ("mined_per_pair", 1.0)}
"""Entry of the journal -> figure, and its unit."""


def run_figures(folder: Path) -> list[Figures]:
    """The figures of each epoch of a run."""
    rows = len(load_split(config := load_config(folder), "train", languages=config.data.languages).queries())
    logs = {entry["epoch"]: entry["logs"] for entry in journal.read(folder) if entry["kind"] == "epoch"}
    found = []
    for epoch in analyse_relations(folder):
        other, every = epoch.quality["other_images"], epoch.quality["without_self"]
        figures: dict[str, float | None] = {
            "precision": other.precision,
            "recall": other.recall,
            "rand_index": epoch.rand_index,
            "same_person": 100.0 * every.possible / (rows * (rows - 1)),
            **{name: unit * logs[epoch.epoch][key] for key, (name, unit) in LOGS.items() if key in logs[epoch.epoch]},
        }
        found.append({name: value for name, value in figures.items() if value is not None})
    return found


def settings(folder: Path) -> dict[str, Any]:
    """Of each setting: its number of runs, and the means of each epoch's figures."""
    runs: defaultdict[str, list[list[Figures]]] = defaultdict(list)
    for config in sorted(folder.glob("*/*/config.yaml")):
        if recorded.epochs(config.parent):
            runs[config.parent.parent.name].append(run_figures(config.parent))
    return {
        name: {
            "runs": len(each),
            "epochs": [
                {"epoch": number, **{key: round(fmean(one[key] for one in of_epoch), 3) for key in of_epoch[0]}}
                for number, of_epoch in enumerate(zip(*each, strict=True), 1)
            ],
        }
        for name, each in runs.items()
    }


def main() -> None:
    """Count and print; write the record when asked to."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=ROOT / "benchmarks" / "ablation" / "dual_granularity")
    parser.add_argument("--write", action="store_true", help="write benchmarks/results/mined_relations.json")
    options = parser.parse_args()
    found = settings(options.folder)
    print(json.dumps(found, indent=2))
    if options.write:
        print(write("mined_relations", "python benchmarks/mined_relations.py --write", {"settings": found}))


if __name__ == "__main__":
    main()
