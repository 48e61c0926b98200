"""Seeded photographs and captions for the caption tests."""

from __future__ import annotations

import importlib.util
import sys
from functools import lru_cache
from itertools import islice
from pathlib import Path
from types import ModuleType

import numpy as np

from tipr.data.synthetic.attributes import sample_person, sample_shot
from tipr.data.synthetic.captions import Facts, facts, realise

LANGUAGES = ("en", "zh", "fr", "de")


@lru_cache(maxsize=2)
def some_facts(count: int, seed: int = 11) -> tuple[Facts, ...]:
    """What writers say about one photograph each of many identities."""
    generator = np.random.default_rng(seed)
    people = (sample_person(generator) for _ in range(count))
    return tuple(facts(person, sample_shot(generator, person, 0), generator) for person in people)


@lru_cache(maxsize=16)
def captions(language: str, plans: str, count: int, seed: int = 12) -> tuple[str, ...]:
    """The first of `some_facts(2000)`, worded."""
    generator = np.random.default_rng(seed)
    return tuple(
        realise(one, language, generator, plans="paraphrase" if plans == "paraphrase" else "training")
        for one in islice(some_facts(2000), count)
    )


def benchmark_script(name: str) -> ModuleType:
    """A script of the benchmarks folder as a module."""
    spec = importlib.util.spec_from_file_location(name, Path(__file__).parents[2] / "benchmarks" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


def expected_facts(told: Facts) -> set[str]:
    """The facts in the notation of the checkers."""
    items = told.items()
    stated = {told.age, told.action, told.view, "beard" if told.beard else "", "phone" if told.phone else ""} - {""}
    if "gender" in items:
        stated.add("gender:" + items["gender"])
    if told.eyewear:
        stated.add(told.eyewear + ":-")
    colors = {"shoes": "shoe_color"}
    for name in ("top", "inner", "bottom", "shoes", "hat", "scarf", "bag", "umbrella", "hair"):
        if name not in items:
            continue
        fact = f"{items[name]}:{items.get(colors.get(name, name + '_color'), '-')}"
        if name == "top" and "pattern" in items:
            fact += f":{items['pattern']}:{items.get('pattern_color', '-')}"
        prefix = {"inner": "inner ", "hair": "hair:"}.get(name, "")
        stated.add(prefix + fact)
    return stated
