"""From a training split to a stream of batches.

Images are decoded once and kept as uint8 at the model's size, captions are tokenised once and kept as ids. A batch is
then a few vectorised passes, and a pure function of (seed, epoch, index in the epoch, share of the process).
"""

from __future__ import annotations

import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Generic, NotRequired, TypedDict, TypeVar, Unpack

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torch.utils.data import Sampler as KeySampler

from tipr.data.augmentation import CHUNK, DRAWS, Augmentation, augment
from tipr.data.batch import IGNORE, BilingualBatch, PairBatch, TrainBatch
from tipr.data.images import ImageProblem, Interpolation, Preprocessing, normalise, read_image, resize
from tipr.data.masking import CaptionPerturbation, Masking
from tipr.data.sampling import Rows, Sampler, Stream, share, uniforms
from tipr.data.two_of_six import DRAWS as TWO_OF_SIX_DRAWS
from tipr.data.two_of_six import TwoOfSix, two_of_six
from tipr.data.views import PairViews
from tipr.errors import DatasetError, TiprError, TrainingError

BatchT = TypeVar("BatchT", TrainBatch, PairBatch, BilingualBatch)
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
        interpolation: of the resizing.
        packed: (G, 3, H, W) uint8 and the (G,) rows of `paths` in it, when the images are decoded already.
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
        interpolation: Interpolation = "bilinear",
        packed: tuple[NDArray[np.uint8], Rows] | None = None,
        progress: Progress | None = None,
    ) -> None:
        self.paths = tuple(paths)
        self.size = size
        self.interpolation = interpolation
        self._pixels: NDArray[np.uint8] | None = None
        self._packed = packed
        if packed is None and len(self.paths) * 3 * size[0] * size[1] <= budget:
            self._pixels = self._read_all(threads, progress)

    @property
    def cached(self) -> bool:
        """Whether the images need no decoding any more."""
        return self._pixels is not None or self._packed is not None

    def take(self, image_id: Rows) -> NDArray[np.uint8]:
        """The (B, 3, H, W) uint8 pixels of some images, a new array.

        Raises:
            ImageProblem: a file cannot be read (any more).
        """
        if self._pixels is not None:
            return self._pixels[image_id]
        if self._packed is not None:
            pixels, rows = self._packed
            return np.asarray(pixels[rows[image_id]])
        return np.stack([self._read(self.paths[position]) for position in image_id])

    def _read(self, path: Path) -> NDArray[np.uint8]:
        return resize(read_image(path), self.size, self.interpolation).transpose(2, 0, 1)

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


class SourceSettings(TypedDict):
    """What every source of batches is told.

    Attributes:
        sampler: of the global batches.
        augmentation: how images change.
        preprocessing: the normalisation.
        trim: cut padding at the longest caption of the GLOBAL batch (the same length on every process).
        rank, processes: whose share of the global batch is made; all of it when not given.
    """

    sampler: Sampler
    augmentation: Augmentation | TwoOfSix
    preprocessing: Preprocessing
    trim: bool
    rank: NotRequired[int]
    processes: NotRequired[int]


