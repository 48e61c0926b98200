"""Legal holds: rows that neither an erasure nor a retention limit may take, with a reason and an end."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from tipr.errors import ConfigError, GalleryCorrupt, GalleryError
from tipr.gallery.durable import read_json, write_json

NAME = "holds.json"


@dataclass(frozen=True, slots=True)
class Hold:
    """Rows that must stay.

    Attributes:
        name: what it is called, such as "case 7".
        reason: why, in words for the people who audit it.
        until: it ends by itself at this time.
        ids: the rows.
    """

    name: str
    reason: str
    until: datetime
    ids: frozenset[int]


def read_holds(folder: Path, now: datetime | None = None) -> tuple[Hold, ...]:
    """The holds of a gallery that have not ended, by name.

    Raises:
        GalleryCorrupt: their file is damaged; nothing may be erased as long as nobody knows what must stay.
    """
    now = now or datetime.now(UTC)
    try:
        holds = [
            Hold(str(tree["name"]), str(tree["reason"]), _aware(tree["until"]), frozenset(map(int, tree["ids"])))
            for tree in read_json(folder / NAME) or []
        ]
    except (KeyError, TypeError, ValueError):
        raise GalleryCorrupt(folder, f"{NAME} holds values of the wrong kind") from None
    return tuple(sorted((hold for hold in holds if hold.until > now), key=lambda hold: hold.name))


def write_holds(folder: Path, holds: Iterable[Hold]) -> None:
    """Keep these holds, and no others."""
    trees = [
        {"name": hold.name, "reason": hold.reason, "until": hold.until.isoformat(), "ids": sorted(hold.ids)}
        for hold in holds
    ]
    write_json(folder / NAME, trees, indent=None)


def held(holds: Iterable[Hold]) -> frozenset[int]:
    """All rows that some hold keeps."""
    return frozenset().union(*(hold.ids for hold in holds))


def with_hold(holds: Iterable[Hold], new: Hold, *, now: datetime | None = None) -> tuple[Hold, ...]:
    """The holds and one more; one of the same name is replaced.

    Raises:
        ConfigError: it has no name, no reason, or has ended already.
    """
    for what, text in (("name", new.name), ("reason", new.reason)):
        if not text.strip():
            raise ConfigError(f"a hold needs a {what}")
    if new.until <= (now or datetime.now(UTC)):
        raise ConfigError(
            f"hold {new.name!r} would end at {new.until:%Y-%m-%d %H:%M} UTC, which is over: name a later end"
        )
    return (*(hold for hold in holds if hold.name != new.name), new)


def without_hold(holds: Iterable[Hold], name: str, folder: Path) -> tuple[Hold, ...]:
    """The holds but one.

    Raises:
        GalleryError: there is none of this name.
    """
    holds = tuple(holds)
    if name not in {hold.name for hold in holds}:
        names = ", ".join(hold.name for hold in holds) or "none"
        raise GalleryError(f"gallery {folder} has no hold {name!r}; there are: {names}")
    return tuple(hold for hold in holds if hold.name != name)


def _aware(text: str) -> datetime:
    value = datetime.fromisoformat(text)
    if value.tzinfo is None:
        raise ValueError("a time without a zone")
    return value
