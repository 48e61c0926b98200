"""Which samples form which batch, and the random draws that belong to one sample.

Everything here is a pure function of (seed, epoch, sample). Neither the number of loader workers, nor the number of
processes, nor a restart in the middle of an epoch can change it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from enum import IntEnum
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from tipr.errors import ConfigError

Rows = NDArray[np.int64]
EpochUnit = Literal["caption", "image"]

GOLDEN = np.uint64(0x9E3779B97F4A7C15)


class Stream(IntEnum):
    """Independent sequences of draws of one sample."""

    ORDER = 1
    CAPTION = 2
    AUGMENTATION = 3
    MASKING = 4
    CLEAN_VIEW = 5
    PERTURBED_SIDE = 6
    TARGET_MASKING = 7
    TARGET_LANGUAGE = 8
    PATCH_MASK = 9
    NEGATIVES = 10


def mix(state: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """The splitmix64 finaliser, element by element (Steele, Lea, Flood 2014): a bijection of 64-bit words."""
    state = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    state = (state ^ (state >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return state ^ (state >> np.uint64(31))


def uniforms(seed: int, epoch: int, rows: Rows, stream: Stream, count: int) -> NDArray[np.float64]:
    """Uniform draws of each sample, by counter: draw j of row i depends on (seed, epoch, row, stream, j) alone.

    Args:
        seed: of the run, >= 0.
        epoch: 1, 2, ... .
        rows: (B,) int64 position of each sample in its split.
        stream: which sequence of draws.
        count: draws for each sample.

    Returns:
        (B, count) float64 in [0, 1).
    """
    with np.errstate(over="ignore"):  # 64-bit wrap-around is meant
        key = mix(np.asarray([seed], np.uint64) + GOLDEN)
        for word in (np.asarray([epoch], np.uint64), rows.astype(np.uint64), np.asarray([int(stream)], np.uint64)):
            key = mix(key ^ mix(word * GOLDEN + GOLDEN))
        counter = (np.arange(count, dtype=np.uint64) + np.uint64(1)) * GOLDEN
        bits = mix(key[:, None] + counter[None, :])
    return (bits >> np.uint64(11)).astype(np.float64) * 2.0**-53


class Sampler(ABC):
    """Cuts every epoch into global batches of rows.

    The unit of an epoch is the caption (every (image, caption) pair once, as published) or the image (every image
    once, with one of its captions drawn for the epoch: short epochs over many languages).

    Args:
        identity: (N,) int64 person of each row; None where nobody is known, which only a random order can do with.
        image_id: (N,) int64 image of each row.
        batch_size: rows of a global batch.
        seed: of the run.
        unit: "caption" or "image".
    """

    def __init__(
        self, identity: Rows | None, image_id: Rows, *, batch_size: int, seed: int, unit: EpochUnit = "caption"
    ) -> None:
        self.batch_size = batch_size
        self.seed = seed
        self.unit = unit
        self._image_id = image_id
        self._order = np.argsort(image_id, kind="stable")
        self._images, self._first, self._captions = np.unique(
            image_id[self._order], return_index=True, return_counts=True
        )

    @abstractmethod
    def batches(self, epoch: int) -> list[Rows]:
        """The global batches of an epoch, in order; a pure function of the seed and the epoch."""

    def rows(self, epoch: int) -> Rows:
        """(U,) rows that the epoch visits, one for each unit, in the order of the split."""
        if self.unit == "caption":
            return np.arange(len(self._image_id), dtype=np.int64)
        draw = uniforms(self.seed, epoch, self._images, Stream.CAPTION, 1)[:, 0]
        chosen = self._first + np.floor(draw * self._captions).astype(np.int64)
        return self._order[chosen]

    def captions(self, epoch: int, rows: Rows, count: int) -> Rows:
        """(B, count) rows: captions of the images of (B,) `rows`, drawn anew every epoch.

        Different captions of an image as long as it has enough; then they repeat.
        """
        images = np.searchsorted(self._images, self._image_id[rows])
        available = self._captions[images]
        draws = uniforms(self.seed, epoch, self._images[images], Stream.CAPTION, int(self._captions.max()))
        draws[np.arange(draws.shape[1]) >= available[:, None]] = np.inf
        order = np.argsort(draws, axis=1, kind="stable")
        places = np.arange(count) % available[:, None]
        chosen: Rows = self._order[self._first[images][:, None] + np.take_along_axis(order, places, axis=1)]
        return chosen


class RandomSampler(Sampler):
    """A new permutation every epoch; the last, shorter batch is kept unless `drop_last` (kept: irra.md 5)."""

    def __init__(
        self,
        identity: Rows | None,
        image_id: Rows,
        *,
        batch_size: int,
        seed: int,
        unit: EpochUnit = "caption",
        drop_last: bool = False,
    ) -> None:
        super().__init__(identity, image_id, batch_size=batch_size, seed=seed, unit=unit)
        self.drop_last = drop_last

    def batches(self, epoch: int) -> list[Rows]:
        """Consecutive pieces of the epoch's permutation."""
        rows = self.rows(epoch)
        rows = rows[np.argsort(uniforms(self.seed, epoch, rows, Stream.ORDER, 1)[:, 0], kind="stable")]
        pieces = [rows[start : start + self.batch_size] for start in range(0, len(rows), self.batch_size)]
        if self.drop_last and pieces and len(pieces[-1]) < self.batch_size:
            pieces.pop()
        return pieces


