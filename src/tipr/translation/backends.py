"""What answers a prompt: the one interface of language models and vision-language models, near and far."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol


@dataclass(frozen=True, slots=True)
class Prompt:
    """One question to a model.

    Attributes:
        text: what is asked, the caption included.
        image: picture that belongs to it; only vision-language models take one.
    """

    text: str
    image: Path | None = None


class TextBackend(Protocol):
    """A model that answers prompts one for one.

    Attributes:
        name: what kind it is, such as "endpoint" or "local".
    """

    name: str

    def describe(self) -> dict[str, Any]:
        """JSON-like facts that decide the answers: name, model, decoding. No key, no machine path."""
        ...

    def complete(self, prompts: Sequence[Prompt]) -> list[str]:
        """The answers, in the order of the prompts; an answer may be empty.

        Raises:
            TiprError: a prompt has an image and the model takes none, or the model cannot be used.
        """
        ...
