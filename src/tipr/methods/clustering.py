"""Pseudo identities by clustering: k-reciprocal Jaccard distance and DBSCAN, without an N x N matrix.

The distance is that of Zhong et al., "Re-ranking Person Re-identification with k-reciprocal Encoding", CVPR 2017,
section 3, on features alone (no original distance mixed in), as the clustering methods of person retrieval use it. Two
rows that share no neighbour have distance 1, so only the others are ever stored.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from tipr.errors import MissingExtra

BLOCK_CELLS = 1 << 24
"""Similarities, or shared neighbours, worked on at a time: 64 MiB of float32."""


def pseudo_labels(features: Tensor, *, k1: int = 30, k2: int = 6, eps: float = 0.6, min_samples: int = 4) -> Tensor:
    """Cluster rows that look alike.

    Args:
        features: (N, D) floats, any scale, finite; N > k1.
        k1: neighbours of the k-reciprocal sets.
        k2: neighbours whose encodings are averaged; 1 for none but the own.
        eps: largest Jaccard distance of neighbours, in (0, 1).
        min_samples: neighbours, the row itself included, that make a row the core of a cluster.

    Returns:
        (N,) int64 on the device of `features`: 0, 1, ... by first member; -1 for a row of no cluster.

    Raises:
        ValueError: a shape or a value is not as above.
        MissingExtra: scikit-learn is not installed.
    """
    try:
        from sklearn.cluster import DBSCAN
    except ImportError:
        raise MissingExtra("scikit-learn", "train") from None

    distance = jaccard_distance(features, k1=k1, k2=k2, limit=eps)
    found = DBSCAN(eps=eps, min_samples=min_samples, metric="precomputed").fit(distance)
    return torch.from_numpy(found.labels_.astype(np.int64)).to(features.device)


def jaccard_distance(features: Tensor, *, k1: int = 30, k2: int = 6, limit: float) -> Any:
    """The k-reciprocal Jaccard distance of rows that are close.

    Args:
        features: see `pseudo_labels`.
        k1, k2: see `pseudo_labels`.
        limit: in (0, 1); larger distances are not stored.

    Returns:
        (N, N) scipy CSR array, float32, symmetric, indices sorted; the diagonal is stored, as 0.

    Raises:
        ValueError: a shape or a value is not as above.
        MissingExtra: SciPy is not installed.
    """
    try:
        from scipy import sparse
    except ImportError:
        raise MissingExtra("scipy", "train") from None

    rows = len(features)
    if features.ndim != 2 or not rows > k1 >= k2 >= 1 or not 0 < limit < 1:
        raise ValueError(
            f"features {tuple(features.shape)}, k1 {k1}, k2 {k2}, limit {limit}: expected (N, D), N > k1 >= k2 >= 1 "
            "and a limit between 0 and 1"
        )
    unit = F.normalize(features.detach().float(), dim=1)
    ranks = nearest(unit, k1 + 1)
    whole, half = (_reciprocal(ranks[:, : k + 1], sparse) for k in (k1, round(k1 / 2)))
    # a neighbour's own, tighter set joins when more than two thirds of it are here already (their eq. 4)
    overlap = whole.multiply(whole @ half.T).tocsr()
    overlap.data = (overlap.data > 2 / 3 * _row_sizes(half)[overlap.indices]).astype(np.float32)
    overlap.eliminate_zeros()
    members = (whole + overlap @ half).tocsr()
    members.sort_indices()
    members.data = _neighbour_weights(unit, members)
    encoding = sparse.csr_array(members / members.sum(axis=1)[:, None])
    if k2 > 1:
        encoding = (_indicator(ranks[:, :k2], sparse) @ encoding / k2).tocsr()
    return _distances(encoding, limit, sparse)


def nearest(unit: Tensor, count: int) -> NDArray[np.int64]:
    """(N, count) rows of largest cosine, best first; each row leads its own list, whatever rounding and copies say.

    Args:
        unit: (N, D) float32 unit rows.
        count: at most N.
    """
    parts = []
    size = max(1, BLOCK_CELLS // len(unit))
    for begin in range(0, len(unit), size):
        similarity = unit[begin : begin + size] @ unit.T
        own = torch.arange(len(similarity), device=unit.device)
        similarity[own, own + begin] = torch.inf
        parts.append(similarity.topk(count, dim=1).indices.cpu().numpy())
    return np.concatenate(parts)


def _indicator(members: NDArray[np.int64], sparse: Any) -> Any:
    """(N, N) CSR of ones at (i, members[i, :])."""
    rows, count = members.shape
    ones = np.ones(rows * count, np.float32)
    pointer = np.arange(0, rows * count + 1, count)
    # flatten copies: sorting in place must not reorder the lists
    made = sparse.csr_array((ones, members.flatten(), pointer), shape=(rows, rows))
    made.sort_indices()
    return made


def _reciprocal(ranks: NDArray[np.int64], sparse: Any) -> Any:
    """(N, N) CSR of ones where two rows are in each other's lists."""
    there = _indicator(ranks, sparse)
    return there.multiply(there.T).tocsr()


