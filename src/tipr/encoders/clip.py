"""CLIP's two transformer towers at person-shaped image sizes, as IRRA uses them."""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn
from torch.nn import functional as F

from tipr.config import Section
from tipr.encoders.base import Encoded, Encoder


class ClipConfig(Section):
    """Sizes of the towers; the defaults are ViT-B/16 at 384x128.

    Attributes:
        name: "clip".
        image_size: (height, width) in pixels.
        patch_size: side of a patch.
        patch_stride: step between patches; None: `patch_size`. A smaller step makes patches overlap.
        vision_width, vision_layers, vision_heads: of the image tower; heads None: width / 64, at least 1.
        text_width, text_layers, text_heads: of the text tower.
        embed_dim: width of the joint space.
        max_tokens: rows of the text position table.
        vocabulary_size: rows of the token table.
        text_pooling: "largest_id": the token with the largest id, which is the end of text in CLIP's vocabulary;
            "last_token": the last one that the mask calls real, for vocabularies whose end token has another id.
        activation: of the MLPs: "quick_gelu" (OpenAI's weights) or "gelu" (most weights trained since).
        attention: "sdpa" (fused) or "eager" (plain matrix products, slower; for comparisons).
    """

    name: Literal["clip"] = "clip"
    image_size: tuple[int, int] = (384, 128)
    patch_size: int = Field(default=16, ge=1)
    patch_stride: int | None = Field(default=None, ge=1)
    vision_width: int = Field(default=768, ge=1)
    vision_layers: int = Field(default=12, ge=1)
    vision_heads: int | None = Field(default=None, ge=1)
    text_width: int = Field(default=512, ge=1)
    text_layers: int = Field(default=12, ge=1)
    text_heads: int | None = Field(default=None, ge=1)
    embed_dim: int = Field(default=512, ge=1)
    max_tokens: int = Field(default=77, ge=3)
    vocabulary_size: int = Field(default=49408, ge=4)
    text_pooling: Literal["largest_id", "last_token"] = "largest_id"
    activation: Literal["quick_gelu", "gelu"] = "quick_gelu"
    attention: Literal["sdpa", "eager"] = "sdpa"

    @model_validator(mode="after")
    def _sizes_fit(self) -> ClipConfig:
        if min(self.image_size) < self.patch_size:
            raise ValueError(f"image_size {self.image_size} is smaller than one patch of {self.patch_size}")
        for tower, width, heads in (
            ("vision", self.vision_width, self.heads("vision")),
            ("text", self.text_width, self.heads("text")),
        ):
            if width % heads:
                raise ValueError(f"{tower}_width {width} is not a multiple of {tower}_heads {heads}")
        return self

    def heads(self, tower: Literal["vision", "text"]) -> int:
        """Attention heads of a tower: as set, else width / 64, at least 1."""
        width, heads = (
            (self.vision_width, self.vision_heads) if tower == "vision" else (self.text_width, self.text_heads)
        )
        return heads or max(1, width // 64)

    @property
    def grid(self) -> tuple[int, int]:
        """(rows, columns) of patches."""
        stride = self.patch_stride or self.patch_size
        height, width = self.image_size
        return (height - self.patch_size) // stride + 1, (width - self.patch_size) // stride + 1


class PatchEmbeddings(nn.Module):
    """Patches and class token with a learned position table for a rectangular grid.

    Takes the place of transformers' embeddings, which accept square images only; parameter names are theirs, so that
    state-dict keys are those of every CLIP model in that library.
    """

    def __init__(self, config: ClipConfig) -> None:
        super().__init__()
        self.image_size = config.image_size
        width, (rows, columns) = config.vision_width, config.grid
        self.class_embedding = nn.Parameter(torch.randn(width) * width**-0.5)
        stride = config.patch_stride or config.patch_size
        self.patch_embedding = nn.Conv2d(3, width, config.patch_size, stride, bias=False)
        self.position_embedding = nn.Embedding(1 + rows * columns, width)
        nn.init.normal_(self.patch_embedding.weight, std=0.02)
        nn.init.normal_(self.position_embedding.weight, std=width**-0.5)

    def forward(self, pixel_values: Tensor, interpolate_pos_encoding: bool = False) -> Tensor:
        """(B, 3, H, W) -> (B, 1 + rows * columns, width); patches row by row. The second argument is the caller's.

        Raises:
            ValueError: the image size is another than configured.
        """
        if pixel_values.ndim != 4 or pixel_values.shape[2:] != self.image_size:
            height, width = self.image_size
            raise ValueError(f"pixels must be (B, 3, {height}, {width}), got {tuple(pixel_values.shape)}")
        patches = self.patch_embedding(pixel_values.to(self.patch_embedding.weight.dtype)).flatten(2).transpose(1, 2)
        first = self.class_embedding.to(patches.dtype).expand(len(patches), 1, -1)
        return torch.cat([first, patches], dim=1) + self.position_embedding.weight.to(patches.dtype)


class ClipEncoder(Encoder):
    """CLIP towers with every token projected into the joint space.

    Three things differ from stock CLIP: rectangular images with their own position table, `post_layernorm` and the
    projection on ALL tokens, and no learned logit scale. Pooled features are the projected class token and the
    projected token at the largest id (end of text), un-normalised. Source: IRRA (CVPR 2023), "Feature Extraction
    Dual-Encoder".

    Args:
        config: sizes.
    """

    name: ClassVar[str] = "clip"
    Config: ClassVar[type[ClipConfig]] = ClipConfig

    def __init__(self, config: ClipConfig) -> None:
        super().__init__()
        from transformers import CLIPTextConfig, CLIPVisionConfig
        from transformers.models.clip.modeling_clip import CLIPTextModel, CLIPVisionModel

        self.config = config
        self.embed_dim = config.embed_dim
        self.image_size = config.image_size
        self.grid = config.grid
        self.max_tokens = config.max_tokens
        self.vocabulary_size = config.vocabulary_size
        text = CLIPTextConfig(
            vocab_size=config.vocabulary_size,
            hidden_size=config.text_width,
            intermediate_size=4 * config.text_width,
            projection_dim=config.embed_dim,
            num_hidden_layers=config.text_layers,
            num_attention_heads=config.heads("text"),
            max_position_embeddings=config.max_tokens,
            bos_token_id=config.vocabulary_size - 2,  # not used; the library warns about ids outside the vocabulary
            eos_token_id=config.vocabulary_size - 1,
            hidden_act=config.activation,
            attn_implementation=config.attention,
        )
        vision = CLIPVisionConfig(
            hidden_size=config.vision_width,
            intermediate_size=4 * config.vision_width,
            projection_dim=config.embed_dim,
            num_hidden_layers=config.vision_layers,
            num_attention_heads=config.heads("vision"),
            image_size=config.patch_size,  # the smallest square; the embeddings are replaced below
            patch_size=config.patch_size,
            hidden_act=config.activation,
            attn_implementation=config.attention,
        )
        self.text_model = CLIPTextModel(text)
        self.vision_model = CLIPVisionModel(vision)
        self.vision_model.embeddings = PatchEmbeddings(config)
        self.visual_projection = nn.Linear(config.vision_width, config.embed_dim, bias=False)
        self.text_projection = nn.Linear(config.text_width, config.embed_dim, bias=False)
        nn.init.normal_(self.visual_projection.weight, std=config.vision_width**-0.5)
        nn.init.normal_(self.text_projection.weight, std=config.text_width**-0.5)

    @classmethod
    def build(cls, config: ClipConfig) -> ClipEncoder:
        """A freshly initialised encoder; weights of a real CLIP come through an importer."""
        return cls(config)

    def encode_image(self, pixels: Tensor) -> Encoded:
        """Encode (B, 3, H, W) normalised float pixels; tokens (B, 1 + rows * columns, D), class token first.

        Raises:
            ValueError: H, W are not `image_size`.
        """
        hidden = self.vision_model(pixel_values=pixels).last_hidden_state
        # the library normalises its pooled token only
        tokens = self.visual_projection(self.vision_model.post_layernorm(hidden)).float()
        return Encoded(tokens, tokens[:, 0], torch.ones(tokens.shape[:2], dtype=torch.bool, device=tokens.device))

    def encode_text(self, ids: Tensor, mask: Tensor) -> Encoded:
        """Encode (B, L) int64 ids, L <= `max_tokens`; tokens (B, L, D).

        `mask` (B, L) is handed through and changes no token: padding follows the end of text, and the causal attention
        keeps it from the pooled token. With `text_pooling: last_token` it tells which token that is.

        Raises:
            ValueError: L is longer than `max_tokens`.
        """
        if ids.shape[1] > self.max_tokens:
            raise ValueError(f"ids must be (B, L) with L <= {self.max_tokens}, got {tuple(ids.shape)}")
        hidden = self.text_model(input_ids=ids).last_hidden_state
        tokens = self.text_projection(hidden).float()
        rows = torch.arange(len(ids), device=ids.device)
        end = ids.argmax(dim=1) if self.config.text_pooling == "largest_id" else mask.sum(dim=1) - 1
        return Encoded(tokens, tokens[rows, end], mask)


def resize_image_positions(table: Tensor, source: tuple[int, int], target: tuple[int, int]) -> Tensor:
    """Resize the patch rows of an image position table; the class row stays.

    Args:
        table: (1 + h * w, D), class row first, then the grid row by row.
        source: (h, w) of `table`.
        target: (h', w') wanted.

    Returns:
        (1 + h' * w', D) in the dtype of `table`; bilinear, corners not aligned, no anti-aliasing. The same tensor when
        the grids agree.

    Raises:
        ValueError: `table` does not have 1 + h * w rows.

    Source: IRRA's published code, done once on loading.
    """
    if table.ndim != 2 or len(table) != 1 + source[0] * source[1]:
        raise ValueError(
            f"a {source[0]}x{source[1]} grid needs (1 + {source[0] * source[1]}, D), got {tuple(table.shape)}"
        )
    if source == target:
        return table
    grid = table[1:].float().view(1, *source, -1).permute(0, 3, 1, 2)
    resized = F.interpolate(grid, size=target, mode="bilinear", align_corners=False)
    return torch.cat([table[:1], resized[0].flatten(1).T.to(table.dtype)])


def resize_text_positions(table: Tensor, length: int) -> Tensor:
    """Resize a text position table for longer (or shorter) captions; the first and the last row stay.

    Args:
        table: (L, D), L >= 3.
        length: L' >= 3 wanted.

    Returns:
        (L', D) in the dtype of `table`; rows between the ends are interpolated linearly, corners not aligned.

    Raises:
        ValueError: L or L' is below 3.
    """
    if table.ndim != 2 or min(len(table), length) < 3:
        raise ValueError(f"text positions need at least 3 rows, got {tuple(table.shape)} and length {length}")
    if length == len(table):
        return table
    inner = F.interpolate(table[1:-1].float().T[None], size=length - 2, mode="linear", align_corners=False)
    return torch.cat([table[:1], inner[0].T.to(table.dtype), table[-1:]])
