"""`tipr doctor`: what is here, what a configuration needs, and what to do next."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from tipr.cli import DONE, RUN_TIME_ERROR, options, output

if TYPE_CHECKING:
    from tipr.analysis.doctor import Device, Diagnosis, Environment

PARTS = ("weights", "optimizer", "banks", "average", "step", "batches", "images", "program")


@click.command("doctor", short_help="See what is here, and what a configuration needs before it starts.")
@click.argument("configs", nargs=-1, metavar="[CONFIG]...", type=click.Path(path_type=Path, dir_okay=False))
@click.option(
    "--device", type=click.Choice(["cpu", "cuda"]), help="Reckon for this device, here or not; else as the CONFIG says."
)
@options.quiet
@options.json
def command(*, configs: tuple[Path, ...], device: str | None, quiet: bool, as_json: bool) -> int:
    """See what is installed and which devices are there; for every CONFIG whether data and weights are found, how much
    memory the run will need at its peak, and what to do next. Nothing is started.

    The exit code is 1 when a CONFIG cannot start yet.
    """
    from tipr.analysis.doctor import examine, look_around

    here = look_around()
    if not as_json:
        _show_environment(here)
    found = []
    for path in configs:
        output.note(f"rehearsing a step of {path}", quiet=quiet)
        found.append(examine(path, device=device))
        if not as_json:
            _show_diagnosis(found[-1])
    if as_json:
        from dataclasses import asdict

        output.show(
            output.json_text({"environment": asdict(here), "configs": [diagnosis.to_json() for diagnosis in found]})
        )
    elif not configs:
        output.show("\nnext: tipr demo, or tipr doctor CONFIG for what a training run needs")
    return DONE if all(diagnosis.ready for diagnosis in found) else RUN_TIME_ERROR


def _show_environment(here: Environment) -> None:
    output.show(f"tipr {here.tipr}, Python {here.python}, torch {here.torch}, {here.system}")
    output.show(f"{here.threads} threads on {here.cores} cores")
    _show_rows([[device.name, device.description, _room(device)] for device in here.devices])
    if len(here.devices) == 1:
        output.show("  no CUDA device: runs and searches compute on the CPU")
    _show_rows(
        [
            [extra.name, extra.purpose, f"missing {', '.join(extra.missing)}: {extra.install}"]
            if extra.missing
            else [extra.name, extra.purpose, "installed"]
            for extra in here.extras
        ]
    )


def _show_diagnosis(found: Diagnosis) -> None:
    output.show(f"\n{output.safe(found.config)}")
    _show_rows([[each.what, each.path, "" if each.found else "!", each.note] for each in found.findings])
    memory = found.memory
    if memory is None or found.scale is None:
        output.show("  memory      not known before the data are there")
    else:
        of = "counted" if found.counted else "the official size"
        each = " for each process" if found.processes > 1 else ""
        output.show(f"  peak memory{each}, for {found.scale.pairs:,} pairs and {found.scale.images:,} images ({of}):")
        main, device = found.free
        if memory.on_device:
            output.show(f"    {memory.device}: {_gib(memory.on_device)}{_of_free(device)}")
        output.show(f"    main memory: {_gib(memory.main)}{_of_free(main)}")
        tree = memory.to_json()
        parts = [f"{name} {_gib(tree[name])}" for name in PARTS if tree[name] >= 2**20]
        output.show(f"    {', '.join(parts)}")
    for number, todo in enumerate(found.todo):
        output.show(f"  {'next:' if number == 0 else 'then:'} {output.safe(todo)}")


def _room(device: Device) -> str:
    if device.total is None or device.free is None:
        return ""
    return f"{_gib(device.total)}, {_gib(device.free)} free"


def _of_free(free: int | None) -> str:
    return "" if free is None else f" of {_gib(free)} that are free"


def _gib(size: int) -> str:
    return f"{size / 2**30:.2f} GiB"


def _show_rows(rows: list[list[str]]) -> None:
    for line in output.columns([[output.safe(cell) for cell in row] for row in rows]):
        output.show("  " + line)
