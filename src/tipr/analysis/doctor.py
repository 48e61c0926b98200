"""What stands between a machine and a run: the environment, the files that a configuration names, and its memory."""

from __future__ import annotations

import os
import platform
import re
import shlex
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
import yaml

from tipr import config as configuration
from tipr.data.datasets import DATASETS
from tipr.data.synthetic.presets import PRESETS
from tipr.errors import DatasetError, WeightsError
from tipr.retrieval.model_folder import model_folder
from tipr.training import RunConfig, environment
from tipr.training.blueprint import Scale, published_scale, scale_of
from tipr.training.loop import CHECKPOINTS
from tipr.training.peak_memory import MemoryPlan, plan_memory
from tipr.training.run_config import ClipTokenizerConfig, XlmrTokenizerConfig

EXTRAS: Mapping[str, tuple[str, tuple[str, ...]]] = {
    "train": ("training runs", ("lightning-fabric", "tensorboard", "scikit-learn", "scipy")),
    "fast": ("a quicker ranking of large splits", ("numba",)),
    "scan": ("search of galleries from memory", ("faiss-cpu",)),
    "translate": ("adapting a filter of translations", ("peft",)),
}
"""Extra of the package -> (what it is for, its distributions); as in pyproject.toml."""
GIB = 2**30
DIVISORS = (2, 8)
"""Of the batch: parts that are rehearsed, the largest first, where memory does not suffice."""


@dataclass(frozen=True)
class Extra:
    """One optional group of packages; `missing` are not installed, `install` is the line that adds them."""

    name: str
    purpose: str
    missing: tuple[str, ...]
    install: str


@dataclass(frozen=True)
class Device:
    """One place to compute, its memory in bytes; None where the system does not say."""

    name: str
    description: str
    total: int | None
    free: int | None


@dataclass(frozen=True)
class Environment:
    """The machine and the packages, as this process sees them."""

    tipr: str
    python: str
    torch: str
    system: str
    threads: int
    cores: int
    devices: tuple[Device, ...]
    extras: tuple[Extra, ...]


@dataclass(frozen=True)
class Finding:
    """One thing that a configuration names.

    Attributes:
        what: such as "data".
        path: where it should be.
        found: whether it can be used.
        note: what is there, or what is wrong.
        todo: the command or the step that brings it; empty when it was found.
    """

    what: str
    path: str
    found: bool
    note: str
    todo: str = ""


@dataclass(frozen=True)
class Diagnosis:
    """What a configuration needs.

    Attributes:
        config: its file.
        findings: data, weights, tokenizer and run folder.
        memory: of one process at its peak; None where nobody knows how much data there is.
        scale: what the memory was reckoned for, and whether it was counted or is the official size.
        counted: as said.
        free: bytes free in main memory and on the device.
        processes: of the run.
        todo: what to do, in order; the last one starts the run.
        ready: whether the run can start now.
    """

    config: str
    findings: tuple[Finding, ...]
    memory: MemoryPlan | None
    scale: Scale | None
    counted: bool
    free: tuple[int | None, int | None]
    processes: int
    todo: tuple[str, ...]
    ready: bool

    def to_json(self) -> dict[str, Any]:
        """A tree of JSON values."""
        return {**asdict(self), "memory": None if self.memory is None else self.memory.to_json()}


def look_around() -> Environment:
    """The environment; nothing is changed, no device is touched beyond asking for its memory."""
    here = torch.device("cpu")
    devices = [Device("cpu", environment.machine(here), _main_memory(), environment.free_memory(here))]
    for number in range(torch.cuda.device_count()):
        free, total = torch.cuda.mem_get_info(number)
        devices.append(Device(f"cuda:{number}", torch.cuda.get_device_name(number), total, free))
    return Environment(
        tipr=metadata.version("tipr"),
        python=platform.python_version(),
        torch=torch.__version__,
        system=platform.platform(),
        threads=torch.get_num_threads(),
        cores=os.cpu_count() or 1,
        devices=tuple(devices),
        extras=tuple(
            Extra(
                name, purpose, tuple(each for each in packages if not _installed(each)), f'pip install "tipr[{name}]"'
            )
            for name, (purpose, packages) in EXTRAS.items()
        ),
    )


def examine(path: Path, *, device: str | None = None) -> Diagnosis:
    """What a configuration needs, what of it is there, and what to do next.

    Args:
        path: the YAML file.
        device: "cpu" or "cuda" instead of what the configuration says; it need not be here.

    Raises:
        ConfigError: the file is not there or not valid.
    """
    overrides = [] if device is None else [f"device={device}"]
    config = configuration.load(path, RunConfig, overrides=overrides)
    data, scale = _data(config, path)
    findings = [data, *_weights(config, path), *_tokenizer(config, path), _run_folder(config)]
    counted = scale is not None
    scale = scale or published_scale(config)
    kind = config.device.partition(":")[0]
    if kind == "auto":
        kind = "cuda" if torch.cuda.is_available() else "cpu"
    memory = None if scale is None else plan_memory(config, scale, device=kind)
    free: tuple[int | None, int | None] = environment.free_memory(torch.device("cpu")), None
    if kind == "cuda" and torch.cuda.is_available():
        used = config.device if ":" in config.device else "cuda"
        free = free[0], environment.free_memory(torch.device(used))
    todo = [finding.todo for finding in findings if not finding.found]

    def in_parts(part: int) -> MemoryPlan:
        assert scale is not None
        return plan_memory(_with_parts(config, part), scale, device=kind)

    short = [] if memory is None else _too_much(config, memory, free, in_parts)
    start = f"tipr train {shlex.quote(str(path))}" + ("" if device is None else f" --device {device}")
    missing = [extra for extra in look_around().extras if extra.name == "train" and extra.missing]
    todo = [*(extra.install for extra in missing), *todo, *short]
    return Diagnosis(
        config=str(path),
        findings=tuple(findings),
        memory=memory,
        scale=scale,
        counted=counted,
        free=free,
        processes=config.processes,
        todo=(*todo, start),
        ready=not todo,
    )


