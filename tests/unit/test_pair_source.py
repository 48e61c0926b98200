"""Batches of bare pairs: two views, drawn for each pair, the same for any number of workers and processes."""

from dataclasses import fields

import numpy as np
import pytest
import torch
from PIL import Image

import tipr.data.loading
from tipr.data.augmentation import Augmentation
from tipr.data.batch import PairBatch
from tipr.data.images import Preprocessing, normalise
from tipr.data.loading import BatchSource, Captions, ImageStore, PairSource, stream
from tipr.data.masking import CaptionPerturbation
from tipr.data.sampling import IdentitySampler, RandomSampler
from tipr.data.views import PairViews
from tipr.errors import ConfigError

ROWS, LENGTH, MASK = 47, 12, 3
SIZE = (12, 8)
VIEWED = ("pixels", "perturbed_pixels", "ids", "mask", "perturbed_ids", "image_id", "row")
IMAGE_ID = np.sort(np.random.default_rng(1).integers(0, 16, ROWS))


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pictures")
    paths = []
    for index, pixels in enumerate(np.random.default_rng(0).integers(0, 256, (16, *SIZE, 3), dtype=np.uint8)):
        paths.append(folder / f"{index}.png")
        Image.fromarray(pixels).save(paths[-1])
    return paths


def captions():
    rng = np.random.default_rng(2)
    mask = np.arange(LENGTH) < rng.integers(3, LENGTH + 1, ROWS)[:, None]
    return Captions(np.where(mask, rng.integers(4, 50, (ROWS, LENGTH)), 0), mask)


def settings(trim=True, rank=0, processes=1):
    return {
        "sampler": RandomSampler(None, IMAGE_ID, batch_size=12, seed=3),
        "augmentation": Augmentation(pad=2),
        "preprocessing": Preprocessing(SIZE),
        "trim": trim,
        "rank": rank,
        "processes": processes,
    }


def source(pictures, *, perturbed=True, ratio=0.5, budget=2**20, common=None, **views):
    return PairSource(
        ImageStore(pictures, SIZE, budget=budget),
        captions(),
        IMAGE_ID,
        views=PairViews(**views),
        perturbation=CaptionPerturbation(MASK, (4, 50), ratio) if perturbed else None,
        **(common or settings()),
    )


def epoch(maker, number=1):
    return [maker.batch(number, index) for index in range(maker.length(number))]


def equal(one, two):
    return all(torch.equal(getattr(one, name), getattr(two, name)) for name in VIEWED)


def test_a_batch_has_no_place_for_people():
    assert tuple(field.name for field in fields(PairBatch)) == VIEWED


def test_the_clean_view_is_what_evaluation_sees(pictures):
    maker = source(pictures)
    rows = []
    for batch in epoch(maker):
        row = batch.row.numpy()
        length = batch.ids.shape[1]
        assert torch.equal(batch.pixels, normalise(torch.from_numpy(maker.images.take(IMAGE_ID[row]))))
        assert batch.image_id.tolist() == IMAGE_ID[row].tolist()
        assert batch.ids.tolist() == maker.captions.ids[row, :length].tolist()
        assert batch.mask.sum(1).max() == length
        rows += row.tolist()
    assert sorted(rows) == list(range(ROWS))


def test_the_perturbed_view_is_augmented_as_for_labelled_methods_and_masked(pictures):
    labelled = BatchSource(
        ImageStore(pictures, SIZE, budget=2**20), captions(), IMAGE_ID // 2, IMAGE_ID, masking=None, **settings()
    )
    for perturb in ("both", "crossed"):
        for index, batch in enumerate(epoch(source(pictures, perturb=perturb))):
            assert torch.equal(batch.perturbed_pixels, labelled.batch(1, index).pixels)
            words = batch.mask.sum(1)
            masked = batch.perturbed_ids == MASK
            assert masked.sum(1).tolist() == torch.floor(0.5 * words + 0.5).int().tolist()
            assert torch.equal(batch.perturbed_ids[~masked], batch.ids[~masked])


def test_one_of_two_leaves_the_other_side_clean(pictures):
    sides = []
    for number in range(1, 11):
        for whole, single in zip(
            epoch(source(pictures), number), epoch(source(pictures, perturb="one_of_two"), number), strict=True
        ):
            image = (single.perturbed_ids == single.ids).all(1)  # half of at least 3 tokens: a masked caption differs
            assert torch.equal(single.pixels, whole.pixels)
            assert torch.equal(single.perturbed_pixels[image], whole.perturbed_pixels[image])
            assert torch.equal(single.perturbed_pixels[~image], single.pixels[~image])
            assert torch.equal(single.perturbed_ids[~image], whole.perturbed_ids[~image])
            sides.append(image)
    drawn = torch.cat(sides).float()
    assert abs(drawn.mean() - 0.5) < 0.1  # 470 coins: 4 standard deviations


