"""A data set described by one manifest file: bring your own images and captions."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from tipr.data.manifest import MANIFEST_NAME, Record, iterate_manifest
from tipr.data.samples import (
    LANGUAGES,
    SPLITS,
    DatasetFacts,
    DatasetReader,
    ImageItem,
    Split,
    SplitMissing,
    check_disjoint,
)
from tipr.errors import DatasetError


class ManifestDataset(DatasetReader):
    """Any folder with a `manifest.jsonl`, or a manifest file of any name.

    A manifest in which no record names a split is one test split.
    """

    facts = DatasetFacts(
        title="Your own images, described by a manifest",
        licence="that of the images",
        languages=LANGUAGES,
        splits=SPLITS,
        layout="manifest.jsonl beside the images; docs/manifest.md",
    )

    def load(self, root: Path | str, split: str, languages: Sequence[str] | None = None) -> Split:
        """See `DatasetReader.load`."""
        path = manifest_path(root)
        if split not in SPLITS:
            raise DatasetError(f"{path}: unknown split {split!r}; allowed: {', '.join(SPLITS)}")
        records = tuple(iterate_manifest(path))
        return split_of_records(path, records, split, languages)


def manifest_path(root: Path | str, name: str = MANIFEST_NAME) -> Path:
    """The manifest file of a data set: `root` itself when it is a file, else `root/name`.

    Raises:
        DatasetError: there is no such file.
    """
    root = Path(root)
    path = root if root.is_file() else root / name
    if not path.is_file():
        raise DatasetError(f"no manifest at {path}" if root.is_dir() else f"no folder or manifest file at {root}")
    return path


def split_of_records(
    path: Path,
    records: Sequence[tuple[int, Record]],
    split: str,
    languages: Sequence[str] | None,
    *,
    name: str | None = None,
) -> Split:
    """Check the records of a manifest and make one split of them.

    Args:
        path: the manifest; image paths are relative to its folder.
        records: (line number, record) of the WHOLE manifest, so that people can be compared across splits.
        split: which records to take; `name` renames the result.
        languages: languages to keep; all when None.

    Raises:
        SplitMissing: no record belongs to the split.
        DatasetError: records without split or with a box; people on both sides; missing files.
    """
    without = sum(record.split is None for _, record in records)
    if without and without < len(records):
        raise DatasetError(f"{path}: {without} of {len(records)} records have no split: give it to all or to none")
    chosen = [(line, record) for line, record in records if (record.split or "test") == split]
    if not chosen:
        there = sorted({record.split or "test" for _, record in records}, key=SPLITS.index)
        raise SplitMissing(f"{path}: no record of split {split!r}; splits there: {', '.join(there) or 'none'}")
    people: dict[str, set[int | str]] = {}
    for line, record in records:
        if record.box is not None:
            raise DatasetError(f"{path}:{line}: box: training and evaluation read whole images: save the crops first")
        if record.identity is not None:
            people.setdefault(record.split or "test", set()).add(record.identity)
    check_disjoint(people, source=str(path))
    folder = path.parent
    items = (
        ImageItem(
            path=folder / record.image,
            identity=record.identity,
            captions=tuple((caption.language, caption.text) for caption in record.captions),
            camera=record.camera,
            time=record.time,
            tags=record.tags,
        )
        for _, record in chosen
    )
    return Split.build(name or split, items, languages=languages)
