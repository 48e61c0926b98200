"""Headings that state the finding, taken from the numbers by rule; a poor finding is called poor."""

from __future__ import annotations

from tipr.report.content import LANGUAGE_NAMES, PeopleMap, ReportData, ScoreRow, WordPatches
from tipr.report.run_charts import number

TRAINING = "train"
"""The split whose people a model has seen."""
NUMBER_WORDS = (
    "zero",
    "one",
    "two",
    "three",
    "four",
    "five",
    "six",
    "seven",
    "eight",
    "nine",
    "ten",
    "eleven",
    "twelve",
)


def number_word(number: int) -> str:
    """Small numbers in words, larger ones in figures."""
    return NUMBER_WORDS[number] if 0 <= number < len(NUMBER_WORDS) else f"{number:,}"


def headline(data: ReportData) -> str:
    """The first thing the report says, about R@1 of the mean row."""
    share = data.mean.recall[1]
    only = "" if share >= 50 else "only "
    return f"Described in one sentence, the right person comes first in {only}{share:.1f} % of searches"


def honest_words(data: ReportData) -> tuple[str, str]:
    """(what the numbers show, what they do not show)."""
    if data.split == TRAINING:
        shows = f"how well this model knows the people that it was trained on{_evenly(data)}."
        hides = "how well it finds people that it has never seen: nothing here says so."
    elif data.synthetic:
        shows = (
            f"a small model, trained on drawn people, finds other drawn people that it has never seen{_evenly(data)}."
        )
        hides = "how well it works on real cameras. A high rank means similar clothes, not an identification."
    else:
        shows = f"how often this model finds a person of this gallery from a sentence{_evenly(data)}."
        hides = "how it works on other cameras or people. A high rank means similar appearance, not an identification."
    return shows, hides


def _evenly(data: ReportData) -> str:
    rows = [row for row in data.scores if row.language is not None]
    if len(rows) < 2:
        return ""
    words = f"{number_word(len(rows))} languages"
    return f", about equally well in {words}" if language_gap(rows) <= 5 else f", but not equally well in {words}"


def language_gap(rows: list[ScoreRow]) -> float:
    """Largest difference of R@1 between two languages, in points."""
    shares = [row.recall[1] for row in rows]
    return max(shares) - min(shares)


def scores_heading(data: ReportData) -> str:
    """What the score table says about the languages."""
    rows = [row for row in data.scores if row.language is not None]
    if len(rows) < 2:
        return f"R@1 is {data.mean.recall[1]:.1f} %, mAP {data.mean.mean_ap:.1f} %"
    gap = language_gap(rows)
    count = number_word(len(rows))
    if gap <= 10:
        points = max(1, _up(gap))
        return f"The {count} languages are within {number_word(points)} point{'s' * (points > 1)} of each other"
    weakest = min(rows, key=lambda row: row.recall[1])
    name = LANGUAGE_NAMES.get(weakest.language or "", weakest.language)
    return f"The {count} languages differ by {gap:.0f} points: {name} is the weakest"


def found_heading(data: ReportData) -> str:
    """What share is found within the first ten."""
    share = data.mean.recall.get(10, 0.0)
    if share >= 99.5:
        return "Nearly everyone is found within the first ten"
    tenths = int(share // 10)
    if tenths >= 5:
        more = "More than " if share - 10 * tenths >= 1 else ""
        words = f"{number_word(tenths)} in ten are found within the first ten"
        return more + words if more else words.capitalize()
    return f"Only {share:.0f} % are found within the first ten"


def searches_heading(data: ReportData) -> str:
    """How many searches are shown."""
    languages = {query.language for query in data.queries}
    words = number_word(len(data.queries)).capitalize() + (" searches" if len(data.queries) != 1 else " search")
    if len(languages) > 1 and len(data.queries) % len(languages) == 0:
        return f"{words}, {number_word(len(data.queries) // len(languages))} per language"
    return words


def training_heading(data: ReportData) -> str:
    """Whether the loss fell."""
    loss = next((series for series in data.training if series.name.startswith("loss")), None)
    if loss is None:
        return "What the training wrote down"
    first, last, steps = loss.y[0], loss.y[-1], f"{loss.x[-1]:,.0f} steps"
    if last < first:
        return f"The loss fell from {number(first)} to {number(last)} in {steps}"
    return f"The loss did not fall: {number(first)} at the start, {number(last)} after {steps}"


def words_heading(words: WordPatches) -> str:
    """What the pictures of the words show."""
    return "Where the words look in a picture" if words.attention else "Which parts of a picture the words go with"


def map_heading(people: PeopleMap) -> str:
    """How well the people can be told apart on the map."""
    only = "" if people.nearest_here >= 50 else "only "
    return f"On a flat map, {only}{people.nearest_here:.0f} % of the captions lie nearest to their own person"


def _up(value: float) -> int:
    return int(value) if value == int(value) else int(value) + 1
