"""One scenario of a bad disk in a process of its own: `python faults_child.py SCENARIO FOLDER`; JSON on stdout.

It imports neither torch nor transformers. `read_only` and `full_disk` are run where the process may mount.
"""

from __future__ import annotations

import ctypes
import errno
import json
import os
import random
import resource
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import workload

from tipr.errors import GalleryError


def thick(path: str, size: int) -> Any:
    """A row with a thumbnail of some size."""
    noise = np.random.default_rng(list(path.encode())).bytes(size)
    return replace(workload.row(path), thumbnail=noise)


def fill(opened: workload.Opened, *, rows: int, size: int) -> tuple[list[str], str]:
    """Add batches until one is refused: the acknowledged paths and the message."""
    done: list[str] = []
    for number in range(10_000):
        new = [f"/fill/{number:04d}-{i}.jpg" for i in range(rows)]
        try:
            with opened.writer.locked():
                opened.writer.append([thick(path, size) for path in new])
        except GalleryError as error:
            return done, str(error)
        done.extend(new)
    raise AssertionError("the disk never was full")


def there(folder: Path) -> list[str]:
    """The paths that a newly opened gallery holds."""
    opened = workload.Opened.at(folder)
    ids = opened.reader.consistently(opened.reader.ids)
    paths = opened.reader.columns(("path",))["path"].tolist()
    assert len(opened.store.thumbnails(ids.tolist())) == len(opened.store.vectors()) == len(paths)
    return sorted(paths)


def file_size_limit(folder: Path) -> dict[str, Any]:
    """No file may grow beyond 64 KiB."""
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    workload.create(folder / "g")
    opened = workload.Opened.at(folder / "g")
    workload.Step("add", new=("/before/1.jpg",)).run(opened)
    _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 16, hard))
    message = ""
    try:
        with opened.writer.locked():
            opened.writer.append([thick("/big/1.jpg", 1 << 18)])
    except GalleryError as error:
        message = str(error)
    during = there(folder / "g")
    resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
    workload.Step("add", new=("/after/1.jpg",)).run(opened)
    return {"message": message, "during": during, "after": there(folder / "g")}


def full_disk(folder: Path) -> dict[str, Any]:
    """64 MiB that fill up."""
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", str(folder)], check=True)
    try:
        ballast = folder / "ballast"
        ballast.write_bytes(bytes(8 << 20))
        workload.create(folder / "g")
        opened = workload.Opened.at(folder / "g")
        acknowledged, message = fill(opened, rows=96, size=20_000)
        during = there(folder / "g")
        ballast.unlink()  # 8 MiB of 64 are free
        opened.store.purge()  # what the refused batch left behind
        free_before = os.statvfs(folder).f_bavail * os.statvfs(folder).f_frsize
        victim = acknowledged[:5]
        ids = dict(zip(opened.reader.columns(("path",))["path"], opened.reader.ids().tolist(), strict=True))
        with opened.writer.locked():
            opened.writer.erase([ids[path] for path in victim], "identity")
        erased = there(folder / "g")
        with opened.writer.locked():
            opened.writer.append([thick("/after/1.jpg", 20_000)])
        left = b"".join(path.read_bytes() for path in (folder / "g").rglob("*") if path.is_file())
        return {
            "message": message,
            "acknowledged": sorted(acknowledged),
            "during": during,
            "erased": erased,
            "victim": victim,
            "victim_bytes": [path for path in victim if path.encode() in left],
            "free_before_erasing": free_before,
            "after": there(folder / "g"),
        }
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=False)


def read_only(folder: Path) -> dict[str, Any]:
    """A mount that becomes read-only and comes back."""
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=16m", "tmpfs", str(folder)], check=True)
    try:
        workload.create(folder / "g")
        opened = workload.Opened.at(folder / "g")
        workload.Step("add", new=("/before/1.jpg",)).run(opened)
        subprocess.run(["mount", "-o", "remount,ro", str(folder)], check=True)
        messages = []
        for step in (workload.Step("add", new=("/during/1.jpg",)), workload.Step("erase", old=("/before/1.jpg",))):
            try:
                step.run(opened)
            except GalleryError as error:
                messages.append(str(error))
        during = there(folder / "g")
        subprocess.run(["mount", "-o", "remount,rw", str(folder)], check=True)
        workload.Step("add", new=("/after/1.jpg",)).run(opened)
        return {"messages": messages, "during": during, "after": there(folder / "g")}
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=False)


def io_errors(folder: Path) -> dict[str, Any]:
    """The nth call that changes a file fails, for random n; needs the preloaded shim."""
    trials = int(os.environ["IO_FAULT_TRIALS"])
    shim = ctypes.CDLL(os.environ["LD_PRELOAD"])
    rng = random.Random(4)
    gallery = folder / "g"
    workload.create(gallery)
    opened = workload.Opened.at(gallery)
    result: dict[str, Any] = {"trials": 0, "refused": 0, "wrong": [], "calls": 0, "unopened": []}
    state: frozenset[str] = frozenset()
    steps: Callable[[], workload.Step]
    for trial in range(trials):
        steps = workload.steps(rng, state, f"t{trial}").__next__
        step = steps()
        error = rng.choice((errno.EIO, errno.ENOSPC, errno.EACCES))
        shim.io_faults_arm(str(gallery).encode(), rng.randrange(1, 90), error)
        message = None
        try:
            step.run(opened)
        except GalleryError as problem:
            message = str(problem)
        except BaseException as problem:
            result["wrong"].append(f"{trial} {step.kind}: {type(problem).__name__}: {problem}")
        result["calls"] = max(result["calls"], shim.io_faults_disarm())
        result["trials"] += 1
        result["refused"] += message is not None
        allowed = step.states(state) if message is not None else step.states(state)[-1:]
        try:
            opened = workload.Opened.at(gallery)
            found = frozenset(opened.paths())
            with opened.writer.locked():
                state = frozenset(opened.paths())
        except (GalleryError, AssertionError) as problem:
            result["unopened"].append(f"{trial} {step.kind}: {problem}")
            break
        if found not in allowed or state not in allowed:
            lost = sorted(frozenset.intersection(*allowed) - found)
            result["wrong"].append(f"{trial} {step.kind}, errno {error}: lost {lost}, {message}")
    return result


SCENARIOS = {item.__name__: item for item in (file_size_limit, full_disk, read_only, io_errors)}

if __name__ == "__main__":
    answer = SCENARIOS[sys.argv[1]](Path(sys.argv[2]))
    answer["heavy"] = sorted({"torch", "transformers"} & set(sys.modules))
    print(json.dumps(answer))
