"""The model card: what a model was made from and how well it did, as facts inside the model and as `card.md`."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from tipr.data.batch import BilingualBatch
from tipr.data.datasets import DATASETS
from tipr.data.samples import LANGUAGES, Pairs, Split
from tipr.methods import METHODS
from tipr.retrieval.model_folder import model_folder, read_description
from tipr.training.checkpoint import reported
from tipr.training.run_config import RunConfig
from tipr.training.validation import Scores

CARD = "card.md"
COLUMNS = ("R@1", "R@5", "R@10", "mAP", "mINP")


def data_facts(config: RunConfig, train: Split | Pairs, scored: Split | None = None) -> dict[str, Any]:
    """What identifies the training data, and what is missing in it and in the split that was scored: JSON values.

    The fingerprint is the SHA-256 of the manifest where there is one, and always that of the training records
    themselves (image path below the root, caption, identity, language; a line each). Of bare pairs there is no identity
    in the line, and no number of people.
    """
    root = config.data.root
    folder = root if root.is_dir() else root.parent
    digest = hashlib.sha256()
    languages = set()
    for path, *words in _records(train):
        name = path.relative_to(folder).as_posix() if path.is_relative_to(folder) else path.name
        digest.update(("\t".join([name, *words]) + "\n").encode())
        languages.add(words[-1])
    facts: dict[str, Any] = {
        "dataset": config.data.dataset,
        "licence": DATASETS[config.data.dataset].facts.licence,
        "research_only": DATASETS[config.data.dataset].facts.research_only,
        **({"people": train.identity_count} if isinstance(train, Split) else {}),
        "images": len(train.images),
        "captions": len(train),
        "languages": [code for code in LANGUAGES if code in languages],
        **({"missing_images": train.missing_images} if train.missing_images else {}),
        "sha256_training_records": digest.hexdigest(),
    }
    if scored is not None and scored.incomplete:
        facts["incomplete_selection"] = scored.incomplete
    manifest = folder / "manifest.jsonl" if root.is_dir() else root
    if manifest.is_file():
        facts["sha256_manifest"] = hashlib.sha256(manifest.read_bytes()).hexdigest()
    try:
        benchmark = json.loads((folder / "benchmark.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return facts
    if isinstance(benchmark, dict):
        facts |= {f"benchmark_{key}": benchmark[key] for key in ("preset", "seed") if key in benchmark}
    return facts


def _records(train: Split | Pairs) -> Iterator[tuple[Path, str, str] | tuple[Path, str, str, str]]:
    if isinstance(train, Split):
        for sample in train.samples:
            yield sample.image_path, sample.caption, str(sample.identity), sample.language
        return
    for caption, position, language in zip(train.captions, train.image_id, train.language, strict=True):
        yield train.images[position], caption, language


def research_only(card: Mapping[str, Any]) -> bool:
    """Whether a model learned, itself or in the model that it started from, from data for research only."""
    return bool(card.get("data", {}).get("research_only", False) or card.get("start_research_only", False))


def starts_from_research(config: RunConfig) -> bool:
    """`research_only` of the model that a run starts from.

    Raises:
        WeightsError: there is no such model.
    """
    if config.start_from is None:
        return False
    return research_only(read_description(model_folder(config.start_from)).get("card", {}))


def learning_history(entries: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """R@1 of every scoring, from the journal's entries: [{"epoch", "step", "recall_1": {language: percent}}]."""
    return [
        {
            "epoch": entry["epoch"],
            "step": entry["step"],
            "recall_1": {language: round(row["R@1"], 2) for language, row in entry["scores"].items()},
        }
        for entry in entries
        if entry["kind"] == "scores"
    ]


def card_facts(
    config: RunConfig,
    *,
    data: dict[str, Any],
    environment: dict[str, Any],
    best: dict[str, Any],
    last: dict[str, Any],
    history: list[dict[str, Any]],
    minutes: float,
    stopped: str | None,
) -> dict[str, Any]:
    """The facts that travel inside a model folder: JSON values.

    Args:
        config: of the run.
        data: from `data_facts`.
        environment: from `environment.facts`.
        best, last: {"epoch", "step", "scores"}; scores are None where nothing was scored.
        history: from `learning_history`.
        minutes: of training, all sessions together.
        stopped: why the run ended before its configured length, or None.
    """
    return {
        "method": config.method.name,
        "encoder": config.encoder.name,
        "data": data,
        "start_research_only": starts_from_research(config),
        "intended_use": config.intended_use,
        "seed": config.seed,
        "selection": config.selection.split,
        "selected_on_test": config.selection.select_on_test,
        "wanted": "own image" if config.bare_pairs else "same person",
        "best": best,
        "last": last,
        "history": history,
        "minutes": round(minutes, 2),
        "stopped": stopped,
        "commit": environment.get("commit"),
        "tipr": environment.get("tipr"),
        "machine": environment.get("machine"),
        "config": config.model_dump(mode="json"),
    }


def write_card(folder: Path, facts: dict[str, Any]) -> None:
    """Write `card.md` from `card_facts`.

    Raises:
        TrainingError: not writable.
    """
    with reported(folder, "write the model card"):
        (folder / CARD).write_text(render(facts), encoding="utf-8")


