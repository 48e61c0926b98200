"""Batches in two languages: the right translation, drawn for each sample, the same for any number of processes."""

from __future__ import annotations

from collections import Counter
from dataclasses import fields, replace
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from tipr.data.batch import IGNORE, BilingualBatch
from tipr.data.bilingual_loading import BilingualSource, Translations
from tipr.data.images import Preprocessing
from tipr.data.loading import Captions, ImageStore, stream
from tipr.data.patch_masking import PatchMasking
from tipr.data.samples import ImageItem, Split
from tipr.data.sampling import RandomSampler
from tipr.data.span_masking import SpanMasking
from tipr.data.two_of_six import TwoOfSix
from tipr.errors import DatasetError

SIZE, LENGTH, MASK_ID, VOCABULARY = (12, 8), 16, 3, 90
IMAGES = 14
LANGUAGES = ("zh", "fr")


@pytest.fixture(scope="module")
def split(tmp_path_factory: pytest.TempPathFactory) -> Split:
    """Two captions of each image in three languages, in another order of languages for every image."""
    folder = tmp_path_factory.mktemp("pictures")
    items = []
    for number, pixels in enumerate(np.random.default_rng(0).integers(0, 256, (IMAGES, *SIZE, 3), dtype=np.uint8)):
        path = folder / f"{number}.png"
        Image.fromarray(pixels).save(path)
        texts = [(language, f"{language} {number} {place}") for place in range(2) for language in ("en", "zh", "fr")]
        texts.sort(key=lambda each: (number + ord(each[0][0])) % 5)
        items.append(ImageItem(path, number // 2, tuple(texts)))
    return Split.build("train", items)


def tokens(texts: tuple[str, ...]) -> Captions:
    """Ids that say which caption it is: start, number of the image, number of the caption, words, end."""
    ids, mask = np.full((len(texts), LENGTH), 1), np.zeros((len(texts), LENGTH), np.bool_)
    for row, text in enumerate(texts):
        language, image, place = text.split()
        words = 3 + (7 * row + len(language)) % 9
        line = [0, 10 + int(image), 40 + int(place), *[50 + ord(language[0]) % 40] * words, 2]
        ids[row, : len(line)], mask[row, : len(line)] = line, True
    return Captions(ids, mask)


def make(split: Split, **changes: Any) -> BilingualSource:
    triples = Translations.match(split, "en", LANGUAGES)
    seed = changes.pop("seed", 5)
    settings: dict[str, Any] = {
        "masking": SpanMasking(MASK_ID, VOCABULARY),
        "patches": PatchMasking((6, 4)),
        "mask_each_image": False,
        "sampler": RandomSampler(triples.identity, triples.image_id, batch_size=6, seed=seed),
        "augmentation": TwoOfSix(),
        "preprocessing": Preprocessing(SIZE),
        "trim": True,
        **changes,
    }
    return BilingualSource(
        ImageStore(split.images, SIZE, budget=2**20),
        tokens(triples.source),
        {language: tokens(captions) for language, captions in triples.targets.items()},
        triples.identity,
        triples.image_id,
        **settings,
    )


def epoch(source: BilingualSource, number: int = 1) -> list[BilingualBatch]:
    return [source.batch(number, index) for index in range(source.length(number))]


def values(batch: BilingualBatch) -> dict[str, Any]:
    return {field.name: getattr(batch, field.name) for field in fields(batch)}


def equal(one: BilingualBatch, two: BilingualBatch) -> bool:
    pairs = zip(values(one).values(), values(two).values(), strict=True)
    return all(torch.equal(a, b) if isinstance(a, Tensor) else a == b for a, b in pairs)


def test_captions_are_matched_by_image_and_order_whatever_order_the_languages_come_in(split: Split) -> None:
    triples = Translations.match(split, "en", LANGUAGES)
    assert len(triples.source) == 2 * IMAGES
    for row, source in enumerate(triples.source):
        _, image, _ = source.split()
        assert triples.image_id[row] == int(image)
        assert triples.identity[row] == int(image) // 2
        same = [caption for caption in triples.source if caption.split()[1] == image]
        for language in LANGUAGES:
            of_image = [caption for caption in triples.targets[language] if caption.split()[1] == image]
            in_split = [s.caption for s in split.samples if s.language == language and s.image_id == int(image)]
            assert of_image == in_split
            assert triples.targets[language][row] == in_split[same.index(source)]


@pytest.mark.parametrize(("language", "left"), [("zh", 1), ("fr", 0)])
def test_a_missing_translation_is_named_with_its_image(split: Split, language: str, left: int) -> None:
    of_image = [sample for sample in split.samples if (sample.image_id, sample.language) == (3, language)]
    keep = [sample for sample in split.samples if sample not in of_image[left:]]
    fewer = replace(split, samples=tuple(keep))
    with pytest.raises(DatasetError) as caught:
        Translations.match(fewer, "en", LANGUAGES)
    message = str(caught.value)
    assert f"1 of {IMAGES} images" in message
    assert f"'en' and {language!r}" in message
    assert f"{split.images[3]} with 2 and {left}" in message


def test_an_epoch_has_every_triple_once_and_all_of_it_fits_together(split: Split) -> None:
    batches = epoch(make(split))
    rows = torch.cat([batch.row for batch in batches])
    assert sorted(rows.tolist()) == list(range(2 * IMAGES))
    triples = Translations.match(split, "en", LANGUAGES)
    for batch in batches:
        assert torch.equal(batch.source_ids[:, 1:3], batch.target_ids[:, 1:3])  # the same image, the same place
        assert batch.identity.tolist() == triples.identity[batch.row].tolist()
        word = 50 + ord(batch.target_language[0]) % 40
        assert (batch.target_ids[:, 3] == word).all()
        assert batch.source_ids.shape == batch.target_ids.shape
        longest = max(batch.source_mask.sum(dim=1).max(), batch.target_mask.sum(dim=1).max())
        assert batch.source_ids.shape[1] == longest
        for language in ("source", "target"):
            ids, mask, masked, labels = (
                getattr(batch, name.format(language)) for name in ("{}_ids", "{}_mask", "masked_{}_ids", "{}_labels")
            )
            chosen = labels != IGNORE
            assert torch.equal(labels[chosen], ids[chosen])
            assert torch.equal(masked[~chosen], ids[~chosen])
            number = mask.sum(dim=1).numpy()
            assert chosen.sum(dim=1).tolist() == np.minimum(12, np.rint(0.4 * number)).tolist()
            assert not (chosen & ~mask).any()


def test_captions_of_the_two_languages_are_masked_independently(split: Split) -> None:
    def chosen(number: int, language: str) -> Tensor:
        batches = epoch(make(split, trim=False), number)
        labels = torch.cat([getattr(batch, f"{language}_labels") for batch in batches])
        return labels[torch.cat([batch.row for batch in batches]).argsort()] != IGNORE

    assert not torch.equal(chosen(1, "source"), chosen(1, "target"))
    assert not torch.equal(chosen(1, "source"), chosen(2, "source"))


def test_every_target_language_has_its_turn(split: Split) -> None:
    source = make(split)
    drawn = [[source.target_language(number, index) for index in range(12)] for number in range(1, 30)]
    for languages in drawn:
        assert all(set(languages[start : start + 2]) == set(LANGUAGES) for start in range(0, 12, 2))
    assert len({tuple(languages) for languages in drawn}) > 20
    assert 0.3 < Counter(languages[0] for languages in drawn)["zh"] / 29 < 0.7
    other = make(split, seed=6)
    assert drawn != [[other.target_language(number, index) for index in range(12)] for number in range(1, 30)]


def test_two_processes_make_the_two_halves_of_the_batch_of_one(split: Split) -> None:
    for each_image in (False, True):
        one = epoch(make(split, mask_each_image=each_image))
        halves = [epoch(make(split, mask_each_image=each_image, rank=rank, processes=2)) for rank in (0, 1)]
        for whole, *parts in zip(one, *halves, strict=True):
            for name, value in values(whole).items():
                first, second = (getattr(part, name) for part in parts)
                if name == "target_language":
                    assert first == second == value
                elif name == "patch_mask" and not each_image:
                    assert torch.equal(first, second)
                    assert torch.equal(first, value)
                else:
                    together = torch.cat([first, second])
                    assert torch.equal(together, value[: len(together)]), name  # an odd last row is left out


def test_masks_of_patches_are_drawn_for_each_step_or_for_each_image(split: Split) -> None:
    shared = [batch.patch_mask for batch in epoch(make(split))]
    assert all(mask is not None and mask.shape == (24,) and mask.dtype == torch.bool for mask in shared)
    assert len({tuple(mask.tolist()) for mask in shared if mask is not None}) == len(shared)
    own = [batch.patch_mask for batch in epoch(make(split, mask_each_image=True))]
    assert own[0] is not None
    assert own[0].shape == (6, 24)
    assert len({tuple(row.tolist()) for row in own[0]}) == 6


def test_what_a_method_does_not_use_is_not_made(split: Split) -> None:
    for batch in epoch(make(split, masking=None, patches=None)):
        assert batch.patch_mask is None
        assert torch.equal(batch.masked_source_ids, batch.source_ids)
        assert torch.equal(batch.masked_target_ids, batch.target_ids)
        assert (batch.source_labels == IGNORE).all()
        assert (batch.target_labels == IGNORE).all()


def test_workers_and_restarts_change_nothing(split: Split) -> None:
    plain = epoch(make(split)) + epoch(make(split), 2)
    made = stream(make(split), epoch=1, index=3, workers=2)
    for expected in plain[3:8]:
        assert equal(next(made), expected)


def test_a_batch_moves_as_a_whole(split: Split) -> None:
    batch = make(split).batch(1, 0).to("meta")
    for name, value in values(batch).items():
        assert value.device.type == "meta" if isinstance(value, Tensor) else value in LANGUAGES, name
    assert replace(batch, patch_mask=None).to("meta").patch_mask is None


def test_an_epoch_over_images_takes_one_caption_of_each_and_its_translation(split: Split) -> None:
    triples = Translations.match(split, "en", LANGUAGES)
    sampler = RandomSampler(triples.identity, triples.image_id, batch_size=4, seed=5, unit="image")
    seen: list[NDArray[np.int64]] = []
    for number in (1, 2, 3):
        batches = epoch(make(split, sampler=sampler), number)
        rows = np.sort(torch.cat([batch.row for batch in batches]).numpy())
        assert triples.image_id[rows].tolist() == list(range(IMAGES))
        assert all(torch.equal(batch.source_ids[:, 1:3], batch.target_ids[:, 1:3]) for batch in batches)
        seen.append(rows)
    assert len({tuple(rows.tolist()) for rows in seen}) == 3
