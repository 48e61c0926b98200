"""XLM-R's vocabulary, with the cleaning of captions that Bi-IRRA was trained with."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar, Self

from tokenizers import Regex, decoders, models, normalizers, pre_tokenizers
from tokenizers import Tokenizer as Engine

from tipr.encoders.sentencepiece_file import read_sentencepiece
from tipr.encoders.tokenizers import FILE_NAME, Tokenizer
from tipr.errors import ConfigError, WeightsError

SENTENCEPIECE = "sentencepiece.bpe.model"
SPECIAL = ("<s>", "<pad>", "</s>", "<unk>")
"""Ids 0 to 3."""
MASK = "<mask>"
"""The last id."""
BLANKED = re.compile(r'([.!"()*#:;~])')
RUNS = re.compile(r"\s{2,}")


def clean_caption(text: str, max_words: int = 77) -> str:
    """Prepare a caption of any language as Bi-IRRA does, in training and in search.

    Lower case; each of ``. ! " ( ) * # : ; ~`` becomes a blank; two or more white-space characters become one blank;
    white space at the ends goes; the first `max_words` blank-separated words stay. Text without blanks, such as
    Chinese, is never cut here. Source: the released code (spec section 4).

    Args:
        text: the caption.
        max_words: at most this many words.
    """
    text = RUNS.sub(" ", BLANKED.sub(" ", text.lower())).rstrip("\n").strip(" ")
    return " ".join(text.split(" ")[:max_words])


class XlmrTokenizer(Tokenizer):
    """XLM-R's subwords of cleaned captions: ``<s>`` 0, ``<pad>`` 1, ``</s>`` 2, ``<unk>`` 3, ``<mask>`` the last id.

    A caption that spells a special token does not get its id.

    Args:
        engine: of the tokenizers library.
        max_tokens: longest row, start and end included, at least 3; captions are cut to as many words before.

    Raises:
        ConfigError: `max_tokens` is below 3.
        ValueError: the special tokens have other ids.
    """

    kind: ClassVar[str] = "xlmr"

    def __init__(self, engine: Engine, *, max_tokens: int = 77) -> None:
        if max_tokens < 3:
            raise ConfigError(f"max_tokens must be at least 3, not {max_tokens}")
        self.vocabulary_size = engine.get_vocab_size()
        self.mask_id = self.vocabulary_size - 1
        wanted = {token: number for number, token in enumerate(SPECIAL)} | {MASK: self.mask_id}
        wrong = [token for token, number in wanted.items() if engine.token_to_id(token) != number]
        if wrong:
            raise ValueError(f"not XLM-R's vocabulary: {', '.join(wrong)} should have id {wanted[wrong[0]]}")
        engine.no_truncation()
        engine.no_padding()
        engine.encode_special_tokens = True
        self._engine = engine
        self.start_id, self.pad_id, self.end_id, self.unknown_id = range(len(SPECIAL))
        self.max_tokens = max_tokens
        self.maskable = (len(SPECIAL), self.mask_id)

    @classmethod
    def from_file(cls, path: Path | str, *, max_tokens: int = 77) -> Self:
        """Read XLM-R's `tokenizer.json`, its original `sentencepiece.bpe.model`, or a folder with one of them.

        Raises:
            WeightsError: there is none, it is damaged, or it is another vocabulary.
        """
        path = Path(path)
        if path.is_dir():
            found = [path / name for name in (FILE_NAME, SENTENCEPIECE) if (path / name).is_file()]
            if not found:
                raise WeightsError(f"no {FILE_NAME} and no {SENTENCEPIECE} in {path}")
            path = found[0]
        if not path.is_file():
            raise WeightsError(f"no vocabulary at {path}: XLM-R's makers publish {FILE_NAME} and {SENTENCEPIECE}")
        if path.suffix == ".model":
            return cls(_engine(path), max_tokens=max_tokens)
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            if isinstance(content, dict) and content.get("kind") == cls.kind:
                content = content["engine"]
            return cls.from_json({"max_tokens": max_tokens, "engine": content})
        except (OSError, ValueError, KeyError) as error:
            raise WeightsError(f"{path} is no XLM-R tokenizer: {' '.join(str(error).split())[:120]}") from None

    def pieces(self, captions: Sequence[str]) -> list[list[int]]:
        """Ids of each cleaned caption as a whole, without special tokens."""
        cleaned = [clean_caption(caption, self.max_tokens) for caption in captions]
        low, high = self.maskable
        return [
            # the vocabulary lists the special tokens as pieces too
            [number if low <= number < high else self.unknown_id for number in encoding.ids]
            for encoding in self._engine.encode_batch(cleaned, add_special_tokens=False)
        ]

    def decode(self, ids: Sequence[int]) -> str:
        """The text of a row of ids, special tokens left out (cleaned and normalised)."""
        low, high = self.maskable
        return str(self._engine.decode([number for number in ids if low <= number < high])).strip()

    def save(self, folder: Path) -> None:
        """Write `tokenizer.json`, without the line breaks that would double a quarter of a million pieces."""
        content = {"kind": self.kind, **self.to_json()}
        (folder / FILE_NAME).write_text(json.dumps(content, ensure_ascii=False) + "\n", encoding="utf-8")

    def to_json(self) -> dict[str, Any]:
        """The engine's own JSON and `max_tokens`."""
        return {"max_tokens": self.max_tokens, "engine": json.loads(self._engine.to_str())}

    @classmethod
    def from_json(cls, content: dict[str, Any]) -> Self:
        """The tokenizer that `to_json` described."""
        text = json.dumps(content["engine"])
        try:
            engine = Engine.from_str(text)
        except Exception as error:  # the engine raises bare Exception for every defect of its JSON
            raise ValueError(str(error)) from None
        return cls(engine, max_tokens=int(content["max_tokens"]))


def _engine(path: Path) -> Engine:
    """The original file's vocabulary as XLM-R numbers it: four special tokens in front, the mask token behind.

    Raises:
        WeightsError: see `read_sentencepiece`.
    """
    file = read_sentencepiece(path)
    vocabulary = [*((token, 0.0) for token in SPECIAL), *file.pieces[3:], (MASK, 0.0)]
    engine = Engine(models.Unigram(vocabulary, unk_id=SPECIAL.index("<unk>"), byte_fallback=False))
    steps = [normalizers.Precompiled(file.replacements)] if file.replacements else []
    engine.normalizer = normalizers.Sequence([*steps, normalizers.Replace(Regex(" {2,}"), " ")])
    engine.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace(replacement="▁", prepend_scheme="always")]
    )
    engine.decoder = decoders.Metaspace(replacement="▁", prepend_scheme="always")
    engine.add_special_tokens([*SPECIAL, MASK])
    return engine
