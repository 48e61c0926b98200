"""What is looked for: words, a picture of someone alike, both, and what it must not look like."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tipr.errors import ConfigError, GalleryError

Vector = NDArray[np.float32]
KEYS = {"text": str, "image": str, "image_weight": float, "not": str, "not_weight": float}
"""What a line of a `.jsonl` file of queries can say, and its type."""


@dataclass(frozen=True, slots=True)
class Query:
    """At least words or a picture.

    The parts are unit vectors t, i and n of one space; the query is the unit vector along
    (1 - image_weight) t + image_weight i - not_weight n, so that a score is a cosine whatever the parts.

    Attributes:
        text: words in one of the model's languages.
        image: a picture; who looks like this one is looked for.
        image_weight: share of the picture beside the words, 0 to 1; the words have the rest.
        without: words for what it must not look like.
        without_weight: how much they push away, above 0 to 1.
    """

    text: str | None = None
    image: Path | None = None
    image_weight: float = 0.5
    without: str | None = None
    without_weight: float = 0.5

    def __post_init__(self) -> None:
        if self.text is None and self.image is None:
            raise ConfigError("the query is empty: describe a person in words, or give a picture")
        for name, words in (("query", self.text), ("query's `not`", self.without)):
            if words is not None and not words.strip():
                raise ConfigError(f"the {name} is empty: describe a person in words")
            if words is not None and words.encode("utf-8", "replace").decode("utf-8") != words:  # lone surrogates
                raise ConfigError(f"the {name} is not valid UTF-8: check the encoding of your terminal")
        if not 0 <= self.image_weight <= 1:
            raise ConfigError(f"image_weight must lie between 0 and 1, not {self.image_weight:g}")
        if not 0 < self.without_weight <= 1:
            raise ConfigError(f"not_weight must lie above 0 and not above 1, not {self.without_weight:g}")

    @property
    def plain(self) -> bool:
        """Words alone, which is what a second stage can judge."""
        return self.image is None and self.without is None

    def words(self) -> str:
        """The query for people to read."""
        parts = [
            *([self.text] if self.text is not None else []),
            *([f"like {self.image}"] if self.image is not None else []),
            *([f"not {self.without}"] if self.without is not None else []),
        ]
        return "; ".join(parts)

    def vector(self, encode_text: Callable[[str], Vector], encode_image: Callable[[Path], Vector]) -> Vector:
        """(D,) float32: the vector of the words as it is, or the unit vector of several parts.

        Raises:
            ConfigError: the parts cancel each other out.
        """
        parts: list[tuple[float, Vector]] = []
        if self.text is not None:
            parts.append((1.0 if self.image is None else 1 - self.image_weight, encode_text(self.text)))
        if self.image is not None:
            parts.append((1.0 if self.text is None else self.image_weight, encode_image(self.image)))
        if self.without is not None:
            parts.append((-self.without_weight, encode_text(self.without)))
        if len(parts) == 1:
            return parts[0][1]
        mixed = np.sum([weight * part.astype(np.float64) for weight, part in parts], axis=0)
        length = float(np.linalg.norm(mixed))
        if length < 1e-3:
            raise ConfigError("the parts of the query cancel each other out: nothing is left to look for")
        return np.asarray(mixed / length, dtype=np.float32)


def read_queries(path: Path) -> list[Query]:
    """The queries of a file: one description a line, or, in a `.jsonl` file, one object of `KEYS` a line.

    Pictures are looked for beside the file. Empty lines are passed over.

    Raises:
        ConfigError: the file or a line of it cannot be used; names the line.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise ConfigError(f"cannot read queries {path}: {reason}") from None
    queries = []
    for number, line in enumerate(lines, 1):
        if line.strip():
            try:
                queries.append(_query(line, path.parent) if path.suffix.lower() == ".jsonl" else Query(line.strip()))
            except ConfigError as error:
                raise ConfigError(f"{path}, line {number}: {error}") from None
    if not queries:
        raise ConfigError(f"{path} holds no query")
    return queries


def _query(line: str, folder: Path) -> Query:
    try:
        said = json.loads(line)
    except (ValueError, RecursionError):
        raise ConfigError("not a JSON object") from None
    if not isinstance(said, dict):
        raise ConfigError("not a JSON object")
    if unknown := sorted(set(said) - set(KEYS)):
        raise ConfigError(f"{unknown[0]!r} is not known; allowed: {', '.join(KEYS)}")
    for name, value in said.items():
        wanted = (int, float) if KEYS[name] is float else KEYS[name]
        if not isinstance(value, wanted) or isinstance(value, bool):
            raise ConfigError(f"{name} must be a {'number' if KEYS[name] is float else 'text'}, not {value!r}"[:200])
    given: dict[str, Any] = {
        "text": said.get("text"),
        "image": folder / said["image"] if "image" in said else None,
        "image_weight": said.get("image_weight"),
        "without": said.get("not"),
        "without_weight": said.get("not_weight"),
    }
    return Query(**{name: value for name, value in given.items() if value is not None})


def picture_vector(path: Path, retriever: Any, shrink: Callable[[Any], Any]) -> Vector:
    """(D,) float32 of a picture file, read and shrunk as the pictures of a gallery are.

    Raises:
        GalleryError: it cannot be read; says why.
    """
    from tipr.gallery.ingest import Entry, Prepared, Skipped, prepare

    (outcome,) = prepare([[Entry(str(path))]], {}, shrink)
    if not isinstance(outcome, Prepared):
        told = f"{outcome.reason}; {outcome.hint}" if isinstance(outcome, Skipped) else "cannot be read"
        raise GalleryError(f"{path}: {told}")
    return np.asarray(retriever.encode_images([outcome.picture])[0], dtype=np.float32)
