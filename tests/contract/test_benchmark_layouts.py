"""Every layout of a benchmark that is in circulation gives the same split; every defect is named."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import benchmark_copies as copies
import pytest
from benchmark_copies import Entry, write_json

from tipr.data.datasets import DATASETS
from tipr.data.samples import Split, SplitMissing
from tipr.errors import DatasetError

Content = list[tuple[str, int, tuple[str, ...]]]
SPLITS = ("train", "val", "test")


def content(split: Split) -> Content:
    """Name of each image, who is shown (counted inside the split) and its captions."""
    captions: dict[int, list[str]] = {}
    for sample in split.samples:
        captions.setdefault(sample.image_id, []).append(sample.caption)
    return [
        (path.stem.casefold(), int(split.image_identity[place]), tuple(captions[place]))
        for place, path in enumerate(split.images)
    ]


def without(entry: Entry, *keys: str) -> Entry:
    return {key: value for key, value in entry.items() if key not in keys}


def by_split(made: Sequence[Entry]) -> dict[str, list[Entry]]:
    return {split: [entry for entry in made if entry["split"] == split] for split in SPLITS}


def another_name(root: Path, made: list[Entry]) -> Path:
    (root / "reid_raw.json").rename(root / "cuhk_pedes.JSON")
    return root


def any_name(root: Path, made: list[Entry]) -> Path:
    (root / "reid_raw.json").rename(root / "my export.json")
    write_json(root / "vocabulary.json", {"a": 1})
    return root


def one_record_a_caption(root: Path, made: list[Entry]) -> Path:
    write_json(
        root / "reid_raw.json",
        [{**entry, "captions": caption} for entry in made for caption in entry["captions"]],
    )
    return root


def capital_splits(root: Path, made: list[Entry]) -> Path:
    names = {"train": "Train", "val": "VALID", "test": "TEST"}
    write_json(root / "reid_raw.json", [{**entry, "split": names[entry["split"]]} for entry in made])
    return root


def split_in_the_file_name(root: Path, made: list[Entry]) -> Path:
    (root / "reid_raw.json").unlink()
    for split, part in by_split(made).items():
        write_json(root / "processed_data" / f"{split}.json", [without(entry, "split") for entry in part])
    return root


def split_and_set_in_the_file_name(root: Path, made: list[Entry]) -> Path:
    """The fields that some toolkits use: image, caption, and image_id for the person."""
    (root / "reid_raw.json").unlink()
    for split, part in by_split(made).items():
        write_json(
            root / f"cuhk_{split}_reid.json",
            [
                {
                    "image": f"CUHK-PEDES/imgs/{entry['file_path']}",
                    "image_id": entry["id"],
                    "caption": entry["captions"],
                    "captions_bt": entry["captions"],
                }
                for entry in part
            ],
        )
    return root


def sentences_under_annotations(root: Path, made: list[Entry]) -> Path:
    """One record a caption under `annotations`, with `image_id` for the image and ids from 0."""
    (root / "reid_raw.json").unlink()
    for split, part in by_split(made).items():
        records = [
            {
                "image_id": number,
                "id": entry["id"] - 1,
                "file_path": entry["file_path"],
                "sentence": text,
                "onehot": [1],
            }
            for number, entry in enumerate(part)
            for text in entry["captions"]
        ]
        categories = list(range(20_000))
        write_json(root / "annotations" / f"{split}.json", {"categories": categories, "annotations": records})
    return root


def lists_by_split(root: Path, made: list[Entry]) -> Path:
    write_json(root / "reid_raw.json", by_split([without(entry, "processed_tokens") for entry in made]))
    return root


def ids_as_text(root: Path, made: list[Entry]) -> Path:
    write_json(root / "reid_raw.json", [{**entry, "id": str(entry["id"])} for entry in made])
    return root


def paths_of_windows(root: Path, made: list[Entry]) -> Path:
    path = "D:\\data\\CUHK-PEDES\\imgs\\{}"
    changed = [{**entry, "file_path": path.format(entry["file_path"].replace("/", "\\"))} for entry in made]
    write_json(root / "reid_raw.json", changed)
    return root


def paths_with_imgs(root: Path, made: list[Entry]) -> Path:
    write_json(root / "reid_raw.json", [{**entry, "file_path": f"./imgs/{entry['file_path']}"} for entry in made])
    return root


def images_elsewhere(root: Path, made: list[Entry]) -> Path:
    (root / "imgs").rename(root / "Images")
    return root


def images_in_the_root(root: Path, made: list[Entry]) -> Path:
    for folder in (root / "imgs").iterdir():
        folder.rename(root / folder.name)
    (root / "imgs").rmdir()
    return root


def other_capitals(root: Path, made: list[Entry]) -> Path:
    (root / "imgs" / "Market").rename(root / "imgs" / "market")
    (root / "imgs" / "CUHK01").rename(root / "imgs" / "cuhk01")
    return root


def other_suffixes(root: Path, made: list[Entry]) -> Path:
    for path in sorted((root / "imgs" / "CUHK03").iterdir()):
        path.rename(path.with_suffix(".JPG"))
    return root


def folder_above(root: Path, made: list[Entry]) -> Path:
    return root.parent


def annotation_file(root: Path, made: list[Entry]) -> Path:
    (root / "annotation").mkdir()
    return (root / "reid_raw.json").rename(root / "annotation" / "people.json")


def annotation_folder(root: Path, made: list[Entry]) -> Path:
    (root / "annos").mkdir()
    return (root / "reid_raw.json").rename(root / "annos" / "reid_raw.json").parent


def with_the_file_without_splits(root: Path, made: list[Entry]) -> Path:
    (root / "reid_raw.json").rename(root / "my.json")
    write_json(root / "caption_all.json", [without(entry, "split") for entry in made])
    return root


def images_behind_a_link(root: Path, made: list[Entry]) -> Path:
    (root / "imgs").rename(root.parent / "store")
    (root / "imgs").symlink_to(root.parent / "store", target_is_directory=True)
    (root.parent / "store" / "loop").symlink_to(root, target_is_directory=True)
    return root


def byte_order_mark(root: Path, made: list[Entry]) -> Path:
    (root / "reid_raw.json").write_text("﻿" + json.dumps(made, indent=1), encoding="utf-8")
    return root


LAYOUTS: list[Callable[[Path, list[Entry]], Path]] = [
    another_name,
    any_name,
    one_record_a_caption,
    capital_splits,
    split_in_the_file_name,
    split_and_set_in_the_file_name,
    sentences_under_annotations,
    lists_by_split,
    ids_as_text,
    paths_of_windows,
    paths_with_imgs,
    images_elsewhere,
    images_in_the_root,
    other_capitals,
    other_suffixes,
    folder_above,
    annotation_file,
    annotation_folder,
    with_the_file_without_splits,
    images_behind_a_link,
    byte_order_mark,
]


@pytest.mark.parametrize("change", LAYOUTS, ids=lambda change: change.__name__)
def test_every_layout_gives_the_same_splits(change: Callable[[Path, list[Entry]], Path], tmp_path: Path) -> None:
    reader = DATASETS["cuhk_pedes"]
    root = tmp_path / "CUHK-PEDES"
    made = copies.cuhk_pedes(root)
    published = {split: content(reader.load(root, split)) for split in SPLITS}
    assert [name for name, _, _ in published["train"]] == [Path(entry["file_path"]).stem for entry in made[:8]]
    asked = change(root, made)
    for split in SPLITS:
        assert content(reader.load(asked, split)) == published[split]


def test_only_the_field_decides_the_split_of_icfg_pedes(tmp_path: Path) -> None:
    copies.icfg_pedes(tmp_path)
    (tmp_path / "ICFG-PEDES.json").rename(tmp_path / "ICFG_PEDES.json")
    folders = {
        split: {
            path.relative_to(tmp_path / "imgs").parts[0] for path in DATASETS["icfg_pedes"].load(tmp_path, split).images
        }
        for split in ("train", "test")
    }
    assert folders == {"train": {"train", "test"}, "test": {"train", "test"}}
    with pytest.raises(DatasetError, match="unknown split 'val'; allowed: train, test"):
        DATASETS["icfg_pedes"].load(tmp_path, "val")


def test_training_identities_are_numbered_in_the_order_of_their_ids(tmp_path: Path) -> None:
    made = copies.cuhk_pedes(tmp_path)
    shuffled = [{**entry, "id": 10 - entry["id"]} for entry in made]
    write_json(tmp_path / "reid_raw.json", shuffled)
    split = DATASETS["cuhk_pedes"].load(tmp_path, "train")
    assert split.identity_map == {6: 0, 7: 1, 8: 2, 9: 3}
    assert split.image_identity.tolist() == [3, 3, 2, 2, 1, 1, 0, 0]


def changed(made: list[Entry], place: int, **values: Any) -> list[Entry]:
    return [{**entry, **values} if number == place else entry for number, entry in enumerate(made)]


DEFECTS: dict[str, tuple[Callable[[list[Entry]], Any], str]] = {
    "id is no integer": (
        lambda made: changed(made, 1, id="p7"),
        r"1 record has no integer id, first reid_raw.json record 2 \(cam_b/0001.jpg\): 'p7'",
    ),
    "id is true": (lambda made: changed(made, 1, id=True), "1 record has no integer id"),
    "no id": (lambda made: [without(entry, "id") for entry in made], "16 records have no integer id"),
    "no captions": (lambda made: changed(made, 0, captions=[]), "1 record has no list of captions"),
    "captions missing": (lambda made: [without(made[0], "captions"), *made[1:]], "1 record has no list of captions"),
    "caption is null": (lambda made: changed(made, 0, captions=["a", None]), "1 caption is no text.*None"),
    "unknown split": (lambda made: changed(made, 0, split="query"), "1 record has an unknown split.*'query'"),
    "split missing in one": (lambda made: [without(made[0], "split"), *made[1:]], "1 record has no split"),
    "no path": (lambda made: [without(made[0], "file_path"), *made[1:]], "1 record names no image"),
    "path leaves": (lambda made: changed(made, 0, file_path="../../etc/x.jpg"), "1 image path leaves the folder"),
    "control character": (lambda made: changed(made, 0, file_path="cam_a/\n.jpg"), "1 image path leaves the folder"),
    "no object": (lambda made: ["x", *made], "1 record is no JSON object, first reid_raw.json record 1"),
    "two people": (lambda made: [*made, {**made[0], "id": 2}], "1 image has two ids, first cam_a/0000.jpg: 1 and 2"),
    "two splits": (
        lambda made: [*made, {**made[0], "split": "test"}],
        "1 image is in two splits, first cam_a/0000.jpg: train and test",
    ),
    "train and test": (
        lambda made: changed(made, len(made) - 1, id=1),
        "1 identities of test are in train as well, such as 1",
    ),
    "same file": (
        lambda made: (
            [{**entry, "file_path": f"one/{entry['file_path']}"} for entry in made]
            + [{**made[0], "file_path": "two/cam_a/0000.jpg"}]
        ),
        "1 record means the image file of another one, first imgs/cam_a/0000.jpg",
    ),
    "not a list": (lambda made: {"people": 3}, "reid_raw.json: must be a list of records"),
    "empty": (lambda made: [], "reid_raw.json: no records"),
}


@pytest.mark.parametrize("name", DEFECTS)
def test_defects_of_records_are_named(name: str, tmp_path: Path) -> None:
    change, message = DEFECTS[name]
    write_json(tmp_path / "reid_raw.json", change(copies.cuhk_pedes(tmp_path)))
    with pytest.raises(DatasetError, match=message) as caught:
        DATASETS["cuhk_pedes"].load(tmp_path, "train")
    assert "\n" not in str(caught.value)


def test_files_that_cannot_be_read_are_named(tmp_path: Path) -> None:
    reader = DATASETS["cuhk_pedes"]
    with pytest.raises(
        DatasetError, match=r"no folder or annotation file at .*nowhere; CUHK-PEDES needs reid_raw.json"
    ):
        reader.load(tmp_path / "nowhere", "train")
    with pytest.raises(
        DatasetError, match=r"no annotation file in .*; CUHK-PEDES needs reid_raw.json .*; request: https"
    ):
        reader.load(tmp_path, "train")
    made = copies.cuhk_pedes(tmp_path)
    (tmp_path / "reid_raw.json").write_text("[{")
    with pytest.raises(DatasetError, match=r"reid_raw.json:1: not JSON: .* at column 3"):
        reader.load(tmp_path, "train")
    (tmp_path / "reid_raw.json").write_bytes(b"[\xff]")
    with pytest.raises(DatasetError, match=r"reid_raw.json: not JSON: "):
        reader.load(tmp_path, "train")
    (tmp_path / "reid_raw.json").unlink()
    write_json(tmp_path / "caption_all.json", [without(entry, "split") for entry in made])
    with pytest.raises(DatasetError, match=r"caption_all.json has no splits; CUHK-PEDES needs reid_raw.json"):
        reader.load(tmp_path, "train")


def test_missing_images_are_listed_by_folder_and_can_be_left_out(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    copies.cuhk_pedes(tmp_path)
    shutil.rmtree(tmp_path / "imgs" / "Market")
    shutil.rmtree(tmp_path / "imgs" / "CUHK03")
    reader = DATASETS["cuhk_pedes"]
    with pytest.raises(DatasetError, match=r"2 of 8 images are missing under .*imgs \(CUHK03/ 1, Market/ 1\)"):
        reader.load(tmp_path, "train")
    split = reader.load(tmp_path, "train", allow_missing=True)
    assert len(split.images) == 6
    assert "2 of 8 images are missing and left out" in caplog.text
    shutil.rmtree(tmp_path / "imgs")
    with pytest.raises(DatasetError, match="8 of 8 images are missing"):
        reader.load(tmp_path, "train")


def test_a_file_serves_one_record(tmp_path: Path) -> None:
    """a.jpg and a.png are two images; where one of them is missing, the other does not stand in for it."""
    made = copies.rstpreid(tmp_path)
    made[1]["file_path"] = made[0]["file_path"].replace(".jpg", ".png")
    write_json(tmp_path / "data_captions.json", made)
    with pytest.raises(DatasetError, match=r"1 of 8 images are missing .*first 0000_c14_0031.png"):
        DATASETS["rstpreid"].load(tmp_path, "train")


MISALIGNED: dict[str, tuple[Callable[[list[Entry]], list[Entry]], str]] = {
    "length": (lambda part: part[:-1], "train_reid_en.json has 8 entries, train_reid_fr.json 7"),
    "order": (
        lambda part: [part[1], part[0], *part[2:]],
        "2 entries differ .*train_reid_fr.json record 1 and train_reid_en.json: cam_b/0001.jpg and cam_a/0000.jpg",
    ),
    "id": (lambda part: [{**part[0], "id": 99}, *part[1:]], "1 entry differs .* id 99 and id 1"),
    "captions": (
        lambda part: [{**part[0], "captions": ["un"]}, *part[1:]],
        "1 entry differs .* 1 captions and 2 captions",
    ),
}


@pytest.mark.parametrize("name", MISALIGNED)
def test_languages_that_are_not_aligned_are_refused(name: str, tmp_path: Path) -> None:
    copies.multilingual(tmp_path, copies.cuhk_pedes(tmp_path), splits=("train", "test"))
    path = tmp_path / "annos" / "train_reid_fr.json"
    change, message = MISALIGNED[name]
    write_json(path, change(json.loads(path.read_text())))
    reader = DATASETS["cuhk_pedes_m"]
    with pytest.raises(DatasetError, match=message):
        reader.load(tmp_path, "train")
    assert len(reader.load(tmp_path, "train", ["en", "de"]).images) == 8


def test_captions_of_the_languages_say_the_same_in_the_same_order(tmp_path: Path) -> None:
    made = copies.rstpreid(tmp_path)
    copies.multilingual(tmp_path, made, splits=("train", "test"))
    split = DATASETS["rstpreid_m"].load(tmp_path, "train", ["zh", "en", "de"])
    rows = content(split)
    assert split.languages() == ("en", "zh", "de")
    for number, (_, _, captions) in enumerate(rows):
        assert captions == tuple(
            copies.sentence(language, number, n) for language in ("en", "zh", "de") for n in range(2)
        )
    with pytest.raises(SplitMissing, match="no record of split 'val'; splits there: train, test"):
        DATASETS["rstpreid_m"].load(tmp_path, "val")


def test_a_language_whose_file_is_not_there_is_named(tmp_path: Path) -> None:
    copies.multilingual(tmp_path, copies.rstpreid(tmp_path), splits=("train", "test"))
    for path in (tmp_path / "annos").glob("*_fr.json"):
        path.unlink()
    reader = DATASETS["rstpreid_m"]
    assert reader.load(tmp_path, "test").languages() == ("en", "zh", "de")
    with pytest.raises(DatasetError, match="has no files of fr; languages there: en, zh, de"):
        reader.load(tmp_path, "test", ["fr"])
    with pytest.raises(DatasetError, match="no captions in 'fr'; languages there: en"):
        reader.load(tmp_path, "test", ["en", "fr"])


def test_the_english_files_of_a_multilingual_version_serve_alone(tmp_path: Path) -> None:
    made = copies.icfg_pedes(tmp_path)
    (tmp_path / "ICFG-PEDES.json").unlink()
    copies.multilingual(tmp_path, made, splits=("train", "test"))
    split = DATASETS["icfg_pedes"].load(tmp_path, "test")
    assert split.languages() == ("en",)
    assert len(split) == 4
