"""The knobs of a set of rendered people, and the published sets."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import Field, field_validator

from tipr.config import Section, parse
from tipr.data.samples import LANGUAGES, SPLITS
from tipr.errors import ConfigError

MAX_CAMERAS = 8
"""The rendered world has eight cameras."""


class Knobs(Section):
    """Everything a set depends on; worker count and folder do not matter.

    Attributes:
        preset: name of the preset the knobs come from; kept when knobs are overridden, for the record.
        identities: people in train, val and test.
        images: photographs of each person.
        cameras: how many cameras take part.
        hard: share of people who copy the previous person of their split except for one captioned attribute.
        difficulty: 0 = studio, 1 = standard, 1.5 = hardest: tint, blur, noise, occlusion, framing.
        width: of the images, in pixels.
        height: of the images, in pixels.
        languages: languages of the captions.
        seed: the set is a function of it.
    """

    preset: str
    identities: tuple[int, int, int]
    images: Annotated[int, Field(ge=1, le=64)] = 4
    cameras: Annotated[int, Field(ge=1, le=MAX_CAMERAS)] = MAX_CAMERAS
    hard: Annotated[float, Field(ge=0, le=1)] = 0.3
    difficulty: Annotated[float, Field(ge=0, le=1.5)] = 1.0
    width: Annotated[int, Field(ge=16, le=1024)] = 64
    height: Annotated[int, Field(ge=48, le=3072)] = 192
    languages: tuple[str, ...] = LANGUAGES
    seed: Annotated[int, Field(ge=0, lt=1 << 32)] = 0

    @field_validator("identities")
    @classmethod
    def _some_people(cls, value: tuple[int, int, int]) -> tuple[int, int, int]:
        if min(value) < 0 or sum(value) == 0:
            raise ValueError("three counts TRAIN/VAL/TEST, none negative, not all 0")
        return value

    @field_validator("languages")
    @classmethod
    def _known_languages(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if not value:
            raise ValueError(f"at least one of {', '.join(LANGUAGES)}")
        for language in value:
            if language not in LANGUAGES:
                raise ValueError(f"unknown language {language!r}; allowed: {', '.join(LANGUAGES)}")
        return tuple(language for language in LANGUAGES if language in value)

    @property
    def size(self) -> tuple[int, int]:
        """(height, width)."""
        return self.height, self.width

    def people(self, split: str) -> int:
        """How many identities a split of `SPLITS` has."""
        return self.identities[SPLITS.index(split)]

    @property
    def image_count(self) -> int:
        """Images of all splits."""
        return sum(self.identities) * self.images


PRESETS: dict[str, Knobs] = {
    "demo": Knobs(preset="demo", identities=(0, 0, 100), width=128, height=384, seed=1001),
    "tiny": Knobs(preset="tiny", identities=(60, 20, 20), seed=1002),
    "standard": Knobs(preset="standard", identities=(2000, 200, 400), seed=1003),
    "large": Knobs(preset="large", identities=(10_000, 500, 1000), images=8, seed=1004),
}
"""The published sets. Their seeds never change; a new version of a set gets a new name."""


def knobs_of(preset: str, overrides: Mapping[str, Any] | None = None) -> Knobs:
    """The knobs of a preset, some of them replaced.

    Args:
        preset: a key of `PRESETS`.
        overrides: field of `Knobs` -> value; None means "as in the preset".

    Raises:
        ConfigError: an unknown preset or knob, or a value that is not allowed.
    """
    if preset not in PRESETS:
        raise ConfigError(f"unknown preset {preset!r}; allowed: {', '.join(PRESETS)}")
    given = {key: value for key, value in (overrides or {}).items() if value is not None}
    return parse({**PRESETS[preset].model_dump(), **given}, Knobs, source=f"preset {preset}")
