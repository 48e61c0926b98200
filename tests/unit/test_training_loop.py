"""Parts of the loop: readings without waiting, batches by key, requests to stop."""

import os
import signal

import numpy as np
import pytest
import torch

from tipr.data.augmentation import Augmentation
from tipr.data.batch import IGNORE
from tipr.data.images import ImageProblem, Preprocessing
from tipr.data.loading import BatchSource, Captions, ImageStore, stream
from tipr.data.masking import Masking
from tipr.data.sampling import RandomSampler
from tipr.errors import DatasetError, TrainingError
from tipr.methods import StepOutput
from tipr.training.loop import Interrupt, Readings

ROWS, LENGTH = 23, 12


def output(sdm, accuracy=0.5):
    return StepOutput({"sdm": torch.tensor(sdm), "id": torch.tensor(1.0)}, {"accuracy": torch.tensor(accuracy)})


def test_readings_are_means_since_the_last_one():
    readings = Readings(processes=1)
    assert readings.read(0) == ({}, {})
    for value in (1.0, 2.0, 6.0):
        readings.add(output(value, value / 10))
    losses, logs = readings.read(3)
    assert losses == pytest.approx({"sdm": 3.0, "id": 1.0})
    assert logs == pytest.approx({"accuracy": 0.3})
    readings.add(output(5.0))
    assert readings.read(4)[0]["sdm"] == 5.0


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf")])
def test_the_first_loss_that_is_not_finite_is_named_with_its_step(bad):
    readings = Readings(processes=1)
    for value in (1.0, bad, bad):
        readings.add(output(value))
    with pytest.raises(TrainingError, match=r"^loss 'sdm' is (nan|inf|-inf) at step 19:"):
        readings.read(20)


def test_a_log_that_is_not_finite_stops_nothing():
    readings = Readings(processes=1)
    readings.add(output(1.0, float("nan")))
    assert readings.read(1)[0]["sdm"] == 1.0


def test_one_signal_is_a_request_and_a_second_one_acts():
    before = signal.getsignal(signal.SIGINT)
    with Interrupt().listening() as interrupt:
        os.kill(os.getpid(), signal.SIGTERM)
        assert interrupt.requested
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is before


@pytest.fixture
def pictures(tmp_path):
    from PIL import Image

    paths = []
    for index, pixels in enumerate(np.random.default_rng(0).integers(0, 256, (8, 12, 8, 3), dtype=np.uint8)):
        paths.append(tmp_path / f"{index}.png")
        Image.fromarray(pixels).save(paths[-1])
    return paths


def source(pictures, *, rank=0, processes=1, trim=True, masked=True, budget=2**20):
    rng = np.random.default_rng(1)
    length = rng.integers(3, LENGTH + 1, ROWS)
    mask = np.arange(LENGTH) < length[:, None]
    ids = np.where(mask, rng.integers(4, 50, (ROWS, LENGTH)), 0)
    image_id = np.sort(rng.integers(0, 8, ROWS))
    sampler = RandomSampler(image_id // 2, image_id, batch_size=6, seed=3)
    return BatchSource(
        ImageStore(pictures, (12, 8), budget=budget),
        Captions(ids, mask),
        image_id // 2,
        image_id,
        sampler=sampler,
        augmentation=Augmentation(pad=2),
        preprocessing=Preprocessing((12, 8)),
        masking=Masking(3, (4, 50)) if masked else None,
        trim=trim,
        rank=rank,
        processes=processes,
    )


def equal(one, two):
    return all(torch.equal(getattr(one, name), getattr(two, name)) for name in one.__dataclass_fields__)


def test_shares_of_processes_make_the_batch_of_one(pictures):
    whole = source(pictures)
    parts = [source(pictures, rank=rank, processes=2) for rank in (0, 1)]
    assert whole.length(1) == parts[0].length(1) == 4
    for index in range(3):
        one = whole.batch(1, index)
        two = [part.batch(1, index) for part in parts]
        for name in one.__dataclass_fields__:
            assert torch.equal(getattr(one, name), torch.cat([getattr(each, name) for each in two])), name
    assert len(parts[0].batch(1, 3).row) == len(parts[1].batch(1, 3).row) == 2  # of 5: one is left out


def test_trimming_is_to_the_longest_caption_and_changes_nothing_else(pictures):
    trimmed, exact = source(pictures).batch(2, 1), source(pictures, trim=False).batch(2, 1)
    length = int(exact.mask.sum(1).max())
    assert trimmed.ids.shape[1] == length
    assert exact.ids.shape[1] == LENGTH
    for name in ("ids", "mask", "masked_ids", "mlm_labels"):
        assert torch.equal(getattr(trimmed, name), getattr(exact, name)[:, :length]), name
    assert torch.equal(trimmed.pixels, exact.pixels)


def test_masking_and_augmentation_are_new_each_epoch(pictures):
    maker = source(pictures)
    first = {int(row): i for i in range(4) for row in maker.batch(1, i).row}
    assert len(first) == ROWS
    one = torch.cat([maker.batch(1, i).pixels[maker.batch(1, i).row == 0] for i in range(4)])
    two = torch.cat([maker.batch(2, i).pixels[maker.batch(2, i).row == 0] for i in range(4)])
    assert not torch.equal(one, two)


def test_without_mlm_nothing_is_masked(pictures):
    batch = source(pictures, masked=False).batch(1, 0)
    assert torch.equal(batch.ids, batch.masked_ids)
    assert (batch.mlm_labels == IGNORE).all()


@pytest.mark.parametrize("workers", [0, 2])
def test_a_stream_starts_anywhere_and_goes_over_epochs(pictures, workers):
    maker = source(pictures)
    batches = stream(maker, epoch=1, index=2, workers=workers)
    before = torch.get_rng_state()
    for key in [(1, 2), (1, 3), (2, 0), (2, 1)]:
        assert equal(next(batches), maker.batch(*key)), key
    assert torch.equal(torch.get_rng_state(), before)  # loading draws nothing from the global generator
    batches.close()


@pytest.mark.parametrize("workers", [0, 1])
def test_an_image_that_vanishes_is_one_line(pictures, workers):
    maker = source(pictures, budget=0)
    assert not maker.images.cached
    for path in pictures:
        path.unlink()
    with pytest.raises(ImageProblem, match="missing"):
        next(stream(maker, epoch=1, index=0, workers=workers))


def test_unreadable_images_are_counted_before_the_first_step(pictures):
    pictures[2].write_bytes(b"")
    pictures[5].write_bytes(b"not a picture")
    with pytest.raises(DatasetError, match=r"2 of 8 images cannot be read, first .*2\.png: empty file"):
        ImageStore(pictures, (12, 8), budget=2**20, threads=2)
