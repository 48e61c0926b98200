"""What may narrow a search, as typed values that become a row mask BEFORE anything is ranked.

Values are compared in memory; no query language is built from what a user typed, so nothing can be injected.
"""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time

import numpy as np
from numpy.typing import NDArray

from tipr.errors import ConfigError
from tipr.gallery.conditions import Columns, Condition, Test, TimeIs, matching
from tipr.gallery.where import parse_where

Moment = str | date | datetime
"""A time: RFC 3339 text, a date (its whole day, UTC), or the Python values; naive datetimes count as UTC."""


@dataclass(frozen=True, slots=True)
class Filters:
    """All conditions must hold; an unset one lets everything pass.

    Attributes:
        camera: one of these names.
        since: at or after this time; rows without a time never pass.
        until: at or before this time.
        path: a part of the path, or a pattern for the whole path when it holds `*`, `?` or `[`.
        tags: all of these tags.
        where: anything else; see `tipr.gallery.where`.
    """

    camera: tuple[str, ...] = ()
    since: datetime | None = None
    until: datetime | None = None
    path: str | None = None
    tags: tuple[str, ...] = ()
    where: Condition | None = None

    @classmethod
    def of(
        cls,
        *,
        camera: str | Sequence[str] | None = None,
        since: Moment | None = None,
        until: Moment | None = None,
        path: str | None = None,
        tags: str | Sequence[str] | None = None,
        where: str | Condition | None = None,
    ) -> Filters:
        """Check what a caller gave.

        Raises:
            ConfigError: a time or an expression cannot be read, or the span is empty.
        """
        cameras = () if camera is None else (camera,) if isinstance(camera, str) else tuple(camera)
        first = None if since is None else moment(since, "since")
        last = None if until is None else moment(until, "until", end=True)
        if first is not None and last is not None and first > last:
            raise ConfigError(f"since ({since}) is after until ({until}): no time lies between them")
        named = () if tags is None else (tags,) if isinstance(tags, str) else tuple(tags)
        condition = parse_where(where) if isinstance(where, str) else where
        return cls(cameras, first, last, path or None, named, condition)

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns that `mask` needs."""
        needed = {
            "camera": bool(self.camera),
            "time": bool(self.since or self.until),
            "path": self.path is not None,
            "tags": bool(self.tags),
        }
        named = [name for name, wanted in needed.items() if wanted]
        return tuple(dict.fromkeys([*named, *(self.where.columns if self.where else ())]))

    def mask(self, columns: Columns, count: int) -> NDArray[np.bool_]:
        """Which of `count` rows pass.

        Args:
            columns: at least those named by `columns`, each of `count` rows; `time` as datetime64[us] in UTC.
            count: number of rows.

        Returns:
            (count,) bool.

        Raises:
            ConfigError: `where` names a key that no tag has.
        """
        keep = np.ones(count, dtype=np.bool_)
        if self.camera:
            keep &= matching(columns["camera"], lambda name: name in self.camera)
        if self.since is not None or self.until is not None:
            keep &= TimeIs(self.since, self.until).mask(columns, count)
        if self.path is not None:
            keep &= matching(columns["path"], _path_test(self.path))
        if self.tags:
            keep &= matching(columns["tags"], lambda tags: all(tag in tags for tag in self.tags))
        if self.where is not None:
            keep &= self.where.mask(columns, count)
        return keep

    def words(self) -> list[str]:
        """The conditions in words, such as `camera = door`; for people to read."""
        return [
            *([f"camera = {' or '.join(self.camera)}"] if self.camera else []),
            *([f"since {self.since.isoformat(sep=' ')}"] if self.since else []),
            *([f"until {self.until.isoformat(sep=' ')}"] if self.until else []),
            *([f"path has {self.path}"] if self.path else []),
            *(f"tag {tag}" for tag in self.tags),
            *([str(self.where)] if self.where else []),
        ]


def moment(value: Moment, name: str, *, end: bool = False) -> datetime:
    """An aware UTC datetime.

    Args:
        value: RFC 3339 text, `YYYY-MM-DD`, a date or a datetime.
        name: what it is, for the error.
        end: a date means the end of its day instead of the beginning.

    Raises:
        ConfigError: the text is neither of both.
    """
    if isinstance(value, str):
        value = _parse(value.strip(), name)
    if not isinstance(value, datetime):
        value = datetime.combine(value, time.max if end else time.min, tzinfo=UTC)
    try:
        return (value if value.tzinfo else value.replace(tzinfo=UTC)).astimezone(UTC)
    except OverflowError:
        raise ConfigError(f"{name}: {value} lies outside the calendar") from None


def _parse(text: str, name: str) -> date | datetime:
    from tipr.data.manifest import parse_time

    try:
        if re.fullmatch(r"[0-9]{4}-[0-9]{2}-[0-9]{2}", text):
            return date.fromisoformat(text)
        return parse_time(text)
    except ValueError:
        wanted = "2026-03-01 or an RFC 3339 time such as 2026-03-01T08:30:00+01:00"
        raise ConfigError(f"{name}: {text!r} is not a date such as {wanted}") from None


def _path_test(pattern: str) -> Test:
    if any(sign in pattern for sign in "*?["):
        fits = re.compile(fnmatch.translate(pattern)).match
        return lambda path: fits(path) is not None
    return lambda path: pattern in path
