"""Which patches of a picture the words of a caption go with."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray

if TYPE_CHECKING:
    from tipr.retrieval.retriever import Retriever

SMALLEST_SHARE = 0.1
"""A word that adds less than this share of what the strongest word adds has no map."""
_HAN = "\u3400-\u9fff\uf900-\ufaff"
_LETTER = rf"(?:(?![{_HAN}])\w)"
_UNIT = re.compile(
    # Chinese writes no spaces: a phrase ends behind a particle or "a piece of", before "and", or with the characters
    rf"[{_HAN}]+?(?:(?<=[的着了])|(?<=一[件条双位名个顶只副款种])|(?=[和与及并或])|(?![{_HAN}]))"
    rf"|{_LETTER}+(?:['’-]{_LETTER}+)*"
)


@dataclass(frozen=True, eq=False, slots=True)
class WordMap:
    """One word of a caption on one picture.

    Attributes:
        start, stop: the word is `caption[start:stop]`.
        effect: what the word adds to the cosine similarity of caption and picture.
        weights: (rows, columns) float32 from 0 to 1, the largest is 1.
    """

    start: int
    stop: int
    effect: float
    weights: NDArray[np.float32]


def word_spans(caption: str) -> list[tuple[int, int]]:
    """(start, stop) of the words, or in Chinese of short phrases; punctuation belongs to none."""
    return [found.span() for found in _UNIT.finditer(caption)]


def word_maps(
    retriever: Retriever, caption: str, image: Path, *, language: str | None, attention: bool, count: int = 6
) -> list[WordMap]:
    """Maps of the words that add most to the similarity of a caption and a picture, in the caption's order.

    What a word adds is the difference that leaving it out makes to the caption's vector. Without `attention`, the map
    is the product of that difference with every patch in the joint space, less the mean over the patches, where it is
    above 0. With it, the map is the attention of the word's tokens on the patches in the fusion layers.

    Args:
        retriever: the model.
        caption: in one of its languages.
        image: the picture.
        language: of the caption, for its projection.
        attention: show the fusion layers' attention; only where `encoder.can_rerank` and those layers were trained.
        count: words at most; fewer when fewer bring the two closer by a share worth showing.

    Raises:
        ConfigError: attention of an encoder without fusion layers.
        tipr.data.images.ImageProblem: the picture cannot be read.
    """
    spans = word_spans(caption)
    if not spans:
        return []
    without = [" ".join((caption[:start] + " " + caption[stop:]).split()) for start, stop in spans]
    rows = retriever.encode_text([caption, *without], language=language)
    added = rows[0] - rows[1:]
    effects = added @ retriever.encode_images([image])[0]
    least = max(SMALLEST_SHARE * float(effects.max()), np.finfo(np.float32).eps)
    best = sorted(place for place in np.argsort(-effects, kind="stable")[:count] if effects[place] > least)
    maps = (
        _attended(retriever, caption, image, [spans[place] for place in best])
        if attention
        else _added(retriever, image, added[best])
    )
    return [
        WordMap(spans[place][0], spans[place][1], float(effects[place]), (weights / weights.max()).astype(np.float32))
        for place, weights in zip(best, maps, strict=True)
        if weights.max() > 0
    ]


def _added(retriever: Retriever, image: Path, added: NDArray[np.float32]) -> list[NDArray[np.float32]]:
    """(rows, columns) >= 0 each: where the picture holds what each of the (n, D) differences points to."""
    with torch.inference_mode():
        pixels = retriever.preprocessing([image]).to(retriever.device)
        patches = retriever.encoder.eval().patch_features(pixels)[0].float().cpu().numpy()
    patches = patches - patches.mean(axis=(0, 1))
    return [np.maximum(patches @ word, 0) for word in added]


def _attended(
    retriever: Retriever, caption: str, image: Path, spans: list[tuple[int, int]]
) -> list[NDArray[np.float32]]:
    """(rows, columns) attention of the words at these places; all 0 for a word beyond the model's longest text."""
    grid = retriever.encoder.grid
    words, mask = retriever.text_tokens([caption])
    pictures = torch.from_numpy(retriever.image_tokens([image])).float().to(retriever.device)
    with torch.inference_mode():
        weights = retriever.encoder.attention(
            torch.from_numpy(words).to(retriever.device), torch.from_numpy(mask).to(retriever.device), pictures
        )[0, :, -grid[0] * grid[1] :]
    seen = weights.reshape(-1, *grid).cpu().numpy()
    last = int(mask.sum()) - 1  # the end token
    maps = []
    for start, stop in spans:
        before, until = (len(row) for row in retriever.tokenizer.pieces([caption[:start].rstrip(), caption[:stop]]))
        tokens = seen[1 + before : min(1 + max(until, before + 1), last)]
        maps.append(tokens.mean(axis=0) if len(tokens) else np.zeros(grid, dtype=np.float32))
    return maps
