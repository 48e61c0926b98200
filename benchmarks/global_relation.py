"""What mining relations against a memory bank adds to a training step, at the size of CUHK-PEDES.

    python benchmarks/global_relation.py [--write] [--repeat 20] [--steps 2]

One global step is all of Eq. 12-15 and the features behind the columns: similarity of 64 images with 68,126 bank rows
of width 512, top k, threshold, union, gather of both modalities, target. Beside it, in the same run and in turn with
it, stands the bare product `f @ bank.T` of the same shape, which no implementation can avoid; then a float32 training
step of the contrastive baseline with ViT-B/16 at 384x128, batch 64 (both towers, loss, backward, Adam; no image is
decoded), of which the quickest counts. Features are drawn: a common direction, a person's own and noise, so that a few
rows of a person lie above the threshold and other people below it. Times are medians in milliseconds except where the
quickest is said. The training step needs 15 GB of memory.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

import record
from tipr.data.batch import IGNORE, TrainBatch
from tipr.encoders import ClipEncoder
from tipr.losses import GlobalRelation, global_relation, global_relation_loss
from tipr.methods import StepContext
from tipr.methods.clip_baseline import ClipBaseline, ClipBaselineConfig
from tipr.methods.memory_bank import MemoryBank
from tipr.training.optim import build_optimizer, parameter_groups
from tipr.training.run_config import Optimizer

PAIRS, PEOPLE, BATCH, WIDTH = 68_126, 11_003, 64, 512
"""Training pairs and people of CUHK-PEDES, batch and feature width of the method."""
TOKENS = 28
"""Length of an ordinary caption."""
ALLOWED = {"times_product": 3.0, "share_of_training_step": 0.02}


def drawn_features(generator: torch.Generator, person: Tensor) -> Tensor:
    """(len(person), WIDTH) features with cosines near 0.8 inside a person and near 0.5 between people."""
    common = torch.randn(WIDTH, generator=generator)
    people = torch.randn(PEOPLE, WIDTH, generator=generator)
    return common + 0.77 * people[person] + 0.63 * torch.randn(len(person), WIDTH, generator=generator)


def filled_bank(features: Tensor) -> MemoryBank:
    """A bank that holds `features`."""
    bank = MemoryBank(*features.shape)
    bank.fill(torch.arange(len(features)), features)
    return bank


def training_step() -> Callable[[], None]:
    """A float32 ViT-B/16 step of the contrastive baseline."""
    encoder = ClipEncoder.build(ClipEncoder.Config())
    method = ClipBaseline(ClipBaselineConfig(), encoder)
    ids = torch.randint(1, encoder.vocabulary_size - 3, (BATCH, encoder.max_tokens))
    ids[:, TOKENS - 1] = encoder.vocabulary_size - 1
    mask = (torch.arange(encoder.max_tokens) < TOKENS).expand(BATCH, -1)
    ids = ids.masked_fill(~mask, 0)
    number = torch.arange(BATCH)
    pixels = torch.randn(BATCH, 3, *encoder.image_size)
    batch = TrainBatch(pixels, ids, mask, ids, torch.full_like(ids, IGNORE), number, number)
    groups = parameter_groups(list(method.named_parameters()), method.learning_rate_factor, lr=1e-5, weight_decay=4e-5)
    optimiser = build_optimizer(groups, Optimizer(), device=torch.device("cpu"))

    def step() -> None:
        sum(method(batch, StepContext()).losses.values(), torch.zeros(())).backward()
        optimiser.step()
        optimiser.zero_grad()

    return step


def times(steps: dict[str, Callable[[], object]], repeat: int) -> dict[str, list[float]]:
    """Milliseconds of each step, taken in turn, after one unmeasured turn."""
    found: dict[str, list[float]] = {name: [] for name in steps}
    for turn in range(repeat + 1):
        for name, step in steps.items():
            started = time.perf_counter()
            step()
            if turn:
                found[name].append(1000 * (time.perf_counter() - started))
    return found


def main() -> None:
    """Measure; print, and with `--write` keep the result."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeat", type=int, default=20)
    parser.add_argument("--steps", type=int, default=2, help="training steps, after one unmeasured")
    parser.add_argument("--write", action="store_true", help="write results/global_relation.json")
    arguments = parser.parse_args()

    torch.manual_seed(0)
    generator = torch.Generator().manual_seed(0)
    person = torch.arange(PAIRS) % PEOPLE
    images, texts = (filled_bank(drawn_features(generator, person)) for _ in range(2))
    rows = torch.randperm(PAIRS, generator=generator)[:BATCH]
    image, text = (
        (bank.read()[rows] + 0.3 * torch.randn(BATCH, WIDTH, generator=generator)).requires_grad_()
        for bank in (images, texts)
    )
    unit = F.normalize(image.detach(), dim=1)

    def mine() -> tuple[GlobalRelation, Tensor, Tensor]:
        relation = global_relation(image, images.read(), rows, inverse_norm=images.inverse_norm, pad=True)
        with torch.no_grad():
            return relation, relation.keys(image, images.read()), relation.keys(text, texts.read())

    relation = mine()[0]

    def losses() -> None:
        global_relation_loss(image, text, images.read(), texts.read(), relation).backward()

    def write() -> None:
        images.write(rows, image)
        texts.write(rows, text)

    measured = times(
        {"product": lambda: unit @ images.read().T, "global_step": mine, "loss_and_backward": losses, "write": write},
        arguments.repeat,
    )
    report: dict[str, Any] = {
        "pairs": PAIRS,
        "batch": BATCH,
        "width": WIDTH,
        "threads": torch.get_num_threads(),
        "mean_relations": round(float((relation.mined >= 0).sum(1).float().mean()), 2),
        "columns": int(relation.used.sum()) - BATCH,
        "bank_bytes": sum(b.numel() * b.element_size() for bank in (images, texts) for b in bank.buffers()),
        "median_ms": {name: round(statistics.median(found), 2) for name, found in measured.items()},
    }
    for name, value in report.items():
        print(f"{name:28} {value}", flush=True)  # the training steps take minutes where the machine is busy
    steps = times({"step": training_step()}, arguments.steps)["step"]
    median = report["median_ms"]
    compared = {
        "training_step_quickest_ms": round(min(steps), 1),
        "times_product": round(median["global_step"] / median["product"], 2),
        "share_of_training_step": round(median["global_step"] / min(steps), 5),
        "allowed": ALLOWED,
    }
    for name, value in compared.items():
        print(f"{name:28} {value}")
    if arguments.write:
        command = f"python benchmarks/global_relation.py --repeat {arguments.repeat} --steps {arguments.steps}"
        record.write("global_relation", command, {**report, **compared})


if __name__ == "__main__":
    main()
