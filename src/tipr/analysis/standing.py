"""Where finished runs stand: beside the published figures of the same data set and language, and beside each other.

Runs that differ in their seed alone are one row. A figure says by which rule its epoch was chosen, because published
ones were often chosen on the test split and are higher for it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tipr.analysis.published import PublishedResult, published
from tipr.analysis.run_scores import METRICS, RunFacts, RunScores, Weights, outcomes_of, score_run, scores_file
from tipr.data.datasets import DATASETS
from tipr.encoders import ENCODERS
from tipr.errors import ConfigError, TrainingError
from tipr.evaluation.bootstrap import Group, PairedDifference, bootstrap_intervals, paired_bootstrap
from tipr.retrieval import Retriever
from tipr.training import RunConfig, load_config
from tipr.training.run import MOVABLE
from tipr.training.sources import load_split

SELECTIONS = {"val": "validation", "last": "last epoch", "test": "test split"}
"""`selection.split` of a run -> how a table says it."""
LAST = SELECTIONS["last"]
NOT_TRAINED = "not trained"
ZERO_SHOT = "zero_shot"
TEST = SELECTIONS["test"]
BOOTSTRAP_SEED = 0
Note = Callable[[str], None]


@dataclass(frozen=True, eq=False, slots=True)
class Standing:
    """One method on one data set: its runs with different seeds, their epochs chosen by one rule.

    Attributes:
        label: what the row is called.
        method: key in `METHODS` of `tipr.methods`, or `ZERO_SHOT`.
        dataset: its title.
        split: the evaluated one.
        selection: one of `SELECTIONS`' values, or `NOT_TRAINED`.
        runs: by seed.
    """

    label: str
    method: str
    dataset: str
    split: str
    selection: str
    runs: tuple[RunScores, ...]

    @property
    def languages(self) -> tuple[str, ...]:
        """Those that all runs were evaluated in."""
        first, *others = (run.outcomes for run in self.runs)
        return tuple(code for code in first if all(code in other for other in others))

    def means(self, language: str) -> dict[str, tuple[float, float | None]]:
        """Metric -> mean over seeds and sample standard deviation (None of one seed), in percent."""
        each = [run.scores([language]) for run in self.runs]
        cells = {}
        for metric in METRICS:
            values = [scores[metric] for scores in each]
            cells[metric] = (float(np.mean(values)), float(np.std(values, ddof=1)) if len(values) > 1 else None)
        return cells

    def interval(self, language: str) -> tuple[float, float]:
        """95 % interval of R@1 over identities, each query's outcome averaged over the seeds."""
        low, high = bootstrap_intervals([self.group(language)], seed=BOOTSTRAP_SEED)[0]
        return float(low), float(high)

    def group(self, language: str) -> Group:
        """(Q, 5) percent, averaged over the seeds, and (Q,) identities."""
        outcomes = [run.outcomes[language] for run in self.runs]
        return np.mean([each.values() for each in outcomes], axis=0), outcomes[0].identity


@dataclass(frozen=True, slots=True)
class PairTest:
    """R@1 of one row minus that of another, on the same queries.

    Attributes:
        language: of the queries.
        one, other: labels with the rule of selection.
        difference: with its interval over identities; `p` is not corrected.
        p_holm: corrected for all comparisons of the page (Holm, 1979).
    """

    language: str
    one: str
    other: str
    difference: PairedDifference
    p_holm: float


@dataclass(frozen=True, eq=False, slots=True)
class Section:
    """Our rows and the published ones of one data set and language."""

    dataset: str
    language: str
    ours: tuple[Standing, ...]
    published: tuple[PublishedResult, ...]


@dataclass(frozen=True, eq=False, slots=True)
class Standings:
    """Everything that `tipr compare` says."""

    sections: tuple[Section, ...]
    tests: tuple[PairTest, ...]
    left_out: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """JSON values."""
        return {
            "sections": [_section_json(section) for section in self.sections],
            "tests": [asdict(test) for test in self.tests],
            "left_out": list(self.left_out),
        }


