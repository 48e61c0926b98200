"""Checkpoints that are whole or not there: written aside, flushed, named by their own digest, then renamed.

The name holds the first 16 hexadecimal digits of the file's SHA-256, so a torn or damaged file is noticed before it is
read, and the one before it is used. Reading never unpickles more than tensors and plain values.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import pickle
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from tipr.errors import TrainingError

NAME = re.compile(r"step-(\d{9})-([0-9a-f]{16})\.pt")
PARTIAL = ".partial"


def save(folder: Path, state: dict[str, Any], *, step: int, keep: int) -> Path:
    """Write a checkpoint and drop all but the newest `keep`.

    Args:
        folder: created where needed.
        state: tensors and plain values, nested in dicts, lists and tuples.
        step: optimiser steps done.
        keep: how many stay, at least 1.

    Returns:
        the file.

    Raises:
        TrainingError: disk full or folder not writable; the checkpoints before are as they were.
    """
    draft = folder / f"step-{step:09d}{PARTIAL}"
    with reported(folder, "write a checkpoint"):
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with draft.open("wb") as stream:
                _write(state, stream)
                stream.flush()
                os.fsync(stream.fileno())
            path = folder / f"step-{step:09d}-{_digest(draft)}.pt"
            os.replace(draft, path)
            sync(folder)
        except BaseException:
            with contextlib.suppress(OSError):
                draft.unlink(missing_ok=True)
            raise
        for old in [each for each in newest_first(folder) if each != path][keep - 1 :]:
            old.unlink(missing_ok=True)
        for torn in folder.glob(f"*{PARTIAL}"):
            torn.unlink(missing_ok=True)
    return path


def load_latest(folder: Path) -> tuple[dict[str, Any], Path, list[Path]]:
    """The newest checkpoint that is whole.

    Returns:
        its state, its file, and the newer files that were passed over as damaged.

    Raises:
        TrainingError: there is none.
    """
    damaged: list[Path] = []
    for path in newest_first(folder):
        state = _read(path)
        if state is not None:
            return state, path, damaged
        damaged.append(path)
    among = f" ({len(damaged)} damaged)" if damaged else ""
    raise TrainingError(f"no usable checkpoint in {folder}{among}: start the run anew")


def newest_first(folder: Path) -> list[Path]:
    """Finished checkpoint files, by step, newest first."""
    names = [path for path in folder.glob("step-*.pt") if NAME.fullmatch(path.name)] if folder.is_dir() else []
    return sorted(names, key=lambda path: (path.name.split("-")[1], path.stat().st_mtime_ns), reverse=True)


def sync(folder: Path) -> None:
    """Make the names in a folder durable."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextlib.contextmanager
def reported(folder: Path, action: str) -> Iterator[None]:
    """Turn an `OSError` inside into one line that says what could not be done where."""
    try:
        yield
    except OSError as error:
        reason = error.strerror or str(error)
        raise TrainingError(
            f"cannot {action} in {folder}: {reason}; what was there before is intact, resume when there is room"
        ) from None


def _write(state: dict[str, Any], stream: Any) -> None:
    try:
        torch.save(state, stream)
    except RuntimeError as error:
        # torch's zip writer answers a failed write with a second error of its own; the first is the reason
        if isinstance(error.__context__, OSError):
            raise error.__context__ from None
        raise


def _digest(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()[:16]


def _read(path: Path) -> dict[str, Any] | None:
    name = NAME.fullmatch(path.name)
    if name is None or _digest(path) != name.group(2):
        return None
    try:
        state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:
        return None  # whole, but not ours: it asks for more than tensors and plain values
    return state
