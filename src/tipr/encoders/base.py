"""What every encoder gives: tokens and one pooled vector for an image or a text."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar, NamedTuple

from torch import Tensor, nn


class Encoded(NamedTuple):
    """Output of one tower, always float32.

    Attributes:
        tokens: (B, L, D) projected tokens, in the joint space.
        pooled: (B, D) global feature, un-normalised.
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
        max_tokens: longest text, special tokens included.
        vocabulary_size: rows of the token embedding.
    """

    name: ClassVar[str]
    embed_dim: int
    image_size: tuple[int, int]
    max_tokens: int
    vocabulary_size: int

    @abstractmethod
    def encode_image(self, pixels: Tensor) -> Encoded:
        """Encode (B, 3, H, W) normalised float pixels; H, W = `image_size`."""

    @abstractmethod
    def encode_text(self, ids: Tensor, mask: Tensor) -> Encoded:
        """Encode (B, L) int64 token ids; `mask` is (B, L) bool, True at real tokens; L <= `max_tokens`."""
