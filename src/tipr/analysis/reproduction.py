"""A published recipe from end to end: check the data, read the weights, train every seed, evaluate, compare.

Every step leaves its result in one folder and is not done again, so the command may be stopped and repeated.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tipr import config as configuration
from tipr.analysis.run_scores import RunScores, scores_file
from tipr.analysis.standing import Standings, evaluated, standings
from tipr.data.check import check_dataset
from tipr.data.datasets import DATASETS
from tipr.encoders import ENCODERS
from tipr.errors import ConfigError, DatasetError
from tipr.importers.model_folder import import_model
from tipr.retrieval.model_folder import DESCRIPTION
from tipr.training import RunConfig, load_config, train
from tipr.training.journal import STATUS
from tipr.training.loop import CHECKPOINTS
from tipr.training.run import MOVABLE

RERANK = 256
"""Pictures of each query that the published Bi-IRRA scores a second time."""
FORMATS = {"clip": "openai_clip", "beit_xlmr": "x2vlm"}
"""Encoder -> format of the weights that its published recipes start from."""
START = "start"
UNUSABLE = "unusable"
Note = Callable[[str], None]
Progress = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class Reached:
    """One expected range, and what came out.

    Attributes:
        language, metric: of the figure.
        low, high: expected, in percent.
        mean: over the seeds.
    """

    language: str
    metric: str
    low: float
    high: float
    mean: float

    @property
    def inside(self) -> bool:
        """Whether the mean lies in the range."""
        return self.low <= self.mean <= self.high


@dataclass(frozen=True, eq=False, slots=True)
class Reproduction:
    """What `tipr reproduce` found.

    Attributes:
        folder: of all its results.
        seeds: runs.
        verdict: of the check of the data set, in one line.
        reached: every expected range; empty where the recipe names none.
        standings: the runs, and the weights that they start from as they are, beside published figures.
    """

    folder: Path
    seeds: int
    verdict: str
    reached: tuple[Reached, ...]
    standings: Standings

    def to_json(self) -> dict[str, Any]:
        """JSON values."""
        return {
            "folder": str(self.folder),
            "seeds": self.seeds,
            "data": self.verdict,
            "expected": [
                {
                    "language": each.language,
                    "metric": each.metric,
                    "range": [each.low, each.high],
                    "mean": each.mean,
                    "inside": each.inside,
                }
                for each in self.reached
            ],
            **self.standings.to_json(),
        }


def recipe_file(name: str) -> Path:
    """The configuration that a recipe's name means: a file, or `configs/NAME.yaml` here or in the source checkout.

    Raises:
        ConfigError: there is none; says which there are.
    """
    if Path(name).is_file():
        return Path(name)
    homes = [Path("configs"), Path(__file__).resolve().parents[3] / "configs"]
    for home in homes:
        if (home / f"{name}.yaml").is_file():
            return home / f"{name}.yaml"
    files = [path.relative_to(home) for home in homes for path in home.glob("*/*.yaml")]
    there = sorted({file.with_suffix("").as_posix() for file in files})
    raise ConfigError(f"no recipe {name!r}; there are {', '.join(there) or 'none here: name a YAML file'}")


def reproduce(
    name: str,
    *,
    data: Path,
    weights: Path | None,
    out: Path,
    seeds: int = 3,
    vocabulary: Path | None = None,
    format: str | None = None,
    overrides: Sequence[str] = (),
    rerank: int | None = RERANK,
    unconfined: bool = False,
    device: str | None = None,
    threads: int | None = None,
    progress: Progress = lambda done, total: None,
    note: Note = lambda text: None,
) -> Reproduction:
    """Run a recipe with several seeds and say whether it reached what it should.

    Args:
        name: see `recipe_file`.
        data: the data set.
        weights: what the recipe starts from: a model folder, or a foreign checkpoint of `format`; None for a recipe
            from random weights.
        out: folder of all results.
        seeds: runs; their seeds count up from the recipe's.
        vocabulary: the tokenizer's file; None: the one beside the weights.
        format: of the weights; None: what the published recipes of this encoder start from.
        overrides: `key=value` for the recipe, such as `data.batch_size=32`; they make it another recipe.
        rerank: pictures of each query that a second stage scores, where the model has one.
        unconfined: see `tipr.importers.read`.
        device, threads: where it computes; None: as the recipe says.
        progress: called with (steps done, steps in all) of one run.
        note: takes one line about each step.

    Raises:
        ConfigError: the recipe, or what it is given, does not fit.
        DatasetError: the data set is unusable.
        WeightsError: the weights cannot be read.
        TrainingError: a run failed.
    """
    given = [*overrides, f"data.root={json.dumps(str(data))}", f"out={json.dumps(str(out))}"]
    given += [] if device is None else [f"device={device}"]
    given += [] if threads is None else [f"threads={threads}"]
    recipe = configuration.load(recipe_file(name), RunConfig, overrides=given)
    if (recipe.start_from is None) != (weights is None):
        wanted = "starts from random weights: give no --weights" if recipe.start_from is None else "needs --weights"
        raise ConfigError(f"recipe {name} {wanted}")
    verdict = _checked(recipe, note)
    recipe = _with_weights(
        recipe,
        weights,
        vocabulary=vocabulary,
        format=format or FORMATS.get(recipe.encoder.name),
        unconfined=unconfined,
        note=note,
    )
    folders = [_trained(recipe, number, progress, note) for number in range(seeds)]
    second = rerank if ENCODERS[recipe.encoder.name].can_rerank else None
    where = "cuda" if recipe.device == "auto" and _cuda() else "cpu" if recipe.device == "auto" else recipe.device
    scores = []
    for folder in folders:
        file = scores_file(second)
        if not (folder / file).is_file():
            note(f"evaluating {folder}")
            evaluated(folder, recipe, "test", "best", rerank=second, root=data, device=where, threads=recipe.threads)
        scores.append(RunScores.read(folder, file))
    start = [] if recipe.start_from is None else [Path(recipe.start_from)]
    found = standings(
        folders, root=data, rerank=second, zero_shot=start, device=where, threads=recipe.threads, note=note
    )
    return Reproduction(out, seeds, verdict, _reached(recipe, scores), found)


def _checked(recipe: RunConfig, note: Note) -> str:
    note(f"checking {recipe.data.root}")
    data = recipe.data
    report = check_dataset(DATASETS[data.dataset], data.root, decode=False, allow_missing=data.allow_missing)
    if report.verdict == UNUSABLE:
        raise DatasetError(f"{recipe.data.root} is {report.line()}; tipr data check says more")
    return report.line()


def _with_weights(
    recipe: RunConfig,
    weights: Path | None,
    *,
    vocabulary: Path | None,
    format: str | None,
    unconfined: bool,
    note: Note,
) -> RunConfig:
    """The recipe with the folder that it starts from, which is made where that has not been done."""
    if weights is None:
        return recipe
    if (weights / DESCRIPTION).is_file():
        return recipe.model_copy(update={"start_from": str(weights)})
    if format is None:
        raise ConfigError(f"encoder {recipe.encoder.name} has no published weights: give a model folder as --weights")
    start = recipe.out / START
    if not (start / DESCRIPTION).is_file():
        note(f"reading {weights} as {format}")
        settings: dict[str, Any] = {"image_size": list(recipe.encoder.image_size)}
        if recipe.max_tokens != 77:
            settings["max_tokens"] = recipe.max_tokens
        import_model(format, weights, start, config=settings, vocabulary=vocabulary, unconfined=unconfined, verify=True)
    return recipe.model_copy(update={"start_from": str(start)})


def _trained(recipe: RunConfig, number: int, progress: Progress, note: Note) -> Path:
    """The folder of one seed, trained to its end."""
    folder = recipe.out / f"seed-{number + 1}"
    config = recipe.model_copy(update={"out": folder, "seed": recipe.seed + number})
    status = folder / STATUS
    if status.is_file() and status.read_text().strip() == "done":
        there, wanted = load_config(folder).model_dump(mode="json"), config.model_dump(mode="json")
        if different := sorted(key for key in wanted if key not in MOVABLE and wanted[key] != there.get(key)):
            raise ConfigError(f"{folder} was made with other settings: {', '.join(different)}; choose another --out")
        return folder
    resume = any((folder / CHECKPOINTS).glob("step-*.pt"))
    note(f"{'going on with' if resume else 'training'} {folder}")
    train(config, resume=resume, progress=progress, note=note)
    return folder


def _reached(recipe: RunConfig, scores: Sequence[RunScores]) -> tuple[Reached, ...]:
    found = []
    for language, ranges in recipe.expected.items():
        for metric, (low, high) in ranges.items():
            if all(language in run.outcomes for run in scores):
                mean = float(np.mean([run.scores([language])[metric] for run in scores]))
                found.append(Reached(language, metric, low, high, mean))
    return tuple(found)


def _cuda() -> bool:
    import torch

    return torch.cuda.is_available()
