"""The language of `--where`, read into values (`tipr.gallery.conditions`).

    expression = all { "or" all }
    all        = one { "and" one }
    one        = "not" one | "(" expression ")" | test
    test       = COLUMN SIGN VALUE | COLUMN "in" "(" VALUE { "," VALUE } ")" | COLUMN "is" ( "known" | "unknown" )

COLUMN: camera, path, identity, sha256, time, indexed (when it was), tag, width, height, box, or the key of `key=value`
tags.
SIGN: `=`, `!=`; `^=` begins with, `*=` holds (texts); `<`, `<=`, `>`, `>=` (times, width, height); none for a box,
which is known or unknown.
VALUE: a word, or a text between single or double quotes, where a doubled quote stands for itself. A time is a date (its
whole day, UTC) or an RFC 3339 time. Words of the language are written small; quoted, they are plain texts.

    camera in (gate, "back door") and time >= 2026-03-01 and not bag = red
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime

from tipr.errors import ConfigError
from tipr.gallery.conditions import (
    NUMBERS,
    ORDERS,
    TEXT_TESTS,
    TIMES,
    Both,
    Condition,
    Known,
    Not,
    NumberIs,
    TextIs,
    TimeIs,
    just_after,
    just_before,
)

LONGEST = 10_000
"""Characters of an expression."""
DEEPEST = 50
"""Brackets and `not` inside each other."""
KEYWORDS = ("and", "or", "not", "in", "is", "known", "unknown")
TOKEN = re.compile(
    r"""\s*(?:(?P<text>'(?:[^']|'')*'|"(?:[^"]|"")*")|(?P<sign>\^=|\*=|!=|<=|>=|[=<>(),])"""
    r"""|(?P<word>[^\s'"()<>=!^*,]+))"""
)


@dataclass(frozen=True, slots=True)
class _Token:
    kind: str  # text, sign, word, keyword, end
    value: str


def parse_where(expression: str) -> Condition:
    """Read an expression.

    Raises:
        ConfigError: it is not one; the message says what was expected, and where.
    """
    if len(expression) > LONGEST:
        raise ConfigError(f"where: the expression has {len(expression):,} characters; at most {LONGEST:,} are read")
    reader = _Reader(_tokens(expression))
    condition = reader.expression(0)
    reader.expect("end", "", "`and`, `or` or the end")
    return condition


def _tokens(expression: str) -> list[_Token]:
    tokens, place = [], 0
    end = len(expression.rstrip())
    while place < end:
        found = TOKEN.match(expression, place)
        if found is None:
            rest = expression[place:].strip()
            problem = "a quote is not closed" if rest[0] in "'\"" else "a sign nobody knows"
            raise ConfigError(f"where: {problem} at {rest[:20]!r}")
        kind = str(found.lastgroup)
        value = found[kind]
        if kind == "text":
            value = value[1:-1].replace(value[0] * 2, value[0])
        elif value in KEYWORDS:
            kind = "keyword"
        tokens.append(_Token(kind, value))
        place = found.end()
    return tokens


class _Reader:
    """Recursive descent over tokens."""

    def __init__(self, tokens: list[_Token]) -> None:
        self._tokens = [*tokens, _Token("end", "")]
        self._place = 0

    def expression(self, depth: int) -> Condition:
        parts = [self._all(depth)]
        while self._takes("keyword", "or"):
            parts.append(self._all(depth))
        return parts[0] if len(parts) == 1 else Both(tuple(parts), every=False)

    def expect(self, kind: str, value: str, wanted: str) -> None:
        if not self._takes(kind, value):
            raise self._unexpected(wanted)

    def _all(self, depth: int) -> Condition:
        parts = [self._one(depth)]
        while self._takes("keyword", "and"):
            parts.append(self._one(depth))
        return parts[0] if len(parts) == 1 else Both(tuple(parts), every=True)

    def _one(self, depth: int) -> Condition:
        if depth > DEEPEST:
            raise ConfigError(f"where: more than {DEEPEST} brackets or `not` inside each other")
        if self._takes("keyword", "not"):
            return Not(self._one(depth + 1))
        if self._takes("sign", "("):
            inside = self.expression(depth + 1)
            self.expect("sign", ")", "`)`")
            return inside
        return self._test()

    def _test(self) -> Condition:
        column = self._value("a column")
        if self._takes("keyword", "in"):
            self.expect("sign", "(", "`(` after `in`")
            values = [self._value("a value")]
            while self._takes("sign", ","):
                values.append(self._value("a value"))
            self.expect("sign", ")", "`,` or `)`")
            tests = tuple(_test(column, "=", value) for value in values)
            if all(isinstance(test, TextIs) for test in tests):
                return TextIs(column, "=", tuple(values))
            return Both(tests, every=False)
        if self._takes("keyword", "is"):
            known = self._takes("keyword", "known")
            if not known:
                self.expect("keyword", "unknown", "`known` or `unknown`")
            return Known(column) if known else Not(Known(column))
        for sign in ("=", "!=", *tuple(TEXT_TESTS)[1:], *ORDERS):
            if self._takes("sign", sign):
                value = self._value("a value")
                return Not(_test(column, "=", value)) if sign == "!=" else _test(column, sign, value)
        raise self._unexpected(f"= != ^= *= < <= > >= `in` or `is` after {column!r}")

    def _value(self, wanted: str) -> str:
        token = self._tokens[self._place]
        if token.kind not in ("text", "word"):
            raise self._unexpected(wanted)
        self._place += 1
        return token.value

    def _takes(self, kind: str, value: str) -> bool:
        if self._tokens[self._place] != _Token(kind, value):
            return False
        self._place += 1
        return True

    def _unexpected(self, wanted: str) -> ConfigError:
        token = self._tokens[self._place]
        found = "the end" if token.kind == "end" else repr(token.value[:40])
        return ConfigError(f"where: {wanted} was expected, not {found}")


def _test(column: str, sign: str, value: str) -> Condition:
    """One comparison, its value read as the column needs it."""
    if column in TIMES:
        return _time(column, sign, value)
    if column == "box":
        raise ConfigError(f"where: box {sign}: only `box is known` and `box is unknown` can be asked")
    if column in NUMBERS:
        if sign in ("^=", "*="):
            raise ConfigError(f"where: {column} {sign}: a number can be compared by = != < <= > >= only")
        try:
            number = float(value)
        except ValueError:
            raise ConfigError(f"where: {column} {sign} {value!r}: a number was expected") from None
        return NumberIs(column, sign, number)
    if sign in ORDERS:
        raise ConfigError(f"where: {column} {sign}: a text can be compared by = != ^= *= only; {sign} is for time")
    return TextIs(column, sign, (value,))


def _time(column: str, sign: str, value: str) -> TimeIs:
    from tipr.gallery.filters import moment

    first = moment(value, f"where: {column}")
    last = moment(value, f"where: {column}", end=True)  # another one only for a date: the end of its day
    spans: dict[str, tuple[datetime | None, datetime | None]] = {
        "=": (first, last),
        ">=": (first, None),
        "<=": (None, last),
    }
    try:
        if sign == ">":
            return TimeIs(just_after(last), None, column)
        if sign == "<":
            return TimeIs(None, just_before(first), column)
    except OverflowError:
        raise ConfigError(f"where: {column} {sign} {value}: nothing lies outside the calendar") from None
    if sign not in spans:
        raise ConfigError(f"where: {column} {sign}: a time can be compared by = != < <= > >= only")
    return TimeIs(*spans[sign], column)
