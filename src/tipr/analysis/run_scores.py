"""What one finished run found: `scores.json` in its run folder, small enough to keep and enough to recompute scores.

It holds the rank of every relevant image of every query, so recall, mAP, mINP and the significance of a difference
between two runs all follow from it. The run's id, steps and minutes follow from its configuration and its journal,
which stay in the folder; the weights are not needed any more.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
from numpy.typing import NDArray

from tipr.data.samples import Split
from tipr.errors import DatasetError, TrainingError
from tipr.evaluation import Features, SecondStage, encode_split, rerank_split
from tipr.metrics import QueryResults, stable_similarity
from tipr.metrics.ranking import Relevance, relevant_ranks
from tipr.retrieval import Reranker, Retriever
from tipr.training import RunConfig, load_config
from tipr.training import journal as diary
from tipr.training.card import left_out
from tipr.training.checkpoint import reported
from tipr.training.run import CONFIG, ENVIRONMENT
from tipr.training.run_config import RandomSampling
from tipr.training.sources import load_split

Weights = Literal["best", "last"]
SCORES = "scores.json"
FORMAT = 1
KS = (1, 5, 10)
BLOCK = 256
"""Queries scored at a time."""
METRICS = (*(f"R@{k}" for k in KS), "mAP", "mINP")
"""The columns of `Outcomes.values`, in percent."""


@dataclass(frozen=True, slots=True)
class RunFacts:
    """What identifies a run and what it cost.

    Attributes:
        run: id: the first 12 hexadecimal digits of the SHA-256 of configuration and journal.
        seed: of the run.
        steps: optimiser steps done.
        pairs_seen: image-caption pairs that went through those steps.
        minutes: of training.
        commit: of the code, as the run noted it; "unknown" outside a checkout.
        machine: processor or accelerator, in one line.
    """

    run: str
    seed: int
    steps: int
    pairs_seen: int
    minutes: float
    commit: str
    machine: str

    def to_json(self) -> dict[str, Any]:
        """JSON values."""
        return asdict(self)

    @classmethod
    def of(cls, folder: Path, *, captions: int, images: int) -> Self:
        """The facts of a run folder, from `config.yaml`, `environment.json` and `metrics.jsonl`.

        Args:
            folder: of the run.
            captions, images: of its training split.

        Raises:
            ConfigError: no run there.
            TrainingError: its journal or its environment is missing or damaged.
        """
        config = load_config(folder)
        try:
            environment = json.loads((folder / ENVIRONMENT).read_text(encoding="utf-8"))
            commit, machine = str(environment["commit"] or "unknown"), str(environment["machine"])
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise TrainingError(f"{folder / ENVIRONMENT} cannot be used: {type(error).__name__}: {error}") from None
        try:
            entries = diary.read(folder)
            content = (folder / CONFIG).read_bytes() + (folder / diary.METRICS).read_bytes()
            steps = max(int(entry["step"]) for entry in entries)
            seconds = max(float(entry["seconds"]) for entry in entries if entry["kind"] == "train")
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise TrainingError(f"{folder / diary.METRICS} cannot be used: {type(error).__name__}: {error}") from None
        return cls(
            run=hashlib.sha256(content).hexdigest()[:12],
            seed=config.seed,
            steps=steps,
            pairs_seen=pairs_seen(config, steps, captions=captions, images=images),
            minutes=round(seconds / 60, 2),
            commit=commit,
            machine=machine,
        )


@dataclass(frozen=True, eq=False, slots=True)
class Outcomes:
    """What each query of one language found.

    Attributes:
        identity: (Q,) int64, the person that the query is about.
        ranks: (K,) int64 from 1: ranks of all relevant images, rising inside each query.
        offset: (Q + 1,) int64: the ranks of query q are `ranks[offset[q]:offset[q + 1]]`.
        gallery: G, images ranked for each query.
        captions: hexadecimal SHA-256 of the captions in order: two runs are comparable when it is equal.
    """

    identity: NDArray[np.int64]
    ranks: NDArray[np.int64]
    offset: NDArray[np.int64]
    gallery: int
    captions: str

    def values(self) -> NDArray[np.float64]:
        """(Q, 5) percent: what each query adds to `METRICS`."""
        results = QueryResults.of_ranks(self.ranks, self.offset, self.gallery)
        found = [results.found_within(k) for k in KS]
        return 100.0 * np.stack([*found, results.average_precision, results.inverse_penalty], axis=1)

    def to_json(self) -> dict[str, Any]:
        """JSON values."""
        return {
            "captions": self.captions,
            "gallery": self.gallery,
            "identity": self.identity.tolist(),
            "ranks": [part.tolist() for part in np.split(self.ranks, self.offset[1:-1])],
        }

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Self:
        """The inverse of `to_json`; KeyError, TypeError or ValueError for anything else."""
        ranks = [np.asarray(part, dtype=np.int64) for part in values["ranks"]]
        count = np.array([len(part) for part in ranks])
        made = cls(
            identity=np.asarray(values["identity"], dtype=np.int64),
            ranks=np.concatenate(ranks),
            offset=np.concatenate([[0], np.cumsum(count)]).astype(np.int64),
            gallery=int(values["gallery"]),
            captions=str(values["captions"]),
        )
        inside = made.ranks.min() >= 1 and made.ranks.max() <= made.gallery
        if made.identity.shape != count.shape or not count.all() or not inside:
            raise ValueError("identity and ranks are not those of queries with relevant images in this gallery")
        return made


@dataclass(frozen=True, eq=False, slots=True)
class RunScores:
    """One finished run with what its queries found.

    Attributes:
        facts: of the run.
        captions, images: of its training split.
        split: the evaluated one.
        fingerprint: hexadecimal SHA-256 of the evaluated model.
        outcomes: language -> outcomes.
        incomplete: what must be said where images of the training or of the evaluated split were missing.
    """

    facts: RunFacts
    captions: int
    images: int
    split: str
    fingerprint: str
    outcomes: Mapping[str, Outcomes]
    incomplete: tuple[str, ...] = ()

    def scores(self, languages: Sequence[str]) -> dict[str, float]:
        """Percent by name of `METRICS`: the mean over languages of the means over queries."""
        means = np.mean([self.outcomes[language].values().mean(axis=0) for language in languages], axis=0)
        return dict(zip(METRICS, means.tolist(), strict=True))

    def write(self, folder: Path, file: str = SCORES) -> None:
        """Write `scores.json`, or the file of another way to evaluate; it appears whole or not at all.

        Raises:
            TrainingError: not writable.
        """
        tree = {
            "format": FORMAT,
            **self.facts.to_json(),
            "training": {"captions": self.captions, "images": self.images},
            "split": self.split,
            "fingerprint": self.fingerprint,
            **({"incomplete": list(self.incomplete)} if self.incomplete else {}),
            "scores": {language: self.scores([language]) for language in self.outcomes},
            "outcomes": {language: outcomes.to_json() for language, outcomes in self.outcomes.items()},
        }
        with reported(folder, "write the scores"):
            draft = folder / f".{file}"
            draft.write_text(json.dumps(tree, separators=(",", ":")) + "\n", encoding="utf-8")
            os.replace(draft, folder / file)

    @classmethod
    def read(cls, folder: Path, file: str = SCORES) -> Self:
        """The scores of a run folder; everything that can be recomputed is, and must agree with what is written.

        Raises:
            ConfigError: no run there.
            TrainingError: there are no scores, they are damaged, or they are not those of this run.
        """
        path = folder / file
        try:
            tree = json.loads(path.read_text(encoding="utf-8"))
            if tree["format"] != FORMAT:
                raise ValueError(f"format {tree['format']!r}; this version of tipr reads {FORMAT}")
            captions, images = int(tree["training"]["captions"]), int(tree["training"]["images"])
            facts = RunFacts.of(folder, captions=captions, images=images)
            outcomes = {str(code): Outcomes.from_json(each) for code, each in tree["outcomes"].items()}
            incomplete = tuple(map(str, tree.get("incomplete", ())))
            made = cls(facts, captions, images, str(tree["split"]), str(tree["fingerprint"]), outcomes, incomplete)
            written = {field.name: tree[field.name] for field in fields(RunFacts)}
            scores = {str(language): dict(each) for language, each in tree["scores"].items()}
        except OSError as error:
            raise TrainingError(f"cannot read {path}: {error.strerror or error}") from None
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise TrainingError(f"{path} is damaged: {type(error).__name__}: {error}") from None
        for name, value in facts.to_json().items():
            if written[name] != value:
                raise TrainingError(f"{path}: {name} is {written[name]!r}, the run folder says {value!r}")
        for language in outcomes:
            for name, found in made.scores([language]).items():
                if not np.isclose(scores.get(language, {}).get(name, np.nan), found, rtol=0, atol=1e-9):
                    raise TrainingError(f"{path}: {name} of {language!r} is not what its ranks give, {found:.6f}")
        return made


def scores_file(rerank: int | None = None, weights: Weights = "best") -> str:
    """Name of the file with the scores of a run's weights, with a second stage over so many pictures, or without."""
    parts = ["scores", *(["last"] if weights == "last" else []), *([] if rerank is None else [f"rerank-{rerank}"])]
    return f"{'-'.join(parts)}.json"