class Source(Dataset[BatchT | TiprError], ABC, Generic[BatchT]):
    """Makes the batch of a key; the same for every worker and every restart.

    Args:
        images: of the split.
        captions: of the N samples.
        image_id: (N,) int64 position of each sample's image.
        sampler, augmentation, preprocessing, trim, rank, processes: see `SourceSettings`.
    """

    def __init__(
        self,
        images: ImageStore,
        captions: Captions,
        image_id: Rows,
        *,
        sampler: Sampler,
        augmentation: Augmentation | TwoOfSix,
        preprocessing: Preprocessing,
        trim: bool,
        rank: int = 0,
        processes: int = 1,
    ) -> None:
        self.images = images
        self.captions = captions
        self.image_id = image_id
        self.sampler = sampler
        self.augmentation = augmentation
        self.preprocessing = preprocessing
        self.trim = trim
        self.rank = rank
        self.processes = processes
        self.plan = lru_cache(maxsize=2)(self._plan)

    def _plan(self, epoch: int) -> tuple[Rows, ...]:
        # A last batch with fewer rows than processes would leave a process without work.
        return tuple(batch for batch in self.sampler.batches(epoch) if len(batch) >= self.processes)

    def length(self, epoch: int) -> int:
        """Batches of an epoch."""
        return len(self.plan(epoch))

    @abstractmethod
    def batch(self, epoch: int, index: int) -> BatchT:
        """The batch number `index` of an epoch, the share of this process.

        Raises:
            ImageProblem: an image that is not in memory cannot be read.
        """

    def __getitem__(self, key: Key) -> BatchT | TiprError:
        """The batch of a key, or the error that kept it from being made: errors cross process borders as values."""
        try:
            return self.batch(*key)
        except TiprError as error:
            return error

    def _tokens(self, rows: Rows, whole: Rows) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
        """(B, L) ids and mask of some rows, cut at the longest caption of the `whole` global batch."""
        length = int(self.captions.mask[whole].sum(axis=1).max()) if self.trim else self.captions.ids.shape[1]
        return self.captions.ids[rows, :length], self.captions.mask[rows, :length]

    def _augmented(self, pixels: NDArray[np.uint8], epoch: int, rows: Rows, stream: Stream) -> Tensor:
        """(B, 3, H, W) float32 of (B, 3, H, W) uint8 pixels, changed by the draws of their rows."""
        config, mean, std = self.augmentation, self.preprocessing.mean, self.preprocessing.std
        if isinstance(config, TwoOfSix):
            draws = uniforms(self.sampler.seed, epoch, rows, stream, TWO_OF_SIX_DRAWS)
            return two_of_six(pixels, draws, config, mean=mean, std=std)
        draws = uniforms(self.sampler.seed, epoch, rows, stream, DRAWS)
        return augment(pixels, draws, config, mean=mean, std=std)


class BatchSource(Source[TrainBatch]):
    """Batches with identities.

    Args:
        images, captions, image_id, **settings: see `Source`.
        identity: (N,) int64 in 0..P-1.
        masking: None when the method has no MLM: nothing is masked then.
        captions_per_image: n; above 1 a batch has n captions of each of its images, drawn for the epoch.
    """

    def __init__(
        self,
        images: ImageStore,
        captions: Captions,
        identity: Rows,
        image_id: Rows,
        *,
        masking: Masking | None,
        captions_per_image: int = 1,
        **settings: Unpack[SourceSettings],
    ) -> None:
        super().__init__(images, captions, image_id, **settings)
        self.identity = identity
        self.masking = masking
        self.captions_per_image = captions_per_image

    def batch(self, epoch: int, index: int) -> TrainBatch:
        """See `Source.batch`."""
        whole = self.plan(epoch)[index]
        images = rows = share(whole, self.rank, self.processes)
        if self.captions_per_image > 1:
            rows = self.sampler.captions(epoch, rows, self.captions_per_image).flatten()
            whole = self.sampler.captions(epoch, whole, self.captions_per_image).flatten()
        ids, mask = self._tokens(rows, whole)
        if self.masking is None:
            masked, labels = ids, np.full_like(ids, IGNORE)
        else:
            draws = uniforms(self.sampler.seed, epoch, rows, Stream.MASKING, 2 * ids.shape[1])
            masked, labels = self.masking(ids, draws)
        return TrainBatch(
            pixels=self._augmented(self.images.take(self.image_id[images]), epoch, images, Stream.AUGMENTATION),
            ids=torch.from_numpy(ids),
            mask=torch.from_numpy(mask),
            masked_ids=torch.from_numpy(masked),
            mlm_labels=torch.from_numpy(labels),
            identity=torch.from_numpy(self.identity[rows]),
            row=torch.from_numpy(rows),
        )


