"""Columns of a Lance table as NumPy arrays: times, numbers, and objects, which are stored as texts or as JSON."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute
from numpy.typing import NDArray

from tipr.gallery.stores import Coded


def column(name: str, values: pa.ChunkedArray) -> NDArray[Any]:
    """(N,) values of a column, as `Store.columns` gives them."""
    given = coded(name, values)
    if not isinstance(given, Coded):
        return given
    objects = np.empty(len(given.values), dtype=object)
    for position, value in enumerate(given.values):  # NumPy would take tuples apart
        objects[position] = value
    return objects[given.codes]


def coded(name: str, values: pa.ChunkedArray) -> NDArray[Any] | Coded:
    """(N,) values of a column, as `Store.coded` gives them; `vector` as (N, D) float16."""
    if name in ("time", "indexed"):
        return np.asarray(values.cast(pa.timestamp("us")).to_numpy(zero_copy_only=False), dtype="datetime64[us]")
    if name in ("width", "height"):
        return np.asarray(values.to_numpy(), dtype=np.int64)
    if name == "vector":
        flat = values.combine_chunks().flatten().to_numpy(zero_copy_only=False)
        return np.asarray(flat, dtype=np.float16).reshape(len(values), -1)
    encoded = pa.compute.dictionary_encode(values.combine_chunks(), null_encoding="encode")
    different = [_value(name, text) for text in encoded.dictionary.to_pylist()]
    return Coded(different, np.asarray(encoded.indices.to_numpy(), dtype=np.int32))


def _value(name: str, text: str | None) -> Any:
    value = json.loads(text) if name in ("box", "identity", "tags") and text is not None else text
    if name == "tags" and value is None:
        value = []
    return tuple(value) if isinstance(value, list) else value
