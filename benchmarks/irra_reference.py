"""A training step of IRRA's published code at full size with random weights, timed as `full_size_step.py` times ours.

    python benchmarks/irra_reference.py CHECKOUT [--rows 64] [--peak-tflops 989] [--device cuda]

CHECKOUT is a copy of the authors' repository; its own options, model and optimiser are used as they are, with the three
published losses. The weights are random ones in OpenAI's layout, since time does not depend on their values. Nothing is
downloaded. The batch lies on the device already, as it does in our step.
"""

from __future__ import annotations

import argparse
import importlib
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from full_size_step import REFERENCE, pace
from tipr.data.datasets import DATASETS

WIDTH, TEXT_WIDTH, JOINT, LAYERS, PATCH, GRID, WORDS, COLUMNS = 768, 512, 512, 12, 16, 14, 49408, 77
"""Of CLIP ViT-B/16 as published."""
LABELLED = 6
"""Every so many words one is masked, about the published 15 %."""


def clip_weights() -> dict[str, Tensor]:
    """Random tensors under the names and in the shapes of OpenAI's ViT-B/16."""

    def blocks(prefix: str, width: int) -> dict[str, tuple[int, ...]]:
        shapes: dict[str, tuple[int, ...]] = {
            "attn.in_proj_weight": (3 * width, width),
            "attn.in_proj_bias": (3 * width,),
            "attn.out_proj.weight": (width, width),
            "attn.out_proj.bias": (width,),
            "mlp.c_fc.weight": (4 * width, width),
            "mlp.c_fc.bias": (4 * width,),
            "mlp.c_proj.weight": (width, 4 * width),
            "mlp.c_proj.bias": (width,),
            **{f"{norm}.{kind}": (width,) for norm in ("ln_1", "ln_2") for kind in ("weight", "bias")},
        }
        return {f"{prefix}.{layer}.{name}": shape for layer in range(LAYERS) for name, shape in shapes.items()}

    shapes = {
        "positional_embedding": (COLUMNS, TEXT_WIDTH),
        "text_projection": (TEXT_WIDTH, JOINT),
        "token_embedding.weight": (WORDS, TEXT_WIDTH),
        "logit_scale": (),
        "visual.class_embedding": (WIDTH,),
        "visual.positional_embedding": (GRID * GRID + 1, WIDTH),
        "visual.proj": (WIDTH, JOINT),
        "visual.conv1.weight": (WIDTH, 3, PATCH, PATCH),
        **{f"ln_final.{kind}": (TEXT_WIDTH,) for kind in ("weight", "bias")},
        **{f"visual.{norm}.{kind}": (WIDTH,) for norm in ("ln_pre", "ln_post") for kind in ("weight", "bias")},
        **blocks("visual.transformer.resblocks", WIDTH),
        **blocks("transformer.resblocks", TEXT_WIDTH),
    }
    return {name: torch.randn(shape) * 0.02 for name, shape in shapes.items()}


def batch_of(rows: int, image_size: tuple[int, int], device: str) -> dict[str, Tensor]:
    """A batch with the keys of that code: half of each caption's columns hold words, labels are 0 where nothing is."""
    ids = torch.randint(1, WORDS - 3, (rows, COLUMNS))
    end = COLUMNS // 2
    ids[:, end], ids[:, end + 1 :] = WORDS - 1, 0
    chosen = (torch.arange(COLUMNS) % LABELLED == 1) & (torch.arange(COLUMNS) < end)
    place = torch.arange(rows)
    made = {
        "images": torch.randn(1, 3, *image_size).expand(rows, -1, -1, -1).contiguous(),
        "pids": place // 2,
        "image_ids": place,
        "caption_ids": ids,
        "mlm_ids": torch.where(chosen, WORDS - 3, ids),
        "mlm_labels": torch.where(chosen, ids, 0),
    }
    return {name: tensor.to(device) for name, tensor in made.items()}


def measure(checkout: Path, *, rows: int, device: str, peak_tflops: float | None) -> dict[str, Any]:
    """JSON values, as those of our own step."""
    sys.path.insert(0, str(checkout))
    train = DATASETS["cuhk_pedes"].facts.editions[0].splits["train"]
    with tempfile.TemporaryDirectory() as folder:
        weights = Path(folder) / "ViT-B-16.pt"
        torch.save(clip_weights(), weights)
        sys.argv = ["train.py", "--pretrain_choice", str(weights), "--loss_names", "sdm+id+mlm", "--MLM"]
        arguments = importlib.import_module("utils.options").get_args()
        model = importlib.import_module("model").build_model(arguments, train.identities).to(device).train()
    optimizer = importlib.import_module("solver").build_optimizer(arguments, model)
    batch = batch_of(rows, tuple(arguments.img_size), device)

    def step() -> dict[str, float]:
        found = {name: value for name, value in model(batch).items() if "loss" in name}
        total = sum(found.values(), torch.zeros((), device=device))
        optimizer.zero_grad()
        total.backward()
        optimizer.step()
        return {name: round(float(value.detach()), 4) for name, value in found.items()}

    started = time.perf_counter()
    losses = step()
    row: dict[str, Any] = {
        "method": REFERENCE,
        "rows": rows,
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "losses": losses,
        "seconds": round(time.perf_counter() - started, 2),
        "peak_bytes": 0,
    }
    step()
    if device != "cpu":
        row["peak_bytes"] = torch.cuda.max_memory_allocated()
        row |= pace(step, rows=rows, pairs=train.captions, peak_tflops=peak_tflops)
    return row


def main() -> None:
    """Print one row as JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("checkout", type=Path)
    parser.add_argument("--rows", type=int, default=64)
    parser.add_argument("--peak-tflops", type=float)
    parser.add_argument("--device", default="cuda", help="cpu: only to see that the code works")
    given = parser.parse_args()
    row = measure(given.checkout.resolve(), rows=given.rows, device=given.device, peak_tflops=given.peak_tflops)
    print(json.dumps(row))


if __name__ == "__main__":
    main()
