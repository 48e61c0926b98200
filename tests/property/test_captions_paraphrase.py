"""The paraphrase style: no shared plan, at least 60 words of its own, few shared runs of five words."""

from __future__ import annotations

import re
from types import ModuleType

import pytest
from caption_samples import LANGUAGES, benchmark_script, captions

from tipr.data.synthetic.captions import STYLES

TRAINING_COUNT, PARAPHRASE_COUNT = 2000, 800
SLOT = re.compile(r"\{\w*\}")


@pytest.fixture(scope="module")
def script() -> ModuleType:
    return benchmark_script("caption_paraphrases")


def skeleton(text: str) -> str:
    """A plan with its slots made equal, so that only its own words and order are left."""
    return SLOT.sub("{}", text)


@pytest.mark.parametrize("language", LANGUAGES)
def test_at_least_eight_plans_and_none_shared(language: str) -> None:
    training = STYLES[language, "training"][1]
    paraphrase = STYLES[language, "paraphrase"][1]
    assert len(paraphrase.plans) >= 8
    assert len({skeleton(plan.text) for plan in paraphrase.plans}) == len(paraphrase.plans)
    assert not {plan.name for plan in training.plans} & {plan.name for plan in paraphrase.plans}
    ours = {skeleton(plan.text) for plan in training.plans}
    ours |= {skeleton(text) for tail in training.tails for text in tail}
    theirs = {skeleton(plan.text) for plan in paraphrase.plans}
    theirs |= {skeleton(text) for tail in paraphrase.tails for text in tail}
    assert not ours & theirs


@pytest.mark.parametrize("language", LANGUAGES)
def test_at_least_sixty_words_that_training_captions_never_use(script: ModuleType, language: str) -> None:
    """Judged on finished captions of both styles, and on the training lexicon."""
    training = captions(language, "training", TRAINING_COUNT)
    paraphrases = captions(language, "paraphrase", PARAPHRASE_COUNT)
    new = script.new_words(language, training, paraphrases)
    assert len(new) >= 60
    assert not any(
        re.search(rf"(?<!\w){word}(?!\w)", text, re.IGNORECASE) for word in sorted(new)[:5] for text in training
    )


@pytest.mark.parametrize("language", LANGUAGES)
def test_at_most_a_fifth_of_the_runs_of_five_occur_in_training(script: ModuleType, language: str) -> None:
    """Runs of five words; of five characters for Chinese."""
    training = captions(language, "training", TRAINING_COUNT)
    assert script.shared_runs(language, training, captions(language, "paraphrase", PARAPHRASE_COUNT)) <= 0.2
    assert script.shared_runs(language, training, training[:50]) == 1


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_word_and_plan_can_be_written(language: str) -> None:
    """No plan is dead: each of them opens some caption."""
    for kind, count in (("training", TRAINING_COUNT), ("paraphrase", PARAPHRASE_COUNT)):
        texts = captions(language, kind, count)
        for plan in STYLES[language, kind][1].plans:
            pieces = [re.escape(piece) for piece in SLOT.split(plan.text)]
            pattern = re.compile(".+?".join(pieces).replace(r"\ ", " "), re.IGNORECASE)
            assert any(pattern.match(text) for text in texts), plan.name
