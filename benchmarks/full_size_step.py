"""A real optimisation step of each method at full size with random weights: time and memory, one process at a time.

    python benchmarks/full_size_step.py [--write] [--rows 4] [--device cpu] [--one-layer] [METHOD]...
    python benchmarks/full_size_step.py --device cuda --rows 0 --peak-tflops 989 --reference IRRA irra

The model is that of the committed configuration for a real data set, the banks and classifiers have its official size,
the batch stands in for real pictures and captions. `--rows 0` takes the batch of the configuration. On an accelerator
also images a second, minutes an epoch, and with `--peak-tflops` the share of the device's peak; with `--reference`, a
checkout of IRRA's published code, its step stands beside ours (`irra_reference.py`). `--write` keeps the rows of
methods that were not named.
"""

from __future__ import annotations

import argparse
import json
import math
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
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
REFERENCE = "irra, reference implementation"
"""Name of its row."""
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
        row |= pace(
            partial(one_step, config, method, optimizer, batch, device=device),
            rows=len(batch.pixels),
            pairs=scale.pairs,
            peak_tflops=peak_tflops,
        )
    del method, optimizer, batch, groups, losses, watched, before
    # a step alone: no images of a data set are in memory, and nothing is scored
    data = config.data.model_copy(update={"memory_gib": 0.0})
    alone = config.model_copy(update={"data": data, "selection": Selection(split="last", batch_size=rows)})
    plan = plan_memory(alone, scale, device="cpu" if device == "cpu" else "cuda")
    row["foretold_bytes"] = plan.main if device == "cpu" else plan.on_device
    return row


def pace(step: Callable[[], object], *, rows: int, pairs: int, peak_tflops: float | None) -> dict[str, Any]:
    """Images a second, minutes an epoch and share of the peak, when everything is warm.

    Args:
        step: makes one optimisation step on an accelerator.
        rows: images of a step.
        pairs: of an epoch.
        peak_tflops: of the accelerator.
    """
    with FlopCounterMode(display=False) as counter:
        step()
    torch.cuda.synchronize()
    started = time.perf_counter()
    for _ in range(WARM_STEPS):
        step()
    torch.cuda.synchronize()
    seconds = (time.perf_counter() - started) / WARM_STEPS
    flops = counter.get_total_flops()
    return {
        "seconds_warm": round(seconds, 4),
        "images_per_second": round(rows / seconds, 1),
        "minutes_per_epoch": round(math.ceil(pairs / rows) * seconds / 60, 2),
        "tflops": round(flops / seconds / 1e12, 2),
        "share_of_peak": None if peak_tflops is None else round(flops / seconds / 1e12 / peak_tflops, 3),
    }


def _row(command: list[str]) -> dict[str, Any]:
    """The row that another process prints last."""
    done = subprocess.run([sys.executable, *command], capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)}: {done.stderr[-2000:]}")
    row: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return row


def _kept(file: str, made: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The rows that were made, in the order of `CONFIGS`, and those of other methods that were written before."""
    path = record.RESULTS / f"{file}.json"
    before = json.loads(path.read_text(encoding="utf-8"))["methods"] if path.is_file() else []
    fresh = {row["method"] for row in made}
    order = [*CONFIGS, REFERENCE]
    return sorted(
        [*made, *(row for row in before if row["method"] not in fresh)], key=lambda row: order.index(row["method"])
    )


def main() -> None:
    """Run every method in a process of its own; print, and with `--write` keep the result."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--here", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--write", action="store_true", help="write results/full_size_step[_DEVICE].json")
    parser.add_argument("--rows", type=int, default=4)
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    parser.add_argument("--one-layer", action="store_true", help="full width, one layer: for a quick look")
    parser.add_argument("--peak-tflops", type=float, help="of the accelerator in bfloat16, from its data sheet")
    parser.add_argument("--reference", type=Path, metavar="CHECKOUT", help="IRRA's published code, to be timed as well")
    parser.add_argument("methods", nargs="*", metavar="METHOD")
    arguments = parser.parse_args()
    names = arguments.methods or list(CONFIGS)
    unknown = sorted(set(names) - set(CONFIGS))
    if unknown:
        parser.error(f"unknown method {', '.join(unknown)}; one of {', '.join(CONFIGS)}")
    if arguments.reference is not None and (arguments.device == "cpu" or "irra" not in names):
        parser.error("--reference needs --device cuda and the method irra: that code runs in half precision")
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
    options = ["--rows", str(arguments.rows), "--device", arguments.device]
    options += ["--one-layer"] if arguments.one_layer else []
    peak = [] if arguments.peak_tflops is None else ["--peak-tflops", str(arguments.peak_tflops)]
    for name in names:
        rows.append(_row([__file__, "--here", *options, *peak, name]))
        if name == "irra" and arguments.reference is not None:
            file = str(Path(__file__).with_name("irra_reference.py"))
            rows.append(_row([file, str(arguments.reference), "--rows", str(rows[-1]["rows"]), *peak]))
    for row in rows:
        row["commit"] = record.commit()
        told = "" if "foretold_bytes" not in row else f"  foretold {row['foretold_bytes'] / 2**30:5.2f} GiB"
        speed = "" if "images_per_second" not in row else f"  {row['images_per_second']} images/s"
        peak_gib = row["peak_bytes"] / 2**30
        print(f"{row['method']:18} {row['seconds']:7.1f} s  peak {peak_gib:5.2f} GiB{told}{speed}", flush=True)
    if arguments.write and not arguments.one_layer:
        file = "full_size_step" if arguments.device == "cpu" else f"full_size_step_{arguments.device}"
        command = f"python benchmarks/full_size_step.py {' '.join(sys.argv[1:])}"
        record.write(file, command, {"methods": _kept(file, rows)})


if __name__ == "__main__":
    main()
