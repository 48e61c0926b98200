"""BEiT-2 and XLM-R towers with a fusion encoder and a match head, as Bi-IRRA uses them."""

from __future__ import annotations

from typing import Any, ClassVar, Literal, Self

import torch
from pydantic import Field, PositiveInt, model_validator
from torch import Tensor, nn

from tipr.config import Section
from tipr.encoders.base import Encoded, Encoder
from tipr.encoders.cross_encoder import FusionEncoder
from tipr.encoders.relative_positions import RelativePositions


class BeitXlmrConfig(Section):
    """Sizes; the defaults are the published ones (BEiT-2 base, XLM-R base, six fusion layers).

    Attributes:
        name: "beit_xlmr".
        image_size: (height, width) in pixels, each a multiple of `patch`.
        patch: side of a patch.
        width: W of all three parts.
        vision_layers, vision_heads, vision_mlp: of the image tower; `vision_mlp` is its feed-forward width.
        drop_path: share of residual branches left out in training at the last block, rising linearly from 0.
        vocabulary_size: rows of the word table.
        pad_id: row of the word table that stands for padding and is not trained as a word.
        max_positions: rows of the text position table.
        max_tokens: longest text, start and end included.
        text_layers, text_heads, text_mlp: of the text tower; the feed-forward width is the fusion layers' too.
        fusion_layers, fusion_heads: of the fusion encoder; heads None: `text_heads`.
        hidden_dropout, attention_dropout: of text and fusion layers.
        position_offset: row of the position table for the first token. 0: the published runs, which number padding
            like any token. 2: XLM-R's own rule, where padding stands at row 1; for new runs from XLM-R's weights.
        embed_dim: D, width of the joint space.
        source_language: whose projection serves every language without one of its own.
        target_languages: each has a projection of its own, at first a copy of the source's.
        text_projections: "per_language", as released; "shared": one for all languages, as the paper has it.
        global_token: "mean" of the normalised patch tokens, as released; "class": the class token, normalised, which is
            the paper's v_cls.
        match_query: which modality is the query of `match`: "text", as released, or "image", as the paper's Eq. 14 is
            printed.
        attention: "sdpa" (fused) or "eager" (plain matrix products: for comparisons, and faster for training with
            short rows on a CPU).
    """

    name: Literal["beit_xlmr"] = "beit_xlmr"
    image_size: tuple[PositiveInt, PositiveInt] = (224, 224)
    patch: PositiveInt = 16
    width: PositiveInt = 768
    vision_layers: PositiveInt = 12
    vision_heads: PositiveInt = 12
    vision_mlp: PositiveInt = 3072
    drop_path: float = Field(default=0.1, ge=0, lt=1)
    vocabulary_size: int = Field(default=250002, ge=5)
    pad_id: int = Field(default=1, ge=0)
    max_positions: PositiveInt = 514
    max_tokens: int = Field(default=77, ge=3)
    text_layers: PositiveInt = 12
    text_heads: PositiveInt = 12
    text_mlp: PositiveInt = 3072
    fusion_layers: PositiveInt = 6
    fusion_heads: PositiveInt | None = None
    hidden_dropout: float = Field(default=0.1, ge=0, lt=1)
    attention_dropout: float = Field(default=0.1, ge=0, lt=1)
    position_offset: Literal[0, 2] = 0
    embed_dim: PositiveInt = 256
    source_language: str = "en"
    target_languages: tuple[str, ...] = ("zh",)
    text_projections: Literal["per_language", "shared"] = "per_language"
    global_token: Literal["mean", "class"] = "mean"
    match_query: Literal["text", "image"] = "text"
    attention: Literal["sdpa", "eager"] = "sdpa"

    @property
    def grid(self) -> tuple[int, int]:
        """(rows, columns) of patches."""
        return self.image_size[0] // self.patch, self.image_size[1] // self.patch

    @property
    def projected_languages(self) -> tuple[str, ...]:
        """Target languages with a projection of their own."""
        return self.target_languages if self.text_projections == "per_language" else ()

    @model_validator(mode="after")
    def _sizes_fit(self) -> Self:
        if self.image_size[0] % self.patch or self.image_size[1] % self.patch:
            raise ValueError(f"image_size {self.image_size} must be multiples of patch {self.patch}")
        for part in ("vision_heads", "text_heads", "fusion_heads"):
            heads = getattr(self, part)
            if heads is not None and self.width % heads:
                raise ValueError(f"width {self.width} is not a multiple of {part} {heads}")
        if self.max_tokens + self.position_offset > self.max_positions:
            raise ValueError(
                f"max_tokens {self.max_tokens} needs max_positions of at least {self.max_tokens + self.position_offset}"
            )
        if self.pad_id >= self.vocabulary_size:
            raise ValueError(f"pad_id {self.pad_id} is not below vocabulary_size {self.vocabulary_size}")
        languages = (self.source_language, *self.target_languages)
        if len(set(languages)) != len(languages):
            raise ValueError(f"source_language and target_languages name one twice: {', '.join(languages)}")
        return self


