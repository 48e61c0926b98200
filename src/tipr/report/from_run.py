"""The report of a training run: what its weights find, what the training wrote down, and what the model looks at."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from PIL import Image

from tipr.analysis.run_scores import Weights
from tipr.data.images import read_image
from tipr.data.samples import Split
from tipr.errors import TrainingError
from tipr.evaluation import Features, SecondStage, encode_split, evaluate, rerank_split
from tipr.evaluation.reference import reference_score
from tipr.report.content import PeopleMap, ReportData, WordPatches
from tipr.report.findings import TRAINING
from tipr.report.from_evaluation import report_data
from tipr.report.people_map import FEWEST, people_map
from tipr.report.pictures import shown_jpeg
from tipr.report.training_series import training_series
from tipr.report.word_patches import word_patches
from tipr.retrieval import Reranker, Retriever
from tipr.training import RunConfig, load_config
from tipr.training import journal as diary
from tipr.training.card import learning_history, left_out
from tipr.training.run import ENVIRONMENT
from tipr.training.sources import load_split

DONE = "done"
SEEN = (
    "These people were seen in training: the scores say how well the model remembers them, not how well it finds "
    "others."
)
CHOSEN_HERE = (
    "The epoch was chosen by its score on these very people: these scores are higher than a fair choice gives."
)
FIRST_STAGE = (
    "Scores are those of the first stage, which compares vectors. This model can look again at a shortlist: --rerank K."
)
RERANKED = (
    "The first {k:,} pictures of every search were looked at again, words and picture together; the others follow by "
    "similarity. Scores, searches and CMC curve are those of this second stage, bands and similarities of the first."
)
UNTRAINED_HEAD = "The second stage of this model was never trained: the order that it gives is chance."

Stage = Callable[[str], AbstractContextManager[Callable[[int, int], None]]]
"""Title of a long part -> context that gives the function to call with (done, total)."""


def run_report(
    folder: Path,
    *,
    split: str,
    weights: Weights,
    root: Path | None,
    languages: Sequence[str] | None,
    seed: int,
    draws: int,
    batch_size: int,
    device: str,
    threads: int | None,
    stage: Stage,
    rerank: int | None = None,
) -> ReportData:
    """Evaluate the weights of a run and gather everything that its report shows.

    Args:
        folder: of the run, finished or not.
        split: of its data set.
        weights: "best" or "last".
        root: where the data set lies now; None: where the run had it.
        languages: of the queries; None: all there are.
        seed: draws the shown queries and the people of the map.
        draws: of the bootstrap.
        batch_size: items encoded at once.
        device, threads: where the model runs.
        stage: announces the long part.
        rerank: pictures of each query that the second stage scores; None: one stage.

    Raises:
        ConfigError: no run there, or its model cannot rerank.
        DatasetError: the split is not there, or has no identities, or an image cannot be read.
        WeightsError: the run has no such weights.
        TrainingError: the folder's own files are damaged.
    """
    config = load_config(folder)
    entries = _journal(folder)
    place = root or config.data.root
    data = load_split(config, split, root=place, languages=languages)
    data.require_identities("scores")
    retriever = Retriever.load(folder / weights, device=device, threads=threads)
    reranker = None if rerank is None else Reranker(retriever)
    synthetic = config.data.dataset == "synthetic"
    with stage("encoding") as progress:
        features = encode_split(retriever, data, batch_size=batch_size, progress=progress)
    second = None
    if reranker is not None and rerank is not None:
        with stage("image tokens") as progress:
            tokens = reranker.image_tokens(data.images, batch_size=batch_size, progress=progress)
        with stage("reranking") as progress:
            second = rerank_split(reranker, features, tokens, rerank, progress=progress)
    evaluation = evaluate(
        retriever,
        data,
        features=features,
        bootstrap=draws,
        without_relevant="skip",
        image_to_text=False,
        second_stage=second,
        reference=reference_score(place) if synthetic and split in ("test", "paraphrase") else None,
        notes=_notes(folder, config, retriever, split, second),
    )

    def picture(position: int) -> bytes:
        return shown_jpeg(read_image(data.images[position]))

    card = {**_unfinished_card(config), **retriever.card, "history": learning_history(entries)}
    found = report_data(
        run=f"{folder.resolve().name}, {weights} weights",
        made=datetime.now(UTC),
        seconds=_seconds(entries),
        split=data,
        features=features,
        evaluation=evaluation,
        card=card,
        parameters=sum(parameter.numel() for parameter in retriever.encoder.parameters()),
        picture=picture,
        synthetic=synthetic,
        seed=seed,
        second_stage=second,
        fingerprint=str((card.get("data") or {}).get("sha256_manifest", "")),
        again=(_again(folder, split=split, weights=weights, root=root, languages=languages, seed=seed, rerank=rerank),),
    )
    trained = config.method.trains_fusion and retriever.encoder.can_rerank
    notes = found.notes
    if found.skipped:
        notes += (f"{found.skipped:,} queries have nothing to find in the gallery and are left out.",)
    words = _words(retriever, features, data, found.drawn, attention=trained)
    people = people_map(features, picture, seed=seed)
    training = training_series(entries)
    return replace(
        found,
        notes=notes,
        took="trained for",
        training=training,
        words=words,
        people=people,
        trained_in=_trained_in(folder),
        absent=_absent(found, words=words, people=people, trained=bool(training)),
    )


def _words(
    retriever: Retriever, features: Features, data: Split, drawn: Sequence[int], *, attention: bool
) -> WordPatches | None:
    captions = [
        (features.language[query], features.captions[query], data.images[features.image_id[query]]) for query in drawn
    ]

    def opened(path: Path) -> Image.Image:
        return read_image(path)

    return word_patches(retriever, captions, attention=attention, picture=opened)


def _absent(found: ReportData, *, words: WordPatches | None, people: PeopleMap | None, trained: bool) -> dict[str, str]:
    """Why panels are missing."""
    why = {
        "learning": None
        if found.learning
        else "The run scored nothing on the way, or only once: selection (split, every_epochs) says when.",
        "training": None if trained else "The run wrote down fewer than two steps: log_every says how often it does.",
        "attention": None
        if words is not None
        else "No word of the drawn captions brings its caption closer to its picture, so there is nothing to show.",
        "map": None if people is not None else f"A map needs at least {FEWEST} people with pictures and captions.",
    }
    return {panel: reason for panel, reason in why.items() if reason is not None}


def _notes(folder: Path, config: RunConfig, retriever: Retriever, split: str, second: SecondStage | None) -> list[str]:
    try:
        status = (folder / diary.STATUS).read_text(encoding="utf-8").strip()
    except (OSError, ValueError):
        status = "unknown"
    trained_on = retriever.card.get("data") or {}
    missing = [left_out(trained_on)] if trained_on.get("missing_images") else []
    notes = missing + (
        [] if status == DONE else [f"This run has not come to its end (status: {status}): its weights are not final."]
    )
    if split == TRAINING:
        notes.append(SEEN)
    elif split == config.selection.split and split != "test":
        notes.append(CHOSEN_HERE)
    if second is not None:
        notes.append(RERANKED.format(k=second.k))
        notes += [] if "itm" in getattr(config.method, "losses", ()) else [UNTRAINED_HEAD]
    elif retriever.encoder.can_rerank and config.method.trains_fusion:
        notes.append(FIRST_STAGE)
    return notes


def _unfinished_card(config: RunConfig) -> dict[str, Any]:
    """What a run's own settings say, for weights whose card is written at the end."""
    return {
        "method": config.method.name,
        "encoder": config.encoder.name,
        "seed": config.seed,
        "selection": config.selection.split,
        "config": config.model_dump(mode="json"),
    }


