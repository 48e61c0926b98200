"""From the format of an older version of tipr to today's, one number at a time.

A step commits the table in its new form as one more version, and writes `gallery.json` last. A kill in between leaves
a gallery that is still of the old format; the same command continues. What the old version held stays in the table's
history until the gallery is compacted.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import lance
import pyarrow as pa

from tipr.errors import GalleryCorrupt, GalleryError
from tipr.gallery.lock import exclusive
from tipr.gallery.settings import FORMAT, NAME, read_settings, token_shape, write_settings
from tipr.gallery.stores import STORES
from tipr.gallery.table_files import unreadable

INDEXED = pa.field("indexed", pa.timestamp("us", tz="UTC"), nullable=False)


def upgrade(folder: Path | str) -> tuple[int, int]:
    """Bring a gallery to today's format.

    Args:
        folder: of the gallery.

    Returns:
        The format that it had, and the one that it has; equal when there was nothing to do.

    Raises:
        GalleryError: there is no gallery, it is newer than this version of tipr, or another process is writing.
        GalleryCorrupt: it is damaged; nothing was changed.
    """
    folder = Path(folder)
    number = _format(folder)
    if number not in range(1, FORMAT):
        return number, read_settings(folder)["format"]
    with exclusive(folder):
        for old in range(_format(folder), FORMAT):
            tree = json.loads((folder / NAME).read_text(encoding="utf-8"))
            try:
                STEPS[old](folder, tree)
            except BaseException as error:
                if not unreadable(error) and not isinstance(error, KeyError):
                    raise
                raise GalleryCorrupt(folder, f"it cannot be upgraded ({' '.join(str(error).split())[:200]})") from None
            write_settings(folder, {**tree, "format": old + 1})
        known = read_settings(folder)
        store = STORES[known["store"]]().open(folder, known["model"]["dim"], token_shape(known))
        store.maintain()
    return number, FORMAT


def _format(folder: Path) -> int:
    """The number in `gallery.json`; whatever is wrong with the file is said by `read_settings`."""
    try:
        return int(json.loads((folder / NAME).read_text(encoding="utf-8"))["format"])
    except (OSError, ValueError, KeyError, TypeError):
        return int(read_settings(folder)["format"])


def _know_when_indexed(folder: Path, tree: dict[str, Any]) -> None:
    """Format 2: rows without a time count from their indexing; for older rows that is when the gallery was made."""
    place = folder / "people.lance"
    if not place.is_dir():
        raise GalleryError(f"gallery {folder} has no table")
    old = lance.dataset(str(place))
    if INDEXED.name in old.schema.names:
        return  # a kill came between the table and gallery.json
    made = datetime.fromisoformat(tree["created"]).astimezone(UTC)
    schema = old.schema.append(INDEXED)

    def rows() -> Iterator[pa.RecordBatch]:
        for batch in old.to_batches():
            times = pa.array([made] * len(batch), INDEXED.type)
            yield pa.record_batch([*batch.columns, times], schema=schema)

    lance.write_dataset(pa.RecordBatchReader.from_batches(schema, rows()), str(place), schema=schema, mode="overwrite")


STEPS: dict[int, Callable[[Path, dict[str, Any]], None]] = {1: _know_when_indexed}
"""Format -> what makes the next one of it."""