def standings(
    folders: Sequence[Path],
    *,
    split: str = "test",
    root: Path | None = None,
    test_selected: bool = False,
    every: bool = False,
    rerank: int | None = None,
    zero_shot: Sequence[Path] = (),
    device: str = "cpu",
    threads: int | None = None,
    note: Note = lambda text: None,
) -> Standings:
    """Evaluate what is not evaluated yet, group runs by everything but their seed, and set them beside published rows.

    Args:
        folders: of finished runs.
        split: to evaluate on.
        root: where the data set lies now; None: where each run had it.
        test_selected: take runs whose epoch was chosen on the test split too; else they are left out, and named.
        every: all published rows of the data set and language, not only those of the same methods.
        zero_shot: model folders, evaluated as they are on the data set of every run.
        rerank: pictures of each query that a second stage scores, for runs whose model has one; None: no second stage.
        device, threads: for evaluating.
        note: takes one line about what is being evaluated.

    Raises:
        ConfigError: no run, or a folder is no run.
        TrainingError: a run is not finished, or its scores are damaged or of other queries than its siblings'.
        DatasetError, WeightsError: a run cannot be evaluated.
    """
    if not folders:
        raise ConfigError("name at least one run folder")
    left_out: list[str] = []
    groups: dict[tuple[str, str], list[tuple[RunConfig, RunScores]]] = {}
    for folder in folders:
        config = load_config(folder)
        if config.selection.split == "test" and not test_selected:
            left_out.append(f"{folder}: its epoch was chosen on the test split (--test-selected shows it all the same)")
            continue
        for weights, selection in _rules(config):
            second = rerank if ENCODERS[config.encoder.name].can_rerank else None
            file = scores_file(second, weights)
            if (folder / file).is_file() and (stored := RunScores.read(folder, file)).split == split:
                scores = stored
            else:
                note(f"evaluating {folder / weights} on {split}")
                scores = evaluated(
                    folder, config, split, weights, rerank=second, root=root, device=device, threads=threads
                )
            groups.setdefault((_identity(config), selection), []).append((config, scores))
    rows = _rows(groups, split, rerank)
    of_datasets = {config.data.dataset: config for runs in groups.values() for config, _ in runs}
    for model in zero_shot:
        for dataset, config in of_datasets.items():
            note(f"evaluating {model} on {split} of {dataset}")
            rows.append(_untrained(model, config, root, split, device=device, threads=threads))
    sections = []
    for dataset, language in _cells(rows):
        ours = tuple(row for row in rows if row.dataset == dataset and language in row.languages)
        methods = None if every else sorted({row.method for row in ours})
        sections.append(Section(dataset, language, ours, tuple(published(dataset, language, methods=methods))))
    return Standings(tuple(sections), tuple(_tests(sections)), tuple(left_out))


def holm(p: Sequence[float]) -> list[float]:
    """p-values corrected for their number by Holm's step-down rule, in the order given."""
    order = np.argsort(p, kind="stable")
    corrected: NDArray[np.float64] = np.empty(len(p))
    highest = 0.0
    for place, index in enumerate(order):
        highest = max(highest, min(1.0, (len(p) - place) * float(p[index])))
        corrected[index] = highest
    return corrected.tolist()  # type: ignore[no-any-return]


def _rules(config: RunConfig) -> list[tuple[Weights, str]]:
    """The weights of a run that are worth a row, and the rule that chose them."""
    chosen = SELECTIONS[config.selection.split]
    return [("best", chosen)] if chosen == LAST else [("best", chosen), ("last", LAST)]


def _identity(config: RunConfig) -> str:
    """What runs with different seeds have in common."""
    return config.model_dump_json(exclude={*MOVABLE, "seed", "out"})


def evaluated(
    folder: Path,
    config: RunConfig,
    split: str,
    weights: Weights,
    *,
    rerank: int | None,
    root: Path | None,
    device: str,
    threads: int | None,
) -> RunScores:
    """New scores of a run, in all languages of its training that the data set has.

    Raises:
        TrainingError: the run is not finished.
        DatasetError, WeightsError: it cannot be evaluated.
    """
    if not (folder / weights).is_dir():
        raise TrainingError(f"{folder} has no {weights}/: it is not finished, or its weights were dropped")
    found = load_split(config, split, root=root).languages()
    languages = tuple(code for code in found if code in (config.data.languages or found)) or found
    return score_run(
        folder,
        split=split,
        languages=languages,
        device=device,
        threads=threads,
        rerank=rerank,
        weights=weights,
        root=root,
    )


