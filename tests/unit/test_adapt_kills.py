"""Adapting from the command line, killed without warning again and again, ends with the adapter of a run left alone."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from tiny_vision_language import all_wordings, build_llava, filtered_row, paint_all, write_filtered

from tipr.data.manifest import Caption, Record, write_manifest
from tipr.translation.adapt import FOLDER, PROGRESS
from tipr.translation.adapter import FACTS, WEIGHTS

KILLS = 3


def start(data: Path, out: Path, model: Path) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-W", "error", "-m", "tipr", "translate", str(data), str(out), "--stage", "adapt"]
    command += ["--vision-model", str(model), "--threads", "1", "--quiet"]
    for change in ("batch=2", "rank=4", "keep_every=1", "dropout=0.1"):
        command += ["--adapt", change]
    return subprocess.Popen(command, env={**os.environ, "OMP_NUM_THREADS": "1"}, stdout=subprocess.PIPE)


@pytest.mark.slow
def test_killed_adapting_ends_with_the_same_adapter(tmp_path: Path) -> None:
    data = paint_all(tmp_path / "data")
    rows = [filtered_row(upper, words["en"].split()[5], lower, "de") for upper, lower, words in all_wordings()]
    records = [Record(path.name, (Caption("en", "A person."),)) for path in sorted(data.iterdir())]
    write_manifest(data / "manifest.jsonl", records)
    model = build_llava(tmp_path / "tiny-llava")
    alone, killed = (write_filtered(tmp_path / name, rows) for name in ("alone", "killed"))
    straight = start(data, alone, model)
    state = killed / FOLDER / PROGRESS
    for kill in range(KILLS):
        before = state.stat().st_mtime_ns if state.exists() else 0
        process = start(data, killed, model)
        deadline = time.monotonic() + 120
        while not (state.exists() and state.stat().st_mtime_ns > before):
            assert process.poll() is None, "the run ended before it was killed"
            assert time.monotonic() < deadline
            time.sleep(0.01)
        time.sleep(0.03 * kill)
        process.send_signal(signal.SIGKILL)
        process.communicate()
        assert process.returncode == -signal.SIGKILL
        assert not (killed / FOLDER / FACTS).exists()
    last = start(data, killed, model)
    assert last.communicate(timeout=300) is not None
    assert straight.communicate(timeout=300) is not None
    assert (last.returncode, straight.returncode) == (0, 0)
    assert (killed / FOLDER / WEIGHTS).read_bytes() == (alone / FOLDER / WEIGHTS).read_bytes()
    assert (killed / FOLDER / FACTS).read_bytes() == (alone / FOLDER / FACTS).read_bytes()
    assert not state.exists()
