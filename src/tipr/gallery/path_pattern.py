"""What the path of a picture says, by a pattern such as `{camera}/{time:%Y%m%d}/{track}.jpg`.

A name in braces stands for one or more signs other than a slash. `camera`, `identity` and `time` are what a manifest
calls so; any other name becomes a tag `name=value`, by which results can be filtered and grouped; `{_}` is passed over.
`time` needs a form of `strptime` (`DIRECTIVES`); several times are put together, and a time without an offset is in
UTC. Parts between slashes are compared with the end of a path, as many as the pattern has.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from tipr.errors import ConfigError
from tipr.gallery.ingest import Entry

DIRECTIVES = {
    "%Y": r"\d{4}",
    "%y": r"\d{2}",
    "%m": r"\d{2}",
    "%d": r"\d{2}",
    "%j": r"\d{3}",
    "%H": r"\d{2}",
    "%M": r"\d{2}",
    "%S": r"\d{2}",
    "%f": r"\d{1,6}",
    "%z": r"(?:Z|[+-]\d{4})",
}
"""What a form of time may hold, and how it looks in a path."""
_FIELD = re.compile(r"\{([^{}:]*)(?::([^{}]*))?\}")


@dataclass(frozen=True, slots=True)
class PathPattern:
    """A pattern; made by `parse`.

    Attributes:
        text: as the user wrote it.
        expression: of the last parts of a path; group `fN` is the N-th field.
        fields: names, and forms of times.
    """

    text: str
    expression: re.Pattern[str]
    fields: tuple[tuple[str, str], ...]

    @classmethod
    def parse(cls, text: str) -> PathPattern:
        """Read a pattern.

        Raises:
            ConfigError: a brace without its other one, a bad or repeated name, or a bad form of time.
        """
        pieces: list[str] = []
        fields: list[tuple[str, str]] = []
        end = 0
        for match in _FIELD.finditer(text):
            pieces.append(_literal(text, text[end : match.start()]))
            name, form = match.group(1), match.group(2)
            _check_field(text, name, form, [field for field, _ in fields])
            pieces.append(f"(?P<f{len(fields)}>{_looks(text, form) if form else '[^/]+?'})")
            fields.append((name, form or ""))
            end = match.end()
        pieces.append(_literal(text, text[end:]))
        if not fields:
            raise ConfigError(f"pattern {text!r} has no field such as {{camera}}")
        return cls(text, re.compile("(?:.*/)?" + "".join(pieces), re.DOTALL), tuple(fields))

    def read(self, entry: Entry) -> Entry | None:
        """An entry with what its path says where nothing else is known; None when the path is of another form."""
        match = self.expression.fullmatch(os.path.abspath(entry.path))
        if match is None:
            return None
        camera, identity, time = entry.camera, entry.identity, entry.time
        tags, clock, form = list(entry.tags), "", ""
        for number, (name, shape) in enumerate(self.fields):
            value = match.group(f"f{number}")
            if name == "time":
                clock, form = f"{clock} {value}", f"{form} {shape}"
            elif name == "camera":
                camera = camera or value
            elif name == "identity":
                identity = (int(value) if value.isdecimal() else value) if identity is None else identity
            elif name != "_" and f"{name}={value}" not in tags:
                tags.append(f"{name}={value}")
        if clock and time is None:
            try:
                time = datetime.strptime(clock, form)
            except ValueError:  # digits in the right places that are no day of the calendar
                return None
            time = time.replace(tzinfo=time.tzinfo or UTC)
        return replace(entry, camera=camera, identity=identity, time=time, tags=tuple(tags))


def _check_field(text: str, name: str, form: str | None, before: list[str]) -> None:
    if not name.isidentifier():
        raise ConfigError(f"pattern {text!r}: {{{name}}} is no name; write one such as camera, time, identity, track")
    if name == "time" and not form:
        raise ConfigError(f"pattern {text!r}: time needs a form, such as {{time:%Y%m%d}}")
    if name != "time" and form is not None:
        raise ConfigError(f"pattern {text!r}: only time has a form, not {name}")
    if name in before and name not in ("time", "_"):
        raise ConfigError(f"pattern {text!r}: {name} is there twice")


def _literal(text: str, part: str) -> str:
    if "{" in part or "}" in part:
        raise ConfigError(f"pattern {text!r}: a brace without its other one")
    return re.escape(part)


def _looks(text: str, form: str) -> str:
    pieces = re.split(r"(%.?)", form)
    for directive in pieces[1::2]:
        if directive not in DIRECTIVES:
            raise ConfigError(f"pattern {text!r}: {directive!r} is not known; allowed: {', '.join(DIRECTIVES)}")
    if len(pieces) == 1:
        raise ConfigError(f"pattern {text!r}: time needs a form, such as {{time:%Y%m%d}}")
    return "".join(DIRECTIVES[piece] if number % 2 else re.escape(piece) for number, piece in enumerate(pieces))
