"""Manifests as CSV, Parquet and COCO-style JSON say the same as JSON Lines, and are as strict."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest

from tipr.data.datasets.manifest_dataset import read_manifest_file
from tipr.data.manifest import Caption, Record, format_record, write_manifest
from tipr.errors import DatasetError

RECORDS = (
    Record(
        "images/a.jpg",
        (Caption("en", 'A man, in a "red" coat.'), Caption("de", "Ein Mann; im Mantel.")),
        identity=7,
        camera="gate",
        time="2026-03-01T08:30:00Z",
        split="train",
        tags=("indoor", "night"),
    ),
    Record("images/b.jpg", (), identity="anna", split="test"),
    Record("images/c.jpg", (Caption("zh", "一个人"),), box=(1.0, 2.0, 3.0, 4.5), split="test"),
)
HEAD = "image,caption,language,identity,camera,time,split,tags,box"
CSV = f"""{HEAD}
images/a.jpg,"A man, in a ""red"" coat.",en,7,gate,2026-03-01T08:30:00Z,train,indoor;night,
images/b.jpg,,,anna,,,test,,
images/c.jpg,一个人,zh,,,,test,,1 2 3 4.5
images/a.jpg,Ein Mann; im Mantel.,de,7,gate,2026-03-01T08:30:00Z,train,indoor;night,
"""


def read(path: Path) -> tuple[Record, ...]:
    return read_manifest_file(path).records


def test_csv_rows_of_one_image_are_one_record(tmp_path: Path) -> None:
    path = tmp_path / "people.csv"
    path.write_text("﻿" + CSV, encoding="utf-8")
    assert read(path) == RECORDS
    assert read_manifest_file(path).lines == (2, 3, 4)
    for sign in (";", "\t"):
        other = tmp_path / f"other{ord(sign)}.csv"
        quoted = CSV.replace("Ein Mann; im Mantel.", '"Ein Mann; im Mantel."').replace("indoor;night", '"indoor;night"')
        other.write_text(
            quoted.replace("A man, in", "A man| in").replace(",", sign).replace("|", ","), encoding="utf-8"
        )
        assert read(other) == RECORDS


def test_csv_may_have_a_column_for_each_language(tmp_path: Path) -> None:
    path = tmp_path / "manifest.csv"
    path.write_text("image,caption_en,caption_fr,identity\na.jpg,one,un,3\nb.jpg,two,,4\n", encoding="utf-8")
    assert read(path) == (
        Record("a.jpg", (Caption("en", "one"), Caption("fr", "un")), identity=3),
        Record("b.jpg", (Caption("en", "two"),), identity=4),
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("image,colour\na.jpg,red\n", "unknown column 'colour'; allowed: image, captions, identity"),
        ("caption\nx\n", "the column image is missing"),
        ("image,image\na.jpg,b.jpg\n", "the column image is there twice"),
        ("image,caption\na.jpg\n", ":2: a row must have as many cells as the first one"),
        ("image,caption\na.jpg,x,y\n", ":2: a row must have as many cells"),
        ("image,split\na.jpg,dev\n", ":2: split: unknown split 'dev'"),
        ("image,caption,language\na.jpg,x,ch\n", ":2: captions: item 0: unknown language 'ch'"),
        ("image,box\na.jpg,1 2 3\n", ":2: box: must be"),
        ("image,box\na.jpg,here\n", ":2: box: must be"),
        ("image,captions\na.jpg,a man\n", ":2: captions: must be a JSON list"),
        ("image\n../a.jpg\n", ":2: image: '../a.jpg' must be a relative path"),
        ("image,caption,identity\na.jpg,x,1\nb.jpg,y,1\na.jpg,z,2\n", ":4: a.jpg stands in line 2 with other values"),
        ('image,caption\na.jpg,"x\n', "not CSV"),
        ("", "the column image is missing"),
    ],
)
def test_csv_is_strict(text: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "manifest.csv"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(DatasetError) as caught:
        read(path)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_parquet_reads_lists_structs_and_plain_columns(tmp_path: Path) -> None:
    trees = [json.loads(format_record(record)) for record in RECORDS[:2]]
    trees[1]["identity"] = "anna"
    trees[0]["identity"] = "7"
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(trees), tmp_path / "manifest.parquet")
    assert read(tmp_path / "manifest.parquet") == RECORDS[:2]
    rows = [{"image": "a.jpg", "captions": ["one", "two"], "identity": 3, "box": [1.0, 2.0, 3.0, 4.0]}]
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / "b.parquet")
    captions = (Caption("en", "one"), Caption("en", "two"))
    assert read(tmp_path / "b.parquet") == (Record("a.jpg", captions, identity=3, box=(1.0, 2.0, 3.0, 4.0)),)
    (tmp_path / "c.parquet").write_bytes(b"PAR1 nothing")
    with pytest.raises(DatasetError, match=r"cannot read manifest .*c\.parquet") as caught:
        read(tmp_path / "c.parquet")
    assert "\n" not in str(caught.value)


COCO: dict[str, Any] = {
    "images": [
        {"id": 1, "file_name": "a.jpg", "width": 9, "height": 9, "camera": "gate", "split": "test"},
        {"id": 2, "file_name": "b.jpg", "person_id": 5},
    ],
    "annotations": [
        {"id": 10, "image_id": 1, "bbox": [1, 2, 3, 4], "person_id": 8, "caption": "a red coat"},
        {"id": 11, "image_id": 1, "bbox": [5, 2, 3, 4], "person_id": 9, "category_id": 1},
        {"id": 12, "image_id": 2, "caption": "one"},
        {"id": 13, "image_id": 2, "caption": "un", "language": "fr"},
    ],
    "categories": [{"id": 1, "name": "person"}],
}


def test_coco_boxes_are_people_and_captions_belong_to_images(tmp_path: Path) -> None:
    path = tmp_path / "manifest.json"
    path.write_text(json.dumps(COCO), encoding="utf-8")
    assert read(path) == (
        Record("a.jpg", (Caption("en", "a red coat"),), identity=8, camera="gate", box=(1, 2, 3, 4), split="test"),
        Record("a.jpg", (), identity=9, camera="gate", box=(5, 2, 3, 4), split="test"),
        Record("b.jpg", (Caption("en", "one"), Caption("fr", "un")), identity=5),
    )


@pytest.mark.parametrize(
    ("tree", "message"),
    [
        ([], "a COCO-style manifest is an object with the lists images and annotations"),
        ({"images": [{"file_name": "a.jpg"}]}, "images 1: id: must be an integer or a string"),
        ({"images": [{"id": 1}]}, "images 1: image: must be a string, not null"),
        ({"images": [{"id": 1, "file_name": "a"}, {"id": 1, "file_name": "b"}]}, "two images have one id"),
        (
            {"images": [{"id": 1, "file_name": "a"}], "annotations": [{"image_id": 3, "caption": "x"}]},
            "1 image_id of annotations are no id of images, first 3",
        ),
        (
            {"images": [{"id": 1, "file_name": "a"}], "annotations": [{"image_id": 1, "bbox": [0, 0, 0, 0]}]},
            "images 1: box: must be",
        ),
    ],
)
def test_coco_is_strict(tree: Any, message: str, tmp_path: Path) -> None:
    path = tmp_path / "manifest.json"
    path.write_text(json.dumps(tree), encoding="utf-8")
    with pytest.raises(DatasetError) as caught:
        read(path)
    assert message in str(caught.value)


def test_a_folder_is_read_by_the_manifest_that_lies_there(tmp_path: Path) -> None:
    from tipr.data.datasets import DATASETS

    (tmp_path / "manifest.csv").write_text("image,caption\na.jpg,one\n")
    assert DATASETS["manifest"].read(tmp_path).records[0].captions[0].text == "one"
    write_manifest(tmp_path / "manifest.jsonl", [Record("b.jpg")])
    assert DATASETS["manifest"].read(tmp_path).records[0].image == "b.jpg"
    assert DATASETS["manifest"].read(tmp_path / "manifest.csv").records[0].image == "a.jpg"
