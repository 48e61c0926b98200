"""A manifest as a table, CSV or Parquet: a row an image, or a row a caption; the rules are those of JSON Lines.

    image,caption,language,identity,camera,time,split,tags
    images/a.jpg,A man in a red coat.,en,7,gate,2026-03-01T08:30:00Z,test,indoor;night
    images/a.jpg,Ein Mann in einem roten Mantel.,de,7,gate,2026-03-01T08:30:00Z,test,indoor;night

Columns `caption_en`, `caption_zh`, `caption_fr`, `caption_de` hold a caption of their language each. Parquet may have
`captions` as a list of texts or of {language, text}, `box` and `tags` as lists. Empty cells are as if not there.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from tipr.data.manifest import KEYS, Record, parse_record
from tipr.data.samples import LANGUAGES
from tipr.errors import DatasetError

COLUMNS = (*KEYS, "caption", "language", *(f"caption_{language}" for language in LANGUAGES))
"""What a table may have; `image` must be there."""
DEFAULT_LANGUAGE = "en"
DELIMITERS = ",;\t"


def read_csv(path: Path) -> tuple[list[int], list[Record]]:
    """Read a CSV manifest; the delimiter (comma, semicolon or tab) is the one most frequent in the first line.

    Returns:
        line number of the first row of each record, and the records in the order of their first rows.

    Raises:
        DatasetError: not UTF-8, a row of another length, a column that is not allowed, or a value that is not.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            header = file.readline()
            file.seek(0)
            rows = csv.DictReader(file, delimiter=max(DELIMITERS, key=header.count), restkey="", strict=True)
            _check_columns(path, rows.fieldnames or ())
            return _joined(path, _lines(path, rows))
    except UnicodeDecodeError:
        raise DatasetError(f"{path}: not UTF-8") from None
    except csv.Error as error:
        raise DatasetError(f"{path}: not CSV: {error}") from None
    except OSError as error:
        raise DatasetError(f"cannot read manifest {path}: {error.strerror or error}") from None


def read_parquet(path: Path) -> tuple[list[int], list[Record]]:
    """Read a Parquet manifest; see `read_csv`, with row numbers from 1 for lines."""
    import pyarrow
    import pyarrow.parquet

    try:
        table = pyarrow.parquet.read_table(path)
    except (pyarrow.ArrowException, OSError) as error:
        raise DatasetError(f"cannot read manifest {path}: {str(error).splitlines()[0]}") from None
    _check_columns(path, table.column_names)
    return _joined(path, enumerate(table.to_pylist(), start=1))


def _check_columns(path: Path, columns: Iterable[str]) -> None:
    columns = list(columns)
    for column in columns:
        if column not in COLUMNS:
            raise DatasetError(f"{path}: unknown column {column!r}; allowed: {', '.join(COLUMNS)}")
    if "image" not in columns:
        raise DatasetError(f"{path}: the column image is missing")
    twice = next((column for column in columns if columns.count(column) > 1), None)
    if twice is not None:
        raise DatasetError(f"{path}: the column {twice} is there twice")


def _lines(path: Path, rows: csv.DictReader[str]) -> Iterator[tuple[int, Mapping[str, Any]]]:
    for row in rows:
        if "" in row or None in row.values():
            raise DatasetError(f"{path}:{rows.line_num}: a row must have as many cells as the first one")
        yield rows.line_num, row


def _joined(path: Path, rows: Iterable[tuple[int, Mapping[str, Any]]]) -> tuple[list[int], list[Record]]:
    """Rows of one image as one record: captions are joined, everything else must agree."""
    lines: list[int] = []
    records: list[Record] = []
    positions: dict[tuple[str, Any], int] = {}
    for line, row in rows:
        source = f"{path}:{line}"
        record = parse_record(json.dumps(_tree(row, source), default=str), source=source)
        key = record.image, record.box
        if key not in positions:
            positions[key] = len(records)
            lines.append(line)
            records.append(record)
            continue
        before = records[positions[key]]
        joined = replace(before, captions=before.captions + record.captions)
        if joined != replace(record, captions=joined.captions):
            raise DatasetError(
                f"{source}: {record.image} stands in line {lines[positions[key]]} with other values: rows of one image "
                "may differ in caption and language only"
            )
        records[positions[key]] = joined
    return lines, records


def _tree(row: Mapping[str, Any], source: str) -> dict[str, Any]:
    """A row as the object that the JSON Lines form would have."""
    cells = {key: value for key, value in row.items() if value is not None and value != ""}
    tree: dict[str, Any] = {"captions": [], **{key: cells[key] for key in KEYS if key in cells}}
    language = cells.get("language", DEFAULT_LANGUAGE)
    tree["captions"] = _captions(cells.get("captions"), language, source)
    if "caption" in cells:
        tree["captions"].append({"language": language, "text": cells["caption"]})
    for code in LANGUAGES:
        if f"caption_{code}" in cells:
            tree["captions"].append({"language": code, "text": cells[f"caption_{code}"]})
    if isinstance(tree.get("identity"), str) and tree["identity"].isdecimal():
        tree["identity"] = int(tree["identity"])  # a table of text does not tell 7 from "7"
    if isinstance(tree.get("box"), str):
        tree["box"] = _numbers(tree["box"])
    if isinstance(tree.get("tags"), str):
        tree["tags"] = [tag.strip() for tag in tree["tags"].split(";") if tag.strip()]
    if hasattr(tree.get("time"), "isoformat"):
        tree["time"] = tree["time"].isoformat()
    return tree


def _captions(value: Any, language: str, source: str) -> list[Any]:
    if value is None:
        return []
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except ValueError:
            raise DatasetError(f"{source}: captions: must be a JSON list; one text goes into caption") from None
    if not isinstance(value, list):
        raise DatasetError(f"{source}: captions: must be a list")
    return [item if isinstance(item, Mapping) else {"language": language, "text": item} for item in value]


def _numbers(text: str) -> Any:
    try:
        return [float(part) for part in text.strip("[]() ").replace(",", " ").split()]
    except ValueError:
        return text  # the record's own rule names what is wrong
