"""How far paraphrase captions are from training captions, and how long captions take.

    python benchmarks/caption_paraphrases.py [--people 4000] [--write]

For each language: sentence plans of both styles, words of paraphrases that training captions never use, the share of
5-grams that occur in training captions, the share of distinct training captions. Words are lower-cased and whole.
Chinese has no spaces: its 5-grams are runs of characters, its new words are lexical items of the paraphrase lexicon
that are no part of any training caption.
"""

from __future__ import annotations

import argparse
import re
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass

import numpy as np

from tipr.data.synthetic.attributes import sample_person, sample_shot
from tipr.data.synthetic.captions import STYLES, facts, realise

LANGUAGES = ("en", "zh", "fr", "de")
SLOT = re.compile(r"\{\w*\}")


@dataclass(frozen=True)
class Distance:
    """What sets the paraphrases of one language apart from its training captions."""

    training_plans: int
    paraphrase_plans: int
    new_words: int
    shared_runs_percent: float
    distinct_training_percent: float


def tokens(text: str, language: str) -> list[str]:
    """Lower-cased words; for Chinese single characters (the T of T恤 is one)."""
    if language == "zh":
        return re.findall(r"[\u4e00-\u9fffT]", text)
    return re.findall(r"[^\W\d_]+", text.lower())


def runs(words: list[str]) -> Iterator[tuple[str, ...]]:
    """The 5-grams of a list of words."""
    return zip(*(words[start:] for start in range(5)), strict=False)


def lexical_items(language: str) -> set[str]:
    """Words as the paraphrase lexicon lists them: nouns, colours and the pieces of its phrases and plans."""
    style = STYLES[language, "paraphrase"][1]
    texts = [forms[0] for group in (*style.colors.values(), *style.nouns.values()) for forms in group]
    texts += [text.partition("|")[0] for group in style.words.values() for text in group]
    texts += [text for group in style.phrases.values() for text in group] + [plan.text for plan in style.plans]
    return {piece for text in texts for piece in re.findall(r"[\u4e00-\u9fffT]+", SLOT.sub(" ", text))}


def new_words(language: str, training: Sequence[str], paraphrases: Sequence[str]) -> set[str]:
    """Words in the paraphrases that no training caption uses, nor could use by its lexicon."""
    if language == "zh":
        seen, written = "\n".join(training), "\n".join(paraphrases)
        return {item for item in lexical_items(language) if item in written and item not in seen}
    style = STYLES[language, "training"][1]
    known = set(tokens(repr((style.colors, style.nouns, style.words, style.phrases)), language))
    known.update(word for text in training for word in tokens(text, language))
    return {word for text in paraphrases for word in tokens(text, language)} - known


def shared_runs(language: str, training: Sequence[str], paraphrases: Sequence[str]) -> float:
    """Share of the paraphrases' 5-grams, in 0 .. 1, that occur in training captions."""
    known = {run for text in training for run in runs(tokens(text, language))}
    told = [run for text in paraphrases for run in runs(tokens(text, language))]
    return sum(run in known for run in told) / len(told)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--people", type=int, default=4000)
    parser.add_argument("--write", action="store_true", help="write results/caption_paraphrases.json")
    arguments = parser.parse_args()
    generator = np.random.default_rng(0)
    people = [sample_person(generator) for _ in range(arguments.people)]
    shots = [sample_shot(generator, person, 0) for person in people]
    training: dict[str, list[str]] = {language: [] for language in LANGUAGES}
    started = time.process_time()
    for person, shot in zip(people, shots, strict=True):
        for _ in range(2):
            said = facts(person, shot, generator)
            for language in LANGUAGES:
                training[language].append(realise(said, language, generator))
    milliseconds = 1000 * (time.process_time() - started) / len(people)
    result: dict[str, object] = {
        "training_captions": 2 * len(people),
        "paraphrases": len(people),
        "cpu_milliseconds_for_eight_captions": round(milliseconds, 3),
    }
    print(f"two captions in four languages: {milliseconds:.2f} ms of one core")
    for language in LANGUAGES:
        paraphrases = [
            realise(facts(person, shot, generator), language, generator, plans="paraphrase")
            for person, shot in zip(people, shots, strict=True)
        ]
        distance = Distance(
            training_plans=len(STYLES[language, "training"][1].plans),
            paraphrase_plans=len(STYLES[language, "paraphrase"][1].plans),
            new_words=len(new_words(language, training[language], paraphrases)),
            shared_runs_percent=round(100 * shared_runs(language, training[language], paraphrases), 2),
            distinct_training_percent=round(100 * len(set(training[language])) / len(training[language]), 2),
        )
        result[language] = asdict(distance)
        print(f"{language}: {distance}")
    if arguments.write:
        import record  # a script beside this one; the tests import the functions above without it

        command = f"python benchmarks/caption_paraphrases.py --people {arguments.people} --write"
        record.write("caption_paraphrases", command, result)


if __name__ == "__main__":
    main()
