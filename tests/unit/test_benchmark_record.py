"""The published sets: the documentation, the recorded file and what the program makes today agree."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from tipr.data.synthetic.benchmark import build, read_info
from tipr.data.synthetic.presets import PRESETS

ROOT = Path(__file__).parents[2]
RECORD = json.loads((ROOT / "benchmarks" / "results" / "synthetic_sets.json").read_text(encoding="utf-8"))["sets"]


def test_documentation_quotes_the_record() -> None:
    page = (ROOT / "docs" / "benchmark.md").read_text(encoding="utf-8")
    for name, row in RECORD.items():
        r = row["reference_reader"]
        scores = " / ".join(f"{r[key]:.1f}" for key in ("recall_1", "recall_5", "recall_10", "mean_ap", "mean_inp"))
        line = f"| `{name}` | `{row['manifest_sha256']}` | {r['gallery']:,} | {scores} | {r['chance_recall_1']:.2f} |"
        assert line in page
    for name in PRESETS.keys() - RECORD.keys():
        assert f"| `{name}` | not recorded yet |" in page


@pytest.mark.parametrize("name", ["tiny", "demo", pytest.param("standard", marks=pytest.mark.slow)])
def test_a_published_set_is_still_made_as_recorded(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    grey = np.full((8, 8, 3), 128, dtype=np.uint8)  # the manifest does not depend on the pictures
    monkeypatch.setattr("tipr.data.synthetic.benchmark.render", lambda *_, **__: grey)
    build(tmp_path / name, PRESETS[name])
    info = read_info(tmp_path / name)
    for key in ("manifest_sha256", "paraphrase_sha256", "reference_reader", "splits"):
        assert info[key] == RECORD[name][key], f"{key}: a published set has changed; record it anew as a new version"
