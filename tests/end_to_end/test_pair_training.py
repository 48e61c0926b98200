"""Training from bare pairs: identities have no influence, a stopped run goes on unchanged, bad input is named."""

import json
import random
import runpy
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

from tipr import config as configuration
from tipr.data.datasets import DATASETS
from tipr.errors import ConfigError, DatasetError
from tipr.evaluation import evaluate
from tipr.retrieval import Retriever
from tipr.training import RunConfig, environment, journal, loop, train
from tipr.training.checkpoint import load_latest

PEOPLE = runpy.run_path(str(Path(__file__).parents[1] / "data" / "training" / "coloured_people.py"))
METHOD = {"name": "dual_granularity", "temperature": 0.07, "threshold": 0.6, "k": 5}
EPOCH = 6
"""Steps: 96 pairs in batches of 16."""


class Crash(Exception):
    pass


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """The coloured people, and the same pairs with people permuted and without any, as manifests beside the first."""
    root = PEOPLE["make_data"](tmp_path_factory.mktemp("people") / "data")
    records = [json.loads(line) for line in (root / "manifest.jsonl").read_text().splitlines()]
    of_split = {name: [each["identity"] for each in records if each["split"] == name] for name in ("train", "val")}
    for people in of_split.values():
        random.Random(4).shuffle(people)
    permuted = [{**each, "identity": of_split[each["split"]].pop()} for each in records]
    assert sum(one != two for one, two in zip(records, permuted, strict=True)) > len(records) / 2
    unknown = [{key: value for key, value in each.items() if key != "identity"} for each in records]
    for name, lines in (("permuted", permuted), ("unknown", unknown)):
        (root / f"{name}.jsonl").write_text("".join(json.dumps(each) + "\n" for each in lines))
    return root


def configure(folder, data, *, manifest="manifest", section=(), method=METHOD, **changes):
    """A `RunConfig` whose run folder lies in `folder`."""
    settings = {"dataset": "manifest", "root": str(data / f"{manifest}.jsonl"), "batch_size": 16, **dict(section)}
    changes = {"epochs": 2, "checkpoints": {"every_steps": 4}, **changes}
    return configuration.load(
        PEOPLE["make_config"](folder / "run.yaml", data, method=method, data=settings, **changes), RunConfig
    )


@pytest.fixture
def configured(tmp_path, data):
    """`configure` in a folder of the test's own."""
    return partial(configure, tmp_path, data)


def result(run):
    """All that a run has learnt and found: both models, every tensor of its state, relations, and its diary."""
    models = [(run / name / "model.safetensors").read_bytes() for name in ("best", "last")]
    state = {name: tensor.numpy().tobytes() for name, tensor in load_latest(run / "checkpoints")[0]["method"].items()}
    relations = {path.name: path.read_bytes() for path in sorted((run / "relations").iterdir())}
    keys = ("kind", "step", "epoch", "losses", "logs", "scores")
    diary = [{key: entry.get(key) for key in keys} for entry in journal.read(run)]
    return {"models": models, "state": state, "relations": relations, "diary": diary}


@pytest.fixture(scope="module")
def unbroken(data, tmp_path_factory):
    """The result of the run that nothing interrupts."""
    before = torch.get_num_threads()
    run = train(configure(tmp_path_factory.mktemp("unbroken"), data)).folder
    torch.set_num_threads(before)
    return result(run)


def test_no_identity_has_any_influence(tmp_path, data, unbroken):
    """Identities permuted, and no identity column at all: the same bytes, the choice of the best epoch included."""
    assert unbroken["state"].keys() >= {"image_bank.current", "text_bank.coming", "mined"}
    for manifest in ("permuted", "unknown"):
        (tmp_path / manifest).mkdir()
        run = train(configure(tmp_path / manifest, data, manifest=manifest)).folder
        assert result(run) == unbroken, manifest
        card = (run / "card.md").read_text()
        assert "48 images, 96 captions" in card
        assert "A caption looks for its own image" in card
    with pytest.raises(DatasetError, match="identit"):
        train(configure(tmp_path, data, manifest="unknown", method={"name": "clip_baseline"}))
    with pytest.raises(DatasetError, match="identit"):
        evaluate(Retriever.load(run / "last"), DATASETS["manifest"].load(data / "unknown.jsonl", "val"))


def test_broken_at_random_steps_and_resumed(configured, unbroken, monkeypatch):
    """Also between the report of an epoch and the checkpoint that vouches for it: nothing is lost, nothing twice."""
    config = configured()
    rng = random.Random(3)
    steps = sorted([rng.randrange(5, EPOCH), EPOCH, rng.randrange(EPOCH + 1, 2 * EPOCH), 2 * EPOCH])
    for number, step in enumerate(steps):

        def progress(done, total, step=step):
            if done == step:
                raise Crash

        with pytest.raises(Crash):
            train(config, resume=number > 0, progress=progress)

    save = loop.save_state

    def full(run, state):
        if state.position == 0:  # the end of an epoch
            raise Crash
        save(run, state)

    monkeypatch.setattr(loop, "save_state", full)
    with pytest.raises(Crash):
        train(config, resume=True)
    monkeypatch.undo()
    assert (config.out / "relations" / "epoch-002.npz").is_file()
    train(config, resume=True)
    assert result(config.out) == unbroken