def _row_sizes(matrix: Any) -> NDArray[np.float32]:
    sizes: NDArray[np.float32] = np.diff(matrix.indptr).astype(np.float32)
    return sizes


def _neighbour_weights(unit: Tensor, members: Any) -> NDArray[np.float32]:
    """exp(-squared Euclidean distance) of every stored pair, in the order of its storage."""
    first = np.repeat(np.arange(len(unit)), np.diff(members.indptr))
    weights = np.empty(len(first), np.float32)
    size = max(1, BLOCK_CELLS // unit.shape[1])
    for begin in range(0, len(first), size):
        part = slice(begin, begin + size)
        one, two = (torch.from_numpy(each[part].astype(np.int64)).to(unit.device) for each in (first, members.indices))
        cosine = (unit[one] * unit[two]).sum(dim=1)
        weights[part] = (2 * cosine - 2).exp().cpu().numpy()
    return weights


def _distances(encoding: Any, limit: float, sparse: Any) -> Any:
    """Jaccard distance 1 - sum min / sum max of the rows of a CSR matrix whose rows sum to 1."""
    count = encoding.shape[0]
    columns = encoding.tocsc()
    sizes = np.diff(columns.indptr)
    # entries that meet row i: for each of its columns, everything stored in that column
    meets = np.concatenate([[0], np.cumsum(sizes[encoding.indices])])[encoding.indptr]
    shared_needed = 2 * (1 - limit) / (2 - limit)  # of sum min, from 1 - s / (2 - s) <= limit
    ones, twos, values = [], [], []
    begin = 0
    while begin < count:
        size = np.searchsorted(meets, meets[begin] + BLOCK_CELLS // 8, side="right") - 1 - begin
        end = min(count, begin + min(max(1, int(size)), max(1, BLOCK_CELLS // count)))
        stored = slice(encoding.indptr[begin], encoding.indptr[end])
        column, weight = encoding.indices[stored], encoding.data[stored]
        row = np.repeat(np.arange(end - begin), np.diff(encoding.indptr[begin : end + 1]))
        length = sizes[column]
        offset = np.repeat(columns.indptr[column] - np.concatenate([[0], np.cumsum(length)[:-1]]), length)
        entry = offset + np.arange(len(offset))
        smaller = np.minimum(np.repeat(weight, length), columns.data[entry])
        place = np.repeat(row, length) * count + columns.indices[entry]
        shared = np.bincount(place, weights=smaller, minlength=(end - begin) * count)
        close = np.flatnonzero(shared >= shared_needed)
        ones.append(close // count + begin)
        twos.append(close % count)
        values.append(1 - shared[close] / (2 - shared[close]))
        begin = end
    one, two = np.concatenate(ones), np.concatenate(twos)
    value = np.where(one == two, 0.0, np.clip(np.concatenate(values), 0.0, 1.0)).astype(np.float32)
    made = sparse.csr_array((value, (one, two)), shape=(count, count))
    made.sort_indices()
    return made
