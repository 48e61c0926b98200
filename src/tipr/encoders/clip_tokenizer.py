"""CLIP's byte-pair tokenizer with IRRA's mask token, from the merge list that users get with the CLIP weights."""

from __future__ import annotations

import gzip
import html
import unicodedata
from collections.abc import Sequence
from functools import cached_property, lru_cache
from itertools import pairwise
from pathlib import Path
from typing import Any, ClassVar, Self

import regex

from tipr.encoders.tokenizers import Tokenizer
from tipr.errors import ConfigError, WeightsError

PUBLISHED_MERGES = 48_894
"""Merges that CLIP takes from its published list; the file goes on with more."""

END_OF_WORD = "</w>"
MASK, START, END = "<|mask|>", "<|startoftext|>", "<|endoftext|>"
PIECE = regex.compile(
    r"<\|mask\|>|<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+",
    regex.IGNORECASE,
)
Merge = tuple[str, str]

# What ftfy does to ordinary captions without guessing: curly quotes, full-width forms, ligatures, control characters.
_SINGLE_QUOTES = dict.fromkeys((0x02BC, *range(0x2018, 0x201C)), "'")
_DOUBLE_QUOTES = dict.fromkeys(range(0x201C, 0x2020), '"')
_COMPATIBILITY = {
    code: unicodedata.normalize("NFKC", chr(code)) for code in (0x3000, *range(0xFB00, 0xFB07), *range(0xFF01, 0xFFF0))
}
_CONTROL = dict.fromkeys((*range(0x00, 0x09), 0x0B, *range(0x0E, 0x20), 0x7F, 0xFEFF))
_PLAIN = {**_SINGLE_QUOTES, **_DOUBLE_QUOTES, **_COMPATIBILITY, **_CONTROL}


def clean(caption: str) -> str:
    """A caption as CLIP tokenizes it: HTML unescaped twice, quotes and widths plain, blanks collapsed, lower case.

    CLIP repairs mis-decoded text ("mojibake") with the package ftfy here. That guesswork is left out, so that ids never
    depend on what is installed; what ftfy does to well-formed text is done.
    """
    plain = unicodedata.normalize("NFC", html.unescape(html.unescape(caption)).translate(_PLAIN))
    return " ".join(plain.split()).lower()


