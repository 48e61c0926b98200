"""The run's diary: `metrics.jsonl`, TensorBoard events, and the one word in `status`."""

from __future__ import annotations

import json
import os
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from tipr.training.checkpoint import reported

METRICS = "metrics.jsonl"
STATUS = "status"


class Journal:
    """Appends one JSON object a line, and the same numbers as TensorBoard events where TensorBoard is installed.

    Every entry has `step`. What a resumed run will write again is cut off, so nothing occurs twice: entries beyond the
    step that it resumes from, and those about epochs that were not closed when its checkpoint was written.

    Args:
        folder: the run folder.
        resume_step: optimiser steps done by the checkpoint that the run goes on from; 0 for a new run.
        closed_epoch: last epoch that this checkpoint has seen the end of; None: any.

    Attributes:
        note: a sentence when TensorBoard is absent, else None.

    Raises:
        TrainingError: the folder cannot be written.
    """

    def __init__(self, folder: Path, *, resume_step: int = 0, closed_epoch: int | None = None) -> None:
        self.folder = folder
        self.note: str | None = None
        with reported(folder, "write the journal"):
            _cut(folder / METRICS, resume_step, closed_epoch)
            self._stream = (folder / METRICS).open("a", encoding="utf-8")
        self._events: Any = None
        try:
            from torch.utils.tensorboard.writer import SummaryWriter
        except ImportError:
            self.note = 'TensorBoard is not installed: no events are written (pip install "tipr[train]")'
        else:
            with reported(folder, "write TensorBoard events"):
                self._events = SummaryWriter(str(folder / "tb"), purge_step=resume_step + 1 if resume_step else None)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stream.close()
        if self._events is not None:
            self._events.close()

    def write(self, kind: str, step: int, values: dict[str, Any]) -> None:
        """Append an entry and flush it.

        Args:
            kind: "train", or about a whole epoch, which `values` then name: "epoch" or "scores".
            step: optimiser steps done.
            values: numbers, or mappings of numbers, by name.

        Raises:
            TrainingError: disk full.
        """
        with reported(self.folder, "write the journal"):
            self._stream.write(json.dumps({"kind": kind, "step": step, **values}) + "\n")
            self._stream.flush()
            if self._events is not None:
                for name, number in _flat(values):
                    self._events.add_scalar(f"{kind}/{name}", number, step)

    def sync(self) -> None:
        """Bring everything written so far to the disk."""
        with reported(self.folder, "write the journal"):
            os.fsync(self._stream.fileno())
            if self._events is not None:
                self._events.flush()


def read(folder: Path) -> list[dict[str, Any]]:
    """The entries of a run, in order."""
    path = folder / METRICS
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] if path.is_file() else []


def set_status(folder: Path, status: str) -> None:
    """Write one line that says how the run stands: running, done, interrupted, or failed: why."""
    with reported(folder, "write the status"):
        draft = folder / f".{STATUS}"
        draft.write_text(status + "\n", encoding="utf-8")
        os.replace(draft, folder / STATUS)


def _cut(path: Path, step: int, closed_epoch: int | None) -> None:
    """Keep the whole lines up to a step and of closed epochs; a line torn by a kill goes too."""
    if not path.is_file():
        return
    kept = []
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            entry = json.loads(line)
        except ValueError:
            continue
        about_epoch = closed_epoch is not None and entry["kind"] != "train"
        if entry["step"] <= step and not (about_epoch and entry["epoch"] > closed_epoch):
            kept.append(line + "\n")
    draft = path.with_name(path.name + ".partial")
    draft.write_text("".join(kept), encoding="utf-8")
    os.replace(draft, path)


def _flat(values: dict[str, Any], prefix: str = "") -> list[tuple[str, float]]:
    """Nested numbers as `outer/inner` names."""
    flat: list[tuple[str, float]] = []
    for name, value in values.items():
        if isinstance(value, dict):
            flat += _flat(value, f"{prefix}{name}/")
        elif isinstance(value, int | float) and not isinstance(value, bool):
            flat.append((prefix + name, float(value)))
    return flat
