"""The data sets that can be read by name: one file and one line each."""

from __future__ import annotations

from tipr.data.dataset import DatasetReader
from tipr.data.datasets.cuhk_pedes import CuhkPedes
from tipr.data.datasets.icfg_pedes import IcfgPedes
from tipr.data.datasets.manifest_dataset import ManifestDataset
from tipr.data.datasets.multilingual import Multilingual
from tipr.data.datasets.rstpreid import RstpReid
from tipr.data.datasets.synthetic import SyntheticDataset
from tipr.data.datasets.ufinebench import UFineBench

DATASETS: dict[str, DatasetReader] = {
    "cuhk_pedes": CuhkPedes(),
    "icfg_pedes": IcfgPedes(),
    "rstpreid": RstpReid(),
    "ufinebench": UFineBench(),
    "cuhk_pedes_m": Multilingual(CuhkPedes.facts),
    "icfg_pedes_m": Multilingual(IcfgPedes.facts),
    "rstpreid_m": Multilingual(RstpReid.facts),
    "ufinebench_m": Multilingual(UFineBench.facts),
    "manifest": ManifestDataset(),
    "synthetic": SyntheticDataset(),
}

__all__ = ["DATASETS", "ManifestDataset", "SyntheticDataset"]
