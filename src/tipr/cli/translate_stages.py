"""What `tipr translate` runs: one function a stage, each with its own progress, each usable alone."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tipr.cli import output
from tipr.cli.progress import progress

if TYPE_CHECKING:
    from tipr.translation.adapt import AdaptSettings
    from tipr.translation.backends import TextBackend
    from tipr.translation.cost import Estimate
    from tipr.translation.estimators import Estimator
    from tipr.translation.translate import Plan
    from tipr.translation.vision_language import VisionLanguageModel

Result = dict[str, Any]
"""What a stage did, JSON-like."""


class NotSent(Exception):
    """The user did not want captions to be sent."""


@dataclass(frozen=True)
class Job:
    """The arguments and options of the command, under their names there; models are loaded when they are needed."""

    manifest: Path
    out: Path
    languages: tuple[str, ...]
    source: str
    model: str | None
    local: Path | None
    prompts: Path | None
    price: tuple[float, float] | None
    yes: bool
    concurrency: int
    attempts: int
    timeout: float
    temperature: float
    max_tokens: int
    leave_unanswered: bool
    estimator: str
    threshold: float | None
    vision_model: Path | None
    changes: tuple[str, ...]
    device: str
    threads: int | None
    quiet: bool

    @cached_property
    def images(self) -> Path:
        """The folder that image paths start from."""
        from tipr.data.datasets.manifest_dataset import manifest_path

        return manifest_path(self.manifest).parent

    @cached_property
    def plan(self) -> Plan:
        """The first stage, read but not begun."""
        from tipr.translation.translate import TranslateSettings, make_plan

        return make_plan(
            TranslateSettings(self.manifest, self.out, self.languages, self.source, self.prompts, self.leave_unanswered)
        )

    @cached_property
    def backend(self) -> TextBackend:
        """The model that was named to translate: a local folder before the environment's endpoint.

        Raises:
            ConfigError: there is none.
        """
        if self.local is not None:
            self.set_threads()
            from tipr.translation.local_model import LocalModel

            return LocalModel.load(self.local, device=self.device, max_new_tokens=self.max_tokens)
        from tipr.errors import ConfigError
        from tipr.translation.answers import ANSWERS, AnswerCache
        from tipr.translation.endpoint import KEY_VARIABLE, URL_VARIABLE, Endpoint, EndpointSettings

        url = os.environ.get(URL_VARIABLE)
        if not url:
            raise ConfigError(
                f"no model to translate with: name an endpoint in {URL_VARIABLE} (https://host/v1), or give "
                "--local FOLDER"
            )
        if self.model is None:
            raise click.UsageError("--model NAME: say which model of the endpoint")
        settings = EndpointSettings(
            url,
            self.model,
            os.environ.get(KEY_VARIABLE) or None,
            concurrency=self.concurrency,
            attempts=self.attempts,
            timeout=self.timeout,
            temperature=self.temperature,
            max_tokens=self.max_tokens,
            leave_unanswered=self.leave_unanswered,
        )
        return Endpoint(settings, AnswerCache(self.out / ANSWERS))

    @cached_property
    def cost(self) -> Estimate:
        """What is left of the first stage."""
        from tipr.translation.translate import estimate_translate

        return estimate_translate(self.plan, self.backend, prices=self.price)

    @cached_property
    def noise(self) -> Estimator:
        """The estimator that was named."""
        from tipr.translation.estimators import load_estimator
        from tipr.translation.records import TRANSLATIONS, read_rows

        self.set_threads()
        return load_estimator(self.estimator, read_rows(self.out / TRANSLATIONS) if self.brings_values else ())

    @property
    def brings_values(self) -> bool:
        """The noise comes from a file that belongs to the translations: it can be read only after them."""
        return self.estimator.startswith("column")

    @cached_property
    def vision(self) -> VisionLanguageModel:
        """The vision-language model, as it was published."""
        from tipr.translation.vision_language import VisionLanguageModel

        assert self.vision_model is not None, "looked at before a stage runs"
        self.set_threads()
        return VisionLanguageModel.load(self.vision_model, device=self.device)

    @cached_property
    def adapt_settings(self) -> AdaptSettings:
        """The third stage as it was asked for."""
        from tipr.translation.adapt import AdaptSettings

        changes = _adapt_changes(self.changes)
        return AdaptSettings(self.out, self.images, self.languages or None, self.prompts, **changes)

    def check(self, stages: tuple[str, ...]) -> None:
        """See that what later stages need is there, before captions are sent and paid for."""
        if "filter" in stages and not self.brings_values:
            _ = self.noise
        if "adapt" in stages:
            _ = self.adapt_settings
        if self.vision_model is not None:
            from tipr.translation.model_folder import open_model_folder

            open_model_folder(self.vision_model)

    def set_threads(self) -> None:
        """Hold torch to `threads`."""
        if self.threads is not None:
            import torch

            torch.set_num_threads(self.threads)


def translate_stage(job: Job) -> Result:
    """Stage 1.

    Raises:
        NotSent: the user said no.
    """
    from tipr.translation.translate import run_translate

    plan, cost = job.plan, job.cost
    if cost.requests:
        output.note(str(cost), quiet=job.quiet)
        if not _may_send(job):
            raise NotSent
    with progress("translating", quiet=job.quiet, unit="captions") as report:
        done = run_translate(plan, job.backend, progress=report)
    return {"path": str(plan.path), "items": len(plan.items), **asdict(done)}


def filter_stage(job: Job) -> Result:
    """Stage 2, and its page."""
    from tipr.report.translation_page import write_translation_page
    from tipr.translation.filtering import run_filter

    with progress("filtering", quiet=job.quiet, unit="captions") as report:
        groups = run_filter(job.out, job.noise, threshold=job.threshold, progress=report)
    page = write_translation_page(job.out)
    return {"page": str(page), "groups": [asdict(group) for group in groups]}


def adapt_stage(job: Job) -> Result:
    """Stage 3; the adapter is in `job.vision` afterwards."""
    from tipr.translation.adapt import run_adapt

    settings = job.adapt_settings
    with progress("adapting", quiet=job.quiet, unit="captions") as report:
        done = run_adapt(settings, job.vision, progress=report)
    return {
        "folder": str(done.folder),
        "captions": done.captions,
        "unreadable": done.unreadable,
        "steps": len(done.losses),
        "first_loss": done.losses[0],
        "last_loss": done.losses[-1],
    }


def rewrite_stage(job: Job) -> Result:
    """Stage 4, and its page; without an adapter in the output folder the model is taken as it was published."""
    from tipr.report.rewrite_page import write_rewrite_page
    from tipr.translation import adapt as adapting
    from tipr.translation.adapter import FACTS, load_adapter
    from tipr.translation.rewrite import RewriteSettings, run_rewrite

    folder = job.out / adapting.FOLDER
    if job.vision.adapter is None and (folder / FACTS).is_file():
        load_adapter(job.vision, folder)
    settings = RewriteSettings(job.out, job.images, job.prompts)
    with progress("rewriting", quiet=job.quiet, unit="captions") as report:
        done = run_rewrite(settings, job.vision, job.noise, progress=report)
    page = write_rewrite_page(job.out, job.images)
    return {"page": str(page), "adapted": job.vision.adapter is not None, "languages": [asdict(one) for one in done]}


def manifest_stage(job: Job) -> Result:
    """The manifest of all languages, from the last stage that made texts."""
    from tipr.translation.multilingual import write_multilingual

    made = asdict(write_multilingual(job.manifest, job.out))
    return {**made, "path": str(made["path"])}


RUNNERS: dict[str, Callable[[Job], Result]] = {
    "translate": translate_stage,
    "filter": filter_stage,
    "adapt": adapt_stage,
    "rewrite": rewrite_stage,
    "manifest": manifest_stage,
}
"""Name of a stage -> what runs it, in their order."""


def _may_send(job: Job) -> bool:
    """Ask before captions leave this machine."""
    from tipr.errors import ConfigError
    from tipr.translation.endpoint import Endpoint

    if job.yes or not isinstance(job.backend, Endpoint):
        return True
    host = job.backend.settings.host
    if not sys.stdin.isatty():
        raise ConfigError(
            f"{job.cost.requests:,} captions would be sent to {host} ({job.cost}): add --yes to send them"
        )
    return click.confirm(f"send {job.cost.requests:,} captions to {output.safe(host)}?", err=True)


def _adapt_changes(changes: tuple[str, ...]) -> dict[str, Any]:
    """`KEY=VALUE` as settings of the third stage."""
    from tipr.translation.adapt import AdaptSettings

    defaults = {field.name: field.default for field in fields(AdaptSettings) if isinstance(field.default, int | float)}
    chosen: dict[str, Any] = {}
    for change in changes:
        key, equals, text = change.partition("=")
        if not equals or key not in defaults:
            raise click.UsageError(f"--adapt {change!r}: give KEY=VALUE; keys: {', '.join(defaults)}")
        kind = type(defaults[key])
        try:
            chosen[key] = kind(text)
        except ValueError:
            words = "a whole number" if kind is int else "a number"
            raise click.UsageError(f"--adapt {change!r}: {key} is {words}") from None
    return chosen