class BeitXlmrEncoder(Encoder):
    """Image tower, multilingual text tower, fusion encoder, match head and one text projection for each language.

    The global image token is the MEAN of the normalised patch tokens and stands in front of them; the class token is
    thrown away. The global text token is the first one. The paper's readings of this and of two other points are
    settings. Source: Bi-IRRA (arXiv 2510.17685) and its released code.

    Args:
        config: sizes.

    Attributes:
        fusion: the fusion encoder, for both directions.
        source_language: its projection is the default.
        grid: (rows, columns) of patches.
    """

    name: ClassVar[str] = "beit_xlmr"
    Config: ClassVar[type[BeitXlmrConfig]] = BeitXlmrConfig
    can_rerank: ClassVar[bool] = True
    ADAPTABLE: ClassVar[frozenset[str]] = frozenset(
        {"vocabulary_size", "pad_id", "target_languages", "text_projections"}
        | {"drop_path", "hidden_dropout", "attention_dropout", "attention"}
    )

    def __init__(self, config: BeitXlmrConfig) -> None:
        super().__init__()
        self.config = config
        self.embed_dim = config.embed_dim
        self.image_size = config.image_size
        self.max_tokens = config.max_tokens
        self.vocabulary_size = config.vocabulary_size
        self.grid = config.grid
        self.source_language = config.source_language
        self.vision = _vision_tower(config)
        self.vision_norm = nn.LayerNorm(config.width, eps=1e-6)
        self.text = _text_tower(config)
        self.fusion = FusionEncoder(
            config.width,
            config.fusion_layers,
            config.fusion_heads or config.text_heads,
            config.text_mlp,
            hidden_dropout=config.hidden_dropout,
            attention_dropout=config.attention_dropout,
            attention=config.attention,
        )
        self.match_head = nn.Sequential(
            nn.Linear(config.width, 2 * config.width),
            nn.LayerNorm(2 * config.width),
            nn.GELU(),
            nn.Linear(2 * config.width, 2),
        )
        self.vision_projection = nn.Linear(config.width, config.embed_dim)
        self.text_projection = nn.Linear(config.width, config.embed_dim)
        self.target_projections = nn.ModuleDict(
            {language: nn.Linear(config.width, config.embed_dim) for language in config.projected_languages}
        )
        for projection in self.target_projections.values():
            projection.load_state_dict(self.text_projection.state_dict())

    @classmethod
    def build(cls, config: BeitXlmrConfig) -> Self:
        """A freshly initialised encoder; published weights come through an importer."""
        return cls(config)

    def adapted(self, config: BeitXlmrConfig) -> BeitXlmrEncoder:
        """The same weights with other target languages, dropout or attention kernels.

        A language that had no projection of its own gets a copy of the source's, which is what it used before.
        """
        weights = self.state_dict()
        own = {name: value for name, value in weights.items() if not name.startswith("target_projections.")}
        for language in config.projected_languages:
            old = f"target_projections.{language}" if language in self.target_projections else "text_projection"
            for part in ("weight", "bias"):
                own[f"target_projections.{language}.{part}"] = weights[f"{old}.{part}"]
        encoder = type(self)(config)
        encoder.load_state_dict(own)
        return encoder

    @property
    def width(self) -> int:
        """W of tokens and pooled features."""
        return self.config.width

    @property
    def languages(self) -> tuple[str, ...]:
        """Languages with a projection of their own, the source language first; empty where all share one."""
        if self.config.text_projections == "shared":
            return ()
        return self.source_language, *self.config.target_languages

    @property
    def word_embeddings(self) -> nn.Embedding:
        """The word table, (vocabulary_size, W); a text head may be tied to it."""
        table: nn.Embedding = self.text.embeddings.word_embeddings
        return table

    def encode_image(self, pixels: Tensor, patch_mask: Tensor | None = None) -> Encoded:
        """Encode images, some patches perhaps hidden behind the mask token.

        Args:
            pixels: (B, 3, H, W) normalised float; H, W = `image_size`.
            patch_mask: bool, True = hidden; (cells,) or `grid` for one mask of all images, else (B, cells) or
                (B, *grid), cells row by row. None: nothing is hidden.

        Returns:
            tokens: (B, 1 + cells, W), the global token first; pooled: (B, W), the global token; mask: all True.

        Raises:
            ValueError: `pixels` or `patch_mask` has another shape, or the mask is not bool.
        """
        if pixels.ndim != 4 or tuple(pixels.shape[1:]) != (3, *self.image_size):
            height, width = self.image_size
            raise ValueError(f"pixels must be (B, 3, {height}, {width}), not {tuple(pixels.shape)}")
        hidden = None if patch_mask is None else self._per_image(patch_mask, len(pixels))
        seen = self.vision(pixel_values=pixels, bool_masked_pos=hidden).last_hidden_state
        if self.config.global_token == "class":
            tokens = self.vision_norm(seen).float()
        else:
            patches = self.vision_norm(seen[:, 1:]).float()
            tokens = torch.cat([patches.mean(dim=1, keepdim=True), patches], dim=1)
        return Encoded(tokens, tokens[:, 0], torch.ones(tokens.shape[:2], dtype=torch.bool, device=tokens.device))

    def _per_image(self, patch_mask: Tensor, images: int) -> Tensor:
        """A mask in any of the four shapes -> (B, cells)."""
        rows, columns = self.grid
        cells = rows * columns
        shape = tuple(patch_mask.shape)
        allowed = {(cells,), (rows, columns), (images, cells), (images, rows, columns)}
        if patch_mask.dtype != torch.bool or shape not in allowed:
            raise ValueError(
                f"patch_mask must be bool of shape ({cells},), ({rows}, {columns}) or the same for each of {images} "
                f"images, not {patch_mask.dtype} {shape}"
            )
        return patch_mask.reshape(-1, cells).expand(images, cells)

    def encode_text(self, ids: Tensor, mask: Tensor) -> Encoded:
        """Encode texts; padding has no influence on real tokens.

        Args:
            ids: (B, L) int64 in [0, vocabulary_size); L <= `max_tokens`.
            mask: (B, L) bool, True at real tokens, at least one in each row.

        Returns:
            tokens: (B, L, W); pooled: (B, W), the first token; mask: the one given.

        Raises:
            ValueError: the shapes differ or L is above `max_tokens`.
        """
        if ids.ndim != 2 or ids.shape != mask.shape or ids.shape[1] > self.max_tokens:
            raise ValueError(
                f"ids and mask must both be (B, L) with L <= {self.max_tokens}, "
                f"not {tuple(ids.shape)} and {tuple(mask.shape)}"
            )
        if self.config.position_offset:
            positions = mask.cumsum(1) * mask + 1
        else:
            positions = torch.arange(ids.shape[1], device=ids.device).expand_as(ids)
        tokens = self.text(input_ids=ids, attention_mask=mask, position_ids=positions).last_hidden_state.float()
        return Encoded(tokens, tokens[:, 0], mask)

    def project_image(self, pooled: Tensor) -> Tensor:
        """(B, W) pooled image features -> (B, D) in the joint space, un-normalised float32."""
        return self.vision_projection(pooled).float()  # type: ignore[no-any-return]

    def project_text(self, pooled: Tensor, language: str | None = None) -> Tensor:
        """(B, W) pooled text features -> (B, D) un-normalised float32; see `Encoder.project_text`."""
        known = language is not None and language in self.target_projections
        projection = self.target_projections[language] if known else self.text_projection  # type: ignore[index]
        return projection(pooled).float()  # type: ignore[no-any-return]

    @property
    def patches_add_up(self) -> bool:
        """Whether the global token is the mean of the patch tokens, which the projection leaves a mean."""
        return self.config.global_token == "mean"

    def attention(self, text_tokens: Tensor, text_mask: Tensor, image_tokens: Tensor) -> Tensor:
        """(N, L, T) attention of text tokens on image tokens; see `Encoder.attention`.

        Texts look at images here whatever `match_query` says: that is how masked words are predicted.
        """
        return self.fusion.attention(text_tokens, text_mask, image_tokens.to(text_tokens.dtype))

    def match(self, text_tokens: Tensor, text_mask: Tensor, image_tokens: Tensor) -> Tensor:
        """Score N pairs: the text looks at the image (or as `match_query` says), its first token is judged.

        Args:
            text_tokens: (N, L, W) from `encode_text`.
            text_mask: (N, L) bool.
            image_tokens: (N, T, W) from `encode_image`; half precision is taken too.

        Returns:
            (N, 2) float32 logits; class 1 is a match. The released code, unlike the paper, has the text as the query.
        """
        image_tokens = image_tokens.to(text_tokens.dtype)
        if self.config.match_query == "image":
            first = self.fusion.first_token(image_tokens, None, text_tokens, text_mask)
        else:
            first = self.fusion.first_token(text_tokens, text_mask, image_tokens, None)
        return self.match_head(first).float()  # type: ignore[no-any-return]


