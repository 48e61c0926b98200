"""Stage 2 of LDAT: which translations are noise (Bi-IRRA, section 3.2).

Rules first, then an estimator's noise against a threshold: the mean noise of the language and split, rounded to two
decimals, as in the paper, or one that the user gives. Scores are kept in a file of their own as they are made, so a
stopped run goes on; the threshold needs all of them.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from statistics import fmean
from typing import Any

from tipr.errors import ConfigError, DatasetError
from tipr.translation.estimators import Estimator, Explains
from tipr.translation.records import (
    FILTERED,
    REWRITTEN,
    TRANSLATIONS,
    Item,
    Journal,
    Row,
    file_sha256,
    read_rows,
    require_complete,
    settings_of,
)
from tipr.translation.rules import broken_rule

SCORES = "noise.jsonl"
"""File of the scores in the output folder: key, rule, noise, suspect."""
LATER = (REWRITTEN, "adapter")
"""What later stages leave in the output folder, made from the filtered rows."""
BATCH = 256
"""Captions scored between two writes."""
Progress = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class FilterGroup:
    """What the filter found in one language of one split.

    Attributes:
        language: of the translations.
        split: None where the manifest names no splits.
        captions: all of them.
        by_rule: rule -> captions that break it; they are noisy and have no noise value.
        mean: mean noise of the others; None when there are none.
        threshold: noise above it is too much.
        noisy: captions above the threshold, without those caught by rule.
    """

    language: str
    split: str | None
    captions: int
    by_rule: dict[str, int]
    mean: float | None
    threshold: float
    noisy: int


def run_filter(
    folder: Path | str,
    estimator: Estimator,
    *,
    threshold: float | None = None,
    progress: Progress | None = None,
) -> tuple[FilterGroup, ...]:
    """Read the finished translations of a folder and write `filtered.jsonl` beside them.

    A stopped run goes on where it was; a finished one is read again and nothing is scored twice. Another threshold
    replaces the rows, as long as no later stage has begun.

    Args:
        folder: the output folder of `tipr translate`.
        estimator: gives the noise.
        threshold: in [0, 1]; None takes the mean of each language and split, rounded to two decimals.
        progress: called with (captions scored, captions).

    Returns:
        One group for each language and split, in the order of the file.

    Raises:
        ConfigError: the threshold is out of range, or another estimator made the scores that are there, or another
            threshold the rows that a later stage works on.
        DatasetError: the translations are missing or not finished.
    """
    if threshold is not None and not 0.0 <= threshold <= 1.0:
        raise ConfigError(f"threshold must be in [0, 1], not {threshold}")
    folder = Path(folder)
    require_complete(folder / TRANSLATIONS)
    rows = list(read_rows(folder / TRANSLATIONS))
    source = {"translations": file_sha256(folder / TRANSLATIONS), "estimator": estimator.describe()}
    scores = _score(folder, rows, estimator, source, progress)
    groups: dict[tuple[str, str | None], list[Row]] = defaultdict(list)
    for row in rows:
        groups[row["language"], row.get("split")].append(scores[row["key"]])
    found = tuple(_group(key, members, threshold) for key, members in groups.items())
    limits = {(group.language, group.split): group.threshold for group in found}
    settings = {**source, "threshold": threshold}
    _forget_other_threshold(folder, settings)
    with Journal(folder / FILTERED, settings) as journal:
        done = journal.keys()
        for row in rows:
            if row["key"] not in done:
                limit = limits[row["language"], row.get("split")]
                journal.append(_filtered(row, scores[row["key"]], limit, estimator.describe()))
        journal.finish()
    return found


def read_filtered(folder: Path | str) -> list[Row]:
    """The finished rows of `filtered.jsonl`, whoever made them, checked for what the stages after it need.

    Raises:
        DatasetError: the file is missing or not finished, or a row lacks a field or has neither rule nor noise.
    """
    path = Path(folder) / FILTERED
    require_complete(path)
    rows = list(read_rows(path))
    for row in rows:
        Item.of(row)
        for name in ("draft", "rule", "noise", "noisy", "threshold", "estimator"):
            if name not in row:
                raise DatasetError(f"{path}: row {row['key']!r}: {name} is missing")
        if row["rule"] is None and not isinstance(row["noise"], int | float):
            raise DatasetError(f"{path}: row {row['key']!r}: noise must be a number where no rule is broken")
    return rows


def mean_threshold(noise: Iterable[float]) -> float:
    """The paper's threshold: mean noise, rounded to two decimals; 0 of nothing."""
    values = list(noise)
    return round(fmean(values), 2) if values else 0.0


