"""`train`: from a configuration to a finished run folder."""

from __future__ import annotations

import contextlib
import json
import shutil
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from tipr import config as configuration
from tipr.errors import ConfigError, TiprError, TrainingError
from tipr.retrieval import Retriever
from tipr.training import checkpoint, environment, relations
from tipr.training.assembly import TOKENIZER, Progress, Run, assemble
from tipr.training.card import card_facts, data_facts, learning_history, write_card
from tipr.training.checkpoint import reported
from tipr.training.journal import Journal, set_status
from tipr.training.journal import read as read_journal
from tipr.training.loop import CHECKPOINTS, Interrupt, Loop, TrainState, restore_state
from tipr.training.run_config import RunConfig
from tipr.training.sources import Note
from tipr.training.validation import Scores

CONFIG = "config.yaml"
ENVIRONMENT = "environment.json"
MOVABLE = {"out", "threads", "device"}
"""Settings in which a resumed run may differ: they say where it runs, not what it computes (bit for bit it is then
equal only for equal threads and device)."""


@dataclass(frozen=True)
class TrainResult:
    """What a run gave.

    Attributes:
        folder: the run folder; `best/` and `last/` in it are model folders.
        steps: optimiser steps done.
        minutes: of all sessions together.
        best_epoch, best_scores: of `best/`; scores are None without selection.
        last_epoch, last_scores: of `last/`.
        stopped: why the run ended early ("max_minutes"), or None.
    """

    folder: Path
    steps: int
    minutes: float
    best_epoch: int
    best_scores: Scores | None
    last_epoch: int
    last_scores: Scores | None
    stopped: str | None


def train(
    config: RunConfig, *, resume: bool = False, progress: Progress | None = None, note: Note | None = None
) -> TrainResult:
    """Train a model as configured; `config.out` becomes the run folder.

    The folder gets `config.yaml`, `environment.json`, `metrics.jsonl`, `tb/`, `checkpoints/`, `tokenizer/`, `best/`,
    `last/`, `card.md`, `status` and, from a method that records relations, `relations/epoch-NNN.npz`. The scores in the
    card are those of the written weights in float32.

    Args:
        config: the run.
        resume: go on from the newest whole checkpoint in the folder.
        progress: called with (steps done, steps in all) after each step.
        note: takes one line about each epoch and about what takes long.

    Raises:
        ConfigError: the folder holds a run already, or there is nothing to resume, or its configuration differs.
        DatasetError, WeightsError, MissingExtra: what the run needs is not there.
        TrainingError: a loss is not finite, or the folder cannot be written.
        KeyboardInterrupt: stopped by Ctrl-C or SIGTERM, after a checkpoint was written.
    """
    check_folder(config, resume=resume)
    fabric = environment.start(config)
    first = fabric.global_rank == 0
    progress = progress if progress is not None and first else _silent_progress
    note = note if note is not None and first else _silent_note
    with _status(config.out) if first else nullcontext(), ExitStack() as stack:
        if first:
            _open_folder(config, fabric.device, resume=resume)
        fabric.barrier()
        run = assemble(config, fabric, note)
        interrupt = stack.enter_context(Interrupt().listening())
        environment.seed_all(config.seed + fabric.global_rank)
        state = restore_state(run, note) if resume else TrainState()
        journal = None
        if first:
            relations.forget(config.out, after=state.closed_epoch)
            journal = Journal(config.out, resume_step=state.step, closed_epoch=state.closed_epoch)
            stack.enter_context(journal)
        if journal is not None and journal.note is not None:
            note(journal.note)
        if resume:
            note(f"resuming at epoch {state.epoch}, step {state.step:,}")
        stopped = Loop(run, state, journal, progress, note).go(interrupt)
        result = _finish(run, state, stopped) if first else None
        fabric.barrier()
    return result or TrainResult(
        config.out, state.step, state.seconds / 60, state.best_epoch, None, state.epoch, None, stopped
    )


def load_config(folder: Path, *, overrides: Sequence[str] = ()) -> RunConfig:
    """The configuration that a run folder was made with, pointing at that folder.

    Args:
        folder: the run folder.
        overrides: `key=value`, for the settings that may move with a run (`MOVABLE`).

    Raises:
        ConfigError: no run there.
    """
    if not (folder / CONFIG).is_file():
        raise ConfigError(f"{folder} holds no run to resume: {CONFIG} is missing")
    return configuration.load(folder / CONFIG, RunConfig, overrides=[*overrides, f"out={json.dumps(str(folder))}"])


