"""The report, the saved result page and the contact sheet: self-contained, escaped, worded by rule."""

from __future__ import annotations

import io
import re
from dataclasses import replace
from datetime import UTC, datetime
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tipr.evaluation import Overlap
from tipr.gallery.bands import BAND_NAMES, band, band_limits
from tipr.report import (
    BandRow,
    Curve,
    Extreme,
    Fact,
    Picture,
    ReportData,
    ScoreRow,
    SheetRow,
    ShownQuery,
    contact_sheet,
    findings,
    write_report,
    write_results_page,
)
from tipr.report.charts import found_chart, learning_chart, similarity_chart
from tipr.report.contact_sheet import latin
from tipr.report.content import Looked, Series, WordLook, WordPatches
from tipr.report.pictures import data_uri, shown_jpeg
from tipr.report.results_page import Result

LANGUAGES = ("en", "zh", "fr", "de")
TEXTS = {
    "en": "A man in a red jacket and black jeans carries a backpack.",
    "zh": "一名男子身穿红色夹克和黑色牛仔裤，背着一个双肩包。",
    "fr": "Un homme porte une veste rouge, un jean noir et un sac à dos.",
    "de": "Ein Mann trägt eine rote Jacke, schwarze Jeans und einen Rucksack.",
}
HOSTILE = (
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "'; alert(1); '",
    "</title><script>alert(1)</script>",
    "</style><script>alert(1)</script>",
    "<svg/onload=alert(1)>",
    "<iframe src=javascript:alert(1)>",
    "{{ 7 * 7 }}",
    "{% include '/etc/passwd' %}",
    "&lt;script&gt;",
    "<a href='javascript:alert(1)'>x</a>",
    "<style>*{display:none}</style>",
    "<!-- -->",
    "]]>",
    "\x1b[31mred\x1b[0m",
    "a\x00b",
    "a\nb\r\nc",
    "\u202eevil.exe",
    "\u2066x\u2069",
    "zero\u200bwidth",
    "<base href=http://example.invalid>",
    "<meta http-equiv=refresh content=0>",
    "<form action=x><input name=a>",
    "<object data=x>",
    "<embed src=x>",
    "<link rel=stylesheet href=x>",
    "`${alert(1)}`",
    "<math><mi//xlink:href='data:x,alert(1)'>",
    "<body onload=alert(1)>",
    "<details open ontoggle=alert(1)>",
    "<video><source onerror=alert(1)>",
    "<marquee onstart=alert(1)>",
    "<input autofocus onfocus=alert(1)>",
    "<select onchange=alert(1)>",
    "<textarea>",
    "<xmp><p title='</xmp><img src onerror=alert(1)>'>",
    '"onmouseover=alert(1) x="',
    "'onfocus='alert(1)' x='",
    "<ScRiPt>alert(1)</sCrIpT>",
    "%3Cscript%3Ealert(1)%3C/script%3E",
    "𝕳𝖔𝖘𝖙𝖎𝖑𝖊 <b>",
)


def jpeg(shade: int = 120) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (32, 96), (shade, 90, 140)).save(buffer, format="JPEG")
    return buffer.getvalue()


