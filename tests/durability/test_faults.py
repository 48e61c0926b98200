"""Full disks, read-only mounts and I/O errors: a clear error, reads go on, nothing acknowledged is lost."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

HERE = Path(__file__).parent


def scenario(name: str, folder: Path, *, before: tuple[str, ...] = (), **environment: str) -> Any:
    command = [*before, sys.executable, str(HERE / "faults_child.py"), name, str(folder)]
    folder.mkdir()
    done = subprocess.run(
        command, env={**os.environ, **environment}, capture_output=True, text=True, timeout=280, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    answer = json.loads(done.stdout)
    assert answer["heavy"] == []
    return answer


@pytest.fixture
def may_mount(tmp_path: Path) -> tuple[str, ...]:
    """What a command is started with to have mounts of its own."""
    (tmp_path / "try").mkdir()
    for prefix in (("unshare", "-m"), ("unshare", "-rm")):
        trial = [*prefix, "mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(tmp_path / "try")]
        if shutil.which("unshare") and subprocess.run(trial, capture_output=True, check=False).returncode == 0:
            return prefix
    pytest.skip("FULL DISK AND READ-ONLY MOUNT NOT TESTED: this machine does not let a process mount a tmpfs")


def shim_at(folder: Path) -> Path:
    """The compiled `io_faults.c`."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        pytest.skip("I/O ERRORS NOT TESTED: no C compiler on this machine (Debian: apt-get install gcc libc6-dev)")
    shim = folder / "io_faults.so"
    subprocess.run([compiler, "-shared", "-fPIC", "-O1", "-o", shim, HERE / "io_faults.c", "-ldl"], check=True)
    return shim


def test_a_limit_on_the_size_of_files_is_an_error_and_no_damage(tmp_path: Path) -> None:
    answer = scenario("file_size_limit", tmp_path / "f")
    assert answer["message"].startswith("cannot write to gallery")
    assert "File too large" in answer["message"]
    assert answer["during"] == ["/before/1.jpg"]
    assert answer["after"] == ["/after/1.jpg", "/before/1.jpg"]


def test_a_full_disk_is_an_error_and_no_damage(tmp_path: Path, may_mount: tuple[str, ...]) -> None:
    answer = scenario("full_disk", tmp_path / "f", before=may_mount)
    assert "No space left on device" in answer["message"]
    assert answer["during"] == answer["acknowledged"]
    assert answer["free_before_erasing"] < 16 << 20
    assert answer["erased"] == sorted(set(answer["acknowledged"]) - set(answer["victim"]))
    assert answer["victim_bytes"] == []
    assert answer["after"] == sorted([*answer["erased"], "/after/1.jpg"])


def test_a_read_only_mount_can_be_read(tmp_path: Path, may_mount: tuple[str, ...]) -> None:
    answer = scenario("read_only", tmp_path / "f", before=may_mount)
    assert len(answer["messages"]) == 2
    assert all("Read-only file system" in message for message in answer["messages"])
    assert answer["during"] == ["/before/1.jpg"]
    assert answer["after"] == ["/after/1.jpg", "/before/1.jpg"]


@pytest.mark.parametrize("trials", [60, pytest.param(600, marks=pytest.mark.slow)])
def test_io_errors_lose_nothing(tmp_path: Path, trials: int) -> None:
    shim = shim_at(tmp_path)
    answer = scenario("io_errors", tmp_path / "f", LD_PRELOAD=str(shim), IO_FAULT_TRIALS=str(trials))
    assert answer["trials"] == trials
    assert answer["refused"] > trials / 4, "hardly a fault was met: the test is too kind"
    assert answer["wrong"] == []
    assert answer["unopened"] == []
