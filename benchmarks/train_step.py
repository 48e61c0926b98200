"""One IRRA training step, ours against a naive build of the same step, side by side in one process, both warm.

    python benchmarks/train_step.py [--write] [--repeat 5] [--device cpu]

The naive build does what the published training code does: it masks captions token by token in Python, runs the text
tower once for the clean and once for the masked captions, computes MLM logits at every position, and gives Adam one
group for each tensor. Weights, batch and masks are the same on both sides and the losses are compared before anything
is timed. Image decoding and augmentation are left out. Steps alternate; times are medians.
"""

from __future__ import annotations

import argparse
import random
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

import record
from tipr.data.batch import IGNORE, TrainBatch
from tipr.data.masking import Masking
from tipr.encoders import ClipEncoder, CompactEncoder, Encoder
from tipr.losses import identity_loss, sdm_loss
from tipr.methods import Irra, StepContext, TrainingFacts
from tipr.methods.irra import IrraConfig
from tipr.training.optim import build_optimizer, parameter_groups
from tipr.training.run_config import Optimizer

RESULT = Path(__file__).parent / "results" / "train_step.json"
WORDS = (14, 40)
"""Shortest and longest caption in tokens; real ones have about 28."""
TOLERANCE = 1e-4


@dataclass(frozen=True)
class Case:
    """What is timed.

    Attributes:
        name: for the reader.
        encoder: makes the towers.
        rows: batch size.
        settings: of the method.
        same: whether both sides compute the same loss; trimmed padding changes the MLM branch.
    """

    name: str
    encoder: Callable[[], Encoder]
    rows: int
    settings: dict[str, Any]
    same: bool = True


def small_clip() -> Encoder:
    """CLIP towers of a quarter of the width and a third of the depth, with the real vocabulary and caption length."""
    return ClipEncoder.build(
        ClipEncoder.Config(
            image_size=(192, 64), vision_width=192, vision_layers=4, text_width=128, text_layers=4, embed_dim=128
        )
    )


def real_clip() -> Encoder:
    """ViT-B/16 at 384x128."""
    return ClipEncoder.build(ClipEncoder.Config())


def compact() -> Encoder:
    """The encoder of the synthetic benchmark."""
    return CompactEncoder.build(CompactEncoder.Config())


CASES = (
    Case("small CLIP, published recipe", small_clip, 32, {}),
    Case("small CLIP, clean global captions", small_clip, 32, {"global_caption": "clean"}),
    Case("compact encoder, exact padding", compact, 64, {"global_caption": "clean"}),
    Case(
        "compact encoder, trimmed padding", compact, 64, {"global_caption": "clean", "padding": "trimmed"}, same=False
    ),
)
REAL_CASES = (
    Case("ViT-B/16, published recipe", real_clip, 64, {}),
    Case("ViT-B/16, clean global captions", real_clip, 64, {"global_caption": "clean"}),
)
"""Too heavy for two cores; for an accelerator."""


def captions(encoder: Encoder, rows: int) -> tuple[np.ndarray, np.ndarray]:
    """(rows, max_tokens) ids and mask of drawn captions; the last ids are mask, start and end."""
    draw = np.random.default_rng(0)
    length = draw.integers(*WORDS, size=rows)
    columns = np.arange(encoder.max_tokens)
    ids = draw.integers(1, encoder.vocabulary_size - 3, size=(rows, encoder.max_tokens))
    ids[:, 0] = encoder.vocabulary_size - 2
    ids[np.arange(rows), length - 1] = encoder.vocabulary_size - 1
    mask = columns[None] < length[:, None]
    return np.where(mask, ids, 0), mask


def mask_token_by_token(ids: np.ndarray, vocabulary_size: int) -> tuple[list[list[int]], list[list[int]]]:
    """The published masking: one Python decision for each token."""
    masked, labels = [], []
    for row in ids.tolist():
        label = []
        for i, token in enumerate(row):
            if 0 < token < vocabulary_size - 3:
                draw = random.random()
                if draw < 0.15:
                    draw /= 0.15
                    if draw < 0.8:
                        row[i] = vocabulary_size - 3
                    elif draw < 0.9:
                        row[i] = random.randrange(1, vocabulary_size - 3)
                    label.append(token)
                    continue
            label.append(IGNORE)
        masked.append(row)
        labels.append(label)
    return masked, labels


def naive_losses(method: Irra, batch: TrainBatch) -> dict[str, Tensor]:
    """The published step: two text passes, logits everywhere, a boolean selection afterwards."""
    image = method.encoder.encode_image(batch.pixels)
    clean = batch.masked_ids if method.config.global_caption == "masked" else batch.ids
    text = method.encoder.encode_text(clean, batch.mask)
    masked = method.encoder.encode_text(batch.masked_ids, batch.mask)
    logits = method.mlm_head(method.interaction(masked.tokens, image.tokens)).float().flatten(0, 1)
    labels = batch.mlm_labels.flatten()
    chosen = (labels != IGNORE).nonzero()
    (logits.argmax(dim=1)[chosen] == labels[chosen]).float().mean()
    return {
        "sdm": sdm_loss(image.pooled, text.pooled, batch.identity),
        "id": identity_loss(method.classifier(image.pooled), method.classifier(text.pooled), batch.identity),
        "mlm": F.cross_entropy(logits, labels, ignore_index=IGNORE),
    }


