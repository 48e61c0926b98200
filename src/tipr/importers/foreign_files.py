"""Foreign weight files -> plain tensors. Nothing in a file is ever executed, and a confined child process reads it.

A pickle is read with `weights_only=True`, a TorchScript archive through `torch.jit.load(...).state_dict()` without
calling a method, and both in a process that has no network, starts no program, opens no file for writing and has
bounded memory and time: two walls, because the first has had holes before.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path
from typing import Literal

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from tipr.errors import WeightsError

Tensors = dict[str, Tensor]
Kind = Literal["pickle", "torchscript", "safetensors"]

ALLOWANCE = 1 << 30
"""Bytes of memory that reading takes besides the file's own size."""
COPIES = 2
"""Times a file's size that reading it may need: the tensors, and what they are unpacked from."""
SECONDS = 60
BYTES_PER_SECOND = 50_000_000
"""A slow disk; the time limit grows with the file."""


def read_tensors(path: Path, *, unconfined: bool = False) -> Tensors:
    """Read a checkpoint: a state dict, or a mapping that holds one under `model` or `state_dict`.

    Every name loses its `module.` prefix when all of them have it (checkpoints saved from data-parallel training).

    Args:
        path: a pickle of torch, a TorchScript archive or a safetensors file; told apart by content.
        unconfined: read it in an ordinary child process, where the kernel offers no confinement.

    Raises:
        WeightsError: the file is missing, is not a checkpoint, holds more than plain tensors and numbers, needs more
            memory or time than its size explains, or this machine cannot confine a process.
    """
    try:
        size = path.stat().st_size
        kind = kind_of(path)
    except FileNotFoundError:
        raise WeightsError(f"no checkpoint at {path}") from None
    except OSError as error:
        raise WeightsError(f"cannot read {path}: {error.strerror}") from None
    seconds = SECONDS + size // BYTES_PER_SECOND
    request = {
        "package": str(Path(__file__).resolve().parents[2]),
        "path": str(path.resolve()),
        "kind": kind,
        "memory": COPIES * size + ALLOWANCE,
        "seconds": seconds,
        "confined": not unconfined,
    }
    with tempfile.TemporaryFile(prefix="tipr-") as stream:
        _ask(path, {**request, "descriptor": stream.fileno()}, patience=2 * seconds)
        try:
            return load_file(f"/proc/self/fd/{stream.fileno()}")
        except (SafetensorError, OSError, ValueError) as error:
            raise WeightsError(f"{path} gave no tensors: {' '.join(str(error).split())[:200]}") from None


def kind_of(path: Path) -> Kind:
    """What a weight file is, by its content; "pickle" for everything that is nothing else.

    Raises:
        OSError: it cannot be opened.
    """
    with path.open("rb") as stream:
        head = stream.read(9)
    if head[8:9] == b"{" and int.from_bytes(head[:8], "little") < path.stat().st_size:
        return "safetensors"
    try:
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                if any(name.endswith("/constants.pkl") for name in archive.namelist()):
                    return "torchscript"
    except (zipfile.BadZipFile, ValueError, NotImplementedError):
        return "pickle"  # refused when it is read
    return "pickle"


def _ask(path: Path, request: dict[str, object], *, patience: int) -> None:
    """Let the child read.

    Raises:
        WeightsError: it did not.
    """
    reader = Path(__file__).with_name("foreign_reader.py")
    descriptor = request["descriptor"]
    assert isinstance(descriptor, int)
    try:
        child = subprocess.run(
            [sys.executable, "-I", str(reader)],
            input=json.dumps(request),
            capture_output=True,
            text=True,
            check=False,
            pass_fds=[descriptor],
            timeout=patience,
            env={"OMP_NUM_THREADS": "1"},
        )
    except subprocess.TimeoutExpired:
        raise WeightsError(f"{path} takes more than {patience} s to read: refused") from None
    try:
        answer = json.loads(child.stdout)
        kind, why = str(answer["kind"]), str(answer.get("why", ""))
    except (ValueError, KeyError, TypeError):
        raise WeightsError(
            f"{path} stopped the process that read it (exit code {child.returncode}): damaged or hostile, refused"
        ) from None
    if kind == "unconfined":
        raise WeightsError(
            f"cannot read {path} safely: {why}; --unconfined (unconfined=True) reads it all the same, if you trust it"
        )
    if kind != "done":
        raise WeightsError(f"{path} {why}")
