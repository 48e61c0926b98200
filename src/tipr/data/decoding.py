"""Decoding untrusted picture files in child processes that can be killed: the parent never opens such a file.

A crafted or broken file can make a decoder crash, loop or ask for all memory. So each file is read, hashed and decoded
by `tipr.data.decode_worker`, in a process with a limit on memory and time and, where the kernel offers it, without
network, programs and new files (`tipr.confinement`). What comes back is one line of JSON, which is treated as data, and
one uint8 array in shared memory. A file that ends its process costs one line in a report; the next file gets a new
process.
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
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tipr.data.images import HINTS, MAX_PIXELS, ImageProblem
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
LARGE = 8 << 20
"""More bytes of pixels than this are given back to the system after use."""
PROCESSES = 2
"""Of the pool that everybody shares."""
MAX_ANSWER = 1 << 16

logger = logging.getLogger(__name__)
_START_CODE = "import sys; sys.path.insert(0, sys.argv.pop()); from tipr.data.decode_worker import main; main()"


@dataclass(frozen=True, slots=True, eq=False)
class Decoded:
    """A file that was read.

    Attributes:
        sha256: hex digest of its bytes.
        pixels: (H, W, 3) uint8, upright; shared memory that is good until the `Decoder` reads its next file. None when
            the digest was known.
        taken: time of the photograph by its EXIF data.
    """

    sha256: str
    pixels: NDArray[np.uint8] | None
    taken: datetime | None = None


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
        self._size = 3 * max_pixels
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
        self._start()
        request = {
            "path": os.fsencode(os.path.abspath(path)).decode("latin-1"),
            "known": list(known),
            "max_bytes": MAX_BYTES,
        }
        answer = self._ask(path, request)
        if "reason" in answer:
            raise ImageProblem(path, str(answer["reason"]), str(answer.get("detail", "")))
        return self._decoded(path, answer)

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
        numbers = (self._descriptor, self._size, self._memory, self._seconds)
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

    def _ask(self, path: str, request: dict[str, Any]) -> dict[str, Any]:
        assert self._child is not None
        assert self._child.stdin is not None
        try:
            self._child.stdin.write(json.dumps(request).encode() + b"\n")
            answer = self._line(self._patience)
        except OSError:  # it died before this file: nothing of the file was looked at
            self.close()
            self._start()
            self._child.stdin.write(json.dumps(request).encode() + b"\n")
            answer = self._line(self._patience)
        if answer and answer.get("reason", "missing") in HINTS:
            return answer
        silent = answer is None
        self._child.kill()
        looping = self._child.wait() == -signal.SIGPROF
        self.close()
        if silent:
            return {"reason": "too slow", "detail": f"no answer in {self._patience:g} s"}
        if looping:
            return {"reason": "too slow", "detail": f"stopped after {self._seconds:g} s of computing"}
        return {"reason": "breaks the decoder"}

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

    def _decoded(self, path: str, answer: dict[str, Any]) -> Decoded:
        """Check what the child says: a hostile file may have taken it over."""
        try:
            digest = str(answer["sha256"])
            if len(digest) != 64 or not set(digest) <= set("0123456789abcdef"):
                raise ValueError("digest")
            if "height" not in answer:
                return Decoded(digest, None)
            height, width = int(answer["height"]), int(answer["width"])
            if height < 1 or width < 1 or 3 * height * width > self._size:
                raise ValueError("size")
            taken = None if answer["taken"] is None else datetime.fromisoformat(answer["taken"])
            if taken is not None and taken.tzinfo is None:
                raise ValueError("time")
        except (KeyError, TypeError, ValueError, OverflowError):
            self.close()
            raise ImageProblem(path, "breaks the decoder") from None
        assert self._room is not None
        pixels = np.frombuffer(self._room, dtype=np.uint8, count=3 * height * width)
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

    @contextmanager
    def reading(self, path: str, known: Collection[str] = ()) -> Iterator[Decoded]:
        """Read a file as `Decoder.read` does; its pixels are good inside the block."""
        decoder = self._free.get()
        used = 0
        try:
            decoded = decoder.read(path, known)
            used = 0 if decoded.pixels is None else decoded.pixels.nbytes
            yield decoded
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
