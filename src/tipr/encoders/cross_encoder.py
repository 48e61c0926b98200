"""The fusion encoder: transformer layers in which one modality looks at the other."""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor, nn

HIDDEN = -1e4
"""Added to the attention scores of what must not be seen; after the softmax nothing of it is left."""
INITIAL_STD, BERT_WIDTH = 0.02, 768
"""Spread of BERT's first weights at its width. Narrower layers need larger ones for the other modality to be heard
beside the residual connection."""


class FusionEncoder(nn.Module):
    """Layers of self-attention, cross-attention and feed-forward, each followed by its norm.

    The same weights serve both directions: text looking at an image (match scores, masked language modelling) and an
    image looking at a text (image distillation). There is no embedding layer: the input is used as it is. Source: the
    interaction encoder of Bi-IRRA (arXiv 2510.17685), section "Architecture"; layers of BERT.

    Args:
        width: W of both modalities.
        layers: how many.
        heads: attention heads; divides `width`.
        intermediate: width of the feed-forward part.
        hidden_dropout, attention_dropout: in training.
        attention: "sdpa" (fused) or "eager" (plain matrix products).
    """

    def __init__(
        self,
        width: int,
        layers: int,
        heads: int,
        intermediate: int,
        *,
        hidden_dropout: float,
        attention_dropout: float,
        attention: Literal["sdpa", "eager"],
    ) -> None:
        super().__init__()
        from transformers import BertConfig
        from transformers.models.bert.modeling_bert import BertLayer

        config = BertConfig(
            hidden_size=width,
            num_hidden_layers=layers,
            num_attention_heads=heads,
            intermediate_size=intermediate,
            hidden_dropout_prob=hidden_dropout,
            attention_probs_dropout_prob=attention_dropout,
            layer_norm_eps=1e-5,  # as in the text layers: in the published model both are one stack
            is_decoder=True,  # the library's condition for cross-attention
            add_cross_attention=True,
        )
        config._attn_implementation = attention  # a bare layer has no parent model that would choose
        self.layers = nn.ModuleList(BertLayer(config, layer_idx=number) for number in range(layers))
        for layer in self.layers:
            layer.attention.self.is_causal = False  # type: ignore[union-attr] # decoder or not, every token sees all
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.normal_(module.weight, std=INITIAL_STD * (BERT_WIDTH / width) ** 0.5)
                nn.init.zeros_(module.bias)

    def forward(self, query: Tensor, query_mask: Tensor | None, keys: Tensor, key_mask: Tensor | None) -> Tensor:
        """Let the tokens of one modality look at each other and at those of the other.

        Args:
            query: (N, L, W) tokens.
            query_mask: (N, L) bool, True at real tokens; None: all are.
            keys: (N, T, W) tokens of the other modality.
            key_mask: (N, T) bool; None: all are real.

        Returns:
            (N, L, W) fused tokens of the query.
        """
        own, other = _additive(query_mask, query), _additive(key_mask, query)
        fused = query
        for layer in self.layers:
            fused = layer(fused, own, encoder_hidden_states=keys, encoder_attention_mask=other)
        return fused

    def first_token(self, query: Tensor, query_mask: Tensor | None, keys: Tensor, key_mask: Tensor | None) -> Tensor:
        """The first token of `forward`, which a match is judged by, for less.

        Nobody reads the other tokens of the last layer, so that they neither look at the keys nor pass through its
        feed-forward part.

        Returns:
            (N, W) fused first tokens of the query.
        """
        own, other = _additive(query_mask, query), _additive(key_mask, query)
        fused = query
        for layer in self.layers[:-1]:
            fused = layer(fused, own, encoder_hidden_states=keys, encoder_attention_mask=other)
        last: Any = self.layers[-1]
        first = last.attention(fused, own)[0][:, :1]
        seen = last.crossattention(first, None, keys, other)[0]
        judged: Tensor = last.feed_forward_chunk(seen)[:, 0]
        return judged

    def attention(self, query: Tensor, query_mask: Tensor | None, keys: Tensor) -> Tensor:
        """Weights of the cross-attention in `forward`, whatever kernel computes it there.

        Returns:
            (N, L, T) float32: the mean over heads and layers; each row has the sum 1.
        """
        own = _additive(query_mask, query)
        fused, weights = query, []
        for layer in self.layers:
            bert: Any = layer
            cross = bert.crossattention.self
            asking, offered = (
                rows.unflatten(-1, (cross.num_attention_heads, -1)).transpose(1, 2)
                for rows in (cross.query(bert.attention(fused, own)[0]), cross.key(keys))
            )
            scores = asking @ offered.transpose(-2, -1) * asking.shape[-1] ** -0.5
            weights.append(scores.float().softmax(-1).mean(1))
            fused = layer(fused, own, encoder_hidden_states=keys)
        return torch.stack(weights).mean(0)


def _additive(mask: Tensor | None, like: Tensor) -> Tensor | None:
    """(N, L) bool -> (N, 1, 1, L) in the dtype of `like`: 0 where True, `HIDDEN` elsewhere."""
    if mask is None:
        return None
    return torch.zeros_like(mask, dtype=like.dtype).masked_fill(~mask, HIDDEN)[:, None, None, :]
