"""A real optimisation step of each method at full size with random weights: time and memory, one process at a time.

    python benchmarks/full_size_step.py [--write] [--rows 4] [--device cpu] [--one-layer] [METHOD]...

The model is that of the committed configuration for a real data set, the banks and classifiers have its official size,
the batch stands in for real pictures and captions. `--rows 0` takes the batch of the configuration. On an accelerator
also images a second, minutes an epoch, and with `--peak-tflops` the share of the device's peak.
"""

from __future__ import annotations

import argparse
import json
import math
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

import record
from peak_memory import held
from tipr.config import load
from tipr.training import RunConfig
from tipr.training.blueprint import build_method, one_step, published_scale, stand_in_batch, with_one_layer
from tipr.training.optim import build_optimizer, parameter_groups
from tipr.training.peak_memory import plan_memory
from tipr.training.run_config import Selection

ROOT = Path(__file__).resolve().parents[1]
CONFIGS = {
    "irra": "irra/cuhk_pedes.yaml",
    "clip_baseline": "clip_baseline/cuhk_pedes.yaml",
    "dual_granularity": "dual_granularity/cuhk_pedes.yaml",
    "bi_irra": "bi_irra/cuhk_pedes_m.yaml",
    "cluster_relations": "cluster_relations/synthetic.yaml",
}
"""Of every method the largest setting."""
WARM_STEPS = 3
"""Timed on an accelerator, after the first."""


def step_here(
    method_name: str, *, rows: int, device: str, one_layer: bool, peak_tflops: float | None
) -> dict[str, Any]:
    """Make the step in this process.

    Returns:
        JSON values: losses, seconds of the step, bytes at the peak, and what was foretold.
    """
    config = load(ROOT / "configs" / CONFIGS[method_name], RunConfig, overrides=[f"device={device}"])
    config = with_one_layer(config) if one_layer else config
    rows = rows or config.data.batch_size
    data = config.data.model_copy(update={"batch_size": rows, "workers": 0})
    config = config.model_copy(update={"data": data})
    scale = published_scale(config)
    assert scale is not None
    torch.manual_seed(0)
    method = build_method(config, scale).to(device)
    settings = config.optimizer
    groups = parameter_groups(
        method.named_parameters(), method.learning_rate_factor, lr=settings.lr, weight_decay=settings.weight_decay
    )
    optimizer = build_optimizer(groups, settings, device=torch.device(device))
    batch = stand_in_batch(config, method, rows=rows).to(device)
    watched = next(parameter for parameter in method.encoder.parameters() if parameter.requires_grad)
    before = watched.detach().clone()
    started = time.perf_counter()
    losses = one_step(config, method, optimizer, batch, device=device).losses
    row: dict[str, Any] = {
        "method": method_name,
        "config": CONFIGS[method_name],
        "rows": rows,
        "parameters": sum(parameter.numel() for parameter in method.parameters()),
        "losses": {name: round(value.item(), 4) for name, value in losses.items()},
        "moved": not torch.equal(before, watched.detach()),
        "seconds": round(time.perf_counter() - started, 2),
    }
    # the optimiser's state is made at the end of the first step: the second one shows the peak of a run
    one_step(config, method, optimizer, batch, device=device)
    if device == "cpu":
        row["peak_bytes"] = held("VmHWM")
    else:
        row["peak_bytes"] = torch.cuda.max_memory_allocated()
        row |= _pace(config, method, optimizer, batch, scale.pairs, device=device, peak_tflops=peak_tflops)
    del method, optimizer, batch, groups, losses, watched, before
    # a step alone: no images of a data set are in memory, and nothing is scored
    data = config.data.model_copy(update={"memory_gib": 0.0})
    alone = config.model_copy(update={"data": data, "selection": Selection(split="last", batch_size=rows)})
    plan = plan_memory(alone, scale, device="cpu" if device == "cpu" else "cuda")
    row["foretold_bytes"] = plan.main if device == "cpu" else plan.on_device
    return row


def _pace(
    config: RunConfig,
    method: Any,
    optimizer: torch.optim.Optimizer,
    batch: Any,
    pairs: int,
    *,
    device: str,
    peak_tflops: float | None,
) -> dict[str, Any]:
    """Images a second, minutes an epoch and share of the peak, when everything is warm."""
    with FlopCounterMode(display=False) as counter:
        one_step(config, method, optimizer, batch, device=device)
    torch.cuda.synchronize()
    started = time.perf_counter()
    for _ in range(WARM_STEPS):
        one_step(config, method, optimizer, batch, device=device)
    torch.cuda.synchronize()
    seconds = (time.perf_counter() - started) / WARM_STEPS
    rows = len(batch.pixels)
    flops = counter.get_total_flops()
    return {
        "seconds_warm": round(seconds, 4),
        "images_per_second": round(rows / seconds, 1),
        "minutes_per_epoch": round(math.ceil(pairs / rows) * seconds / 60, 2),
        "tflops": round(flops / seconds / 1e12, 2),
        "share_of_peak": None if peak_tflops is None else round(flops / seconds / 1e12 / peak_tflops, 3),
    }


def main() -> None:
    """Run every method in a process of its own; print, and with `--write` keep the result."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--here", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--write", action="store_true", help="write results/full_size_step[_DEVICE].json")
    parser.add_argument("--rows", type=int, default=4)
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    parser.add_argument("--one-layer", action="store_true", help="full width, one layer: for a quick look")
    parser.add_argument("--peak-tflops", type=float, help="of the accelerator in bfloat16, from its data sheet")
    parser.add_argument("methods", nargs="*", metavar="METHOD")
    arguments = parser.parse_args()
    names = arguments.methods or list(CONFIGS)
    unknown = sorted(set(names) - set(CONFIGS))
    if unknown:
        parser.error(f"unknown method {', '.join(unknown)}; one of {', '.join(CONFIGS)}")
    if arguments.here:
        row = step_here(
            names[0],
            rows=arguments.rows,
            device=arguments.device,
            one_layer=arguments.one_layer,
            peak_tflops=arguments.peak_tflops,
        )
        print(json.dumps(row))
        return
    rows = []
    options = [argument for argument in sys.argv[1:] if argument not in ("--write", *names)]
    for name in names:
        command = [sys.executable, __file__, "--here", *options, name]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise SystemExit(f"{name}: {done.stderr[-2000:]}")
        row = json.loads(done.stdout.splitlines()[-1])
        rows.append(row)
        gib = row["peak_bytes"] / 2**30, row["foretold_bytes"] / 2**30
        print(f"{name:18} {row['seconds']:7.1f} s  peak {gib[0]:5.2f} GiB  foretold {gib[1]:5.2f} GiB", flush=True)
    if arguments.write and not arguments.one_layer:
        file = "full_size_step" if arguments.device == "cpu" else f"full_size_step_{arguments.device}"
        record.write(file, f"python benchmarks/full_size_step.py {' '.join(sys.argv[1:])}", {"methods": rows})


if __name__ == "__main__":
    main()
