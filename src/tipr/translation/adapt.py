"""Stage 3: a vision-language model learns from the clean translations, one epoch (Bi-IRRA, section 3.2: "adapt").

A lesson is a picture, the instruction with the source caption, and as answer the clean translation. The paper gives
neither rank nor rates; the defaults are those of the LoRA literature for instruction tuning.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from tipr.data.images import ImageProblem, read_image
from tipr.errors import ConfigError, DatasetError, TrainingError
from tipr.translation import adapter as adapters
from tipr.translation.adapter import Adapter, Shape
from tipr.translation.backends import Prompt
from tipr.translation.filtering import read_filtered
from tipr.translation.prompts import PromptTemplate, load_prompt
from tipr.translation.records import FILTERED, Item, Row, file_sha256, settings_sha256
from tipr.translation.vision_language import VisionLanguageModel

FOLDER = "adapter"
"""Folder of the stage in the output folder."""
PROGRESS = "progress.safetensors"
"""Where a stopped run goes on; gone once the stage is complete."""
Progress = Callable[[int, int], None]
"""Called with (captions done, captions in all)."""


@dataclass(frozen=True, slots=True)
class AdaptSettings:
    """What is learnt from, and how.

    Attributes:
        out: output folder with `filtered.jsonl`; the adapter comes to `adapter` there.
        images: folder that the image paths of the rows start from: the manifest's.
        languages: languages to learn; None: all that are there. One adapter learns them all: the instruction names one.
        prompts: folder with an own `rewrite.txt`; None: the instruction of this package.
        rank, alpha, dropout: of the adapter, see `Shape`.
        learning_rate: highest; it rises over the first `warmup` of the steps and falls to 0 in a straight line.
        warmup: share of the steps.
        batch: captions a step.
        micro_batch: captions at a time; only memory and speed depend on it.
        gradient_norm: longer gradients are cut to this.
        keep_every: steps between two states that a stopped run can go on from.
        seed: of the order, the start and the dropout.

    Raises:
        ConfigError: a value is out of range.
    """

    out: Path
    images: Path
    languages: tuple[str, ...] | None = None
    prompts: Path | None = None
    rank: int = 16
    alpha: float = 32.0
    dropout: float = 0.05
    learning_rate: float = 1e-4
    warmup: float = 0.03
    batch: int = 16
    micro_batch: int = 4
    gradient_norm: float = 1.0
    keep_every: int = 50
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("rank", "batch", "micro_batch", "keep_every"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} must be at least 1, not {getattr(self, name)}")
        for name in ("alpha", "learning_rate", "gradient_norm"):
            if not 0 < getattr(self, name) < math.inf:
                raise ConfigError(f"{name} must be above 0, not {getattr(self, name)}")
        for name in ("dropout", "warmup"):
            if not 0 <= getattr(self, name) < 1:
                raise ConfigError(f"{name} must lie in [0, 1), not {getattr(self, name)}")


@dataclass(slots=True)
class Adapted:
    """What came of the stage.

    Attributes:
        folder: the adapter's.
        losses: mean loss of an answer token, one number a step.
        captions: clean translations that were learnt from.
        unreadable: clean translations left out because their image cannot be read.
    """

    folder: Path
    losses: list[float] = field(default_factory=list)
    captions: int = 0
    unreadable: int = 0


def run_adapt(settings: AdaptSettings, model: VisionLanguageModel, *, progress: Progress | None = None) -> Adapted:
    """Teach the model the clean translations of `filtered.jsonl`; the adapter is in `model` afterwards.

    A run that was stopped goes on where its last state was kept and ends with the same adapter, bit for bit on a CPU.
    A run that is complete loads its adapter.

    Raises:
        ConfigError: another run with other settings left its state or its adapter there.
        DatasetError: there is no complete `filtered.jsonl`, no clean translation in it, or none with an image.
        MissingExtra: peft is not installed.
        TrainingError: the loss is not finite.
        WeightsError: the model cannot be taught.
    """
    rows = clean_rows(settings)
    template = load_prompt("rewrite", settings.prompts)
    folder = settings.out / FOLDER
    bound = _bound(settings, model, template)
    if (folder / adapters.FACTS).is_file():
        facts = adapters.read_facts(folder)
        _check_same(folder, facts.get("settings"), bound)
        adapters.load_adapter(model, folder)
        return Adapted(folder, facts["losses"], facts["captions"], facts["unreadable"])
    adapter = Adapter(model, Shape(settings.rank, settings.alpha, settings.dropout), seed=settings.seed)
    try:
        course = _Course(settings, adapter, template, rows, bound)
        course.resume(folder / PROGRESS)
        course.run(folder / PROGRESS, progress or (lambda done, total: None))
    finally:
        adapter.train(False)
    done = Adapted(folder, course.losses, len(rows) - course.unreadable, course.unreadable)
    facts = {"captions": done.captions, "unreadable": done.unreadable, "settings": bound, "losses": done.losses}
    adapter.save(folder, facts)
    for path in (folder / PROGRESS, _draft(folder / PROGRESS)):  # a kill may have left a draft
        path.unlink(missing_ok=True)
    return done


def clean_rows(settings: AdaptSettings) -> list[Row]:
    """The clean translations of the chosen languages, in the order of the file.

    Raises:
        DatasetError: there is none.
    """
    rows = [
        row
        for row in read_filtered(settings.out)
        if row["rule"] is None
        and not row["noisy"]
        and (settings.languages is None or row["language"] in settings.languages)
    ]
    if not rows:
        chosen = "" if settings.languages is None else f" in {', '.join(settings.languages)}"
        raise DatasetError(f"{settings.out / FILTERED}: no clean translation{chosen} to learn from")
    return rows


class _Course:
    """One epoch over the rows: everything of step n is a function of the seed, n and what was learnt before."""

    def __init__(
        self,
        settings: AdaptSettings,
        adapter: Adapter,
        template: PromptTemplate,
        rows: Sequence[Row],
        bound: dict[str, Any],
    ) -> None:
        self.settings = settings
        self.adapter = adapter
        self.template = template
        self.rows = rows
        self.bound = bound
        self.losses: list[float] = []
        self.step = 0
        self.unreadable = 0
        self._order = np.random.default_rng(settings.seed).permutation(len(rows))
        self._parameters = list(adapter.parameters())
        self._optimizer = torch.optim.AdamW(self._parameters, lr=settings.learning_rate, weight_decay=0.0)

    @property
    def steps(self) -> int:
        return math.ceil(len(self.rows) / self.settings.batch)

    def run(self, keep: Path, progress: Progress) -> None:
        settings = self.settings
        device = self.adapter.model.device
        self.adapter.train(True)
        with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
            while self.step < self.steps:
                progress(self.step * settings.batch, len(self.rows))
                self._learn()
                self.step += 1
                if self.step % settings.keep_every == 0 and self.step < self.steps:
                    self._keep(keep)
        progress(len(self.rows), len(self.rows))
        if not self.losses:
            raise DatasetError(f"no image of the clean translations can be read below {settings.images}")

    def _learn(self) -> None:
        """One step; the loss is the mean over all answer tokens of the step, however it is cut into micro-batches."""
        settings, model = self.settings, self.adapter.model
        chosen = self._order[self.step * settings.batch : (self.step + 1) * settings.batch]
        pairs = self._readable([self.rows[place] for place in chosen])
        if not pairs:
            return
        torch.manual_seed(settings.seed * 1_000_003 + self.step)
        lessons = [
            model.lesson([prompt for prompt, _ in some], [answer for _, answer in some])
            for first in range(0, len(pairs), settings.micro_batch)
            if (some := pairs[first : first + settings.micro_batch])
        ]
        tokens = sum(sum(lesson.answers) for lesson in lessons)
        total = 0.0
        for lesson in lessons:
            loss = model.answer_loss(lesson) / tokens
            loss.backward()  # type: ignore[no-untyped-call]
            total += loss.item()
        if not math.isfinite(total):
            raise TrainingError(f"the loss of step {self.step} is {total}: lower learning_rate")
        nn.utils.clip_grad_norm_(self._parameters, settings.gradient_norm)
        for group in self._optimizer.param_groups:
            group["lr"] = learning_rate(self.step, self.steps, settings)
        self._optimizer.step()
        self._optimizer.zero_grad(set_to_none=True)
        self.losses.append(total)

    def _readable(self, rows: Sequence[Row]) -> list[tuple[Prompt, str]]:
        pairs = []
        for row in rows:
            path = self.settings.images / row["image"]
            try:
                read_image(path)
            except ImageProblem:
                self.unreadable += 1
            else:
                pairs.append((Prompt(self.template.fill(Item.of(row)), path), row["draft"]))
        return pairs

    def _keep(self, path: Path) -> None:
        tensors = {f"adapter/{name}": value for name, value in self.adapter.tensors().items()}
        for place, state in self._optimizer.state_dict()["state"].items():
            for name, value in state.items():
                tensors[f"optimizer/{place}/{name}"] = torch.as_tensor(value).cpu().contiguous()
        facts = {"step": self.step, "losses": self.losses, "unreadable": self.unreadable, "settings": self.bound}
        path.parent.mkdir(parents=True, exist_ok=True)
        draft = _draft(path)
        save_file(tensors, draft, metadata={"facts": json.dumps(facts)})
        os.replace(draft, path)

    def resume(self, path: Path) -> None:
        """Take over the state that a stopped run kept, when there is one."""
        if not path.is_file():
            return
        try:
            with safe_open(path, framework="pt") as file:
                facts = json.loads(file.metadata()["facts"])
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  # not a mapping
        except (OSError, SafetensorError, KeyError, TypeError, ValueError):
            raise TrainingError(f"{path} is damaged: delete it to adapt from the start") from None
        _check_same(path.parent, facts["settings"], self.bound)
        matrices = {name.removeprefix("adapter/"): tensors[name] for name in tensors if name.startswith("adapter/")}
        self.adapter.load(matrices, source=str(path))
        state: dict[int, dict[str, Tensor]] = {}
        for name, value in tensors.items():
            if name.startswith("optimizer/"):
                _, place, key = name.split("/")
                state.setdefault(int(place), {})[key] = value
        groups = self._optimizer.state_dict()["param_groups"]
        self._optimizer.load_state_dict({"state": state, "param_groups": groups})
        self.step, self.losses, self.unreadable = facts["step"], facts["losses"], facts["unreadable"]


def learning_rate(step: int, steps: int, settings: AdaptSettings) -> float:
    """Rate of a step: up in a straight line over the first `warmup` of the steps, then down, to 0 after the last."""
    rising = math.ceil(settings.warmup * steps)
    if step < rising:
        return settings.learning_rate * (step + 1) / rising
    return settings.learning_rate * (steps - step) / (steps - rising)


def _draft(path: Path) -> Path:
    return path.with_name(f".{path.name}.partial")


def _bound(settings: AdaptSettings, model: VisionLanguageModel, template: PromptTemplate) -> dict[str, Any]:
    """What decides the adapter; micro-batches and the distance of kept states do not."""
    neutral = ("out", "images", "prompts", "micro_batch", "keep_every")
    chosen = {name: value for name, value in asdict(settings).items() if name not in neutral}
    described = model.describe()
    bound = {
        **chosen,
        "filtered_sha256": file_sha256(settings.out / FILTERED),
        "prompt_sha256": template.sha256,
        "model_sha256": described["model_sha256"],
    }
    return dict(json.loads(json.dumps(bound)))


def _check_same(folder: Path, before: Any, now: dict[str, Any]) -> None:
    if not isinstance(before, dict) or settings_sha256(before) != settings_sha256(now):
        there = before if isinstance(before, dict) else {}
        different = ", ".join(name for name in sorted({*there, *now}) if there.get(name) != now.get(name))
        raise ConfigError(
            f"{folder} was made with other settings ({different}): give those again, or another output folder, or "
            "delete the folder"
        )
