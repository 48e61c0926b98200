"""How often the language of a short query is told right, per language and length.

    python benchmarks/language_detection.py [--captions 500] [--write]

Two kinds of queries. Written: descriptions as somebody would type them, the same in every language; none was changed
or left out after the detector had seen it. Cut: the first words of benchmark captions (training wording), which speak
of people in the words that a search uses; of Chinese, which has no blanks, as many characters as three times the words.
An answer is right, wrong, or "unknown", which a search treats like the model's source language.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np

from record import write
from tipr.data.samples import LANGUAGES
from tipr.data.synthetic.attributes import sample_person, sample_shot
from tipr.data.synthetic.captions import facts, realise
from tipr.retrieval.language import detect_language

WRITTEN: dict[str, dict[str, tuple[str, ...]]] = {
    "1-2 words": {
        "en": ("red dress", "woman", "black backpack", "man", "blue jeans", "white shirt", "long hair", "glasses",
               "grey hoodie", "umbrella", "yellow jacket", "green hat"),
        "zh": ("红裙子", "女人", "黑色背包", "男人", "牛仔裤", "白衬衫", "长头发", "眼镜",
               "灰色卫衣", "雨伞", "黄夹克", "绿帽子"),
        "fr": ("robe rouge", "femme", "sac noir", "homme", "jean bleu", "chemise blanche", "cheveux longs", "lunettes",
               "sweat gris", "parapluie", "veste jaune", "chapeau vert"),
        "de": ("rotes Kleid", "Frau", "schwarzer Rucksack", "Mann", "blaue Jeans", "weißes Hemd", "lange Haare",
               "Brille", "grauer Pullover", "Regenschirm", "gelbe Jacke", "grüner Hut"),
    },
    "3-5 words": {
        "en": ("a woman in red", "man with black backpack", "girl with long hair", "short skirt and boots",
               "an old man", "boy on a phone", "blue coat, grey trousers", "someone carrying an umbrella",
               "striped shirt and shorts", "a person wearing glasses", "white shoes", "lady with a brown handbag"),
        "zh": ("穿红衣服的女人", "背黑色背包的男人", "长头发的女孩", "短裙和靴子", "一位老人", "打电话的男孩",
               "蓝大衣灰裤子",
               "打着伞的人", "条纹衫和短裤", "戴眼镜的人", "白色的鞋", "拿棕色手提包的女士"),
        "fr": ("une femme en rouge", "homme avec sac noir", "fille aux cheveux longs", "jupe courte et bottes",
               "un vieil homme", "garçon au téléphone", "manteau bleu, pantalon gris", "quelqu'un avec un parapluie",
               "chemise rayée et short", "une personne à lunettes", "des chaussures blanches",
               "dame avec un sac marron"),
        "de": ("eine Frau in Rot", "Mann mit schwarzem Rucksack", "Mädchen mit langen Haaren",
               "kurzer Rock und Stiefel", "ein alter Mann", "Junge am Telefon", "blauer Mantel, graue Hose",
               "jemand mit einem Regenschirm", "gestreiftes Hemd und Shorts", "eine Person mit Brille",
               "mit weißen Schuhen", "Dame mit brauner Handtasche"),
    },
    "6-12 words": {
        "en": ("a woman in a red dress with a black backpack", "a man wearing a white T-shirt and blue jeans",
               "he has short hair and carries a bag", "a young girl with a pink umbrella and yellow boots",
               "the man in the grey suit is looking at his phone", "a lady with long black hair and sunglasses",
               "somebody in a dark hoodie, hands in the pockets", "a tall man with a beard and a green jacket",
               "she wears a striped sweater over a long skirt", "a boy in shorts riding past on a scooter",
               "a person with a baseball cap and white sneakers", "a woman pushing a pram, wearing a beige coat"),
        "zh": ("一名穿红色连衣裙、背黑色双肩包的女士", "一个穿白色T恤和蓝色牛仔裤的男人", "他留着短发，手里提着一个包",
               "一个打着粉色雨伞、穿黄色靴子的小女孩", "穿灰色西装的男人正在看手机", "一位黑色长发、戴墨镜的女士",
               "一个穿深色卫衣、双手插兜的人", "一个留胡子、穿绿色夹克的高个子男人", "她穿着条纹毛衣和一条长裙",
               "一个穿短裤、骑滑板车经过的男孩", "一个戴棒球帽、穿白色运动鞋的人", "一个推着婴儿车、穿米色大衣的女人"),
        "fr": ("une femme en robe rouge avec un sac à dos noir", "un homme en t-shirt blanc et jean bleu",
               "il a les cheveux courts et porte un sac",
               "une petite fille avec un parapluie rose et des bottes jaunes",
               "l'homme au costume gris regarde son téléphone",
               "une dame aux longs cheveux noirs avec des lunettes de soleil",
               "quelqu'un en sweat foncé, les mains dans les poches", "un grand homme barbu avec une veste verte",
               "elle porte un pull rayé sur une jupe longue", "un garçon en short qui passe en trottinette",
               "une personne avec une casquette et des baskets blanches",
               "une femme en manteau beige qui pousse une poussette"),
        "de": ("eine Frau in einem roten Kleid mit schwarzem Rucksack", "ein Mann in weißem T-Shirt und blauen Jeans",
               "er hat kurze Haare und trägt eine Tasche", "ein kleines Mädchen mit rosa Schirm und gelben Stiefeln",
               "der Mann im grauen Anzug schaut auf sein Handy",
               "eine Dame mit langen schwarzen Haaren und Sonnenbrille",
               "jemand in einem dunklen Hoodie, die Hände in den Taschen", "ein großer Mann mit Bart und grüner Jacke",
               "sie trägt einen gestreiften Pullover über einem langen Rock",
               "ein Junge in kurzen Hosen, der auf einem Roller vorbeifährt",
               "eine Person mit Baseballkappe und weißen Turnschuhen",
               "eine Frau im beigen Mantel, die einen Kinderwagen schiebt"),
    },
}  # fmt: skip
"""Length -> language -> queries; the n-th of each language mean the same."""
CUTS = (1, 2, 3, 5, 8)
"""Words that are left of a caption."""
CHARACTERS = 3
"""Chinese characters for one word."""


def answers(queries: Sequence[str], language: str) -> dict[str, Any]:
    """How many were right, what the others were taken for, and the wrong ones by name (at most eight)."""
    found = [detect_language(query).language or "unknown" for query in queries]
    wrong = [f"{query} -> {code}" for query, code in zip(queries, found, strict=True) if code != language]
    return {
        "queries": len(queries),
        "right": found.count(language),
        "percent": round(100.0 * found.count(language) / len(queries), 1),
        "taken_for": dict(sorted(Counter(code for code in found if code != language).items())),
        "examples": list(dict.fromkeys(wrong))[:8],
    }


def captions(language: str, count: int) -> list[str]:
    """Benchmark captions of random people, the same people for every language."""
    generator = np.random.default_rng(31)
    people = [(person := sample_person(generator), sample_shot(generator, person, 0)) for _ in range(count)]
    writer = np.random.default_rng(32)
    return [realise(facts(person, shot, writer), language, writer) for person, shot in people]


def cut(caption: str, words: int, language: str) -> str:
    """The beginning of a caption."""
    return caption[: CHARACTERS * words] if language == "zh" else " ".join(caption.split()[:words])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--captions", type=int, default=500)
    parser.add_argument("--write", action="store_true", help="write benchmarks/results/language_detection.json")
    options = parser.parse_args()
    start = time.perf_counter()
    detect_language("a man in a blue jacket")
    load = time.perf_counter() - start
    everything = [text for queries in WRITTEN.values() for texts in queries.values() for text in texts]
    start = time.perf_counter()
    for text in everything:
        detect_language(text)
    each = (time.perf_counter() - start) / len(everything)
    written = {
        length: {code: answers(queries[code], code) for code in LANGUAGES} for length, queries in WRITTEN.items()
    }
    texts = {code: captions(code, options.captions) for code in LANGUAGES}
    cuts = {
        f"first {words}": {code: answers([cut(text, words, code) for text in texts[code]], code) for code in LANGUAGES}
        for words in CUTS
    }
    overall = {
        code: round(
            100.0
            * sum(written[length][code]["right"] for length in WRITTEN)
            / sum(written[length][code]["queries"] for length in WRITTEN),
            1,
        )
        for code in LANGUAGES
    }
    results = {
        "load_seconds": round(load, 2),
        "milliseconds_per_query": round(1000 * each, 3),
        "written_percent": overall,
        "written": written,
        "cut": cuts,
    }
    json.dump(results, sys.stdout, indent=2, ensure_ascii=False)
    print()
    if options.write:
        print(
            write(
                "language_detection", " ".join(["python", "benchmarks/language_detection.py", *sys.argv[1:]]), results
            )
        )


if __name__ == "__main__":
    main()
