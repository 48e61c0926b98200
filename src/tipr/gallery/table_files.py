"""The files of a Lance table: which version can be read, what must be on disk before it counts, and their digests.

Lance syncs nothing (storage that loses power may keep a manifest and lose the data it names, or keep an empty
manifest, which makes the table unopenable). So a commit here is: new files, `secure`, the manifest that names them,
`record`. Whatever the power cut leaves, the newest readable manifest names files that are whole.
"""

from __future__ import annotations

import errno
import logging
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import lance
import pyarrow as pa

from tipr.errors import GalleryError
from tipr.gallery import digests

logger = logging.getLogger(__name__)

ASIDE = "set_aside"
"""Folder below a gallery with files that cannot be read; nothing is deleted because it looks damaged."""
_MANIFEST = ".manifest"
_COUNTED_DOWN = 2**64 - 1
"""Lance names the manifest of version v by this number less v, so that the newest is listed first."""
_UNREADABLE = (OSError, ValueError, RuntimeError, pa.ArrowException)


class TableFiles:
    """The files of one table.

    Args:
        folder: of the gallery.
        place: of the table below it.
        schema: the table's columns; a manifest of zeros reads as a table without any.
        power: have files on disk, not only in the system's cache, when `secure` and `record` return.
    """

    def __init__(self, folder: Path, place: Path, schema: pa.Schema, *, power: bool) -> None:
        self._folder, self._place, self._schema, self._power = folder, place, schema, power
        self._recorded: set[str] | None = None
        self._stamp: tuple[int, int, int] | None = None
        self._secured: set[str] = set()
        self._told: set[int] = set()

    def newest(self) -> Any:
        """The table at its newest version that can be read; a warning is logged when newer ones cannot.

        Raises:
            OSError, ValueError, RuntimeError: no version can be read.
        """
        problem = None
        try:
            newest = lance.dataset(str(self._place))
            if newest.schema == self._schema:
                return newest
        except BaseException as error:
            if not unreadable(error):
                raise
            newest, problem = None, error
        found = self._step_back()
        if found is not None:
            return found
        if problem is not None:
            raise problem
        return newest

    def settle(self) -> None:
        """Move manifests that are newer than the newest readable one aside: a commit needs their number.

        The caller is the only writer.
        """
        readable = self.newest().version
        for version in self.versions():
            if version > readable:
                set_aside(self._folder, self._place / "_versions" / manifest_name(version))

    def versions(self) -> list[int]:
        """The versions that have a manifest, newest first, without reading one."""
        names = os.listdir(self._place / "_versions")
        numbers = (name.removesuffix(_MANIFEST) for name in names if name.endswith(_MANIFEST))
        return sorted((_COUNTED_DOWN - int(number) for number in numbers if number.isdigit()), reverse=True)

    def hiding(self) -> frozenset[str]:
        """Files that say which rows a piece hides and are not noted yet; a failed erasure leaves some."""
        return frozenset(name for name in self._new() if name.endswith(".arrow"))

    def check(self, pieces: Iterable[Any], hiding: Iterable[str] = ()) -> None:
        """See that new files are whole: when the last write to a file fails, Lance does not tell.

        Args:
            pieces: metadata of the new fragments.
            hiding: new files that say which rows a piece hides.

        Raises:
            OSError: a file is shorter than it must be, or cannot be read.
        """
        for piece in pieces:
            for file in piece.files:
                path = self._place / "data" / file.path
                if file.file_size_bytes is not None and path.stat().st_size != file.file_size_bytes:
                    raise OSError(errno.EIO, "a file was not written to its end")
        for name in hiding:
            try:
                pa.ipc.open_file(self._folder / name).read_all()
            except (OSError, pa.ArrowException):
                raise OSError(errno.EIO, "a file was not written to its end") from None

    def check_commit(self, version: int) -> None:
        """See that a version newer than `version` can be read, and the rows it hides.

        Raises:
            OSError: it cannot; the version before is still there.
        """
        newest = self.newest()
        if newest.version <= version:
            raise OSError(errno.EIO, "the commit was not written to its end")
        newest.count_rows()

    def secure(self) -> None:
        """Have the files that are new on disk, before a commit names them."""
        if self._power:
            self._sync(name for name in self._new())

    def record(self, *, next_id: int = 0, gone: bool = False) -> None:
        """Have all new files on disk and note their digests.

        Args:
            next_id: higher than the id of any row, when rows were added.
            gone: forget the files that are there no more, after their names are off the disk too.

        Raises:
            OSError: the digests cannot be written.
        """
        new = self._new()
        if self._power:
            self._sync(new)
        noted = {name: digests.digest_of(self._folder / name) for name in new}
        if noted:
            self._known().update(noted)
            hint = os.path.relpath(self._place / "_versions" / digests.HINT, self._folder)
            if (self._folder / hint).exists():
                noted[hint] = digests.digest_of(self._folder / hint)
            digests.note(self._folder, noted, next_id=next_id, sync=self._power)
        if gone:
            if self._power:
                for folder, _, _ in os.walk(self._place):
                    _sync(Path(folder))
            known = digests.Ledger.read(self._folder).digests
            top = f"{self._place.name}/"
            lost = [name for name in known if name.startswith(top) and not (self._folder / name).exists()]
            if lost:
                digests.prune(self._folder, lost)
        self._stamp = _stamp(self._folder)

    def _step_back(self) -> Any:
        versions = self.versions()
        for version in versions[1:]:
            try:
                found = lance.dataset(str(self._place), version=version)
            except BaseException as error:
                if not unreadable(error):
                    raise
                continue
            if found.schema != self._schema:
                continue
            if version not in self._told:
                self._told.add(version)
                logger.warning(
                    "gallery %s: version %d of its table cannot be read, as after a power cut; going back to version "
                    "%d. Nothing was deleted. Pictures that were added last may be missing: add them again, and run "
                    "`tipr index verify`",
                    self._folder,
                    versions[0],
                    version,
                )
            return found
        return None

    def _new(self) -> list[str]:
        known = self._known()
        return [name for name in table_files(self._folder, self._place) if name not in known]

    def _known(self) -> set[str]:
        """Files whose digest stands in the ledger, which other processes write too."""
        stamp = _stamp(self._folder)
        if self._recorded is None or stamp != self._stamp:
            self._recorded = set(digests.Ledger.read(self._folder).digests)
            self._stamp = stamp
        return self._recorded

    def _sync(self, names: Iterator[str] | list[str]) -> None:
        folders = set()
        for name in names:
            if name not in self._secured:
                _sync(self._folder / name)
                self._secured.add(name)
            folders.add((self._folder / name).parent)
        for folder in folders:
            _sync(folder)
        if folders:
            _sync(self._place)


