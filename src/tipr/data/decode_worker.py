"""The child process that opens, hashes and decodes picture files; `tipr.data.decoding` holds the other end.

It imports Pillow, simplejpeg and NumPy only. A request is one line of JSON on its standard input that names some files,
an answer one line on its standard output; pixels go into memory that both sides share, one picture behind the other.
The last bytes of that memory say which of the files is being looked at, should it be the last one.
"""

from __future__ import annotations

import hashlib
import json
import mmap
import os
import signal
import stat
import sys
from typing import Any, BinaryIO

from tipr.confinement import Refused, confine, limit
from tipr.data.images import ImageProblem, capture_time, read_pixels

LIFETIME = 30 * 24 * 3600
"""Seconds of processor time over all files; each file has a limit of its own."""
AT_BYTES = 8
"""At the end of the shared memory: the place of the file that is being looked at."""
ALIGNED, BESIDE = 32, 16
"""Rows at addresses that `ALIGNED` divides are written past the processor's caches by libjpeg-turbo, and whoever comes
next waits for memory: pictures begin `BESIDE` such an address."""


def main() -> None:
    """Serve until the standard input ends; arguments: descriptor, size, bytes, seconds, spare bytes."""
    descriptor, size, memory = map(int, sys.argv[1:4])
    seconds, spare = float(sys.argv[4]), int(sys.argv[5])
    room = memoryview(mmap.mmap(descriptor, size))
    room, at = room[:-AT_BYTES], room[-AT_BYTES:]
    requests, answers = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb", buffering=0)
    nowhere = os.open(os.devnull, os.O_RDWR)
    os.dup2(nowhere, 0)
    os.dup2(nowhere, 1)  # what a library prints is no answer
    why = _confine(memory)
    _say(answers, {"ready": True, "unconfined": why})
    for line in requests:
        request = json.loads(line)
        done: list[dict[str, Any]] = []
        start = BESIDE
        for place, (path, known) in enumerate(request["files"]):
            if start > spare:  # the rest is asked again
                break
            at[:] = place.to_bytes(AT_BYTES, "little")
            answer = _limited(seconds, path, known, request["max_bytes"], room[start : start + len(room) - spare])
            if "height" in answer:
                answer["start"] = start
                start += 3 * answer["height"] * answer["width"]
                start += -start % ALIGNED + BESIDE
            done.append(answer)
        _say(answers, {"files": done})


def _limited(seconds: float, path: str, known: list[str], max_bytes: int, room: memoryview) -> dict[str, Any]:
    signal.setitimer(signal.ITIMER_PROF, seconds)  # a decoder that does not come back ends this process
    try:
        return _answer(path, known, max_bytes, room)
    except ImageProblem as problem:
        return {"reason": problem.reason, "detail": problem.detail[:500]}
    except MemoryError:
        return {"reason": "too large", "detail": "it needs more memory than decoding may take"}
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)


def _confine(memory: int) -> str | None:
    """Give up what reading pictures does not need; why the kernel refused the filter, if it did."""
    limits = {"memory": memory, "seconds": LIFETIME, "written": 0}
    try:
        confine(**limits)
    except Refused as refusal:
        limit(**limits)
        return refusal.strerror or str(refusal)
    return None


def _answer(name: str, known: list[str], max_bytes: int, room: memoryview) -> dict[str, Any]:
    path = name.encode("latin-1")  # any bytes
    data = _read(path, max_bytes)
    digest = hashlib.sha256(data).hexdigest()
    if digest in known:
        return {"sha256": digest}
    height, width = read_pixels(data, "", room, max_pixels=len(room) // 3)
    taken = capture_time(data)
    return {
        "sha256": digest,
        "height": height,
        "width": width,
        "taken": None if taken is None else taken.isoformat(),
    }


def _read(path: bytes, max_bytes: int) -> bytes:
    try:
        # O_NONBLOCK: opening a pipe that nobody writes to would wait for ever
        handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
        with os.fdopen(handle, "rb", buffering=0) as file:
            status = os.fstat(handle)
            if not stat.S_ISREG(status.st_mode):
                what = "a folder" if stat.S_ISDIR(status.st_mode) else "not a regular file"
                raise ImageProblem("", "unreadable", what)
            if status.st_size > max_bytes:
                raise ImageProblem("", "too large", f"{status.st_size >> 20} MiB")
            return file.readall()
    except FileNotFoundError:
        raise ImageProblem("", "missing") from None
    except (OSError, ValueError) as error:
        raise ImageProblem("", "unreadable", getattr(error, "strerror", None) or str(error)) from None


def _say(answers: BinaryIO, answer: dict[str, Any]) -> None:
    answers.write(json.dumps(answer).encode() + b"\n")


if __name__ == "__main__":
    main()
