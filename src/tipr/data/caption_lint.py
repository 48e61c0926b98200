"""What is odd about captions: empty, repeated, shared by people, foreign signs, program text, untranslated, long."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

from tipr.data.caption_words import fewest_tokens
from tipr.data.manifest import Record
from tipr.data.problems import Problem, Problems

TOKEN_LIMIT = 77
"""Tokens that CLIP and the published models read of a caption, start and end included."""
_LATIN = "\t\n\r -~\xa0-ɏḀ-ỿ‐-…′″‹›⁄€™"
_FOREIGN_TO_LATIN = re.compile(f"[^{_LATIN}]")
_FOREIGN_TO_CHINESE = re.compile(f"[^{_LATIN}　-〿㐀-䶿一-鿿豈-﫿！-～￠-￦]")
_HAN = re.compile("[㐀-䶿一-鿿]")
_CODE = re.compile(
    r"[{}\\<>]|==|\w\(\)|\w\.\w+\(|https?://|__|\b(?:(?:def|elif|lambda|import)\b|self\.|print\()|\w\.(?:py|jpe?g|png|json|txt)\b"
)
_SHOWN = 60

CountTokens = Callable[[Sequence[str]], Sequence[int]]
"""Captions -> number of tokens of each, start and end included."""


def lint_captions(
    records: Sequence[Record], *, limit: int = TOKEN_LIMIT, count_tokens: CountTokens | None = None
) -> tuple[Problem, ...]:
    """Look at every caption of a data set.

    Args:
        records: all records, of all splits.
        limit: tokens that the model reads, start and end included.
        count_tokens: the model's own tokenizer; without one a lower bound is used, which Chinese does not have.

    Returns:
        Counted findings with examples; the text of an example is shortened.
    """
    problems = Problems()
    owners: dict[tuple[str, str], int | str | None] = {}
    shared: dict[tuple[str, str], str] = {}
    for record in records:
        seen: set[tuple[str, str]] = set()
        english = {" ".join(caption.text.lower().split()) for caption in record.captions if caption.language == "en"}
        for caption in record.captions:
            place = f"{record.image}: {_short(caption.text)}"
            plain = " ".join(caption.text.lower().split())
            if not plain:
                problems.add("empty", record.image)
                continue
            key = caption.language, plain
            if key in seen:
                problems.add("twice", place)
            elif record.identity is not None and owners.setdefault(key, record.identity) != record.identity:
                shared[key] = f"{caption.text!r} of {owners[key]} and {record.identity}"
            seen.add(key)
            if foreign_sign(caption.text, caption.language):
                problems.add("foreign", place)
            if _CODE.search(caption.text):
                problems.add("code", place)
            if caption.language != "en" and plain in english:
                problems.add("untranslated", f"{place} ({caption.language})")
    for example in shared.values():
        problems.add("shared", example)
    _lint_lengths(records, limit, count_tokens, problems)
    return problems.found()


def foreign_sign(text: str, language: str) -> str | None:
    """The first sign that does not belong to a language, or None; Chinese without a Han sign is foreign as a whole."""
    pattern = _FOREIGN_TO_CHINESE if language == "zh" else _FOREIGN_TO_LATIN
    found = pattern.search(text)
    if found is not None:
        return found.group()
    return text.strip()[:1] or None if language == "zh" and not _HAN.search(text) else None


def _lint_lengths(records: Sequence[Record], limit: int, count_tokens: CountTokens | None, problems: Problems) -> None:
    captions = [(record.image, caption) for record in records for caption in record.captions]
    detail = f"over {limit} tokens"
    if count_tokens is None:
        captions = [(image, caption) for image, caption in captions if caption.language != "zh"]
        lengths: Sequence[int] = [fewest_tokens(caption.text) for _, caption in captions]
        detail += " at least, counted in words and signs"
    else:
        lengths = count_tokens([caption.text for _, caption in captions])
    for (image, caption), length in zip(captions, lengths, strict=True):
        if length > limit:
            problems.add("long", f"{image}: {length} tokens: {_short(caption.text)}", detail=detail)


def _short(text: str) -> str:
    return repr(text if len(text) <= _SHOWN else text[: _SHOWN - 1] + "…")