def _rows(
    groups: Mapping[tuple[str, str], Sequence[tuple[RunConfig, RunScores]]], split: str, rerank: int | None
) -> list[Standing]:
    rows = []
    methods = [runs[0][0].method.name for runs in groups.values()]
    for (_, selection), runs in groups.items():
        config = runs[0][0]
        ordered = tuple(scores for _, scores in sorted(runs, key=lambda run: run[0].seed))
        if len({scores.facts.seed for scores in ordered}) < len(ordered):
            raise ConfigError(f"two runs of {config.method.name} have the same settings and seed: name each run once")
        _check_siblings(ordered)
        alone = methods.count(config.method.name) == len(_rules(config))
        label = config.method.name if alone else f"{config.method.name}, {_place(config.out)}"
        if rerank is not None and ENCODERS[config.encoder.name].can_rerank:
            label += f", reranked {rerank}"
        rows.append(
            Standing(label, config.method.name, DATASETS[config.data.dataset].facts.title, split, selection, ordered)
        )
    return rows


def _untrained(
    model: Path, config: RunConfig, root: Path | None, split: str, *, device: str, threads: int | None
) -> Standing:
    """A model as it is, on the data set of a run, which it was not trained on here."""
    retriever = Retriever.load(model, device=device, threads=threads)
    data = load_split(config, split, root=root)
    facts = RunFacts(retriever.fingerprint[:12], seed=0, steps=0, pairs_seen=0, minutes=0.0, commit="", machine="")
    found = outcomes_of(retriever, data, data.languages())
    incomplete = (data.incomplete,) if data.incomplete else ()
    scores = RunScores(facts, 0, 0, split, retriever.fingerprint, found, incomplete)
    title = DATASETS[config.data.dataset].facts.title
    return Standing(f"zero-shot, {model.name}", ZERO_SHOT, title, split, NOT_TRAINED, (scores,))


def _place(out: Path) -> str:
    """Name of a run's folder that tells it from others: with its parent where it is only a number of a seed."""
    return f"{out.parent.name}/{out.name}" if out.name.startswith("seed") else out.name


def _check_siblings(runs: Sequence[RunScores]) -> None:
    for run in runs[1:]:
        for language, outcomes in run.outcomes.items():
            first = runs[0].outcomes.get(language)
            if first is not None and (first.captions, first.gallery) != (outcomes.captions, outcomes.gallery):
                raise TrainingError(
                    f"runs {runs[0].facts.run} and {run.facts.run} were evaluated on different queries; delete their "
                    "scores to evaluate them anew"
                )


def _cells(rows: Sequence[Standing]) -> list[tuple[str, str]]:
    """(data set, language) of every section, in the order of the rows."""
    return list(dict.fromkeys((row.dataset, language) for row in rows for language in row.languages))


def _tests(sections: Sequence[Section]) -> list[PairTest]:
    """Every pair of our rows that answered the same queries."""
    found = []
    for section in sections:
        for one, other in combinations(section.ours, 2):
            mine, theirs = (row.runs[0].outcomes[section.language] for row in (one, other))
            if (mine.captions, mine.gallery) == (theirs.captions, theirs.gallery):
                groups = [one.group(section.language)], [other.group(section.language)]
                difference = paired_bootstrap(*groups, seed=BOOTSTRAP_SEED)[0]
                found.append((section.language, one, other, difference))
    corrected = holm([difference.p for *_, difference in found])
    return [
        PairTest(language, f"{one.label}, {one.selection}", f"{other.label}, {other.selection}", difference, p)
        for (language, one, other, difference), p in zip(found, corrected, strict=True)
    ]


def _section_json(section: Section) -> dict[str, Any]:
    language = section.language
    return {
        "dataset": section.dataset,
        "language": language,
        "ours": [
            {
                "label": row.label,
                "method": row.method,
                "split": row.split,
                "selection": row.selection,
                "scores": {
                    metric: {"mean": mean, "spread": spread} for metric, (mean, spread) in row.means(language).items()
                },
                "interval": list(row.interval(language)),
                "runs": [run.facts.to_json() for run in row.runs],
            }
            for row in section.ours
        ],
        "published": [{**asdict(row), "scores": dict(row.scores)} for row in section.published],
    }
