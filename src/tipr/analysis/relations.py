"""How true the relations are that a run took for granted: the only place where a run meets identities.

Training without labels records which pairs it related (`RUN/relations/epoch-*.npz`). Here they are compared with the
people of the training split, as in Figure 4 of the dual-granularity paper.
"""

from __future__ import annotations

import zipfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from tipr.errors import TrainingError
from tipr.training import load_config
from tipr.training import relations as recorded
from tipr.training.sources import load_split

Counted = Literal["with_self", "without_self", "other_images"]
COUNTED: tuple[Counted, ...] = ("with_self", "without_self", "other_images")
"""Which relations of a pair count: all; all but that to itself; those to pairs of other image files only."""

Rows = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Quality:
    """How good one kind of relation is; ordered relations (i, j) are counted.

    Attributes:
        found: relations taken.
        right: those between pairs of one person.
        possible: all there are between pairs of one person.
    """

    found: int
    right: int
    possible: int

    @property
    def precision(self) -> float | None:
        """Percent of the relations taken that are right; None where none was taken."""
        return 100.0 * self.right / self.found if self.found else None

    @property
    def recall(self) -> float | None:
        """Percent of the possible relations that were taken; None where none is possible."""
        return 100.0 * self.right / self.possible if self.possible else None


@dataclass(frozen=True, slots=True)
class EpochRelations:
    """The relations of one epoch.

    Attributes:
        epoch: from 1.
        quality: by what is counted.
        rand_index: adjusted Rand index of clusters, at most 1, about 0 for chance, pairs of no cluster standing alone;
            None where relations are no clusters.
    """

    epoch: int
    quality: dict[Counted, Quality]
    rand_index: float | None

    def to_json(self) -> dict[str, Any]:
        """JSON values."""
        return {
            "epoch": self.epoch,
            **{
                name: {**asdict(each), "precision": each.precision, "recall": each.recall}
                for name, each in self.quality.items()
            },
            "adjusted_rand_index": self.rand_index,
        }


def analyse_relations(folder: Path) -> list[EpochRelations]:
    """Compare the relations of every epoch of a run with the people of its training split.

    Args:
        folder: the run folder; its data set must be where the run found it.

    Returns:
        one entry for each recorded epoch, by epoch.

    Raises:
        ConfigError: no run there.
        DatasetError: the data set is missing, or has no identities.
        TrainingError: nothing was recorded, it is damaged, or the data set is not the one of the run.
    """
    config = load_config(folder)
    files = recorded.epochs(folder)
    if not files:
        raise TrainingError(
            f"{folder / recorded.RELATIONS} holds no epoch: a method that relates pairs records them with "
            "method.record_relations: true"
        )
    queries = load_split(config, "train", languages=config.data.languages).queries()
    found = []
    for epoch, path in files.items():
        for name, values in _arrays(path):
            if values.shape[0] != len(queries) or values.max(initial=-1) >= len(queries):
                raise TrainingError(
                    f"{path} is about {values.shape[0]:,} pairs, the training split of {config.data.root} has "
                    f"{len(queries):,}: it is not the data set of this run"
                )
            if name == "mined":
                quality = mined_quality(values, queries.identity, queries.image_id)
                found.append(EpochRelations(epoch, quality, None))
            else:
                quality = cluster_quality(values, queries.identity, queries.image_id)
                found.append(EpochRelations(epoch, quality, adjusted_rand_index(_alone(values), queries.identity)))
    return found


def mined_quality(mined: Rows, identity: Rows, image_id: Rows) -> dict[Counted, Quality]:
    """Quality of lists of related pairs.

    Args:
        mined: (N, k) integers: pairs that each pair is related to; -1 for none.
        identity: (N,) person of each pair.
        image_id: (N,) image file of each pair.
    """
    row, place = np.nonzero(mined >= 0)
    other = mined[row, place]
    right = identity[row] == identity[other]
    kept = {
        "with_self": np.ones(len(row), np.bool_),
        "without_self": row != other,
        "other_images": image_id[row] != image_id[other],
    }
    possible = _possible(identity, image_id)
    return {name: Quality(int(kept[name].sum()), int(right[kept[name]].sum()), possible[name]) for name in COUNTED}


def cluster_quality(cluster: Rows, identity: Rows, image_id: Rows) -> dict[Counted, Quality]:
    """Quality of clusters: a pair is related to all pairs of its cluster, itself included.

    Args:
        cluster: (N,) integers, -1 for a pair of no cluster, which is related to itself alone.
        identity, image_id: see `mined_quality`.
    """
    label = _alone(cluster)
    found, right = _related(label), _related(label, identity)
    same_image = _related(label, image_id)  # one image is of one person: these are right as well
    possible, rows = _possible(identity, image_id), len(label)
    return {
        "with_self": Quality(found, right, possible["with_self"]),
        "without_self": Quality(found - rows, right - rows, possible["without_self"]),
        "other_images": Quality(found - same_image, right - same_image, possible["other_images"]),
    }


def adjusted_rand_index(one: Rows, two: Rows) -> float:
    """Adjusted Rand index of two groupings of the same things (Hubert and Arabie 1985); 1 for equal groupings.

    Args:
        one, two: (N,) integers; equal values are one group.
    """
    rows = len(one)
    both, first, second = ((_related(*labels) - rows) / 2 for labels in ((one, two), (one,), (two,)))
    every = rows * (rows - 1) / 2
    expected = first * second / every if every else 0.0
    highest = (first + second) / 2
    return 1.0 if highest == expected else (both - expected) / (highest - expected)


def _possible(identity: Rows, image_id: Rows) -> dict[Counted, int]:
    every = _related(identity)
    return {
        "with_self": every,
        "without_self": every - len(identity),
        "other_images": every - _related(identity, image_id),
    }


def _related(*labels: Rows) -> int:
    """Ordered relations (i, j), i = j included, between rows that agree in every label."""
    _, size = np.unique(np.stack(labels), axis=1, return_counts=True)
    return int((size.astype(np.int64) ** 2).sum())


def _alone(cluster: Rows) -> Rows:
    """The labels, with one of its own for each row of no cluster."""
    rows = np.arange(len(cluster), dtype=np.int64)
    return np.where(cluster < 0, len(cluster) + rows, cluster).astype(np.int64)


def _arrays(path: Path) -> Iterator[tuple[str, Rows]]:
    """The arrays of one epoch that hold relations."""
    try:
        with path.open("rb") as stream, np.load(stream, allow_pickle=False) as content:
            arrays = {name: content[name] for name in ("mined", "cluster") if name in content.files}
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise TrainingError(f"{path} is damaged: {' '.join(str(error).split())}") from None
    shapes = {"mined": 2, "cluster": 1}
    if not arrays or any(values.ndim != shapes[name] or values.dtype.kind != "i" for name, values in arrays.items()):
        raise TrainingError(f"{path} holds neither mined (N, k) nor cluster (N,) integers")
    for name, values in arrays.items():
        yield name, values.astype(np.int64)
