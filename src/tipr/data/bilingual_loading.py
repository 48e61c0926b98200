"""Batches in two languages: an image, its caption in the source language, and the same one in a target language.

With several target languages each batch has one of them, so that its loss compares captions of one language, as in the
published runs with one target; all get the same number of batches.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Unpack

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tipr.data.batch import IGNORE, BilingualBatch
from tipr.data.loading import Captions, ImageStore, Source, SourceSettings
from tipr.data.patch_masking import PatchMasking
from tipr.data.samples import Split
from tipr.data.sampling import Rows, Stream, share, uniforms
from tipr.data.span_masking import DRAWS_OF_A_POSITION, SpanMasking
from tipr.errors import DatasetError


@dataclass(frozen=True, eq=False)
class Translations:
    """The captions of a split in a source language, and each of them in every target language.

    Attributes:
        source: N captions.
        targets: target language -> N captions; caption i is the translation of source caption i.
        identity: (N,) int64 person of each source caption.
        image_id: (N,) int64 image of each source caption.
    """

    source: tuple[str, ...]
    targets: Mapping[str, tuple[str, ...]]
    identity: Rows
    image_id: Rows

    @classmethod
    def match(cls, split: Split, source: str, targets: Sequence[str]) -> Translations:
        """Match the captions of each image by their order in each language (bi-irra.md 9).

        Args:
            split: has captions in all of these languages.
            source: the source language.
            targets: the target languages.

        Raises:
            DatasetError: an image has not the same number of captions in all languages, no caption is in the source
                language, or an image has no identity.
        """
        captions = {language: split.queries(language) for language in (source, *targets)}
        place = {language: np.argsort(each.image_id, kind="stable") for language, each in captions.items()}
        count = {
            language: np.bincount(each.image_id, minlength=len(split.images)) for language, each in captions.items()
        }
        for target in targets:
            wrong = np.flatnonzero(count[target] != count[source])
            if len(wrong):
                first = wrong[0]
                raise DatasetError(
                    f"split {split.name!r}: {len(wrong)} of {len(split.images)} images have not the same number of "
                    f"captions in {source!r} and {target!r}, first {split.images[first]} with {count[source][first]} "
                    f"and {count[target][first]}; a caption and its translation are matched by their order"
                )
        ordered = captions[source]
        return cls(
            source=tuple(ordered.captions[row] for row in place[source]),
            targets={target: tuple(captions[target].captions[row] for row in place[target]) for target in targets},
            identity=ordered.identity[place[source]],
            image_id=ordered.image_id[place[source]],
        )


class BilingualSource(Source[BilingualBatch]):
    """Batches of triples, with identities.

    Args:
        images: of the split.
        captions: N captions of the source language.
        targets: target language -> the same N captions in it, padded to the same length.
        identity: (N,) int64 in 0..P-1.
        image_id: (N,) int64 position of the image of each source caption.
        masking: of captions; None when the method has no MLM.
        patches: masks of patches; None when the method has no masked image.
        mask_each_image: draw a mask of patches for each image, not one for all images of a global batch.
        **settings: see `SourceSettings`.
    """

    def __init__(
        self,
        images: ImageStore,
        captions: Captions,
        targets: Mapping[str, Captions],
        identity: Rows,
        image_id: Rows,
        *,
        masking: SpanMasking | None,
        patches: PatchMasking | None,
        mask_each_image: bool,
        **settings: Unpack[SourceSettings],
    ) -> None:
        super().__init__(images, captions, image_id, **settings)
        self.targets = dict(targets)
        self.identity = identity
        self.masking = masking
        self.patches = patches
        self.mask_each_image = mask_each_image

    @cached_property
    def languages(self) -> tuple[str, ...]:
        """The target languages."""
        return tuple(self.targets)

    def target_language(self, epoch: int, index: int) -> str:
        """The target language of a batch: any K batches in a row from a multiple of K on have all K languages."""
        number = len(self.languages)
        turn = np.array([index // number], dtype=np.int64)
        draws = uniforms(self.sampler.seed, epoch, turn, Stream.TARGET_LANGUAGE, number)[0]
        return self.languages[int(np.argsort(draws)[index % number])]

    def batch(self, epoch: int, index: int) -> BilingualBatch:
        """See `Source.batch`."""
        whole = self.plan(epoch)[index]
        rows = share(whole, self.rank, self.processes)
        language = self.target_language(epoch, index)
        captions = (self.captions, self.targets[language])
        # One length for both languages, so that one pass of the encoder can take both.
        length = max(int(each.mask[whole].sum(axis=1).max()) if self.trim else each.ids.shape[1] for each in captions)
        source, target = ((each.ids[rows, :length], each.mask[rows, :length]) for each in captions)
        masked_source, source_labels = self._masked(*source, epoch, rows, Stream.MASKING)
        masked_target, target_labels = self._masked(*target, epoch, rows, Stream.TARGET_MASKING)
        return BilingualBatch(
            pixels=self._augmented(self.images.take(self.image_id[rows]), epoch, rows, Stream.AUGMENTATION),
            patch_mask=self._patch_mask(epoch, index, rows),
            source_ids=torch.from_numpy(source[0]),
            source_mask=torch.from_numpy(source[1]),
            target_ids=torch.from_numpy(target[0]),
            target_mask=torch.from_numpy(target[1]),
            masked_source_ids=torch.from_numpy(masked_source),
            source_labels=torch.from_numpy(source_labels),
            masked_target_ids=torch.from_numpy(masked_target),
            target_labels=torch.from_numpy(target_labels),
            identity=torch.from_numpy(self.identity[rows]),
            row=torch.from_numpy(rows),
            target_language=language,
        )

    def _masked(
        self, ids: NDArray[np.int64], mask: NDArray[np.bool_], epoch: int, rows: Rows, stream: Stream
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """(B, L) masked ids and labels."""
        if self.masking is None:
            return ids, np.full_like(ids, IGNORE)
        count = DRAWS_OF_A_POSITION * ids.shape[1]
        return self.masking(ids, mask, uniforms(self.sampler.seed, epoch, rows, stream, count))

    def _patch_mask(self, epoch: int, index: int, rows: Rows) -> Tensor | None:
        """(cells,) or (B, cells) bool. The mask of a batch is the same on every process, as published."""
        if self.patches is None:
            return None
        seeds = rows.tolist() if self.mask_each_image else [index]
        masks = [
            self.patches(np.random.default_rng([self.sampler.seed, epoch, seed, int(Stream.PATCH_MASK)]))
            for seed in seeds
        ]
        return torch.from_numpy(np.stack(masks) if self.mask_each_image else masks[0])
