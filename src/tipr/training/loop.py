"""The training loop: one straight line from a batch to a journal entry, and around it what makes a run resumable.

A loss is read from the device every `log_every` steps only. Every value read is checked: a loss that is not finite ends
the run with its name, and because checkpoints, scorings and the end of an epoch read first, no checkpoint and no model
is ever written from weights that such a loss has touched.
"""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from types import FrameType
from typing import Any

import torch
from torch import Tensor

from tipr.data.loading import stream
from tipr.errors import TrainingError
from tipr.methods import StepContext, StepOutput
from tipr.methods.base import keep
from tipr.training import checkpoint, environment, relations
from tipr.training.assembly import Progress, Run
from tipr.training.journal import Journal
from tipr.training.optim import rate_factor, set_rate
from tipr.training.sources import Note
from tipr.training.validation import Scores

CHECKPOINTS = "checkpoints"
FORMAT = 1


@dataclass
class TrainState:
    """Where a run stands; with weights, optimiser and random states, all that a checkpoint holds.

    Attributes:
        epoch: the current one, from 1.
        position: batches of it that are done.
        step: optimiser steps done.
        seconds: of all sessions together.
        best_score: highest mean R@1 so far, in percent; below 0: none yet.
        best_epoch, best_step: when that was.
        scored_step: step of the last scoring.
    """

    epoch: int = 1
    position: int = 0
    step: int = 0
    seconds: float = 0.0
    best_score: float = -1.0
    best_epoch: int = 0
    best_step: int = 0
    scored_step: int = -1

    @property
    def closed_epoch(self) -> int:
        """The last epoch whose end is done: its report and scores are there, and whatever came of them."""
        cut_short = self.position > 0 and self.scored_step == self.step
        return self.epoch if cut_short else self.epoch - 1


class Readings:
    """Losses and logs of the steps since the last reading, left on the device until then."""

    def __init__(self, processes: int) -> None:
        self._processes = processes
        self._names: list[str] = []
        self._losses = 0
        self._rows: list[Tensor] = []

    def add(self, output: StepOutput) -> None:
        """Keep the values of a step."""
        named = {**output.losses, **output.logs}
        if not self._rows:
            self._names, self._losses = list(named), len(output.losses)
        self._rows.append(torch.stack([value.detach().float() for value in named.values()]))

    def read(self, step: int) -> tuple[dict[str, float], dict[str, float]]:
        """Means over the steps since the last reading and over processes; empty when there were none.

        Args:
            step: optimiser steps done.

        Returns:
            losses and logs by name.

        Raises:
            TrainingError: a loss of one of these steps is not finite; names the first one.
        """
        if not self._rows:
            return {}, {}
        table = torch.stack(self._rows)
        if self._processes > 1:
            table = environment.reduce_sum(table) / self._processes
        table = table.cpu()
        first = step - len(self._rows)
        self._rows = []
        bad = (~torch.isfinite(table[:, : self._losses])).nonzero()
        if len(bad):
            row, column = bad[0].tolist()
            raise TrainingError(
                f"loss {self._names[column]!r} is {table[row, column].item()} at step {first + row + 1}: lower "
                "optimizer.lr or set optimizer.clip_grad_norm; the last checkpoint is from before"
            )
        means = list(zip(self._names, table.mean(dim=0).tolist(), strict=True))
        return dict(means[: self._losses]), dict(means[self._losses :])


