"""What translating will cost, told before it starts."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

from tipr.translation.records import Item

LETTERS_PER_TOKEN = 4.0
"""Of text in Latin script, by the providers' own rule of thumb; a Chinese character counts as one token."""
EXPANSION = {"en": 1.0, "zh": 1.2, "fr": 1.5, "de": 1.5}
"""Tokens of a translation for each token of an English caption; rounded up, so that the bill is rather below."""
PER_REQUEST = 8
"""Tokens of the frame that a chat puts around a message."""
_HAN = re.compile(r"[\u3400-\u9fff\uf900-\ufaff]")


@dataclass(frozen=True, slots=True)
class Estimate:
    """The cost of what is left to do.

    Attributes:
        captions: (caption, language) pairs without a row.
        requests: what is sent for them; fewer where captions are equal or were answered before.
        tokens_in, tokens_out: of these requests, about.
        price: of these tokens, in the unit of the prices; None without prices.
    """

    captions: int
    requests: int
    tokens_in: int
    tokens_out: int
    price: float | None = None

    def __str__(self) -> str:
        price = ""
        if self.price is not None:
            price = f", price about {self.price:,.2f}" if self.price >= 0.01 else ", price below 0.01"
        return (
            f"{self.captions:,} captions to make with {self.requests:,} requests: about {self.tokens_in:,} tokens in, "
            f"{self.tokens_out:,} out{price}"
        )


def estimate(
    captions: int, asked: Sequence[tuple[str, Item]], *, prices: tuple[float, float] | None = None
) -> Estimate:
    """Estimate the cost of requests.

    Args:
        captions: rows that will be made.
        asked: (text sent, its item) of each request.
        prices: of a million tokens (in, out), in any unit; None: not known.
    """
    tokens_in = sum(tokens_of(text) + PER_REQUEST for text, _ in asked)
    tokens_out = sum(math.ceil(tokens_of(item.source) * EXPANSION[item.language]) for _, item in asked)
    price = None if prices is None else (tokens_in * prices[0] + tokens_out * prices[1]) / 1e6
    return Estimate(captions, len(asked), tokens_in, tokens_out, price)


def tokens_of(text: str) -> int:
    """About how many tokens a text has for a large language model; no model's vocabulary is needed."""
    signs = len(_HAN.findall(text))
    return signs + math.ceil((len(text) - signs) / LETTERS_PER_TOKEN)
