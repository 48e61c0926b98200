"""The paraphrase style: no shared plan, at least 60 words of its own, few shared runs of five words."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest
from caption_samples import LANGUAGES, captions

from tipr.data.synthetic.captions import STYLES

TRAINING_COUNT, PARAPHRASE_COUNT = 2000, 800
SLOT = re.compile(r"\{\w*\}")


def tokens(text: str, language: str) -> list[str]:
    """Lower-cased words; for Chinese, which has no spaces, single characters (the T of T恤 is one)."""
    if language == "zh":
        return re.findall(r"[\u4e00-\u9fffT]", text)
    return re.findall(r"[^\W\d_]+", text.lower())


def runs(words: list[str]) -> Iterator[tuple[str, ...]]:
    return zip(*(words[start:] for start in range(5)), strict=False)


def lexical_items(language: str) -> set[str]:
    """Chinese words as the paraphrase lexicon lists them: nouns, colours and the pieces of its phrases and plans."""
    style = STYLES[language, "paraphrase"][1]
    texts = [forms[0] for group in (*style.colors.values(), *style.nouns.values()) for forms in group]
    texts += [text.partition("|")[0] for group in style.words.values() for text in group]
    texts += [text for group in style.phrases.values() for text in group] + [plan.text for plan in style.plans]
    return {piece for text in texts for piece in re.findall(r"[\u4e00-\u9fffT]+", SLOT.sub(" ", text))}


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
def test_at_least_sixty_words_that_training_captions_never_use(language: str) -> None:
    """Judged on finished captions of both styles."""
    training = captions(language, "training", TRAINING_COUNT)
    paraphrase = captions(language, "paraphrase", PARAPHRASE_COUNT)
    if language == "zh":
        seen, written = "\n".join(training), "\n".join(paraphrase)
        new = {item for item in lexical_items(language) if item in written and item not in seen}
    else:
        known = {word for text in training for word in tokens(text, language)}
        new = {word for text in paraphrase for word in tokens(text, language)} - known
        # a word that the training lexicon can write but happened not to is not new
        style = STYLES[language, "training"][1]
        stems = "\n".join(str(part).lower() for part in (style.colors, style.nouns, style.words, style.phrases))
        new -= set(re.findall(r"[^\W\d_]+", stems))
    assert len(new) >= 60


@pytest.mark.parametrize("language", LANGUAGES)
def test_at_most_a_fifth_of_the_runs_of_five_occur_in_training(language: str) -> None:
    """Runs of five words; of five characters for Chinese."""
    known = {run for text in captions(language, "training", TRAINING_COUNT) for run in runs(tokens(text, language))}
    told = [run for text in captions(language, "paraphrase", PARAPHRASE_COUNT) for run in runs(tokens(text, language))]
    assert sum(run in known for run in told) <= 0.2 * len(told)


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_word_and_plan_can_be_written(language: str) -> None:
    """No plan is dead: each of them opens some caption."""
    for kind, count in (("training", TRAINING_COUNT), ("paraphrase", PARAPHRASE_COUNT)):
        texts = captions(language, kind, count)
        for plan in STYLES[language, kind][1].plans:
            pieces = [re.escape(piece) for piece in SLOT.split(plan.text)]
            pattern = re.compile(".+?".join(pieces).replace(r"\ ", " "), re.IGNORECASE)
            assert any(pattern.match(text) for text in texts), plan.name
