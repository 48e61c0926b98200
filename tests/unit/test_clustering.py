"""k-reciprocal Jaccard distance and DBSCAN against a row-by-row version, and pseudo identities of easy cases."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tipr.methods import clustering
from tipr.methods.clustering import jaccard_distance, nearest, pseudo_labels


def slow_jaccard(x, k1, k2):
    """Zhong et al. 2017, one row at a time, every distance; float64."""
    x = x / np.linalg.norm(x, axis=1, keepdims=True)
    count = len(x)
    squared = 2 - 2 * x @ x.T
    np.fill_diagonal(squared, -1.0)
    order = np.argsort(squared, axis=1, kind="stable")
    np.fill_diagonal(squared, 0.0)

    def reciprocal(row, k):
        return {other for other in order[row, : k + 1] if row in order[other, : k + 1]}

    encoding = np.zeros((count, count))
    for row in range(count):
        members = set(reciprocal(row, k1))
        for other in reciprocal(row, k1):
            tighter = reciprocal(other, round(k1 / 2))
            if len(tighter & reciprocal(row, k1)) > 2 / 3 * len(tighter):
                members |= tighter
        chosen = sorted(members)
        weights = np.exp(-squared[row, chosen])
        encoding[row, chosen] = weights / weights.sum()
    encoding = np.stack([encoding[order[row, :k2]].mean(axis=0) for row in range(count)])
    smaller = np.stack([np.minimum(encoding[row], encoding).sum(axis=1) for row in range(count)])
    larger = np.stack([np.maximum(encoding[row], encoding).sum(axis=1) for row in range(count)])
    return 1 - smaller / larger


def slow_dbscan(distance, eps, min_samples):
    """Grow a cluster from each core in turn."""
    near = [set(np.flatnonzero(row <= eps)) for row in distance]
    core = [len(each) >= min_samples for each in near]
    label, count = [-1] * len(near), 0
    for start in range(len(near)):
        if not core[start] or label[start] >= 0:
            continue
        waiting = [start]
        while waiting:
            here = waiting.pop()
            if label[here] < 0:
                label[here] = count
                waiting += near[here] if core[here] else []
        count += 1
    return label


def crowd(rows=150, people=20, spread=0.6, seed=0):
    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(people, 12))
    person = rng.integers(0, people, rows)
    return (centres[person] + spread * rng.normal(size=(rows, 12))).astype(np.float32)


@pytest.mark.parametrize(("k1", "k2"), [(10, 3), (7, 1), (30, 6)])
def test_distances_up_to_the_limit_are_those_of_a_row_by_row_version(k1, k2, monkeypatch):
    monkeypatch.setattr(clustering, "BLOCK_CELLS", 2000)  # several blocks of every kind
    features = crowd()
    slow = slow_jaccard(features.astype(float), k1, k2)
    found = jaccard_distance(torch.from_numpy(features * 3), k1=k1, k2=k2, limit=0.7)
    stored = np.zeros(slow.shape, bool)
    stored[found.tocoo().coords] = True
    assert abs(found - found.T).max() < 1e-6
    assert (stored == (slow <= 0.7)).all()
    assert 0.01 < stored.mean() < 0.5
    np.testing.assert_allclose(found.toarray()[stored], slow[stored], atol=1e-6)


def test_clusters_are_those_of_a_row_by_row_version():
    features = crowd(spread=0.45)
    found = pseudo_labels(torch.from_numpy(features), k1=10, k2=3, eps=0.5, min_samples=4).numpy()
    slow = np.array(slow_dbscan(slow_jaccard(features.astype(float), 10, 3), 0.5, 4))
    cores = found >= 0
    assert (cores == (slow >= 0)).all()
    pairs = {(one, two) for one, two in zip(found[cores], slow[cores], strict=True)}
    assert len(pairs) == len(set(found[cores])) == len(set(slow[cores]))  # equal up to names
    assert 5 < len(pairs) < 30
    assert 0 < (~cores).sum() < 75


def test_people_far_apart_become_one_cluster_each_and_a_lonely_row_none():
    rng = np.random.default_rng(1)
    centres = np.eye(12, dtype=np.float32)[:10]
    person = np.repeat(np.arange(10), 8)
    features = centres[person] + 0.02 * rng.normal(size=(80, 12)).astype(np.float32)
    lonely = np.eye(12, dtype=np.float32)[[11]]
    labels = pseudo_labels(torch.from_numpy(np.concatenate([features, lonely])), k1=10, k2=3).numpy()
    assert labels[-1] == -1
    assert (labels[:-1] == person).all()


def test_copies_of_a_picture_are_at_distance_nought_and_lead_their_own_lists():
    features = crowd(rows=60)
    doubled = torch.from_numpy(np.repeat(features, 2, axis=0))
    ranks = nearest(torch.nn.functional.normalize(doubled, dim=1), 5)
    assert (ranks[:, 0] == np.arange(120)).all()
    assert (np.sort(ranks[:, :2], axis=1) == np.arange(120).reshape(60, 2).repeat(2, axis=0)).all()
    found = jaccard_distance(doubled, k1=10, k2=2, limit=0.6).toarray()
    assert np.abs(found[::2, 1::2].diagonal()).max() < 1e-5


def test_the_scale_of_features_does_not_matter_and_the_order_of_rows_only_renames():
    features = crowd(seed=3)
    order = np.random.default_rng(4).permutation(len(features))
    one = pseudo_labels(torch.from_numpy(features), k1=10, k2=3).numpy()
    two = pseudo_labels(torch.from_numpy(5 * features[order]), k1=10, k2=3).numpy()
    assert ((one[order, None] == one[None, order]) == (two[:, None] == two[None, :])).all()


@pytest.mark.parametrize("options", [{"k1": 60}, {"k2": 0}, {"k1": 3, "k2": 4}, {"eps": 0.0}, {"eps": 1.0}])
def test_values_outside_their_range_are_refused(options):
    with pytest.raises(ValueError, match="expected"):
        pseudo_labels(torch.ones(60, 4), **{"k1": 10, "k2": 3, **options})


def test_without_scikit_learn_the_install_line_is_given(monkeypatch):
    from tipr.errors import MissingExtra

    monkeypatch.setitem(__import__("sys").modules, "sklearn.cluster", None)
    with pytest.raises(MissingExtra, match=r'pip install "tipr\[train\]"'):
        pseudo_labels(torch.ones(60, 4))
