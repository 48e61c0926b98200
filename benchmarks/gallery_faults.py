"""What a gallery survives: killed processes, power cuts, damaged files, I/O errors, full disks, many at once.

    python benchmarks/gallery_faults.py [--write] [--only kills ...] [--scale 1.0]

Each part runs the harness of `tests/durability` at the size of `make test-all`. A failure is an acknowledged picture
that is lost, a batch that is visible by half, a gallery that does not open, damage that is not found, or a reader that
fails. Parts that were not run keep their committed figures; a part that never ran is not in the file.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import record

HERE = record.ROOT / "tests" / "durability"
sys.path.insert(0, str(HERE))
NAME = "gallery_faults"
Figures = dict[str, Any]


def kills(folder: Path, scale: float) -> Figures:
    """SIGKILL at random moments and named points."""
    from kills import kill_many

    outcome = kill_many(folder, round(240 * scale), seed=2)
    return {
        "trials": outcome.kills,
        "failures": len(outcome.lost) + len(outcome.half_visible) + len(outcome.not_opened),
        "acknowledged_lost": len(outcome.lost),
        "half_visible": len(outcome.half_visible),
        "not_opened": len(outcome.not_opened),
        "named_points": len(outcome.points) - 1,
        "in_flight": dict(outcome.in_flight),
    }


def power_cuts(folder: Path, scale: float) -> Figures:
    """Only what was synced is kept, and by chance some of the rest."""
    from power_cuts import cut_many

    outcomes = []
    for seed in range(2, 7):
        place = folder / str(seed)
        place.mkdir()
        real: list[tuple[Any, str, Any]] = []

        def set_for_now(home: Any, name: str, value: Any, kept: list[tuple[Any, str, Any]] = real) -> None:
            kept.append((home, name, getattr(home, name)))
            setattr(home, name, value)

        try:
            outcomes.append(cut_many(place, round(200 * scale), seed, set_for_now, "power"))
        finally:
            for home, name, value in real:
                setattr(home, name, value)
    return {
        "trials": sum(outcome.cuts for outcome in outcomes),
        "failures": sum(
            len(part)
            for outcome in outcomes
            for part in (outcome.lost, outcome.half_visible, outcome.not_opened, outcome.erased_left)
        ),
        "torn_manifests_stepped_over": sum(outcome.stepped_back for outcome in outcomes),
    }


def damages(folder: Path, scale: float) -> Figures:
    """One flipped bit or one truncation in a copy."""
    from damages import damage_many

    outcome = damage_many(folder, round(300 * scale), seed=2)
    return {
        "trials": outcome.damages,
        "failures": sum(map(len, (outcome.not_found, outcome.wrong_rows, outcome.not_searchable, outcome.files_gone))),
        "not_found": len(outcome.not_found),
        "kinds": dict(outcome.kinds),
    }


def io_errors(folder: Path, scale: float) -> Figures:
    """The nth call that changes a file fails."""
    shim = folder / "io_faults.so"
    subprocess.run(["cc", "-shared", "-fPIC", "-O1", "-o", shim, HERE / "io_faults.c", "-ldl"], check=True)
    (folder / "f").mkdir()
    answer = _child("io_errors", folder / "f", f"LD_PRELOAD={shim}", f"IO_FAULT_TRIALS={round(600 * scale)}")
    return {
        "trials": answer["trials"],
        "failures": len(answer["wrong"]) + len(answer["unopened"]),
        "refused_with_one_line": answer["refused"],
    }


def full_disk(folder: Path, scale: float) -> Figures:
    """A tmpfs of 64 MiB that fills up, and a mount that becomes read-only."""
    del scale
    (folder / "full").mkdir()
    (folder / "read").mkdir()
    full = _child("full_disk", folder / "full", before=("unshare", "-m"))
    read = _child("read_only", folder / "read", before=("unshare", "-m"))
    wrong = [
        full["during"] != full["acknowledged"],
        full["erased"] != sorted(set(full["acknowledged"]) - set(full["victim"])),
        bool(full["victim_bytes"]),
        full["after"] != sorted([*full["erased"], "/after/1.jpg"]),
        len(read["messages"]) != 2,
        read["during"] != ["/before/1.jpg"],
        read["after"] != ["/after/1.jpg", "/before/1.jpg"],
    ]
    return {
        "trials": 2,
        "failures": sum(wrong),
        "pictures_when_full": len(full["acknowledged"]),
        "erased_with_mebibytes_free": round(full["free_before_erasing"] / 2**20, 1),
    }


def sequences(folder: Path, scale: float) -> Figures:
    """Random changes, searches and deaths against a dictionary."""
    del folder
    from test_state_machine import sequences as run

    run(round(300 * scale), 30)  # raises at the first divergence
    return {"trials": round(300 * scale), "failures": 0, "steps": 30}


def together(folder: Path, scale: float) -> Figures:
    """Two writers with maintenance, and two readers, at once; it raises when a reader fails or a row is lost."""
    from test_together import test_writers_readers_and_maintenance_get_on as run

    run(folder, 60.0 * scale)
    told = {path.name: json.loads(path.read_text()) for path in folder.glob("[wr][01]")}
    return {
        "trials": sum(told[name]["reads"] for name in ("r0", "r1")),
        "failures": 0,
        "changes": sum(told[name]["changes"] for name in ("w0", "w1")),
        "seconds": 60.0 * scale,
    }


PARTS: dict[str, Callable[[Path, float], Figures]] = {
    part.__name__: part for part in (kills, power_cuts, damages, io_errors, full_disk, together, sequences)
}


def _child(name: str, folder: Path, *environment: str, before: Iterable[str] = ()) -> Any:
    command = ["env", *environment, *before, sys.executable, str(HERE / "faults_child.py"), name, str(folder)]
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def main() -> int:
    """Run the parts; exit code 1 when one failed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--write", action="store_true", help="write the committed file after every part")
    parser.add_argument("--only", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--scale", type=float, default=1.0, help="share of the trials")
    options = parser.parse_args()
    path = record.RESULTS / f"{NAME}.json"
    parts: dict[str, Figures] = json.loads(path.read_text())["parts"] if path.exists() else {}
    failures = 0
    for name in options.only:
        folder = Path(tempfile.mkdtemp(prefix=f"{name}-"))
        start = time.monotonic()
        try:
            figures = PARTS[name](folder, options.scale)
        finally:
            shutil.rmtree(folder, ignore_errors=True)
        parts[name] = {**figures, "commit": record.commit(), "seconds_taken": round(time.monotonic() - start, 1)}
        failures += figures["failures"]
        print(name, json.dumps(parts[name]), flush=True)
        if options.write:
            ordered = {part: parts[part] for part in PARTS if part in parts}
            record.write(NAME, "python benchmarks/gallery_faults.py --write", {"parts": ordered})
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
