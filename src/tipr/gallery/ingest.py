"""From what a user names (files, folders, manifests) to pictures ready to encode; bad files become report lines."""

from __future__ import annotations

import math
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import datetime
from itertools import groupby, islice
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from tipr.data.decoding import FILES, Asked, Decoded, Decoders, shared_decoders
from tipr.data.images import ImageProblem
from tipr.data.thumbnails import thumbnail
from tipr.gallery.stores import Box, Row
from tipr.gallery.tombstones import Buried

if TYPE_CHECKING:
    from PIL.Image import Image

WIDE = 0.8
"""A picture wider than this share of its height is hardly a crop of one standing person."""
MANIFESTS = (".jsonl", ".csv", ".tsv", ".parquet", ".pq")
"""How the names of manifests end, in small letters."""
WINDOW = 96
"""Files prepared ahead of the encoder."""

CODES = ("name", "box", "folder", "no files", "manifest", "pattern")
"""Reason codes of files that are not even opened, besides those of opening and decoding."""

Shrink = Callable[["Image | NDArray[np.uint8]"], "Image"]
"""RGB image, or (H, W, 3) uint8 -> RGB image at the encoder's size."""

Key = tuple[str, Box | None]
"""What makes a picture the same picture: resolved path and box."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One picture to add: a file as the user named it, and what is known about it.

    Without a `time` the picture gets the one of its EXIF data, if there is any.
    """

    path: str
    box: Box | None = None
    camera: str | None = None
    time: datetime | None = None
    identity: int | str | None = None
    tags: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Skipped:
    """A file that was not added.

    Attributes:
        path: as the user named it.
        reason: why, for people.
        hint: what to do.
        code: why, for programs: a key of `tipr.data.images.HINTS` or of `CODES`.
    """

    path: str
    reason: str
    hint: str
    code: str


@dataclass(frozen=True, slots=True)
class Unchanged:
    """A picture that the gallery has already; `stale` are ids of older contents of the same file."""

    stale: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True, eq=False)
class Prepared:
    """A picture ready to encode.

    Attributes:
        entry: what is known about it.
        path: resolved path.
        sha256: of the file's bytes.
        picture: RGB at the encoder's size.
        thumbnail: small JPEG of the crop.
        width, height: of the crop, in pixels.
        stale: ids of older contents of the same file, to be erased.
        indexed: when the picture came into the gallery, if it was there under another name; None for now.
    """

    entry: Entry
    path: str
    sha256: str
    picture: Image
    thumbnail: bytes
    width: int
    height: int
    stale: tuple[int, ...] = ()
    indexed: datetime | None = None

    def with_facts_of(self, row: Row, *, moved: bool) -> Prepared:
        """The same picture with what a row says where nothing else is known.

        Args:
            row: of the same picture under another name, or of an older content of the file.
            moved: it is the same picture: it counts as indexed when that was, and its time goes first.
        """
        times = (row.time, self.entry.time) if moved else (self.entry.time, row.time)
        entry = replace(
            self.entry,
            camera=self.entry.camera or row.camera,
            time=next((time for time in times if time is not None), None),
            identity=row.identity if self.entry.identity is None else self.entry.identity,
            tags=self.entry.tags or row.tags,
        )
        return replace(self, entry=entry, indexed=row.indexed if moved else None)

    @property
    def wide(self) -> bool:
        """Whether it is too wide for a crop of one standing person."""
        return self.width > WIDE * self.height


@dataclass(frozen=True, slots=True)
class Refused:
    """A picture that was erased and must stay away; `stale` are ids of older contents of the same file."""

    stale: tuple[int, ...] = ()


Outcome = Prepared | Unchanged | Skipped | Refused
Known = Mapping[Key, Mapping[str, Sequence[int]]]
"""Path and box -> SHA-256 -> ids of rows in the gallery."""


