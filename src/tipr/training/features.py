"""Encoding passes over images and captions that are already in memory: every image once, every caption once."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tipr.data.images import Preprocessing, normalise
from tipr.data.loading import Captions, ImageStore, Source
from tipr.data.sampling import Rows
from tipr.encoders.base import Encoder
from tipr.methods.base import keep

Autocast = Callable[[], AbstractContextManager[object]]
"""Makes the context that gives the precision of the passes."""


@dataclass(frozen=True)
class EncodingPasses:
    """Clean, unaugmented images and captions through an encoder, without gradient.

    With several processes each makes its share of the passes, and all get all rows. The passes are cut alike for any
    number of processes, so the rows are the same too.

    Attributes:
        images: G images at the encoder's size.
        captions: N tokenised captions.
        preprocessing: the normalisation.
        batch_size: images or captions of a pass.
        device: where the encoder is, and the features are put.
        languages: of each of the N captions; empty: not known, and all go through the source language's projection.
        rank, processes: whose share this process makes.
        reduce_sum: sum of a tensor over all processes.
    """

    images: ImageStore
    captions: Captions
    preprocessing: Preprocessing
    batch_size: int
    device: torch.device
    languages: tuple[str, ...] = ()
    rank: int = 0
    processes: int = 1
    reduce_sum: Callable[[Tensor], Tensor] = keep

    def encode(self, encoder: Encoder, autocast: Autocast) -> tuple[Tensor, Tensor]:
        """Features of all images and captions in the joint space, as the encoder gives them in evaluation mode.

        Returns:
            (G, D) image and (N, D) caption features, float32, not normalised.
        """
        with torch.no_grad(), _evaluating(encoder), autocast():
            return self._encode_images(encoder), self._encode_captions(encoder)

    def _encode_images(self, encoder: Encoder) -> Tensor:
        def encode(part: Rows) -> Tensor:
            pixels = torch.from_numpy(self.images.take(part)).to(self.device)
            return encoder.image_features(normalise(pixels, self.preprocessing.mean, self.preprocessing.std))

        return self._rows(np.arange(len(self.images.paths)), encode, encoder.embed_dim)

    def _encode_captions(self, encoder: Encoder) -> Tensor:
        """Captions of similar length together, so that a pass has little padding; each by its language's projection."""
        length = self.captions.mask.sum(axis=1)
        language = np.array(self.languages or [""] * len(length))

        def encode(part: Rows) -> Tensor:
            longest = length[part].max()
            ids = torch.from_numpy(self.captions.ids[part, :longest]).to(self.device)
            mask = torch.from_numpy(self.captions.mask[part, :longest]).to(self.device)
            pooled = encoder.encode_text(ids, mask).pooled
            features = pooled.new_empty(len(pooled), encoder.embed_dim, dtype=torch.float32)
            for code in set(language[part].tolist()):
                chosen = torch.from_numpy(language[part] == code).to(self.device)
                features[chosen] = encoder.project_text(pooled[chosen], code or None).float()
            return features

        return self._rows(np.argsort(length, kind="stable"), encode, encoder.embed_dim)

    def _rows(self, order: Rows, encode: Callable[[Rows], Tensor], width: int) -> Tensor:
        rows = torch.zeros(len(order), width, device=self.device)
        for start in range(self.rank * self.batch_size, len(order), self.processes * self.batch_size):
            part = order[start : start + self.batch_size]
            rows[torch.from_numpy(part).to(self.device)] = encode(part).float()
        return self.reduce_sum(rows)  # exact: of each row all summands but one are zero


def pair_features(
    source: Source[Any],
    encoder: Encoder,
    autocast: Autocast,
    *,
    batch_size: int,
    device: torch.device,
    reduce_sum: Callable[[Tensor], Tensor] = keep,
) -> tuple[Tensor, Tensor]:
    """Features of all N pairs of a training split in their clean view, the same on every process.

    Args:
        source: of the pairs; says which share of the passes this process makes.
        encoder: put into evaluation mode for the time of the passes.
        autocast: the precision of the passes.
        batch_size: images or captions of a pass.
        device: where the encoder is.
        reduce_sum: sum of a tensor over all processes.

    Returns:
        (N, D) image and (N, D) caption features, float32, not normalised: row i of both is pair i. Each image is
        encoded once and its row repeated for its captions.
    """
    passes = EncodingPasses(
        source.images,
        source.captions,
        source.preprocessing,
        batch_size=batch_size,
        device=device,
        rank=source.rank,
        processes=source.processes,
        reduce_sum=reduce_sum,
    )
    images, captions = passes.encode(encoder, autocast)
    return images[torch.from_numpy(source.image_id).to(device)], captions


@contextmanager
def _evaluating(encoder: Encoder) -> Iterator[None]:
    training = encoder.training
    encoder.eval()
    try:
        yield
    finally:
        encoder.train(training)
