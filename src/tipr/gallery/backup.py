"""A copy of a gallery that is whole: taken while others write, checked file by file, refused when it is torn.

The table of a gallery never changes a file, so a backup is the files of one version; should an erasure take that
version away meanwhile, the copy starts again, so that no backup holds a person whose erasure was done before it ended.
BACKUP/backup.json, written last, lists every file with its digest, and says where the gallery lies. Who was erased from
there since is erased from what is restored before it takes its name (`tipr.gallery.since_backup`).
"""

from __future__ import annotations

import fcntl
import glob
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tipr.errors import GalleryCorrupt, GalleryError
from tipr.gallery import digests, durable, settings, since_backup
from tipr.gallery.info import PENDING
from tipr.gallery.lock import exclusive
from tipr.gallery.verify import store_of

NAME = "backup.json"
FORMAT = 1
UNFINISHED = ".unfinished"
"""In a folder that is being made, locked by the process that makes it."""
ATTEMPTS = 4
"""Copies that are begun beside writers; the last one makes them wait."""
PATIENCE = 30.0
"""Seconds that it waits for one that is writing."""

CHUNK = 1 << 22
"""Bytes copied at a time."""

Progress = Callable[[int, int], None]
"""Called with (bytes copied, bytes to copy)."""
Digests = Mapping[str, digests.Digest]


class _Changed(Exception):
    """What was being copied went away."""


@dataclass(frozen=True, slots=True)
class Copied:
    """What was copied.

    Attributes:
        files, bytes: how much.
        pictures: rows of the gallery.
        version: of its table.
    """

    files: int
    bytes: int
    pictures: int
    version: int


def back_up(folder: Path | str, target: Path | str, *, progress: Progress | None = None) -> Copied:
    """Copy a gallery, also while another process writes to it.

    Args:
        folder: of the gallery.
        target: a folder that does not exist yet.
        progress: called with (bytes copied, bytes to copy).

    Raises:
        GalleryError: there is no gallery, `target` is there or cannot be written, or the gallery keeps changing.
        GalleryCorrupt: a file is damaged; no backup was made.
    """
    folder, target = Path(folder), Path(target)
    settings.read_settings(folder)
    _refuse_what_is_there(target, "backup")
    for attempt in range(ATTEMPTS):
        last = attempt == ATTEMPTS - 1
        lock: AbstractContextManager[None] = exclusive(folder, patience=PATIENCE) if last else nullcontext()
        try:
            with lock, _Draft(target) as draft:
                copied = _fill(draft, folder, progress)
        except _Changed:
            continue
        return copied
    raise GalleryError(f"gallery {folder} keeps changing: try the backup again later")


@dataclass(frozen=True, slots=True)
class Restored:
    """What was restored.

    Attributes:
        copied: from the backup.
        made: when the backup was made, RFC 3339.
        erased_in: the gallery whose marks say who was erased since; None when there was none to ask: whoever was
            erased since is back.
        erased: pictures that were erased again.
        on_hold: pictures that were erased since and stay, because of a legal hold that the backup holds.
    """

    copied: Copied
    made: str
    erased_in: Path | None = None
    erased: int = 0
    on_hold: int = 0


