"""Words on patches, as pictures: bright where a word looks, dark elsewhere."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from tipr.report.content import Looked, WordLook, WordPatches
from tipr.report.pictures import shown, shown_jpeg
from tipr.retrieval import Retriever
from tipr.retrieval.word_maps import WordMap, word_maps

DARK = 0.2
"""What is left of a picture's light where a word has no part in it."""
LANGUAGES_ALONE = 3
"""From so many languages on, one caption of each is shown; below, all that were drawn."""

Caption = tuple[str, str, Path]
"""(language, words, the picture that they were written for)."""


def word_patches(
    retriever: Retriever,
    captions: Sequence[Caption],
    *,
    attention: bool,
    picture: Callable[[Path], Image.Image],
) -> WordPatches | None:
    """The words of captions on their pictures; None when no word of any brings its caption closer to its picture.

    Args:
        retriever: the model.
        captions: the drawn ones.
        attention: its fusion layers were trained, so their attention can be shown.
        picture: opens an image file.
    """
    languages = {language for language, _, _ in captions}
    chosen: list[Caption] = []
    for caption in captions:
        if len(languages) < LANGUAGES_ALONE or caption[0] not in {language for language, _, _ in chosen}:
            chosen.append(caption)
    examples = []
    for language, words, path in chosen:
        maps = word_maps(retriever, words, path, language=language, attention=attention)
        if maps:
            image = shown(picture(path))
            looks = tuple(_look(words, each, image) for each in maps)
            examples.append(Looked(language, _parts(words, maps), shown_jpeg(image), looks))
    if not examples:
        return None
    return WordPatches(attention, attention or retriever.encoder.patches_add_up, tuple(examples))


def spotlight(image: Image.Image, weights: NDArray[np.float32]) -> Image.Image:
    """The picture with its light scaled by `weights`, (rows, columns) from 0 to 1, smoothly between patches."""
    mask = np.asarray(Image.fromarray(weights).resize(image.size, Image.Resampling.BILINEAR), dtype=np.float32)
    light = DARK + (1 - DARK) * np.clip(mask, 0, 1)[..., None]
    return Image.fromarray((np.asarray(image.convert("RGB"), dtype=np.float32) * light).astype(np.uint8))


def _look(caption: str, word: WordMap, image: Image.Image) -> WordLook:
    sums = [float(third.sum()) for third in np.array_split(word.weights.sum(axis=1), 3)]
    upper, middle, lower = (100 * each / sum(sums) for each in sums)
    jpeg = shown_jpeg(spotlight(image, word.weights))
    return WordLook(caption[word.start : word.stop], jpeg, (upper, middle, lower), word.effect)


def _parts(caption: str, maps: Sequence[WordMap]) -> tuple[tuple[str, bool], ...]:
    parts, at = [], 0
    for word in maps:
        parts += [(caption[at : word.start], False), (caption[word.start : word.stop], True)]
        at = word.stop
    return tuple((text, marked) for text, marked in [*parts, (caption[at:], False)] if text)
