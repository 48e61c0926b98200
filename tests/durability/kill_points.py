"""The named points of add, update, remove, compact and erase at which a process can be made to kill itself."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from functools import wraps
from typing import Any

import lance
from lance.optimize import Compaction

from tipr.gallery import digests, durable, table_files

Hook = tuple[Any, str, str]
"""Where a function lies, its name, and whether to die before or after it."""

POINTS: dict[str, Hook] = {
    "before rows are written": (lance.fragment, "write_fragments", "before"),
    "rows written": (lance.fragment, "write_fragments", "after"),
    "before a file is synced": (table_files, "_sync", "before"),
    "file synced": (table_files, "_sync", "after"),
    "before a commit": (lance.LanceDataset, "commit", "before"),
    "commit done": (lance.LanceDataset, "commit", "after"),
    "before rows are hidden": (lance.LanceFragment, "delete", "before"),
    "hidden rows written": (lance.LanceFragment, "delete", "after"),
    "before a merge": (Compaction, "plan", "before"),
    "merged pieces written": (Compaction, "commit", "before"),
    "merge done": (Compaction, "commit", "after"),
    "before old versions go": (lance.LanceDataset, "cleanup_old_versions", "before"),
    "old versions gone": (lance.LanceDataset, "cleanup_old_versions", "after"),
    "before digests": (digests, "note", "before"),
    "half a line of digests": (digests, "note", "half"),
    "digests noted": (digests, "note", "after"),
    "before digests are pruned": (digests, "prune", "before"),
    "digests pruned": (digests, "prune", "after"),
    "before a small file": (durable, "write_text", "before"),
    "draft of a small file": (os, "replace", "before"),
    "small file replaced": (os, "replace", "after"),
    "before a note goes": (durable, "remove", "before"),
    "note gone": (durable, "remove", "after"),
}
NEEDS: dict[str, tuple[str, ...]] = {
    "before rows are hidden": ("remove", "erase", "update"),
    "hidden rows written": ("remove", "erase", "update"),
    "before a merge": ("compact", "remove"),
    "merged pieces written": ("compact", "remove", "update"),
    "merge done": ("compact", "remove", "update"),
    "before old versions go": ("compact", "remove", "erase"),
    "old versions gone": ("compact", "remove", "erase"),
    "before digests are pruned": ("remove", "erase", "update"),
    "digests pruned": ("remove", "erase", "update"),
    "before a small file": ("remove", "erase", "update"),
    "draft of a small file": ("remove", "erase", "update"),
    "small file replaced": ("remove", "erase", "update"),
    "before a note goes": ("remove", "erase", "update"),
    "note gone": ("remove", "erase", "update"),
}
"""Points that an addition does not pass, and the changes that do."""


def arm(point: str, nth: int, act: Callable[[], None] | None = None) -> Callable[[], None]:
    """Kill this process, or call `act`, at the nth passing of a point; returns what disarms it."""
    home, name, when = POINTS[point]
    original = getattr(home, name)
    raw = home.__dict__.get(name, original)
    passed = 0

    def due() -> None:
        nonlocal passed
        passed += 1
        if passed == nth:
            die() if act is None else act()

    @wraps(original)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        if when == "before":
            due()
        if when == "half" and passed + 1 == nth:
            folder, noted = args[0], args[1]
            with open(folder / digests.NAME, "ab") as file:
                line = digests._line(noted)
                file.write(line[: len(line) // 2])
        if when == "half":
            due()
        result = original(*args, **kwargs)
        if when == "after":
            due()
        return result

    setattr(home, name, staticmethod(wrapper) if isinstance(raw, staticmethod) else wrapper)
    return lambda: setattr(home, name, raw)


def die() -> None:
    """As `kill -9`."""
    os.kill(os.getpid(), signal.SIGKILL)