def restore(
    backup: Path | str,
    folder: Path | str,
    *,
    erased_in: Path | str | None = None,
    as_it_was: bool = False,
    progress: Progress | None = None,
) -> Restored:
    """Make a gallery of a backup, without those who were erased since.

    Args:
        backup: what `back_up` made.
        folder: of the new gallery; it does not exist yet, or is empty.
        erased_in: the gallery that the backup was made of, or a later backup of it, whose marks say who was erased; by
            default the gallery at its old place, if it is there.
        as_it_was: ask nobody: whoever was erased since is back.
        progress: called with (bytes copied, bytes to copy).

    Raises:
        GalleryError: there is no backup, it is torn, damaged or of a newer version of tipr, `folder` is in use, or the
            marks of `erased_in` cannot be read; `folder` is as it was.
    """
    backup, folder = Path(backup), Path(folder)
    tree = _read_list(backup)
    _refuse_what_is_there(folder, "restored gallery")
    known: Digests = {name: (int(size), str(sha256)) for name, (size, sha256) in tree["files"].items()}
    with _Draft(folder) as draft:
        size = _copy(
            backup,
            draft,
            known,
            progress,
            torn=lambda name, why: GalleryError(
                f"backup {backup} cannot be restored: {name} {why}; nothing was changed"
            ),
        )
        ledger = {name: digest for name, digest in known.items() if name != digests.NAME}
        own = settings.read_settings(draft)
        digests.note(draft, ledger, next_id=own["next_id"])
        asked = Path(erased_in) if erased_in is not None else since_backup.origin(own, tree.get("gallery"))
        again = None if as_it_was or asked is None else since_backup.erase_again(draft, store_of(draft), asked)
        _sync_tree(draft)
    copied = Copied(len(known), size, tree["pictures"], tree["version"])
    if again is None:
        return Restored(copied, tree["made"])
    erased = 0 if again.certificate is None else again.certificate.pictures
    return Restored(copied, tree["made"], asked, erased, again.on_hold)


class _Draft:
    """A folder beside the wanted one, which takes its name when the block ends well, and goes when it does not.

    One that a killed process left behind holds people whom no erasure would find: the next draft removes it.
    """

    def __init__(self, target: Path) -> None:
        self._target = target

    def __enter__(self) -> Path:
        try:
            self._target.parent.mkdir(parents=True, exist_ok=True)
            for mark in self._target.parent.glob(f".{glob.escape(self._target.name)}.*.draft/{UNFINISHED}"):
                if (lock := _locked(mark)) is not None:  # nobody works on it any more
                    shutil.rmtree(mark.parent, ignore_errors=True)
                    os.close(lock)
            name = tempfile.mkdtemp(prefix=f".{self._target.name}.", suffix=".draft", dir=self._target.parent)
            self._draft = Path(name)
            self._draft.chmod(0o755)
            self._lock = _locked(self._draft / UNFINISHED)
        except OSError as error:
            raise GalleryError(f"cannot write {self._target}: {error.strerror or error}") from None
        return self._draft

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: object) -> None:
        try:
            if kind is None:
                (self._draft / UNFINISHED).unlink()
                durable.sync_folder(self._draft)
                self._draft.rename(self._target)
                durable.sync_folder(self._target.parent)
        except OSError as problem:
            raise GalleryError(f"cannot write {self._target}: {problem.strerror or problem}") from None
        finally:
            shutil.rmtree(self._draft, ignore_errors=True)
            if self._lock is not None:
                os.close(self._lock)
        if isinstance(error, OSError):
            raise GalleryError(f"cannot write {self._target}: {error.strerror or error}") from None


