"""An ablation: one base configuration, named settings that change it, every setting trained with several seeds.

Each run is an ordinary run folder, `OUT/<setting>/seed-<n>`. A finished run has a `scores.json` and is never run again;
an unfinished one is resumed. Settings come one after another in the order of the file, so rows become complete early.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from pydantic import Field, PositiveInt, field_validator, model_validator

from tipr import config as configuration
from tipr.analysis.run_scores import RunScores, score_run, scores_file
from tipr.config import Section
from tipr.data.samples import LANGUAGES
from tipr.errors import ConfigError, TrainingError
from tipr.training import RunConfig, load_config, train
from tipr.training.checkpoint import newest_first, reported
from tipr.training.journal import STATUS
from tipr.training.loop import CHECKPOINTS
from tipr.training.run import CONFIG, MOVABLE

MAX_SETTINGS = 16
DROPPED = ("checkpoints", "best", "last", "tokenizer", "tb")
"""What a slim run folder does without; configuration, environment, journal, card and scores stay."""

Note = Callable[[str], None]
Progress = Callable[[int, int], None]


class Setting(Section):
    """One row of the tables.

    Attributes:
        name: folder name: lower-case letters, digits, `-` and `_`.
        title: what the row is called in the tables.
        tables: keys of `AblationConfig.tables` in which it stands.
        overrides: `section.key` -> value, put into the base configuration; a section replaces the whole section.
        runs_of: another setting, whose runs this row evaluates in its own way instead of training runs of its own.
        rerank: pictures of each query that a second stage scores; None: no second stage.
        extra_languages: languages evaluated besides those of the tables.
        paper: data set -> the paper's Rank-1 in percent; empty where the paper has no such row.
    """

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9_-]*$")
    title: str
    tables: tuple[str, ...] = Field(min_length=1)
    overrides: dict[str, Any] = Field(default_factory=dict)
    runs_of: str | None = None
    rerank: PositiveInt | None = None
    extra_languages: tuple[str, ...] = ()
    paper: dict[str, float] = Field(default_factory=dict)

    @field_validator("overrides")
    @classmethod
    def _leave_place_and_seed(cls, overrides: dict[str, Any]) -> dict[str, Any]:
        for key in ("out", "seed"):
            if key in overrides:
                raise ValueError(f"{key} is set by the ablation itself")
        return overrides

    @model_validator(mode="after")
    def _another_way(self) -> Self:
        if self.runs_of is not None and (self.overrides or self.rerank is None):
            raise ValueError(
                "runs_of takes the runs of another setting as they are, to rerank: no overrides, and rerank"
            )
        return self


class Gap(Section):
    """A share to report: how much of the way from the baseline to `upper_bound` the setting `method` goes."""

    method: str
    upper_bound: str


class AblationConfig(Section):
    """Everything that an ablation does.

    Attributes:
        base: a complete run configuration; its `out` is the folder of all runs unless another one is given, its
            `seed` the first of the seeds.
        split: the evaluated split.
        languages: of the queries that the tables are about.
        baseline: the setting that all others are compared with.
        gap: see `Gap`; None: not reported.
        tables: key -> title, in the order of printing.
        each_language: the tables show R@1 of every language beside the mean.
        paper_sets: data sets of the paper's figures, in the order of columns.
        settings: at most 16.
    """

    base: RunConfig
    split: str = "test"
    languages: tuple[str, ...] = Field(min_length=1)
    baseline: str
    gap: Gap | None = None
    tables: dict[str, str] = Field(min_length=1)
    each_language: bool = False
    paper_sets: tuple[str, ...] = ()
    settings: tuple[Setting, ...] = Field(min_length=1, max_length=MAX_SETTINGS)

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        names = [setting.name for setting in self.settings]
        if len(set(names)) != len(names):
            raise ValueError("two settings have the same name")
        named = [self.baseline] if self.gap is None else [self.baseline, self.gap.method, self.gap.upper_bound]
        for name in named:
            if name not in names:
                raise ValueError(f"no setting {name!r}; there are {', '.join(names)}")
        trained = [setting.name for setting in self.settings if setting.runs_of is None]
        for setting in self.settings:
            if setting.runs_of is not None:
                _some_of([setting.runs_of], trained, f"settings.{setting.name}.runs_of")
            _some_of(setting.tables, self.tables, f"settings.{setting.name}.tables")
            _some_of(tuple(setting.paper), self.paper_sets, f"settings.{setting.name}.paper")
            _some_of(setting.extra_languages, LANGUAGES, f"settings.{setting.name}.extra_languages")
        _some_of(self.languages, LANGUAGES, "languages")
        return self

    def run_config(self, setting: Setting, *, seed: int, out: Path) -> RunConfig:
        """The configuration of one run of a setting that trains its own.

        Raises:
            ConfigError: an override does not fit, or the run would have several processes.
        """
        tree = self.base.model_dump(mode="json")
        source = f"setting {setting.name}"
        try:
            for key, value in setting.overrides.items():
                configuration.replace(tree, key, value)
        except ConfigError as error:
            raise ConfigError(f"{source}: {error}") from None
        made = configuration.parse({**tree, "out": str(out), "seed": seed}, RunConfig, source=source)
        if made.processes != 1:  # several processes re-run the command line, and this one has more to do than a run
            raise ConfigError(f"{source}: processes is {made.processes}; runs of an ablation have 1")
        return made


@dataclass(frozen=True)
class PlannedRun:
    """One run of an ablation.

    Attributes:
        setting: its row.
        config: of the run; `config.out` is its folder.
        languages: of the queries that it is evaluated with.
        split: the evaluated one.
    """

    setting: Setting
    config: RunConfig
    languages: tuple[str, ...]
    split: str

    @property
    def folder(self) -> Path:
        """The run folder."""
        return self.config.out

    @property
    def scores_name(self) -> str:
        """Name of the file in the folder that says what it found."""
        return scores_file(self.setting.rerank)

    @property
    def label(self) -> str:
        """`setting seed-1`."""
        return f"{self.setting.name} {self.folder.name}"

    @property
    def finished(self) -> bool:
        """Trained and evaluated."""
        return (self.folder / self.scores_name).is_file()

    @property
    def trained(self) -> bool:
        """Trained to its end, its weights there."""
        status = self.folder / STATUS
        return (self.folder / "best").is_dir() and status.is_file() and status.read_text().strip() == "done"

    def scores(self) -> RunScores | None:
        """What it found, or None before it is finished.

        Raises:
            TrainingError, ConfigError: what is there is damaged or is not of this run.
        """
        if not self.finished:
            return None
        self.check()
        scores = RunScores.read(self.folder, self.scores_name)
        if scores.split != self.split or not set(self.languages) <= set(scores.outcomes):
            there = f"split {scores.split!r}, languages {', '.join(scores.outcomes)}"
            raise TrainingError(
                f"{self.folder / self.scores_name} is of {there}: delete it, and the run is evaluated anew"
            )
        return scores

    def check(self) -> None:
        """See that what is in the folder already was made with the same settings.

        Raises:
            ConfigError: it was not.
        """
        if not (self.folder / CONFIG).is_file():
            return
        there, wanted = load_config(self.folder).model_dump(mode="json"), self.config.model_dump(mode="json")
        different = sorted(key for key in wanted if key not in MOVABLE and wanted[key] != there.get(key))
        if different:
            raise ConfigError(
                f"{self.folder} was made with other settings: {', '.join(different)}; delete it or choose another --out"
            )


def plan(
    config: AblationConfig, out: Path, *, seeds: int, device: str | None = None, threads: int | None = None
) -> list[PlannedRun]:
    """All runs of an ablation, settings in the order of the file; every configuration is checked.

    Args:
        config: of the ablation.
        out: folder of all runs.
        seeds: runs of each setting.
        device, threads: where the runs compute; None: as configured.

    Raises:
        ConfigError: a setting does not give a valid run.
    """
    runs = []
    by_name = {setting.name: setting for setting in config.settings}
    for setting in config.settings:
        trained = by_name[setting.runs_of or setting.name]
        languages = tuple(code for code in LANGUAGES if code in {*config.languages, *setting.extra_languages})
        for number in range(1, seeds + 1):
            folder = out / trained.name / f"seed-{number}"
            made = config.run_config(trained, seed=config.base.seed + number - 1, out=folder)
            moved: dict[str, Any] = {"device": device or made.device, "threads": threads or made.threads}
            runs.append(PlannedRun(setting, made.model_copy(update=moved), languages, config.split))
    return runs


def perform(
    runs: Sequence[PlannedRun],
    every: Sequence[PlannedRun],
    *,
    slim: bool = False,
    progress: Progress,
    note: Note,
    finished: Callable[[], object] = lambda: None,
) -> list[str]:
    """Train and evaluate every run that is not finished.

    Args:
        runs: those to perform, of `every`.
        every: from `plan`.
        slim: drop checkpoints and weights of runs that no row needs any more.
        progress: called with (steps done, steps in all) over all the runs that were not finished.
        note: takes one line about each run and each epoch.
        finished: called after each run.

    Returns:
        one line for each run that failed, such as one whose loss was not finite; the others go on.

    Raises:
        KeyboardInterrupt: stopped; the run that was going on can be resumed.
        ConfigError, DatasetError, WeightsError: a run cannot start.
        TrainingError: the scores of a finished run are damaged.
    """
    for run in runs:  # before hours of training, not after them
        run.check()
        run.scores()
    waiting = [run for run in runs if not run.finished]
    pace, failed = Pace(runs, waiting), []
    if slim:
        for run in runs:
            drop_weights(run.folder, every)
    if len(waiting) < len(runs):
        note(f"{len(runs) - len(waiting)} of {len(runs)} runs are finished already")
    for place, run in enumerate(waiting, start=1):
        note(f"run {place}/{len(waiting)}: {run.label}{pace.left(place - 1)}")
        began = time.monotonic()
        try:
            if not run.trained:
                resume = bool(newest_first(run.folder / CHECKPOINTS))
                train(run.config, resume=resume, progress=pace.counting(place - 1, progress), note=_indented(note))
            device = run.config.device
            scores = score_run(
                run.folder,
                split=run.split,
                languages=run.languages,
                device=("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device,
                threads=run.config.threads,
                rerank=run.setting.rerank,
            )
        except TrainingError as error:
            failed.append(f"{run.label}: {error}")
            note(f"{run.label} failed: {error}")
            continue
        pace.add(run, time.monotonic() - began)
        if slim:
            drop_weights(run.folder, every)
        table = ", ".join(f"{name} {value:.2f}" for name, value in scores.scores(run.languages).items())
        note(f"{run.label}: {table}{pace.left(place)}")
        finished()
    return failed


def drop_weights(folder: Path, every: Sequence[PlannedRun]) -> None:
    """Make a finished run folder small: checkpoints, weights, tokenizer and TensorBoard events go.

    A run that one of `every` still has to train or to evaluate is left as it is.

    Raises:
        TrainingError: not writable.
    """
    if not all(run.finished for run in every if run.folder == folder):
        return
    with reported(folder, "drop weights"):
        for name in DROPPED:
            if (folder / name).is_dir():
                shutil.rmtree(folder / name)


class Pace:
    """How far all runs together are, and how long the rest takes.

    Args:
        runs: all of them; the finished ones say how long theirs took.
        waiting: those still to do, in order.
    """

    def __init__(self, runs: Sequence[PlannedRun], waiting: Sequence[PlannedRun]) -> None:
        self._waiting = waiting
        self._seconds: dict[str, list[float]] = {}
        self._trained = {run.setting.name: run.setting.runs_of is None for run in runs}
        self._steps = {run.setting.name: run.config.max_steps if run.setting.runs_of is None else 0 for run in waiting}
        for run in runs:
            if run.finished and run.setting.runs_of is None:  # its minutes are those of the training
                minutes = RunScores.read(run.folder, run.scores_name).facts.minutes
                self._seconds.setdefault(run.setting.name, []).append(60 * minutes)

    def add(self, run: PlannedRun, seconds: float) -> None:
        """A run is finished."""
        self._seconds.setdefault(run.setting.name, []).append(seconds)

    def left(self, done: int) -> str:
        """`, 5 runs left, about 1 h 20 min`: a run takes as long as others of its setting, else as any other training
        or any other second evaluation; no time while nothing of a kind is known."""
        left = self._waiting[done:]
        if not left:
            return ""
        count = f", {len(left)} run{'s' * (len(left) > 1)} left"
        seconds = 0.0
        for run in left:
            known = self._seconds.get(run.setting.name) or self._like(run)
            if not known:
                return count
            seconds += float(np.mean(known))
        return f"{count}, about {duration(seconds)}"

    def _like(self, run: PlannedRun) -> list[float]:
        """Seconds of all trainings, or of all second evaluations, as `run` is one."""
        kind = self._trained[run.setting.name]
        return [each for name, part in self._seconds.items() if self._trained[name] == kind for each in part]

    def counting(self, place: int, progress: Progress) -> Progress:
        """The progress of one run as progress over all that wait; a run of unknown length is taken to be like it."""

        def report(done: int, total: int) -> None:
            self._steps[self._waiting[place].setting.name] = total
            known = [self._steps[run.setting.name] for run in self._waiting]
            steps = [total if length is None else length for length in known]
            progress(sum(steps[:place]) + done, sum(steps))

        return report


def duration(seconds: float) -> str:
    """`2 h 05 min`, `12 min` or `40 s`."""
    minutes = round(seconds / 60)
    if minutes >= 60:
        return f"{minutes // 60} h {minutes % 60:02d} min"
    return f"{minutes} min" if seconds >= 90 else f"{seconds:.0f} s"


def _indented(note: Note) -> Note:
    return lambda text: note(f"  {text}")


def _some_of(given: Sequence[str], allowed: Sequence[str] | dict[str, str], where: str) -> None:
    unknown = [each for each in given if each not in allowed]
    if unknown:
        raise ValueError(f"{where}: unknown {', '.join(unknown)}; allowed: {', '.join(allowed) or 'none'}")
