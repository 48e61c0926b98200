"""What the fusion layers of Bi-IRRA have learnt, beside the vectors of its towers, on people held out of training.

    python benchmarks/fusion_probe.py RUN... [--batches 12] [--write]

RUN holds checkpoints of `tipr train` (an ablation with `--slim` drops them). For captions in the source and in a target
language it tells, in per cent:

- pairs in the right order: how often a caption's own picture has a higher match score, and a higher cosine, than
  another picture of the batch. That one is drawn as in training ("hard": the likelier the more similar) or at random.
  Pictures are whole, or masked as the target side of training has them.
- masked words that are restored beside the right picture and beside another one: the difference is what is read off
  the picture.
"""

from __future__ import annotations

import argparse
import json
from collections import defaultdict
from pathlib import Path

import lightning_fabric
import numpy as np
import torch
from torch import Tensor

from record import write
from tipr.data.batch import IGNORE, BilingualBatch
from tipr.losses import hard_negatives
from tipr.methods import BiIrra
from tipr.training import load_config
from tipr.training.assembly import assemble
from tipr.training.loop import restore_state
from tipr.training.sources import Share, build_source, load_split

Tally = dict[str, list[float]]


def probe(folder: Path, batches: int) -> dict[str, float | int]:
    """The shares of a run at its newest checkpoint, and its step."""
    config = load_config(folder).model_copy(update={"out": folder})
    fabric = lightning_fabric.Fabric(accelerator="cpu", devices=1, precision="bf16-mixed")
    fabric.launch()
    run = assemble(config, fabric, print)
    step = restore_state(run, print).step
    method = run.method.eval()
    assert isinstance(method, BiIrra)
    people = load_split(config, "val")
    source = build_source(
        config, people, run.tokenizer, run.preprocessing, method=method, share=Share(0, 1), note=print
    )
    tally: Tally = defaultdict(list)
    draws = torch.Generator().manual_seed(0)
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
        for number in range(min(batches, source.length(1))):
            look(method, source.batch(1, number), draws, tally)
    return {"step": step, **{name: round(100 * float(np.mean(shares)), 1) for name, shares in sorted(tally.items())}}


def look(method: BiIrra, batch: BilingualBatch, draws: torch.Generator, tally: Tally) -> None:
    """Add the shares of one batch."""
    encoder = method.encoder
    pictures = {
        "whole": encoder.encode_image(batch.pixels),
        "masked": encoder.encode_image(batch.pixels, batch.patch_mask),
    }
    rows = len(batch.identity)
    random = torch.roll(torch.arange(rows), rows // 2)
    sides = (
        ("source", batch.source_ids, batch.source_mask, batch.masked_source_ids, batch.source_labels, False),
        (
            "target",
            batch.target_ids,
            batch.target_mask,
            batch.masked_target_ids,
            batch.target_labels,
            batch.target_language,
        ),
    )
    for side, ids, mask, masked_ids, labels, language in sides:
        text = encoder.encode_text(ids, mask)
        feature = method.project_text(text.pooled, language)
        for kind, picture in pictures.items():
            images = method.project_image(picture.pooled)
            hard = hard_negatives(
                images, feature, batch.identity, torch.rand(2, rows, generator=draws), temperature=method.temp
            )
            own = margin(method.match(text.tokens, mask, picture.tokens))
            own_cosine = (images * feature).sum(1)
            for level, drawn in (("hard", hard.image), ("random", random)):
                rival = margin(method.match(text.tokens, mask, picture.tokens[drawn]))
                name = f"{side}, {kind} pictures, {level}"
                tally[f"match score right: {name}"].append(right(own > rival))
                tally[f"cosine right: {name}"].append(right(own_cosine > (images[drawn] * feature).sum(1)))
        if not method.uses_mlm:
            continue
        hidden = encoder.encode_text(masked_ids, mask)
        labelled = labels != IGNORE
        for beside, tokens in (
            ("its picture", pictures["whole"].tokens),
            ("another", pictures["whole"].tokens[random]),
        ):
            states = encoder.fusion(hidden.tokens, mask, tokens, None)[labelled]
            words = method.mlm_head(states, encoder.word_embeddings.weight).argmax(-1)
            tally[f"words restored: {side}, beside {beside}"].append(right(words == labels[labelled]))


def margin(logits: Tensor) -> Tensor:
    """(N, 2) match logits -> (N,) how much more likely a match is than none."""
    return logits[:, 1] - logits[:, 0]


def right(answers: Tensor) -> float:
    """Share of True."""
    return float(answers.float().mean())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", type=Path)
    parser.add_argument("--batches", type=int, default=12)
    parser.add_argument("--write", action="store_true", help="write benchmarks/results/fusion_probe.json")
    options = parser.parse_args()
    found = {f"{folder.parent.name}/{folder.name}": probe(folder, options.batches) for folder in options.runs}
    print(json.dumps(found, indent=2))
    if options.write:
        names = " ".join(found)
        print(write("fusion_probe", f"python benchmarks/fusion_probe.py {names} --write", {"runs": found}))


if __name__ == "__main__":
    main()
