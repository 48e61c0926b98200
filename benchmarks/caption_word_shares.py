"""Shares of English captions that name a word, beside the shares in the real captions of CUHK-PEDES.

    python benchmarks/caption_word_shares.py [--identities 6000] [--write]

Captions are drawn as the presets draw them: four photographs of each identity, hard siblings with share 0.3, two
independent writers for each photograph. Captions of one identity are alike, so many identities are needed. A word
counts once in a caption; words are lower-cased and whole, and `T-shirt` counts as shirt.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tipr.data.synthetic.attributes import hard_sibling, sample_person, sample_shot
from tipr.data.synthetic.captions import facts, realise

REAL_SHARES = {
    "black": 64.0, "white": 50.0, "shirt": 66.0, "shoes": 46.0, "pants": 38.0, "hair": 32.0, "blue": 27.0,
    "dark": 26.0, "gray/grey": 24.0, "shorts": 23.0, "bag": 19.0, "brown": 15.0, "jeans": 15.0, "red": 13.0,
    "jacket": 13.0, "backpack": 11.0, "glasses": 8.0, "pink": 8.0, "dress": 8.0, "skirt": 5.0, "purse": 5.0,
    "hat/cap": 4.0, "phone": 2.0, "striped": 2.5, "plaid": 2.0, "umbrella": 1.0,
}  # fmt: skip
"""Percent of the 80,000 real captions that name the word; words joined by a slash count together."""
REAL_MEAN_WORDS = 23.5
REAL_MAX_WORDS = 82
HARD_SHARE = 0.3
WORD = re.compile(r"[a-z]+")


@dataclass(frozen=True)
class WordShares:
    """Percent of captions by word, and caption lengths in words separated by spaces."""

    captions: int
    shares: dict[str, float]
    mean_words: float
    max_words: int


def allowed(share: float) -> float:
    """How many points a share may differ from the real one."""
    return 5.0 if share > 10.0 else 3.0


def word_shares(captions: Sequence[str]) -> WordShares:
    """Count in how many captions each listed word stands."""
    words = [set(WORD.findall(caption.lower())) for caption in captions]
    lengths = [len(caption.split()) for caption in captions]
    shares = {
        name: 100.0 * sum(not found.isdisjoint(name.split("/")) for found in words) / len(words) for name in REAL_SHARES
    }
    return WordShares(len(captions), shares, float(np.mean(lengths)), max(lengths))


def english_captions(identities: int, seed: int, *, photographs: int = 4) -> list[str]:
    """Two captions for each photograph of each identity."""
    generator = np.random.default_rng(seed)
    captions: list[str] = []
    person = sample_person(generator)
    for position in range(identities):
        if position:
            hard = generator.random() < HARD_SHARE
            person = hard_sibling(generator, person)[0] if hard else sample_person(generator)
        for camera in range(photographs):
            shot = sample_shot(generator, person, camera)
            captions += [realise(facts(person, shot, generator), "en", generator) for _ in range(2)]
    return captions


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--identities", type=int, default=6000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--write", action="store_true", help="write results/caption_word_shares.json")
    arguments = parser.parse_args()
    found = word_shares(english_captions(arguments.identities, arguments.seed))
    print(f"{found.captions} captions, {found.mean_words:.1f} words on average, longest {found.max_words}")
    print(f"{'word':<10} {'real':>6} {'ours':>6} {'apart':>6} {'allowed':>8}")
    for name, real in REAL_SHARES.items():
        apart = found.shares[name] - real
        mark = "" if abs(apart) <= allowed(real) else "  outside"
        print(f"{name:<10} {real:6.1f} {found.shares[name]:6.1f} {apart:+6.1f} {allowed(real):8.0f}{mark}")
    if arguments.write:
        options = f"--identities {arguments.identities} --seed {arguments.seed}"
        command = f"python benchmarks/caption_word_shares.py {options} --write"
        result = {
            "captions": found.captions,
            "mean_words": round(found.mean_words, 2),
            "max_words": found.max_words,
            "percent": {
                name: {"real": real, "ours": round(found.shares[name], 2)} for name, real in REAL_SHARES.items()
            },
        }
        import record  # a script beside this one; the tests import the functions above without it

        record.write("caption_word_shares", command, result)


if __name__ == "__main__":
    main()