@dataclass(frozen=True, slots=True)
class IngestReport:
    """What `Gallery.add` or `Gallery.sync` did.

    Attributes:
        added: new rows.
        unchanged: pictures that were there already.
        skipped: files that could not be used, in the order met.
        wide_images: how many of the added are wider than 0.8 of their height; person crops are expected.
        replaced: older rows erased because their file has new content.
        refused: pictures that were erased before and stay away.
        shared: how many of the added have the content of another row, and were not encoded again.
        moved: how many of the added were there under another name, which is gone; `Gallery.sync` only, as the next.
        vanished: older rows erased because their file is gone.
        skip_report: file that lists the skipped, one JSON object a line; None when there are none.
    """

    added: int = 0
    unchanged: int = 0
    skipped: tuple[Skipped, ...] = ()
    wide_images: int = 0
    replaced: int = 0
    refused: int = 0
    shared: int = 0
    moved: int = 0
    vanished: int = 0
    skip_report: str | None = None


def list_entries(
    paths: Iterable[Path | str],
    *,
    recursive: bool = False,
    manifests: Iterable[Path | str] = (),
    camera: str | None = None,
) -> tuple[list[Entry], list[Skipped]]:
    """Expand what the user named, in the order given; folders sorted by name.

    Args:
        paths: image files, folders, and manifests (by their ending, see `MANIFESTS`).
        recursive: descend into folders.
        manifests: more manifests, whatever their names.
        camera: camera of every picture that has none of its own.

    Returns:
        The pictures, and what cannot even be listed.

    Raises:
        DatasetError: a manifest cannot be read, or a line of it breaks a rule.
    """
    entries: list[Entry] = []
    skipped: list[Skipped] = []
    for path in [os.fspath(path) for path in paths]:
        if path.lower().endswith(MANIFESTS):
            entries.extend(_manifest_entries(path, camera))
        elif os.path.isdir(path):
            found = _folder_entries(path, recursive, skipped)
            entries.extend(Entry(name, camera=camera) for name in found)
        else:
            entries.append(Entry(path, camera=camera))
    for path in [os.fspath(path) for path in manifests]:
        entries.extend(_manifest_entries(path, camera))
    return entries, skipped


def nobody_buried(sha256: str, box: Box | None) -> bool:
    """No picture was erased."""
    return False


def prepare_all(
    entries: Sequence[Entry],
    known: Known,
    shrink: Shrink,
    *,
    buried: Buried = nobody_buried,
    decoders: Decoders | None = None,
) -> Iterator[Outcome]:
    """Read, check, crop and shrink pictures in the background, a window ahead; results in the order of `entries`.

    Args:
        entries: what `list_entries` gave; consecutive ones of the same file are read once.
        known: what the gallery holds.
        shrink: makes what the encoder takes.
        buried: says which pictures were erased and must stay away.
        decoders: the processes that open the files; those that everybody shares when None.
    """
    decoders = decoders or shared_decoders()
    groups = (list(group) for _, group in groupby(entries, key=lambda entry: entry.path))
    waiting: deque[Future[list[Outcome]]] = deque()
    pool = ThreadPoolExecutor(decoders.processes, thread_name_prefix="decode")
    try:
        while some := list(islice(groups, FILES)):
            waiting.append(pool.submit(prepare, some, known, shrink, buried, decoders))
            if len(waiting) >= WINDOW // FILES:
                yield from waiting.popleft().result()
        while waiting:
            yield from waiting.popleft().result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def prepare(
    groups: Sequence[Sequence[Entry]],
    known: Known,
    shrink: Shrink,
    buried: Buried = nobody_buried,
    decoders: Decoders | None = None,
) -> list[Outcome]:
    """Some files and the pictures taken from each: one outcome for each entry; never raises for a bad file."""
    asked: list[Asked] = []
    named: list[str | Skipped] = []
    for entries in groups:
        path = _resolved(entries[0].path)
        named.append(path)
        if isinstance(path, str):
            versions = [known.get((path, entry.box), {}) for entry in entries]
            asked.append((entries[0].path, {digest for digest in versions[0] if all(digest in it for it in versions)}))
    files = (decoders or shared_decoders()).read(asked)
    outcomes: list[Outcome] = []
    for entries, path in zip(groups, named, strict=True):
        if isinstance(path, Skipped):
            outcomes.extend(path for _ in entries)
        else:
            versions = [known.get((path, entry.box), {}) for entry in entries]
            pictures = zip(entries, versions, strict=True)
            file = next(files)
            outcomes.extend(_outcome(*picture, path, file, shrink=shrink, buried=buried) for picture in pictures)
    return outcomes


