"""How often a band says "stands out" when the person is not in the gallery, per language, on held-out queries.

    python benchmarks/bands.py [--people 200] [--absent 250] [--write]

A gallery of rendered people (four photographs each) is filled with the demo model, which measures its bands
(`tipr.gallery.calibration`). Then people of another seed, who are not in it, are described in four languages: by whole
captions, by paraphrases, by the first words of a caption and by a part of it. Beside it: the same for people who are in
the gallery.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from record import write
from tipr.data.samples import LANGUAGES
from tipr.data.synthetic.attributes import Person, sample_person, sample_shot
from tipr.data.synthetic.benchmark import build, people_of
from tipr.data.synthetic.captions import facts, realise
from tipr.data.synthetic.presets import Knobs
from tipr.gallery import Gallery
from tipr.gallery.calibration import shortened

SEED = 1811
WANTED = 5.0
FIRST_WORDS = 6


def captions(people: list[Person], language: str, rng: np.random.Generator) -> dict[str, list[str]]:
    """Four ways to describe each of the people."""
    told: dict[str, list[str]] = {"caption": [], "paraphrase": [], "first words": [], "a part": []}
    for person in people:
        seen = facts(person, sample_shot(rng, person, 0), rng)
        whole = realise(seen, language, rng)
        told["caption"].append(whole)
        told["paraphrase"].append(realise(seen, language, rng, plans="paraphrase"))
        told["first words"].append(whole[:12] if language == "zh" else " ".join(whole.split()[:FIRST_WORDS]))
        told["a part"].append(shortened(realise(seen, language, rng), rng))
    return told


def share(gallery: Gallery, texts: list[str], language: str) -> float:
    """Per cent of the queries whose best picture stands out."""
    hits = gallery.search_many(texts, 1, language=language)
    return round(100 * float(np.mean([found[0].metadata["band"] == "stands_out" for found in hits])), 2)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--people", type=int, default=200)
    parser.add_argument("--absent", type=int, default=250)
    parser.add_argument("--write", action="store_true", help="write benchmarks/results/bands.json")
    options = parser.parse_args()
    knobs = Knobs(preset="bands", identities=(0, 0, options.people), seed=SEED)
    rng = np.random.default_rng(SEED + 1)
    absent = [sample_person(rng) for _ in range(options.absent)]
    with tempfile.TemporaryDirectory() as scratch:
        build(Path(scratch) / "people", knobs)
        gallery = Gallery.create(Path(scratch) / "gallery", "demo")
        gallery.add(manifest=Path(scratch) / "people" / "manifest.jsonl")
        measured = gallery.calibrate()
        assert measured is not None
        rates: dict[str, Any] = {}
        for language in LANGUAGES:
            away = captions(absent, language, rng)
            here = captions(people_of(knobs, "test"), language, rng)
            false = {kind: share(gallery, texts, language) for kind, texts in away.items()}
            rates[language] = {
                "absent_percent": false,
                "absent_percent_of_all": round(sum(false.values()) / len(false), 2),  # as many of each kind
                "present_percent": {kind: share(gallery, texts, language) for kind, texts in here.items()},
            }
        results = {
            "pictures": len(gallery),
            "background_queries": measured.queries,
            "held_out_queries_a_language": 4 * options.absent,
            "wanted_percent": WANTED,
            "worst_percent": max(rate["absent_percent_of_all"] for rate in rates.values()),
            "limits_in_units": {name: round(value, 2) for name, value in measured.stands_out.items()},
            "languages": rates,
        }
    json.dump(results, sys.stdout, indent=2)
    print()
    if options.write:
        print(write("bands", " ".join(["python", "benchmarks/bands.py", *sys.argv[1:]]), results))


if __name__ == "__main__":
    main()
