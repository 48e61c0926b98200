"""The report: one file, no request, no script, everything escaped."""

from __future__ import annotations

import os
import re
import unicodedata
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from tipr.gallery.bands import BAND_NAMES
from tipr.report import charts, findings, run_charts
from tipr.report.content import HTML_LANGUAGE, LANGUAGE_NAMES, Curve, ReportData, ScoreRow
from tipr.report.pictures import data_uri

POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"
BAND_MEANINGS = {
    "stands_out": "clearly closer to the words than the rest of the gallery",
    "similar": "several people may look like this",
    "weak": "hardly closer than the rest of the gallery",
}
_INVISIBLE = re.compile("[\u200b-\u200f\u202a-\u202e\u2060-\u2069\ufeff]")


def write_report(data: ReportData, path: Path) -> Path:
    """Write the report as one self-contained HTML file; the file appears whole or not at all.

    Raises:
        OSError: the file cannot be written.
    """
    return write_page("report.html.j2", path, data=data, findings=findings, charts=_charts(data))


def write_page(template: str, path: Path, **values: Any) -> Path:
    """Render a template of this package to `path` through a temporary file beside it."""
    text = environment().get_template(template).render(policy=POLICY, **values)
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.partial")
    try:
        partial.write_text(text, encoding="utf-8")
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)
    return path


def environment() -> Environment:
    """The template environment: autoescape on, an undefined name is an error."""
    jinja = Environment(
        loader=PackageLoader("tipr.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    jinja.filters["plain"] = plain
    jinja.filters["data_uri"] = data_uri
    jinja.filters["band_name"] = BAND_NAMES.__getitem__
    jinja.filters["band_class"] = {"stands_out": "b3", "similar": "b2", "weak": "b1"}.__getitem__
    jinja.filters["band_meaning"] = BAND_MEANINGS.__getitem__
    jinja.filters["breakable"] = breakable
    jinja.filters["language_name"] = lambda code: LANGUAGE_NAMES.get(code, code)
    jinja.filters["html_language"] = lambda code: HTML_LANGUAGE.get(code, code)
    jinja.filters["score"] = _score
    jinja.filters["duration"] = _duration
    return jinja


def plain(text: str) -> str:
    """Text without control characters, bidirectional overrides and other invisible marks."""
    text = _INVISIBLE.sub("", text)
    return "".join(sign if sign == " " or unicodedata.category(sign)[0] != "C" else " " for sign in text)


def breakable(path: str) -> Markup:
    """A path as markup that may break behind a slash or an underscore before it breaks inside a word."""
    return Markup("").join(
        Markup("{}<wbr>").format(part) if part[-1:] in "/\\_" else Markup("{}").format(part)
        for part in re.split(r"(?<=[/\\_])", path)
        if part
    )


def _score(value: float) -> str:
    return f"{value:.2f}" if 0 < value < 1 else f"{value:.1f}"


def _duration(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} min"


def _charts(data: ReportData) -> dict[str, Any]:
    mean = data.mean
    tail = f"; reference reader {data.reference.recall[1]:.1f} % at rank 1" if data.reference else ""
    drawn: dict[str, Any] = {
        "found": charts.found_chart(
            data.found,
            reference=_yardstick(data.reference),
            chance=_yardstick(data.chance),
            title=f"Share of queries whose right person is within the first k results: "
            f"{mean.recall[1]:.1f} % at rank 1, {mean.recall[10]:.1f} % within ten{tail}",
        )
    }
    if data.learning:
        epoch = data.chosen_epoch[0] if data.chosen_epoch else None
        best = max((y for curve in data.learning if curve.language is None for y in curve.y), default=0.0)
        drawn["learning"] = charts.learning_chart(
            data.learning, chosen_epoch=epoch, title=f"R@1 on {data.scored_on} per epoch; highest {best:.1f} %"
        )
    if data.right_scores.size and data.other_scores.size:
        drawn["similarity"] = charts.similarity_chart(
            data.right_scores,
            data.other_scores,
            limits=data.band_limits,
            title="Similarity of pictures of the right person and of other people; "
            f"medians {float(_median(data.right_scores)):.2f} and {float(_median(data.other_scores)):.2f}",
        )
    if data.training:
        drawn["training"] = [(series.name, run_charts.series_chart(series)) for series in data.training]
    if data.people is not None:
        drawn["map"] = run_charts.map_chart(data.people)
        drawn["keys"] = {language: run_charts.key_mark(language) for language in data.languages}
    return drawn


def _median(values: Any) -> Any:
    import numpy as np

    return np.median(values)


def _yardstick(row: ScoreRow | None) -> Curve | None:
    if row is None:
        return None
    ks = sorted(row.recall)
    return Curve(None, tuple(float(k) for k in ks), tuple(row.recall[k] for k in ks))
