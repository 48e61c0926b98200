"""A new, empty gallery: its folder is there whole or not at all."""

from __future__ import annotations

import shutil
import tempfile
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from tipr.errors import GalleryError
from tipr.gallery.durable import sync_folder
from tipr.gallery.settings import FORMAT, write_settings
from tipr.gallery.stores import STORES, Durability, TokenShape

if TYPE_CHECKING:
    from tipr.retrieval import Retriever


def make_folder(
    path: Path, retriever: Retriever, lies: str | None, shape: TokenShape | None, *, durability: Durability
) -> None:
    """Make the folder of a gallery.

    Args:
        path: where; nothing is there, or an empty folder.
        retriever: the model that will fill it.
        lies: where the model lies.
        shape: of the image tokens of one picture, where they are to be kept.
        durability: of commits.

    Raises:
        GalleryError: it cannot be written.
    """
    settings = {
        "format": FORMAT,
        "store": "lance",
        "model": {
            "path": lies,
            "fingerprint": retriever.fingerprint,
            "dim": retriever.embed_dim,
            **({} if shape is None else {"tokens": list(shape)}),
        },
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "next_id": 0,
        "durability": durability,
    }
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        draft = Path(tempfile.mkdtemp(prefix=f".{path.name}.", suffix=".draft", dir=path.parent))
        try:
            draft.chmod(0o755)
            STORES["lance"]().create(draft, retriever.embed_dim, shape, durability=durability)
            write_settings(draft, settings)
            draft.rename(path)
            sync_folder(path.parent)
        finally:
            shutil.rmtree(draft, ignore_errors=True)
    except OSError as error:
        raise GalleryError(f"cannot create gallery {path}: {error.strerror or error}") from None
