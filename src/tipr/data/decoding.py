"""Decoding untrusted picture files in child processes that can be killed: the parent never opens such a file.

A crafted or broken file can make a decoder crash, loop or ask for all memory. So each file is read, hashed and decoded
by `tipr.data.decode_worker`, in a process with a limit on memory and time and, where the kernel offers it, without
network, programs and new files (`tipr.confinement`). What comes back is one line of JSON, which is treated as data, and
one uint8 array a file in shared memory. A file that ends its process costs one line in a report; the next file gets a
new process. Some files are asked for at once, since waking two processes for each takes as long as reading it does.
"""

from __future__ import annotations

import atexit
import contextlib
import fcntl
import json
import logging
import mmap
import os
import queue
import select
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tipr.data.decode_worker import AT_BYTES
from tipr.data.images import MAX_PIXELS, ImageProblem
from tipr.errors import DatasetError

MEMORY = 512 << 20
"""Bytes of memory that decoding a file may take on top of an idle process."""
SECONDS = 5.0
"""Of processor time that decoding a file may take."""
PATIENCE = 20.0
"""Seconds after which a process is killed that does not answer: the file lies on a disk that hangs."""
START = 120.0
"""Seconds within which a process must have started, on a machine that is busy."""
MAX_BYTES = 464 << 20
"""Larger files are not read: `MAX_PIXELS` pixels of four uncompressed channels of 16 bits, and room for metadata."""
FILES = 8
"""Asked for at once: fewer cost round trips, and the pixels of more leave the caches before the parent reads them."""
SPARE = 4 << 20
"""Bytes of pixels after which a request is answered, though some of its files are left: large pictures come singly."""
LARGE = 8 << 20
"""More bytes of pixels than this are given back to the system after use."""
PROCESSES = 2
"""Of the pool that everybody shares."""
MAX_ANSWER = 1 << 18
Asked = tuple[str, Collection[str]]
"""A file, and the SHA-256s with which it need not be decoded."""

logger = logging.getLogger(__name__)
_START_CODE = "import sys; sys.path.insert(0, sys.argv.pop()); from tipr.data.decode_worker import main; main()"


@dataclass(frozen=True, slots=True, eq=False)
class Decoded:
    """A file that was read.

    Attributes:
        sha256: hex digest of its bytes.
        pixels: (H, W, 3) uint8, upright; shared memory that is good until the `Decoder` is asked again. None when the
            digest was known.
        taken: time of the photograph by its EXIF data.
    """

    sha256: str
    pixels: NDArray[np.uint8] | None
    taken: datetime | None = None


@dataclass(frozen=True, slots=True)
class _Stopped:
    """A child had to be stopped, or stopped itself, at a file."""

    at: int
    reason: str
    detail: str = ""


