"""A small model that can rerank: real encoder and tokenizer, random weights, sizes to choose."""

from __future__ import annotations

from typing import Any

import torch

from tipr.data.images import Preprocessing
from tipr.encoders import BeitXlmrEncoder
from tipr.encoders.tokenizers import SubwordTokenizer
from tipr.retrieval import Retriever

CAPTIONS = ("a woman in a red coat", "一个穿红色外套的女人", "une femme en manteau rouge", "eine Frau in Rot")


def matching_retriever(**sizes: Any) -> Retriever:
    """The same weights at every call, every projection of a language different."""
    tokenizer = SubwordTokenizer.train(CAPTIONS, vocabulary_size=280, max_tokens=24)
    small = {
        "image_size": (32, 16),
        "patch": 8,
        "width": 16,
        "vision_layers": 1,
        "vision_heads": 2,
        "vision_mlp": 32,
        "vocabulary_size": tokenizer.vocabulary_size,
        "pad_id": tokenizer.pad_id,
        "max_positions": 24,
        "max_tokens": 24,
        "text_layers": 1,
        "text_heads": 2,
        "text_mlp": 32,
        "fusion_layers": 2,
        "embed_dim": 8,
        "target_languages": ("zh", "fr"),
    }
    torch.manual_seed(3)
    settings = BeitXlmrEncoder.Config.model_validate({**small, **sizes})
    encoder = BeitXlmrEncoder.build(settings).eval()
    with torch.no_grad():
        for parameter in encoder.parameters():
            if parameter.ndim == 2:  # at the library's small start every pair would have nearly the same score
                parameter.normal_(std=1.5 / parameter.shape[1] ** 0.5)
    return Retriever(encoder, tokenizer, Preprocessing(settings.image_size))
