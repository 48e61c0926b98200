"""Conditions on what is known of a row, as values that become a row mask; nothing of them is ever run as code.

A row without a value meets no comparison, except `!=`, which is `not (... = ...)`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tipr.errors import ConfigError
from tipr.gallery.stores import Coded

Columns = Mapping[str, NDArray[Any] | Coded]
"""Name -> values of N rows: numbers and times as arrays, all else as objects or coded."""

TEXTS = ("camera", "path", "identity", "sha256")
NUMBERS = ("width", "height")
TIMES = ("time", "indexed")
NAMES = (*TEXTS, *TIMES, "tag", *NUMBERS, "box")
"""Columns of every gallery that a condition can name; any other name is the key of `key=value` tags."""

Test = Callable[[Any], bool]


def _holding(wanted: tuple[str, ...]) -> Test:
    (one, *others) = wanted
    return (lambda value: any(text in value for text in wanted)) if others else (lambda value: one in value)


TEXT_TESTS: dict[str, Callable[[tuple[str, ...]], Test]] = {
    "=": lambda wanted: frozenset(wanted).__contains__,
    "^=": lambda wanted: lambda value: value.startswith(wanted),
    "*=": _holding,
}
"""Sign -> (some texts -> whether one of them fits a text)."""
ORDERS: dict[str, Callable[[Any, Any], Any]] = {
    "<": np.less,
    "<=": np.less_equal,
    ">": np.greater,
    ">=": np.greater_equal,
}


class Condition(ABC):
    """Something that is true or false of every row; `str` gives it back in the grammar of `tipr.gallery.where`."""

    @property
    @abstractmethod
    def columns(self) -> tuple[str, ...]:
        """The columns of the store that `mask` needs."""

    @abstractmethod
    def mask(self, columns: Columns, count: int) -> NDArray[np.bool_]:
        """(count,) bool: which rows meet it.

        Raises:
            ConfigError: no row has a tag with the key that is named.
        """


@dataclass(frozen=True, slots=True)
class TextIs(Condition):
    """A text column, or a tag, against some texts; true when one of them fits.

    Attributes:
        column: one of `TEXTS`, "tag" (any one of the row's tags), or the key of `key=value` tags.
        sign: a key of `TEXT_TESTS`.
        wanted: the texts.
    """

    column: str
    sign: str
    wanted: tuple[str, ...]

    @property
    def columns(self) -> tuple[str, ...]:
        return (self.column if self.column in TEXTS else "tags",)

    def mask(self, columns: Columns, count: int) -> NDArray[np.bool_]:
        fits = TEXT_TESTS[self.sign](self.wanted)
        if self.column == "identity":
            if self.sign == "=":
                return matching(columns["identity"], same_person(self.wanted))
            return matching(columns["identity"], lambda value: value is not None and fits(str(value)))
        if self.column in TEXTS:
            return matching(columns[self.column], lambda value: value is not None and fits(value))
        if self.column == "tag":
            return matching(columns["tags"], lambda tags: any(map(fits, tags)))
        key = f"{self.column}="
        keyed = matching(columns["tags"], lambda tags: any(tag.startswith(key) for tag in tags))
        if not keyed.any():
            raise ConfigError(f"where: no row has a column or tag {self.column!r}; all have {', '.join(NAMES)}")
        return matching(
            columns["tags"], lambda tags: any(tag.startswith(key) and fits(tag.removeprefix(key)) for tag in tags)
        )

    def __str__(self) -> str:
        texts = [quoted(text) for text in self.wanted]
        name = self.column if self.column.isidentifier() else quoted(self.column)
        return f"{name} in ({', '.join(texts)})" if len(texts) > 1 else f"{name} {self.sign} {texts[0]}"


@dataclass(frozen=True, slots=True)
class NumberIs(Condition):
    """`width` or `height` against a number; `sign` is "=" or a key of `ORDERS`."""

    column: str
    sign: str
    wanted: float

    @property
    def columns(self) -> tuple[str, ...]:
        return (self.column,)

    def mask(self, columns: Columns, count: int) -> NDArray[np.bool_]:
        values: Any = columns[self.column]
        compare = np.equal if self.sign == "=" else ORDERS[self.sign]
        return np.asarray(compare(values, self.wanted), dtype=np.bool_)

    def __str__(self) -> str:
        return f"{self.column} {self.sign} {self.wanted:g}"


@dataclass(frozen=True, slots=True)
class TimeIs(Condition):
    """The time of the photograph, or of its indexing, from `first` to `last`, both included; None leaves a side open.

    Attributes:
        column: one of `TIMES`.
    """

    first: datetime | None
    last: datetime | None
    column: str = "time"

    @property
    def columns(self) -> tuple[str, ...]:
        return (self.column,)

    def mask(self, columns: Columns, count: int) -> NDArray[np.bool_]:
        time = columns[self.column]
        if isinstance(time, Coded):
            raise TypeError("times are an array, not coded")
        keep = ~np.isnat(time)
        if self.first is not None:
            keep &= time >= _utc64(self.first)
        if self.last is not None:
            keep &= time <= _utc64(self.last)
        return keep

    def __str__(self) -> str:
        bounds = ((">=", self.first), ("<=", self.last))
        return " and ".join(f"{self.column} {sign} {at.isoformat()}" for sign, at in bounds if at)


@dataclass(frozen=True, slots=True)
class Known(Condition):
    """The row has a value in the column: one of `NAMES`, or the key of `key=value` tags."""

    column: str

    @property
    def columns(self) -> tuple[str, ...]:
        return (self.column if self.column in NAMES and self.column != "tag" else "tags",)

    def mask(self, columns: Columns, count: int) -> NDArray[np.bool_]:
        values = columns[self.columns[0]]
        if self.column in TIMES and not isinstance(values, Coded):
            return ~np.isnat(values)
        if self.column in (*TEXTS, "box"):
            return matching(values, lambda value: value is not None)
        if self.column == "tag":
            return matching(values, bool)
        if self.column in NUMBERS:
            return np.ones(count, dtype=np.bool_)
        key = f"{self.column}="
        return matching(values, lambda tags: any(tag.startswith(key) for tag in tags))

    def __str__(self) -> str:
        return f"{self.column if self.column.isidentifier() else quoted(self.column)} is known"


@dataclass(frozen=True, slots=True)
class Not(Condition):
    """The other one is false."""

    part: Condition

    @property
    def columns(self) -> tuple[str, ...]:
        return self.part.columns

    def mask(self, columns: Columns, count: int) -> NDArray[np.bool_]:
        return ~self.part.mask(columns, count)

    def __str__(self) -> str:
        return f"not ({self.part})"


@dataclass(frozen=True, slots=True)
class Both(Condition):
    """All of them (`every`), or at least one."""

    parts: tuple[Condition, ...]
    every: bool

    @property
    def columns(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(name for part in self.parts for name in part.columns))

    def mask(self, columns: Columns, count: int) -> NDArray[np.bool_]:
        masks = [part.mask(columns, count) for part in self.parts]
        return np.asarray((np.logical_and if self.every else np.logical_or).reduce(masks), dtype=np.bool_)

    def __str__(self) -> str:
        return (" and " if self.every else " or ").join(f"({part})" for part in self.parts)


def matching(values: NDArray[Any] | Coded, test: Test) -> NDArray[np.bool_]:
    """(N,) bool: the test of every value; a coded column is tested once for each different value."""
    if isinstance(values, Coded):
        passes = np.fromiter((test(value) for value in values.values), dtype=np.bool_, count=len(values.values))
        return passes.take(values.codes)  # half the time of passes[codes]
    return np.fromiter((test(value) for value in values), dtype=np.bool_, count=len(values))


def same_person(wanted: Sequence[int | str]) -> Test:
    """Whether an identity is one of those: 7 and "7" are the same, and the number 7 is called "007" too.

    File names and tables write numbers with zeros in front, which are read as the number.
    """
    texts = frozenset(map(str, wanted))
    numbers = frozenset(int(text) for text in texts if text.isdecimal())
    return lambda value: value in numbers if isinstance(value, int) else value in texts


def quoted(text: str) -> str:
    """A text as the grammar writes it."""
    return '"' + text.replace('"', '""') + '"'


def just_after(moment: datetime) -> datetime:
    """The next time that the store can tell from this one."""
    return moment + timedelta(microseconds=1)


def just_before(moment: datetime) -> datetime:
    """The last time that the store can tell from this one."""
    return moment - timedelta(microseconds=1)


def _utc64(value: datetime) -> np.datetime64:
    return np.datetime64(value.astimezone(UTC).replace(tzinfo=None), "us")
