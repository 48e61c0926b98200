"""The report of one evaluation: scores, drawn searches, curves, bands, and the facts beside them."""

from __future__ import annotations

import platform
import sys
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import numpy as np
import yaml

from tipr.data.samples import Split
from tipr.evaluation import Evaluation, Features, Score, SecondStage
from tipr.metrics.retrieval import query_results_from_features, query_results_two_stage
from tipr.report.assemble import (
    LanguageQueries,
    RankedGallery,
    band_statistics,
    extremes,
    found_curves,
    learning_curves,
    shown_queries,
)
from tipr.report.content import Fact, ReportData, ScoreRow
from tipr.report.findings import TRAINING, number_word

SCORED_ON = {"val": "the validation people", "test": "the TEST split"}
"""Split that a run chose its epoch on -> words; a run that chose none is not there."""
PACKAGES = ("tipr", "torch", "numpy", "pillow", "simplejpeg", "tokenizers", "lancedb", "pylance", "pyarrow")


def report_data(
    *,
    run: str,
    made: datetime,
    seconds: float,
    split: Split,
    features: Features,
    evaluation: Evaluation,
    card: Mapping[str, Any],
    parameters: int,
    picture: Callable[[int], bytes],
    synthetic: bool,
    seed: int,
    second_stage: SecondStage | None = None,
    per_language: int = 2,
    extreme_count: int = 3,
    fingerprint: str = "",
    speed: str = "",
    again: Sequence[str] = ("make demo",),
) -> ReportData:
    """Gather everything the page shows.

    Args:
        run: short name of the run.
        made: when the evaluation was made, with time zone.
        seconds: how long everything took.
        split: the evaluated split.
        features: of the split, as the evaluation saw them.
        evaluation: its scores.
        card: the model's card facts; missing ones are left out of the page.
        parameters: of the encoder.
        picture: gallery position -> JPEG bytes.
        synthetic: the people are rendered, and captions are aligned over the languages.
        seed: of the drawn queries.
        second_stage: that the evaluation was made with; it decides every shown order.
        per_language: queries drawn for each language.
        extreme_count: easiest and hardest queries shown.
        fingerprint: of the data.
        speed: one fact about speed, measured in this run.
        again: shell lines that make the report once more.
    """
    languages = tuple(_language(features, code, second_stage) for code in evaluation.text_to_image.languages)
    gallery = RankedGallery(features.images, features.gallery_identity, split.image_camera, picture)
    queries, drawn = shown_queries(languages, gallery, per_language=per_language, seed=seed, aligned_english=synthetic)
    bands = band_statistics(languages, gallery, seed=seed)
    easiest, hardest = extremes(languages, gallery, count=extreme_count)
    forward = evaluation.text_to_image
    rows = [_row(score, code) for code, score in forward.languages.items()]
    if len(rows) > 1:
        rows.append(_row(forward.mean, None, label=f"Mean of {number_word(len(rows))}"))
    before = None if evaluation.reranking is None else evaluation.reranking.first_stage.mean
    best = card.get("best") or {}
    scored_on = SCORED_ON.get(str(card.get("selection")), "the validation people")
    chosen = (int(best["epoch"]), scored_on) if best.get("epoch") and card.get("selection") in SCORED_ON else None
    return ReportData(
        run=run,
        made=made,
        seconds=seconds,
        synthetic=synthetic,
        facts=_facts(split, evaluation, card, parameters=parameters, fingerprint=fingerprint, speed=speed),
        scores=tuple(rows),
        before_reranking=None if before is None else _row(before, None, label="Before reranking"),
        reference=_row(evaluation.reference, None, label="Reference reader") if evaluation.reference else None,
        chance=_row(forward.chance, None, label="Chance"),
        gallery_size=len(features.images),
        seed=seed,
        draws=evaluation.draws,
        queries=queries,
        found=found_curves(languages),
        learning=learning_curves(card.get("history") or ()),
        chosen_epoch=chosen,
        scored_on=scored_on,
        right_scores=bands.right_scores,
        other_scores=bands.other_scores,
        band_limits=bands.limits,
        bands=bands.rows,
        easiest=easiest,
        hardest=hardest,
        configuration=yaml.safe_dump(card.get("config") or {}, sort_keys=False, allow_unicode=True),
        environment=environment(),
        notes=evaluation.notes,
        again=tuple(again),
        overlap=evaluation.overlap,
        split=split.name,
        skipped=evaluation.skipped,
        drawn=tuple(drawn_captions(features, drawn)),
    )


