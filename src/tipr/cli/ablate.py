"""`tipr ablate`: train and compare the settings of an ablation."""

from __future__ import annotations

import json
import os
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from tipr.cli import DAMAGED, DONE, SKIPPED, options, output

if TYPE_CHECKING:
    from tipr.analysis.ablation import AblationConfig, PlannedRun
    from tipr.analysis.comparison import Comparison

TABLE, PAGE = "ablation.json", "ablation.md"
COMMAND = "command"


@click.command("ablate")
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False))
@click.option("--seeds", type=click.IntRange(min=1), default=3, show_default=True, help="Runs of each setting.")
@click.option("--out", type=click.Path(path_type=Path, file_okay=False), metavar="DIR", help="Folder of all runs.")
@click.option("--only", metavar="SETTING,...", help="Train these settings; the tables still show all.")
@click.option("--slim", is_flag=True, help="Drop checkpoints and weights of finished runs.")
@click.option("--check", is_flag=True, help="Train nothing: recompute every cell from the run folders.")
@options.common
@click.pass_context
def command(
    context: click.Context,
    *,
    file: Path,
    seeds: int,
    out: Path | None,
    only: str | None,
    slim: bool,
    check: bool,
    device: str,
    threads: int | None,
    quiet: bool,
    as_json: bool,
) -> int:
    """Train every setting of the YAML file FILE with several seeds, evaluate each run, and compare.

    A run is the folder DIR/SETTING/seed-N; finished runs stay as they are, a stopped one is resumed. The tables go to
    stdout, DIR/ablation.md and DIR/ablation.json. Ends with 3 when a run failed, and --check with 5 when a cell is not
    what its runs give. Without --device the configuration decides.
    """
    from tipr import config as configuration
    from tipr.analysis.ablation import AblationConfig, perform, plan
    from tipr.analysis.comparison import compare
    from tipr.cli.progress import progress
    from tipr.errors import ConfigError

    if check and (only is not None or slim):
        raise click.UsageError("--check trains nothing: no --only and no --slim with it")
    config = configuration.load(file, AblationConfig)
    folder = config.base.out if out is None else out
    given = context.get_parameter_source("device") is not ParameterSource.DEFAULT
    runs = plan(config, folder, seeds=seeds, device=device if given else None, threads=threads)
    if check:
        return _check(config, runs, seeds, folder / TABLE, file=file, as_json=as_json)
    chosen = runs
    if only is not None:
        names = [name.strip() for name in only.split(",")]
        known = [setting.name for setting in config.settings]
        for name in names:
            if name not in known:
                raise ConfigError(f"--only: no setting {name!r}; there are {', '.join(known)}")
        chosen = [run for run in runs if run.setting.name in names]

    def note(text: str) -> None:
        if not quiet:
            print(text, file=sys.stderr, flush=True)

    def write() -> Comparison:
        comparison = compare(config, runs, seeds=seeds)
        _write(_tree(comparison, file), comparison, folder)
        return comparison

    compare(config, runs, seeds=seeds)  # what is there already must fit before more is added
    try:
        with progress("all runs", quiet=quiet, unit="steps") as report:
            failed = perform(chosen, runs, slim=slim, progress=report, note=note, finished=write)
    except KeyboardInterrupt:
        print(f"\nstopped; to go on:  {shlex.join(['tipr', *sys.argv[1:]])}", file=sys.stderr)
        raise
    comparison = write()
    if as_json:
        output.show(output.json_text(_tree(comparison, file)))
    else:
        _print(comparison, folder)
    for line in failed:
        output.note(f"failed: {line}")
    return SKIPPED if failed else DONE


def _tree(comparison: Comparison, file: Path) -> dict[str, Any]:
    """The content of `ablation.json`: all that a record of results needs."""
    command = shlex.join(["tipr", "ablate", str(file), "--seeds", str(comparison.seeds)])
    return {COMMAND: command, **comparison.to_json()}


def _check(
    config: AblationConfig, runs: list[PlannedRun], seeds: int, table: Path, *, file: Path, as_json: bool
) -> int:
    from tipr.analysis.comparison import compare, differences
    from tipr.errors import TiprError, TrainingError

    try:
        stored = json.loads(table.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise TrainingError(f"no table at {table}: run the ablation first") from None
    except ValueError as error:
        output.note(f"{table} is damaged: {error}")
        return DAMAGED
    try:
        computed: Any = json.loads(json.dumps(_tree(compare(config, runs, seeds=seeds), file)))
    except TiprError as error:
        output.note(str(error))
        return DAMAGED
    if isinstance(stored, dict):
        stored[COMMAND] = computed[COMMAND]  # the file may be named in another way
    lines = differences(stored, computed)
    cells = sum(len(row["cells"]) for row in computed["settings"].values())
    if as_json:
        output.show(output.json_text({"table": str(table), "cells": cells, "differences": lines}))
    elif not lines:
        output.show(f"{output.safe(table)}: {cells} cells are what their runs give")
    if lines:
        more = f" and {len(lines) - 3} more" if len(lines) > 3 else ""
        output.note(f"{table} is not what the run folders give: {'; '.join(lines[:3])}{more}")
    return DAMAGED if lines else DONE


def _write(tree: dict[str, Any], comparison: Comparison, folder: Path) -> None:
    from tipr.report.ablation_table import markdown

    folder.mkdir(parents=True, exist_ok=True)
    table = json.dumps(tree, indent=1, ensure_ascii=False) + "\n"
    for name, text in ((TABLE, table), (PAGE, markdown(comparison))):
        draft = folder / f".{name}.{os.getpid()}"  # another process may be at other settings of the same ablation
        draft.write_text(text, encoding="utf-8")
        os.replace(draft, folder / name)


def _print(comparison: Comparison, folder: Path) -> None:
    from tipr.report.ablation_table import header, remarks, score_rows

    names = header(comparison)
    for key, title in comparison.config.tables.items():
        output.show(title)
        rows = [[output.safe(cell) for cell in row] for row in [names, *score_rows(comparison, key)]]
        for line in output.columns(rows, right=range(1, len(names))):
            output.show(line)
        output.show()
    for remark in remarks(comparison):
        output.show(output.safe(remark))
    output.show(f"Runs, with ids and steps: {output.safe(folder / PAGE)}")
