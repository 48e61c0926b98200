"""The damage experiment: does the filter of translations find damage that is known to be there?

    python benchmarks/translation_filter.py [--train STEPS] [--unread STEPS] [--captions 3000] [--write]

A fifth of synthetic translations into Chinese, French and German is damaged in six ways, equally often. The filter
(rules, then the shipped estimator) reads them beside their English sources. The estimator learned from other people
and, in the first table, from none of the sentences met here (the paraphrase style, on both sides): it knows the names
of things and colours, as a reader of both languages does, and no plan, verb phrase or connective of the test. Half of
the captions are clean and only fix the threshold: a tenth of them lies above it. The paper's rule, the mean noise
rounded to two decimals, is measured on the same test half.

`--train` first trains the shipped estimator anew. `--unread` trains another, thrown away afterwards, that has not read
the names of the paraphrase style either, and measures it too: what an estimator is worth on words it never met.
"""

from __future__ import annotations

import argparse
import json
import math
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tipr.translation.caption_reader import DESCRIPTION
from tipr.translation.damage import CONTENT_DAMAGES, DAMAGES, Pair, draw_pair, draw_statement, word
from tipr.translation.estimator_training import STUDY_SHARE
from tipr.translation.estimators import SHIPPED, Estimator, load_estimator
from tipr.translation.filtering import mean_threshold
from tipr.translation.rules import broken_rule
from tipr.translation.wordings import Plans

LANGUAGES = ("zh", "fr", "de")
DAMAGED_SHARE = 0.2
FALSE_ALARMS = 0.1
TRAINING_SEED = 1
TEST_SEED = 20261121
STYLES: dict[str, Plans] = {"other wordings": "paraphrase", "training wordings": "training"}


@dataclass(frozen=True)
class Judged:
    """A pair and what the filter says of it: the broken rule, or the noise."""

    pair: Pair
    rule: str | None
    noise: float

    def caught(self, threshold: float) -> bool:
        return self.rule is not None or self.noise > threshold


def draw_half(language: str, count: int, plans: Plans, generator: np.random.Generator, share: float) -> list[Pair]:
    """Pairs of new people, one caption each; exactly `share` of them damaged, each kind equally often."""
    damages: list[str | None] = [DAMAGES[place % len(DAMAGES)] for place in range(round(share * count))]
    damages += [None] * (count - len(damages))
    pairs = []
    for damage in damages:
        pair = None
        while pair is None:  # a statement may offer nothing to damage in this way
            pair = draw_pair(draw_statement(generator), language, generator, damage=damage, plans=plans)
        pairs.append(pair)
    return pairs


def judge(pairs: Sequence[Pair], estimator: Estimator, language: str) -> list[Judged]:
    """Rules first; only what they let through has a noise."""
    rules = [broken_rule(pair.source, pair.translation, language) for pair in pairs]
    whole = [pair for pair, rule in zip(pairs, rules, strict=True) if rule is None]
    noise = iter(estimator.noise([pair.source for pair in whole], [pair.translation for pair in whole], "en", language))
    return [
        Judged(pair, rule, float(next(noise)) if rule is None else math.nan)
        for pair, rule in zip(pairs, rules, strict=True)
    ]


def calibrated(clean: Iterable[Judged]) -> float:
    """The threshold that a tenth of clean captions exceeds; breaking a rule counts as exceeding any threshold."""
    noise = [math.inf if one.rule else one.noise for one in clean]
    return float(np.quantile(noise, 1 - FALSE_ALARMS, method="higher"))


