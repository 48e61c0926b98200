"""Masks of patches (bi-irra.md 2.4): the statistics of the published generator, and any other grid."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from tipr.data.patch_masking import PatchMasking

GOLDEN: dict[str, Any] = json.loads(
    (Path(__file__).parents[1] / "data" / "golden_bi_irra" / "expected.json").read_text()
)["image_masking"]


def draw(masking: PatchMasking, count: int, seed: int = 0) -> NDArray[np.bool_]:
    generator = np.random.default_rng(seed)
    return np.stack([masking(generator) for _ in range(count)])


@pytest.fixture(scope="module")
def published_size() -> NDArray[np.bool_]:
    return draw(PatchMasking((14, 14)), 6000)


def test_numbers_of_patches_are_those_of_the_published_generator(published_size: NDArray[np.bool_]) -> None:
    count = published_size.sum(axis=1)
    noise = np.sqrt(1 / len(count) + 1 / GOLDEN["draws"])
    assert count.max() == GOLDEN["max_masked"] == PatchMasking((14, 14)).target
    assert abs(count.mean() - GOLDEN["mean_masked"]) < 4 * GOLDEN["std_masked"] * noise
    full = GOLDEN["fraction_exactly_98"]
    assert abs((count == 98).mean() - full) < 4 * np.sqrt(full * (1 - full)) * noise


def test_frequencies_of_the_cells_are_those_of_the_published_generator(published_size: NDArray[np.bool_]) -> None:
    theirs = np.array(GOLDEN["cell_frequency"])
    ours = published_size.mean(axis=0).reshape(14, 14)
    noise = np.sqrt(theirs * (1 - theirs) * (1 / len(published_size) + 1 / GOLDEN["draws"]))
    assert np.abs((ours - theirs) / noise).max() < 4.5
    # Neighbours are masked together, so cells are no independent samples; means over rings of cells sum the errors up.
    border = np.minimum(np.arange(14), np.arange(14)[::-1])
    ring = np.minimum.outer(border, border)
    for distance in range(7):
        assert ours[ring == distance].mean() == pytest.approx(theirs[ring == distance].mean(), abs=0.008)


def test_numbers_of_blocks_are_those_of_the_published_generator(monkeypatch: pytest.MonkeyPatch) -> None:
    added = []
    original = PatchMasking._add_block

    def counted(self: PatchMasking, mask: NDArray[np.bool_], left: int, generator: np.random.Generator) -> bool:
        added.append(original(self, mask, left, generator))
        return added[-1]

    monkeypatch.setattr(PatchMasking, "_add_block", counted)
    draw(PatchMasking((14, 14)), 2000, seed=3)
    histogram = {int(number): count for number, count in GOLDEN["block_count_histogram"].items()}
    mean = sum(number * count for number, count in histogram.items()) / GOLDEN["draws"]
    spread = np.sqrt(sum(count * (number - mean) ** 2 for number, count in histogram.items()) / GOLDEN["draws"])
    assert abs(sum(added) / 2000 - mean) < 4 * spread * np.sqrt(1 / 2000 + 1 / GOLDEN["draws"])


@pytest.mark.parametrize(
    "grid", [(14, 14), (24, 8), (12, 4), (16, 16), (24, 16), (6, 2), (2, 8), (5, 7), (3, 3), (2, 2), (1, 5), (9, 1)]
)
def test_blocks_cover_half_of_any_grid(grid: tuple[int, int]) -> None:
    masking = PatchMasking(grid)
    count = draw(masking, 300).sum(axis=1)
    assert masking.target == grid[0] * grid[1] // 2
    assert count.max() == masking.target
    assert count.min() >= 0.875 * masking.target
    assert count.mean() > 0.97 * masking.target


def test_blocks_are_blocks() -> None:
    """A masked patch has far more masked neighbours than among as many patches drawn one by one."""

    def neighbours(masks: NDArray[np.bool_]) -> float:
        grid = masks.reshape(-1, 24, 8)
        return float((grid[:, 1:] & grid[:, :-1]).sum() / grid[:, 1:].sum())

    blocks, single = (draw(PatchMasking((24, 8), kind), 300) for kind in ("block", "random"))
    assert neighbours(blocks) > 0.75
    assert neighbours(single) < 0.6
    assert (single.sum(axis=1) == 96).all()
    assert single.mean(axis=0) == pytest.approx(0.5, abs=0.15)


def test_a_grid_is_a_chessboard_of_either_colour() -> None:
    masks = draw(PatchMasking((4, 6), "grid"), 50).reshape(-1, 4, 6)
    assert len(np.unique(masks, axis=0)) == 2
    assert (masks.sum(axis=(1, 2)) == 12).all()
    assert (masks[:, 1:] != masks[:, :-1]).all()
    assert (masks[:, :, 1:] != masks[:, :, :-1]).all()
