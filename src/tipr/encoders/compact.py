"""A small encoder that learns from scratch in minutes on two cores.

Image: a patch convolution, residual 3x3 convolutions on halving grids, a few transformer layers on the last grid, and
one vector per horizontal stripe of the body (head, chest, hips, ...; PCB, Sun et al., ECCV 2018), joined by a linear
layer. Text: a few transformer layers over subword embeddings, joined mean and maximum. Both end in one joint space.

The convolutions have standardised weights instead of normalised outputs, the transformer layers have LayerNorm: no
statistic crosses samples, so a batch split over processes gives the same result. The shapes are chosen for what a CPU
does well in bfloat16: dense 3x3 convolutions on a coarse grid in channels-last memory, few element-wise passes.
"""

from __future__ import annotations

import math
from typing import ClassVar, Literal, Self

import torch
from pydantic import Field, PositiveInt, model_validator
from torch import Tensor, nn
from torch.nn import functional

from tipr.config import Section
from tipr.encoders.base import Encoded, Encoder


class CompactConfig(Section):
    """Sizes of a `CompactEncoder`.

    Attributes:
        image_size: (height, width) in pixels, each a multiple of `patch * 2 ** (len(widths) - 1)`.
        patch: side of the first convolution's patches, in pixels.
        widths: channels of each convolutional stage; every stage after the first halves the grid.
        blocks: residual blocks of each stage.
        image_layers: transformer layers on the last grid.
        stripes: horizontal stripes that the last grid's rows are pooled into; divides the number of rows.
        vocabulary_size: rows of the token embedding.
        max_tokens: longest text, start and end included.
        text_width: channels of the text branch.
        text_layers: transformer layers of the text branch.
        head_width: channels of one attention head; divides `text_width` and the last of `widths`.
        embed_dim: D, width of the joint space.
    """

    name: Literal["compact"] = "compact"
    image_size: tuple[PositiveInt, PositiveInt] = (192, 64)
    patch: PositiveInt = 4
    widths: tuple[PositiveInt, ...] = Field(default=(64, 128, 256), min_length=1)
    blocks: tuple[int, ...] = (0, 1, 1)
    image_layers: int = Field(default=1, ge=0)
    stripes: PositiveInt = 6
    vocabulary_size: PositiveInt = 2000
    max_tokens: int = Field(default=64, ge=3)
    text_width: PositiveInt = 128
    text_layers: int = Field(default=2, ge=0)
    head_width: PositiveInt = 64
    embed_dim: PositiveInt = 256

    @property
    def grid(self) -> tuple[int, int]:
        """(rows, columns) of the last grid."""
        stride = self.patch * 2 ** (len(self.widths) - 1)
        return self.image_size[0] // stride, self.image_size[1] // stride

    @model_validator(mode="after")
    def _shapes_fit(self) -> Self:
        stride = self.patch * 2 ** (len(self.widths) - 1)
        if self.image_size[0] % stride or self.image_size[1] % stride:
            raise ValueError(f"image_size must be multiples of {stride} (patch and stages)")
        if len(self.blocks) != len(self.widths) or min(self.blocks) < 0:
            raise ValueError(f"blocks must hold one number of at least 0 for each of the {len(self.widths)} widths")
        if self.grid[0] % self.stripes:
            raise ValueError(f"stripes must divide the {self.grid[0]} rows of the last grid")
        if self.text_width % self.head_width or self.widths[-1] % self.head_width:
            raise ValueError("head_width must divide text_width and the last of widths")
        return self


class ScaledConv(nn.Conv2d):
    """A convolution whose weights are standardised per output channel, in place of normalising what comes out.

    With weights of mean 0 and variance gain^2 / fan-in, a rectified input of unit variance gives an output of unit
    variance (Brock et al., "Characterizing signal propagation to close the performance gap in unnormalized ResNets",
    ICLR 2021). Statistics of weights, unlike those of a batch, are the same on any number of processes.

    Args:
        inputs, outputs: channels.
        stride: of the 3x3 kernel.
    """

    RECTIFIED: ClassVar[float] = (2.0 / (1.0 - 1.0 / math.pi)) ** 0.5
    """1 / standard deviation of max(0, x) for a unit normal x."""

    def __init__(self, inputs: int, outputs: int, *, stride: int = 1) -> None:
        super().__init__(inputs, outputs, 3, stride=stride, padding=1)
        nn.init.normal_(self.weight)
        assert self.bias is not None
        nn.init.zeros_(self.bias)
        self.gain = nn.Parameter(torch.ones(outputs))

    def forward(self, grid: Tensor) -> Tensor:
        """(B, inputs, H, W) after a rectifier -> (B, outputs, H / stride, W / stride)."""
        variance, mean = torch.var_mean(self.weight, dim=(1, 2, 3), keepdim=True, correction=0)
        fan_in = self.weight[0].numel()
        scale = self.RECTIFIED * self.gain.view(-1, 1, 1, 1) * torch.rsqrt(variance * fan_in + 1e-4)
        weight = ((self.weight - mean) * scale).contiguous(memory_format=torch.channels_last)
        return functional.conv2d(grid, weight, self.bias, self.stride, self.padding)


