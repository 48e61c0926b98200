"""From captions to token ids: what every tokenizer gives, and the four-language subword vocabulary.

A tokenizer travels with its model as one file, `tokenizer.json`: `{"kind": ..., "max_tokens": ..., ...}`. A kind is one
class and one entry in `TOKENIZERS`.
"""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
import numpy.typing as npt
from tokenizers import Tokenizer as Engine
from tokenizers import decoders, models, normalizers, pre_tokenizers, trainers

from tipr.errors import ConfigError, WeightsError

FILE_NAME = "tokenizer.json"
Ids = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]


class Tokenizer(ABC):
    """Maps captions to rows of token ids.

    Attributes:
        kind: key in `TOKENIZERS`.
        pad_id, start_id, end_id, mask_id: the special tokens.
        vocabulary_size: all ids lie in [0, vocabulary_size).
        max_tokens: longest row, start and end included; longer captions are cut before the end token.
        maskable: (low, high); ids in [low, high) may be hidden, or put in place of another, for MLM.
    """

    kind: ClassVar[str]
    pad_id: int
    start_id: int
    end_id: int
    mask_id: int
    vocabulary_size: int
    max_tokens: int
    maskable: tuple[int, int]

    @abstractmethod
    def pieces(self, captions: Sequence[str]) -> list[list[int]]:
        """Ids of each caption as a whole, without special tokens."""

    @abstractmethod
    def to_json(self) -> dict[str, Any]:
        """Everything that `from_json` needs, besides `kind`."""

    @classmethod
    @abstractmethod
    def from_json(cls, content: dict[str, Any]) -> Self:
        """The tokenizer that `to_json` described.

        Raises:
            KeyError, TypeError, ValueError: the content is not of this kind.
        """

    def encode(self, captions: Sequence[str], *, trim: bool = False) -> tuple[Ids, Mask]:
        """Token ids of N captions: start, the caption, end, padding.

        Args:
            captions: N texts in any language; an empty text is start, end.
            trim: cut the rows at the longest caption given instead of `max_tokens`.

        Returns:
            ids: (N, L) int64; L = `max_tokens`, or less with `trim`.
            mask: (N, L) bool, True at real tokens, start and end included.
        """
        rows = [[self.start_id, *row[: self.max_tokens - 2], self.end_id] for row in self.pieces(captions)]
        length = max((len(row) for row in rows), default=2) if trim else self.max_tokens
        ids = np.full((len(rows), length), self.pad_id, dtype=np.int64)
        mask = np.zeros((len(rows), length), dtype=np.bool_)
        for position, row in enumerate(rows):
            ids[position, : len(row)] = row
            mask[position, : len(row)] = True
        return ids, mask

    def save(self, folder: Path) -> None:
        """Write `tokenizer.json` into an existing folder."""
        content = {"kind": self.kind, **self.to_json()}
        (folder / FILE_NAME).write_text(json.dumps(content, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")


class SubwordTokenizer(Tokenizer):
    """Byte-level BPE learned from the captions themselves; any text in any script has ids (Sennrich et al., 2016).

    Text is brought to NFKC and lower case, so that full-width Chinese punctuation and capital letters cost nothing.
    A token is at most `LONGEST_TOKEN` bytes, that is four Han characters: whole phrases must not become one token,
    because the image branch learns from words.

    Args:
        engine: a trained byte-level engine whose first ids are `SPECIAL`.
        max_tokens: longest row, start and end included, at least 3.

    Raises:
        ConfigError: `max_tokens` is below 3.
    """

    kind: ClassVar[str] = "subword"
    SPECIAL: ClassVar[tuple[str, ...]] = ("<pad>", "<start>", "<end>", "<mask>")
    LONGEST_TOKEN: ClassVar[int] = 12
    SMALLEST_VOCABULARY: ClassVar[int] = len(SPECIAL) + 256

    def __init__(self, engine: Engine, *, max_tokens: int) -> None:
        if max_tokens < 3:
            raise ConfigError(f"max_tokens must be at least 3, not {max_tokens}")
        self._engine = engine
        self.pad_id, self.start_id, self.end_id, self.mask_id = range(len(self.SPECIAL))
        self.vocabulary_size = engine.get_vocab_size()
        self.max_tokens = max_tokens
        self.maskable = (len(self.SPECIAL), self.vocabulary_size)

    @classmethod
    def train(cls, captions: Iterable[str], *, vocabulary_size: int, max_tokens: int) -> Self:
        """Learn the vocabulary; the same captions in any order give the same one.

        Args:
            captions: training captions of all languages.
            vocabulary_size: at most this many ids, special tokens and 256 bytes included; fewer when the captions
                hold no more pairs to merge.
            max_tokens: longest row, start and end included.

        Raises:
            ConfigError: `vocabulary_size` cannot hold the bytes, or `max_tokens` is below 3.
        """
        if vocabulary_size < cls.SMALLEST_VOCABULARY:
            raise ConfigError(f"vocabulary_size must be at least {cls.SMALLEST_VOCABULARY}, not {vocabulary_size}")
        engine = Engine(models.BPE())
        engine.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Lowercase()])
        engine.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
        engine.decoder = decoders.ByteLevel()
        trainer = trainers.BpeTrainer(
            vocab_size=vocabulary_size,
            min_frequency=2,
            special_tokens=list(cls.SPECIAL),
            initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
            max_token_length=cls.LONGEST_TOKEN,
            show_progress=False,
        )
        engine.train_from_iterator(captions, trainer=trainer)
        # Without this, a query that spells "<mask>" would become that token.
        engine.encode_special_tokens = True
        return cls(engine, max_tokens=max_tokens)

    def pieces(self, captions: Sequence[str]) -> list[list[int]]:
        """Ids of each caption as a whole, without special tokens."""
        return [encoding.ids for encoding in self._engine.encode_batch(list(captions), add_special_tokens=False)]

    def decode(self, ids: Sequence[int]) -> str:
        """The text of a row of ids, special tokens left out (normalised: NFKC, lower case)."""
        return str(self._engine.decode([i for i in ids if i >= len(self.SPECIAL)])).strip()

    def to_json(self) -> dict[str, Any]:
        """The engine's own JSON and `max_tokens`."""
        return {"max_tokens": self.max_tokens, "engine": json.loads(self._engine.to_str())}

    @classmethod
    def from_json(cls, content: dict[str, Any]) -> Self:
        """The tokenizer that `to_json` described."""
        try:
            engine = Engine.from_str(json.dumps(content["engine"]))
        except KeyError:
            raise
        except Exception as error:  # the engine raises bare Exception for every defect of its JSON
            raise ValueError(str(error)) from None
        if [engine.token_to_id(token) for token in cls.SPECIAL] != list(range(len(cls.SPECIAL))):
            raise ValueError(f"the first tokens are not {', '.join(cls.SPECIAL)}")
        engine.encode_special_tokens = True
        return cls(engine, max_tokens=int(content["max_tokens"]))