def _journal(folder: Path) -> list[dict[str, Any]]:
    try:
        entries = diary.read(folder)
        if not all({"kind", "step"} <= set(entry) for entry in entries):
            raise ValueError("an entry without kind and step")
    except (OSError, ValueError, TypeError) as error:
        raise TrainingError(f"{folder / diary.METRICS} cannot be used: {' '.join(str(error).split())}") from None
    return entries


def _seconds(entries: Sequence[Mapping[str, Any]]) -> float:
    return max((float(entry["seconds"]) for entry in entries if entry["kind"] == "train"), default=0.0)


def _trained_in(folder: Path) -> dict[str, str]:
    """`environment.json` as a flat table; empty where a run has none."""
    try:
        facts = json.loads((folder / ENVIRONMENT).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise TrainingError(f"{folder / ENVIRONMENT} cannot be used: {' '.join(str(error).split())}") from None
    if not isinstance(facts, dict):
        raise TrainingError(f"{folder / ENVIRONMENT} cannot be used: it is not a mapping")
    flat: dict[str, str] = {}
    for name, value in facts.items():
        inner = value if isinstance(value, dict) else {name: value}
        flat.update({str(key): str(each) for key, each in inner.items() if each is not None})
    return flat


def _again(
    folder: Path,
    *,
    split: str,
    weights: str,
    root: Path | None,
    languages: Sequence[str] | None,
    seed: int,
    rerank: int | None,
) -> str:
    words = ["tipr", "report", str(folder), "--split", split, "--weights", weights, "--seed", str(seed)]
    words += ["--data", str(root)] if root is not None else []
    words += ["--rerank", str(rerank)] if rerank is not None else []
    for language in languages or ():
        words += ["--language", language]
    return shlex.join(words)