def _vision_tower(config: BeitXlmrConfig) -> Any:
    from transformers import BeitConfig
    from transformers.models.beit.modeling_beit import BeitModel

    tower = BeitModel(
        BeitConfig(
            image_size=config.image_size,
            patch_size=config.patch,
            hidden_size=config.width,
            num_hidden_layers=config.vision_layers,
            num_attention_heads=config.vision_heads,
            intermediate_size=config.vision_mlp,
            hidden_dropout_prob=0.0,
            attention_probs_dropout_prob=0.0,
            drop_path_rate=config.drop_path,
            layer_norm_eps=1e-6,
            layer_scale_init_value=0.1,
            use_mask_token=True,
            use_mean_pooling=True,  # so that the model has no final norm of its own
            use_absolute_position_embeddings=False,
            use_relative_position_bias=True,
            use_shared_relative_position_bias=False,
            attn_implementation=config.attention,
        ),
        add_pooling_layer=False,
    )
    for layer in tower.layers:
        layer.relative_position_bias = RelativePositions(config.grid, config.vision_heads)
    for token in (tower.embeddings.cls_token, tower.embeddings.mask_token):
        nn.init.trunc_normal_(token, std=0.02)
    return tower


def _text_tower(config: BeitXlmrConfig) -> Any:
    from transformers import XLMRobertaConfig
    from transformers.models.xlm_roberta.modeling_xlm_roberta import XLMRobertaModel

    tower = XLMRobertaModel(
        XLMRobertaConfig(
            vocab_size=config.vocabulary_size,
            hidden_size=config.width,
            num_hidden_layers=config.text_layers,
            num_attention_heads=config.text_heads,
            intermediate_size=config.text_mlp,
            hidden_dropout_prob=config.hidden_dropout,
            attention_probs_dropout_prob=config.attention_dropout,
            max_position_embeddings=config.max_positions,
            type_vocab_size=1,
            layer_norm_eps=1e-5,
            pad_token_id=config.pad_id,
            attn_implementation=config.attention,
        ),
        add_pooling_layer=False,
    )
    if config.position_offset == 0:
        # every row is the place of a token here; the library would never train the one at the padding id
        positions = tower.embeddings.position_embeddings
        positions.padding_idx = None
        nn.init.normal_(positions.weight, std=0.02)
    return tower
