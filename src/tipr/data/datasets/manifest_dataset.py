"""A data set described by one manifest file: bring your own images and captions."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from tipr.data.dataset import DatasetFacts, DatasetReader, Reading
from tipr.data.manifest import MANIFEST_NAME, iterate_manifest
from tipr.data.manifest_coco import read_coco
from tipr.data.manifest_table import read_csv, read_parquet
from tipr.data.samples import LANGUAGES, SPLITS
from tipr.errors import DatasetError

FILE_NAMES = (MANIFEST_NAME, "manifest.csv", "manifest.tsv", "manifest.parquet", "manifest.json")
"""Manifests that are looked for in a folder, in this order."""


class ManifestDataset(DatasetReader):
    """Any folder with a manifest, or a manifest file of any name: JSON Lines, CSV, Parquet or COCO-style JSON.

    A manifest in which no record names a split is one test split.
    """

    facts = DatasetFacts(
        title="Your own images, described by a manifest",
        licence="that of the images",
        languages=LANGUAGES,
        splits=SPLITS,
        layout="manifest.{jsonl, csv, parquet, json} beside the images; docs/manifest.md",
    )

    def read(self, root: Path | str, languages: Sequence[str] | None = None) -> Reading:
        """See `DatasetReader.read`. A line that breaks the format stops the reading."""
        return read_manifest_file(_manifest_of(root))


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


def read_manifest_file(path: Path) -> Reading:
    """Read a manifest in the form that its suffix says; `.jsonl` and unknown suffixes are JSON Lines.

    Raises:
        DatasetError: the file cannot be read or breaks a rule.
    """
    suffix = path.suffix.lower()
    if suffix in (".csv", ".tsv"):
        lines, records = read_csv(path)
    elif suffix in (".parquet", ".pq"):
        lines, records = read_parquet(path)
    elif suffix == ".json":
        lines, records = read_coco(path)
    else:
        numbered = list(iterate_manifest(path))
        lines, records = [line for line, _ in numbered], [record for _, record in numbered]
    return Reading(folder=path.parent, files=(path,), records=tuple(records), lines=tuple(lines))


def _manifest_of(root: Path | str) -> Path:
    root = Path(root)
    found = next((root / name for name in FILE_NAMES if (root / name).is_file()), None)
    return found or manifest_path(root)
