"""`tipr train` from a folder of pictures to a run folder, and its one-line errors."""

import json
import os
import resource
import runpy
import signal
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from tipr import config as configuration
from tipr.cli import main
from tipr.data.datasets import DATASETS
from tipr.errors import ConfigError, DatasetError, TrainingError
from tipr.evaluation import evaluate
from tipr.retrieval import Retriever
from tipr.training import RunConfig, journal, load_config, train
from tipr.training.checkpoint import newest_first

CHECKPOINTS = {"every_epochs": 1, "every_steps": 2}
PEOPLE = runpy.run_path(str(Path(__file__).parents[1] / "data" / "training" / "coloured_people.py"))


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return PEOPLE["make_data"](tmp_path_factory.mktemp("people") / "data")


@pytest.fixture
def configured(tmp_path, data):
    """Makes a `RunConfig` whose run folder is new."""

    def make(**changes):
        return configuration.load(PEOPLE["make_config"](tmp_path / "run.yaml", data, **changes), RunConfig)

    return make


@pytest.fixture(scope="module")
def unbroken(data, tmp_path_factory):
    """The run that nothing interrupts; returns its result."""
    path = PEOPLE["make_config"](tmp_path_factory.mktemp("unbroken") / "run.yaml", data, checkpoints=CHECKPOINTS)
    before = torch.get_num_threads()
    result = train(configuration.load(path, RunConfig))
    torch.set_num_threads(before)
    return result


