"""What a training run wrote down about its steps, as lines of a chart."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from tipr.report.content import Series

POINTS = 120
"""Points of a line at most; more steps are averaged in runs of equal length."""


def training_series(entries: Sequence[Mapping[str, Any]]) -> tuple[Series, ...]:
    """The sum of the losses, each loss, the learning rate, the speed, and what the method logs.

    Args:
        entries: of the journal, `tipr.training.journal.read`.
    """
    steps = [entry for entry in entries if entry["kind"] == "train"]
    lines: dict[str, list[tuple[float, float]]] = {}

    def add(name: str, step: float, value: object) -> None:
        if isinstance(value, int | float) and np.isfinite(value):
            lines.setdefault(name, []).append((step, float(value)))

    for entry in steps:
        step, losses = float(entry["step"]), entry["losses"]
        if len(losses) > 1:
            add("loss", step, sum(losses.values()))
        for name, value in losses.items():
            add(f"loss {name}" if len(losses) > 1 else f"loss ({name})", step, value)
        for name, value in (entry.get("logs") or {}).items():
            add(name.replace("_", " "), step, value)
        add("learning rate", step, entry.get("lr"))
        add("samples a second", step, entry.get("samples_per_second"))
    for entry in entries:
        for name, value in (entry.get("logs") or {}).items() if entry["kind"] == "epoch" else ():
            add(name.replace("_", " "), float(entry["step"]), value)
    return tuple(_series(name, points) for name, points in lines.items() if len(points) > 1)


def _series(name: str, points: Sequence[tuple[float, float]]) -> Series:
    parts = np.array_split(np.array(points), min(POINTS, len(points)))
    means = np.stack([part.mean(axis=0) for part in parts])
    return Series(name, tuple(means[:, 0].tolist()), tuple(means[:, 1].tolist()))