def render(facts: dict[str, Any]) -> str:
    """The card as Markdown."""
    data, config = facts["data"], facts["config"]
    synthetic = data["dataset"] == "synthetic"
    people = f" of {data['people']:,} people" if "people" in data else ""
    lines = [
        f"# Model card: {facts['method']} with the {facts['encoder']} encoder",
        "",
        "Text-to-image person retrieval. A result is a similar appearance, not an identification.",
    ]
    if synthetic:
        lines.append("Trained on rendered people: not fit for real photographs.")
    lines += [
        "",
        "## Data",
        "",
        f"- {data['dataset']}: {data['images']:,} images{people}, {data['captions']:,} captions "
        f"({', '.join(data['languages'])}); licence: {data['licence']}",
        *([f"- {left_out(data)}"] if data.get("missing_images") else []),
        *(f"- {key}: {data[key]}" for key in sorted(data) if key.startswith(("sha256", "benchmark"))),
        "",
        "## Training",
        "",
        f"- length: {_length(config)}; batch {config['data']['batch_size']} ({config['sampler']['name']} sampling), "
        f"precision {config['precision']}, seed {facts['seed']}",
        *_languages_and_start(config),
        "- optimiser: {name}, lr {lr:g}, eps {eps:g}".format(**config["optimizer"]),
        f"- time: {facts['minutes']:.1f} minutes on {facts['machine']}",
        f"- code: tipr {facts['tipr']}, commit {facts['commit'] or 'unknown'}",
    ]
    if facts["stopped"]:
        lines.append(f"- stopped before its configured length: {facts['stopped']}")
    lines += ["", "## Intended use and limits", "", *_use(facts)]
    lines += ["", "## Selection and scores", "", selection_line(facts), ""]
    lines += [f"INCOMPLETE: {data['incomplete_selection']}", ""] if "incomplete_selection" in data else []
    for name in ("best", "last"):
        lines += _table(name, facts[name])
    return "\n".join(lines).rstrip() + "\n"


def selection_line(facts: dict[str, Any]) -> str:
    """One sentence on how the best epoch was chosen; it says so loudly when it was on the test split."""
    if facts["selected_on_test"]:
        return "SELECTED ON TEST: the best epoch was chosen on the test split, so its scores there are optimistic."
    if facts["selection"] == "last":
        return "No selection: the last epoch is the model, nothing was scored during the run."
    wanted = " A caption looks for its own image, not for its person." if facts.get("wanted") == "own image" else ""
    return (
        f"The best epoch was chosen by mean R@1 over languages on the split {facts['selection']!r}; "
        f"the scores are of that split.{wanted}"
    )


def left_out(data: Mapping[str, Any]) -> str:
    """What must be said of a model that learned without the images that were missing; `data` of its card."""
    missing, there = data["missing_images"], data["images"]
    verb = "was" if missing == 1 else "were"
    return (
        f"INCOMPLETE: {missing:,} of {missing + there:,} training images {verb} missing and left out, so its scores "
        "are not comparable with published ones."
    )


def _use(facts: dict[str, Any]) -> list[str]:
    """What the model is for, and what it is not."""
    data = facts["data"]
    lines = [f"- use: {facts.get('intended_use', 'research')}"]
    if research_only(facts):
        lines.append(
            "- RESEARCH ONLY: the licence of its training data, or of a model that it started from, allows no more."
        )
    lines += [
        "- It ranks pictures of people by a description of what they wear and carry. It identifies nobody, and no "
        "decision about a person should rest on it alone.",
        f"- It knows descriptions in {', '.join(data['languages'])}, and pictures like those of its training data: "
        "other cameras, crops and clothes give lower scores than those below.",
        "- Its errors may differ between groups of people; measure that on your own data before you rely on it.",
    ]
    return lines


def _languages_and_start(config: dict[str, Any]) -> list[str]:
    """Which languages a method in two of them learned from, and the model that a run started from."""
    lines = [f"- start: {config['start_from']}"] if config["start_from"] else []
    encoder = config["encoder"]
    if METHODS[config["method"]["name"]].batch is BilingualBatch:
        targets = ", ".join(encoder["target_languages"])
        lines.append(f"- languages: each batch has {encoder['source_language']} and one of {targets}, in turn")
    return lines


def _length(config: dict[str, Any]) -> str:
    return f"{config['epochs']} epochs" if config["epochs"] else f"{config['max_steps']:,} steps"


def _table(name: str, entry: dict[str, Any]) -> list[str]:
    heading = f"### {name}/: epoch {entry['epoch']}, step {entry['step']:,}"
    scores: Scores | None = entry["scores"]
    if scores is None:
        return [heading, ""]
    rows = [f"| {code} | " + " | ".join(f"{row[key]:.2f}" for key in COLUMNS) + " |" for code, row in scores.items()]
    return [heading, "", f"| | {' | '.join(COLUMNS)} |", "| --- |" + " ---: |" * len(COLUMNS), *rows, ""]