@pytest.fixture
def here(tmp_path, monkeypatch):
    """An empty working directory."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def weights(run, name="last"):
    return (run / name / "model.safetensors").read_bytes()


def command(*arguments):
    """Exit code of `tipr ARGUMENTS`."""
    with pytest.raises(SystemExit) as stopped:
        main([str(argument) for argument in arguments])
    return stopped.value.code


def test_a_run_learns_and_leaves_a_complete_folder(tmp_path, data, capsys):
    path = PEOPLE["make_config"](
        tmp_path / "run.yaml",
        data,
        export_half=True,
        data={"dataset": "manifest", "root": str(data), "batch_size": 16, "epoch_unit": "image"},
    )
    out = tmp_path / "a run"
    code = command(
        "train",
        path,
        "epochs=8",
        "optimizer.lr=0.01",
        "sampler={name: identity, per_identity: 2}",
        "--out",
        out,
        "--json",
    )
    shown = capsys.readouterr()
    assert code == 0
    result = json.loads(shown.out)
    assert "epoch 8/8" in shown.err
    assert "min left" in shown.err
    assert "steps/s" in shown.err

    for name in ("config.yaml", "environment.json", "metrics.jsonl", "card.md", "best/model.json", "last/model.json"):
        assert (out / name).is_file(), name
    assert (out / "status").read_text() == "done\n"
    assert len(newest_first(out / "checkpoints")) == 2
    assert any((out / "tb").iterdir())
    assert load_config(out).epochs == 8
    assert yaml.safe_load((out / "config.yaml").read_text())["sampler"] == {"name": "identity", "per_identity": 2}

    entries = journal.read(out)
    steps = [entry["step"] for entry in entries if entry["kind"] == "train"]
    assert steps == sorted(set(steps))
    losses = [entry["losses"] for entry in entries if entry["kind"] == "train"]
    assert set(losses[0]) == {"sdm", "id", "mlm"}
    assert sum(losses[-1].values()) < 0.95 * sum(losses[0].values())
    scored = {entry["epoch"]: entry["scores"]["mean"]["R@1"] for entry in entries if entry["kind"] == "scores"}
    assert list(scored) == list(range(1, 9))
    best = max(scored, key=lambda epoch: (scored[epoch], -epoch))
    assert result["best"]["epoch"] == best

    model = Retriever.load(out)  # its best/
    assert model.card["selection"] == "val"
    assert model.card["selected_on_test"] is False
    assert len(model.card["data"]["sha256_manifest"]) == 64
    assert model.card["best"]["scores"]["mean"] == result["best"]["scores"]["mean"]
    assert model.encode_text(["a person in a red top"]).shape == (1, 16)
    card = (out / "card.md").read_text()
    assert "chosen by mean R@1 over languages on the split 'val'" in card
    assert "not an identification" in card


def test_the_card_has_what_evaluate_finds(unbroken, data):
    split = DATASETS["manifest"].load(data, "val")
    for name, scores in (("best", unbroken.best_scores), ("last", unbroken.last_scores)):
        found = evaluate(unbroken.folder / name, split, bootstrap=0).text_to_image
        assert scores["mean"] == pytest.approx(found.mean.named())
        assert scores["zh"] == pytest.approx(found.languages["zh"].named())


@pytest.mark.parametrize("workers", [0, 2])
def test_a_crash_changes_nothing_after_resume(configured, data, unbroken, workers):
    """Crashes in the first epoch, right behind its end, and in the last: equal bytes to the unbroken run."""
    settings = {"dataset": "manifest", "root": str(data), "batch_size": 16, "workers": workers}
    config = configured(checkpoints=CHECKPOINTS, data=settings)

    class Crash(Exception):
        pass

    def crash_at(step):
        def progress(done, total):
            if done == step:
                raise Crash

        return progress

    for step in (3, 7, 17):  # an epoch has 6 steps
        with pytest.raises(Crash):
            train(config, resume=step > 3, progress=crash_at(step))
        assert (config.out / "status").read_text().startswith("failed: Crash")
    result = train(config, resume=True)
    assert result.steps == 18
    for name in ("best", "last"):
        assert weights(config.out, name) == weights(unbroken.folder, name), name
    keys = ("kind", "step", "losses", "scores")
    kept = [{key: entry.get(key) for key in keys} for entry in journal.read(config.out)]
    assert kept == [{key: entry.get(key) for key in keys} for entry in journal.read(unbroken.folder)]


def test_reading_files_anew_changes_nothing(configured, data, unbroken):
    settings = {"dataset": "manifest", "root": str(data), "batch_size": 16, "memory_gib": 0}
    notes = []
    result = train(configured(data=settings), note=notes.append)
    assert any("does not fit into data.memory_gib" in note for note in notes)
    assert weights(result.folder) == weights(unbroken.folder)


def test_ctrl_c_saves_and_prints_the_command_that_resumes(tmp_path, data, capsys):
    path = PEOPLE["make_config"](tmp_path / "run.yaml", data, epochs=500)
    run = tmp_path / "run"

    def press():
        while not (run / "metrics.jsonl").is_file() or (run / "metrics.jsonl").stat().st_size < 2000:
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGINT)

    finger = threading.Thread(target=press, daemon=True)
    finger.start()
    assert command("train", path, "--quiet") == 130
    finger.join()
    error = capsys.readouterr().err
    assert f"tipr train --resume {run}" in error
    assert "Traceback" not in error
    assert (run / "status").read_text() == "interrupted\n"
    step = int(newest_first(run / "checkpoints")[0].name.split("-")[1])
    assert step >= journal.read(run)[-1]["step"]


def test_a_loss_that_is_not_finite_stops_with_its_name(configured):
    config = configured(
        optimizer={"name": "sgd", "lr": 1e30}, epochs=50, precision="32", ema=None, checkpoints={"every_steps": 1}
    )
    with pytest.raises(TrainingError, match=r"^loss '(sdm|id|mlm)' is (nan|inf) at step \d+") as caught:
        train(config)
    assert "\n" not in str(caught.value)
    bad = int(str(caught.value).partition("at step ")[2].partition(":")[0])
    steps = [int(path.name.split("-")[1]) for path in newest_first(config.out / "checkpoints")]
    assert steps == list(range(bad - 1, max(bad - 3, 0), -1))  # none was written from weights that a bad loss touched
    assert (config.out / "status").read_text().startswith("failed: loss")


def test_a_full_disk_stops_with_one_line_and_the_run_goes_on_when_there_is_room(configured, unbroken):
    config = configured(checkpoints=CHECKPOINTS)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)

    def fill(done, total):
        if done == 9:
            resource.setrlimit(resource.RLIMIT_FSIZE, (30_000, hard))

    try:
        with pytest.raises(TrainingError, match=r"cannot write .*: File too large") as caught:
            train(config, progress=fill)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert "\n" not in str(caught.value)
    assert (config.out / "status").read_text().startswith("failed: cannot write")
    assert newest_first(config.out / "checkpoints")[0].name.startswith("step-000000008-")
    train(config, resume=True)
    assert weights(config.out) == weights(unbroken.folder)


def test_max_minutes_ends_early_and_says_so(configured):
    result = train(configured(max_minutes=1e-9))
    assert (result.steps, result.stopped) == (1, "max_minutes")
    assert "stopped before its configured length: max_minutes" in (result.folder / "card.md").read_text()
    again = train(load_config(result.folder), resume=True)
    assert again.steps == 1


def test_max_steps_and_no_selection(configured):
    result = train(configured(epochs=None, max_steps=8, selection={"split": "last"}))
    assert result.steps == 8
    assert result.best_scores is None
    assert weights(result.folder, "best") == weights(result.folder, "last")
    assert "No selection: the last epoch is the model" in (result.folder / "card.md").read_text()


def test_selection_on_test_is_said_aloud(tmp_path, configured):
    root = PEOPLE["make_data"](tmp_path / "other")
    text = (root / "manifest.jsonl").read_text().replace('"split": "val"', '"split": "test"')
    (root / "manifest.jsonl").write_text(text)
    config = configured(
        data={"dataset": "manifest", "root": str(root), "batch_size": 16},
        epochs=1,
        selection={"split": "test", "select_on_test": True},
    )
    result = train(config)
    assert Retriever.load(result.folder).card["selected_on_test"] is True
    assert "SELECTED ON TEST" in (result.folder / "card.md").read_text()
    without = config.model_copy(update={"out": tmp_path / "no", "selection": type(config.selection)()})
    with pytest.raises(DatasetError, match=r"selection.split val: .*selection.split: last needs none"):
        train(without)


def test_reference_half_holds_linear_weights_and_their_moments_in_half(configured):
    config = configured(precision="reference_half", ema=None, epochs=1, optimizer={"lr": 1e-4})
    result = train(config)
    state = torch.load(newest_first(result.folder / "checkpoints")[0], weights_only=True)
    kinds = {name: value.dtype for name, value in state["method"].items()}
    assert kinds["encoder.image.token_out.weight"] == torch.float16
    assert kinds["encoder.image.stem.0.weight"] == torch.float16
    assert kinds["encoder.text.embedding.weight"] == torch.float32
    assert kinds["encoder.text.norm.weight"] == torch.float32
    moments = {entry["exp_avg"].dtype for entry in state["optimizer"]["state"].values()}
    assert moments == {torch.float16, torch.float32}
    assert np.isfinite(result.last_scores["mean"]["R@1"])


def test_start_from_another_model(configured, tmp_path):
    first = train(configured(epochs=1))
    config = configured(epochs=1, start_from=str(first.folder / "last"), optimizer={"lr": 1e-12})
    config = config.model_copy(update={"out": tmp_path / "second", "ema": None, "precision": "32"})
    second = train(config)
    one, two = (Retriever.load(each.folder / "last").encode_text(["a red top"]) for each in (first, second))
    np.testing.assert_allclose(one, two, atol=1e-4)


def test_a_run_folder_is_never_overwritten(configured, tmp_path):
    config = configured(epochs=1)
    train(config)
    with pytest.raises(ConfigError, match="holds a run already"):
        train(config)
    changed = config.model_copy(update={"seed": 9})
    with pytest.raises(ConfigError, match="started with other settings: seed"):
        train(changed, resume=True)
    foreign = tmp_path / "foreign"
    foreign.mkdir()
    (foreign / "thesis.tex").write_text("")
    with pytest.raises(ConfigError, match="is not a run folder"):
        train(config.model_copy(update={"out": foreign}))


def test_a_run_that_died_before_its_first_checkpoint_starts_anew(configured):
    class Crash(Exception):
        pass

    def crash(done, total):
        raise Crash

    with pytest.raises(Crash):
        train(configured(), progress=crash)
    with pytest.raises(ConfigError, match="has no checkpoint yet"):
        train(configured(), resume=True)
    result = train(configured(epochs=1, tokenizer={"kind": "subword", "vocabulary_size": 270}))
    assert Retriever.load(result.folder).tokenizer.vocabulary_size == 270
    assert {entry["step"] for entry in journal.read(result.folder)} == {2, 4, 6}


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((), "give a CONFIG"),
        (("nowhere.yaml",), "no configuration file at nowhere.yaml"),
        (("run.yaml", "epochs=0"), "epochs"),
        (("run.yaml", "epoch=3"), "epoch: unknown key"),
        (("run.yaml", "epochs"), "is not of the form key.path=value"),
        (("run.yaml", "--resume", "x"), "no CONFIG, KEY=VALUE or --out with it"),
        (("--resume", "nowhere"), "nowhere holds no run to resume"),
        (("run.yaml", "--device", "cuda:99"), "CUDA devices found; use cpu"),
    ],
)
def test_usage_errors_are_one_line_and_exit_2(arguments, words, here, data, capsys):
    PEOPLE["make_config"](here / "run.yaml", data)
    assert command("train", *arguments) == 2
    error = capsys.readouterr().err
    assert words in error
    assert error.count("\n") == 1
    assert not (here / "run").exists()


def test_missing_data_is_one_line_and_exit_1(tmp_path, data, capsys):
    path = PEOPLE["make_config"](tmp_path / "run.yaml", tmp_path / "nothing here")
    assert command("train", path, "--quiet") == 1
    assert "no folder or manifest file at" in capsys.readouterr().err
