"""The whole tree of errors that `tipr` raises on purpose.

    TiprError
    ├── ConfigError        a configuration value, a flag or a combination of them is not allowed
    ├── DatasetError       a data set, a manifest or an image of it cannot be used
    ├── WeightsError       a checkpoint or model folder cannot be used
    ├── EndpointError      a language model's endpoint does not answer as it should
    ├── TrainingError      a run cannot go on (non-finite loss, output not writable)
    ├── GalleryError       a gallery cannot be used as asked
    │   ├── GalleryMismatch    filled by another model
    │   └── GalleryCorrupt     damaged on disk
    └── MissingExtra       an optional package is not installed; the message holds the install line

A message is one line that names the thing and the allowed values. Anything else that escapes is a bug.
"""

from __future__ import annotations


class TiprError(Exception):
    """Base of all errors raised on purpose; `str(error)` is one line fit for a user."""


class ConfigError(TiprError):
    """A configuration value, a flag or a combination of them is not allowed."""


class DatasetError(TiprError):
    """A data set, a manifest or an image of it cannot be used."""


class WeightsError(TiprError):
    """A checkpoint or model folder cannot be used."""


class EndpointError(TiprError):
    """A language model's endpoint does not answer as it should."""


class TrainingError(TiprError):
    """A training run cannot go on."""


class GalleryError(TiprError):
    """A gallery cannot be used as asked."""


class GalleryMismatch(GalleryError):
    """The gallery was filled by another model."""


class GalleryCorrupt(GalleryError):
    """The gallery is damaged on disk; `folder` and `damage` become one line that says what to do."""

    def __init__(self, folder: object, damage: str) -> None:
        super().__init__(
            f"gallery {folder} is damaged: {damage}; look with `tipr index verify`, put back a backup with `tipr index "
            "restore`, or fill a new gallery from the pictures with `tipr index create`"
        )


class MissingExtra(TiprError):
    """An optional package is not installed; `install` is for one that cannot share an environment with `tipr`."""

    def __init__(self, package: str, extra: str, *, install: str | None = None) -> None:
        super().__init__(f"{package} is not installed: run  " + (install or f'pip install "tipr[{extra}]"'))
        self.package = package
        self.extra = extra