class Side:
    """A method with its optimiser, its batch and its way to run a step; times of the parts in seconds."""

    def __init__(self, case: Case, device: torch.device, *, naive: bool) -> None:
        torch.manual_seed(0)
        self.naive = naive
        encoder = case.encoder()
        size = encoder.vocabulary_size
        self.method = Irra.build(
            IrraConfig.model_validate(case.settings),
            encoder,
            TrainingFacts(pairs=0, mask_id=size - 3, vocabulary_size=size, identities=1000),
        ).to(device)
        self.ids, mask = captions(encoder, case.rows)
        self.masking, self.draw = Masking(size - 3, (1, size - 3)), np.random.default_rng(1)
        masked, labels = self.masking(self.ids, self.draw.random((len(self.ids), 2 * self.ids.shape[1])))
        self.device = device
        self.batch = TrainBatch(
            torch.randn(case.rows, 3, *encoder.image_size),
            *(torch.from_numpy(x) for x in (self.ids, mask, masked, labels)),
            torch.arange(case.rows) % 500,
            torch.arange(case.rows),
        ).to(device)
        settings, named = Optimizer(), list(self.method.named_parameters())
        groups = parameter_groups(named, self.method.learning_rate_factor, lr=1e-5, weight_decay=4e-5)
        if naive:
            groups = [{**group, "params": [parameter]} for group in groups for parameter in group["params"]]
            self.optimiser: torch.optim.Optimizer = torch.optim.Adam(groups, eps=settings.eps)
        else:
            self.optimiser = build_optimizer(groups, settings, device=device)
        self.groups = len(groups)
        self.times: dict[str, list[float]] = {"masking": [], "forward and backward": [], "optimiser": [], "step": []}

    def losses(self) -> dict[str, Tensor]:
        """The terms of the loss for the stored batch."""
        return naive_losses(self.method, self.batch) if self.naive else self.method(self.batch, StepContext()).losses

    def step(self) -> None:
        """One timed step."""
        marks = [self._now()]
        if self.naive:
            masked, labels = mask_token_by_token(self.ids, self.method.encoder.vocabulary_size)
            torch.tensor(masked), torch.tensor(labels)
        else:
            self.masking(self.ids, self.draw.random((len(self.ids), 2 * self.ids.shape[1])))
        marks.append(self._now())
        sum(self.losses().values(), torch.zeros((), device=self.device)).backward()
        marks.append(self._now())
        self.optimiser.step()
        self.optimiser.zero_grad()
        marks.append(self._now())
        for name, start, end in zip(self.times, marks, marks[1:], strict=False):
            self.times[name].append(end - start)
        self.times["step"].append(marks[-1] - marks[0])

    def _now(self) -> float:
        if self.device.type == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter()


def measure(case: Case, *, repeat: int, device: torch.device) -> dict[str, Any]:
    """Times of both sides in milliseconds and their ratio."""
    naive, ours = Side(case, device, naive=True), Side(case, device, naive=False)
    difference = None
    if case.same:
        with torch.no_grad():
            pairs = zip(naive.losses().values(), ours.losses().values(), strict=True)
            difference = max(float((a - b).abs() / a.abs()) for a, b in pairs)
        if difference > TOLERANCE:
            raise SystemExit(f"{case.name}: the two builds differ by {difference}")
    for side in (naive, ours):
        side.step()  # warm-up
        side.times = {name: [] for name in side.times}
    for _ in range(repeat):
        naive.step()
        ours.step()

    def milliseconds(side: Side) -> dict[str, float]:
        return {name: round(1000 * statistics.median(times), 2) for name, times in side.times.items()}

    labelled, length = ours.batch.mlm_labels != IGNORE, ours.batch.ids.shape[1]
    return {
        "case": case.name,
        "rows": case.rows,
        "columns": length,
        "labelled_positions": int(labelled.sum()),
        "parameters": sum(p.numel() for p in ours.method.parameters()),
        "largest_relative_loss_difference": difference,
        "optimiser_groups": {"naive": naive.groups, "ours": ours.groups},
        "naive_ms": milliseconds(naive),
        "ours_ms": milliseconds(ours),
        "ratio": round(statistics.median(naive.times["step"]) / statistics.median(ours.times["step"]), 2),
    }


def main() -> None:
    """Measure every case; print, and with `--write` keep the result."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--write", action="store_true", help="write results/train_step.json")
    arguments = parser.parse_args()
    device = torch.device(arguments.device)
    random.seed(0)
    report: dict[str, Any] = {
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
        "threads": torch.get_num_threads(),
        "cases": [],
    }
    for case in CASES if device.type == "cpu" else REAL_CASES:
        row = measure(case, repeat=arguments.repeat, device=device)
        report["cases"].append(row)
        print(
            f"{row['case']:36} naive {row['naive_ms']['step']:8.1f} ms  ours {row['ours_ms']['step']:8.1f} ms  "
            f"{row['ratio']:.2f} x"
        )
    if arguments.write:
        command = f"python benchmarks/train_step.py --repeat {arguments.repeat} --device {arguments.device}"
        record.write("train_step", command, report)


if __name__ == "__main__":
    main()
