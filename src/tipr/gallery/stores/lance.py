"""Rows in one Lance table: vector, metadata, thumbnail and tokens of a row together, so that one commit covers all.

Tables are made through `lancedb`. All else goes through `lance` (pylance), the library inside it, pinned to the same
release: it opens a table in a fifth of the time, which is what a one-shot search waits for; it alone can remove the
bytes of deleted rows; and it alone lets new files reach the disk before the commit that names them (`TableFiles`).
"""

from __future__ import annotations

import json
import re
import shutil
import time
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, ClassVar, Self

import lance
import numpy as np
import pyarrow as pa
from lance.optimize import Compaction
from numpy.typing import NDArray

from tipr.errors import GalleryCorrupt, GalleryError
from tipr.gallery.stores import Coded, Durability, Pieces, Row, Store, TokenShape
from tipr.gallery.table_columns import coded, column
from tipr.gallery.table_files import TableFiles, files_of, unreadable
from tipr.gallery.table_index import NAME as INDEX
from tipr.gallery.table_index import build_index, has_index, nearest

TABLE = "people"
FRAGMENTS = 24
"""More pieces than this are merged by `maintain`."""
ROWS_PER_FRAGMENT = 100_000
"""Larger pieces are left alone, which bounds what one merge or one erasure rewrites."""
BYTES_PER_FRAGMENT = 2**28
"""The same bound for rows with image tokens, which are a hundred times larger."""
HISTORY = timedelta(minutes=2)
"""Old versions are kept this long by `maintain`, for processes that are reading them."""
READ_ROWS = 16_384
"""Rows of vectors that are read at a time."""
RETRIES = 5
"""Attempts of a maintenance step that met another commit."""


