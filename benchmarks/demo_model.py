"""Record the shipped model: how it was trained, how it learned, what it scores.

    python benchmarks/demo_model.py RUN STANDARD [--ship]

RUN is the run folder of `tipr train configs/irra/demo.yaml`, STANDARD the set of `tipr data synth STANDARD --preset
standard`. Scores the best weights on the test split and on the paraphrases, and writes
`benchmarks/results/demo_model.json`. With `--ship` the best weights become the package data that
`Retriever.load("demo")` reads, in half precision, and the scores are those of the shipped file.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import record
from tipr.data.datasets import DATASETS
from tipr.evaluation import evaluate
from tipr.evaluation.reference import reference_score
from tipr.retrieval import Retriever
from tipr.training import journal
from tipr.training.card import learning_history

SHIPPED = record.ROOT / "src" / "tipr" / "assets" / "demo"


def main() -> None:
    """Score, and ship when asked to."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("standard", type=Path)
    parser.add_argument("--ship", action="store_true")
    arguments = parser.parse_args()
    history = learning_history(journal.read(arguments.run))
    if arguments.ship:
        best = Retriever.load(arguments.run)
        best.card = {**best.card, "history": history}
        best.save(SHIPPED, half=True)
    model = Retriever.load("demo" if arguments.ship else arguments.run)
    scores, image_to_text = {}, {}
    for split in ("test", "paraphrase"):
        found = evaluate(model, DATASETS["synthetic"].load(arguments.standard, split))
        scores[split] = found.text_to_image.to_json()
        image_to_text[split] = found.image_to_text.to_json() if found.image_to_text else None
    reference = reference_score(arguments.standard)
    card = model.card
    benchmark = json.loads((arguments.standard / "benchmark.json").read_text(encoding="utf-8"))
    path = record.write(
        "demo_model",
        "tipr train configs/irra/demo.yaml; python benchmarks/demo_model.py RUN STANDARD --ship",
        {
            "training_commit": card.get("commit"),
            "training_machine": card.get("machine"),
            "seed": card.get("seed"),
            "minutes": card.get("minutes"),
            "stopped": card.get("stopped"),
            "selection": card.get("selection"),
            "best": card.get("best"),
            "last": card.get("last"),
            "training_data": card.get("data"),
            "config": card.get("config"),
            "parameters": sum(parameter.numel() for parameter in model.encoder.parameters()),
            "bytes": sum(file.stat().st_size for file in SHIPPED.iterdir()) if arguments.ship else None,
            "fingerprint": model.fingerprint,
            "manifest_sha256": benchmark["manifest_sha256"],
            "scores": scores,
            "image_to_text": image_to_text,
            "reference_reader": reference.to_json() if reference else None,
            "learning_curve": history,
        },
    )
    print(f"{path}: mean R@1 {scores['test']['mean']['R@1']:.1f}, R@10 {scores['test']['mean']['R@10']:.1f}")


if __name__ == "__main__":
    main()