class ClipTokenizer(Tokenizer):
    """Lower-cased byte-pair encoding of CLIP; the last merged symbol makes room for the mask token.

    Ids: 256 byte symbols, the same with an end-of-word mark, one symbol for each merge but the last, then mask, start,
    end. Padding is 0, which is also the byte symbol "!" inside a word. The published list gives mask 49405, start
    49406, end 49407, 49,408 rows. The merge whose symbol was given up is dropped too (the published code keeps it and
    fails on a caption with the word "jekyll"). Source: IRRA (CVPR 2023) and its code.

    Args:
        merges: pairs of symbols in order of priority, the one to give up last.
        max_tokens: longest row, start and end included, at least 3.

    Raises:
        ConfigError: there is no merge, or `max_tokens` is below 3.
    """

    kind: ClassVar[str] = "clip"

    def __init__(self, merges: Sequence[Merge], *, max_tokens: int = 77) -> None:
        if not merges:
            raise ConfigError("the merge list is empty")
        if max_tokens < 3:
            raise ConfigError(f"max_tokens must be at least 3, not {max_tokens}")
        self._merges = tuple(merges)
        kept = self._merges[:-1]
        self._rank = {pair: rank for rank, pair in enumerate(kept)}
        symbols = list(byte_symbols().values())
        vocabulary = [*symbols, *(s + END_OF_WORD for s in symbols), *("".join(p) for p in kept), MASK, START, END]
        self._id = {symbol: position for position, symbol in enumerate(vocabulary)}
        self.vocabulary_size = len(vocabulary)
        self.mask_id, self.start_id, self.end_id = range(len(vocabulary) - 3, len(vocabulary))
        self.pad_id = 0
        self.max_tokens = max_tokens
        self.maskable = (1, self.mask_id)
        self._ids_of_piece = lru_cache(maxsize=65536)(self._merge)

    @classmethod
    def from_file(cls, path: Path | str, *, max_tokens: int = 77) -> Self:
        """Read CLIP's merge list (`bpe_simple_vocab_16e6.txt.gz`, or the same unpacked).

        The first line is a header; a pair a line follows, of which the first 48,894 count.

        Raises:
            WeightsError: the file is missing or is no merge list.
        """
        path = Path(path)
        try:
            data = path.read_bytes()
            text = (gzip.decompress(data) if data[:2] == b"\x1f\x8b" else data).decode("utf-8")
        except FileNotFoundError:
            raise WeightsError(f"no merge list at {path}: it comes with the CLIP weights") from None
        except (OSError, EOFError, UnicodeDecodeError) as error:
            raise WeightsError(f"cannot read the merge list {path}: {error}") from None
        lines = text.split("\n")[1 : 1 + PUBLISHED_MERGES]
        while lines and not lines[-1].strip():
            lines.pop()
        return cls(_pairs(lines, str(path)), max_tokens=max_tokens)

    def pieces(self, captions: Sequence[str]) -> list[list[int]]:
        """Ids of each caption as a whole, without start and end."""
        return [
            [i for piece in PIECE.findall(clean(caption)) for i in self._ids_of_piece(piece)] for caption in captions
        ]

    def decode(self, ids: Sequence[int]) -> str:
        """The text of a row of ids, special tokens and padding left out (lower case, blanks between pieces)."""
        text = "".join(self._symbol[i] for i in ids if 0 < i < self.mask_id)
        byte = {symbol: value for value, symbol in byte_symbols().items()}
        words = (bytes(byte[c] for c in word) for word in text.split(END_OF_WORD))
        return b" ".join(words).decode("utf-8", errors="replace").strip()

    def to_json(self) -> dict[str, Any]:
        """The merge list and `max_tokens`."""
        return {"max_tokens": self.max_tokens, "merges": [" ".join(pair) for pair in self._merges]}

    @classmethod
    def from_json(cls, content: dict[str, Any]) -> Self:
        """The tokenizer that `to_json` described."""
        return cls(_pairs([str(line) for line in content["merges"]], "merges"), max_tokens=int(content["max_tokens"]))

    @cached_property
    def _symbol(self) -> dict[int, str]:
        return {position: symbol for symbol, position in self._id.items()}

    def _merge(self, piece: str) -> tuple[int, ...]:
        """Ids of one piece: its bytes, joined by the best-ranked merge until none applies."""
        if piece in (MASK, START, END):
            return (self._id[piece],)
        symbol_of = byte_symbols()
        word = [symbol_of[byte] for byte in piece.encode("utf-8")]
        word[-1] += END_OF_WORD
        while len(word) > 1:
            best = min(pairwise(word), key=lambda pair: self._rank.get(pair, len(self._rank)))
            if best not in self._rank:
                break
            joined: list[str] = []
            for symbol in word:
                if joined and (joined[-1], symbol) == best:
                    joined[-1] += symbol
                else:
                    joined.append(symbol)
            word = joined
        return tuple(self._id[symbol] for symbol in word)


@lru_cache(maxsize=1)
def byte_symbols() -> dict[int, str]:
    """Byte -> printable character, in the order of CLIP's ids: printable Latin-1 first, the others moved up by 256."""
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    others = [byte for byte in range(256) if byte not in printable]
    return {**{byte: chr(byte) for byte in printable}, **{byte: chr(256 + n) for n, byte in enumerate(others)}}


def _pairs(lines: Sequence[str], source: str) -> list[Merge]:
    pairs = []
    for number, line in enumerate(lines, start=1):
        parts = line.split()
        if len(parts) != 2:
            raise WeightsError(f"{source}: merge {number} is not a pair of symbols: {line[:40]!r}")
        pairs.append((parts[0], parts[1]))
    return pairs