class Interrupt:
    """Turns the first Ctrl-C or SIGTERM into a request that the loop sees between steps; a second one acts at once."""

    def __init__(self) -> None:
        self.requested = False

    @contextmanager
    def listening(self) -> Iterator[Interrupt]:
        """Listen, where signals can be heard at all (the main thread)."""
        if threading.current_thread() is not threading.main_thread():
            yield self
            return
        before = {each: signal.signal(each, self._hear) for each in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield self
        finally:
            for each, handler in before.items():
                signal.signal(each, handler)

    def _hear(self, number: int, frame: FrameType | None) -> None:
        if self.requested:
            raise KeyboardInterrupt
        self.requested = True


class Loop:
    """Runs the steps of a `Run` from a `TrainState` on.

    Args:
        run: assembled.
        state: new or restored.
        journal: of the first process, None on the others.
        progress: called with (steps done, steps in all) after each step.
        note: takes one line for each epoch.
    """

    def __init__(self, run: Run, state: TrainState, journal: Journal | None, progress: Progress, note: Note) -> None:
        self.run, self.state, self.journal = run, state, journal
        self._progress, self._note = progress, note
        self.total = run.total_steps
        self._warmup = run.warmup_steps
        self._readings = Readings(run.fabric.world_size)
        self._losses: dict[str, float] = {}
        self._since = time.monotonic()
        self._logged = (state.step, state.seconds)

    def go(self, interrupt: Interrupt) -> str | None:
        """Train to the end, or until something stops the run.

        Returns:
            None at the end, "max_minutes" when the time was up.

        Raises:
            KeyboardInterrupt: after a checkpoint was written.
            TrainingError: a loss is not finite, or the disk is full.
        """
        run, state = self.run, self.state
        config, source = run.config, run.source
        several = run.fabric.world_size > 1
        context = StepContext(
            total_steps=self.total,
            gather=environment.gather if several else keep,
            rank=run.fabric.global_rank,
            process_count=run.fabric.world_size,
            reduce_sum=environment.reduce_sum if several else keep,
        )
        batches = stream(source, epoch=state.epoch, index=state.position, workers=config.data.workers)
        run.module.train()
        if state.step and self._stop(interrupt, agreed=True) == "max_minutes":
            return "max_minutes"  # resumed after its time was up
        while state.step < self.total:
            if not state.position:
                run.method.begin_epoch(state.epoch, run.features)
            for position in range(state.position, source.length(state.epoch)):
                batch = next(batches).to(run.device)
                context.epoch, context.step = state.epoch, state.step
                self._set_rate()
                with run.autocast():
                    output: StepOutput = run.module(batch, context)
                run.fabric.backward(torch.stack(list(output.losses.values())).sum())
                if config.optimizer.clip_grad_norm is not None:
                    torch.nn.utils.clip_grad_norm_(run.method.parameters(), config.optimizer.clip_grad_norm)
                run.stepper.step()
                run.stepper.zero_grad()
                if run.average is not None:
                    run.average.update(state.step)
                self._readings.add(output)
                state.step, state.position = state.step + 1, position + 1
                if state.step % config.log_every == 0:
                    self._log()
                if config.checkpoints.every_steps and state.step % config.checkpoints.every_steps == 0:
                    self._save()
                self._progress(state.step, self.total)
                stop = self._stop(interrupt)
                if stop == "interrupted":
                    self._save()
                    raise KeyboardInterrupt
                if stop is not None or state.step == self.total:
                    self._end_epoch(last=True)
                    return stop
            self._end_epoch(last=state.step >= self.total)
        if state.scored_step != state.step:  # killed between the last step and its scoring
            self._end_epoch(last=True)
        return None

    def _set_rate(self) -> None:
        schedule, state = self.run.config.schedule, self.state
        if schedule.unit == "step":
            factor = rate_factor(schedule, done=state.step, total=self.total, warmup=self._warmup)
        else:
            factor = rate_factor(schedule, done=state.epoch - 1, total=self.run.config.epochs or state.epoch)
        set_rate(self.run.optimizer, factor)

    def _stop(self, interrupt: Interrupt, *, agreed: bool = False) -> str | None:
        """Why to stop now. Processes agree on it, which costs a round trip: only when the journal is written."""
        limit = self.run.config.max_minutes
        reason = 2 if interrupt.requested else int(limit is not None and self._seconds() >= 60 * limit)
        if self.run.fabric.world_size > 1:
            if not agreed and self.state.step % self.run.config.log_every:
                return None
            table = torch.tensor([reason == 1, reason == 2], dtype=torch.int64, device=self.run.device)
            time_up, asked = environment.reduce_sum(table).tolist()
            reason = 2 if asked else int(time_up > 0)
        return (None, "max_minutes", "interrupted")[reason]

    def _seconds(self) -> float:
        """Seconds of training so far; moves the clock of the state."""
        now = time.monotonic()
        self.state.seconds += now - self._since
        self._since = now
        return self.state.seconds

    def _log(self) -> None:
        """Read the losses, check them, and write a line."""
        state = self.state
        losses, logs = self._readings.read(state.step)
        if not losses:
            return
        self._losses = losses
        step, seconds = self._logged
        samples = (state.step - step) * self.run.config.data.batch_size
        rate = samples / max(self._seconds() - seconds, 1e-9)
        self._logged = (state.step, state.seconds)
        if self.journal is not None:
            self.journal.write(
                "train",
                state.step,
                {
                    "epoch": state.epoch,
                    "losses": losses,
                    "logs": logs,
                    "lr": self.run.optimizer.param_groups[0]["lr"],
                    "samples_per_second": round(rate, 1),
                    "seconds": round(state.seconds, 2),
                },
            )

    def _end_epoch(self, *, last: bool) -> None:
        """Journal, scoring, model, checkpoint: in this order, so that a checkpoint vouches for all before it."""
        run, state = self.run, self.state
        self._log()
        self._report()
        scores = None
        if last or state.epoch % run.config.selection.every_epochs == 0:
            scores = self._score()
        self._note(self._line(scores))
        checkpoints = run.config.checkpoints
        epoch = state.epoch
        if state.position >= run.source.length(epoch):
            state.epoch, state.position = epoch + 1, 0
        if last or epoch % checkpoints.every_epochs == 0:
            self._save()

    def _report(self) -> None:
        """Let the method close its epoch, and keep what it has to say."""
        epoch = self.state.epoch
        report = self.run.method.end_epoch(epoch)
        if self.journal is not None and report.logs:
            entry = {"epoch": epoch, "logs": report.logs, "warning": report.warning}
            self.journal.write("epoch", self.state.step, entry)
        if self.journal is not None and report.arrays:
            relations.save(self.run.folder, epoch, report.arrays)
        if report.warning is not None:
            self._note(f"warning: epoch {epoch}: {report.warning}")

    def _score(self) -> Scores | None:
        """Score the current encoder; a new best one becomes `best/`."""
        run, state = self.run, self.state
        scores = None
        if run.validation is not None and self.journal is not None:
            scores = run.validation.score(run.current_encoder(), run.autocast)
            self.journal.write("scores", state.step, {"epoch": state.epoch, "scores": scores})
            if scores["mean"]["R@1"] > state.best_score:
                state.best_score, state.best_epoch, state.best_step = scores["mean"]["R@1"], state.epoch, state.step
                run.export("best", {"epoch": state.epoch, "step": state.step, "scores_in_training": scores})
            run.method.train()
        state.scored_step = state.step
        run.fabric.barrier()
        return scores

    def _line(self, scores: Scores | None) -> str:
        """What happened in the epoch, and how long the rest takes at this pace."""
        state, config = self.state, self.run.config
        epochs = f"/{config.epochs}" if config.epochs else ""
        parts = [f"epoch {state.epoch}{epochs}", f"loss {sum(self._losses.values()):.3f}"]
        if scores is not None:
            languages = " ".join(f"{code} {row['R@1']:.1f}" for code, row in scores.items() if code != "mean")
            best = " *" if state.best_step == state.step else ""
            parts.append(f"{config.selection.split} R@1 {scores['mean']['R@1']:.2f} ({languages}){best}")
        left = self._seconds() / max(state.step, 1) * (self.total - state.step)
        parts.append(f"{state.seconds / 60:.1f} min, {left / 60:.1f} min left")
        return "  ".join(parts)

    def _save(self) -> None:
        """Write a checkpoint; everyone takes part, the first process writes."""
        self._log()
        self._seconds()
        if self.journal is not None:
            self.journal.sync()
        save_state(self.run, self.state)


def save_state(run: Run, state: TrainState) -> None:
    """Write a checkpoint of a run.

    Raises:
        TrainingError: disk full or not writable.
    """
    states: list[Any] = [environment.random_state(run.device)]
    if run.fabric.world_size > 1:
        own, states = states[0], [None] * run.fabric.world_size
        torch.distributed.all_gather_object(states, own)
    if run.fabric.global_rank == 0:
        content = {
            "format": FORMAT,
            "state": asdict(state),
            "method": run.method.state_dict(),
            "optimizer": run.optimizer.state_dict(),
            "average": None if run.average is None else run.average.state(),
            "random": states,
        }
        checkpoint.save(run.folder / CHECKPOINTS, content, step=state.step, keep=run.config.checkpoints.keep)
    run.fabric.barrier()


def restore_state(run: Run, note: Note) -> TrainState:
    """Bring a run to its latest usable checkpoint.

    Raises:
        TrainingError: there is none, or it is of another version.
    """
    content, path, damaged = checkpoint.load_latest(run.folder / CHECKPOINTS)
    if content.get("format") != FORMAT:
        raise TrainingError(f"{path} has format {content.get('format')!r}; this version of tipr reads {FORMAT}")
    for each in damaged:
        note(f"{each.name} is damaged and was passed over")
    run.method.load_state_dict(content["method"])
    run.optimizer.load_state_dict(content["optimizer"])
    if run.average is not None:
        run.average.restore(content["average"])
    environment.set_random_state(content["random"][run.fabric.global_rank], run.device)
    return TrainState(**content["state"])