def measure(estimator: Estimator, plans: Plans, captions: int) -> dict[str, Any]:
    """One style: thresholds, false alarms, and recall of every kind of damage."""
    thresholds: dict[str, dict[str, float]] = {"calibrated": {}, "mean_rule": {}}
    tested: dict[str, list[Judged]] = {}
    for place, language in enumerate(LANGUAGES):
        generator = np.random.default_rng([TEST_SEED, place, plans == "paraphrase"])
        calibration = judge(draw_half(language, captions // 2, plans, generator, 0.0), estimator, language)
        tested[language] = judge(
            draw_half(language, captions // 2, plans, generator, DAMAGED_SHARE), estimator, language
        )
        thresholds["calibrated"][language] = calibrated(calibration)
        thresholds["mean_rule"][language] = mean_threshold(one.noise for one in tested[language] if one.rule is None)
    return {
        "captions_each_language": {
            "calibration": captions // 2,
            "test": captions // 2,
            "damaged": round(DAMAGED_SHARE * (captions // 2)),
        },
        "thresholds": {
            rule: {key: round(value, 4) for key, value in by_language.items()}
            for rule, by_language in thresholds.items()
        },
        **{rule: summary(tested, by_language) for rule, by_language in thresholds.items()},
    }


def summary(tested: dict[str, list[Judged]], thresholds: dict[str, float]) -> dict[str, Any]:
    """Recall and false alarms of all languages at one threshold each."""
    caught = [
        (language, one, one.caught(thresholds[language])) for language, judged in tested.items() for one in judged
    ]
    clean = [(language, found) for language, one, found in caught if one.pair.damage is None]
    damaged = [(language, one, found) for language, one, found in caught if one.pair.damage is not None]
    found = sum(found for _, _, found in damaged)
    details: dict[str, list[bool]] = defaultdict(list)
    for _, one, was_found in damaged:
        details[f"{one.pair.damage}: {one.pair.detail}"].append(was_found)
    return {
        "recall": rate(found for _, _, found in damaged),
        "recall_of_changed_content": rate(found for _, one, found in damaged if one.pair.damage in CONTENT_DAMAGES),
        "precision": round(found / max(1, found + sum(found for _, found in clean)), 4),
        "false_alarms": rate(found for _, found in clean),
        "false_alarms_by_language": {
            language: rate(found for other, found in clean if other == language) for language in tested
        },
        "damages": {
            kind: {
                **rate(found for _, one, found in damaged if one.pair.damage == kind),
                "by_rule": rate(one.rule is not None for _, one, _ in damaged if one.pair.damage == kind)["share"],
                **{
                    language: rate(
                        found for other, one, found in damaged if one.pair.damage == kind and other == language
                    )["share"]
                    for language in tested
                },
            }
            for kind in DAMAGES
        },
        "details": {detail: rate(found) for detail, found in sorted(details.items())},
    }


def rate(events: Iterable[bool]) -> dict[str, Any]:
    """Share of true events, their number, and the 95 % interval (Wilson)."""
    values = list(events)
    count, share, z = len(values), sum(values) / max(1, len(values)), 1.96
    middle = (share + z * z / (2 * count)) / (1 + z * z / count)
    half = z * math.sqrt(share * (1 - share) / count + z * z / (4 * count * count)) / (1 + z * z / count)
    return {
        "share": round(share, 4),
        "of": count,
        "interval": [round(max(0.0, middle - half), 4), round(min(1.0, middle + half), 4)],
    }


def shared_runs_percent(count: int = 2000) -> dict[str, float]:
    """Share of the test style's runs of five words that occur in as many captions as the estimator learned from."""
    from caption_paraphrases import shared_runs  # a script beside this one

    generator = np.random.default_rng(TEST_SEED)
    shares = {}
    for language in ("en", *LANGUAGES):
        plans: list[Plans] = ["study" if generator.random() < STUDY_SHARE else "training" for _ in range(count)]
        learned = [word(draw_statement(generator), language, generator, style) for style in plans]
        test = [word(draw_statement(generator), language, generator, "paraphrase") for _ in range(count)]
        shares[language] = round(100 * shared_runs(language, learned, test), 2)
    return shares


def train(steps: int, folder: Path, study_share: float) -> None:
    """Train an estimator and put it into a folder."""
    from tipr import Retriever
    from tipr.translation.estimator_training import STATEMENTS, train_reader

    retriever = Retriever.load("demo")
    started = time.process_time()

    def report(done: int, total: int) -> None:
        if done % 50 == 0 or done == total:
            print(f"step {done} of {total}, {time.process_time() - started:.0f} CPU seconds", flush=True)

    reader, tokenizer = train_reader(
        retriever, steps=steps, seed=TRAINING_SEED, study_share=study_share, progress=report
    )
    reader.save(
        folder,
        tokenizer,
        {
            "start": "text branch of the demo model",
            "start_sha256": retriever.fingerprint,
            "steps": steps,
            "statements_each_step": STATEMENTS,
            "study_share": study_share,
            "seed": TRAINING_SEED,
            "cpu_seconds": round(time.process_time() - started),
            "data": "synthetic captions of the training and study styles in en, zh, fr, de, clean and damaged",
        },
    )


def show(name: str, result: dict[str, Any]) -> None:
    for rule in ("calibrated", "mean_rule"):
        table = result[rule]
        print(
            f"{name}, {rule}: recall {table['recall']['share']:.3f} {table['recall']['interval']}, "
            f"false alarms {table['false_alarms']['share']:.3f}, precision {table['precision']:.3f}, "
            f"thresholds {result['thresholds'][rule]}"
        )
        for kind, row in table["damages"].items():
            languages = " ".join(f"{language} {row[language]:.3f}" for language in LANGUAGES)
            print(f"    {kind:16} {row['share']:.3f} of {row['of']}  {languages}  by rule {row['by_rule']:.3f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--train", type=int, metavar="STEPS", help="train the shipped estimator first")
    parser.add_argument("--unread", type=int, metavar="STEPS", help="train and measure one that knows fewer names")
    parser.add_argument("--captions", type=int, default=3000, help="of each language; half calibrate, half test")
    parser.add_argument("--write", action="store_true", help="write results/translation_filter.json")
    arguments = parser.parse_args()
    if arguments.train:
        train(arguments.train, SHIPPED, STUDY_SHARE)
    estimator = load_estimator("text-encoder")
    results: dict[str, Any] = {
        "estimator": estimator.describe(),
        "training": json.loads((SHIPPED / DESCRIPTION).read_text(encoding="utf-8"))["card"],
        "shared_runs_percent": shared_runs_percent(),
    }
    print(f"5-word runs of the test that the learned style shares, percent: {results['shared_runs_percent']}")
    for name, plans in STYLES.items():
        results[name] = measure(estimator, plans, arguments.captions)
        show(name, results[name])
    if arguments.unread:
        with tempfile.TemporaryDirectory() as scratch:
            train(arguments.unread, Path(scratch), 0.0)
            unread = load_estimator(f"text-encoder:{scratch}")
            results["names unread"] = measure(unread, "paraphrase", arguments.captions)
        show("names unread", results["names unread"])
    if arguments.write:
        import record  # a script beside this one; the tests import the functions above without it

        training = f" --train {arguments.train}" if arguments.train else ""
        training += f" --unread {arguments.unread}" if arguments.unread else ""
        command = f"python benchmarks/translation_filter.py{training} --captions {arguments.captions} --write"
        record.write("translation_filter", command, results)


if __name__ == "__main__":
    main()
