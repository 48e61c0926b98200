"""The two instructions of LDAT, as text files that anybody can edit: `translate.txt` and `rewrite.txt`.

A copy of this folder, edited, is named with `--prompts FOLDER`; a file that is not in it is taken from here.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from pathlib import Path

from tipr.errors import ConfigError
from tipr.translation.records import Item

FOLDER = Path(__file__).parent
"""Where the instructions of this package lie."""
FIELDS = ("source", "source_language", "language")
"""What stands in braces in an instruction; `source` must."""
LANGUAGE_NAMES = {"en": "English", "zh": "Chinese", "fr": "French", "de": "German"}
"""What a model is told; codes mean less to it."""
QUOTES = (
    ('"', '"'),
    ("“", "”"),
    ("„", "“"),
    ("„", "”"),
    ("«", "»"),
    ("「", "」"),
    ("『", "』"),
    ("'", "'"),
    ("‘", "’"),
)
"""Pairs that models put around a translation because the sentence came in quotation marks."""


@dataclass(frozen=True, slots=True)
class PromptTemplate:
    """One instruction with places for a caption and two languages.

    Attributes:
        name: "translate" or "rewrite".
        text: the instruction, `{source}`, `{source_language}` and `{language}` in it.
    """

    name: str
    text: str

    @property
    def sha256(self) -> str:
        """Hash of the instruction: stands in the provenance of every caption made with it."""
        return hashlib.sha256(self.text.encode()).hexdigest()

    def fill(self, item: Item) -> str:
        """The instruction for one caption; braces in the caption mean nothing."""
        values = {
            "source": " ".join(item.source.split()),
            "source_language": LANGUAGE_NAMES[item.source_language],
            "language": LANGUAGE_NAMES[item.language],
        }
        return re.sub(r"\{(\w+)\}", lambda match: values[match[1]], self.text)


def load_prompt(name: str, folder: Path | None = None) -> PromptTemplate:
    """Read an instruction.

    Args:
        name: "translate" or "rewrite".
        folder: looked in first; None: only this package.

    Raises:
        ConfigError: the folder is not there, or its file is not UTF-8, names an unknown field, or has no `{source}`.
    """
    if folder is not None and not folder.is_dir():
        raise ConfigError(f"no folder of prompts at {folder}")
    own = None if folder is None else folder / f"{name}.txt"
    path = own if own is not None and own.is_file() else FOLDER / f"{name}.txt"
    try:
        text = path.read_text(encoding="utf-8").strip()
    except UnicodeDecodeError:
        raise ConfigError(f"{path}: not UTF-8") from None
    named = re.findall(r"\{(\w+)\}", text)
    for field in named:
        if field not in FIELDS:
            raise ConfigError(f"{path}: unknown field {{{field}}}; allowed: {', '.join(f'{{{f}}}' for f in FIELDS)}")
    if "source" not in named:
        raise ConfigError(f"{path}: the caption has no place: write {{source}} where it belongs")
    return PromptTemplate(name, text)


def clean_answer(text: str, *, source: str) -> str:
    """The caption in a model's answer: one line, without thinking aloud and without quotation marks around it.

    Args:
        text: the answer as it came.
        source: the caption that was asked about; marks around it are its own, and stay in the translation.

    Returns:
        One line, possibly empty.
    """
    answer = text.rsplit("</think>", 1)[-1]  # models that reason put it before the answer
    answer = " ".join(answer.split())
    if source.strip().startswith(tuple(left for left, _ in QUOTES)):
        return answer
    for left, right in QUOTES:
        inner = answer[1:-1]
        whole = len(answer) >= 2 and answer.startswith(left) and answer.endswith(right)
        if whole and left not in inner and right not in inner:
            return inner.strip()
    return answer