def drawn_captions(features: Features, drawn: Sequence[tuple[str, int]]) -> list[int]:
    """Positions among all captions of (language, position among the captions of that language)."""
    own = {code: np.flatnonzero(np.array(features.language) == code) for code, _ in drawn}
    return [int(own[code][place]) for code, place in drawn]


def environment() -> dict[str, str]:
    """Versions that can change a number, without importing anything."""
    found = {"python": platform.python_version(), "platform": f"{platform.system()} {platform.machine()}"}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    found["byte order"] = sys.byteorder
    return found


def _language(features: Features, code: str, second_stage: SecondStage | None) -> LanguageQueries:
    chosen = np.array([language == code for language in features.language])
    if code == "all":
        chosen[:] = True
    identity = features.query_identity[chosen]
    text = features.text[chosen]
    sides = text, features.images, identity, features.gallery_identity
    if second_stage is None:
        results = query_results_from_features(*sides, without_relevant="skip", stable=True)
    else:
        results = query_results_two_stage(
            *sides,
            shortlist=second_stage.shortlist[chosen],
            match=second_stage.match[chosen],
            tail=second_stage.tail,
            without_relevant="skip",
        )
    rows = np.flatnonzero(chosen)
    return LanguageQueries(code, [features.captions[row] for row in rows], identity, text, results, second_stage, rows)


def _row(score: Score, language: str | None, *, label: str = "Mean") -> ScoreRow:
    return ScoreRow(language, dict(score.recall), score.mean_ap, score.mean_inp, score.intervals.get("R@1"), label)


def _facts(
    split: Split, evaluation: Evaluation, card: Mapping[str, Any], *, parameters: int, fingerprint: str, speed: str
) -> tuple[Fact, ...]:
    seen = split.name == TRAINING
    cameras = len({camera for camera in split.image_camera if camera is not None})
    data = card.get("data") or {}
    dataset = ((card.get("config") or {}).get("data") or {}).get("dataset")
    where = f"{dataset} {split.name}, " if dataset else ""
    each = evaluation.captions // max(1, len(evaluation.text_to_image.languages))
    facts = [
        Fact("Model", f"{card.get('encoder', 'model')}, {parameters / 1e6:.2f} M parameters"),
        Fact("Method", _method(card)),
        Fact("Gallery", where + f"{evaluation.images:,} pictures" + (f", {cameras} cameras" if cameras else "")),
        _people(evaluation, seen=seen, known=bool(data)),
        Fact("Queries", f"{each:,} per language, {evaluation.captions:,} in all"),
    ]
    if data.get("images"):
        shown = f"{data['people']:,} people" if data.get("people") else "people unknown"
        facts.append(Fact("Training data", f"{shown}, {data['images']:,} pictures"))
    selection = {"val": "validation people, never these", "test": "the TEST split", "last": "none: the last epoch"}
    if card.get("selection"):
        chosen_on = str(card["selection"])
        words = "these very people" if chosen_on == split.name else selection.get(chosen_on, chosen_on)
        facts.append(Fact("Epoch chosen on", words))
    if card.get("seed") is not None:
        facts.append(Fact("Training seed", f"{card['seed']} (one run)"))
    if card.get("commit"):
        commit, _, changed = str(card["commit"]).partition("-")
        facts.append(Fact("Trained at commit", commit[:12] + (" with changes" if changed else ""), code=True))
    facts.append(Fact("Model fingerprint", evaluation.fingerprint[:12], code=True))
    if fingerprint:
        facts.append(Fact("Data fingerprint", f"{fingerprint[:6]}…{fingerprint[-4:]}", code=True))
    if speed:
        facts.append(Fact("Speed", speed))
    return tuple(facts)


def _people(evaluation: Evaluation, *, seen: bool, known: bool) -> Fact:
    if seen:
        return Fact("People", f"{evaluation.identities:,}, the model was trained on them")
    return Fact("Held-out people", f"{evaluation.identities:,}, none seen in training" if known else "not recorded")


def _method(card: Mapping[str, Any]) -> str:
    """The method with the loss terms that it was trained with, because a name alone may promise others."""
    method = (card.get("config") or {}).get("method") or {}
    losses = method.get("losses") or method.get("terms") or ()
    return str(card.get("method", "not recorded")) + (f", losses {' + '.join(losses)}" if losses else "")
