"""Precision, recall and Rand index of recorded relations, from counting by hand, and the command that shows them."""

from __future__ import annotations

import json
import runpy
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

from tipr.analysis.relations import adjusted_rand_index, analyse_relations, cluster_quality, mined_quality
from tipr.cli import main
from tipr.data.datasets import DATASETS
from tipr.errors import TrainingError

PEOPLE = runpy.run_path(str(Path(__file__).parents[1] / "data" / "training" / "coloured_people.py"))
# six pairs: person 0 in images 0, 0 and 1; person 1 in images 2 and 3; person 2 in image 4
IDENTITY, IMAGE = np.array([0, 0, 0, 1, 1, 2]), np.array([0, 0, 1, 2, 3, 4])


def by_hand(related):
    """(found, right, possible) of each kind from a set of ordered relations, one relation at a time."""
    every = {(one, two) for one in range(len(IDENTITY)) for two in range(len(IDENTITY))}
    kinds = {
        "with_self": every,
        "without_self": {(one, two) for one, two in every if one != two},
        "other_images": {(one, two) for one, two in every if IMAGE[one] != IMAGE[two]},
    }
    true = {(one, two) for one, two in every if IDENTITY[one] == IDENTITY[two]}
    return {
        name: (len(related & counted), len(related & counted & true), len(true & counted))
        for name, counted in kinds.items()
    }


def numbers(quality):
    return {name: (each.found, each.right, each.possible) for name, each in quality.items()}


def test_mined_relations_are_counted_as_by_hand():
    mined = np.array([[0, 1, 3], [1, 2, -1], [2, 5, 4], [3, 4, -1], [-1, -1, -1], [0, -1, -1]])
    related = {(row, int(other)) for row, part in enumerate(mined) for other in part if other >= 0}
    quality = mined_quality(mined, IDENTITY, IMAGE)
    assert numbers(quality) == by_hand(related)
    assert numbers(quality)["other_images"] == (6, 2, 6)
    assert quality["with_self"].precision == pytest.approx(100 * 7 / 11)
    assert quality["other_images"].recall == pytest.approx(100 * 2 / 6)


@pytest.mark.parametrize("cluster", [[0, 0, 1, 1, -1, -1], [0] * 6, [-1] * 6, [0, 0, 0, 1, 1, 2], [2, 2, 2, 2, 0, -1]])
def test_clusters_are_counted_as_by_hand(cluster):
    related = {(one, two) for one in range(6) for two in range(6) if one == two or cluster[one] == cluster[two] != -1}
    assert numbers(cluster_quality(np.array(cluster), IDENTITY, IMAGE)) == by_hand(related)


def test_where_nothing_is_taken_there_is_no_precision():
    quality = mined_quality(np.full((6, 2), -1), IDENTITY, IMAGE)["with_self"]
    assert (quality.precision, quality.recall) == (None, 0.0)


def test_rand_index_is_that_of_scikit_learn():
    from sklearn.metrics import adjusted_rand_score

    random = np.random.default_rng(0)
    for size in (2, 3, 30):
        one, two = random.integers(0, size, (2, 200))
        two[::3] = one[::3]
        assert adjusted_rand_index(one, two) == pytest.approx(adjusted_rand_score(one, two))
    alike = np.array([3, 3, 5, 7])
    assert adjusted_rand_index(alike, np.array([0, 0, 1, 2])) == 1.0
    assert adjusted_rand_index(np.arange(4), np.arange(4)) == 1.0
    assert abs(adjusted_rand_index(np.zeros(4, int), alike)) < 1e-12


@pytest.fixture
def run(tmp_path):
    """A run folder of coloured people with two recorded epochs of clusters: none, then the people themselves."""
    data = PEOPLE["make_data"](tmp_path / "data")
    folder = tmp_path / "run"
    config = PEOPLE["make_config"](tmp_path / "run.yaml", data)
    folder.mkdir()
    (folder / "config.yaml").write_text(yaml.safe_dump(yaml.safe_load(config.read_text()) | {"out": str(folder)}))
    (folder / "relations").mkdir()
    identity = DATASETS["manifest"].load(data, "train").queries().identity
    np.savez_compressed(folder / "relations" / "epoch-002.npz", cluster=identity.astype(np.int32))
    np.savez_compressed(folder / "relations" / "epoch-001.npz", cluster=np.full(len(identity), -1, np.int32))
    return folder


def shown(capsys, *arguments):
    with pytest.raises(SystemExit) as stopped:
        main([str(argument) for argument in arguments])
    return stopped.value.code, *capsys.readouterr()


def test_the_command_shows_a_table_and_draws_a_plot(run, capsys):
    code, out, _ = shown(capsys, "analyse", "relations", run)
    assert code == 0
    rows = [line.split() for line in out.splitlines()]
    assert rows[1] == ["1", "100.0", "16.7", "-", "0.0", "-", "0.0", "0.000"]
    assert rows[2] == ["2", *["100.0"] * 6, "1.000"]
    with Image.open(run / "relations.png") as picture:
        assert picture.size == (960, 420)
        assert len(picture.convert("RGB").getcolors(1 << 20)) > 20


def test_the_command_gives_json_and_draws_where_it_is_told(run, tmp_path, capsys):
    code, out, _ = shown(capsys, "analyse", "relations", run, "--json", "--plot", tmp_path / "a.png")
    tree = json.loads(out)
    assert code == 0
    assert [each["epoch"] for each in tree["epochs"]] == [1, 2]
    assert tree["epochs"][1]["without_self"] == {
        "found": 96 * 5,
        "right": 96 * 5,
        "possible": 96 * 5,
        "precision": 100.0,
        "recall": 100.0,
    }
    assert (tmp_path / "a.png").is_file()


def test_mined_relations_have_no_rand_index(run, capsys):
    for path in (run / "relations").iterdir():
        path.unlink()
    np.savez_compressed(run / "relations" / "epoch-010.npz", mined=np.arange(96, dtype=np.int32)[:, None])
    (found,) = analyse_relations(run)
    assert (found.epoch, found.rand_index) == (10, None)
    assert found.quality["with_self"].precision == 100.0
    _, out, _ = shown(capsys, "analyse", "relations", run)
    assert "Rand" not in out


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"cluster": np.zeros(95, np.int32)}, r"is about 95 pairs, the training split of .* has 96"),
        ({"mined": np.full((96, 2), 96, np.int32)}, "is not the data set of this run"),
        ({"cluster": np.zeros(96)}, "holds neither mined"),
        ({"mined": np.zeros(96, np.int32)}, "holds neither mined"),
        ({"other": np.zeros(96, np.int32)}, "holds neither mined"),
        (None, "is damaged"),
    ],
)
def test_what_is_not_of_the_run_is_one_line(run, arrays, message):
    path = run / "relations" / "epoch-001.npz"
    path.unlink()
    np.savez_compressed(path, **arrays) if arrays else path.write_bytes(b"PK\x03\x04 torn")
    with pytest.raises(TrainingError, match=message) as caught:
        analyse_relations(run)
    assert "\n" not in str(caught.value)


def test_a_run_without_records_says_which_setting_makes_them(run, capsys):
    for path in (run / "relations").iterdir():
        path.unlink()
    code, out, err = shown(capsys, "analyse", "relations", run)
    assert (code, out) == (1, "")
    assert "method.record_relations: true" in err
    assert shown(capsys, "analyse", "relations", run / "nowhere")[0] == 2
