"""Configuration sections: frozen, closed, read from one complete YAML file.

A section is a `Section` subclass that lives beside what it configures. `load` reads a YAML file into one,
applies `key.path=value` overrides and turns every defect into one line that names the key and the allowed values.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from tipr.errors import ConfigError


class Section(BaseModel):
    """A frozen group of settings; unknown keys are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True)


SectionT = TypeVar("SectionT", bound=Section)


def load(path: Path | str, section: type[SectionT], *, overrides: Sequence[str] = ()) -> SectionT:
    """Read one YAML file into a section.

    Args:
        path: the YAML file; its top level is a mapping.
        section: the `Section` subclass to validate against.
        overrides: `key.path=value` strings; the value is parsed as YAML.

    Raises:
        ConfigError: the file is missing or is not YAML, a key is unknown, or a value is not allowed.
    """
    path = Path(path)
    try:
        tree = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError(f"no configuration file at {path}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"cannot read {path}: {error}") from None
    except yaml.YAMLError as error:
        raise ConfigError(f"{path} is not YAML: {' '.join(str(error).split())}") from None
    if not isinstance(tree, dict):
        raise ConfigError(f"{path}: the top level must be a mapping of sections, not {type(tree).__name__}")
    for override in overrides:
        _override(tree, override)
    return parse(tree, section, source=str(path))


def parse(tree: Mapping[str, Any], section: type[SectionT], *, source: str) -> SectionT:
    """Validate a mapping against a section; `source` names it in the one-line error."""
    try:
        return section.model_validate(tree)
    except ValidationError as error:
        raise ConfigError(f"{source}: {describe(error)}") from None


def describe(error: ValidationError) -> str:
    """All defects of a validation error in one line: `key.path: what is wrong (got ...)`."""
    parts = []
    for defect in error.errors(include_url=False):
        key = ".".join(str(part) for part in defect["loc"] if part != "") or "(top level)"
        text = "unknown key" if defect["type"] == "extra_forbidden" else defect["msg"]
        text = " ".join(text.removeprefix("Value error, ").split())
        # a rule between values is broken by a whole section: repeating it would bury what is wrong
        named = defect["type"] in ("missing", "extra_forbidden") or isinstance(defect["input"], Mapping)
        parts.append(f"{key}: {text}" + ("" if named else f" (got {defect['input']!r})"))
    return "; ".join(parts)


def replace(tree: dict[str, Any], key: str, value: Any) -> None:
    """Put a value into a nested mapping, in place; what stood there goes, a whole section too.

    Args:
        tree: the mapping.
        key: `section.key`; every section before the last part must be there.
        value: what to put there.

    Raises:
        ConfigError: a part of the key is no section.
    """
    node: Any = tree
    *parents, last = key.split(".")
    for parent in parents:
        if not isinstance(node, dict) or parent not in node:
            raise ConfigError(f"override {key!r}: no section {parent!r}")
        node = node[parent]
    if not isinstance(node, dict):
        raise ConfigError(f"override {key!r}: {'.'.join(parents)} is not a section")
    node[last] = value


def _override(tree: dict[str, Any], override: str) -> None:
    key, equals, text = override.partition("=")
    if not equals or not key:
        raise ConfigError(f"override {override!r} is not of the form key.path=value")
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError:
        raise ConfigError(f"override {override!r}: the value is not YAML") from None
    replace(tree, key, value)
