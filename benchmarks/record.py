"""What every committed result says beside its numbers: command, commit, machine, versions."""

from __future__ import annotations

import json
import os
import platform
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results"
PACKAGES = ("torch", "numpy", "numba", "pillow", "simplejpeg", "lancedb", "faiss-cpu", "transformers", "py3langid")


def write(name: str, command: str, results: dict[str, Any]) -> Path:
    """Write `benchmarks/results/<name>.json`: the results under the facts that a reader needs to trust them."""
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{name}.json"
    record = {"command": command, "commit": commit(), "machine": machine(), "versions": versions(), **results}
    path.write_text(json.dumps(record, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    return path


def commit() -> str:
    """The commit of the checkout, with `+changes` when code or a configuration differs from it.

    The shipped model is a result like the record that is written beside it, so it may differ.
    """
    head = _git("rev-parse", "--short=12", "HEAD") or "unknown"
    changed = _git("status", "--porcelain", "--", "src", "configs", ":!src/tipr/assets")
    return f"{head}+changes" if changed else head


def machine() -> str:
    """CPU model, the cores this process may use, and how busy they were before."""
    model = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        lines = cpuinfo.read_text(encoding="utf-8").splitlines()
        model = next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), model)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return f"{cores} cores of {model}, {platform.system()}, load average {os.getloadavg()[0]:.1f}"


def versions() -> dict[str, str]:
    """Python and the packages that decide a figure."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def _git(*arguments: str) -> str:
    done = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=False)
    return done.stdout.strip()
