"""The data sets that can be read by name: one file and one line each."""

from __future__ import annotations

from tipr.data.datasets.manifest_dataset import ManifestDataset
from tipr.data.datasets.synthetic import SyntheticDataset
from tipr.data.samples import DatasetReader

DATASETS: dict[str, DatasetReader] = {
    "manifest": ManifestDataset(),
    "synthetic": SyntheticDataset(),
}

__all__ = ["DATASETS", "ManifestDataset", "SyntheticDataset"]
