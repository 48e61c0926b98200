"""What can be wrong with a data set, as counted findings with a few examples each; one table of kinds."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal

Level = Literal["error", "warning", "note"]
"""An error makes the data set unusable, a warning is to be known, a note is neither."""

EXAMPLES = 5
"""Examples kept of each kind."""

KINDS: dict[str, tuple[Level, str]] = {
    # records
    "not_a_record": ("error", "{n} [record is no JSON object|records are no JSON objects]"),
    "no_image": ("error", "{n} [record names|records name] no image"),
    "bad_path": (
        "error",
        "{n} image [path leaves|paths leave] the folder of the data set, or [holds|hold] control characters",
    ),
    "bad_identity": ("error", "{n} [record has|records have] no integer id"),
    "no_captions": ("error", "{n} [record has|records have] no list of captions"),
    "bad_caption": ("error", "{n} [caption is|captions are] no text"),
    "unknown_split": ("error", "{n} [record has|records have] an unknown split"),
    "no_split": ("error", "{n} [record has|records have] no split"),
    "two_splits": ("error", "{n} [image is|images are] in two splits"),
    "two_identities": ("error", "{n} [image has|images have] two ids"),
    "same_file": ("error", "{n} [record means|records mean] the image file of another one"),
    "misaligned": (
        "error",
        "{n} [entry differs|entries differ] between the languages' files, which are matched by position",
    ),
    "text_identity": ("note", "{n} [id is|ids are] written as text"),
    "joined": ("note", "{n} [image has|images have] several records; their captions were joined"),
    "box": (
        "error",
        "{n} [record has|records have] a box: training and evaluation read whole images, save the crops first",
    ),
    # identities and splits
    "train_identity_elsewhere": ("error", "{n} [identity|identities] of train [is|are] in val or test as well"),
    "val_identity_in_test": ("warning", "{n} [identity|identities] of val [is|are] in test as well"),
    "single_image": (
        "note",
        "{n} [identity has|identities have] a single image, so that [its|their] captions have exactly one match",
    ),
    "without_identity": (
        "warning",
        "{n} [image has|images have] no identity: only methods that learn from pairs can use them",
    ),
    "counts": ("warning", "{n} [count differs|counts differ] from the official ones"),
    "other_export": ("warning", "{n} [count differs|counts differ] between the annotation files that lie here"),
    "language_missing": ("warning", "{n} of the published languages [is|are] not here"),
    "split_missing": ("warning", "{n} of the published splits [is|are] not here"),
    # files
    "missing": ("error", "{n} [image is|images are] missing"),
    "left_out": ("warning", "{n} [image is|images are] missing and left out"),
    "unreadable": ("error", "{n} [image|images] cannot be read"),
    "case": ("warning", "{n} image [file differs|files differ] from the annotation in capital letters"),
    "suffix": ("warning", "{n} image [file has|files have] another suffix than the annotation says"),
    "unlisted": ("note", "{n} image [file is|files are] in no record"),
    # captions
    "empty": ("warning", "{n} [caption is|captions are] empty"),
    "twice": ("warning", "{n} [caption stands|captions stand] twice with the same image"),
    "shared": ("warning", "{n} caption [text is|texts are] shared by several identities"),
    "foreign": ("warning", "{n} [caption holds|captions hold] signs that are foreign to [its|their] language"),
    "code": ("warning", "{n} [caption holds|captions hold] fragments of program text"),
    "untranslated": ("warning", "{n} [caption is|captions are] the English text under another language"),
    "long": ("warning", "{n} [caption is|captions are] longer than the model reads"),
}
"""kind -> (level, sentence); `{n}` is the count, `[one|many]` goes with it."""


@dataclass(frozen=True, slots=True)
class Problem:
    """One kind of finding: how often, what more there is to say, and the first few places."""

    kind: str
    count: int
    detail: str = ""
    examples: tuple[str, ...] = ()

    @property
    def level(self) -> Level:
        """How bad it is."""
        return KINDS[self.kind][0]

    @property
    def message(self) -> str:
        """The finding as a sentence."""
        sentence = re.sub(r"\[(.*?)\|(.*?)\]", r"\1" if self.count == 1 else r"\2", KINDS[self.kind][1])
        return sentence.format(n=f"{self.count:,}") + (f": {self.detail}" if self.detail else "")

    def line(self) -> str:
        """The sentence with its first example."""
        return f"{self.message}, first {self.examples[0]}" if self.examples else self.message

    def to_json(self) -> dict[str, Any]:
        """A tree of JSON values."""
        return {
            "kind": self.kind,
            "level": self.level,
            "count": self.count,
            "message": self.message,
            "examples": list(self.examples),
        }


class Problems:
    """Counts findings by kind and keeps the first few examples of each."""

    def __init__(self) -> None:
        self._found: dict[str, Problem] = {}

    def add(self, kind: str, example: str = "", *, count: int = 1, detail: str = "") -> None:
        """Note `count` findings of a kind; a `detail` is put behind its sentence.

        Raises:
            ValueError: `KINDS` has no such kind.
        """
        if kind not in KINDS:
            raise ValueError(f"unknown kind of problem {kind!r}")
        before = self._found.get(kind, Problem(kind, 0))
        examples = before.examples
        if example and len(examples) < EXAMPLES:
            examples = (*examples, example)
        self._found[kind] = Problem(kind, before.count + count, detail or before.detail, examples)

    def extend(self, found: Iterable[Problem]) -> None:
        """Take over what another part found, kinds that are new here."""
        for problem in found:
            self._found[problem.kind] = problem

    def found(self) -> tuple[Problem, ...]:
        """What was noted, in the order of `KINDS`."""
        return tuple(self._found[kind] for kind in KINDS if kind in self._found)