def _data(config: RunConfig, path: Path) -> tuple[Finding, Scale | None]:
    name, root = config.data.dataset, config.data.root
    facts = DATASETS[name].facts
    try:
        scale = scale_of(config)
    except DatasetError as error:
        if root.exists():
            todo = f"tipr data check {name} {shlex.quote(str(root))}"
            return Finding("data", str(root), False, str(error), todo), None
        if name == "synthetic":
            preset = root.name if root.name in PRESETS else "standard"
            todo = _how_to_get(str(root), path) or f"tipr data synth {shlex.quote(str(root))} --preset {preset}"
        elif facts.request:
            todo = f"put {facts.title} at {root} (asked for at {facts.request})"
        else:
            todo = f"put a {name} at {root} (docs/{name}.md)"
        return Finding("data", str(root), False, "not there", todo), None
    note = f"{facts.title}: {scale.pairs:,} training pairs, {scale.images:,} images, {scale.identities:,} people"
    note += f"; {scale.missing_images:,} training images are missing and left out" if scale.missing_images else ""
    return Finding("data", str(root), True, note), scale


def _weights(config: RunConfig, path: Path) -> list[Finding]:
    start = config.start_from
    if start is None:
        return []
    try:
        folder = model_folder(start)
    except WeightsError as error:
        return [
            Finding("weights", start, False, str(error), _how_to_get(start, path) or f"make the model folder {start}")
        ]
    return [Finding("weights", start, True, f"model folder {folder}")]


def _tokenizer(config: RunConfig, path: Path) -> list[Finding]:
    settings = config.tokenizer
    if config.start_from is not None:
        return []  # it comes with the weights
    if isinstance(settings, ClipTokenizerConfig):
        file = settings.vocabulary
    elif isinstance(settings, XlmrTokenizerConfig):
        file = settings.path
    else:
        return []
    found = file.exists()
    todo = "" if found else _how_to_get(str(file), path) or f"put the vocabulary at {file}"
    return [Finding("vocabulary", str(file), found, "there" if found else "not there", todo)]


def _run_folder(config: RunConfig) -> Finding:
    if any((config.out / CHECKPOINTS).glob("step-*.pt")):
        resume = f"tipr train --resume {shlex.quote(str(config.out))}"
        return Finding(
            "run folder", str(config.out), False, "holds a run already", f"{resume}, or choose another --out"
        )
    return Finding("run folder", str(config.out), True, "free")


def _how_to_get(wanted: str, path: Path) -> str:
    """The command that makes what is wanted: of a recipe beside this one that ends there, or from its own comments."""
    for other in sorted(path.parent.glob("*.yaml")):
        try:
            tree = yaml.safe_load(other.read_text(encoding="utf-8"))
        except (OSError, ValueError, yaml.YAMLError):
            continue
        out = tree.get("out") if isinstance(tree, dict) else None
        if isinstance(out, str) and other != path and Path(wanted).is_relative_to(out):
            return f"tipr train {shlex.quote(str(other))}"
    for line in path.read_text(encoding="utf-8").splitlines():
        command = re.search(r"tipr (?:import|data synth) .+", line) if line.startswith("#") else None
        if command is not None and wanted in command[0].split():
            return command[0]
    return ""


def _with_parts(config: RunConfig, part: int) -> RunConfig:
    return config.model_copy(update={"data": config.data.model_copy(update={"micro_batch": part})})


def _too_much(
    config: RunConfig,
    memory: MemoryPlan,
    free: tuple[int | None, int | None],
    in_parts: Callable[[int], MemoryPlan],
) -> list[str]:
    """What to change where the memory that is free does not suffice; `in_parts` rehearses a `data.micro_batch`."""
    main, device = free
    changes = []
    processes = config.processes if memory.device == "cpu" else 1
    step_short = device is not None and memory.on_device > device
    over = 0 if main is None else processes * memory.main - main
    if over > 0 and over <= memory.images:
        changes.append("set data.memory_gib=0 (images are read anew each epoch), or data.pack (tipr data pack)")
    elif over > 0 and memory.device == "cpu":
        step_short = True
    elif over > 0:
        changes.append("set data.memory_gib=0 and a smaller data.workers")
    if step_short:
        whole = config.data.micro_batch or config.data.batch_size
        on_cpu = memory.device == "cpu"
        room = (main if on_cpu else device) or 0
        for part in dict.fromkeys(max(1, whole // divisor) for divisor in DIVISORS):
            smaller = in_parts(part)
            needed = processes * smaller.main if on_cpu else smaller.on_device
            if needed <= room:
                changes.append(f"set data.micro_batch={part} (the same batch, its activations in parts)")
                break
        else:
            changes.append(
                f"find more memory: with data.micro_batch={part} it is {needed / GIB:.1f} GiB still; a smaller "
                "data.batch_size needs less and is another recipe (docs/training.md)"
            )
    return changes


def _main_memory() -> int | None:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (OSError, ValueError):
        return None


def _installed(distribution: str) -> bool:
    try:
        metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return False
    return True
