"""The reference reader's score of a synthetic set, as its `benchmark.json` recorded it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tipr.evaluation.results import Score


def reference_score(root: Path) -> Score | None:
    """The score of the reader without pixels on the test split; None where none was recorded.

    A missing or foreign file is no error: the table has a row less, and no score depends on it.
    """
    try:
        values: Any = json.loads((root / "benchmark.json").read_text(encoding="utf-8"))["reference_reader"]
        return Score(
            recall={k: float(values[f"recall_{k}"]) for k in (1, 5, 10)},
            mean_ap=float(values["mean_ap"]),
            mean_inp=float(values["mean_inp"]),
            queries=int(values["queries"]),
            gallery=int(values["gallery"]),
        )
    except (OSError, ValueError, KeyError, TypeError):
        return None
