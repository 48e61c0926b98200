"""The clustering peer from pairs without identities to a run folder, resumed in the middle, and looked into."""

import runpy
from pathlib import Path

import numpy as np
import pytest

from tipr import config as configuration
from tipr.analysis.relations import analyse_relations
from tipr.training import RunConfig, journal, train

PEOPLE = runpy.run_path(str(Path(__file__).parents[1] / "data" / "training" / "coloured_people.py"))
METHOD = {"name": "cluster_relations", "terms": ["itc", "sdm"], "k1": 6, "k2": 2, "min_samples": 2}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return PEOPLE["make_data"](tmp_path_factory.mktemp("people") / "data")


def configured(folder, data, **changes):
    folder.mkdir()
    settings = {"checkpoints": {"every_steps": 2}, "selection": {"split": "last"}, "precision": "32", **changes}
    return configuration.load(PEOPLE["make_config"](folder / "run.yaml", data, method=METHOD, **settings), RunConfig)


def test_a_resumed_run_has_the_same_clusters_and_weights(tmp_path, data):
    class Crash(Exception):
        pass

    def crash(done, total):
        if done == 9:  # in the middle of the second epoch
            raise Crash

    whole = train(configured(tmp_path / "whole", data)).folder
    config = configured(tmp_path / "broken", data)
    with pytest.raises(Crash):
        train(config, progress=crash)
    train(config, resume=True)
    assert (config.out / "last" / "model.safetensors").read_bytes() == (
        whole / "last" / "model.safetensors"
    ).read_bytes()
    for epoch in (1, 2, 3):
        name = f"relations/epoch-{epoch:03d}.npz"
        with np.load(config.out / name) as one, np.load(whole / name) as two:
            assert np.array_equal(one["cluster"], two["cluster"])
    reports = [entry["logs"] for entry in journal.read(whole) if entry["kind"] == "epoch"]
    assert [set(report) for report in reports] == [{"clusters", "outliers", "mean_cluster", "largest_cluster"}] * 3
    found = analyse_relations(whole)
    assert [each.epoch for each in found] == [1, 2, 3]
    assert all(-1 <= each.rand_index <= 1 for each in found)
    assert found[0].quality["with_self"].possible == 16 * 6 * 6
