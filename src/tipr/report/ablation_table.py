"""The tables of an ablation as rows of text, and as one Markdown page."""

from __future__ import annotations

from collections.abc import Sequence

from tipr.analysis.ablation import duration
from tipr.analysis.comparison import Cell, Comparison, GapClosed, Row
from tipr.analysis.run_scores import METRICS
from tipr.evaluation.bootstrap import PairedDifference

ABSENT = "-"
"""Stands in every cell of a setting that does not have all its runs."""
RUN_COLUMNS = ("setting", "run", "seed", "steps", "pairs seen", "minutes", "R@1")


def header(comparison: Comparison) -> list[str]:
    """Column names of a table of scores."""
    return [
        "setting",
        "R@1",
        "to baseline",
        "p",
        *METRICS[1:],
        *(f"{code} R@1" for code in _languages(comparison)),
        *(f"{name} R@1" for name in comparison.config.paper_sets),
    ]


def score_rows(comparison: Comparison, table: str) -> list[list[str]]:
    """One row of text for each setting of a table, under `header`."""
    return [_score_row(comparison, row) for row in comparison.of_table(table)]


def run_rows(comparison: Comparison) -> list[list[str]]:
    """One row of text for each finished run, under `RUN_COLUMNS`: what stands behind the cells."""
    return [
        [
            row.setting.name,
            run.facts.run,
            str(run.facts.seed),
            f"{run.facts.steps:,}",
            f"{run.facts.pairs_seen:,}",
            f"{run.facts.minutes:.1f}",
            f"{run.scores(comparison.config.languages)['R@1']:.2f}",
        ]
        for row in comparison.rows
        for run in row.runs
    ]


def remarks(comparison: Comparison) -> list[str]:
    """Sentences that must be read with the tables."""
    config, seeds = comparison.config, comparison.seeds
    title = {row.setting.name: row.setting.title for row in comparison.rows}
    lines = [
        f"Percent on split {config.split} of {config.base.data.dataset}, captions in {', '.join(config.languages)}; "
        f"mean ± standard deviation over {seeds} seed{'s' * (seeds > 1)}. A setting with fewer runs has {ABSENT}.",
        f"To baseline: R@1 minus that of {title[config.baseline]!r}, and its 95 % interval; p: two-sided. Both by a "
        "bootstrap over identities of the differences query by query, averaged over the seeds: they speak of other "
        "people, the standard deviation of other seeds.",
    ]
    if config.paper_sets:
        lines.append("Columns named after a data set: Rank-1 in the paper, on that set of photographs.")
    if comparison.gaps and config.gap is not None:
        names = title[config.gap.method], title[config.baseline], title[config.gap.upper_bound]
        lines += [_gap_sentence(metric, gap, *names) for metric, gap in comparison.gaps.items()]
    if _languages(comparison):
        lines.append(
            "R@1 of a language: in brackets the difference to the baseline in that language, with * where its 95 % "
            "interval excludes 0."
        )
    for row in comparison.rows:
        if set(row.by_language) - set(config.languages):
            values = ", ".join(f"{code} {cells['R@1'].mean:.2f}" for code, cells in row.by_language.items())
            lines.append(f"R@1 of {row.setting.title!r} by language: {values}.")
    return lines


def markdown(comparison: Comparison) -> str:
    """The whole ablation as a Markdown page; ends with a line break."""
    lines = ["# Ablation", ""]
    for key, title in comparison.config.tables.items():
        lines += [f"## {title}", "", *_markdown_table(header(comparison), score_rows(comparison, key)), ""]
    lines += [*(f"- {remark}" for remark in remarks(comparison)), ""]
    lines += ["## Runs", "", *_markdown_table(RUN_COLUMNS, run_rows(comparison)), ""]
    facts = [run.facts for row in comparison.rows for run in row.runs]
    lines.append(f"- {len(facts)} runs, {duration(60 * sum(each.minutes for each in facts))} of training.")
    lines += [f"- Machine: {machine}" for machine in sorted({each.machine for each in facts})]
    lines += [f"- Commit: {commit}" for commit in sorted({each.commit for each in facts})]
    return "\n".join(lines) + "\n"


def _score_row(comparison: Comparison, row: Row) -> list[str]:
    paper = [row.setting.paper.get(name) for name in comparison.config.paper_sets]
    figures = [ABSENT if value is None else f"{value:.2f}" for value in paper]
    languages = _languages(comparison)
    if not row.cells:
        return [row.setting.title, *[ABSENT] * (len(METRICS) + len(languages) + 2), *figures]
    first = row.cells[METRICS[0]]
    shift, p = ABSENT, ABSENT
    if first.difference is not None:
        found = first.difference
        shift = _shift(found)
        p = "<0.001" if found.p < 0.001 else f"{found.p:.3f}"
    spoken = [_language_value(row.by_language[code]["R@1"]) for code in languages]
    return [
        row.setting.title,
        _value(first),
        shift,
        p,
        *(_value(row.cells[name]) for name in METRICS[1:]),
        *spoken,
        *figures,
    ]


def _gap_sentence(metric: str, gap: GapClosed, method: str, baseline: str, upper: str) -> str:
    if gap.share is None:
        return (
            f"In {metric} {upper!r} is not measurably ahead of {baseline!r} ({_shift(gap.gap)}), so there is no "
            f"gap to take a share of; {method!r}: {_shift(gap.gain)}."
        )
    return (
        f"In {metric} {method!r} closes {100 * gap.share:.0f} % of the gap between {baseline!r} and {upper!r} "
        f"({_shift(gap.gain)} of {_shift(gap.gap)})."
    )


def _shift(found: PairedDifference) -> str:
    return f"{found.difference:+.2f} [{found.low:+.2f}, {found.high:+.2f}]"


def _languages(comparison: Comparison) -> tuple[str, ...]:
    """The languages with a column of their own."""
    return comparison.config.languages if comparison.config.each_language else ()


def _language_value(cell: Cell) -> str:
    if (found := cell.difference) is None:
        return _value(cell)
    return f"{_value(cell)} ({found.difference:+.2f}{'*' * (found.low > 0 or found.high < 0)})"


def _value(cell: Cell) -> str:
    return f"{cell.mean:.2f}" if cell.spread is None else f"{cell.mean:.2f} ± {cell.spread:.2f}"


def _markdown_table(names: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    lines = [f"| {' | '.join(names)} |", "| --- |" + " ---: |" * (len(names) - 1)]
    return lines + [f"| {' | '.join(cell.replace('|', '/') for cell in row)} |" for row in rows]
