"""One small configuration for every entry of ENCODERS; the contract tests fail when an encoder has none."""

from __future__ import annotations

from typing import Any

import torch

from tipr.encoders import ENCODERS, Encoder

SMALL: dict[str, dict[str, Any]] = {
    "clip": {
        "image_size": (32, 16),
        "patch_size": 8,
        "vision_width": 16,
        "vision_layers": 1,
        "text_width": 16,
        "text_layers": 1,
        "embed_dim": 16,
        "max_tokens": 10,
        "vocabulary_size": 60,
    },
    "compact": {
        "image_size": (32, 16),
        "widths": (16, 16),
        "blocks": (1, 1),
        "stripes": 2,
        "text_width": 16,
        "text_layers": 1,
        "head_width": 8,
        "embed_dim": 16,
        "max_tokens": 10,
        "vocabulary_size": 60,
    },
    "beit_xlmr": {
        "image_size": (32, 16),
        "patch": 8,
        "width": 16,
        "vision_layers": 1,
        "vision_heads": 2,
        "vision_mlp": 32,
        "text_layers": 1,
        "text_heads": 2,
        "text_mlp": 32,
        "fusion_layers": 1,
        "max_positions": 16,
        "embed_dim": 8,
        "max_tokens": 10,
        "vocabulary_size": 60,
        "pad_id": 0,
        "target_languages": ("zh", "fr"),
    },
}


def make_encoder(name: str) -> Encoder:
    """A freshly initialised small encoder, the same at every call."""
    torch.manual_seed(0)
    cls = ENCODERS[name]
    return cls.build(cls.Config.model_validate(SMALL[name]))  # type: ignore[arg-type]
