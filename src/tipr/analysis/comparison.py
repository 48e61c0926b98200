"""The tables of an ablation: every cell from finished runs, beside the baseline and beside the paper's figures."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from tipr.analysis.ablation import AblationConfig, PlannedRun, Setting
from tipr.analysis.run_scores import METRICS, RunScores
from tipr.errors import TrainingError
from tipr.evaluation.bootstrap import DRAWS, LEVEL, Group, PairedDifference, paired_bootstrap

FORMAT = 1
BOOTSTRAP_SEED = 0
GAP_METRICS = ("R@1", "mAP", "mINP")
"""Those of `METRICS` that are asked how much of a gap is closed."""


@dataclass(frozen=True, slots=True)
class Cell:
    """One metric of one setting, in percent.

    Attributes:
        mean: over the seeds.
        spread: sample standard deviation over the seeds; None with one seed.
        difference: to the baseline, on the same queries, each query's outcome averaged over the seeds; None for the
            baseline itself and where the baseline has no cell.
    """

    mean: float
    spread: float | None
    difference: PairedDifference | None


@dataclass(frozen=True, slots=True)
class GapClosed:
    """How far a method goes from the baseline towards an upper bound, in one metric.

    Attributes:
        gap: upper bound minus baseline.
        gain: method minus baseline.
    """

    gap: PairedDifference
    gain: PairedDifference

    @property
    def share(self) -> float | None:
        """gain / gap; None where the interval of the gap reaches down to 0: nothing to take a share of."""
        return self.gain.difference / self.gap.difference if self.gap.low > 0 else None

    def to_json(self) -> dict[str, Any]:
        """JSON values."""
        return {"gap": asdict(self.gap), "gain": asdict(self.gain), "share": self.share}


@dataclass(frozen=True, eq=False, slots=True)
class Row:
    """One setting.

    Attributes:
        setting: its entry in the configuration.
        runs: its finished runs by seed; fewer than asked for while it is not complete.
        cells: metric -> cell; empty while it is not complete.
        by_language: language -> metric -> cell, of every language that it was evaluated in; empty while it is not
            complete.
    """

    setting: Setting
    runs: tuple[RunScores, ...]
    cells: Mapping[str, Cell]
    by_language: Mapping[str, Mapping[str, Cell]]

    def to_json(self) -> dict[str, Any]:
        """JSON values; every cell names the runs behind it."""
        runs = [run.facts.to_json() for run in self.runs]
        return {
            "title": self.setting.title,
            "tables": list(self.setting.tables),
            "paper": dict(self.setting.paper),
            "runs": runs,
            "cells": {
                metric: {
                    "mean": cell.mean,
                    "spread": cell.spread,
                    "difference": None if cell.difference is None else asdict(cell.difference),
                    "runs": [{key: run[key] for key in ("run", "seed", "steps", "pairs_seen")} for run in runs],
                }
                for metric, cell in self.cells.items()
            },
            "by_language": {
                code: {metric: asdict(cell) for metric, cell in cells.items()}
                for code, cells in self.by_language.items()
            },
        }


@dataclass(frozen=True, eq=False, slots=True)
class Comparison:
    """All rows of an ablation.

    Attributes:
        config: of the ablation.
        seeds: runs that a row needs.
        rows: in the order of the settings.
        gaps: metric of `GAP_METRICS` -> the way from the baseline to the upper bound; empty when it is not asked for or
            a row of it is not complete.
    """

    config: AblationConfig
    seeds: int
    rows: tuple[Row, ...]
    gaps: Mapping[str, GapClosed]

    def of_table(self, key: str) -> list[Row]:
        """The rows of one table."""
        return [row for row in self.rows if key in row.setting.tables]

    def to_json(self) -> dict[str, Any]:
        """JSON values."""
        config = self.config
        facts = [run.facts for row in self.rows for run in row.runs]
        return {
            "format": FORMAT,
            "commit": ", ".join(sorted({each.commit for each in facts})),
            "machine": "; ".join(sorted({each.machine for each in facts})),
            "dataset": config.base.data.dataset,
            "split": config.split,
            "languages": list(config.languages),
            "seeds": self.seeds,
            "baseline": config.baseline,
            "bootstrap": {"over": "identities", "draws": DRAWS, "seed": BOOTSTRAP_SEED, "level": LEVEL},
            "tables": dict(config.tables),
            "gap": None
            if config.gap is None
            else {**config.gap.model_dump(), "metrics": {name: gap.to_json() for name, gap in self.gaps.items()}},
            "settings": {row.setting.name: row.to_json() for row in self.rows},
        }


def compare(config: AblationConfig, runs: Sequence[PlannedRun], *, seeds: int) -> Comparison:
    """Compute every cell from the run folders.

    Args:
        config: of the ablation.
        runs: from `plan`, with the same `seeds`.
        seeds: runs that a row needs; a row with fewer has no cells.

    Raises:
        ConfigError, TrainingError: a run folder is damaged, or was made with other settings or on other queries.
    """
    found = {
        setting.name: tuple(scores for run in runs if run.setting == setting if (scores := run.scores()) is not None)
        for setting in config.settings
    }
    _check_same_queries(config, [scores for part in found.values() for scores in part])
    complete = {name: scores for name, scores in found.items() if len(scores) == seeds}
    baseline = complete.get(config.baseline)
    rows = []
    for setting in config.settings:
        mine = complete.get(setting.name)
        other = baseline if setting.name != config.baseline else None
        cells = {} if mine is None else _cells(mine, other, config.languages)
        by_language = {}
        if mine is not None:
            for code in mine[0].outcomes:
                known = other if other is not None and code in other[0].outcomes else None
                by_language[code] = _cells(mine, known, [code])
        rows.append(Row(setting, found[setting.name], cells, by_language))
    return Comparison(config, seeds, tuple(rows), _gaps(config, rows))


def differences(stored: Any, computed: Any) -> list[str]:
    """Where two trees of JSON values differ, one line each, such as `settings.lrc.cells.R@1.mean: 50.1, now 50.3`.

    Numbers may differ by 1e-6: sums of another processor differ in their last bits.
    """
    before, now = dict(_leaves(stored)), dict(_leaves(computed))
    lines = []
    for key in [*before, *(key for key in now if key not in before)]:
        one, two = before.get(key), now.get(key)
        if key not in before or key not in now or not _same(one, two):
            lines.append(f"{key}: {one!r}, now {two!r}")
    return lines


def _cells(
    scores: tuple[RunScores, ...], baseline: tuple[RunScores, ...] | None, languages: Sequence[str]
) -> dict[str, Cell]:
    each = [run.scores(languages) for run in scores]
    differences: Sequence[PairedDifference | None] = [None] * len(METRICS)
    if baseline is not None:
        differences = paired_bootstrap(
            _over_seeds(scores, languages), _over_seeds(baseline, languages), seed=BOOTSTRAP_SEED
        )
    cells = {}
    for metric, difference in zip(METRICS, differences, strict=True):
        values = [run[metric] for run in each]
        spread = float(np.std(values, ddof=1)) if len(values) > 1 else None
        cells[metric] = Cell(float(np.mean(values)), spread, difference)
    return cells


def _over_seeds(scores: tuple[RunScores, ...], languages: Sequence[str]) -> list[Group]:
    """For each language each query's outcome, averaged over the runs, and the identities."""
    groups = []
    for language in languages:
        outcomes = [run.outcomes[language] for run in scores]
        groups.append((np.mean([each.values() for each in outcomes], axis=0), outcomes[0].identity))
    return groups