def _clip() -> type[Tokenizer]:
    from tipr.encoders.clip_tokenizer import ClipTokenizer

    return ClipTokenizer


def _xlmr() -> type[Tokenizer]:
    from tipr.encoders.xlmr_tokenizer import XlmrTokenizer

    return XlmrTokenizer


def _subword() -> type[Tokenizer]:
    return SubwordTokenizer


TOKENIZERS: dict[str, Callable[[], type[Tokenizer]]] = {"clip": _clip, "subword": _subword, "xlmr": _xlmr}
"""Kind -> function that imports and returns the class."""


def load_tokenizer(folder: Path) -> Tokenizer:
    """Read the `tokenizer.json` of a model folder, whatever its kind.

    Raises:
        WeightsError: the file is missing, damaged or of an unknown kind.
    """
    path = Path(folder) / FILE_NAME
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise WeightsError(f"no {FILE_NAME} in {folder}") from None
    except (OSError, ValueError) as error:
        raise WeightsError(f"cannot read {path}: {error}") from None
    kind = content.get("kind") if isinstance(content, dict) else None
    if kind not in TOKENIZERS:
        raise WeightsError(f"{path}: kind must be one of {', '.join(sorted(TOKENIZERS))}, not {kind!r}")
    try:
        return TOKENIZERS[kind]().from_json(content)
    except (KeyError, TypeError, ValueError) as error:
        raise WeightsError(f"{path} is damaged: {' '.join(str(error).split())}") from None
