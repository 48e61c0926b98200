"""What every encoder gives: tokens and one pooled vector for an image or a text."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, ClassVar, NamedTuple

from torch import Tensor, nn

from tipr.errors import ConfigError


class Encoded(NamedTuple):
    """Output of one tower, always float32.

    Attributes:
        tokens: (B, L, W) tokens, W = `Encoder.width`.
        pooled: (B, W) global feature; `Encoder.project_image` and `project_text` take it into the joint space.
        mask: (B, L) bool, True where a token is real.
    """

    tokens: Tensor
    pooled: Tensor
    mask: Tensor


class Encoder(nn.Module, ABC):
    """Two towers with one joint space; holds all that search needs.

    Attributes:
        name: key in `ENCODERS`.
        embed_dim: D, width of the joint space.
        image_size: (height, width) in pixels.
        grid: (rows, columns) of patches.
        max_tokens: longest text, special tokens included.
        vocabulary_size: rows of the token embedding.
        can_rerank: whether it has a match head over both modalities, for a second stage of search.
        ADAPTABLE: settings in which `adapted` may differ.
    """

    name: ClassVar[str]
    can_rerank: ClassVar[bool] = False
    ADAPTABLE: ClassVar[frozenset[str]] = frozenset({"vocabulary_size"})
    embed_dim: int
    image_size: tuple[int, int]
    grid: tuple[int, int]
    max_tokens: int
    vocabulary_size: int

    @abstractmethod
    def encode_image(self, pixels: Tensor) -> Encoded:
        """Encode (B, 3, H, W) normalised float pixels; H, W = `image_size`."""

    @abstractmethod
    def encode_text(self, ids: Tensor, mask: Tensor) -> Encoded:
        """Encode (B, L) int64 token ids; `mask` is (B, L) bool, True at real tokens; L <= `max_tokens`."""

    def adapted(self, config: Any) -> Encoder:
        """An encoder of the same weights under settings that differ in `ADAPTABLE` alone."""
        return self

    @property
    def width(self) -> int:
        """W of tokens and pooled features; the joint space's own where towers end in it."""
        return self.embed_dim

    @property
    def languages(self) -> tuple[str, ...]:
        """Languages with a projection of their own, the source language first; empty where all share one."""
        return ()

    def project_image(self, pooled: Tensor) -> Tensor:
        """(B, W) pooled image features -> (B, D) in the joint space, un-normalised."""
        return pooled

    def project_text(self, pooled: Tensor, language: str | None = None) -> Tensor:
        """(B, W) pooled text features -> (B, D) in the joint space, un-normalised.

        Args:
            pooled: (B, W) of texts in one language.
            language: which; picks the projection. None, or none of `languages`: that of the source language.
        """
        return pooled

    def image_features(self, pixels: Tensor) -> Tensor:
        """(B, 3, H, W) normalised pixels -> (B, D) in the joint space, un-normalised."""
        return self.project_image(self.encode_image(pixels).pooled)

    def text_features(self, ids: Tensor, mask: Tensor, language: str | None = None) -> Tensor:
        """(B, L) ids and mask of texts in one language -> (B, D) in the joint space, un-normalised."""
        return self.project_text(self.encode_text(ids, mask).pooled, language)

    @property
    def patches_add_up(self) -> bool:
        """Whether the mean of `patch_features` is exactly `image_features`."""
        return False

    def patch_features(self, pixels: Tensor) -> Tensor:
        """(B, 3, H, W) normalised pixels -> (B, rows, columns, D): every patch in the joint space, un-normalised.

        Here the patch tokens, taken through the projection of the whole image. Where the global feature is another
        token, nothing in training made them comparable with texts, and they are a hint at most.
        """
        rows, columns = self.grid
        tokens = self.encode_image(pixels).tokens[:, -rows * columns :]
        return self.project_image(tokens).view(len(tokens), rows, columns, -1)

    def attention(self, text_tokens: Tensor, text_mask: Tensor, image_tokens: Tensor) -> Tensor:
        """How much each text token of N pairs looks at each image token; only where `can_rerank`.

        Args:
            text_tokens, text_mask, image_tokens: as in `match`.

        Returns:
            (N, L, T) float32, each row of sum 1: the mean over heads and fusion layers.

        Raises:
            ConfigError: the encoder has no fusion layers.
        """
        raise ConfigError(f"encoder {self.name} has no fusion layers: its words do not look at pictures")

    def match(self, text_tokens: Tensor, text_mask: Tensor, image_tokens: Tensor) -> Tensor:
        """Score N pairs of a text and an image by looking at both together; only where `can_rerank`.

        Args:
            text_tokens: (N, L, W).
            text_mask: (N, L) bool, True at real tokens.
            image_tokens: (N, T, W).

        Returns:
            (N, 2) float32 logits; class 1 is a match.

        Raises:
            ConfigError: the encoder has no match head.
        """
        raise ConfigError(f"encoder {self.name} has no match head and cannot rerank")