class Decoder:
    """One child process, started at the first file and again after each one that stopped it. Not for two threads.

    Args:
        max_pixels: refuse files with more.
        seconds: of processor time for a file.
        patience: seconds to wait for an answer.
        memory: bytes for a file.
    """

    def __init__(
        self,
        *,
        max_pixels: int = MAX_PIXELS,
        seconds: float = SECONDS,
        patience: float = PATIENCE,
        memory: int = MEMORY,
    ) -> None:
        self._size = 3 * max_pixels + SPARE + AT_BYTES
        self._seconds, self._patience, self._memory = seconds, patience, memory
        self._child: subprocess.Popen[bytes] | None = None
        self._descriptor = -1
        self._room: mmap.mmap | None = None

    @property
    def pid(self) -> int | None:
        """Of the process, while there is one."""
        return None if self._child is None else self._child.pid

    def read(self, path: str, known: Collection[str] = ()) -> Decoded:
        """Read a file, and decode it unless its SHA-256 is one of `known`.

        Raises:
            ImageProblem: with a reason of `tipr.data.images.HINTS`; nothing else is raised for a bad file.
            DatasetError: no child process can be started here.
        """
        (found,) = self.read_some([(path, known)])
        if isinstance(found, ImageProblem):
            raise found
        return found

    def read_some(self, files: Sequence[Asked]) -> list[Decoded | ImageProblem]:
        """Read the first files of some, at least one: fewer than all when their pixels fill `SPARE` bytes.

        Raises:
            DatasetError: no child process can be started here.
        """
        self._start()
        named = [(os.fsencode(os.path.abspath(path)).decode("latin-1"), list(known)) for path, known in files]
        answer = self._ask({"files": named, "max_bytes": MAX_BYTES})
        if isinstance(answer, _Stopped):
            # the files before the one that stopped it are innocent, and their answers are lost
            before = self.read_some(files[: answer.at]) if answer.at else []
            if len(before) < answer.at:
                return before
            return [*before, ImageProblem(files[answer.at][0], answer.reason, answer.detail)]
        found: list[Decoded | ImageProblem] = []
        for (path, _), said in zip(files, answer, strict=False):
            try:
                found.append(self._judged(path, said))
            except (AttributeError, KeyError, TypeError, ValueError, OverflowError):
                self.close()
                return [*found, ImageProblem(path, "breaks the decoder")]
        return found

    def close(self) -> None:
        """End the process."""
        child, self._child = self._child, None
        if child is not None:
            child.kill()
            child.wait()
            for pipe in (child.stdin, child.stdout):
                assert pipe is not None
                with contextlib.suppress(OSError):  # what was not yet sent
                    pipe.close()
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor, self._room = -1, None  # arrays that somebody still holds keep the memory

    def _start(self) -> None:
        if self._child is not None and self._child.poll() is None:
            return
        self.close()  # it died between two files
        self._descriptor = _shared_memory(self._size)
        self._room = mmap.mmap(self._descriptor, self._size)
        numbers = (self._descriptor, self._size, self._memory, self._seconds, SPARE)
        try:
            self._child = subprocess.Popen(
                # isolated: neither the user's site folder nor PYTHONPATH decides what it imports
                [sys.executable, "-I", "-c", _START_CODE, *map(str, numbers), str(Path(__file__).parents[2])],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                pass_fds=[self._descriptor],
                process_group=0,  # Ctrl-C is for the parent, which ends its children
                bufsize=0,
                # a thread that does nothing costs address space, which is limited
                env={**os.environ, "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"},
            )
            ready = self._line(START)
        except OSError as error:
            self.close()
            raise DatasetError(f"cannot start the process that decodes pictures: {error.strerror or error}") from None
        if ready is None or not ready.get("ready"):
            self.close()
            raise DatasetError("cannot start the process that decodes pictures: it stops at once")
        if why := ready.get("unconfined"):
            _tell_once(str(why))

    def _ask(self, request: dict[str, Any]) -> list[Any] | _Stopped:
        """What the child says of some of the files, or what stopped it."""
        last = len(request["files"]) - 1
        try:
            answer = self._answer(request, last)
        except OSError:  # it died before these files: nothing of them was looked at
            self.close()
            self._start()
            answer = self._answer(request, last)
        said = answer.get("files") if answer else None
        if isinstance(said, list) and 0 < len(said) <= last + 1:
            return said
        at, silent = self._at(last), answer is None
        assert self._child is not None
        self._child.kill()
        looping = self._child.wait() == -signal.SIGPROF
        self.close()
        if silent:
            return _Stopped(at, "too slow", f"no answer in {self._patience:g} s")
        if looping:
            return _Stopped(at, "too slow", f"stopped after {self._seconds:g} s of computing")
        return _Stopped(at, "breaks the decoder")

    def _answer(self, request: dict[str, Any], last: int) -> dict[str, Any] | None:
        assert self._child is not None
        assert self._child.stdin is not None
        assert self._room is not None
        self._room[-AT_BYTES:] = bytes(AT_BYTES)
        self._child.stdin.write(json.dumps(request).encode() + b"\n")
        seen = 0
        while (answer := self._line(self._patience)) is None and self._at(last) > seen:
            seen = self._at(last)  # each file has that much time
        return answer

    def _at(self, last: int) -> int:
        """The place of the file that the child looks at, as it says."""
        assert self._room is not None
        return min(int.from_bytes(self._room[-AT_BYTES:], "little"), last)

    def _line(self, patience: float) -> dict[str, Any] | None:
        """The next line that the child writes, as an object, an empty one when it is none; None when time is up."""
        assert self._child is not None
        assert self._child.stdout is not None
        handle = self._child.stdout.fileno()
        poll = select.poll()
        poll.register(handle, select.POLLIN)
        end = time.monotonic() + patience
        line = b""
        while not line.endswith(b"\n") and len(line) < MAX_ANSWER:
            if not poll.poll(max(0.0, end - time.monotonic()) * 1000):
                return None
            part = os.read(handle, MAX_ANSWER)
            if not part:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    self._child.wait(1.0)  # its pipe ends a moment before itself
                return {}
            line += part
        try:
            answer = json.loads(line)
        except (ValueError, RecursionError):
            return {}
        return answer if isinstance(answer, dict) else {}

    def _judged(self, path: str, said: Any) -> Decoded | ImageProblem:
        """Check what the child says of a file: a hostile one may have taken it over."""
        if "reason" in said:
            return ImageProblem(path, str(said["reason"]), str(said.get("detail", "")))
        digest = str(said["sha256"])
        if len(digest) != 64 or not set(digest) <= set("0123456789abcdef"):
            raise ValueError("digest")
        if "height" not in said:
            return Decoded(digest, None)
        height, width, start = int(said["height"]), int(said["width"]), int(said["start"])
        if min(height, width) < 1 or start < 0 or start + 3 * height * width > self._size - AT_BYTES:
            raise ValueError("size")
        taken = None if said["taken"] is None else datetime.fromisoformat(said["taken"])
        if taken is not None and taken.tzinfo is None:
            raise ValueError("time")
        assert self._room is not None
        pixels = np.frombuffer(self._room, dtype=np.uint8, count=3 * height * width, offset=start)
        return Decoded(digest, pixels.reshape(height, width, 3), taken)

    def empty_room(self) -> None:
        """Give the memory of a large picture back to the system; nobody may need its pixels any more."""
        if self._room is not None:
            with contextlib.suppress(OSError):  # memory of another kind than Linux'
                self._room.madvise(mmap.MADV_REMOVE)


