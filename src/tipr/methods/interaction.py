"""The multimodal interaction encoder of IRRA (implicit relation reasoning, IRR) and its MLM head.

Parameter names are those of the published checkpoints, because the learning-rate rules go by name.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def quick_gelu(x: Tensor) -> Tensor:
    """x * sigmoid(1.702 x): CLIP's approximation of GELU."""
    return x * torch.sigmoid(1.702 * x)


def default_heads(width: int) -> int:
    """Heads of width 64 where `width` allows it: the largest divisor of `width` not above width / 64, at least 1."""
    return next(heads for heads in range(max(1, width // 64), 0, -1) if width % heads == 0)


def attend(query: Tensor, key: Tensor, value: Tensor, allowed: Tensor | None) -> Tensor:
    """Scaled dot-product attention; (B, H, L, d) queries, (B, H, M, d) keys and values, `allowed` (B, 1, 1, M) bool.

    On the CPU torch's fused kernel with a mask takes about three times as long, backward included, as writing it out.
    """
    if allowed is None or query.device.type != "cpu":
        return F.scaled_dot_product_attention(query, key, value, attn_mask=allowed)
    scores = (query * query.shape[-1] ** -0.5) @ key.transpose(-2, -1)
    weights: Tensor = scores.masked_fill(~allowed, float("-inf")).softmax(dim=-1)
    return weights.to(value.dtype) @ value


class Attention(nn.Module):
    """Multi-head attention with one fused input projection; no dropout."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        if width % heads:
            raise ValueError(f"width {width} is not a multiple of {heads} heads")
        self.heads = heads
        self.in_proj_weight = nn.Parameter(torch.empty(3 * width, width))
        self.in_proj_bias = nn.Parameter(torch.zeros(3 * width))
        self.out_proj = nn.Linear(width, width)
        nn.init.zeros_(self.out_proj.bias)

    def forward(self, query: Tensor, source: Tensor, mask: Tensor | None = None) -> Tensor:
        """Attend from (B, L, D) `query` to (B, M, D) `source`; `mask` (B, M) bool, True where a source token counts."""
        if query is source:
            q, k, v = F.linear(query, self.in_proj_weight, self.in_proj_bias).chunk(3, dim=-1)
        else:
            width = query.shape[-1]
            q = F.linear(query, self.in_proj_weight[:width], self.in_proj_bias[:width])
            k, v = F.linear(source, self.in_proj_weight[width:], self.in_proj_bias[width:]).chunk(2, dim=-1)
        q, k, v = (x.view(*x.shape[:2], self.heads, -1).transpose(1, 2) for x in (q, k, v))
        mixed = attend(q, k, v, None if mask is None else mask[:, None, None, :])
        return self.out_proj(mixed.transpose(1, 2).flatten(2))  # type: ignore[no-any-return]


class Mlp(nn.Module):
    """Two linear layers with QuickGELU between them, four times as wide inside."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.c_fc = nn.Linear(width, 4 * width)
        self.c_proj = nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        """(..., D) -> (..., D)."""
        return self.c_proj(quick_gelu(self.c_fc(x)))  # type: ignore[no-any-return]


class Block(nn.Module):
    """Pre-norm transformer block: x + attn(ln_1(x)), then x + mlp(ln_2(x))."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.attn = Attention(width, heads)
        self.ln_1 = nn.LayerNorm(width)
        self.mlp = Mlp(width)
        self.ln_2 = nn.LayerNorm(width)

    def look(self, x: Tensor, mask: Tensor | None) -> Tensor:
        """The first half: (B, L, D) -> (B, L, D); `mask` (B, L) bool, True at tokens that count, None: all."""
        normed = self.ln_1(x)
        return x + self.attn(normed, normed, mask)  # type: ignore[no-any-return]

    def think(self, x: Tensor) -> Tensor:
        """The second half, token by token: (..., D) -> (..., D)."""
        return x + self.mlp(self.ln_2(x))  # type: ignore[no-any-return]

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        """(B, L, D) -> (B, L, D)."""
        return self.think(self.look(x, mask))


class Transformer(nn.Module):
    """A stack of blocks."""

    def __init__(self, width: int, heads: int, depth: int) -> None:
        super().__init__()
        self.resblocks = nn.ModuleList(Block(width, heads) for _ in range(depth))

    def forward(self, x: Tensor, mask: Tensor | None, position: Tensor | None) -> Tensor:
        """(B, L, D) -> (B, L, D), or (K, D) at the (K,) flat positions asked for."""
        *blocks, last = self.resblocks
        for block in blocks:
            x = block(x, mask)
        assert isinstance(last, Block)
        x = last.look(x, mask)
        # nothing after the last attention mixes tokens, so the rest is computed where it is read
        return last.think(x if position is None else x.flatten(0, 1)[position])


class InteractionEncoder(nn.Module):
    """Text tokens look at image tokens once, then at each other `depth` times.

    Args:
        width: D, the joint width of both towers' tokens.
        heads: attention heads; D must be a multiple.
        depth: self-attention blocks (the paper uses 4).

    Source: Jiang and Ye, CVPR 2023, "Implicit Relation Reasoning"; initialisation as in the published code.
    """

    def __init__(self, width: int, heads: int, depth: int) -> None:
        super().__init__()
        self.cross_attn = Attention(width, heads)
        self.cross_modal_transformer = Transformer(width, heads, depth)
        self.ln_pre_t = nn.LayerNorm(width)
        self.ln_pre_i = nn.LayerNorm(width)
        self.ln_post = nn.LayerNorm(width)
        narrow = width**-0.5 * (2 * depth) ** -0.5
        attentions = [self.cross_attn]
        for block in self.cross_modal_transformer.resblocks:
            assert isinstance(block, Block)
            attentions.append(block.attn)
            nn.init.normal_(block.mlp.c_fc.weight, std=(2 * width) ** -0.5)
            nn.init.normal_(block.mlp.c_proj.weight, std=narrow)
        for attention in attentions:
            nn.init.normal_(attention.in_proj_weight, std=width**-0.5)
            nn.init.normal_(attention.out_proj.weight, std=narrow)

    def forward(
        self, text: Tensor, image: Tensor, mask: Tensor | None = None, position: Tensor | None = None
    ) -> Tensor:
        """Fuse the tokens of (masked) captions with the tokens of their images.

        Args:
            text: (B, L, D) projected text tokens.
            image: (B, M, D) projected image tokens, class token included.
            mask: (B, L) bool, True at tokens that the self-attention may see; None: all, padding included, which is
                what the published models do. There is no residual connection around the cross-attention.
            position: (K,) int64 positions in the flattened B * L tokens that are wanted; None: all.

        Returns:
            (B, L, D) fused tokens, or (K, D) at the positions.
        """
        fused = self.cross_attn(self.ln_pre_t(text), self.ln_pre_i(image))
        return self.ln_post(self.cross_modal_transformer(fused, mask, position))  # type: ignore[no-any-return]


class MlmHead(nn.Module):
    """Fused tokens -> scores over the vocabulary: linear, QuickGELU, LayerNorm, linear (not tied to the embedding).

    Args:
        width: D.
        vocabulary_size: V.
        depth: blocks of the interaction encoder; the output layer's initial scale depends on it.
    """

    def __init__(self, width: int, vocabulary_size: int, depth: int) -> None:
        super().__init__()
        self.dense = nn.Linear(width, width)
        self.ln = nn.LayerNorm(width)
        self.fc = nn.Linear(width, vocabulary_size)
        nn.init.normal_(self.dense.weight, std=(2 * width) ** -0.5)
        nn.init.normal_(self.fc.weight, std=width**-0.5 * (2 * depth) ** -0.5)

    def forward(self, x: Tensor) -> Tensor:
        """(..., D) -> (..., V)."""
        return self.fc(self.ln(quick_gelu(self.dense(x))))  # type: ignore[no-any-return]


class TextHead(nn.Module):
    """Fused text tokens -> scores over the vocabulary: linear, GELU, LayerNorm, word table (BERT's head).

    Args:
        words: (V, W) table that the output layer is tied to, or starts as a copy of.
        tied: whether the output layer is that table itself.
    """

    def __init__(self, words: nn.Embedding, *, tied: bool) -> None:
        super().__init__()
        width = words.embedding_dim
        self.dense = nn.Linear(width, width)
        self.norm = nn.LayerNorm(width, eps=1e-5)
        self.bias = nn.Parameter(torch.zeros(words.num_embeddings))
        self.decoder = None if tied else nn.Parameter(words.weight.detach().clone())
        nn.init.normal_(self.dense.weight, std=0.02)
        nn.init.zeros_(self.dense.bias)

    def forward(self, states: Tensor, words: Tensor) -> Tensor:
        """(K, W) fused tokens and the (V, W) word table -> (K, V)."""
        hidden = self.norm(F.gelu(self.dense(states)))
        return F.linear(hidden, words if self.decoder is None else self.decoder, self.bias)
