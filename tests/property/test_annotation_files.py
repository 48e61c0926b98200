"""Whatever an annotation file holds, reading ends with records and counted problems, or with one line."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from tipr.data.check import check_dataset
from tipr.data.datasets import DATASETS
from tipr.data.manifest import format_record, parse_record
from tipr.errors import DatasetError

TEXT = st.text(st.characters(), max_size=12)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=4,
)
RECORDS = st.fixed_dictionaries(
    {},
    optional={
        "file_path": st.sampled_from(["cam_a/1.jpg", "cam_a/2.jpg", "../1.jpg", "C:\\x\\1.jpg"]) | TEXT | VALUES,
        "id": st.integers(0, 3) | VALUES,
        "image_id": VALUES,
        "captions": st.lists(TEXT, max_size=3) | VALUES,
        "split": st.sampled_from(["train", "Val", "TEST"]) | VALUES,
    },
)
TREES = st.lists(RECORDS | VALUES, max_size=6) | st.dictionaries(
    st.sampled_from(["train", "test", "annotations", "images"]), st.lists(RECORDS, max_size=3) | VALUES, max_size=2
)


@settings(max_examples=100, deadline=None)
@given(TREES, st.sampled_from(["cuhk_pedes", "cuhk_pedes_m"]))
def test_no_tree_breaks_the_reader(tree: Any, name: str) -> None:
    file = "reid_raw.json" if name == "cuhk_pedes" else "annos/train_reid_en.json"
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / file
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps(tree), encoding="utf-8")
        report = check_dataset(DATASETS[name], folder, decode=False)
        assert "\n" not in report.line()
        json.dumps(report.to_json())
        try:
            reading = DATASETS[name].read(folder)
        except DatasetError:
            assert report.verdict == "unusable"
            return
        for record in reading.records:
            assert parse_record(format_record(record), source="x") == record
            format_record(record).encode("utf-8")
        if any(problem.level == "error" for problem in reading.problems):
            assert report.verdict == "unusable"
