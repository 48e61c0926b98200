"""Reads the original vocabulary file of XLM-R (`sentencepiece.bpe.model`) without the libraries that write it.

The file is one Protocol Buffers message: pieces with scores, and a table of character replacements that the tokenizers
library takes as it is.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tipr.errors import WeightsError

PIECES, TRAINER, NORMALISER = 1, 2, 3
"""Fields of the message."""
UNIGRAM = 1
FIRST_PIECES = ("<unk>", "<s>", "</s>")


@dataclass(frozen=True)
class SentencePieceFile:
    """What the file holds.

    Attributes:
        pieces: (text, logarithm of its probability), in the order of its ids.
        replacements: the compiled table of character replacements.
    """

    pieces: tuple[tuple[str, float], ...]
    replacements: bytes


def read_sentencepiece(path: Path) -> SentencePieceFile:
    """Read a unigram model.

    Raises:
        WeightsError: missing or damaged file, or another kind of model than XLM-R's.
    """
    try:
        message = path.read_bytes()
    except OSError as error:
        raise WeightsError(f"cannot read {path}: {error.strerror}") from None
    pieces: list[tuple[str, float]] = []
    kind: int | bytes = UNIGRAM
    replacements = b""
    try:
        for number, value in _fields(message):
            if number == PIECES:
                piece = dict(_fields(_bytes(value)))
                pieces.append((_bytes(piece[1]).decode("utf-8"), struct.unpack("<f", _bytes(piece[2]))[0]))
            elif number == TRAINER:
                kind = dict(_fields(_bytes(value))).get(3, UNIGRAM)
            elif number == NORMALISER:
                replacements = _bytes(dict(_fields(_bytes(value))).get(2, b""))
    except (ValueError, KeyError, IndexError, struct.error):
        raise WeightsError(f"{path} is no SentencePiece model, or is damaged") from None
    if kind != UNIGRAM or tuple(text for text, _ in pieces[:3]) != FIRST_PIECES:
        raise WeightsError(
            f"{path} is not XLM-R's: expected a unigram model that begins with {', '.join(FIRST_PIECES)}"
        )
    return SentencePieceFile(tuple(pieces), replacements)


def _fields(message: bytes) -> Iterator[tuple[int, int | bytes]]:
    """(number, value) of a message's fields; what is neither an integer nor bytes comes as its bytes."""
    position = 0
    while position < len(message):
        key, position = _integer(message, position)
        kind = key & 7
        if kind == 0:
            value, position = _integer(message, position)
            yield key >> 3, value
            continue
        size = {1: 8, 5: 4}.get(kind, 0)
        if kind == 2:
            size, position = _integer(message, position)
        elif not size:
            raise ValueError(f"no field of kind {kind}")
        if position + size > len(message):
            raise IndexError("cut off")
        yield key >> 3, message[position : position + size]
        position += size


def _integer(message: bytes, position: int) -> tuple[int, int]:
    """A number in groups of seven bits, lowest first, and where it ends."""
    value = shift = 0
    while True:
        byte = message[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position
        shift += 7


def _bytes(value: int | bytes) -> bytes:
    if isinstance(value, int):
        raise ValueError("a number where text should be")
    return value