def _locked(mark: Path) -> int | None:
    """A descriptor of a file that is locked as long as it is open; None when another process holds it."""
    descriptor = os.open(mark, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    return descriptor


def _refuse_what_is_there(target: Path, what: str) -> None:
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise GalleryError(f"{target} is in use; a {what} needs a new or empty folder")


def _fill(draft: Path, folder: Path, progress: Progress | None) -> Copied:
    """Make a draft a whole backup; `_Changed` when an erasure came between."""
    copied, known = _copy_version(folder, draft, progress)
    tree = {
        "format": FORMAT,
        "gallery_format": settings.FORMAT,
        "made": datetime.now(UTC).isoformat(timespec="seconds"),
        "gallery": str(folder.resolve()),
        "pictures": copied.pictures,
        "version": copied.version,
        "files": known,
    }
    text = json.dumps(tree, ensure_ascii=False, indent=0)
    _write(draft / NAME, f"{digests.digest_of_bytes(text.encode())[1]}\n{text}\n".encode())
    _sync_tree(draft)
    return copied


def _copy_version(folder: Path, draft: Path, progress: Progress | None) -> tuple[Copied, dict[str, digests.Digest]]:
    """Copy the newest version of the table, then what lies beside it; `_Changed` when an erasure came between."""
    store = store_of(folder)
    version = store.refresh()
    ledger = digests.Ledger.read(folder).digests
    known: dict[str, digests.Digest] = {}
    for name in store.files():
        noted = (ledger.get(name) or (None,))[-1]
        try:
            known[name] = noted or digests.digest_of(folder / name)
        except FileNotFoundError:
            raise _Changed from None

    def torn(name: str, why: str) -> Exception:
        if not (folder / name).exists() or store.refresh() != version:
            return _Changed()
        return GalleryCorrupt(folder, f"{name} {why}, so that no backup was made; run `tipr index verify`")

    size = _copy(folder, draft, known, progress, torn=torn)
    pictures = len(store.ids())
    for path in sorted(folder.iterdir()):
        if path.is_file() and path.name not in (digests.NAME, ".lock") and not path.name.startswith("."):
            try:
                data = path.read_bytes()
            except FileNotFoundError:
                continue
            _write(draft / path.name, data)
            known[path.name] = digests.digest_of_bytes(data)
            size += len(data)
    manifest = next(name for name in known if name.endswith(".manifest"))
    decided_meanwhile = (folder / PENDING).exists() and PENDING not in known
    if not (folder / manifest).exists() or decided_meanwhile:
        raise _Changed  # an erasure was done: its rows must not come back from here
    return Copied(len(known), size, pictures, version), known


def _copy(
    source: Path, target: Path, known: Digests, progress: Progress | None, *, torn: Callable[[str, str], Exception]
) -> int:
    """Copy files and see that each is as its digest says; returns their bytes."""
    total = sum(size for size, _ in known.values())
    done = 0
    for name, digest in known.items():
        if os.path.isabs(name) or ".." in Path(name).parts:
            raise torn(name, "lies elsewhere")
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        try:
            copied = _copy_file(source / name, target / name)
        except FileNotFoundError:
            raise torn(name, "is missing") from None
        if copied != digest:
            raise torn(name, "is damaged")
        done += digest[0]
        if progress is not None:
            progress(done, total)
    return done


def _copy_file(source: Path, target: Path) -> digests.Digest:
    """Copy and sync a file in parts; its digest."""
    seen, size = hashlib.sha256(), 0
    with open(source, "rb") as given, open(target, "wb") as file:
        while part := given.read(CHUNK):
            seen.update(part)
            size += len(part)
            file.write(part)
        file.flush()
        os.fsync(file.fileno())
    return size, seen.hexdigest()


def _read_list(backup: Path) -> dict[str, Any]:
    """`backup.json`; GalleryError when it is missing, torn, or newer."""
    try:
        check, _, text = (backup / NAME).read_text(encoding="utf-8").partition("\n")
    except FileNotFoundError:
        raise GalleryError(f"{backup} is no whole backup: it has no {NAME}") from None
    except (OSError, ValueError) as error:
        raise GalleryError(f"backup {backup} cannot be read ({error})") from None
    text = text.removesuffix("\n")
    if digests.digest_of_bytes(text.encode())[1] != check:
        raise GalleryError(f"backup {backup} cannot be restored: {NAME} is damaged; nothing was changed")
    tree: dict[str, Any] = json.loads(text)
    if tree["format"] != FORMAT or tree["gallery_format"] > settings.FORMAT:
        raise GalleryError(f"backup {backup} was made by a newer version of tipr; nothing was changed")
    return tree


def _write(path: Path, data: bytes) -> None:
    with open(path, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def _sync_tree(folder: Path) -> None:
    tops: Iterable[str] = (top for top, _, _ in os.walk(folder))
    for top in tops:
        durable.sync_folder(Path(top))
