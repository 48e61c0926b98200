"""Two of six changes of an image (bi-irra.md 5), each against a slow or an independent reading."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from tipr.data.sampling import Stream, uniforms
from tipr.data.two_of_six import (
    CHANGES,
    DRAWS,
    DRAWS_OF_A_CHANGE,
    ORDERS,
    SIX,
    TwoOfSix,
    crop,
    erase,
    jitter,
    mirror,
    rotate,
    turn_grey,
    two_of_six,
)

CONFIG = TwoOfSix()
PLAIN = {"mean": (0.0, 0.0, 0.0), "std": (1.0, 1.0, 1.0)}


def pictures(count: int, height: int = 24, width: int = 12) -> Tensor:
    return torch.rand(count, 3, height, width, generator=torch.Generator().manual_seed(0))


def draws(count: int, width: int = DRAWS_OF_A_CHANGE) -> NDArray[np.float64]:
    return np.random.default_rng(1).random((count, width))


def test_colours_change_by_three_factors_in_drawn_order() -> None:
    images, numbers = pictures(30), draws(30)
    changed = jitter(images, numbers, CONFIG)
    for image, row, found in zip(images.double(), numbers, changed, strict=True):
        for kind in ORDERS[int(row[0] * 6)]:
            factor = 0.9 + 0.2 * row[1 + kind]
            grey = 0.2989 * image[0] + 0.587 * image[1] + 0.114 * image[2]
            origin = (torch.zeros(()), grey.mean(), grey)[kind]
            image = (factor * image + (1 - factor) * origin).clamp(0, 1)  # noqa: PLW2901 - one change after the other
        torch.testing.assert_close(found.double(), image, atol=1e-6, rtol=0)


def test_a_picture_turns_around_its_centre_as_the_imaging_library_turns_it() -> None:
    images, numbers = pictures(20, 31, 21), draws(20)
    turned = rotate(images, numbers, CONFIG)
    for image, row, found in zip(images, numbers, turned, strict=True):
        degrees = 15 * (2 * row[0] - 1)
        planes = [Image.fromarray(plane.numpy()) for plane in image]
        # The library's positive angles are counter-clockwise; which way is which does not matter, they are symmetric.
        both = [np.stack([np.asarray(plane.rotate(angle)) for plane in planes]) for angle in (degrees, -degrees)]
        assert max((found.numpy() == each).mean() for each in both) > 0.97
    corners = rotate(torch.ones(1, 3, 31, 21), np.zeros((1, DRAWS_OF_A_CHANGE)), CONFIG)[0, 0]
    assert corners[[0, 0, -1, -1], [0, -1, 0, -1]].tolist() == [0, 0, 0, 0]
    assert corners[15, 10] == 1


def test_a_crop_keeps_its_share_and_shape_of_the_picture() -> None:
    """A ramp in both directions shows which rectangle was enlarged."""
    height, width = 192, 64
    ramp = torch.stack([torch.arange(height).repeat(width, 1).T, torch.arange(width).repeat(height, 1)])
    images = torch.cat([ramp, ramp[:1]]).float().repeat(300, 1, 1, 1)
    cut = crop(images, draws(300), CONFIG)
    rows = cut[:, 0, -1, 0] - cut[:, 0, 0, 0] + 1
    columns = cut[:, 1, 0, -1] - cut[:, 1, 0, 0] + 1
    whole = (cut == images).flatten(1).all(dim=1)
    assert 0.02 < whole.float().mean() < 0.35
    area = rows * columns / (height * width)
    assert 0.87 < area.min() < area[~whole].max() <= 1.01
    aspect = (columns / width) / (rows / height)
    assert 0.85 < aspect.min() < 0.97
    assert 1.03 < aspect.max() < 1.15
    assert cut[:, 0].min() >= 0
    assert cut[:, 0].max() <= height - 1


def test_grey_mirrored_and_erased_pictures_come_as_often_as_they_should() -> None:
    images, numbers = pictures(4000), draws(4000)
    grey, mirrored, erased = (change(images, numbers, CONFIG) for change in (turn_grey, mirror, erase))
    without_colour = (grey.std(dim=1) < 1e-6).flatten(1).all(dim=1)
    assert without_colour.tolist() == (numbers[:, 0] < 0.1).tolist()
    turned = numbers[:, 0] < 0.5
    assert torch.equal(mirrored[turned], images[turned].flip(3))
    assert torch.equal(mirrored[~turned], images[~turned])
    black = (erased == 0).all(dim=1)
    share = black.float().mean(dim=(1, 2))[turned]
    assert not black[~turned].any()
    assert (share > 0).float().mean() > 0.97  # the others are those where no attempt fits
    assert 0.08 < share[share > 0].min() < share.max() < 0.23


def test_two_changes_are_drawn_with_replacement_and_made_in_that_order() -> None:
    images = np.random.default_rng(2).integers(0, 256, (400, 3, 24, 12), dtype=np.uint8)
    numbers = uniforms(1, 1, np.arange(400), Stream.AUGMENTATION, DRAWS)
    before = images.copy()
    changed = two_of_six(images, numbers, CONFIG, **PLAIN)
    assert (images == before).all()
    pairs = set()
    for index in range(400):
        image = torch.from_numpy(images[index : index + 1]).float() / 255
        pair = []
        for turn in numbers[index].reshape(CHANGES, -1):
            pair.append(int(turn[0] * 6))
            image = SIX[pair[-1]](image, turn[None, 1:], CONFIG)
        torch.testing.assert_close(changed[index], image[0], atol=1e-6, rtol=0)
        pairs.add(tuple(pair))
    assert len(pairs) == 36


def test_normalisation_comes_last() -> None:
    images = np.full((200, 3, 24, 12), 51, np.uint8)
    numbers = uniforms(1, 1, np.arange(200), Stream.AUGMENTATION, DRAWS)
    config = TwoOfSix(colour=0, rotation=0, grey=0, crop_area=(1, 1), crop_aspect=(1, 1))
    changed = two_of_six(images, numbers, config, mean=(0.5, 0.4, 0.3), std=(0.2, 0.3, 0.4))
    values = np.unique(changed.numpy().round(4)[:, 0])
    np.testing.assert_allclose(values, [-2.5, -1.5], atol=1e-4)  # black where erased, else (0.2 - 0.5) / 0.2


@pytest.mark.parametrize("rows", [[3], [5, 3, 1]])
def test_an_image_does_not_depend_on_its_batch(rows: list[int]) -> None:
    images = np.random.default_rng(3).integers(0, 256, (8, 3, 24, 12), dtype=np.uint8)
    numbers = uniforms(1, 2, np.arange(8), Stream.AUGMENTATION, DRAWS)
    whole = two_of_six(images, numbers, CONFIG, **PLAIN)
    part = two_of_six(images[rows], numbers[rows], CONFIG, **PLAIN)
    assert torch.equal(part, whole[rows])