def _resolved(name: str) -> str | Skipped:
    try:
        path = os.path.realpath(name)
        path.encode("utf-8")
        return path
    except UnicodeEncodeError:
        return Skipped(name, "the name is not valid UTF-8", "rename the file or its folder", "name")
    except ValueError:  # a NUL byte in the path
        return Skipped(name, "missing", "check the path", "missing")


def _outcome(
    entry: Entry,
    versions: Mapping[str, Sequence[int]],
    path: str,
    file: Decoded | ImageProblem,
    *,
    shrink: Shrink,
    buried: Buried,
) -> Outcome:
    if isinstance(file, ImageProblem):
        reason = f"{file.reason} ({file.detail})" if file.detail else file.reason
        return Skipped(entry.path, reason, file.hint, file.reason)
    stale = tuple(i for sha256, ids in versions.items() if sha256 != file.sha256 for i in ids)
    if file.sha256 in versions:
        return Unchanged(stale)
    if buried(file.sha256, entry.box):
        return Refused(stale)
    assert file.pixels is not None  # its digest was not asked for as known
    dated = replace(entry, time=entry.time or file.taken)
    return _picture(dated, file.pixels, shrink, path=path, sha256=file.sha256, stale=stale)


def _picture(
    entry: Entry, pixels: NDArray[np.uint8], shrink: Shrink, *, path: str, sha256: str, stale: tuple[int, ...]
) -> Outcome:
    from PIL import Image

    height, width = pixels.shape[:2]
    if entry.box is not None:
        x, y, wide, high = entry.box
        left, top = math.floor(x), math.floor(y)
        right, bottom = min(math.ceil(x + wide), width), min(math.ceil(y + high), height)
        if left >= right or top >= bottom:
            size = f"the picture is {width} x {height}"
            return Skipped(entry.path, f"box {list(entry.box)} lies outside ({size})", "correct the box", "box")
        pixels = pixels[top:bottom, left:right]
        height, width = pixels.shape[:2]
    small = thumbnail(Image.fromarray(pixels))
    return Prepared(entry, path, sha256, shrink(pixels), small, width, height, stale)


def _manifest_entries(path: str, camera: str | None) -> list[Entry]:
    from tipr.data.datasets.manifest_dataset import read_manifest_file

    folder = Path(path).parent
    return [
        Entry(
            path=str(folder / record.image),
            box=None if record.box is None else (record.box[0], record.box[1], record.box[2], record.box[3]),
            camera=record.camera or camera,
            time=record.instant,
            identity=record.identity,
            tags=record.tags,
        )
        for record in read_manifest_file(Path(path)).records
    ]


def _folder_entries(folder: str, recursive: bool, skipped: list[Skipped]) -> list[str]:
    """Files of a folder; hidden ones, galleries and links to folders are passed over."""
    found: list[str] = []
    subfolders: list[str] = []
    try:
        names = sorted(os.listdir(folder))
    except OSError as error:
        skipped.append(Skipped(folder, f"unreadable folder ({error.strerror})", "check its permissions", "folder"))
        return found
    for name in names:
        path = os.path.join(folder, name)
        if name.startswith("."):
            continue
        if os.path.isdir(path):
            if not os.path.islink(path) and not is_gallery(path):
                subfolders.append(path)
        elif name.lower().endswith(MANIFESTS):
            hint = "name it to add the pictures that it lists"
            skipped.append(Skipped(path, "a manifest inside a folder", hint, "manifest"))
        else:
            found.append(path)
    if recursive:
        for path in subfolders:
            found.extend(_folder_entries(path, recursive, skipped))
    elif not found:
        hint = "use --recursive to descend" if subfolders else "name a folder that holds pictures"
        skipped.append(Skipped(folder, "no files in this folder", hint, "no files"))
    return found


def folders_inside(paths: Iterable[Path | str]) -> int:
    """How many folders stand directly in the named ones, which `recursive` would enter."""
    return sum(
        entry.is_dir(follow_symlinks=False) and not entry.name.startswith(".") and not is_gallery(entry.path)
        for path in paths
        if os.path.isdir(path)
        for entry in os.scandir(path)
    )


def is_gallery(path: Path | str) -> bool:
    """Whether a folder is a gallery: its thumbnails and tables are no pictures to add."""
    return os.path.isfile(os.path.join(path, "gallery.json"))
