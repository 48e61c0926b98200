"""Splits: numbering of people and images, query and gallery views, and the checks on the way in."""

from __future__ import annotations

import logging
import pickle
from dataclasses import FrozenInstanceError, replace
from pathlib import Path

import numpy as np
import pytest

from tipr.data.samples import UNKNOWN, ImageItem, Split, check_disjoint, check_images_exist, number_identities
from tipr.errors import DatasetError


def items(folder: Path = Path("x")) -> list[ImageItem]:
    return [
        ImageItem(folder / "a.jpg", 30, (("en", "one"), ("fr", "un")), "c1", "2026-03-01T08:30:00Z", ("indoor",)),
        ImageItem(folder / "b.jpg", 7, (("en", "two"),)),
        ImageItem(folder / "c.jpg", 30, (("zh", "三"), ("en", "three"))),
        ImageItem(folder / "d.jpg", 100),
    ]


def built(**options: object) -> Split:
    return Split.build("test", items(), check_files=False, **options)


def test_people_are_numbered_in_sorted_order() -> None:
    split = built()
    assert split.identity_map == {7: 0, 30: 1, 100: 2}
    assert split.identity_count == 3
    assert split.image_identity.tolist() == [1, 0, 1, 2]
    assert [sample.identity for sample in split.samples] == [1, 1, 0, 1, 1]
    assert list(number_identities(["b", 10, 9, "a10", "a9"])) == [9, 10, "a10", "a9", "b"]


def test_gallery_view_holds_every_image_once_and_keeps_what_is_known() -> None:
    split = built()
    assert [path.name for path in split.images] == ["a.jpg", "b.jpg", "c.jpg", "d.jpg"]
    assert split.image_camera == ("c1", None, None, None)
    assert split.image_time[0] == "2026-03-01T08:30:00Z"
    assert split.image_tags[0] == ("indoor",)
    for sample in split.samples:
        assert split.images[sample.image_id] == sample.image_path
        assert split.image_identity[sample.image_id] == sample.identity


def test_query_view_by_language() -> None:
    split = built()
    assert split.languages() == ("en", "zh", "fr")
    everything = split.queries()
    assert len(everything) == len(split) == 5
    assert everything.language == ("en", "fr", "en", "zh", "en")
    english = split.queries("en")
    assert english.captions == ("one", "two", "three")
    assert english.identity.dtype == english.image_id.dtype == np.int64
    assert english.identity.tolist() == [1, 0, 1]
    assert english.image_id.tolist() == [0, 1, 2]
    with pytest.raises(DatasetError, match="no captions in 'de'; languages there: en, zh, fr"):
        split.queries("de")


def test_pairs_hold_captions_and_images_and_nobody() -> None:
    pairs = built().pairs()
    assert pairs.captions == ("one", "un", "two", "三", "three")
    assert pairs.image_id.dtype == np.int64
    assert pairs.image_id.tolist() == [0, 0, 1, 2, 2]
    assert pairs.language == ("en", "fr", "en", "zh", "en")
    assert [path.name for path in pairs.images] == ["a.jpg", "b.jpg", "c.jpg", "d.jpg"]
    assert set(pairs.__slots__) == {"captions", "image_id", "language", "images", "missing_images"}


@pytest.mark.parametrize("unknown", [{0, 1, 2, 3}, {2}])
def test_a_split_with_people_who_are_not_known_is_one_of_pairs_only(unknown: set[int]) -> None:
    some = [replace(item, identity=None) if position in unknown else item for position, item in enumerate(items())]
    split = Split.build("train", some, check_files=False)
    assert split.without_identity == len(unknown)
    assert [position for position in range(4) if split.image_identity[position] == UNKNOWN] == sorted(unknown)
    assert {sample.image_id for sample in split.samples if sample.identity is None} == unknown - {3}
    assert split.identity_count == (0 if len(unknown) == 4 else 3)
    assert split.pairs().captions == built().pairs().captions
    expected = rf"split 'train': {len(unknown)} of 4 images have no identity, first x/{'abcd'[min(unknown)]}.jpg; "
    with pytest.raises(DatasetError, match=rf"^{expected}labelled training and evaluation need one for every image$"):
        split.queries()
    with pytest.raises(DatasetError, match=rf"^{expected}identity batches need one for every image$"):
        split.require_identities("identity batches")
    built().require_identities("identity batches")


def test_languages_can_be_chosen_and_the_gallery_stays() -> None:
    split = built(languages=["fr"])
    assert split.languages() == ("fr",)
    assert len(split.images) == 4
    with pytest.raises(DatasetError, match="languages there: en, zh, fr"):
        built(languages=["de"])
    with pytest.raises(DatasetError, match="unknown language 'es'; allowed: en, zh, fr, de"):
        built(languages=["es"])
    with pytest.raises(DatasetError, match=r"unknown language 'ch'.*Chinese is 'zh'"):
        Split.build("test", [ImageItem(Path("a"), 1, (("ch", "x"),))], check_files=False)


def test_a_split_does_not_change_and_can_be_pickled() -> None:
    split = built()
    with pytest.raises(FrozenInstanceError):
        split.name = "other"  # type: ignore[misc]
    with pytest.raises(ValueError, match="read-only"):
        split.image_identity[0] = 5
    copy = pickle.loads(pickle.dumps(split))
    assert copy.samples == split.samples
    assert copy.image_identity.tolist() == split.image_identity.tolist()


def test_empty_captions_are_counted_and_warned_about(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        split = Split.build("test", [ImageItem(Path("a"), 1, (("en", " "), ("en", "x")))], check_files=False)
    assert split.empty_captions == 1
    assert "1 of 2 captions are empty" in caplog.text
    assert built().empty_captions == 0


def test_nothing_and_twice_the_same_image_are_refused() -> None:
    with pytest.raises(DatasetError, match="no images"):
        Split.build("val", [])
    with pytest.raises(DatasetError, match="occurs twice"):
        Split.build("val", [items()[0], items()[0]], check_files=False)


def test_missing_files_are_listed_by_top_folder(tmp_path: Path) -> None:
    for name in ("cam_a/1.jpg", "cam_b/1.jpg"):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).touch()
    names = ["cam_a/1.jpg", "cam_b/1.jpg", "cam_b/2.jpg", "Market/x/1.jpg", "Market/x/2.jpg"]
    with pytest.raises(DatasetError) as caught:
        check_images_exist([tmp_path / name for name in names], source="split 'train'")
    message = str(caught.value)
    assert message.startswith(f"split 'train': 3 of 5 images are missing under {tmp_path} (Market/ 2, cam_b/ 1)")
    check_images_exist([tmp_path / "cam_a/1.jpg"], source="s")
    with pytest.raises(DatasetError, match="4 of 4 images are missing"):
        Split.build("test", items(tmp_path))


def test_nobody_is_in_train_and_elsewhere() -> None:
    check_disjoint({"train": [1, 2], "val": [3], "test": [3, 4]}, source="m")
    with pytest.raises(DatasetError, match="m: 1 identities of test are in train as well, such as 2"):
        check_disjoint({"train": [1, 2], "test": [2, 4]}, source="m")
