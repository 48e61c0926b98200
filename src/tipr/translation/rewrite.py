"""Stage 4: noisy translations are made anew with the picture in view (Bi-IRRA, section 3.2: "rewrite").

Only captions that the filter set aside are asked about. The paper takes every answer as it comes; here an answer is
scored like its draft, and is taken only if it is better.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tipr.data.images import ImageProblem, read_image
from tipr.translation.backends import Answer, Prompt, TextBackend, answer_all
from tipr.translation.estimators import Estimator
from tipr.translation.filtering import read_filtered
from tipr.translation.prompts import PromptTemplate, clean_answer, load_prompt
from tipr.translation.records import FILTERED, REWRITTEN, Item, Journal, Row, file_sha256
from tipr.translation.rules import broken_rule

CHUNK = 16
"""Noisy captions between two writes: what a kill can cost."""
CUT_OFF = "cut_off"
NOT_BETTER = "not_better"
NO_ANSWER = "no_answer"
NO_IMAGE = "no_image"
REASONS = (NO_IMAGE, NO_ANSWER, CUT_OFF, "empty", "wrong_script", "untranslated", NOT_BETTER)
"""Why a rewrite is refused: the image cannot be read, the model gave no answer or did not come to its end, the answer
breaks one of `RULES`, or its noise is not below that of the draft."""
Progress = Callable[[int, int], None]
"""Called with (noisy captions done, noisy captions in all)."""


@dataclass(frozen=True, slots=True)
class RewriteSettings:
    """What is rewritten.

    Attributes:
        out: output folder with `filtered.jsonl`; `rewritten.jsonl` comes there.
        images: folder that the image paths of the rows start from: the manifest's.
        prompts: folder with an own `rewrite.txt`; None: the instruction of this package.
    """

    out: Path
    images: Path
    prompts: Path | None = None


@dataclass(slots=True)
class Rewritten:
    """What is in `rewritten.jsonl`, for one language.

    Attributes:
        language: of the translations.
        captions: all of them, clean ones too.
        noisy: those that were asked about.
        kept: rewrites that took the place of their draft.
        refused: reason of `REASONS` -> rewrites refused for it.
        still_noisy: captions whose final text, draft or rewrite, is noisier than the threshold.
        without_text: captions that have no usable text: the draft breaks a rule and the rewrite was refused.
    """

    language: str
    captions: int = 0
    noisy: int = 0
    kept: int = 0
    refused: dict[str, int] = field(default_factory=dict)
    still_noisy: int = 0
    without_text: int = 0


def run_rewrite(
    settings: RewriteSettings, backend: TextBackend, estimator: Estimator, *, progress: Progress | None = None
) -> tuple[Rewritten, ...]:
    """Make `rewritten.jsonl`: every row of `filtered.jsonl` with its final text; a stopped run goes on.

    Args:
        settings: what is rewritten.
        backend: a model that takes pictures, such as a `VisionLanguageModel` with an adapter.
        estimator: scores the rewrites. When it is not the one that the filter used, drafts are scored by it as well,
            so that like is compared with like.
        progress: called after each chunk.

    Returns:
        One summary for each language, in the order of the file.

    Raises:
        ConfigError: other settings made the rows that are there, or the estimator cannot score new texts.
        DatasetError: `filtered.jsonl` is not there or not complete.
    """
    rows = read_filtered(settings.out)
    template = load_prompt("rewrite", settings.prompts)
    bound = {
        "stage": "rewrite",
        "filtered_sha256": file_sha256(settings.out / FILTERED),
        "prompt_sha256": template.sha256,
        "backend": backend.describe(),
        "estimator": estimator.describe(),
    }
    with Journal(settings.out / REWRITTEN, bound) as journal:
        if not journal.complete:
            work = _Rewriting(settings, template, backend, estimator)
            work.fill(journal, rows, progress or (lambda done, total: None))
            journal.finish()
        return summarise(journal.read())


def summarise(rows: Iterable[Row]) -> tuple[Rewritten, ...]:
    """Count the rows of `rewritten.jsonl` by language."""
    found: dict[str, Rewritten] = {}
    for row in rows:
        counts = found.setdefault(row["language"], Rewritten(row["language"]))
        counts.captions += 1
        if not row["noisy"]:
            continue
        counts.noisy += 1
        counts.kept += row["kept"]
        if not row["kept"]:
            counts.refused[row["refused"]] = counts.refused.get(row["refused"], 0) + 1
        counts.still_noisy += row["text"] is not None and not (row["kept"] and row["rewrite_noise"] <= row["threshold"])
        counts.without_text += row["text"] is None
    for counts in found.values():
        counts.refused = {reason: counts.refused[reason] for reason in REASONS if reason in counts.refused}
    return tuple(found.values())


@dataclass(frozen=True, slots=True)
class _Rewriting:
    """The stage with its parts at hand."""

    settings: RewriteSettings
    template: PromptTemplate
    backend: TextBackend
    estimator: Estimator

    def fill(self, journal: Journal, rows: Sequence[Row], progress: Progress) -> None:
        """Append the rows that the journal does not have: first those that stay as they are."""
        done = journal.keys()
        for row in rows:
            if not row["noisy"] and row["key"] not in done:
                journal.append({**row, **_outcome(), "text": row["draft"]})
        noisy = [row for row in rows if row["noisy"]]
        left = [row for row in noisy if row["key"] not in done]
        described = self.backend.describe()
        for first in range(0, len(left), CHUNK):
            progress(len(noisy) - len(left) + first, len(noisy))
            some = left[first : first + CHUNK]
            answers = self._ask(some)
            for row, answer in zip(self._judge(some, answers), answers, strict=True):
                if answer is not None:
                    row["rewriter"] = _provenance(answer, described, self.template)
                journal.append(row)
        progress(len(noisy), len(noisy))

    def _ask(self, rows: Sequence[Row]) -> list[Answer | None]:
        """The model's answers; None where the image cannot be read."""
        prompts: list[Prompt] = []
        places: list[int] = []
        for place, row in enumerate(rows):
            path = self.settings.images / row["image"]
            try:
                read_image(path)
            except ImageProblem:
                continue
            prompts.append(Prompt(self.template.fill(Item.of(row)), path))
            places.append(place)
        answers: list[Answer | None] = [None] * len(rows)

        def take(place: int, answer: Answer) -> None:
            answers[places[place]] = answer

        answer_all(self.backend, prompts, take)
        return answers

    def _judge(self, rows: Sequence[Row], answers: Sequence[Answer | None]) -> list[Row]:
        """The rows with their outcome; nothing is scored that a rule refuses."""
        judged = []
        for row, answer in zip(rows, answers, strict=True):
            text, refused = _readable(row, answer)
            judged.append({**row, **_outcome(), "rewrite": text, "refused": refused, "draft_noise": row["noise"]})
        groups: dict[tuple[str, str], list[Row]] = defaultdict(list)
        for row in judged:
            if row["refused"] is None:
                groups[row["source_language"], row["language"]].append(row)
        for languages, members in groups.items():
            self._compare(members, languages)
        for row in judged:
            row["text"] = row["rewrite"] if row["kept"] else row["draft"] if row["rule"] is None else None
        return judged

    def _compare(self, rows: Sequence[Row], languages: tuple[str, str]) -> None:
        """Score rewrites, and drafts that were scored by another estimator; fill in what is kept."""
        rewrites = [(row["source"], row["rewrite"]) for row in rows]
        for row, noise in zip(rows, self._noise(rewrites, languages), strict=True):
            row["rewrite_noise"] = noise
        own = self.estimator.describe()
        others = [row for row in rows if row["rule"] is None and row["estimator"] != own]
        drafts = [(row["source"], row["draft"]) for row in others]
        for row, noise in zip(others, self._noise(drafts, languages), strict=True):
            row["draft_noise"] = noise
        for row in rows:
            # a draft that breaks a rule is no translation at all: whatever passed the rules is better
            row["kept"] = row["draft_noise"] is None or row["rewrite_noise"] < row["draft_noise"]
            row["refused"] = None if row["kept"] else NOT_BETTER

    def _noise(self, pairs: Sequence[tuple[str, str]], languages: tuple[str, str]) -> list[float]:
        if not pairs:
            return []
        noise: list[float] = self.estimator.noise([p[0] for p in pairs], [p[1] for p in pairs], *languages).tolist()
        return noise


def _readable(row: Mapping[str, Any], answer: Answer | None) -> tuple[str | None, str | None]:
    """The text of an answer, and why it is refused before it is scored."""
    if answer is None:
        return None, NO_IMAGE
    if answer.text is None:
        return None, NO_ANSWER
    text = clean_answer(answer.text, source=row["source"])
    if answer.finish_reason == "length":
        return text, CUT_OFF
    return text, broken_rule(row["source"], text, row["language"])


def _outcome() -> Row:
    """What the stage adds to a row, as it is for a caption that was not asked about."""
    return {
        "rewrite": None,
        "rewrite_noise": None,
        "draft_noise": None,
        "kept": False,
        "refused": None,
        "rewriter": None,
        "text": None,
    }


def _provenance(answer: Answer, described: Mapping[str, Any], template: PromptTemplate) -> Row:
    return {
        "backend": described["name"],
        **{name: value for name, value in described.items() if name != "name"},
        "prompt_sha256": template.sha256,
        "attempts": answer.attempts,
        "seconds": round(answer.seconds, 3),
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "finish_reason": answer.finish_reason,
    }
