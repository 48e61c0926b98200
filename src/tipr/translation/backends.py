"""What answers a prompt: the one interface of language models and vision-language models, near and far."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

BATCH = 8
"""Prompts that a model without a stream of its own is given at once: what a kill can cost."""


@dataclass(frozen=True, slots=True)
class Prompt:
    """One question to a model.

    Attributes:
        text: what is asked, the caption included.
        image: picture that belongs to it; only vision-language models take one.
    """

    text: str
    image: Path | None = None


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back for one prompt.

    Attributes:
        text: the answer as the model gave it, possibly empty; None: there is none.
        error: why there is none.
        refused: the answer was no, to this very prompt; False where it could not be had.
        attempts: requests made for it; 0 when it was known already.
        seconds: from the first request to the answer.
        finish_reason: why the model stopped, such as "stop" or "length", when it says so.
        tokens: (in, out) that were counted, when the model says so.
    """

    text: str | None
    error: str | None = None
    attempts: int = 1
    seconds: float = 0.0
    finish_reason: str | None = None
    tokens: tuple[int, int] | None = None
    refused: bool = False


Take = Callable[[int, Answer], None]
"""Called with (position of the prompt, its answer) as soon as an answer is there."""


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


@runtime_checkable
class StreamingBackend(Protocol):
    """A model that works on many prompts at a time and hands answers over in the order in which they come."""

    def stream(self, prompts: Sequence[Prompt], take: Take) -> None:
        """Answer every prompt once.

        Raises:
            TiprError: as `TextBackend.complete`; what was taken before is not lost.
        """
        ...


def answer_all(backend: TextBackend, prompts: Sequence[Prompt], take: Take) -> None:
    """Have all prompts answered, each answer handed over once, as soon as it is there.

    Args:
        backend: any model; one that streams decides itself how many prompts it works on at a time.
        prompts: N prompts.
        take: called N times.
    """
    if isinstance(backend, StreamingBackend):
        backend.stream(prompts, take)
        return
    for first in range(0, len(prompts), BATCH):
        start = time.monotonic()
        texts = backend.complete(prompts[first : first + BATCH])
        for place, text in enumerate(texts):
            take(first + place, Answer(text, seconds=time.monotonic() - start))