class PairSource(Source[PairBatch]):
    """Batches of bare pairs in two views; no identity comes near it.

    Args:
        images, captions, image_id, **settings: see `Source`.
        views: how the two views are made.
        perturbation: of captions; None when the method does not use the perturbed view: none is made then.
    """

    def __init__(
        self,
        images: ImageStore,
        captions: Captions,
        image_id: Rows,
        *,
        views: PairViews,
        perturbation: CaptionPerturbation | None,
        **settings: Unpack[SourceSettings],
    ) -> None:
        super().__init__(images, captions, image_id, **settings)
        self.views = views
        self.perturbation = perturbation

    def batch(self, epoch: int, index: int) -> PairBatch:
        """See `Source.batch`. An image is decoded once for both of its views."""
        whole = self.plan(epoch)[index]
        rows = share(whole, self.rank, self.processes)
        ids, mask = self._tokens(rows, whole)
        decoded = self.images.take(self.image_id[rows])
        pixels = self._clean(decoded, epoch, rows)
        perturbed: tuple[Tensor, Tensor] | tuple[None, None] = None, None
        if self.perturbation is not None:
            image, caption = self._sides(epoch, rows)
            draws = uniforms(self.sampler.seed, epoch, rows, Stream.MASKING, ids.shape[1])
            masked = np.where(caption[:, None], self.perturbation(ids, draws), ids)
            perturbed = self._perturbed(decoded, pixels, image, epoch, rows), torch.from_numpy(masked)
        return PairBatch(
            pixels=pixels,
            perturbed_pixels=perturbed[0],
            ids=torch.from_numpy(ids),
            mask=torch.from_numpy(mask),
            perturbed_ids=perturbed[1],
            image_id=torch.from_numpy(self.image_id[rows]),
            row=torch.from_numpy(rows),
        )

    def _clean(self, decoded: NDArray[np.uint8], epoch: int, rows: Rows) -> Tensor:
        """(B, 3, H, W) float32 clean view."""
        if self.views.clean_view_augment == "full":
            return self._augmented(decoded, epoch, rows, Stream.CLEAN_VIEW)
        if self.views.clean_view_augment == "flip":
            draw = uniforms(self.sampler.seed, epoch, rows, Stream.CLEAN_VIEW, 1)[:, 0]
            mirrored = (draw < self.augmentation.flip)[:, None, None, None]
            decoded = np.where(mirrored, decoded[..., ::-1], decoded)
        # As `normalise` of the whole, bit by bit, but several times faster: in pieces that stay in the cache, into
        # memory of NumPy's, which asks for large pages.
        pixels = torch.from_numpy(np.empty(decoded.shape, np.float32))
        for start in range(0, len(decoded), CHUNK):
            piece = torch.from_numpy(decoded[start : start + CHUNK])
            pixels[start : start + CHUNK] = normalise(piece, self.preprocessing.mean, self.preprocessing.std)
        return pixels

    def _perturbed(
        self, decoded: NDArray[np.uint8], clean: Tensor, chosen: NDArray[np.bool_], epoch: int, rows: Rows
    ) -> Tensor:
        """(B, 3, H, W) float32: the chosen images augmented, the others as in the clean view."""
        if chosen.all():
            return self._augmented(decoded, epoch, rows, Stream.AUGMENTATION)
        mixed = clean.numpy().copy()
        mixed[chosen] = self._augmented(decoded[chosen], epoch, rows[chosen], Stream.AUGMENTATION).numpy()
        return torch.from_numpy(mixed)

    def _sides(self, epoch: int, rows: Rows) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
        """(B,) whether the image and (B,) whether the caption of each pair is perturbed."""
        if self.views.perturb != "one_of_two":
            return np.ones(len(rows), np.bool_), np.ones(len(rows), np.bool_)
        image = uniforms(self.sampler.seed, epoch, rows, Stream.PERTURBED_SIDE, 1)[:, 0] < 0.5
        return image, ~image


class _Keys(KeySampler[Key]):
    """Keys from one place in the run to its end."""

    def __init__(self, source: Source[Any], epoch: int, index: int) -> None:
        self.source, self.epoch, self.index = source, epoch, index

    def __iter__(self) -> Iterator[Key]:
        epoch, index = self.epoch, self.index
        while True:
            for position in range(index, self.source.length(epoch)):
                yield epoch, position
            epoch, index = epoch + 1, 0


def stream(source: Source[BatchT], *, epoch: int, index: int, workers: int) -> Iterator[BatchT]:
    """Batches in order without end, from batch `index` of `epoch` on; `workers` > 0 makes them ahead.

    One loader serves the whole run, so workers neither restart nor idle between epochs.

    Raises:
        TiprError: whatever kept a batch from being made.
        TrainingError: a worker process died.
    """
    loader: DataLoader[BatchT | TiprError] = DataLoader(
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