class LanceStore(Store):
    """The Lance table `people` below a gallery's folder."""

    name: ClassVar[str] = "lance"

    def __init__(self, folder: Path, dim: int, tokens: TokenShape | None, durability: Durability) -> None:
        self._folder = folder
        self._dim = dim
        self._tokens = tokens
        self._place = folder / f"{TABLE}.lance"
        self._order: tuple[int, NDArray[np.int64], NDArray[np.int64]] | None = None
        self._piece = ROWS_PER_FRAGMENT if tokens is None else min(ROWS_PER_FRAGMENT, _rows_of(tokens))
        self._files = TableFiles(folder, self._place, _schema(dim, tokens), power=durability == "power")
        with self._reading():
            self._dataset = self._files.newest()
            if self._dataset.schema != _schema(dim, tokens):
                raise GalleryCorrupt(folder, "its table has other columns than a gallery's")

    @classmethod
    def create(
        cls, folder: Path, dim: int, tokens: TokenShape | None = None, *, durability: Durability = "power"
    ) -> Self:
        """A new empty table."""
        import lancedb

        lancedb.connect(str(folder)).create_table(TABLE, schema=_schema(dim, tokens))
        store = cls(folder, dim, tokens, durability)
        with store._writing():
            store._files.record()
        return store

    @classmethod
    def open(
        cls, folder: Path, dim: int, tokens: TokenShape | None = None, *, durability: Durability = "power"
    ) -> Self:
        """The table at its newest version."""
        if not (folder / f"{TABLE}.lance").is_dir():
            raise GalleryCorrupt(folder, f"its table {TABLE}.lance is missing")
        return cls(folder, dim, tokens, durability)

    def refresh(self) -> int:
        """Step to the newest version; to see that there is none takes a look at names alone."""
        with self._reading():
            if self._files.versions()[:1] != [self._dataset.version]:
                self._dataset = self._files.newest()
            version: int = self._dataset.version
        return version

    def append(self, rows: Sequence[Row], first_id: int) -> None:
        """One commit."""
        with self._writing():
            batch = _batch(rows, first_id, self._dim, self._tokens)
            newest = self._files.newest()
            pieces = lance.fragment.write_fragments(batch, newest, mode="append")
            self._commit(newest, lance.LanceOperation.Append(pieces), next_id=first_id + len(rows))
        self.refresh()

    def ids(self) -> NDArray[np.int64]:
        """(N,) int64, rising."""
        known, order = self._stored()
        return known[order]

    def vectors(self) -> NDArray[np.float16]:
        """(N, D) float16."""
        column = self._read(["vector"])["vector"]
        if not len(column):
            return np.empty((0, self._dim), dtype=np.float16)
        flat = column.combine_chunks().flatten().to_numpy(zero_copy_only=False)
        return np.asarray(flat, dtype=np.float16).reshape(-1, self._dim)

    def columns(self, names: Sequence[str]) -> dict[str, NDArray[Any]]:
        """Columns in the order of `ids`."""
        table = self._read(names)
        return {name: column(name, table[name]) for name in names}

    def blocks(self, after: int = -1) -> Iterator[tuple[NDArray[np.int64], NDArray[np.float16]]]:
        """Ids and vectors, as the table's pieces hold them."""
        chosen = None if after < 0 else f"id > {int(after)}"
        with self._reading():
            scanner = self._dataset.scanner(columns=["id", "vector"], filter=chosen, batch_size=READ_ROWS)
            for batch in scanner.to_batches():
                ids = np.asarray(batch["id"].to_numpy(), dtype=np.int64)
                if len(ids):
                    flat = batch["vector"].flatten().to_numpy(zero_copy_only=False)
                    yield ids, np.asarray(flat, dtype=np.float16).reshape(len(ids), self._dim)

    def coded(self, names: Sequence[str]) -> dict[str, NDArray[Any] | Coded]:
        """Columns in the order of `ids`; objects as Arrow's dictionaries."""
        table = self._read(names)
        return {name: coded(name, table[name]) for name in names}

    def rows(self, ids: Sequence[int], names: Sequence[str]) -> dict[str, NDArray[Any]]:
        """Columns of some rows in the order asked for."""
        wanted = np.asarray(ids, dtype=np.int64)
        known, order = self._stored()
        places = np.searchsorted(known[order], wanted)
        for place, one in zip(places.tolist(), wanted.tolist(), strict=True):
            if place == len(known) or known[order[place]] != one:
                raise KeyError(one)
        with self._reading():  # by their place: a search by id would read the ids of all rows each time
            table = self._dataset.take(order[places].tolist(), columns=list(names))
        return {name: column(name, table[name]) for name in names}

    def index(self) -> None:
        """Build the index; it is on disk right after the version that names it."""
        with self._writing():
            self._retry(lambda: build_index(self._files.newest()))
            self._files.record()
        self.refresh()

    @property
    def indexed(self) -> bool:
        """Whether the version that is read has an index."""
        with self._reading():
            return has_index(self._dataset)

    def nearest(self, query: NDArray[np.float32], count: int) -> tuple[NDArray[np.int64], NDArray[np.float16]]:
        """Ids and vectors that the index finds."""
        with self._reading():
            return nearest(self._dataset, query, count)

    def thumbnails(self, ids: Sequence[int]) -> list[bytes]:
        """Thumbnails in the order asked for."""
        return self._blobs("thumbnail", ids)

    def tokens(self, ids: Sequence[int]) -> NDArray[np.float16]:
        """(n, T, W) float16 in the order asked for."""
        if self._tokens is None:
            raise ValueError("this store keeps no image tokens")
        blobs = self._blobs("tokens", ids)
        size = 2 * self._tokens[0] * self._tokens[1]
        if any(len(blob) != size for blob in blobs):
            raise GalleryCorrupt(self._folder, "image tokens of another size than the gallery's")
        return np.frombuffer(b"".join(blobs), dtype="<f2").astype(np.float16, copy=False).reshape(-1, *self._tokens)

    def erase(self, ids: Sequence[int]) -> None:
        """Hide by id alone (the predicate is written into the table's history), then purge."""
        if not ids:
            return
        wanted = f"id IN ({', '.join(str(int(i)) for i in ids)})"
        with self._writing():
            self._retry(lambda: self._hide(wanted))
        self.purge()

    def purge(self) -> None:
        """Rewrite the files that held deleted rows, then drop every older version and whatever no version names."""
        with self._writing():
            if has_index(self._files.newest()):  # its files hold the vectors of the rows that go
                self._retry(lambda: self._files.newest().drop_index(INDEX))
            self._retry(self._rewrite)
            self._retry(self._drop_history)
            self._files.record(gone=True)
        self.refresh()

    def maintain(self) -> None:
        """Merge fragments once there are many of them."""
        with self._writing():
            self._files.record()  # what a killed process left
            many = len(self._files.newest().get_fragments()) > FRAGMENTS
        if many:
            self.compact()
        else:
            self.refresh()

    def compact(self) -> None:
        """Merge fragments, and drop versions older than `HISTORY`."""
        with self._writing():
            self._retry(self._merge)
            self._retry(lambda: self._files.newest().cleanup_old_versions(older_than=HISTORY))
            self._files.record(gone=True)
        self.refresh()

    def pieces(self) -> Pieces:
        """Fragments, versions and hidden rows of the newest version."""
        with self._reading():
            newest = self._files.newest()
            deleted = newest.stats.dataset_stats()["num_deleted_rows"]
            return Pieces(len(newest.get_fragments()), len(self._files.versions()), int(deleted))

    def files(self) -> dict[str, int]:
        """The files of the newest version, and how many rows are lost with each; a manifest counts for none."""
        with self._reading():
            newest = self._files.newest()
            rows = {piece.fragment_id: int(piece.count_rows()) for piece in newest.get_fragments()}
            needed = files_of(newest, self._folder, self._place)
            return {name: 0 if piece is None else rows[piece] for name, piece in needed.items()}

    def let_go(self, files: Collection[str]) -> None:
        """One commit without the pieces that need these files; no file is touched."""
        with self._writing():
            newest = self._files.newest()
            needed = files_of(newest, self._folder, self._place)
            going = sorted({piece for name in files if (piece := needed.get(name)) is not None})
            if going:
                self._commit(newest, lance.LanceOperation.Delete([], going, "damaged pieces"))
        self.refresh()

    @property
    def engine(self) -> str:
        """Lance and its version."""
        return f"lance {lance.__version__}"

    def _blobs(self, column: str, ids: Sequence[int]) -> list[bytes]:
        """A column of bytes, of these rows alone, in the order asked for."""
        if not ids:
            return []
        wanted = ", ".join(str(int(i)) for i in ids)
        with self._reading():
            table = self._dataset.to_table(columns=["id", column], filter=f"id IN ({wanted})")
        found = dict(zip(table["id"].to_pylist(), table[column].to_pylist(), strict=True))
        return [found[int(i)] for i in ids]

    def _commit(self, newest: Any, operation: Any, *, next_id: int = 0, hiding: Iterable[str] = ()) -> None:
        """Make a new version of files that are written already: they are on disk before a manifest names them."""
        new = getattr(operation, "fragments", None) or getattr(operation, "new_fragments", None) or ()
        self._files.check(new, hiding)
        self._files.secure()
        lance.LanceDataset.commit(newest, operation, read_version=newest.version)
        self._files.check_commit(newest.version)
        self._files.record(next_id=next_id)

    def _hide(self, wanted: str) -> None:
        newest = self._files.newest()
        left_behind = self._files.hiding()
        changed, emptied = [], []
        for piece in newest.get_fragments():
            left = piece.delete(wanted)  # writes a file of hidden rows; nothing is visible yet
            if left is None:
                emptied.append(piece.fragment_id)
            elif _hidden(left) > _hidden(piece.metadata):
                changed.append(left)
        if changed or emptied:
            hiding = self._files.hiding() - left_behind
            self._commit(newest, lance.LanceOperation.Delete(changed, emptied, wanted), hiding=hiding)

    def _rewrite(self) -> None:
        """Write the pieces that hide rows again, without them: one after the other, and with little space left the old
        one goes before the next."""
        while True:
            newest = self._files.newest()
            hiding = [piece for piece in newest.get_fragments() if _hidden(piece.metadata)]
            if not hiding:
                return
            batches = hiding[0].scanner().to_reader()
            written = lance.fragment.write_fragments(batches, newest, mode="append", max_rows_per_file=self._piece)
            going = [hiding[0].fragment_id]
            self._commit(newest, lance.LanceOperation.Update(removed_fragment_ids=going, new_fragments=written))
            size = sum(file.file_size_bytes or 0 for piece in hiding for file in piece.metadata.files)
            if shutil.disk_usage(self._place).free < 2 * size:
                self._drop_history()

    def _drop_history(self) -> None:
        # the caller holds the gallery's lock, so no other writer has files that are not yet committed
        self._files.newest().cleanup_old_versions(older_than=timedelta(0), delete_unverified=True)

    def _merge(self) -> None:
        newest = self._files.newest()
        plan = Compaction.plan(newest, {"target_rows_per_fragment": self._piece})
        merged = [task.execute(newest) for task in plan.tasks]
        if merged:
            self._files.check(piece for result in merged for piece in result.new_fragments)
            self._files.secure()
            Compaction.commit(newest, merged)
            self._files.check_commit(newest.version - 1)  # where nothing was left to merge there is no new version
            self._files.record()  # before the only other copy of the rows goes

    def _stored(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Ids as the table holds them, and the places that put them in order; read once for each version."""
        version = self._dataset.version
        if self._order is None or self._order[0] != version:
            with self._reading():
                known = np.asarray(self._dataset.to_table(columns=["id"])["id"].to_numpy(), dtype=np.int64)
            self._order = version, known, np.argsort(known, kind="stable")
        return self._order[1], self._order[2]

    def _read(self, names: Sequence[str]) -> pa.Table:
        with self._reading():
            table = self._dataset.to_table(columns=["id", *(name for name in names if name != "id")])
        ids = table["id"].to_numpy()
        if len(ids) and (np.diff(ids) <= 0).any():  # a merge need not keep the order
            table = table.take(pa.array(np.argsort(ids, kind="stable")))
        return table

    def _retry(self, step: Any) -> None:
        for attempt in range(RETRIES):
            try:
                step()
                return
            except (OSError, RuntimeError) as error:
                if attempt + 1 == RETRIES or "conflict" not in str(error).lower():
                    raise
                time.sleep(0.1 * 2**attempt)

    @contextmanager
    def _reading(self) -> Iterator[None]:
        try:
            yield
        except BaseException as error:
            if not unreadable(error):
                raise
            raise GalleryCorrupt(self._folder, _line(error)) from None

    @contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            self._files.settle()
            yield
        except BaseException as error:
            if not unreadable(error):
                raise
            raise GalleryError(f"cannot write to gallery {self._folder}: {_line(error)}") from None


def _rows_of(tokens: TokenShape) -> int:
    return max(1, BYTES_PER_FRAGMENT // (2 * tokens[0] * tokens[1]))


def _hidden(piece: Any) -> int:
    return 0 if piece.deletion_file is None else int(piece.deletion_file.num_deleted_rows)


def _schema(dim: int, tokens: TokenShape | None) -> pa.Schema:
    kept = [] if tokens is None else [pa.field("tokens", pa.large_binary(), nullable=False)]  # float16, little-endian
    return pa.schema(
        [
            pa.field("id", pa.int64(), nullable=False),
            pa.field("vector", pa.list_(pa.float16(), dim), nullable=False),
            pa.field("path", pa.string(), nullable=False),
            pa.field("sha256", pa.string(), nullable=False),
            pa.field("camera", pa.string()),
            pa.field("time", pa.timestamp("us", tz="UTC")),
            pa.field("box", pa.string()),  # JSON, as are identity and tags: small, and any shape survives
            pa.field("width", pa.int32(), nullable=False),
            pa.field("height", pa.int32(), nullable=False),
            pa.field("identity", pa.string()),
            pa.field("tags", pa.string()),
            pa.field("thumbnail", pa.binary(), nullable=False),
            *kept,
            pa.field("indexed", pa.timestamp("us", tz="UTC"), nullable=False),
        ]
    )


def _batch(rows: Sequence[Row], first_id: int, dim: int, tokens: TokenShape | None) -> pa.RecordBatch:
    vectors = np.stack([row.vector for row in rows])
    if vectors.shape != (len(rows), dim) or vectors.dtype != np.float16:
        raise ValueError(f"vectors must be ({len(rows)}, {dim}) float16, not {vectors.shape} {vectors.dtype}")
    shapes = {None if row.tokens is None else row.tokens.shape for row in rows}
    if shapes != {tokens}:
        raise ValueError(f"image tokens must be of shape {tokens} in every row, not {shapes}")
    now = datetime.now(UTC)
    values: dict[str, Any] = {
        "id": pa.array(range(first_id, first_id + len(rows)), pa.int64()),
        "vector": pa.FixedSizeListArray.from_arrays(pa.array(vectors.ravel(), pa.float16()), dim),
        "path": [row.path for row in rows],
        "sha256": [row.sha256 for row in rows],
        "camera": [row.camera for row in rows],
        "time": [row.time for row in rows],
        "box": [_json(row.box) for row in rows],
        "width": [row.width for row in rows],
        "height": [row.height for row in rows],
        "identity": [_json(row.identity) for row in rows],
        "tags": [_json(row.tags or None) for row in rows],
        "indexed": [row.indexed or now for row in rows],
        "thumbnail": [row.thumbnail for row in rows],
        "tokens": [None if row.tokens is None else row.tokens.astype("<f2", copy=False).tobytes() for row in rows],
    }
    schema = _schema(dim, tokens)
    arrays = [
        column if isinstance(column := values[field.name], pa.Array) else pa.array(column, field.type)
        for field in schema
    ]
    return pa.record_batch(arrays, schema=schema)


def _json(value: Any) -> str | None:
    return None if value is None else json.dumps(value, ensure_ascii=False)


def _line(error: BaseException) -> str:
    text = re.sub(r",? ?/\S+\.rs:\d+.*", "", " ".join(str(error).split())) or type(error).__name__  # no source lines
    return text if len(text) <= 300 else text[:297] + "..."
