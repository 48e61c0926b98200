"""Stage 1: every caption into every language by a language model (Bi-IRRA, section 3.2: "translate")."""

from __future__ import annotations

from collections.abc import Callable, Container
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from tipr.data.datasets.manifest_dataset import manifest_path
from tipr.data.manifest import read_manifest
from tipr.data.samples import LANGUAGES
from tipr.errors import DatasetError
from tipr.translation.backends import Answer, Prompt, TextBackend, answer_all
from tipr.translation.cost import Estimate, estimate
from tipr.translation.endpoint import Endpoint
from tipr.translation.multilingual import check_output
from tipr.translation.prompts import PromptTemplate, clean_answer, load_prompt
from tipr.translation.records import TRANSLATIONS, Item, Journal, Row, check_targets, file_sha256, items_of, read_rows

Progress = Callable[[int, int], None]
"""Called with (captions done, captions in all)."""


@dataclass(frozen=True, slots=True)
class TranslateSettings:
    """What is translated, and how.

    Attributes:
        manifest: the manifest file, or the folder that holds it.
        out: output folder; `translations.jsonl` comes there.
        languages: languages to make.
        source_language: language of the captions to translate.
        prompts: folder with an own `translate.txt`; None: the instruction of this package.
        leave_unanswered: a caption that the model gave no answer for gets a row with its error and no draft, which the
            filter counts as empty; otherwise it gets none, and is asked again by the next run.
    """

    manifest: Path
    out: Path
    languages: tuple[str, ...]
    source_language: str = "en"
    prompts: Path | None = None
    leave_unanswered: bool = False


@dataclass(slots=True)
class Translated:
    """What a run of the stage did.

    Attributes:
        rows: in the file now.
        made: by this run.
        unanswered: captions without an answer that have no row; the stage is complete when there are none.
        last_error: why the last of these has none.
        attempts: requests made.
        tokens: (in, out) counted by the model; zeros where it does not count.
    """

    rows: int = 0
    made: int = 0
    unanswered: int = 0
    last_error: str | None = None
    attempts: int = 0
    tokens: tuple[int, int] = (0, 0)


@dataclass(frozen=True, slots=True)
class Plan:
    """The stage with its manifest and its instruction read.

    Attributes:
        settings: what was asked for.
        items: all captions to make.
        template: the instruction.
        manifest_sha256: of the manifest's bytes.
    """

    settings: TranslateSettings
    items: tuple[Item, ...]
    template: PromptTemplate
    manifest_sha256: str

    @property
    def path(self) -> Path:
        """The stage's file."""
        return self.settings.out / TRANSLATIONS

    def bound(self, backend: TextBackend) -> Row:
        """What the stage's file is bound to: other settings would give other rows."""
        return {
            "stage": "translate",
            "manifest_sha256": self.manifest_sha256,
            "source_language": self.settings.source_language,
            "languages": sorted(self.settings.languages, key=LANGUAGES.index),
            "prompt_sha256": self.template.sha256,
            "backend": backend.describe(),
        }

    def left(self, keys: Container[str]) -> tuple[Item, ...]:
        """The items without a row."""
        return tuple(item for item in self.items if item.key not in keys)

    def prompt(self, item: Item) -> Prompt:
        """What is asked for one item."""
        return Prompt(self.template.fill(item))


def make_plan(settings: TranslateSettings) -> Plan:
    """Read the manifest and the instruction; nothing is written or sent.

    Raises:
        ConfigError: languages, output folder or instruction cannot be used.
        DatasetError: the manifest cannot be used.
    """
    check_targets(settings.source_language, settings.languages)
    path = manifest_path(settings.manifest)
    languages = sorted(settings.languages, key=LANGUAGES.index)
    records = read_manifest(path)
    check_output(path, settings.out, records)
    items = items_of(records, source_language=settings.source_language, languages=languages, source=str(path))
    return Plan(settings, items, load_prompt("translate", settings.prompts), file_sha256(path))


def estimate_translate(plan: Plan, backend: TextBackend, *, prices: tuple[float, float] | None = None) -> Estimate:
    """What the rest of the stage will cost; nothing is written or sent.

    Args:
        plan: the stage.
        backend: the model; an endpoint's known answers cost nothing.
        prices: of a million tokens (in, out); None: not known.
    """
    keys = {row["key"] for row in read_rows(plan.path)} if plan.path.is_file() else set()
    left = plan.left(keys)
    prompts = [plan.prompt(item) for item in left]
    item_of = dict(zip(prompts, left, strict=True))
    asked = backend.unknown(prompts) if isinstance(backend, Endpoint) else prompts
    return estimate(len(left), [(prompt.text, item_of[prompt]) for prompt in asked], prices=prices)


def run_translate(plan: Plan, backend: TextBackend, *, progress: Progress | None = None) -> Translated:
    """Make the rows that `translations.jsonl` does not have yet; a stage stopped at any moment goes on.

    Args:
        plan: the stage.
        backend: the model that translates.
        progress: called after each caption, with those of this run.

    Raises:
        ConfigError: other settings made the rows that are there.
        DatasetError: the file cannot be used.
        EndpointError: the endpoint does not answer; what it answered before is kept.
    """
    done = Translated()
    with Journal(plan.path, plan.bound(backend)) as journal:
        strange = journal.keys() - {item.key for item in plan.items}
        if strange:
            raise DatasetError(f"{plan.path} has {len(strange)} rows that the manifest has not, such as {min(strange)}")
        left = plan.left(journal.keys())
        described = backend.describe()
        seen = 0

        def take(place: int, answer: Answer) -> None:
            nonlocal seen
            done.attempts += answer.attempts
            if answer.text is None:
                done.last_error = answer.error
            if answer.text is None and not plan.settings.leave_unanswered:
                done.unanswered += 1
            else:
                journal.append(_row(left[place], answer, described, plan.template))
                done.made += 1
            if answer.attempts and answer.tokens is not None:  # those of a known answer were paid before
                done.tokens = (done.tokens[0] + answer.tokens[0], done.tokens[1] + answer.tokens[1])
            seen += 1
            if progress is not None:
                progress(seen, len(left))

        if left:
            answer_all(backend, [plan.prompt(item) for item in left], take)
        if not done.unanswered and not journal.complete:
            journal.finish()
        done.rows = len(journal)
    return done


def _row(item: Item, answer: Answer, described: Row, template: PromptTemplate) -> Row:
    provenance: Row = {
        "backend": described["name"],
        **{name: value for name, value in described.items() if name != "name"},
        "prompt_sha256": template.sha256,
        "attempts": answer.attempts,
        "seconds": round(answer.seconds, 3),
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    if answer.finish_reason is not None:
        provenance["finish_reason"] = answer.finish_reason
    if answer.tokens is not None:
        provenance["tokens"] = list(answer.tokens)
    draft = None if answer.text is None else clean_answer(answer.text, source=item.source)
    return {**item.to_row(), "draft": draft, "error": answer.error, "provenance": provenance}
