"""The machine side of a run: Fabric, processes and their gathers, threads, seeds, and the facts worth writing down."""

from __future__ import annotations

import logging
import os
import platform
import random
import shlex
import subprocess
import sys
import warnings
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch import distributed as dist

from tipr.errors import ConfigError, MissingExtra
from tipr.methods.interaction import Attention
from tipr.training.run_config import RunConfig

PACKAGES = ("torch", "numpy", "transformers", "tokenizers", "lightning-fabric", "pillow", "simplejpeg")


class GatherRows(torch.autograd.Function):
    """(b, ...) on each process -> (W b, ...) on all, in order of rank; the backward sums over processes.

    Each process computes the whole loss, this backward sums W equal gradients and DDP averages them over W: a loss over
    gathered rows needs no factor. Holds for equal b on every process.
    """

    @staticmethod
    def forward(ctx: Any, rows: Tensor) -> Tensor:
        """Gather."""
        everyone = rows.new_empty(dist.get_world_size() * len(rows), *rows.shape[1:])
        dist.all_gather(list(everyone.chunk(dist.get_world_size())), rows.contiguous())
        ctx.size = len(rows)
        return everyone

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        """Sum over processes, then the own slice."""
        gradient = gradients[0].contiguous().clone()
        dist.all_reduce(gradient)
        start = dist.get_rank() * int(ctx.size)
        return gradient[start : start + int(ctx.size)]


def gather(rows: Tensor) -> Tensor:
    """`GatherRows` as a function."""
    everyone: Tensor = GatherRows.apply(rows)  # type: ignore[no-untyped-call]
    return everyone


def reduce_sum(value: Tensor) -> Tensor:
    """Sum of a detached tensor over all processes; the argument stays as it is."""
    total = value.detach().clone()
    dist.all_reduce(total)
    return total


def start(config: RunConfig) -> Any:
    """A launched `Fabric`: device, precision and processes.

    Several processes re-run the whole command line, so nothing with an effect may come before this call.

    Raises:
        ConfigError: the device is not there, or does not do the precision.
        MissingExtra: Lightning Fabric is not installed.
    """
    try:
        from lightning_fabric import Fabric
        from lightning_fabric.strategies.ddp import DDPStrategy
    except ImportError:
        raise MissingExtra("lightning-fabric", "train") from None

    device = config.device
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    kind, _, index = device.partition(":")
    found = torch.cuda.device_count()
    if kind == "cuda" and found < max(config.processes, int(index or 0) + 1):
        raise ConfigError(f"device {device} with {config.processes} processes: {found} CUDA devices found; use cpu")
    if index and config.processes > 1:
        raise ConfigError(f"device {device} names one device, processes is {config.processes}: use cuda")
    logging.getLogger("lightning_fabric").setLevel(logging.WARNING)  # it announces every choice that it is told
    if config.threads is not None:
        torch.set_num_threads(config.threads)
    strategy: Any = "auto"
    if config.processes > 1:
        # An encoder may have outputs that the losses in use never read. (`static_graph` would be quicker, but it leaves
        # the first step unreduced when a step returns a dataclass.)
        warnings.filterwarnings("ignore", message="find_unused_parameters=True was specified")
        strategy = DDPStrategy(
            process_group_backend="gloo" if kind == "cpu" else "nccl",
            forward_sync_buffers=False,
            find_unused_parameters=True,
        )
    fabric = Fabric(
        accelerator=kind,
        devices=[int(index)] if index else config.processes,
        strategy=strategy,
        precision="bf16-mixed" if config.precision == "bf16" else "32-true",
    )
    fabric.launch()
    return fabric


def free_memory(device: torch.device) -> int | None:
    """Bytes that can still be had on a device; None where the system does not say."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    try:
        lines = Path("/proc/meminfo").read_text(encoding="utf-8").splitlines()
        return 1024 * next(int(line.split()[1]) for line in lines if line.startswith("MemAvailable:"))
    except (OSError, StopIteration):
        return None


def seed_all(seed: int) -> None:
    """Seed torch, NumPy's legacy generator and `random`."""
    torch.manual_seed(seed)
    np.random.seed(seed % 2**32)  # noqa: NPY002 - for foreign code; ours draws by counter
    random.seed(seed)


def random_state(device: torch.device) -> dict[str, Any]:
    """The random state of this process, in types that a restricted unpickler reads."""
    state: dict[str, Any] = {"torch": torch.get_rng_state(), "python": random.getstate()}
    if device.type == "cuda":
        state["cuda"] = torch.cuda.get_rng_state(device)
    return state


def set_random_state(state: dict[str, Any], device: torch.device) -> None:
    """Go on from `random_state`."""
    torch.set_rng_state(state["torch"])
    random.setstate(state["python"])
    if device.type == "cuda" and "cuda" in state:
        torch.cuda.set_rng_state(state["cuda"], device)


def hold_in_half(module: nn.Module) -> None:
    """Turn the weights of linear, convolution and attention modules into float16, in place (irra.md 9).

    LayerNorms, embeddings and free parameters stay float32, as in the published code. The residual stream differs: it
    is float32 here (autocast), half there.
    """
    for part in module.modules():
        if isinstance(part, nn.Linear | nn.Conv2d | nn.MultiheadAttention | Attention):
            for parameter in part.parameters(recurse=False):
                parameter.data = parameter.data.half()


def facts(config: RunConfig, device: torch.device) -> dict[str, Any]:
    """What a reader of the run needs to know about the machine and the code: JSON values."""
    return {
        "tipr": metadata.version("tipr"),
        "commit": commit(),
        "command": _command(),
        "machine": machine(device),
        "system": platform.platform(),
        "python": platform.python_version(),
        "packages": {name: _version(name) for name in PACKAGES},
        "threads": torch.get_num_threads(),
        "processes": config.processes,
        "device": str(device),
    }


def machine(device: torch.device) -> str:
    """Processor (or accelerator) and core count in one line."""
    if device.type == "cuda":
        return f"{torch.cuda.get_device_name(device)}, {os.cpu_count()} CPU cores"
    name = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.is_file():
        names = [line.partition(":")[2].strip() for line in info.read_text().splitlines() if "model name" in line]
        name = names[0] if names else name
    return f"{name}, {os.cpu_count()} CPU cores"


def commit() -> str | None:
    """The commit of the checkout that this package runs from, `-dirty` behind it when `src` differs; None elsewhere."""
    root = Path(__file__).resolve().parents[3]
    if not (root / ".git").exists():
        return None
    try:
        head = _git(root, "rev-parse", "HEAD")
        return f"{head}-dirty" if _git(root, "status", "--porcelain", "--", "src") else head
    except (OSError, subprocess.SubprocessError):
        return None


def _command() -> str:
    """The command line, without where this machine keeps the program."""
    program = Path(sys.argv[0])
    name = f"python -m {program.parent.name}" if program.name == "__main__.py" else program.name
    return shlex.join([*name.split(), *sys.argv[1:]])


def _git(root: Path, *arguments: str) -> str:
    done = subprocess.run(["git", "-C", str(root), *arguments], capture_output=True, text=True, check=True, timeout=10)
    return done.stdout.strip()


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None
