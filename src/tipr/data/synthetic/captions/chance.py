"""Many small choices from one block of random numbers: a scalar draw from NumPy costs more than the choice itself."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

import numpy as np

Choice = TypeVar("Choice")
BLOCK = 64


class Chance:
    """Uniform draws taken from a generator in blocks of `BLOCK`, so that a caption costs one or two NumPy calls."""

    __slots__ = ("_block", "_generator", "_next")

    def __init__(self, generator: np.random.Generator) -> None:
        self._generator = generator
        self._block: list[float] = generator.random(BLOCK).tolist()
        self._next = 0

    def draw(self) -> float:
        """One number in [0, 1)."""
        position = self._next
        if position == BLOCK:
            self._block = self._generator.random(BLOCK).tolist()
            position = 0
        self._next = position + 1
        return self._block[position]

    def below(self, share: float) -> bool:
        """True with probability `share`."""
        return self.draw() < share

    def pick(self, choices: Sequence[Choice]) -> Choice:
        """One element, all equally likely; repeat an element to make it likelier."""
        count = len(choices)
        return choices[0] if count == 1 else choices[int(self.draw() * count)]
