"""The reader without pixels: agreement with a slow version, known extremes, independence of the block size."""

from __future__ import annotations

import numpy as np
import pytest

from tipr.data.synthetic.attributes import sample_person, sample_shot
from tipr.data.synthetic.captions import agrees, facts, true_items
from tipr.data.synthetic.reference_reader import reference_scores, similarity_blocks

Items = list[dict[str, str]]


def world(people: int = 12, images: int = 2) -> tuple[Items, Items, np.ndarray]:
    """Stated facts of one caption per image, true attributes per image, identity per image."""
    generator = np.random.default_rng(5)
    stated, true = [], []
    for _ in range(people):
        person = sample_person(generator)
        for camera in range(images):
            shot = sample_shot(generator, person, camera)
            stated.append(facts(person, shot, generator).items())
            true.append(true_items(person, shot))
    return stated, true, np.repeat(np.arange(people), images)


def slow_score(stated: dict[str, str], true: dict[str, str]) -> float:
    score = 0.0
    for key, value in true.items():
        weight = 2.0 if key in ("umbrella", "umbrella_color", "phone") else 1.0
        if key in stated:
            score += weight if agrees(stated[key], value) else -weight
        elif key in ("hat", "bag", "umbrella") and value != "none":
            score -= 0.8
    return score


def test_similarity_is_the_slow_agreement_up_to_the_noise() -> None:
    stated, true, _ = world()
    fast = np.concatenate(list(similarity_blocks(stated, true)))
    slow = np.array([[slow_score(facts, image) for image in true] for facts in stated])
    assert fast.shape == slow.shape == (24, 24)
    assert ((fast - slow >= -1e-5) & (fast - slow <= 0.01 + 1e-5)).all()


def test_block_size_does_not_matter_and_the_seed_decides_ties() -> None:
    stated, true, _ = world()
    whole = np.concatenate(list(similarity_blocks(stated, true)))
    assert np.array_equal(whole, np.concatenate(list(similarity_blocks(stated, true, block=5))))
    assert not np.array_equal(whole, np.concatenate(list(similarity_blocks(stated, true, seed=1))))


def test_a_reader_who_is_told_everything_is_right_and_one_who_is_told_nothing_guesses() -> None:
    _, true, identity = world(people=60)
    told = reference_scores(true, true, identity, identity)
    assert told.recall_1 == 100
    assert told.chance_recall_1 == pytest.approx(100 * 2 / 120)
    # as many silent captions as it takes to see chance
    nothing = reference_scores([{}] * 120 * 8, true, np.tile(identity, 8), identity)
    assert nothing.recall_1 < 10
    assert told.to_json()["gallery"] == 120


def test_vague_and_wrong_words() -> None:
    _, true, identity = world()
    image = true[0]
    [[exact]] = [np.ravel(block) for block in similarity_blocks([{"top": image["top"]}], [image])]
    [[wrong]] = [np.ravel(block) for block in similarity_blocks([{"top": "no such thing"}], [image])]
    assert exact - wrong == pytest.approx(2, abs=0.02)
    shoes = {**image, "shoes": "boots"}
    [[vague]] = [np.ravel(block) for block in similarity_blocks([{"shoes": "shoes"}], [shoes])]
    [[named]] = [np.ravel(block) for block in similarity_blocks([{"shoes": "boots"}], [shoes])]
    assert vague == pytest.approx(named)
    assert len(identity) == len(true)
