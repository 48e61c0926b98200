"""Importers of foreign checkpoints: an importer is one file and one line in `IMPORTERS`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from tipr.errors import ConfigError
from tipr.importers.bi_irra import read_bi_irra
from tipr.importers.huggingface_clip import read_huggingface_clip
from tipr.importers.irra import read_irra
from tipr.importers.open_clip import read_open_clip
from tipr.importers.openai_clip import read_openai_clip
from tipr.importers.x2vlm import read_x2vlm
from tipr.methods.base import Method


class Importer(Protocol):
    """Reads a checkpoint of one format."""

    def __call__(
        self, path: Path, config: Mapping[str, Any] | Path | None = None, *, unconfined: bool = False
    ) -> Method:
        """See `read`."""


IMPORTERS: dict[str, Importer] = {
    "bi_irra": read_bi_irra,
    "huggingface_clip": read_huggingface_clip,
    "irra": read_irra,
    "open_clip": read_open_clip,
    "openai_clip": read_openai_clip,
    "x2vlm": read_x2vlm,
}
"""Format -> function that reads a checkpoint into a method in evaluation mode."""


def read(
    format: str, path: str | Path, *, config: Mapping[str, Any] | str | Path | None = None, unconfined: bool = False
) -> Method:
    """Read a foreign checkpoint. Its pickle is never allowed to run code, and a confined child process reads it.

    Args:
        format: key of `IMPORTERS`.
        path: the checkpoint file, or folder for `huggingface_clip`.
        config: what the file cannot tell, as a mapping or a YAML file; the format's function lists its settings, such
            as `image_size` (default 384x128 for CLIP, a 24x8 grid), `max_tokens`, or heads (default width / 64).
        unconfined: read in an ordinary child process, for a machine whose kernel offers no confinement.

    Returns:
        the method in evaluation mode, float32, on the CPU; `method.notices` says what was absent or left out.

    Raises:
        ConfigError: unknown format, or a setting is not allowed.
        WeightsError: the file cannot be read, or its names or shapes are not those of the format.
    """
    if format not in IMPORTERS:
        raise ConfigError(f"unknown checkpoint format {format!r}: use one of {', '.join(sorted(IMPORTERS))}")
    return IMPORTERS[format](Path(path), Path(config) if isinstance(config, str) else config, unconfined=unconfined)


__all__ = ["IMPORTERS", "Importer", "read"]
