"""What a method recorded of every pair, one file an epoch: `relations/epoch-001.npz` below the run folder."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tipr.training.checkpoint import reported

RELATIONS = "relations"
"""Folder below the run folder."""
NAME = re.compile(r"epoch-(\d+)\.npz")


def save(run_folder: Path, epoch: int, arrays: Mapping[str, NDArray[Any]]) -> None:
    """Write the arrays of an epoch, whole or not at all; a file of an earlier try is replaced.

    Args:
        run_folder: of the run.
        epoch: from 1.
        arrays: by name, as in `EpochReport`.

    Raises:
        TrainingError: disk full or not writable.
    """
    folder = run_folder / RELATIONS
    with reported(run_folder, "write the relations"):
        folder.mkdir(exist_ok=True)
        draft = folder / f".epoch-{epoch:03d}.partial"
        with draft.open("wb") as stream:
            np.savez_compressed(stream, **arrays)  # type: ignore[arg-type]
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(draft, folder / f"epoch-{epoch:03d}.npz")


def epochs(run_folder: Path) -> dict[int, Path]:
    """The recorded epochs and their files, rising; none where nothing was recorded."""
    found = ((NAME.fullmatch(path.name), path) for path in (run_folder / RELATIONS).glob("*.npz"))
    return dict(sorted((int(name.group(1)), path) for name, path in found if name))


def forget(run_folder: Path, *, after: int) -> None:
    """Remove what epochs later than `after` left behind: a resumed run makes them again."""
    with reported(run_folder, "clear the relations"):
        for epoch, path in epochs(run_folder).items():
            if epoch > after:
                path.unlink()
