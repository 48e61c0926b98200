"""Relative position biases of image tokens (BEiT), and their tables resampled for another grid of patches."""

from __future__ import annotations

from itertools import accumulate

import torch
from torch import Tensor, nn

SPECIAL_DISTANCES = 3
"""Rows of a relative position table after those of patch pairs: class to patch, patch to class, class to class."""
SLOWEST, FASTEST = 1.01, 1.5
"""Limits of the ratio by which distances between the samples of a table grow outwards."""
PRECISION = 1e-6
"""Of that ratio, which is found by bisection."""
FEWEST_OFFSETS = 5
"""Offsets that a table needs along an axis (3 patches) for a cubic curve through them."""


class RelativePositions(nn.Module):
    """Attention bias of every pair of image tokens, learned for each head and offset on the grid.

    Takes the place of transformers' module of the same parameter name, which turns the tables of grids that are not
    square into others by interpolation.

    Args:
        grid: (rows, columns) of patches; the class token stands in front of them.
        heads: attention heads.
    """

    index: Tensor

    def __init__(self, grid: tuple[int, int], heads: int) -> None:
        super().__init__()
        rows, columns = grid
        offsets = table_rows(grid) - SPECIAL_DISTANCES
        self.relative_position_bias_table = nn.Parameter(torch.zeros(table_rows(grid), heads))
        places = torch.cartesian_prod(torch.arange(rows), torch.arange(columns)).view(-1, 2)
        apart = places[:, None] - places[None]
        index = torch.empty(1 + rows * columns, 1 + rows * columns, dtype=torch.long)
        index[1:, 1:] = (apart[..., 0] + rows - 1) * (2 * columns - 1) + apart[..., 1] + columns - 1
        index[0, 1:], index[1:, 0], index[0, 0] = offsets, offsets + 1, offsets + 2
        self.register_buffer("index", index, persistent=False)

    def forward(self, *unused: object, **also_unused: object) -> Tensor:
        """(1, heads, T, T) bias, T = 1 + rows * columns; what the library passes says nothing new."""
        return self.relative_position_bias_table[self.index].permute(2, 0, 1).unsqueeze(0).contiguous()


def table_rows(grid: tuple[int, int]) -> int:
    """Rows of the table of a (rows, columns) grid: its offsets and the special distances."""
    return (2 * grid[0] - 1) * (2 * grid[1] - 1) + SPECIAL_DISTANCES


def resize_relative_positions(table: Tensor, source: tuple[int, int], target: tuple[int, int]) -> Tensor:
    """Resample a relative position table for another grid of patches.

    The old offsets are spread over the range of the new ones: dense around 0, where a patch sees its neighbours, and
    ever sparser outwards, in a geometric progression. A cubic spline through them (twice differentiable, no knot beside
    the ends) is read at the new offsets; each head apart, rows and columns one after the other. An axis whose number of
    patches stays is not touched, nor are the three special rows.

    Args:
        table: ((2 r - 1) (2 c - 1) + 3, heads).
        source: (r, c) of `table`.
        target: (r', c') wanted.

    Returns:
        ((2 r' - 1) (2 c' - 1) + 3, heads) in the dtype of `table`; the same tensor when the grids agree.

    Raises:
        ValueError: `table` has another number of rows, or fewer than 3 patches along an axis that changes.

    Source: the fine-tuning code of BEiT (Bao et al., 2022), which knows square grids only. For these the numbers are
    its own; a grid that is not square is the same rule on each axis.
    """
    if table.ndim != 2 or len(table) != table_rows(source):
        raise ValueError(
            f"a {source[0]}x{source[1]} grid needs ({table_rows(source)}, heads), got {tuple(table.shape)}"
        )
    if source == target:
        return table
    along_rows, along_columns = (_resampling(2 * old - 1, 2 * new - 1) for old, new in zip(source, target, strict=True))
    offsets = table[:-SPECIAL_DISTANCES].double().view(2 * source[0] - 1, 2 * source[1] - 1, -1)
    resized = torch.einsum("ri,cj,ijh->rch", along_rows, along_columns, offsets).flatten(0, 1)
    return torch.cat([resized.to(table.dtype), table[-SPECIAL_DISTANCES:]])


def _resampling(old: int, new: int) -> Tensor:
    """(new, old) float64: values at the new offsets of an axis from those at its old ones."""
    if old == new:
        return torch.eye(old, dtype=torch.float64)
    if old < FEWEST_OFFSETS:
        raise ValueError(f"relative positions of {(old + 1) // 2} patches are too few to be resampled")
    reach = new // 2
    slow, fast = SLOWEST, FASTEST
    while fast - slow > PRECISION:
        ratio = (slow + fast) / 2
        slow, fast = (slow, ratio) if sum(ratio**power for power in range(old // 2)) > reach else (ratio, fast)
    outwards = list(accumulate(ratio**power for power in range(old // 2)))
    places = torch.tensor([*(-place for place in reversed(outwards)), 0.0, *outwards], dtype=torch.float64)
    wanted = torch.arange(-reach, reach + 1, dtype=torch.float64).clamp(places[0], places[-1])
    return _spline(places, wanted)


def _spline(places: Tensor, wanted: Tensor) -> Tensor:
    """(M, N) float64: the not-a-knot cubic spline through N >= 4 rising places, read at M places between them.

    Its second derivatives at the places follow from its value and slope being continuous; the third derivative is
    continuous at the second place and the last but one.
    """
    count, width = len(places), places.diff()
    curvature, change = torch.zeros(2, count, count, dtype=torch.float64)
    for i in range(1, count - 1):
        before, after = width[i - 1], width[i]
        curvature[i, i - 1 : i + 2] = torch.stack([before, 2 * (before + after), after])
        change[i, i - 1 : i + 2] = 6 * torch.stack([1 / before, -1 / before - 1 / after, 1 / after])
    for end, first in ((0, 0), (count - 1, count - 3)):
        before, after = width[first], width[first + 1]
        curvature[end, first : first + 3] = torch.stack([after, -(before + after), before])
    second = torch.linalg.solve(curvature, change)
    left = (torch.searchsorted(places, wanted, right=True) - 1).clamp(0, count - 2)
    step, value = width[left, None], torch.eye(count, dtype=torch.float64)
    share = ((wanted - places[left]) / width[left])[:, None]
    rest = 1 - share
    bend = (rest**3 - rest) * second[left] + (share**3 - share) * second[left + 1]
    read: Tensor = rest * value[left] + share * value[left + 1] + bend * step**2 / 6
    return read
