"""Relative position tables for another grid: against a slow reference written from the definition of the spline."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from tipr.encoders.relative_positions import resize_relative_positions, table_rows


def spread(patches: int, wanted: int) -> list[float]:
    """Where the old offsets of an axis come to lie: 0, 1, 1 + q, 1 + q + q^2, ..., the last at the new reach."""
    steps, reach = patches - 1, wanted - 1
    low, high = 1.01, 1.5
    while high - low > 1e-6:
        q = (low + high) / 2
        if (1 - q**steps) / (1 - q) > reach:
            high = q
        else:
            low = q
    outwards = [(1 - q**n) / (1 - q) for n in range(1, steps + 1)]
    return [-place for place in reversed(outwards)] + [0.0] + outwards


def b_splines(places: list[float], at: float) -> list[float]:
    """The cubic B-splines of the not-a-knot rule at one point, by de Boor's recursion."""
    last = len(places) - 1
    knots = [places[0]] * 4 + places[2 : last - 1] + [places[last]] * 4
    at = min(max(at, places[0]), places[last])

    def basis(i: int, degree: int) -> float:
        if degree == 0:
            ends = at == places[last] and knots[i] < knots[i + 1] == at
            return float(knots[i] <= at < knots[i + 1] or ends)
        value = 0.0
        if knots[i + degree] > knots[i]:
            value += (at - knots[i]) / (knots[i + degree] - knots[i]) * basis(i, degree - 1)
        if knots[i + degree + 1] > knots[i + 1]:
            value += (knots[i + degree + 1] - at) / (knots[i + degree + 1] - knots[i + 1]) * basis(i + 1, degree - 1)
        return value

    return [basis(i, 3) for i in range(len(places))]


def weights(patches: int, wanted: int) -> Tensor:
    """(2 w - 1, 2 p - 1): each new offset from the old ones, by collocation."""
    if patches == wanted:
        return torch.eye(2 * patches - 1, dtype=torch.float64)
    places = spread(patches, wanted)
    through = torch.tensor([b_splines(places, place) for place in places], dtype=torch.float64)
    read = torch.tensor([b_splines(places, float(at)) for at in range(1 - wanted, wanted)], dtype=torch.float64)
    return read @ torch.linalg.inv(through)


def slow(table: Tensor, source: tuple[int, int], target: tuple[int, int]) -> Tensor:
    down, across = weights(source[0], target[0]), weights(source[1], target[1])
    rows, columns = 2 * source[0] - 1, 2 * source[1] - 1
    heads = [
        (down @ head.reshape(rows, columns).double() @ across.T).reshape(-1)
        for head in table[: rows * columns].unbind(1)
    ]
    return torch.cat([torch.stack(heads, 1), table[rows * columns :].double()])


@pytest.mark.parametrize(
    ("source", "target"),
    [((14, 14), (24, 24)), ((14, 14), (24, 8)), ((14, 14), (14, 7)), ((5, 5), (4, 4)), ((3, 3), (12, 12))],
)
def test_it_is_the_cubic_spline_through_offsets_that_thin_out(source: tuple[int, int], target: tuple[int, int]) -> None:
    table = torch.randn(table_rows(source), 2, generator=torch.Generator().manual_seed(0))
    ours, reference = resize_relative_positions(table, source, target), slow(table, source, target)
    assert ours.shape == (table_rows(target), 2)
    assert ours.dtype == torch.float32
    assert (ours - reference).abs().max() < 1e-5
    assert torch.equal(ours[-3:], table[-3:])


def test_on_squares_it_is_what_the_original_code_computes() -> None:
    """BEiT's fine-tuning code fits `interp2d(kind="cubic")`, which scipy has under another name today."""
    interpolate = pytest.importorskip("scipy.interpolate")
    table = torch.randn(table_rows((14, 14)), 1, generator=torch.Generator().manual_seed(1))
    places = spread(14, 24)
    fit = interpolate.RectBivariateSpline(places, places, table[:-3, 0].reshape(27, 27).double().numpy(), s=0)
    wanted = torch.arange(-23.0, 24.0).double().numpy()
    expected = torch.from_numpy(fit(wanted, wanted)).reshape(-1)
    assert (resize_relative_positions(table, (14, 14), (24, 24))[:-3, 0] - expected).abs().max() < 1e-5


def test_the_centre_stays_and_the_same_grid_is_the_same_table() -> None:
    table = torch.randn(table_rows((14, 14)), 3)
    assert resize_relative_positions(table, (14, 14), (14, 14)) is table
    larger = resize_relative_positions(table, (14, 14), (20, 20))
    assert torch.allclose(larger[39 * 39 // 2], table[27 * 27 // 2], atol=1e-6)
    constant = resize_relative_positions(torch.full_like(table, 0.25), (14, 14), (20, 9))
    assert torch.allclose(constant, torch.tensor(0.25))


def test_what_cannot_be_resampled() -> None:
    with pytest.raises(ValueError, match=r"a 14x14 grid needs \(732, heads\), got \(700, 2\)"):
        resize_relative_positions(torch.zeros(700, 2), (14, 14), (24, 24))
    with pytest.raises(ValueError, match="relative positions of 2 patches are too few"):
        resize_relative_positions(torch.zeros(table_rows((2, 2)), 1), (2, 2), (4, 4))
