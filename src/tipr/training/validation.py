"""Scoring an encoder in the middle of a run, from pixels and ids that are already in memory."""

from __future__ import annotations

from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tipr.data.images import Preprocessing
from tipr.data.loading import Captions, ImageStore
from tipr.data.samples import Split
from tipr.encoders.base import Encoder
from tipr.errors import TrainingError
from tipr.evaluation import score_features
from tipr.evaluation.results import MEAN
from tipr.training.features import Autocast, EncodingPasses

Level = Literal["identity", "pair"]
"""What a caption should find: any image of the person it describes, or the very image it was written for."""
Scores = dict[str, dict[str, float]]
"""Language (and "mean") -> R@1, R@5, R@10, mAP, mINP in percent."""


class Validation:
    """Text-to-image retrieval on one split: every image once as the gallery, every caption a query.

    Args:
        split: usually the validation split; at pair level it needs no identities, and none is read.
        images: its images, at the encoder's size.
        captions: its tokenised captions.
        preprocessing: the normalisation.
        batch_size: images or captions of a pass.
        device: where the encoder is.
        level: what counts as found.

    Raises:
        DatasetError: images without identity, at identity level.
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
        level: Level = "identity",
    ) -> None:
        self.split = split
        self.level = level
        self._language = tuple(sample.language for sample in split.samples)
        self._passes = EncodingPasses(
            images, captions, preprocessing, batch_size=batch_size, device=device, languages=self._language
        )
        self._wanted, self._gallery = _relevance(split, level)

    def score(self, encoder: Encoder, autocast: Autocast) -> Scores:
        """Scores per language and their mean over languages.

        Args:
            encoder: put into evaluation mode for the time of the scoring.
            autocast: makes the context that gives the precision of the passes.

        Raises:
            TrainingError: features are not finite.
        """
        images, captions = self._passes.encode(encoder, autocast)
        gallery, query = _unit(images), _unit(captions)
        if not (np.isfinite(gallery).all() and np.isfinite(query).all()):
            raise TrainingError(f"the features of split {self.split.name!r} are not finite: lower the learning rate")
        found = score_features(query, gallery, self._wanted, self._gallery, self._language)
        return {**{code: score.named() for code, score in found.languages.items()}, MEAN: found.mean.named()}


def _relevance(split: Split, level: Level) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """(N,) what each caption looks for and (G,) what each image is: people, or the images themselves."""
    if level == "pair":
        return split.pairs().image_id, np.arange(len(split.images), dtype=np.int64)
    return split.queries().identity, split.image_identity


def _unit(features: Tensor) -> NDArray[np.float32]:
    unit: NDArray[np.float32] = torch.nn.functional.normalize(features, dim=1).cpu().numpy()
    return unit
