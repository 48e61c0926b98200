"""The peak memory of short real runs beside what `tipr doctor` foretells.

    python benchmarks/peak_memory.py [--write] [CASE]...
    python benchmarks/peak_memory.py --foretell-again     only what is foretold for the committed cases

Each case is a committed configuration, some with changed settings, trained for a few steps on rendered people in a
process of its own, with as much selection as it has. Measured is the most main memory that the process ever held
(VmHWM, Linux).
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import record

ROOT = Path(__file__).resolve().parents[1]
PEOPLE = (300, 60, 1)
"""Rendered identities in train, val and test."""
STEPS = 3


@dataclass(frozen=True)
class Case:
    """One run.

    Attributes:
        name: for the reader.
        config: below `configs/`.
        changes: `key=value` settings that differ from it, so that it fits a small machine and its data.
    """

    name: str
    config: str
    changes: tuple[str, ...] = ()


CASES = (
    Case(
        "compact encoder, IRRA's terms",
        "irra/synthetic_published_loss.yaml",
        ("start_from=null", "data.batch_size=256"),
    ),
    Case("two languages, small towers", "bi_irra/synthetic.yaml", ("start_from=null", "data.batch_size=64")),
    Case(
        "CLIP towers of two layers, IRRA",
        "irra/cuhk_pedes.yaml",
        (
            "start_from=null",
            "encoder.vision_layers=2",
            "encoder.text_layers=2",
            "encoder.text_pooling=last_token",
            "method.depth=1",
            "tokenizer={kind: subword, vocabulary_size: 2000}",
            "data.dataset=synthetic",
            "data.batch_size=32",
            "data.workers=0",
            "schedule.unit=step",
        ),
    ),
)


def settings(case: Case, data: str, out: str) -> list[str]:
    """All changes of a case for a run of a few steps."""
    short = ("epochs=null", f"max_steps={STEPS}", "max_minutes=null", "device=cpu", "threads=2")
    return [*case.changes, *short, f"data.root={json.dumps(data)}", f"out={json.dumps(out)}"]


def held(field: str) -> int:
    """Bytes of a field of /proc/self/status, such as VmHWM."""
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith(f"{field}:"))


def run_here(case: Case, data: str, out: str) -> None:
    """Train in this process and print what it held, as JSON."""
    from tipr.config import load
    from tipr.training import RunConfig, train

    config = load(ROOT / "configs" / case.config, RunConfig, overrides=settings(case, data, out))
    train(config)
    print(json.dumps(held("VmHWM")))


def measure(case: Case, data: Path, out: Path) -> dict[str, Any]:
    """The peak of a case, and what is foretold for it."""
    from tipr.config import load
    from tipr.training import RunConfig
    from tipr.training.blueprint import scale_of

    command = [sys.executable, __file__, "--here", str(data), str(out), case.name]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{case.name}: {done.stderr[-2000:]}")
    measured = int(done.stdout.splitlines()[-1])
    config = load(ROOT / "configs" / case.config, RunConfig, overrides=settings(case, str(data), str(out)))
    row = {
        "case": case.name,
        "config": case.config,
        "changes": list(case.changes),
        "scale": asdict(scale_of(config)),
        "measured_bytes": measured,
    }
    return foretold(row)


def foretold(row: dict[str, Any]) -> dict[str, Any]:
    """A measured row with what is foretold for it."""
    from tipr.config import load
    from tipr.training import RunConfig
    from tipr.training.blueprint import Scale
    from tipr.training.peak_memory import plan_memory

    config = load(ROOT / "configs" / row["config"], RunConfig, overrides=["device=cpu", *row["changes"]])
    plan = plan_memory(config, Scale(**row["scale"]))
    return {**row, "plan": plan.to_json(), "ratio": round(plan.main / row["measured_bytes"], 3)}


def main() -> None:
    """Measure the cases; print, and with `--write` keep the result."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--here", nargs=2, metavar=("DATA", "OUT"), help=argparse.SUPPRESS)
    parser.add_argument("--write", action="store_true", help="put the cases into results/peak_memory.json")
    parser.add_argument("--foretell-again", action="store_true", help="keep what was measured")
    parser.add_argument("cases", nargs="*", metavar="CASE")
    arguments = parser.parse_args()
    chosen = [case for case in CASES if not arguments.cases or case.name in arguments.cases]
    if arguments.here:
        run_here(chosen[0], *arguments.here)
        return
    if arguments.foretell_again:
        path = record.RESULTS / "peak_memory.json"
        result = json.loads(path.read_text(encoding="utf-8"))
        result["cases"] = [foretold(row) for row in result["cases"]]
        path.write_text(json.dumps(result, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
        return
    from tipr.data.synthetic.benchmark import build
    from tipr.data.synthetic.presets import knobs_of

    rows = []
    with tempfile.TemporaryDirectory() as scratch:
        data = Path(scratch) / "people"
        build(data, knobs_of("standard", {"identities": PEOPLE}))
        for number, case in enumerate(chosen):
            rows.append(measure(case, data, Path(scratch) / f"run-{number}"))
            row = rows[-1]
            mib = row["measured_bytes"] / 2**20, row["plan"]["main"] / 2**20
            print(
                f"{case.name:36} measured {mib[0]:7.0f} MiB  foretold {mib[1]:7.0f} MiB  {row['ratio']:.2f}", flush=True
            )
    if arguments.write:
        kept = json.loads((record.RESULTS / "peak_memory.json").read_text(encoding="utf-8"))["cases"]
        new = {row["case"]: {**row, "commit": record.commit()} for row in rows}
        rows = [new.pop(row["case"], row) for row in kept] + list(new.values())
        record.write("peak_memory", "python benchmarks/peak_memory.py --write", {"steps": STEPS, "cases": rows})


if __name__ == "__main__":
    main()
