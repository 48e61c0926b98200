"""What the four caption checkers share: things, reports and the matching of sentences.

The checkers have their own words and grammar and import nothing from the package: they read a finished caption, turn
every noun phrase into a numbered sign, and the rest of each sentence has to fit one of the known sentence forms.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

PRINT = ("print", "striped", "plaid", "dots")


@dataclass
class Thing:
    """A noun phrase that was read; `forms` says in which cases (German) or after which determiner it can stand."""

    kind: str
    color: str = "-"
    pattern: str = ""
    second: str = "-"
    forms: frozenset[str] = frozenset()
    group: str = ""

    def fact(self) -> str:
        pattern = f":{self.pattern}:{self.second}" if self.pattern else ""
        return f"{self.kind}:{self.color}{pattern}"


@dataclass
class Report:
    """Errors in a caption and the facts that it states."""

    errors: list[str] = field(default_factory=list)
    facts: set[str] = field(default_factory=set)


def sign(position: int) -> str:
    return f"N{position}"


def signs(text: str) -> list[int]:
    """Numbers of the noun phrases in a piece of a sentence."""
    return [int(number) for number in re.findall(r"\bN(\d+)\b", text)]


def first_match(text: str, patterns: list[re.Pattern[str]]) -> re.Match[str] | None:
    for pattern in patterns:
        found = pattern.fullmatch(text)
        if found is not None:
            return found
    return None