@pytest.mark.parametrize("chosen", [0.0, 1.0])
def test_one_of_two_may_pick_the_same_side_for_a_whole_batch(pictures, monkeypatch, chosen):
    maker = source(pictures, perturb="one_of_two")
    side = np.full(12, chosen < 0.5)
    monkeypatch.setattr(maker, "_sides", lambda epoch, rows: (side, ~side))
    batch = maker.batch(1, 0)
    assert torch.equal(batch.perturbed_ids, batch.ids) == side.all()
    assert torch.equal(batch.perturbed_pixels, batch.pixels) != side.all()


def test_without_the_perturbed_view_nothing_is_made_for_it(pictures, monkeypatch):
    whole = source(pictures).batch(1, 0)
    monkeypatch.delattr(tipr.data.loading, "augment")
    batch = source(pictures, perturbed=False).batch(1, 0)
    assert batch.perturbed_pixels is None
    assert batch.perturbed_ids is None
    for name in ("pixels", "ids", "mask", "image_id", "row"):
        assert torch.equal(getattr(batch, name), getattr(whole, name)), name
    assert batch.to("cpu").perturbed_ids is None
    assert equal(whole.to("cpu"), whole)


def test_an_image_is_decoded_once_for_both_views(pictures, monkeypatch):
    maker = source(pictures, budget=0, clean_view_augment="full")
    reads = []
    read = maker.images._read
    monkeypatch.setattr(maker.images, "_read", lambda path: reads.append(path) or read(path))
    maker.batch(1, 0)
    assert len(reads) == 12


def test_a_clean_view_can_be_mirrored(pictures):
    mirrored = []
    for batch, plain in zip(epoch(source(pictures, clean_view_augment="flip")), epoch(source(pictures)), strict=True):
        same = (batch.pixels == plain.pixels).flatten(1).all(1)
        assert torch.equal(batch.pixels[~same], plain.pixels[~same].flip(-1))
        assert torch.equal(batch.perturbed_pixels, plain.perturbed_pixels)
        mirrored.append(~same)
    assert 10 < torch.cat(mirrored).sum() < 37


def test_a_fully_augmented_clean_view_has_draws_of_its_own(pictures):
    for batch, plain in zip(epoch(source(pictures, clean_view_augment="full")), epoch(source(pictures)), strict=True):
        assert not (batch.pixels == plain.pixels).flatten(1).all(1).all()
        assert not (batch.pixels == batch.perturbed_pixels).flatten(1).all(1).any()
        assert torch.equal(batch.perturbed_pixels, plain.perturbed_pixels)


def test_ratio_zero_masks_nothing(pictures):
    batch = source(pictures, ratio=0.0).batch(1, 0)
    assert torch.equal(batch.perturbed_ids, batch.ids)


@pytest.mark.parametrize("perturb", ["both", "one_of_two"])
def test_shares_of_processes_make_the_batch_of_one(pictures, perturb):
    whole = source(pictures, perturb=perturb, clean_view_augment="flip")
    parts = [
        source(pictures, perturb=perturb, clean_view_augment="flip", common=settings(rank=rank, processes=2))
        for rank in (0, 1)
    ]
    for index in range(whole.length(1) - 1):
        one, two = whole.batch(1, index), [part.batch(1, index) for part in parts]
        for name in VIEWED:
            assert torch.equal(getattr(one, name), torch.cat([getattr(each, name) for each in two])), name


def test_trimming_changes_no_draw(pictures):
    trimmed, exact = source(pictures).batch(2, 1), source(pictures, common=settings(trim=False)).batch(2, 1)
    length = trimmed.ids.shape[1]
    assert exact.ids.shape[1] == LENGTH
    assert torch.equal(trimmed.perturbed_ids, exact.perturbed_ids[:, :length])
    assert torch.equal(trimmed.perturbed_pixels, exact.perturbed_pixels)


def test_views_are_new_each_epoch_and_the_same_each_time(pictures):
    first, again, later = epoch(source(pictures)), epoch(source(pictures)), epoch(source(pictures), 2)
    assert all(equal(one, two) for one, two in zip(first, again, strict=True))

    def of_rows(batches, name):
        values = {
            int(row): value for batch in batches for row, value in zip(batch.row, getattr(batch, name), strict=True)
        }
        return [values[row] for row in range(ROWS)]

    perturbed = zip(of_rows(first, "perturbed_pixels"), of_rows(later, "perturbed_pixels"), strict=True)
    assert sum(not torch.equal(one, two) for one, two in perturbed) > ROWS - 3
    for one, two in zip(of_rows(first, "pixels"), of_rows(later, "pixels"), strict=True):
        assert torch.equal(one, two)


@pytest.mark.parametrize("workers", [0, 2])
def test_a_stream_starts_anywhere_and_goes_over_epochs(pictures, workers):
    maker = source(pictures, perturb="one_of_two")
    batches = stream(maker, epoch=1, index=2, workers=workers)
    before = torch.get_rng_state()
    for key in [(1, 2), (1, 3), (2, 0)]:
        assert equal(next(batches), maker.batch(*key)), key
    assert torch.equal(torch.get_rng_state(), before)
    batches.close()


def test_identity_batches_need_identities():
    with pytest.raises(
        ConfigError, match=r"^sampler\.name: identity needs a method that is given identities; use random$"
    ):
        IdentitySampler(None, IMAGE_ID, batch_size=12, seed=3)
