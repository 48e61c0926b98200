"""`gallery.json`: what a gallery is made of, and which model filled it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, get_args

from tipr.errors import GalleryCorrupt, GalleryError
from tipr.gallery.durable import write_json
from tipr.gallery.stores import STORES, Durability, TokenShape

FORMAT = 2
"""Version of a gallery's folder; an older one is upgraded on demand (`tipr.gallery.upgrade`), a newer one refused. 2:
rows know when they were indexed."""
NAME = "gallery.json"
SPARE = "gallery.spare.json"
"""A copy of it, for the day when it is damaged."""


def read_settings(path: Path, name: str = NAME) -> dict[str, Any]:
    """The settings of a gallery: `format`, `store`, `model` (`path`, `fingerprint`, `dim`, and `tokens`, [T, W], where
    image tokens are kept), `created`, `next_id`, and `durability`, "power" where it is missing.

    Args:
        path: of the gallery.
        name: of the file.

    Raises:
        GalleryError: there is no gallery, or one of another format; the message says what to do.
        GalleryCorrupt: the file is damaged.
    """
    if not path.exists():
        raise GalleryError(f"no gallery at {path}: make one with `tipr index create`")
    if not path.is_dir() or not (path / name).is_file():
        raise GalleryError(f"{path} is not a gallery: it has no {name}")
    try:
        settings = json.loads((path / name).read_text(encoding="utf-8"))
        model = settings["model"]
        number, store, valid = settings["format"], settings["store"], isinstance(settings["created"], str)
        valid = valid and isinstance(model["fingerprint"], str) and isinstance(settings["next_id"], int)
        valid = valid and isinstance(model["dim"], int) and model["dim"] > 0 and isinstance(model["path"], str | None)
        sizes = model.get("tokens", [1, 1])
        valid = valid and settings.get("durability", "power") in get_args(Durability)
        valid = valid and len(sizes) == 2 and all(isinstance(size, int) and size > 0 for size in sizes)
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise GalleryCorrupt(path, f"{name} cannot be read ({type(error).__name__})") from None
    if number in range(1, FORMAT):
        raise GalleryError(f"gallery {path} has the older format {number}: run `tipr index upgrade {path}`")
    if number != FORMAT or store not in STORES:
        raise GalleryError(
            f"gallery {path} was made by a newer version of tipr: it has format {number!r} ({store!r}), and this one "
            f"reads {FORMAT}; nothing was changed"
        )
    if not valid:
        raise GalleryCorrupt(path, f"{name} holds values of the wrong kind")
    checked: dict[str, Any] = settings
    return checked


def token_shape(settings: dict[str, Any]) -> TokenShape | None:
    """(T, W) of the image tokens that a gallery keeps of each row; None where it keeps none."""
    sizes = settings["model"].get("tokens")
    return None if sizes is None else (sizes[0], sizes[1])


def write_settings(path: Path, settings: dict[str, Any]) -> None:
    """Write the settings in one step: a reader sees the old ones or the new ones."""
    write_json(path / NAME, settings)
    write_json(path / SPARE, settings)
