"""Augmentation of uint8 batches: each step against a plain rendering of the rule (irra.md 5)."""

import math

import numpy as np
import pytest
import torch

from tipr.data.augmentation import ATTEMPTS, DRAWS, Augmentation, augment, rectangles, shift
from tipr.data.images import CLIP_MEAN, CLIP_STD, normalise

NOTHING = Augmentation(flip=0, pad=0, erase=0)


def images(rows=6, height=12, width=8, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (rows, 3, height, width), dtype=np.uint8)


def draws(rows=6, seed=0):
    return np.random.default_rng(seed).random((rows, DRAWS))


def run(pixels, drawn, config):
    return augment(pixels, drawn, config, mean=CLIP_MEAN, std=CLIP_STD)


def test_without_augmentation_it_is_the_normalisation_of_evaluation():
    pixels = images()
    torch.testing.assert_close(run(pixels, draws(), NOTHING), normalise(torch.from_numpy(pixels)), atol=2e-6, rtol=0)


@pytest.mark.parametrize("pad", [0, 1, 3])
def test_shift_is_flip_then_black_border_then_crop(pad):
    pixels, drawn = images(), draws()
    flip = drawn[:, 0] < 0.5
    assert flip.any()
    assert not flip.all()
    moved = shift(pixels, flip, drawn[:, 1:3], pad)
    for index, image in enumerate(pixels):
        turned = image[:, :, ::-1] if flip[index] else image
        bordered = np.pad(turned, ((0, 0), (pad, pad), (pad, pad)))
        top, left = (math.floor(draw * (2 * pad + 1)) for draw in drawn[index, 1:3])
        np.testing.assert_array_equal(moved[index], bordered[:, top : top + 12, left : left + 8])


def test_every_crop_position_is_drawn():
    places = np.stack(np.meshgrid(np.arange(7), np.arange(7)), axis=-1).reshape(-1, 2)
    pixels = np.full((49, 1, 4, 4), 9, np.uint8)
    moved = shift(pixels, np.zeros(49, bool), (places + 0.5) / 7, 3)
    corners = {(int((row > 0).any(1).sum()), int((row > 0).any(0).sum())) for row in moved[:, 0]}
    assert len(corners) == 16  # 1..4 rows and columns stay


def test_rectangles_follow_the_rule():
    config = Augmentation()
    size = (96, 32)
    drawn = np.random.default_rng(3).random((4000, 1 + 2 * ATTEMPTS + 2))
    found = rectangles(drawn, config, size)
    assert abs(len(found) / 4000 - 0.5) < 0.03
    samples = [sample for sample, *_ in found]
    assert len(set(samples)) == len(samples)
    for sample, top, left, height, width in found:
        assert drawn[sample, 0] < 0.5
        assert top >= 0
        assert top + height <= 96
        assert left >= 0
        assert left + width <= 32
        assert 0.018 < height * width / (96 * 32) < 0.42
        assert 0.25 < height / width < 3.8  # rounding widens the 0.3 and 3.3
    aspects = np.log([height / width for *_, height, width in found])
    assert aspects.min() < -0.9  # wide ones and tall ones occur
    assert aspects.max() > 0.9


def test_a_rectangle_that_fits_nowhere_erases_nothing():
    drawn = np.zeros((3, 1 + 2 * ATTEMPTS + 2))
    drawn[:, 1 : 1 + ATTEMPTS] = 1.0
    config = Augmentation(erase=1, erase_area=(0.4, 1.0), erase_aspect=(1.0, 1.0))
    assert rectangles(drawn, config, (96, 32)) == []


@pytest.mark.parametrize(("value", "painted"), [("mean", CLIP_MEAN), ("zero", (0.0, 0.0, 0.0))])
def test_erasing_paints_normalised_space(value, painted):
    config = Augmentation(flip=0, pad=0, erase=1, erase_value=value)
    pixels, drawn = images(), draws()
    plain, erased = run(pixels, drawn, NOTHING), run(pixels, drawn, config)
    found = rectangles(drawn[:, 3:-5], config, (12, 8))
    assert len(found) == 6
    for sample, top, left, height, width in found:
        inside = torch.zeros(12, 8, dtype=torch.bool)
        inside[top : top + height, left : left + width] = True
        expected = torch.tensor(painted)[:, None].expand(3, int(inside.sum()))
        torch.testing.assert_close(erased[sample][:, inside], expected)
        torch.testing.assert_close(erased[sample][:, ~inside], plain[sample][:, ~inside])


def test_jitter_against_the_formula():
    config = Augmentation(flip=0, pad=0, erase=0, brightness=0.4, contrast=0.5, channel=0.1)
    pixels, drawn = images(), draws()
    spread = 2 * drawn[:, -5:] - 1
    expected = []
    for image, (b, c, *offsets) in zip(pixels.astype(float), spread, strict=True):
        bright, contrast = 1 + 0.4 * b, 1 + 0.5 * c
        value = bright * (image.mean() + contrast * (image - image.mean()))
        expected.append(np.clip(value + 25.5 * np.array(offsets)[:, None, None], 0, 255))
    scaled = np.stack(expected) / 255
    wanted = (scaled - np.array(CLIP_MEAN)[:, None, None]) / np.array(CLIP_STD)[:, None, None]
    np.testing.assert_allclose(run(pixels, drawn, config).numpy(), wanted, atol=1e-4)


def test_a_sample_does_not_depend_on_its_batch():
    config = Augmentation(pad=2, brightness=0.2, contrast=0.2, channel=0.05)
    pixels, drawn = images(9), draws(9)
    before = pixels.copy()
    whole = run(pixels, drawn, config)
    parts = torch.cat([run(pixels[:5], drawn[:5], config), run(pixels[5:], drawn[5:], config)])
    assert torch.equal(whole, parts)
    np.testing.assert_array_equal(pixels, before)
