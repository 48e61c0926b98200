"""Scoring an encoder in the middle of a run, from pixels and ids that are already in memory."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tipr.data.images import Preprocessing, normalise
from tipr.data.loading import Captions, ImageStore
from tipr.data.samples import Split
from tipr.encoders.base import Encoder
from tipr.errors import TrainingError
from tipr.evaluation import score_features
from tipr.evaluation.results import MEAN

Scores = dict[str, dict[str, float]]
"""Language (and "mean") -> R@1, R@5, R@10, mAP, mINP in percent."""


class Validation:
    """Text-to-image retrieval on one split: every image once as the gallery, every caption a query.

    Args:
        split: usually the validation split.
        images: its images, at the encoder's size.
        captions: its tokenised captions.
        preprocessing: the normalisation.
        batch_size: images or captions of a pass.
        device: where the encoder is.
    """

    def __init__(
        self,
        split: Split,
        images: ImageStore,
        captions: Captions,
        *,
        preprocessing: Preprocessing,
        batch_size: int,
        device: torch.device,
    ) -> None:
        self.split = split
        self._images = images
        self._captions = captions
        self._preprocessing = preprocessing
        self._batch_size = batch_size
        self._device = device

    def score(self, encoder: Encoder, autocast: Callable[[], AbstractContextManager[object]]) -> Scores:
        """Scores per language and their mean over languages.

        Args:
            encoder: put into evaluation mode for the time of the scoring.
            autocast: makes the context that gives the precision of the passes.

        Raises:
            TrainingError: features are not finite.
        """
        training = encoder.training
        encoder.eval()
        with torch.inference_mode(), autocast():
            gallery = self._encode_images(encoder)
            query = self._encode_captions(encoder)
        encoder.train(training)
        if not (np.isfinite(gallery).all() and np.isfinite(query).all()):
            raise TrainingError(f"the features of split {self.split.name!r} are not finite: lower the learning rate")
        queries = self.split.queries()
        found = score_features(query, gallery, queries.identity, self.split.image_identity, queries.language)
        return {**{code: score.named() for code, score in found.languages.items()}, MEAN: found.mean.named()}

    def _encode_images(self, encoder: Encoder) -> NDArray[np.float32]:
        rows = np.empty((len(self.split.images), encoder.embed_dim), np.float32)
        for start in range(0, len(rows), self._batch_size):
            part = np.arange(start, min(start + self._batch_size, len(rows)))
            pixels = torch.from_numpy(self._images.take(part)).to(self._device)
            normal = normalise(pixels, self._preprocessing.mean, self._preprocessing.std)
            rows[part] = _unit(encoder.encode_image(normal).pooled)
        return rows

    def _encode_captions(self, encoder: Encoder) -> NDArray[np.float32]:
        """Captions of similar length together, so that a batch has little padding."""
        length = self._captions.mask.sum(axis=1)
        order = np.argsort(length, kind="stable")
        rows = np.empty((len(order), encoder.embed_dim), np.float32)
        for start in range(0, len(order), self._batch_size):
            part = order[start : start + self._batch_size]
            longest = length[part[-1]]
            ids = torch.from_numpy(self._captions.ids[part, :longest]).to(self._device)
            mask = torch.from_numpy(self._captions.mask[part, :longest]).to(self._device)
            rows[part] = _unit(encoder.encode_text(ids, mask).pooled)
        return rows


def _unit(features: Tensor) -> NDArray[np.float32]:
    unit: NDArray[np.float32] = torch.nn.functional.normalize(features.float(), dim=1).cpu().numpy()
    return unit
