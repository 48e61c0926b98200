"""How long rows may stay."""

from __future__ import annotations

import re
from datetime import timedelta

from tipr.errors import ConfigError

UNITS = {"h": timedelta(hours=1), "d": timedelta(days=1), "w": timedelta(weeks=1)}


def duration(text: str) -> timedelta:
    """A limit such as `72h`, `30d` or `2w`.

    Raises:
        ConfigError: it is none, or not above zero.
    """
    found = re.fullmatch(r"([0-9]{1,6}(?:\.[0-9]{1,3})?) ?([hdw])", text.strip())
    value = float(found[1]) * UNITS[found[2]] if found else timedelta(0)
    if value <= timedelta(0):
        raise ConfigError(f"{text!r} is not a length of time such as 72h, 30d or 2w")
    return value
