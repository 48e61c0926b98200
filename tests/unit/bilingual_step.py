"""A small Bi-IRRA without dropout, and a batch in two languages for it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from tipr.config import parse
from tipr.data.batch import IGNORE, BilingualBatch
from tipr.encoders.beit_xlmr import BeitXlmrConfig, BeitXlmrEncoder
from tipr.methods import BiIrra, TrainingFacts
from tipr.methods.bi_irra_config import BiIrraConfig

FACTS = TrainingFacts(pairs=0, mask_id=4, vocabulary_size=50, identities=3)


def make_encoder(**sizes: Any) -> BeitXlmrEncoder:
    torch.manual_seed(0)
    small: dict[str, Any] = {
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
        "embed_dim": 8,
        "max_positions": 16,
        "max_tokens": 10,
        "vocabulary_size": 50,
        "drop_path": 0.0,
        "hidden_dropout": 0.0,
        "attention_dropout": 0.0,
        "target_languages": ("zh", "fr", "de"),
    }
    return BeitXlmrEncoder.build(BeitXlmrConfig.model_validate(small | sizes))


def make(encoder: BeitXlmrEncoder | None = None, **options: Any) -> BiIrra:
    config = parse(options, BiIrraConfig, source="test")
    return BiIrra.build(config, encoder or make_encoder(), FACTS)


def make_batch(rows: int = 5, seed: int = 0, language: str = "zh") -> BilingualBatch:
    g = torch.Generator().manual_seed(seed)
    captions: dict[str, Tensor] = {}
    for side in ("source", "target"):
        length = torch.randint(4, 10, (rows, 1), generator=g)
        mask = torch.arange(9)[None] < length
        ids = torch.where(mask, torch.randint(5, 50, (rows, 9), generator=g), 1)
        chosen = mask & (torch.rand(rows, 9, generator=g) < 0.4)
        chosen[:, 1] = True
        captions |= {
            f"{side}_ids": ids,
            f"{side}_mask": mask,
            f"masked_{side}_ids": torch.where(chosen, 4, ids),
            f"{side}_labels": torch.where(chosen, ids, IGNORE),
        }
    return BilingualBatch(
        pixels=torch.randn(rows, 3, 32, 16, generator=g),
        patch_mask=torch.tensor([True, False] * 4),
        **captions,
        identity=torch.tensor([0, 1, 0, 2, 1, 2, 0, 1])[:rows],
        row=torch.arange(rows),
        target_language=language,
    )


def part(batch: BilingualBatch, rows: slice) -> BilingualBatch:
    """Some rows of a batch; a mask of patches for the whole batch stays."""
    return replace(
        batch,
        **{
            name: value[rows]
            for name, value in vars(batch).items()
            if isinstance(value, Tensor) and (name != "patch_mask" or value.ndim == 2)
        },
    )