class IdentitySampler(Sampler):
    """K samples of each of B/K distinct persons in every batch (irra.md 5).

    Each person's samples are shuffled and cut into groups of K; the rest is dropped, and a person with fewer than K
    samples gives one group of K draws with replacement. A batch takes one group of each of B/K persons drawn from those
    that still have one; the epoch ends when fewer are left. All batches have the full size.

    Raises:
        ConfigError: nobody is known, K does not divide the batch size, or the split has fewer than B/K persons.
    """

    def __init__(
        self,
        identity: Rows | None,
        image_id: Rows,
        *,
        batch_size: int,
        seed: int,
        unit: EpochUnit = "caption",
        per_identity: int = 4,
    ) -> None:
        super().__init__(identity, image_id, batch_size=batch_size, seed=seed, unit=unit)
        if identity is None:
            raise ConfigError("sampler.name: identity needs a method that is given identities; use random")
        if batch_size % per_identity:
            raise ConfigError(f"sampler.per_identity {per_identity} does not divide the batch size {batch_size}")
        self.per_identity = per_identity
        self._identity = identity
        self.people = batch_size // per_identity
        available = len(np.unique(identity))
        if available < self.people:
            raise ConfigError(
                f"sampler: batches of {batch_size} with {per_identity} samples a person need {self.people} people, "
                f"the training split has {available}"
            )

    def batches(self, epoch: int) -> list[Rows]:
        """Groups of K rows of one person each, B/K groups a batch."""
        generator = np.random.default_rng([self.seed, epoch])
        groups = self._groups(epoch, generator)
        left = np.array([len(each) for each in groups])
        alive = np.arange(len(groups))
        batches: list[Rows] = []
        while len(alive) >= self.people:
            chosen = generator.choice(alive, self.people, replace=False)
            left[chosen] -= 1
            batches.append(np.concatenate([groups[person][left[person]] for person in chosen]))
            alive = alive[left[alive] > 0]
        return batches

    def _groups(self, epoch: int, generator: np.random.Generator) -> list[Rows]:
        """For each person the (groups, K) rows."""
        rows = self.rows(epoch)
        shuffle = uniforms(self.seed, epoch, rows, Stream.ORDER, 1)[:, 0]
        rows = rows[np.lexsort((shuffle, self._identity[rows]))]
        starts = np.unique(self._identity[rows], return_index=True)[1][1:]
        groups = []
        for person in np.split(rows, starts):
            few = len(person) < self.per_identity
            own = person[generator.integers(len(person), size=self.per_identity)] if few else person
            whole = len(own) // self.per_identity * self.per_identity
            groups.append(own[:whole].reshape(-1, self.per_identity))
        return groups


def share(batch: Rows, rank: int, processes: int) -> Rows:
    """The rows of one process: slice `rank` of the global batch, in order, the same size on every process.

    Equal sizes are what makes averaged gradients exact, so the up to `processes` - 1 rows of a short last batch that
    do not divide are left out.
    """
    size = len(batch) // processes
    return batch[rank * size : (rank + 1) * size]
