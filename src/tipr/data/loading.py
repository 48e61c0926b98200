"""From a training split to a stream of batches.

Images are decoded once and kept as uint8 at the model's size, captions are tokenised once and kept as ids. A batch is
then a few vectorised passes, and a pure function of (seed, epoch, index in the epoch, share of the process).
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import DataLoader, Dataset
from torch.utils.data import Sampler as KeySampler

from tipr.data.augmentation import DRAWS, Augmentation, augment
from tipr.data.batch import IGNORE, TrainBatch
from tipr.data.images import ImageProblem, Preprocessing, read_image, resize
from tipr.data.masking import Masking
from tipr.data.sampling import Rows, Sampler, Stream, share, uniforms
from tipr.errors import DatasetError, TiprError, TrainingError

Key = tuple[int, int]
"""(epoch from 1, index of a batch in that epoch)."""
Progress = Callable[[int, int], None]


class ImageStore:
    """The images of a split as uint8 at one size, in memory or read anew each time.

    Args:
        paths: G image files.
        size: (height, width).
        budget: bytes of memory that may be used; a larger split is read from its files again and again.
        threads: that decode side by side.
        progress: called with (done, G) while the memory is filled.

    Raises:
        DatasetError: some files cannot be read; the message counts them and names the first.
    """

    def __init__(
        self,
        paths: Sequence[Path],
        size: tuple[int, int],
        *,
        budget: int,
        threads: int = 1,
        progress: Progress | None = None,
    ) -> None:
        self.paths = tuple(paths)
        self.size = size
        self._pixels: NDArray[np.uint8] | None = None
        if len(self.paths) * 3 * size[0] * size[1] <= budget:
            self._pixels = self._read_all(threads, progress)

    @property
    def cached(self) -> bool:
        """Whether the images are in memory."""
        return self._pixels is not None

    def take(self, image_id: Rows) -> NDArray[np.uint8]:
        """The (B, 3, H, W) uint8 pixels of some images, a new array.

        Raises:
            ImageProblem: a file cannot be read (any more).
        """
        if self._pixels is not None:
            return self._pixels[image_id]
        return np.stack([self._read(self.paths[position]) for position in image_id])

    def _read(self, path: Path) -> NDArray[np.uint8]:
        return resize(read_image(path), self.size).transpose(2, 0, 1)

    def _read_all(self, threads: int, progress: Progress | None) -> NDArray[np.uint8]:
        pixels = np.empty((len(self.paths), 3, *self.size), np.uint8)

        def read(position: int) -> ImageProblem | None:
            try:
                pixels[position] = self._read(self.paths[position])
            except ImageProblem as problem:
                return problem
            return None

        problems = []
        with ThreadPoolExecutor(threads) as pool:
            for done, problem in enumerate(pool.map(read, range(len(self.paths)), chunksize=32), start=1):
                if problem is not None:
                    problems.append(problem)
                if progress is not None:
                    progress(done, len(self.paths))
        if problems:
            raise DatasetError(f"{len(problems)} of {len(self.paths)} images cannot be read, first {problems[0]}")
        return pixels


@dataclass(frozen=True)
class Captions:
    """Tokenised captions of a split.

    Attributes:
        ids: (N, L) int64.
        mask: (N, L) bool, True at real tokens.
    """

    ids: NDArray[np.int64]
    mask: NDArray[np.bool_]


class BatchSource(Dataset[TrainBatch | TiprError]):
    """Makes the batch of a key; the same for every worker and every restart.

    Args:
        images: of the split.
        captions: of the N samples.
        identity: (N,) int64 in 0..P-1.
        image_id: (N,) int64.
        sampler: of the global batches.
        augmentation: how images change.
        preprocessing: the normalisation.
        masking: None when the method has no MLM: nothing is masked then.
        captions_per_image: n; above 1 a batch has n captions of each of its images, drawn for the epoch.
        trim: cut padding at the longest caption of the GLOBAL batch (the same length on every process).
        rank, processes: whose share of the global batch is made.
    """

    def __init__(
        self,
        images: ImageStore,
        captions: Captions,
        identity: Rows,
        image_id: Rows,
        *,
        sampler: Sampler,
        augmentation: Augmentation,
        preprocessing: Preprocessing,
        masking: Masking | None,
        trim: bool,
        captions_per_image: int = 1,
        rank: int = 0,
        processes: int = 1,
    ) -> None:
        self.images = images
        self.captions = captions
        self.identity = identity
        self.image_id = image_id
        self.sampler = sampler
        self.augmentation = augmentation
        self.preprocessing = preprocessing
        self.masking = masking
        self.trim = trim
        self.captions_per_image = captions_per_image
        self.rank = rank
        self.processes = processes
        self.plan = lru_cache(maxsize=2)(self._plan)

    def _plan(self, epoch: int) -> tuple[Rows, ...]:
        # A last batch with fewer rows than processes would leave a process without work.
        return tuple(batch for batch in self.sampler.batches(epoch) if len(batch) >= self.processes)

    def length(self, epoch: int) -> int:
        """Batches of an epoch."""
        return len(self.plan(epoch))

    def batch(self, epoch: int, index: int) -> TrainBatch:
        """The batch number `index` of an epoch, the share of this process.

        Raises:
            ImageProblem: an image that is not in memory cannot be read.
        """
        whole = self.plan(epoch)[index]
        images = rows = share(whole, self.rank, self.processes)
        if self.captions_per_image > 1:
            rows = self.sampler.captions(epoch, rows, self.captions_per_image).flatten()
            whole = self.sampler.captions(epoch, whole, self.captions_per_image).flatten()
        length = int(self.captions.mask[whole].sum(axis=1).max()) if self.trim else self.captions.ids.shape[1]
        ids = self.captions.ids[rows, :length]
        seed = self.sampler.seed
        if self.masking is None:
            masked, labels = ids, np.full_like(ids, IGNORE)
        else:
            masked, labels = self.masking(ids, uniforms(seed, epoch, rows, Stream.MASKING, 2 * length))
        pixels = augment(
            self.images.take(self.image_id[images]),
            uniforms(seed, epoch, images, Stream.AUGMENTATION, DRAWS),
            self.augmentation,
            mean=self.preprocessing.mean,
            std=self.preprocessing.std,
        )
        return TrainBatch(
            pixels=pixels,
            ids=torch.from_numpy(ids),
            mask=torch.from_numpy(self.captions.mask[rows, :length]),
            masked_ids=torch.from_numpy(masked),
            mlm_labels=torch.from_numpy(labels),
            identity=torch.from_numpy(self.identity[rows]),
            row=torch.from_numpy(rows),
        )

    def __getitem__(self, key: Key) -> TrainBatch | TiprError:
        """The batch of a key, or the error that kept it from being made: errors cross process borders as values."""
        try:
            return self.batch(*key)
        except TiprError as error:
            return error


class _Keys(KeySampler[Key]):
    """Keys from one place in the run to its end."""

    def __init__(self, source: BatchSource, epoch: int, index: int) -> None:
        self.source, self.epoch, self.index = source, epoch, index

    def __iter__(self) -> Iterator[Key]:
        epoch, index = self.epoch, self.index
        while True:
            for position in range(index, self.source.length(epoch)):
                yield epoch, position
            epoch, index = epoch + 1, 0


def stream(source: BatchSource, *, epoch: int, index: int, workers: int) -> Iterator[TrainBatch]:
    """Batches in order without end, from batch `index` of `epoch` on; `workers` > 0 makes them ahead.

    One loader serves the whole run, so workers neither restart nor idle between epochs.

    Raises:
        TiprError: whatever kept a batch from being made.
        TrainingError: a worker process died.
    """
    loader: DataLoader[TrainBatch | TiprError] = DataLoader(
        source,
        batch_size=None,
        sampler=_Keys(source, epoch, index),
        num_workers=workers,
        multiprocessing_context="fork" if workers else None,  # the images in memory are shared, not copied
        collate_fn=_as_is,
        # its own generator: starting the loader must not advance the one that dropout draws from
        generator=torch.Generator(),
    )
    with warnings.catch_warnings():
        # Said when a gallery was used in this process too; a loader's workers never touch one.
        warnings.filterwarnings("ignore", message="lance is not fork-safe")
        batches = iter(loader)
    while True:
        try:
            made = next(batches)
        except RuntimeError as error:
            if "DataLoader worker" not in str(error):
                raise
            raise TrainingError(f"a loader process died: {' '.join(str(error).split())}") from None
        if isinstance(made, TiprError):
            raise made
        yield made


def _as_is(made: Any) -> Any:
    return made