def _gaps(config: AblationConfig, rows: Sequence[Row]) -> dict[str, GapClosed]:
    if config.gap is None:
        return {}
    cells = {row.setting.name: row.cells for row in rows}
    found = {}
    for metric in GAP_METRICS:
        upper, method = (cells[name].get(metric) for name in (config.gap.upper_bound, config.gap.method))
        if upper is not None and upper.difference is not None and method is not None and method.difference is not None:
            found[metric] = GapClosed(upper.difference, method.difference)
    return found


def _check_same_queries(config: AblationConfig, scores: Sequence[RunScores]) -> None:
    """Differences query by query need the same queries and the same gallery in every run."""
    for language in config.languages:
        outcomes = [run.outcomes[language] for run in scores]
        for run, each in zip(scores, outcomes, strict=True):
            same = (each.captions, each.gallery) == (outcomes[0].captions, outcomes[0].gallery)
            if not same or not np.array_equal(each.identity, outcomes[0].identity):
                raise TrainingError(
                    f"run {run.facts.run} was evaluated on other queries than run {scores[0].facts.run}: the data set "
                    "changed between them; delete their scores.json to evaluate them anew"
                )


def _leaves(tree: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(tree, dict | list) and tree:
        parts = tree.items() if isinstance(tree, dict) else enumerate(tree)
        for key, value in parts:
            yield from _leaves(value, f"{path}.{key}" if path else str(key))
    else:
        yield path, tree


def _same(one: Any, two: Any) -> bool:
    if isinstance(one, float) and isinstance(two, float | int):
        return math.isclose(one, two, rel_tol=0, abs_tol=1e-6)
    return bool(one == two) and type(one) is type(two)