def test_relations_of_unfinished_epochs_go_when_a_run_is_resumed(configured, monkeypatch):
    config = configured(checkpoints={"every_epochs": 1}, epochs=3)

    def crash(run, state):
        raise Crash

    def progress(done, total):
        if done == EPOCH + 1:
            monkeypatch.setattr(loop, "save_state", crash)

    with pytest.raises(Crash):
        train(config, progress=progress)
    folder = config.out / "relations"
    assert {path.name for path in folder.iterdir()} == {"epoch-001.npz", "epoch-002.npz"}
    (folder / ".epoch-003.partial").write_bytes(b"torn")

    def look(done, total):
        assert {path.name for path in folder.glob("*.npz")} == {"epoch-001.npz"}
        raise Crash

    with pytest.raises(Crash):
        train(config, resume=True, progress=look)
    assert [entry["epoch"] for entry in journal.read(config.out) if entry["kind"] == "epoch"] == [1]


def test_an_epoch_is_reported_and_a_cold_start_is_warned_of(configured):
    """At a threshold that nearly every two features pass, one line an epoch; the numbers are in the journal."""
    notes = []
    run = train(configured(method={**METHOD, "threshold": 0.01}, selection={"split": "last"}), note=notes.append).folder
    warnings = [note for note in notes if note.startswith("warning:")]
    assert len(warnings) == 2
    assert all("of the pairs in a batch count as related at method.threshold 0.01" in each for each in warnings)
    entries = [entry for entry in journal.read(run) if entry["kind"] == "epoch"]
    assert [(entry["epoch"], entry["step"]) for entry in entries] == [(1, EPOCH), (2, 2 * EPOCH)]
    for entry in entries:
        assert set(entry["logs"]) == {"linked_image", "linked_text", "linked_both", "own_weight", "mined_per_pair"}
        assert 0.5 < entry["logs"]["linked_both"] <= 1
        assert any(entry["warning"] in each for each in warnings)
    with np.load(run / "relations" / "epoch-002.npz") as arrays:
        mined = arrays["mined"]
    assert mined.shape == (96, 5)
    assert (mined >= 0).sum() == pytest.approx(96 * entries[-1]["logs"]["mined_per_pair"])


def test_an_epoch_cut_short_is_reported_as_far_as_it_came(configured):
    config = configured(epochs=None, max_steps=EPOCH + 2, selection={"split": "last"})
    run = train(config).folder
    with np.load(run / "relations" / "epoch-002.npz") as arrays:
        assert (arrays["mined"] >= 0).any(axis=1).sum() <= 2 * 16
    before = result(run)
    train(config, resume=True)  # it is done: nothing is made anew, and nothing lost
    assert result(run) == before


def test_one_caption_of_every_image_can_be_the_unit_of_an_epoch(configured):
    run = train(configured(section={"epoch_unit": "image"}, epochs=1, selection={"split": "last"})).folder
    with np.load(run / "relations" / "epoch-001.npz") as arrays:
        assert (arrays["mined"] >= 0).any(axis=1).sum() == 48


@pytest.mark.parametrize(
    ("changes", "kind", "message"),
    [
        (
            {"section": {"batch_size": 97}},
            ConfigError,
            "data.batch_size 97 is above 96, the training pairs of an epoch",
        ),
        ({"section": {"batch_size": 49, "epoch_unit": "image"}}, ConfigError, "above 48, the training images"),
        ({"method": {**METHOD, "k": 97}}, ConfigError, "method.k 97 is above 96, the number of training pairs"),
        ({"method": {**METHOD, "threshold": 1.5}}, ConfigError, "method.*threshold.*less than or equal to 1"),
        ({"sampler": {"name": "identity"}}, ConfigError, "sampler.name: identity needs identities"),
        (
            {"section": {"captions_per_image": 2, "epoch_unit": "image"}},
            ConfigError,
            "data.captions_per_image 2: method dual_granularity takes 1 only",
        ),
    ],
)
def test_bad_input_is_one_line_before_the_first_step(configured, changes, kind, message):
    def progress(done, total):
        raise AssertionError("a step was made")

    with pytest.raises(kind, match=message) as caught:
        train(configured(**changes), progress=progress)
    assert "\n" not in str(caught.value)


def test_captions_without_words_are_counted(configured, data):
    lines = (data / "unknown.jsonl").read_text().splitlines()
    for number, text in ((0, " . "), (7, "?!")):
        record = json.loads(lines[number])
        record["captions"][0]["text"] = text
        lines[number] = json.dumps(record)
    (data / "silent.jsonl").write_text("\n".join(lines) + "\n")
    with pytest.raises(DatasetError, match=r"2 of 96 training captions have no words, first of .*00_0\.png"):
        train(configured(manifest="silent"))


def test_banks_that_do_not_fit_say_what_they_need(configured, monkeypatch):
    monkeypatch.setattr(environment, "free_memory", lambda device: 2**14)
    with pytest.raises(ConfigError, match=r"the memory banks of 96 training pairs need .* GiB, cpu has 0\.0 GiB free"):
        train(configured())