class ResidualBlock(nn.Module):
    """x + a conv(relu(conv(x))) with a learned a per channel: no normalisation, one rectifier."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = ScaledConv(channels, channels)
        self.second = ScaledConv(channels, channels)
        nn.init.constant_(self.second.gain, 0.4)  # a short branch: the sum's variance grows slowly with depth

    def forward(self, grid: Tensor) -> Tensor:
        out: Tensor = grid + self.second(functional.relu(self.first(grid)))
        return out


class Places:
    """Where the N real tokens of a batch stand in its (B, L) rows.

    Half of a batch of captions is padding. The layers compute real tokens only, and spread them out for attention.

    Args:
        rows, length: B and L.
        mask: (B, L) bool, True at real tokens; None: all are real.
    """

    def __init__(self, rows: int, length: int, mask: Tensor | None = None) -> None:
        self.shape = (rows, length)
        self.flat = None if mask is None else mask.flatten().nonzero().flatten()
        self.allowed = None if mask is None else mask[:, None, None, :]

    def spread(self, tokens: Tensor) -> Tensor:
        """(N, width) -> (B, L, width), 0 at padding."""
        if self.flat is None:
            return tokens.view(*self.shape, -1)
        empty = tokens.new_zeros(self.shape[0] * self.shape[1], tokens.shape[1])
        return empty.index_copy(0, self.flat, tokens).view(*self.shape, -1)

    def collect(self, padded: Tensor) -> Tensor:
        """(B, L, width) -> (N, width)."""
        tokens = padded.flatten(0, 1)
        return tokens if self.flat is None else tokens.index_select(0, self.flat)


class TransformerLayer(nn.Module):
    """Pre-norm self-attention and a rectified MLP of four times the width (GELU costs a CPU more than the products)."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.attention_norm = nn.LayerNorm(width)
        self.query_key_value = nn.Linear(width, 3 * width)
        self.attention_out = nn.Linear(width, width)
        self.mlp_norm = nn.LayerNorm(width)
        self.mlp_in = nn.Linear(width, 4 * width)
        self.mlp_out = nn.Linear(4 * width, width)

    def forward(self, tokens: Tensor, places: Places) -> Tensor:
        """(N, width) -> same: the N real tokens of all rows, `places` says where in (B, L) they stand."""
        width = tokens.shape[1]
        padded = places.spread(self.query_key_value(self.attention_norm(tokens)))
        query, key, value = (
            padded.view(*places.shape, 3, self.heads, width // self.heads).permute(2, 0, 3, 1, 4).unbind(0)
        )
        # Written out: for short rows the backward pass of torch's fused CPU attention is several times slower.
        scores = query @ key.transpose(-2, -1) * (width // self.heads) ** -0.5
        if places.allowed is not None:
            scores = scores.masked_fill(~places.allowed, -1e4)
        mixed = scores.softmax(-1).to(value.dtype) @ value
        tokens = tokens + self.attention_out(places.collect(mixed.transpose(1, 2).flatten(2)))
        out: Tensor = tokens + self.mlp_out(functional.relu(self.mlp_in(self.mlp_norm(tokens))))
        return out


class ImageTower(nn.Module):
    """(B, 3, H, W) -> grid tokens (B, rows * columns, D) and pooled (B, D)."""

    def __init__(self, config: CompactConfig) -> None:
        super().__init__()
        self.stripes = config.stripes
        last = config.widths[-1]
        # The first layer is not standardised: weights of mean 0 could not tell black from white.
        patches = nn.Conv2d(3, config.widths[0], config.patch, stride=config.patch)
        stages: list[nn.Module] = [patches, nn.ReLU()]
        stages.extend(ResidualBlock(config.widths[0]) for _ in range(config.blocks[0]))
        for before, width, blocks in zip(config.widths, config.widths[1:], config.blocks[1:], strict=False):
            stages += [ScaledConv(before, width, stride=2), nn.ReLU()]
            stages.extend(ResidualBlock(width) for _ in range(blocks))
        self.stem = nn.Sequential(*stages)
        self.position = nn.Parameter(torch.randn(1, config.grid[0] * config.grid[1], last) * 0.02)
        self.layers = nn.ModuleList(
            TransformerLayer(last, last // config.head_width) for _ in range(config.image_layers)
        )
        self.norm = nn.LayerNorm(last)
        self.token_out = nn.Linear(last, config.embed_dim)
        self.pooled_out = nn.Linear(config.stripes * last, config.embed_dim)

    def forward(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        tokens = self._tokens(pixels)
        # Rows are contiguous in the token order, so a stripe of rows is a run of tokens.
        stripes = tokens.view(len(tokens), self.stripes, -1, tokens.shape[2]).mean(2)
        return self.token_out(tokens), self.pooled_out(stripes.flatten(1))

    def patches(self, pixels: Tensor) -> Tensor:
        """(B, rows * columns, D), each patch in place of its stripe; their mean is the pooled output."""
        tokens = self._tokens(pixels)
        parts = tokens.view(len(tokens), self.stripes, -1, tokens.shape[2])
        weight = self.pooled_out.weight.view(-1, self.stripes, tokens.shape[2])
        shares = self.stripes * torch.einsum("bsnw,dsw->bsnd", parts, weight)
        return shares.flatten(1, 2) + self.pooled_out.bias

    def _tokens(self, pixels: Tensor) -> Tensor:
        """(B, rows * columns, last width), row by row."""
        grid = self.stem(pixels.contiguous(memory_format=torch.channels_last))
        tokens = grid.flatten(2).transpose(1, 2)
        tokens = tokens + self.position.to(tokens.dtype)
        places = Places(tokens.shape[0], tokens.shape[1])
        tokens = places.collect(tokens)
        for layer in self.layers:
            tokens = layer(tokens, places)
        return places.spread(self.norm(tokens))


class TextTower(nn.Module):
    """(B, L) ids and mask -> tokens (B, L, D) and pooled (B, D)."""

    def __init__(self, config: CompactConfig) -> None:
        super().__init__()
        width = config.text_width
        self.embedding = nn.Embedding(config.vocabulary_size, width)
        nn.init.normal_(self.embedding.weight, std=0.05)
        self.position = nn.Parameter(torch.randn(config.max_tokens, width) * 0.02)
        self.layers = nn.ModuleList(
            TransformerLayer(width, width // config.head_width) for _ in range(config.text_layers)
        )
        self.norm = nn.LayerNorm(width)
        self.token_out = nn.Linear(width, config.embed_dim)
        self.pooled_out = nn.Linear(2 * width, config.embed_dim)

    def forward(self, ids: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        places = Places(ids.shape[0], ids.shape[1], mask)
        assert places.flat is not None
        tokens = self.embedding(ids.flatten()[places.flat]) + self.position[places.flat % ids.shape[1]]
        if torch.is_autocast_enabled(tokens.device.type):
            tokens = tokens.to(torch.get_autocast_dtype(tokens.device.type))
        for layer in self.layers:
            tokens = layer(tokens, places)
        tokens = places.spread(self.norm(tokens))
        real = mask[..., None]
        mean = tokens.sum(1) / real.sum(1).clamp(min=1)
        largest = tokens.masked_fill(~real, -1e4).amax(1)
        return self.token_out(tokens), self.pooled_out(torch.cat([mean, largest], dim=1))


class CompactEncoder(Encoder):
    """Two small towers with one joint space, trained from scratch.

    Args:
        config: the sizes.
    """

    name: ClassVar[str] = "compact"
    Config: ClassVar[type[CompactConfig]] = CompactConfig

    def __init__(self, config: CompactConfig) -> None:
        super().__init__()
        self.config = config
        self.embed_dim = config.embed_dim
        self.image_size = config.image_size
        self.grid = config.grid
        self.max_tokens = config.max_tokens
        self.vocabulary_size = config.vocabulary_size
        self.image = ImageTower(config)
        self.text = TextTower(config)

    @classmethod
    def build(cls, config: CompactConfig) -> Self:
        """A new encoder with random weights from torch's global generator."""
        return cls(config)

    def encode_image(self, pixels: Tensor) -> Encoded:
        """Encode images.

        Args:
            pixels: (B, 3, H, W) normalised float; H, W = `image_size`.

        Returns:
            tokens: (B, rows * columns, D) of the last grid, row by row; pooled: (B, D); mask: all True.

        Raises:
            ValueError: `pixels` has another shape.
        """
        if pixels.dim() != 4 or tuple(pixels.shape[1:]) != (3, *self.image_size):
            raise ValueError(
                f"pixels must be (B, 3, {self.image_size[0]}, {self.image_size[1]}), not {tuple(pixels.shape)}"
            )
        tokens, pooled = self.image(pixels)
        mask = torch.ones(tokens.shape[:2], dtype=torch.bool, device=tokens.device)
        return Encoded(tokens.float(), pooled.float(), mask)

    @property
    def patches_add_up(self) -> bool:
        """The global feature is linear in the patch tokens."""
        return True

    def patch_features(self, pixels: Tensor) -> Tensor:
        """(B, 3, H, W) -> (B, rows, columns, D); see `Encoder.patch_features`."""
        return self.image.patches(pixels).float().view(len(pixels), *self.grid, -1)

    def encode_text(self, ids: Tensor, mask: Tensor) -> Encoded:
        """Encode texts; padding has no influence, so trimmed and padded rows give the same pooled vector.

        Args:
            ids: (B, L) int64 in [0, vocabulary_size); L <= `max_tokens`.
            mask: (B, L) bool, True at real tokens, at least one in each row.

        Returns:
            tokens: (B, L, D), one constant vector where the mask is False; pooled: (B, D); mask: the one given.

        Raises:
            ValueError: the shapes differ or L is above `max_tokens`.
        """
        if ids.dim() != 2 or ids.shape != mask.shape or ids.shape[1] > self.max_tokens:
            raise ValueError(
                f"ids and mask must both be (B, L) with L <= {self.max_tokens}, "
                f"not {tuple(ids.shape)} and {tuple(mask.shape)}"
            )
        tokens, pooled = self.text(ids, mask)
        return Encoded(tokens.float(), pooled.float(), mask)