class Decoders:
    """Some `Decoder`s for some threads.

    Args:
        processes: how many at most; they start when they are needed.
        limits: of `Decoder`.
    """

    def __init__(self, processes: int = PROCESSES, **limits: Any) -> None:
        self.processes = processes
        self._all = [Decoder(**limits) for _ in range(processes)]
        self._free: queue.LifoQueue[Decoder] = queue.LifoQueue()
        for decoder in self._all:
            self._free.put(decoder)

    def read(self, files: Sequence[Asked]) -> Iterator[Decoded | ImageProblem]:
        """Read files as `Decoder.read_some` does; the pixels of each are good until the next one is asked for."""
        decoder = self._free.get()
        used = 0
        try:
            done = 0
            while done < len(files):
                found = decoder.read_some(files[done : done + FILES])
                pixels = [file.pixels for file in found if isinstance(file, Decoded) and file.pixels is not None]
                used = max(used, sum(each.nbytes for each in pixels))
                yield from found
                done += len(found)
        finally:
            if used > LARGE:
                decoder.empty_room()
            self._free.put(decoder)

    def close(self) -> None:
        """End the processes."""
        for decoder in self._all:
            decoder.close()


_shared: dict[int, Decoders] = {}
_shared_lock = threading.Lock()
_told: set[str] = set()


def shared_decoders() -> Decoders:
    """The pool of this process, which lives as long as it does: starting a child takes longer than many files."""
    with _shared_lock:
        if os.getpid() not in _shared:  # a fork must not talk to its parent's children
            _shared[os.getpid()] = Decoders()
        return _shared[os.getpid()]


@atexit.register
def _close_shared() -> None:
    if (mine := _shared.pop(os.getpid(), None)) is not None:
        mine.close()


def _tell_once(why: str) -> None:
    if why not in _told:
        _told.add(why)
        logger.warning("pictures are decoded with limits on memory and time, but no system-call filter: %s", why)


def _shared_memory(size: int) -> int:
    """A descriptor of memory without a name, all zero; pages count once they are written."""
    if hasattr(os, "memfd_create"):
        descriptor = os.memfd_create("tipr-pixels", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        os.ftruncate(descriptor, size)
        # a child that was taken over could cut it short, and reading what is gone ends the parent
        fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL)
        return descriptor
    with tempfile.TemporaryFile(prefix="tipr-") as file:
        descriptor = os.dup(file.fileno())
    os.ftruncate(descriptor, size)
    return descriptor
