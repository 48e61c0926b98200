"""Words of a caption without a language model: letters between blanks and signs; in Chinese every Han sign is one."""

from __future__ import annotations

import re

_HAN = "㐀-䶿一-鿿豈-﫿"
_WORD = re.compile(rf"[{_HAN}]|[^\W\d_{_HAN}]+(?:['’-][^\W\d_{_HAN}]+)*|\d+")
_PIECE = re.compile(r"'(?:s|t|re|ve|m|ll|d)|[^\W\d_]+|\d|(?:[^\w\s]|_)+")


def words(text: str) -> list[str]:
    """The words of a caption in any of the four languages, in small letters, in order."""
    return _WORD.findall(text.lower())


def fewest_tokens(text: str) -> int:
    """A lower bound on what a CLIP tokenizer makes of an English, French or German text, start and end included.

    It cuts a text into words, single digits and runs of signs first, and each of them is one token or more: a text
    over the limit by this count is cut for sure, others may be as well.
    """
    return len(_PIECE.findall(text.lower())) + 2