def score_run(
    folder: Path,
    *,
    split: str,
    languages: Sequence[str],
    device: str,
    threads: int | None,
    rerank: int | None = None,
    weights: Weights = "best",
    root: Path | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> RunScores:
    """Evaluate the weights of a finished run and write `scores_file` into its folder.

    Args:
        folder: of the run.
        split: of the run's data set.
        languages: of the queries.
        device: where the model runs.
        threads: CPU threads; None: torch's choice.
        rerank: pictures of each query that a second stage scores; None: no second stage.
        weights: "best", by the run's own rule of selection, or "last".
        root: where the data set lies now; None: where the run had it.
        progress: called with (done, all): first items encoded, then pairs of the second stage.

    Raises:
        DatasetError: the split is not there, or has no identities, or a query has nothing to find.
        WeightsError: the weights cannot be loaded.
        ConfigError: the model cannot rerank.
        TrainingError: the folder cannot be written.
    """
    config = load_config(folder)
    data = load_split(config, split, root=root, languages=languages)
    retriever = Retriever.load(folder / weights, device=device, threads=threads)
    found = outcomes_of(retriever, data, languages, rerank=rerank, progress=progress)
    training = (retriever.card or {})["data"]
    captions_count, images = int(training["captions"]), int(training["images"])
    facts = RunFacts.of(folder, captions=captions_count, images=images)
    incomplete = [left_out(training)] if training.get("missing_images") else []
    incomplete += [data.incomplete] if data.incomplete else []
    made = RunScores(facts, captions_count, images, split, retriever.fingerprint, found, tuple(incomplete))
    made.write(folder, scores_file(rerank, weights))
    return made


def outcomes_of(
    retriever: Retriever,
    data: Split,
    languages: Sequence[str],
    *,
    rerank: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, Outcomes]:
    """What the queries of each language find in a split with a model; see `score_run`.

    Raises:
        DatasetError: the split has no identities, or a query has nothing to find.
        ConfigError: the model cannot rerank.
    """
    features = encode_split(retriever, data, progress=progress)
    second = None
    if rerank is not None:
        reranker = Reranker(retriever)
        second = rerank_split(reranker, features, reranker.image_tokens(data.images), rerank, progress=progress)
    found = {}
    for language in languages:
        chosen = np.flatnonzero(np.array([code == language for code in features.language]))
        relevance = Relevance.of(features.query_identity[chosen], features.gallery_identity)
        if not relevance.count.all():
            raise DatasetError(
                f"split {data.name!r}: a query in {language!r} has no image of its person in the gallery"
            )
        captions = "\n".join(features.captions[query] for query in chosen)
        found[language] = Outcomes(
            identity=features.query_identity[chosen],
            ranks=_ranks(features, chosen, relevance, second),
            offset=np.concatenate([[0], np.cumsum(relevance.count)]).astype(np.int64),
            gallery=len(features.images),
            captions=hashlib.sha256(captions.encode()).hexdigest(),
        )
    return found


def _ranks(
    features: Features, chosen: NDArray[np.int64], relevance: Relevance, second: SecondStage | None
) -> NDArray[np.int64]:
    """Ranks of the relevant images of the `chosen` queries, one query after another, rising inside each."""
    ranks = []
    place = np.empty(len(features.images), dtype=np.int64)
    for begin in range(0, len(chosen), BLOCK):
        part = chosen[begin : begin + BLOCK]
        scores = stable_similarity(features.text[part], features.images)
        relevant = relevance.rows(begin, begin + len(part))
        if second is None:
            ranks.append(relevant_ranks(scores, relevant)[0])
            continue
        for query, similarity, start, stop in zip(part, scores, relevant.start, relevant.stop, strict=True):
            place[second.order(int(query), similarity)] = np.arange(1, len(place) + 1)
            ranks.append(np.sort(place[relevant.members[start:stop]]))
    return np.concatenate(ranks)


def pairs_seen(config: RunConfig, steps: int, *, captions: int, images: int) -> int:
    """Image-caption pairs in the first `steps` steps of a run.

    Args:
        config: of the run.
        steps: optimiser steps.
        captions, images: of the training split.
    """
    batch = config.data.batch_size
    each = 2 if config.bilingual else config.data.captions_per_image  # a caption in the source and one in a target
    if not isinstance(config.sampler, RandomSampling) or config.sampler.drop_last:
        return steps * batch * each  # all batches are full
    units = images if config.data.epoch_unit == "image" else captions
    epochs, rest = divmod(steps, -(-units // batch))
    return (epochs * units + rest * batch) * each
