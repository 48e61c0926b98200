"""The estimate before captions are sent."""

from __future__ import annotations

import pytest

from tipr.translation.cost import PER_REQUEST, estimate, tokens_of
from tipr.translation.records import Item


@pytest.mark.parametrize(
    ("text", "tokens"), [("", 0), ("word", 1), ("words", 2), ("一个人", 3), ("穿 red 的人", 3 + 2), ("é" * 8, 2)]
)
def test_tokens_of_a_text(text: str, tokens: int) -> None:
    assert tokens_of(text) == tokens


def test_a_worked_example() -> None:
    items = [Item(f"a#{n}@{code}", "a", n, "en", code, "A red coat, worn open.") for n, code in enumerate(("zh", "de"))]
    asked = [("x" * 80, item) for item in items]  # 20 tokens each, and the frame
    made = estimate(5, asked, prices=(2.0, 10.0))
    assert (made.captions, made.requests) == (5, 2)
    assert made.tokens_in == 2 * (20 + PER_REQUEST)
    assert made.tokens_out == 8 + 9  # 22 letters are 6 tokens: 6 x 1.2 and 6 x 1.5, rounded up
    assert made.price == pytest.approx((56 * 2 + 17 * 10) / 1e6)
    assert str(made) == "5 captions to make with 2 requests: about 56 tokens in, 17 out, price below 0.01"
    assert str(estimate(5, asked, prices=(2e6, 1e7))).endswith(", price about 282.00")
    assert "price" not in str(estimate(0, []))