def pictures(*right: int, count: int = 10) -> tuple[Picture, ...]:
    bands = list(BAND_NAMES)
    return tuple(
        Picture(jpeg(20 * rank), rank, rank in right, bands[min(2, rank // 4)], camera=str(rank % 8))
        for rank in range(1, count + 1)
    )


def report_data(**changes: object) -> ReportData:
    def row(language: str | None, first: float) -> ScoreRow:
        return ScoreRow(language, {1: first, 5: 87.0, 10: 92.2}, 64.0, 47.0, (first - 1.7, first + 1.7), "Mean of four")

    data = ReportData(
        run="demo-7",
        made=datetime(2026, 11, 20, 18, 42, tzinfo=UTC),
        seconds=41.0,
        synthetic=True,
        facts=(Fact("Model", "demo, 2.1 M parameters"), Fact("Commit", "4f1c9e2", code=True)),
        scores=(*tuple(row(language, 62.0 + index) for index, language in enumerate(LANGUAGES)), row(None, 63.5)),
        reference=ScoreRow(None, {1: 87.5, 5: 97.9, 10: 99.5}, 89.5, 74.8),
        chance=ScoreRow(None, {1: 1.0, 5: 4.9, 10: 9.6}, 1.9, 1.3),
        gallery_size=400,
        seed=7,
        draws=2000,
        queries=tuple(
            ShownQuery(code, TEXTS[code], pictures(1, 3), (1, 3, 40, 112), 0.61, None if code == "en" else TEXTS["en"])
            for code in LANGUAGES
            for _ in range(2)
        ),
        found=tuple(Curve(code, (1.0, 5.0, 10.0, 50.0), (62.0, 87.0, 92.0, 98.0)) for code in LANGUAGES),
        learning=(Curve(None, (1.0, 2.0, 3.0), (10.0, 40.0, 60.0)),),
        chosen_epoch=(3, "validation"),
        right_scores=np.random.default_rng(0).normal(0.6, 0.1, 400),
        other_scores=np.random.default_rng(1).normal(0.2, 0.1, 4000),
        band_limits=(0.4, 0.6),
        bands=(BandRow("stands_out", 3.4, 71.0), BandRow("similar", 9.8, 12.0), BandRow("weak", 387.0, 0.05)),
        easiest=(Extreme("en", TEXTS["en"], 1.0, 1, pictures(1, 2, count=3)),),
        hardest=(Extreme("de", TEXTS["de"], 0.01, 212, (*pictures(count=3), Picture(jpeg(), 212, True, "weak", "2"))),),
        configuration="method:\n  name: irra\n",
        environment={"python": "3.11.7", "torch": "2.13.0"},
    )
    return replace(data, **changes)  # type: ignore[arg-type]


class Page(HTMLParser):
    """Collects what a page would load or run."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str]] = []
        self.words: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes.extend((name, value or "") for name, value in attrs)

    def handle_data(self, data: str) -> None:
        self.words.append(data)


def check_loads_and_runs_nothing(text: str) -> Page:
    page = Page(text)
    allowed = {
        *("html", "head", "meta", "title", "style", "body", "div", "nav", "b", "ol", "li", "a", "fieldset", "legend"),
        *(
            "label",
            "input",
            "main",
            "header",
            "p",
            "code",
            "time",
            "h1",
            "h2",
            "h3",
            "strong",
            "small",
            "wbr",
            "dl",
            "dt",
            "dd",
            "br",
        ),
        *(
            "section",
            "table",
            "caption",
            "thead",
            "tbody",
            "tr",
            "th",
            "td",
            "span",
            "i",
            "article",
            "blockquote",
            "em",
        ),
        *("img", "svg", "circle", "path", "text", "figure", "figcaption", "details", "summary", "pre", "footer"),
    }
    assert set(page.tags) <= allowed, set(page.tags) - allowed
    for name, value in page.attributes:
        assert not name.startswith("on"), (name, value)
        if name == "src":
            assert value.startswith("data:image/jpeg;base64,")
        if name == "href":
            assert value.startswith("#")
    assert "url(" not in text
    assert "default-src 'none'" in dict(page.attributes)["content"] or "default-src" in text
    return page


def test_report_is_one_self_contained_file(tmp_path: Path) -> None:
    path = write_report(report_data(), tmp_path / "report.html")
    text = path.read_text(encoding="utf-8")
    page = check_loads_and_runs_nothing(text)
    assert [file.name for file in tmp_path.iterdir()] == ["report.html"]
    assert "script" not in page.tags
    assert page.tags.count("article") == 8
    words = " ".join(" ".join(page.words).split())
    for needed in ("Reference reader", "Chance", "87.5", "mINP", "400", "Drawn at random (seed 7)", TEXTS["zh"]):
        assert needed in words
    assert 'lang="zh-Hans"' in text


def test_the_largest_report_has_at_most_20_megabytes() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (2000, 2000, 3), dtype=np.uint8)
    languages = 4
    pictures = 2 * languages * 10 + 6 * 4 + languages * (1 + 6) + 10  # searches, extremes, words, people
    assert pictures * len(data_uri(shown_jpeg(Image.fromarray(noise)))) < 19e6


def test_report_never_claims_an_identification(tmp_path: Path) -> None:
    text = write_report(report_data(), tmp_path / "report.html").read_text(encoding="utf-8")
    words = " ".join(Page(text).words).lower()
    for banned in ("match", " hit", "identified", "suspect"):
        assert banned not in words
    assert "not an identification" in words


@pytest.mark.parametrize("payload", HOSTILE)
def test_hostile_text_stays_text(payload: str, tmp_path: Path) -> None:
    queries = tuple(replace(query, text=payload, same_in_english=payload) for query in report_data().queries[:1])
    hostile = tuple(replace(picture, camera=payload) for picture in queries[0].pictures)
    look = WordLook(payload, jpeg(), (50.0, 30.0, 20.0), 0.1)
    data = report_data(
        queries=(replace(queries[0], pictures=hostile),),
        configuration=payload,
        run=payload,
        training=(Series(payload, (1.0, 2.0), (3.0, 4.0)),),
        words=WordPatches(False, True, (Looked("en", ((payload, True),), jpeg(), (look,)),)),
        trained_in={payload: payload},
        absent={"map": payload},
    )
    check_loads_and_runs_nothing(write_report(data, tmp_path / "r.html").read_text(encoding="utf-8"))
    results = [Result(1, jpeg(), "similar", payload, payload, payload)]
    saved = write_results_page(
        payload, results, tmp_path / "s.html", gallery_name=payload, gallery_size=4, filters=[payload], notes=[payload]
    )
    text = saved.read_text(encoding="utf-8")
    check_loads_and_runs_nothing(text)
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f\u202a-\u202e\u2066-\u2069]", text)


def test_headings_follow_the_numbers() -> None:
    good = report_data()
    assert findings.headline(good) == "Described in one sentence, the right person comes first in 63.5 % of searches"
    assert findings.scores_heading(good) == "The four languages are within three points of each other"
    assert findings.found_heading(good) == "More than nine in ten are found within the first ten"
    assert findings.searches_heading(good) == "Eight searches, two per language"
    even = report_data(scores=tuple(replace(row, recall={1: 63.0, 5: 80.0, 10: 90.0}) for row in good.scores))
    assert findings.scores_heading(even) == "The four languages are within one point of each other"
    poor_rows = tuple(
        replace(row, recall={1: 5.0 if row.language == "zh" else 30.0, 5: 30.0, 10: 40.0}) for row in good.scores
    )
    poor = report_data(scores=poor_rows)
    assert "only 30.0 %" in findings.headline(poor)
    assert findings.scores_heading(poor) == "The four languages differ by 25 points: 中文 is the weakest"
    assert findings.found_heading(poor) == "Only 40 % are found within the first ten"
    assert "but not equally well" in findings.honest_words(poor)[0]


def test_notes_are_shown(tmp_path: Path) -> None:
    data = report_data(notes=("The epoch was chosen on the test split.",))
    assert "chosen on the test split" in write_report(data, tmp_path / "r.html").read_text(encoding="utf-8")


def test_the_overlap_of_the_languages_is_a_square_table(tmp_path: Path) -> None:
    overlap = Overlap(10, 320, 62.5, {("en", "zh"): 71.25, ("en", "fr"): 60.0, ("zh", "fr"): 56.25})
    data = report_data(overlap=overlap)
    assert data.overlap_rows == (
        ("en", (None, 71.25, 60.0)),
        ("zh", (71.25, None, 56.25)),
        ("fr", (60.0, 56.25, None)),
    )
    text = write_report(data, tmp_path / "r.html").read_text(encoding="utf-8")
    check_loads_and_runs_nothing(text)
    assert "The same sentence in another language shares 62 % of the first 10 results" in text
    assert text.count("<td>71.2</td>") == 2
    assert "mean over 320 queries" in text
    without = write_report(report_data(), tmp_path / "s.html").read_text(encoding="utf-8")
    assert "The same sentence in another language" not in without


@pytest.mark.parametrize(
    ("attention", "adds_up", "said", "heading"),
    [
        (True, True, "Attention of a word's tokens", "Where the words look in a picture"),
        (False, True, "which add up to the whole", "Which parts of a picture the words go with"),
        (False, False, "a hint, not an account", "Which parts of a picture the words go with"),
    ],
)
def test_words_on_pictures_say_what_they_are(
    attention: bool, adds_up: bool, said: str, heading: str, tmp_path: Path
) -> None:
    look = WordLook("red", jpeg(), (70.0, 20.0, 10.0), 0.12)
    shown = Looked("en", (("a ", False), ("red", True), (" coat", False)), jpeg(), (look,))
    data = report_data(words=WordPatches(attention, adds_up, (shown,)))
    text = write_report(data, tmp_path / "r.html").read_text(encoding="utf-8")
    check_loads_and_runs_nothing(text)
    assert said in text.replace("&#39;", "'")
    assert heading in text
    assert 'a <b class="word">red</b> coat' in text
    assert 'alt="red: 70 % on the upper, 20 % on the middle, 10 % on the lower third"' in text
    assert ("+0.12" in text) != attention


def test_what_is_absent_says_why(tmp_path: Path) -> None:
    why = {panel: f"no {panel} here" for panel in ("learning", "training", "attention", "map")}
    text = write_report(report_data(learning=(), absent=why), tmp_path / "r.html").read_text(encoding="utf-8")
    check_loads_and_runs_nothing(text)
    for panel, reason in why.items():
        assert reason in text.split(f'id="{panel}"')[1][:200]


def test_headings_of_a_run_follow_the_numbers() -> None:
    fell = report_data(training=(Series("loss", (1.0, 2000.0), (5.6, 0.8)),))
    assert findings.training_heading(fell) == "The loss fell from 5.6 to 0.8 in 2,000 steps"
    rose = report_data(training=(Series("loss (itc)", (1.0, 20.0), (5.6, 5.7)),))
    assert findings.training_heading(rose) == "The loss did not fall: 5.6 at the start, 5.7 after 20 steps"
    seen = report_data(split="train")
    assert "the people that it was trained on" in findings.honest_words(seen)[0]


def test_report_without_optional_parts(tmp_path: Path) -> None:
    data = report_data(
        reference=None,
        chance=None,
        learning=(),
        right_scores=np.empty(0),
        other_scores=np.empty(0),
        easiest=(),
        hardest=(),
    )
    text = write_report(data, tmp_path / "r.html").read_text(encoding="utf-8")
    check_loads_and_runs_nothing(text)
    assert "reference reader" not in text


WORD = re.compile(r'<text class="([^"]*)" x="([-\d.]+)" y="([\d.]+)" text-anchor="(\w+)">([^<]*)</text>')


def overlapping(chart: str) -> list[tuple[str, str]]:
    """Pairs of words that cover each other, at about 6.5 pixels a letter and 11 pixels a line."""
    boxes = []
    for _, x, y, anchor, words in WORD.findall(chart):
        width = 6.5 * len(words)
        left = float(x) - {"start": 0.0, "middle": width / 2, "end": width}[anchor]
        boxes.append((words, left, left + width, float(y) - 11, float(y)))
    return [
        (one[0], two[0])
        for place, one in enumerate(boxes)
        for two in boxes[:place]
        if one[1] < two[2] and two[1] < one[2] and one[3] < two[4] and two[3] < one[4]
    ]


@pytest.mark.parametrize("limits", [(0.4, 0.68), (0.3, 0.32), (0.1, 0.9), (0.5, 0.75), (0.78, 0.8), (-0.2, -0.1)])
@pytest.mark.parametrize("middle", [0.05, 0.5, 0.62])
def test_no_words_of_the_similarity_chart_cover_each_other(limits: tuple[float, float], middle: float) -> None:
    random = np.random.default_rng(0)
    right, other = random.normal(0.65, 0.05, 800), random.normal(middle, 0.15, 4000)
    chart = similarity_chart(right, other, limits=limits, title="t")
    words = [found[-1] for found in WORD.findall(chart)]
    assert {"weak", "similar", "stands out", "other people", "right person"} <= set(words)
    assert overlapping(chart) == []


def test_curves_have_a_key_that_says_which_is_which() -> None:
    found = tuple(Curve(code, (1.0, 5.0, 100.0), (80.0 + k, 97.0, 100.0)) for k, code in enumerate(LANGUAGES))
    yardstick = Curve(None, (1.0, 5.0, 10.0), (1.0, 5.0, 10.0))
    chart = found_chart(found, reference=replace(yardstick, y=(91.0, 99.0, 99.8)), chance=yardstick, title="t")
    words = [found[-1] for found in WORD.findall(chart)]
    assert [word for word in words if "8" in word] == ["English 80.0", "中文 81.0", "Français 82.0", "Deutsch 83.0"]
    assert {"reference reader", "chance"} <= set(words)
    assert overlapping(chart) == []
    for code in LANGUAGES:  # the same dash pattern in the chart and in the key
        assert chart.count(f'class="s {code} thin"') == 2
    lines = (*found, Curve(None, (1.0, 20.0), (10.0, 80.0)))
    for last in (1, 3, 20, 60, 100):
        epochs = tuple(replace(line, x=(0.5, float(last)), y=line.y[:2]) for line in lines)
        learning = learning_chart(epochs, chosen_epoch=last, title="t")
        assert f"epoch {last}: 80.0" in learning
        assert overlapping(learning) == []


def test_a_saved_search_stands_under_bands(tmp_path: Path) -> None:
    bands = ["stands_out"] * 2 + ["similar"] * 3
    results = [
        Result(rank, jpeg(), band, "a/long_name.jpg", "door", "2026-03-01 08:30") for rank, band in enumerate(bands, 1)
    ]
    text = write_results_page("words", results, tmp_path / "s.html", gallery_name="g", gallery_size=9).read_text(
        "utf-8"
    )
    assert re.findall(r"</i>([\w ]+)</span> <small>(\d+)", text) == [("Stands out", "2"), ("Similar", "3")]
    assert text.index("</h2>") < text.index("<li>")
    assert "<code>a/<wbr>long_<wbr>name.jpg</code>" in text
    assert 'alt="Rank 3, similar, door, 2026-03-01 08:30"' in text


def test_a_saved_search_that_was_reranked_keeps_its_order(tmp_path: Path) -> None:
    bands = ("similar", "stands_out", "similar", "stands_out", "weak")
    results = [Result(rank, jpeg(), band, f"{rank}.jpg", reranked=rank < 4) for rank, band in enumerate(bands, 1)]
    text = write_results_page("red", results, tmp_path / "r.html", gallery_name="g", gallery_size=9).read_text()
    check_loads_and_runs_nothing(text)
    order = [
        text.index(part) for part in ("Reranked <small>3", "1.jpg", "3.jpg", "Stands out", "4.jpg", "Weak", "5.jpg")
    ]
    assert order == sorted(order)


def test_bands_follow_the_background() -> None:
    scores = np.concatenate([np.random.default_rng(0).normal(0.2, 0.05, 500), [0.9]])
    limits = band_limits(scores)
    assert limits.similar < limits.stands_out
    assert band(0.9, limits) == "stands_out"
    assert band(0.2, limits) == "weak"
    assert band(limits.similar, limits) == "similar"
    assert band(0.5, band_limits(np.full(10, 0.5))) == "weak"
    with pytest.raises(ValueError, match="at least one"):
        band_limits(np.empty(0))


def test_contact_sheet_marks_the_right_pictures(tmp_path: Path) -> None:
    grey = Image.new("RGB", (64, 192), "#808080")
    row = SheetRow("zh 一名男子 query 3", [grey, jpeg()], ["1 right", "2"], [True, False])
    path = contact_sheet([row, row], tmp_path / "sheet.png", heading="Eight searches")
    picture = Image.open(path).convert("RGB")
    colors = {color for _, color in picture.getcolors(1 << 22) or []}
    assert (0, 0x70, 0x44) in colors
    plain = SheetRow("query", [grey], ["1"], [False])
    other = Image.open(contact_sheet([plain], tmp_path / "other.png")).convert("RGB")
    assert (0, 0x70, 0x44) not in {color for _, color in other.getcolors(1 << 22) or []}
    assert latin(row.title) == "zh query 3"
    with pytest.raises(ValueError, match="at least one row"):
        contact_sheet([], tmp_path / "none.png")
    with pytest.raises(ValueError, match="one length"):
        contact_sheet([SheetRow("x", [grey], [], [])], tmp_path / "none.png")