def _score(
    folder: Path,
    rows: Sequence[Row],
    estimator: Estimator,
    settings: Mapping[str, Any],
    progress: Progress | None,
) -> dict[str, Row]:
    """Rule, noise and suspect of every row by key; what the folder has already is not scored again."""
    with Journal(folder / SCORES, settings) as journal:
        done = journal.keys()
        count = len(done)
        todo = [row for row in rows if row["key"] not in done]
        # rows of one pair of languages lie together, a stable sort keeps their order
        todo.sort(key=_languages)
        for languages, members in groupby(todo, key=_languages):
            batch = list(members)
            for start in range(0, len(batch), BATCH):
                part = batch[start : start + BATCH]
                for row in _assess(part, estimator, *languages):
                    journal.append(row)
                count += len(part)
                if progress is not None:
                    progress(count, len(rows))
        journal.finish()
        return {row["key"]: row for row in journal.read()}


def _forget_other_threshold(folder: Path, settings: Mapping[str, Any]) -> None:
    """Drop rows that differ by the threshold alone: a person tries several, and the scores are kept elsewhere."""
    old = settings_of(folder / FILTERED)
    if old is None or old == settings or {**old, "threshold": settings["threshold"]} != settings:
        return
    if not any((folder / name).exists() for name in LATER):
        (folder / FILTERED).unlink(missing_ok=True)


def _languages(row: Row) -> tuple[str, str]:
    return row["source_language"], row["language"]


def _assess(rows: Sequence[Row], estimator: Estimator, source_language: str, language: str) -> list[Row]:
    rules = [broken_rule(row["source"], row["draft"], language) for row in rows]
    whole = [row for row, rule in zip(rows, rules, strict=True) if rule is None]
    texts = [row["source"] for row in whole], [row["draft"] for row in whole]
    suspects: list[str | None] = [None] * len(whole)
    if isinstance(estimator, Explains):
        noise, named = estimator.assess(*texts, source_language, language)
        suspects = list(named)
    else:
        noise = estimator.noise(*texts, source_language, language)
    if len(noise) != len(whole) or not ((noise >= 0) & (noise <= 1)).all():
        raise DatasetError(f"estimator {estimator.name}: noise must be one number in [0, 1] for each caption")
    values = iter(zip(noise.tolist(), suspects, strict=True))
    assessed = []
    for row, rule in zip(rows, rules, strict=True):
        value, suspect = next(values) if rule is None else (None, None)
        assessed.append({"key": row["key"], "rule": rule, "noise": value, "suspect": suspect})
    return assessed


def _group(key: tuple[str, str | None], scores: Sequence[Row], threshold: float | None) -> FilterGroup:
    noise = [score["noise"] for score in scores if score["noise"] is not None]
    limit = mean_threshold(noise) if threshold is None else threshold
    rules = Counter(score["rule"] for score in scores if score["rule"] is not None)
    return FilterGroup(
        language=key[0],
        split=key[1],
        captions=len(scores),
        by_rule=dict(rules),
        mean=fmean(noise) if noise else None,
        threshold=limit,
        noisy=sum(value > limit for value in noise),
    )


def _filtered(row: Row, score: Row, threshold: float, estimator: Mapping[str, Any]) -> Row:
    noise = score["noise"]
    noisy = noise is None or noise > threshold
    return {**row, **score, "noisy": noisy, "threshold": threshold, "estimator": dict(estimator)}