def table_files(folder: Path, place: Path) -> Iterator[str]:
    """The files below a table that never change, relative to the gallery's folder; drafts are left out."""
    for top, _, names in os.walk(place):
        for name in names:
            relative = os.path.relpath(os.path.join(top, name), folder)
            if name != digests.HINT and not name.startswith(".") and ".tmp" not in name:
                yield relative


def files_of(dataset: Any, folder: Path, place: Path) -> dict[str, int | None]:
    """The files that one version of a table needs, relative to the gallery's folder, and the piece they belong to.

    Args:
        dataset: the table at that version.
        folder: of the gallery.
        place: of the table.
    """
    top = os.path.relpath(place, folder)
    needed: dict[str, int | None] = {f"{top}/_versions/{manifest_name(dataset.version)}": None}
    for fragment in dataset.get_fragments():
        for file in fragment.metadata.files:
            needed[f"{top}/data/{file.path}"] = fragment.fragment_id
        if (deletions := fragment.deletion_file()) is not None:
            needed[f"{top}/{deletions}"] = fragment.fragment_id
    return needed


def manifest_name(version: int) -> str:
    """The file name of a version's manifest."""
    return f"{_COUNTED_DOWN - version:020d}{_MANIFEST}"


def set_aside(folder: Path, path: Path) -> Path:
    """Move a damaged file of a gallery to `set_aside/`, where nothing reads it; returns its new place.

    Raises:
        GalleryError: it cannot be moved.
    """
    aside = folder / ASIDE
    try:
        aside.mkdir(exist_ok=True)
        target = aside / path.name
        number = 0
        while target.exists():
            number += 1
            target = aside / f"{path.name}.{number}"
        os.replace(path, target)
        _sync(path.parent)
        _sync(aside)
    except OSError as error:
        raise GalleryError(f"cannot move {path} aside: {error.strerror or error}") from None
    logger.warning("gallery %s: moved %s to %s", folder, path.relative_to(folder), target.relative_to(folder))
    return target


def unreadable(error: BaseException) -> bool:
    """Whether an error is how Lance reports damaged files."""
    return isinstance(error, _UNREADABLE) or type(error).__name__ == "PanicException"


def _stamp(folder: Path) -> tuple[int, int, int] | None:
    try:
        status = os.stat(folder / digests.NAME)
    except FileNotFoundError:
        return None
    return status.st_ino, status.st_size, status.st_mtime_ns


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
