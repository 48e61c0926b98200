"""Our runs beside published figures, as text, Markdown, LaTeX or one HTML page."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from tipr.analysis.published import PublishedResult, sources
from tipr.analysis.run_scores import METRICS
from tipr.analysis.standing import LAST, NOT_TRAINED, TEST, Section, Standing, Standings
from tipr.data.datasets import DATASETS
from tipr.report.html import write_page

ABSENT = "-"
COLUMNS = ("", "chosen on", *METRICS, "source")
SELECTED_ON_TEST = "test split †"


@dataclass(frozen=True, slots=True)
class Table:
    """A heading, column names and rows of text; the first `ours` rows are ours."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    ours: int


def tables(standings: Standings) -> list[Table]:
    """One table for each data set and language, and one of the comparisons between our rows."""
    made = [_section(section) for section in standings.sections]
    if standings.tests:
        rows = tuple(
            (
                f"{test.one} - {test.other}",
                test.language,
                f"{test.difference.difference:+.2f}",
                f"[{test.difference.low:+.2f}, {test.difference.high:+.2f}]",
                "<0.001" if test.p_holm < 0.001 else f"{test.p_holm:.3f}",
            )
            for test in standings.tests
        )
        made.append(Table("Our rows against each other", ("R@1 of", "language", "difference", "95 %", "p"), rows, 0))
    return made


def remarks(standings: Standings) -> list[str]:
    """Sentences that must be read with the tables."""
    ours = [row for section in standings.sections for row in section.ours]
    theirs = [row for section in standings.sections for row in section.published]
    lines = ["Per cent, text to image, identity level. Ours: mean ± standard deviation over the seeds."]
    if any(row.selection == "test" for row in theirs) or any(row.selection == TEST for row in ours):
        lines.append("† The epoch was chosen by its score on the test split: higher than a fair choice gives.")
        if any(row.selection != TEST for row in ours):
            lines.append(
                "The rules of selection differ: a row of ours that did not look at the test split is expected below a "
                "published one that did."
                + ("" if any(row.selection == TEST for row in ours) else " --test-selected shows runs that did.")
            )
    if any(row.selection == "not stated" for row in theirs):
        lines.append("'not stated': the paper does not say how its epoch was chosen.")
    if any(row.selection == LAST for row in ours):
        lines.append("'last epoch': no selection at all.")
    if standings.tests:
        lines.append(
            "Differences between our rows: bootstrap over identities, each query's outcome averaged over the seeds; p "
            "is two-sided and corrected for the number of comparisons (Holm)."
        )
    lines += [f"{row.label}: {sentence}" for row in ours for run in row.runs for sentence in run.incomplete]
    lines += [f"{row.method} in {row.place}: {row.note}." for row in theirs if row.note]
    if any(not section.published for section in standings.sections):
        lines.append("No published figures of these methods on a set above: --all shows other methods, if there are.")
    lines += [f"Left out: {line}." for line in standings.left_out]
    return list(dict.fromkeys(lines))


def text(standings: Standings, join: Callable[[Sequence[Sequence[str]]], Sequence[str]]) -> str:
    """Plain text; `join` aligns rows into lines."""
    lines: list[str] = []
    for table in tables(standings):
        lines += [table.title, *join([table.columns, *table.rows]), ""]
    return "\n".join([*lines, *remarks(standings)])


def markdown(standings: Standings) -> str:
    """A Markdown page."""
    lines = ["# Comparison", ""]
    for table in tables(standings):
        lines += [f"## {table.title}", "", f"| {' | '.join(table.columns)} |"]
        lines += ["| --- |" + " ---: |" * (len(table.columns) - 1)]
        for place, row in enumerate(table.rows):
            cells = [cell.replace("|", "/") for cell in row]
            if place < table.ours:
                cells[0] = f"**{cells[0]}**"
            lines.append(f"| {' | '.join(cells)} |")
        lines.append("")
    return "\n".join([*lines, *(f"- {remark}" for remark in remarks(standings)), ""])


def latex(standings: Standings) -> str:
    """`tabular` environments with booktabs rules, each under a comment; remarks are comments."""
    lines = []
    for table in tables(standings):
        lines += [f"% {table.title}", f"\\begin{{tabular}}{{l{'r' * (len(table.columns) - 1)}}}", "\\toprule"]
        lines += [" & ".join(map(_escaped, table.columns)) + " \\\\", "\\midrule"]
        for place, row in enumerate(table.rows):
            if place == table.ours and place:
                lines.append("\\midrule")
            lines.append(" & ".join(map(_escaped, row)) + " \\\\")
        lines += ["\\bottomrule", "\\end{tabular}", ""]
    return "\n".join([*lines, *(f"% {remark}" for remark in remarks(standings)), ""])


def write_standings_page(standings: Standings, path: Path) -> Path:
    """One self-contained HTML file."""
    cited = {row.source for section in standings.sections for row in section.published}
    return write_page(
        "standings.html.j2",
        path,
        tables=tables(standings),
        remarks=remarks(standings),
        citations=[facts["citation"] for name, facts in sources().items() if name in cited],
    )


def _section(section: Section) -> Table:
    rows = [_our_row(row, section.language) for row in section.ours] + [_their_row(row) for row in section.published]
    name = next(name for name, reader in DATASETS.items() if reader.facts.title == section.dataset)
    title = f"{section.dataset} ({name}), captions in {section.language}"
    return Table(title, COLUMNS, tuple(rows), len(section.ours))


def _our_row(row: Standing, language: str) -> tuple[str, ...]:
    cells = row.means(language)
    count = len(row.runs)
    values = [f"{mean:.2f}" if spread is None else f"{mean:.2f} ± {spread:.2f}" for mean, spread in cells.values()]
    low, high = row.interval(language)
    values[0] += f" [{low:.2f}, {high:.2f}]"
    label = row.label if row.selection == NOT_TRAINED else f"{row.label}, {count} seed{'s' * (count > 1)}"
    ids = ", ".join(run.facts.run for run in row.runs)
    kind = "model" if row.selection == NOT_TRAINED else "run"
    return label, SELECTED_ON_TEST if row.selection == TEST else row.selection, *values, f"{kind} {ids}"


def _their_row(row: PublishedResult) -> tuple[str, ...]:
    values = [f"{row.scores[metric]:.2f}" if metric in row.scores else ABSENT for metric in METRICS]
    name = row.method.replace("(ours)", "(its authors)")  # as printed; on this page "ours" are the user's runs
    return name, SELECTED_ON_TEST if row.selection == "test" else row.selection, *values, row.place


_LATEX = {
    "\\": r"\textbackslash{}",
    "&": r"\&",
    "%": r"\%",
    "$": r"\$",
    "#": r"\#",
    "_": r"\_",
    "{": r"\{",
    "}": r"\}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "±": r"$\pm$",
    "†": r"\dag",
}


def _escaped(cell: str) -> str:
    return "".join(_LATEX.get(sign, sign) for sign in cell)
