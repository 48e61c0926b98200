"""Every entry of `DATASETS` keeps the same promises, on a small set that the test writes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import benchmark_copies as copies
import pytest
from PIL import Image

import tipr.data.datasets
from tipr.data.check import check_dataset
from tipr.data.dataset import DatasetReader
from tipr.data.datasets import DATASETS
from tipr.data.manifest import Caption, Record, read_manifest, write_manifest
from tipr.data.samples import LANGUAGES
from tipr.errors import DatasetError


def records(folder: Path, *, split: str, first: int) -> list[Record]:
    """Two people, two images each, one caption in every language."""
    made = []
    for position in range(4):
        image = f"images/{split}/{position}.png"
        (folder / image).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (4, 8), (position, 0, 0)).save(folder / image)
        captions = tuple(Caption(language, f"{language} {split} {position}") for language in LANGUAGES)
        made.append(Record(image, captions, identity=first + position // 2, camera=f"c{position}", split=split))
    return made


def write_manifest_set(folder: Path) -> None:
    splits = [records(folder, split=split, first=10 * n) for n, split in enumerate(("train", "val", "test"))]
    write_manifest(folder / "manifest.jsonl", [record for made in splits for record in made])


def write_synthetic_set(folder: Path) -> None:
    write_manifest_set(folder)
    write_manifest(folder / "paraphrase.jsonl", records(folder, split="test", first=20))


def multilingual(
    images: Callable[[Path], list[copies.Entry]], splits: tuple[str, ...] = ("train", "val", "test")
) -> Callable[[Path], None]:
    def write(folder: Path) -> None:
        copies.multilingual(folder, images(folder), splits=splits)

    return write


WRITERS: dict[str, Callable[[Path], object]] = {
    "cuhk_pedes": copies.cuhk_pedes,
    "icfg_pedes": copies.icfg_pedes,
    "rstpreid": copies.rstpreid,
    "ufinebench": copies.ufinebench,
    "cuhk_pedes_m": multilingual(copies.cuhk_pedes),
    "icfg_pedes_m": multilingual(copies.icfg_pedes, ("train", "test")),
    "rstpreid_m": multilingual(copies.rstpreid),
    "ufinebench_m": multilingual(copies.ufinebench, ("train", "test")),
    "manifest": write_manifest_set,
    "synthetic": write_synthetic_set,
}
"""How to write a small set of each layout, two people of two images each in val and test; a new data set adds its line
here."""


@pytest.fixture(params=list(DATASETS))
def entry(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[DatasetReader, Path]:
    WRITERS[request.param](tmp_path)
    return DATASETS[request.param], tmp_path


def test_every_file_of_the_folder_is_listed() -> None:
    folder = Path(tipr.data.datasets.__file__).parent
    files = {path.stem for path in folder.glob("*.py")} - {"__init__"}
    assert files == {type(reader).__module__.rpartition(".")[2] for reader in DATASETS.values()}
    assert set(WRITERS) == set(DATASETS)


def test_every_split_loads_with_both_views(entry: tuple[DatasetReader, Path]) -> None:
    reader, root = entry
    for name in reader.facts.splits:
        split = reader.load(root, name)
        assert split.name == name
        assert split.identity_count == len(split.images) / 2 >= 2
        assert sorted(set(split.image_identity.tolist())) == list(range(split.identity_count))
        assert set(split.languages()) <= set(reader.facts.languages)
        assert all(path.is_file() for path in split.images)
        for sample in split.samples:
            assert split.image_identity[sample.image_id] == sample.identity


def test_languages_are_chosen(entry: tuple[DatasetReader, Path]) -> None:
    reader, root = entry
    last = reader.facts.languages[-1]
    split = reader.load(root, "test", [last])
    assert split.languages() == (last,)
    assert len(split) == len(reader.load(root, "test").queries(last)) >= 4
    with pytest.raises(DatasetError, match="unknown language"):
        reader.load(root, "test", ["es"])


def test_wrong_requests_are_one_line(entry: tuple[DatasetReader, Path]) -> None:
    reader, root = entry
    with pytest.raises(DatasetError, match="unknown split 'dev'; allowed: "):
        reader.load(root, "dev")
    with pytest.raises(DatasetError, match="nowhere"):
        reader.load(root / "nowhere", "test")
    reader.load(root, "test").images[2].unlink()
    with pytest.raises(DatasetError, match="1 of 4 images are missing"):
        reader.load(root, "test")
    assert len(reader.load(root, "test", allow_missing=True).images) == 3


@pytest.mark.parametrize("dataset", ["manifest", "synthetic"])
def test_without_identities_the_pairs_are_the_same(dataset: str, tmp_path: Path) -> None:
    WRITERS[dataset](tmp_path)
    reader, root = DATASETS[dataset], tmp_path
    known = {name: reader.load(root, name) for name in reader.facts.splits}
    for path in root.glob("*.jsonl"):
        write_manifest(path, [replace(record, identity=None) for record in read_manifest(path)])
    for name, split in known.items():
        bare = reader.load(root, name)
        assert bare.without_identity == len(bare.images) == 4
        assert bare.pairs().captions == split.pairs().captions
        assert bare.pairs().image_id.tolist() == split.pairs().image_id.tolist()
        assert bare.images == split.images
        with pytest.raises(DatasetError, match=f"split '{name}': 4 of 4 images have no identity"):
            bare.queries()


def test_facts_are_complete() -> None:
    for name, reader in DATASETS.items():
        facts = reader.facts
        assert facts.title, name
        assert facts.licence, name
        assert facts.layout, name
        assert set(facts.languages) <= set(LANGUAGES)
        if name not in ("manifest", "synthetic"):
            assert facts.request.startswith("https://"), name
            assert facts.citation, name
            assert facts.defects, name
            assert set(facts.editions[0].splits) == set(facts.splits), name


def test_a_manifest_without_splits_is_a_test_split(tmp_path: Path) -> None:
    Image.new("RGB", (4, 8)).save(tmp_path / "a.png")
    record = Record("a.png", (Caption("en", "x"),), identity="anna")
    write_manifest(tmp_path / "people.jsonl", [record])
    reader = DATASETS["manifest"]
    assert reader.load(tmp_path / "people.jsonl", "test").identity_map == {"anna": 0}
    with pytest.raises(DatasetError, match="no record of split 'train'; splits there: test"):
        reader.load(tmp_path / "people.jsonl", "train")


@pytest.mark.parametrize(
    ("second", "message"),
    [
        (Record("b.png", identity=1, split="train"), "1 identities of test are in train as well, such as 1"),
        (Record("b.png", identity=2), "1 of 2 records have no split"),
        (Record("b.png", identity=2, box=(0, 0, 2, 2), split="test"), ":2: box: "),
        (Record("a.png", identity=2, split="test"), "occurs twice"),
        (Record("a.png", identity=2, split="val"), "a.png is in test and val"),
    ],
)
def test_manifests_that_cannot_be_scored_are_refused(tmp_path: Path, second: Record, message: str) -> None:
    for name in ("a.png", "b.png"):
        Image.new("RGB", (4, 8)).save(tmp_path / name)
    write_manifest(tmp_path / "manifest.jsonl", [Record("a.png", identity=1, split="test"), second])
    with pytest.raises(DatasetError, match=message):
        DATASETS["manifest"].load(tmp_path, "test")
    assert check_dataset(DATASETS["manifest"], tmp_path).verdict == "unusable"


def test_an_empty_manifest_is_unusable(tmp_path: Path) -> None:
    (tmp_path / "manifest.jsonl").touch()
    assert check_dataset(DATASETS["manifest"], tmp_path).line().endswith("manifest.jsonl: no records")


def test_every_small_set_is_usable(entry: tuple[DatasetReader, Path]) -> None:
    reader, root = entry
    report = check_dataset(reader, root)
    assert not [problem.message for problem in report.problems if problem.level == "error"]
    assert set(report.splits) | {"paraphrase"} >= set(reader.facts.splits)
