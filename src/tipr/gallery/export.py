"""What a gallery knows of its pictures, as a file for other programs; never a vector or a thumbnail."""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, TextIO

import numpy as np

from tipr.errors import ConfigError, GalleryError
from tipr.gallery.durable import sync_folder
from tipr.gallery.reader import Reader
from tipr.gallery.stores import COLUMNS

KINDS = (".jsonl", ".csv", ".parquet")
FIELDS = ("id", *COLUMNS, "indexed")
"""What is exported of a row. `time` and `indexed` are RFC 3339 in UTC, `box` is [x, y, width, height] in pixels."""
FORMULA = ("=", "+", "-", "@", "\t", "\r")
"""A spreadsheet would calculate a cell that begins so."""


def export(reader: Reader, target: Path | str) -> int:
    """Write all rows, by rising id, in one step.

    Args:
        reader: of the gallery.
        target: a file that ends in one of `KINDS`; in CSV, tags stand as "a;b", and a text that a spreadsheet would
            take for a formula begins with an apostrophe.

    Returns:
        How many rows were written.

    Raises:
        ConfigError: another kind of file.
        GalleryError: the file cannot be written; what was there stays.
    """
    target = Path(target)
    if target.suffix.lower() not in KINDS:
        raise ConfigError(f"cannot export to {target}: the name must end in {', '.join(KINDS)}")
    columns = reader.consistently(lambda: {"id": reader.ids(), **reader.columns(FIELDS[1:])})
    draft = target.with_name(f".{target.name}.draft")
    try:
        if target.suffix.lower() == ".parquet":
            _write_parquet(draft, columns)
        else:
            with draft.open("w", encoding="utf-8", newline="") as file:
                (_write_csv if target.suffix.lower() == ".csv" else _write_lines)(file, columns)
                file.flush()
                os.fsync(file.fileno())
        os.replace(draft, target)
        sync_folder(target.parent)
    except OSError as error:
        raise GalleryError(f"cannot write {target}: {error.strerror or error}") from None
    finally:
        draft.unlink(missing_ok=True)
    return len(columns["id"])


def _rows(columns: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    for values in zip(*(columns[name] for name in FIELDS), strict=True):
        row = dict(zip(FIELDS, values, strict=True))
        row.update({name: int(row[name]) for name in ("id", "width", "height")})
        row.update({name: _moment(row[name]) for name in ("time", "indexed")})
        row["box"] = None if row["box"] is None else list(row["box"])
        row["tags"] = list(row["tags"])
        yield row


def _write_lines(file: TextIO, columns: Mapping[str, Any]) -> None:
    for row in _rows(columns):
        file.write(json.dumps({name: value for name, value in row.items() if value not in (None, [])}) + "\n")


def _write_csv(file: TextIO, columns: Mapping[str, Any]) -> None:
    table = csv.writer(file, lineterminator="\n")
    table.writerow(FIELDS)
    for row in _rows(columns):
        row["box"] = None if row["box"] is None else json.dumps(row["box"])
        row["tags"] = ";".join(row["tags"])
        table.writerow([_harmless(row[name]) for name in FIELDS])


def _write_parquet(draft: Path, columns: Mapping[str, Any]) -> None:
    import pyarrow as pa
    import pyarrow.parquet

    kinds = {"id": pa.int64(), "width": pa.int32(), "height": pa.int32()}
    kinds |= {"box": pa.list_(pa.float64()), "tags": pa.list_(pa.string())}
    rows = list(_rows(columns))
    for row in rows:
        row["identity"] = None if row["identity"] is None else str(row["identity"])
    schema = pa.schema([pa.field(name, kinds.get(name, pa.string())) for name in FIELDS])
    pa.parquet.write_table(pa.Table.from_pylist(rows, schema=schema), draft)


def _harmless(value: Any) -> Any:
    return f"'{value}" if isinstance(value, str) and value.startswith(FORMULA) else value


def _moment(value: np.datetime64) -> str | None:
    return None if np.isnat(value) else f"{np.datetime_as_string(value, unit='us', timezone='naive')}Z"
