"""What a writer mentions: only what can be seen, mostly right; and the shape in which facts are compared."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from tipr.data.synthetic.attributes import Person, Shot, sample_person, sample_shot
from tipr.data.synthetic.captions import Facts, Item, agrees, facts, realise, true_items
from tipr.errors import ConfigError


def _people(count: int, seed: int = 0) -> list[tuple[Person, Shot]]:
    generator = np.random.default_rng(seed)
    people = [sample_person(generator) for _ in range(count)]
    return [(person, sample_shot(generator, person, 0)) for person in people]


def test_stated_keys_are_true_keys() -> None:
    generator = np.random.default_rng(1)
    for person, shot in _people(300):
        true = true_items(person, shot)
        assert set(facts(person, shot, generator).items()) <= set(true)
        assert all(true.values())


def test_only_colours_are_ever_wrong_and_rarely() -> None:
    generator = np.random.default_rng(2)
    stated = wrong = 0
    for person, shot in _people(1500):
        true = true_items(person, shot)
        for key, value in facts(person, shot, generator).items().items():
            if "color" in key and key != "hair_color":
                stated += 1
                wrong += not agrees(value, true[key])
            else:
                assert agrees(value, true[key]), (key, value, true[key])
    assert 0.025 < wrong / stated < 0.055


def test_nothing_hidden_is_mentioned() -> None:
    generator = np.random.default_rng(3)
    for person, shot in _people(1500):
        said = facts(person, shot, generator)
        if not shot.feet_visible:
            assert said.shoes is None
        if not shot.from_front:
            assert not said.eyewear
            assert not said.beard
            assert said.inner is None
            assert said.top.pattern != "print"
        if person.has_outer:
            assert said.top.pattern == "solid"
        elif said.bottom is not None:
            assert said.bottom.kind != "dress"


def test_two_writers_differ_and_a_seed_repeats() -> None:
    person, shot = _people(1, seed=4)[0]
    generator = np.random.default_rng(5)
    assert len({facts(person, shot, generator) for _ in range(20)}) > 5
    first, second = (facts(person, shot, np.random.default_rng(6)) for _ in range(2))
    assert first == second
    assert realise(first, "de", np.random.default_rng(7)) == realise(first, "de", np.random.default_rng(7))


def test_body_and_skin_change_nothing() -> None:
    for person, shot in _people(50, seed=8):
        other = replace(person, skin=(person.skin + 1) % 6, build="slim" if person.build != "slim" else "heavy")
        said, same = (facts(one, shot, np.random.default_rng(9)) for one in (person, other))
        assert said == same


@pytest.mark.parametrize(
    ("stated", "true", "expected"),
    [
        ("red", "red", True),
        ("red", "blue", False),
        ("dark", "black", True),
        ("dark", "navy", True),
        ("dark", "white", False),
        ("dark", "none", False),
        ("bag", "handbag", True),
        ("bag", "none", False),
        ("shoes", "boots", True),
        ("none", "none", True),
    ],
)
def test_agreement_of_vague_words(stated: str, true: str, expected: bool) -> None:
    assert agrees(stated, true) is expected


def test_only_what_is_stated_is_listed() -> None:
    plain = Facts(gender="neutral", top=Item("shirt"))
    assert plain.items() == {"top": "shirt"}
    full = Facts(
        gender="f", top=Item("tshirt", "red", "striped", "white"), shoes=Item("shoes", "dark"), phone=True, view="back"
    )
    assert full.items() == {
        "gender": "f",
        "top": "tshirt",
        "top_color": "red",
        "pattern": "striped",
        "pattern_color": "white",
        "shoes": "shoes",
        "shoe_color": "dark",
        "phone": "yes",
        "view": "back",
    }


@pytest.mark.parametrize(("language", "plans"), [("it", "training"), ("en", "poetry")])
def test_unknown_language_or_plans(language: str, plans: str) -> None:
    with pytest.raises(ConfigError, match=r"en/training") as raised:
        realise(Facts("f", Item("shirt")), language, np.random.default_rng(0), plans=plans)  # type: ignore[arg-type]
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("plans", ["training", "paraphrase"])
@pytest.mark.parametrize("language", ["en", "zh", "fr", "de"])
def test_the_shortest_facts_make_a_sentence(language: str, plans: str) -> None:
    """A writer who names nothing but the shirt: no plan may ask for more."""
    generator = np.random.default_rng(10)
    for _ in range(100):
        text = realise(Facts("neutral", Item("shirt")), language, generator, plans=plans)  # type: ignore[arg-type]
        assert text.endswith(("。", "."))
        assert "{" not in text