def check_folder(config: RunConfig, *, resume: bool) -> None:
    """See that a run may start in `config.out`; nothing is written.

    Raises:
        ConfigError: it may not.
    """
    folder = config.out
    has_run = (folder / CONFIG).is_file()
    if not resume:
        if has_run and checkpoint.newest_first(folder / CHECKPOINTS):
            raise ConfigError(f"{folder} holds a run already: --resume {folder} goes on, another --out starts anew")
        if not has_run and folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise ConfigError(f"{folder} exists and is not a run folder: choose another --out")
        return
    before = load_config(folder).model_dump(mode="json")
    now = config.model_dump(mode="json")
    different = sorted(key for key in now if key not in MOVABLE and now[key] != before.get(key))
    if different:
        raise ConfigError(f"{folder} was started with other settings: {', '.join(different)}; resume takes its own")
    if not checkpoint.newest_first(folder / CHECKPOINTS):
        raise ConfigError(f"{folder} has no checkpoint yet: delete it and start the run anew")


def _open_folder(config: RunConfig, device: Any, *, resume: bool) -> None:
    with reported(config.out, "write the run folder"):
        for leftover in () if resume else (TOKENIZER, "tb"):  # of a run that died before its first checkpoint
            shutil.rmtree(config.out / leftover, ignore_errors=True)
        config.out.mkdir(parents=True, exist_ok=True)
        text = yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False, allow_unicode=True)
        (config.out / CONFIG).write_text(text, encoding="utf-8")
        facts = json.dumps(environment.facts(config, device), indent=2, ensure_ascii=False)
        (config.out / ENVIRONMENT).write_text(facts + "\n", encoding="utf-8")
    set_status(config.out, "running")


@contextlib.contextmanager
def _status(folder: Path) -> Iterator[None]:
    """Keep the run folder's `status` true, whatever happens."""
    try:
        yield
    except KeyboardInterrupt:
        _try_status(folder, "interrupted")
        raise
    except Exception as error:
        _try_status(folder, f"failed: {' '.join(str(error).split()) or type(error).__name__}")
        raise
    set_status(folder, "done")


def _try_status(folder: Path, status: str) -> None:
    with contextlib.suppress(TiprError):  # the first error is the one to report
        set_status(folder, status)


def _finish(run: Run, state: TrainState, stopped: str | None) -> TrainResult:
    """Write `last/`, score what was written, and put the scores into the cards."""
    folder, selection = run.folder, run.config.selection.split
    last: dict[str, Any] = {"epoch": state.epoch if state.position else state.epoch - 1, "step": state.step}
    best: dict[str, Any] = dict(last)
    if run.validation is not None:
        best = {"epoch": state.best_epoch, "step": state.best_step}
    run.export("last", {})
    if run.validation is None or state.best_step == state.step:
        run.export("best", {})
    for name, entry in (("last", last), ("best", best)):
        entry["scores"] = None
        if run.validation is not None:
            weights = Retriever.load(folder / name, device=str(run.device)).encoder
            entry["scores"] = run.validation.score(weights, nullcontext)
    try:
        environment_facts = json.loads((folder / ENVIRONMENT).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise TrainingError(f"cannot read {folder / ENVIRONMENT}: {error}") from None
    minutes = state.seconds / 60
    facts = card_facts(
        run.config,
        data=data_facts(run.config, run.train, None if run.validation is None else run.validation.split),
        environment=environment_facts,
        best=best,
        last=last,
        history=learning_history(read_journal(folder)),
        minutes=minutes,
        stopped=stopped,
    )
    for name in ("last", "best"):
        _set_card(folder / name, {**facts, "weights": name}, half=run.config.export_half)
    write_card(folder, {**facts, "selection": selection})
    return TrainResult(
        folder=folder,
        steps=state.step,
        minutes=minutes,
        best_epoch=best["epoch"],
        best_scores=best["scores"],
        last_epoch=last["epoch"],
        last_scores=last["scores"],
        stopped=stopped,
    )


def _set_card(folder: Path, facts: dict[str, Any], *, half: bool) -> None:
    retriever = Retriever.load(folder)
    retriever.card = facts
    with reported(folder, "write the model"):
        retriever.save(folder, half=half)


def _silent_progress(done: int, total: int) -> None:
    return


def _silent_note(text: str) -> None:
    return
