"""The default estimator: its network, its training, and what the shipped one sees."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from tipr import Retriever
from tipr.data.samples import LANGUAGES
from tipr.errors import ConfigError, WeightsError
from tipr.translation import estimator_training
from tipr.translation.caption_reader import ROWS_TOGETHER, SLOTS, CaptionReader, places_of
from tipr.translation.damage import DAMAGES, draw_pair, draw_statement
from tipr.translation.estimator_training import Captions, losses, spelled, train_reader, vocabulary_of
from tipr.translation.estimators import SHIPPED, TextEncoderEstimator, load_estimator
from tipr.translation.wordings import style_of

SOURCE = "A woman is wearing a red jacket, blue jeans and white sneakers. She is carrying a black backpack."
FAITHFUL = {
    "zh": "一名女子身穿红色夹克，下身穿着蓝色牛仔裤，脚穿白色运动鞋。她背着一个黑色双肩包。",
    "fr": "Une femme porte une veste rouge, un jean bleu et des baskets blanches. Elle porte un sac à dos noir.",
    "de": "Eine Frau trägt eine rote Jacke, blaue Jeans und weiße Turnschuhe. Sie trägt einen schwarzen Rucksack.",
}
DAMAGED = {
    "zh": {
        "top_color": "一名女子身穿绿色夹克，下身穿着蓝色牛仔裤，脚穿白色运动鞋。她背着一个黑色双肩包。",
        "bottom": "一名女子身穿红色夹克，下身穿着蓝色半身裙，脚穿白色运动鞋。她背着一个黑色双肩包。",
        "bag": "一名女子身穿红色夹克，下身穿着蓝色牛仔裤，脚穿白色运动鞋。她没有双肩包。",
    },
    "fr": {
        "top_color": "Une femme porte une veste verte, un jean bleu et des baskets blanches. Elle porte un sac à dos "
        "noir.",
        "shoes": "Une femme porte une veste rouge et un jean bleu. Elle porte un sac à dos noir.",
        "language": FAITHFUL["de"],
    },
    "de": {
        "top_color": "Eine Frau trägt eine grüne Jacke, blaue Jeans und weiße Turnschuhe. Sie trägt einen schwarzen "
        "Rucksack.",
        "shoes": "Eine Frau trägt eine rote Jacke, blaue Jeans und weiße Stiefel. Sie trägt einen schwarzen Rucksack.",
        "bag": "Eine Frau trägt eine rote Jacke, blaue Jeans und weiße Turnschuhe.",
    },
}


@pytest.fixture(scope="module")
def shipped() -> TextEncoderEstimator:
    estimator = load_estimator("text-encoder")
    assert isinstance(estimator, TextEncoderEstimator)
    return estimator


@pytest.mark.parametrize("language", ["zh", "fr", "de"])
def test_damage_is_seen_and_where_it_is(shipped: TextEncoderEstimator, language: str) -> None:
    broken = DAMAGED[language]
    texts = [FAITHFUL[language], *broken.values()]
    noise, suspects = shipped.assess([SOURCE] * len(texts), texts, "en", language)
    assert noise[0] < 0.2
    assert noise[1:].min() > 0.6
    # a thing that is not there has no colour either, so either may be the least sure
    assert [suspect[:3] for suspect in suspects[1:]] == [name[:3] for name in broken]


def test_noise_depends_neither_on_batches_nor_on_order(shipped: TextEncoderEstimator) -> None:
    generator = np.random.default_rng(0)
    pairs = []
    while len(pairs) < 40:
        damage = DAMAGES[len(pairs) % 5] if len(pairs) % 2 else None
        pair = draw_pair(draw_statement(generator), "de", generator, damage=damage, plans="paraphrase")
        pairs += [pair] if pair else []
    sources, translations = [pair.source for pair in pairs], [pair.translation for pair in pairs]
    noise = shipped.noise(sources, translations, "en", "de")
    assert noise.dtype == np.float64
    assert ((noise >= 0) & (noise <= 1)).all()
    alone = [shipped.noise([a], [b], "en", "de")[0] for a, b in zip(sources[:5], translations[:5], strict=True)]
    np.testing.assert_allclose(noise[:5], alone, atol=1e-5)
    np.testing.assert_allclose(shipped.noise(sources[::-1], translations[::-1], "en", "de")[::-1], noise, atol=1e-5)
    assert shipped.noise([], [], "en", "de").shape == (0,)


def test_a_text_of_any_length_and_an_unknown_language(shipped: TextEncoderEstimator) -> None:
    assert shipped.noise(["A red coat. " * 200], ["Un manteau rouge. " * 200], "en", "fr").shape == (1,)
    with pytest.raises(ConfigError, match="no language 'es'; it knows en, zh, fr, de"):
        shipped.noise(["A coat."], ["Un abrigo."], "en", "es")


def test_the_shipped_estimator_is_small_and_says_how_it_was_made() -> None:
    assert sum(path.stat().st_size for path in SHIPPED.iterdir()) < 3_000_000
    assert '"seed"' in (SHIPPED / "estimator.json").read_text(encoding="utf-8")


def test_a_damaged_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="no estimator of translations"):
        load_estimator(f"text-encoder:{tmp_path}")
    for path in SHIPPED.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    (tmp_path / "estimator.safetensors").write_bytes(b"no weights")
    with pytest.raises(WeightsError, match="is damaged"):
        load_estimator(f"text-encoder:{tmp_path}")


def test_captions_read_together_or_alone_are_read_alike() -> None:
    reader = CaptionReader(vocabulary_size=50, max_tokens=16).eval()
    generator = torch.Generator().manual_seed(0)
    lengths = torch.randint(2, 17, (ROWS_TOGETHER + 9,), generator=generator)
    mask = torch.arange(16)[None] < lengths[:, None]
    ids = torch.randint(4, 50, mask.shape, generator=generator) * mask
    together = reader.read(ids, mask)
    for row in (0, 7, len(ids) - 1):
        alone = reader.read(ids[row : row + 1], mask[row : row + 1])
        torch.testing.assert_close(together.values[row], alone.values[0], atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(together.language[row], alone.language[0], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(together.values.exp().sum(-1), torch.ones(together.values.shape[:2]))


def test_noise_is_the_chance_that_any_slot_disagrees_or_the_language_is_wrong() -> None:
    torch.manual_seed(0)
    reader = CaptionReader(vocabulary_size=50, max_tokens=8).eval()
    ids, mask = torch.randint(4, 50, (4, 8)), torch.ones(4, 8, dtype=torch.bool)
    reading = reader.read(ids, mask)
    clean, logits = reader(reading, reading, torch.tensor([0, 1, 2, 3]))
    for row in range(4):
        agree = (1 - logits[row].sigmoid()).prod() * reading.language[row, row].exp()
        torch.testing.assert_close(clean[row].exp(), agree)


def test_a_new_piece_starts_as_the_mean_of_known_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(estimator_training, "VOCABULARY_STATEMENTS", 60)
    demo = Retriever.load("demo")
    reader, tokenizer = train_reader(demo, steps=0, seed=3)
    table = demo.encoder.state_dict()["text.embedding.weight"]
    old, new = vocabulary_of(demo.tokenizer), vocabulary_of(tokenizer)
    common = [piece for piece in new if piece in old]
    assert len(common) > 300
    started = reader.text.embedding.weight.detach()
    for piece in common[::40]:
        torch.testing.assert_close(started[new[piece]], table[old[piece]])
    joined = next(piece for piece in new if piece not in old)
    torch.testing.assert_close(started[new[joined]], table[spelled(joined, old)].mean(0))


def test_a_new_piece_is_spelled_in_the_longest_known_ones() -> None:
    assert spelled("abcab", {"a": 1, "b": 2, "c": 3, "ab": 4, "ca": 5}) == [4, 5, 2]


def test_rows_are_framed_and_a_long_one_is_cut() -> None:
    tokenizer = Retriever.load("demo").tokenizer
    ids, mask = places_of(tokenizer, [[7, 8], list(range(4, 30))], 10)
    assert ids.tolist()[0] == [tokenizer.start_id, 7, 8, tokenizer.end_id, *[tokenizer.pad_id] * 6]
    assert ids.tolist()[1] == [tokenizer.start_id, *range(4, 12), tokenizer.end_id]
    assert mask.sum(1).tolist() == [4, 10]


def test_a_batch_holds_each_statement_clean_and_damaged() -> None:
    batch = Captions(Retriever.load("demo").tokenizer, seed=3).batch(5)
    assert len(batch.ids) == 5 * 7
    assert len(batch.damaged) == 5 * 12
    assert batch.damaged.float().mean() == 0.5
    differ = (batch.values[batch.source] != batch.values[batch.translation]).any(1)
    wrong = batch.spoken[batch.translation] != batch.language
    assert (differ | wrong).equal(batch.damaged)
    assert not (differ & wrong).any()
    assert (batch.values < torch.tensor([1 + len(values) for values in SLOTS.values()])).all()


def test_training_lowers_every_loss_and_repeats(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(estimator_training, "VOCABULARY_STATEMENTS", 60)
    monkeypatch.setattr(estimator_training, "STATEMENTS", 4)
    threads = torch.get_num_threads()
    demo = Retriever.load("demo", threads=1)  # sums over two threads may differ in their last bits from run to run
    try:
        trained = [train_reader(demo, steps=steps, seed=3) for steps in (1, 3, 3)]
    finally:
        torch.set_num_threads(threads)
    readers, tokenizer = [reader for reader, _ in trained], trained[0][1]
    for first, second in zip(readers[1].parameters(), readers[2].parameters(), strict=True):
        assert torch.equal(first, second)
    batch = Captions(tokenizer, seed=8).batch(8)
    with torch.no_grad():
        early, late = (losses(reader, batch) for reader in readers[:2])
    assert sum(late.values()) < sum(early.values())


def test_the_study_style_knows_the_names_and_none_of_the_sentences_of_the_test() -> None:
    for language in LANGUAGES:
        study, test = (style_of(language, plans)[1] for plans in ("study", "paraphrase"))
        assert study.nouns == test.nouns
        assert study.colors == test.colors
        assert not {plan.text for plan in study.plans} & {plan.text for plan in test.plans}
        assert not set(sum(study.tails, ())) & set(sum(test.tails, ()))
        for fact, phrases in test.phrases.items():
            assert not set(phrases) & set(study.phrases.get(fact, ()))


def test_a_saved_reader_reads_as_before(tmp_path: Path) -> None:
    torch.manual_seed(0)
    tokenizer = Retriever.load("demo").tokenizer
    reader = CaptionReader(vocabulary_size=tokenizer.vocabulary_size, max_tokens=20).eval()
    reader.save(tmp_path / "new", tokenizer, {"seed": 0})
    assert sorted(path.name for path in (tmp_path / "new").iterdir()) == [
        "estimator.json",
        "estimator.safetensors",
        "tokenizer.json",
    ]
    loaded, words = CaptionReader.load(tmp_path / "new")
    assert not loaded.training
    ids, mask = places_of(words, words.pieces([SOURCE, FAITHFUL["zh"]]), 20)
    torch.testing.assert_close(loaded.read(ids, mask).values, reader.read(ids, mask).values, atol=0.05, rtol=0.0)
