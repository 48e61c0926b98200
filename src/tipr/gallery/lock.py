"""One process writes to a gallery at a time; readers need no lock."""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tipr.errors import GalleryError


@contextmanager
def exclusive(folder: Path, *, patience: float = 0.0) -> Iterator[None]:
    """Hold `folder/.lock` as long as the block runs; the system lets go of it when the process dies.

    Args:
        folder: of the gallery.
        patience: seconds to wait for a process that holds it.

    Raises:
        GalleryError: another process holds it, or the folder cannot be written.
    """
    try:
        handle = os.open(folder / ".lock", os.O_RDWR | os.O_CREAT, 0o644)
    except OSError as error:
        raise GalleryError(f"cannot write to gallery {folder}: {error.strerror or error}") from None
    try:
        end = time.monotonic() + patience
        while True:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except OSError:
                if time.monotonic() >= end:
                    raise GalleryError(f"another process is writing to gallery {folder}: try again later") from None
                time.sleep(0.01)
        yield
    finally:
        os.close(handle)
