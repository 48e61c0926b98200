"""The journal: flushed lines, no step twice after a resume, TensorBoard beside it."""

import json
import resource
import sys

import pytest

from tipr.errors import TrainingError
from tipr.training import journal
from tipr.training.journal import Journal


def test_lines_are_there_at_once_and_events_beside_them(tmp_path):
    with Journal(tmp_path) as diary:
        diary.write("train", 5, {"losses": {"sdm": 1.5}, "lr": 1e-3})
        assert journal.read(tmp_path) == [{"kind": "train", "step": 5, "losses": {"sdm": 1.5}, "lr": 1e-3}]
        diary.write("scores", 5, {"scores": {"en": {"R@1": 12.5}}})
        diary.sync()
    (events,) = (tmp_path / "tb").iterdir()
    assert b"train/losses/sdm" in events.read_bytes()
    assert b"scores/scores/en/R@1" in events.read_bytes()


def test_resume_cuts_back_to_the_checkpoint(tmp_path):
    with Journal(tmp_path) as diary:
        for step in range(1, 6):
            diary.write("train", step, {"lr": step / 10})
    with (tmp_path / "metrics.jsonl").open("a") as stream:
        stream.write('{"kind": "train", "step": 6, "l')  # torn by a kill
    with Journal(tmp_path, resume_step=3) as diary:
        diary.write("train", 4, {"lr": 0.4})
    assert [entry["step"] for entry in journal.read(tmp_path)] == [1, 2, 3, 4]


def test_resume_cuts_what_was_said_about_an_epoch_that_was_not_closed(tmp_path):
    """A kill between an epoch's report and its checkpoint, with an older checkpoint of the same step to resume from."""
    said = [("train", 4), ("epoch", 4), ("scores", 4), ("train", 8), ("epoch", 8), ("scores", 8)]
    with Journal(tmp_path) as diary:
        for kind, step in said:
            diary.write(kind, step, {"epoch": step // 4})
    with Journal(tmp_path, resume_step=8, closed_epoch=1):
        pass
    assert [(entry["kind"], entry["step"]) for entry in journal.read(tmp_path)] == said[:4]


def test_without_tensorboard_there_is_a_note(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard.writer", None)
    with Journal(tmp_path) as diary:
        diary.write("train", 1, {"lr": 1.0})
        assert diary.note is not None
        assert "TensorBoard is not installed" in diary.note
    assert len(journal.read(tmp_path)) == 1


def test_a_full_disk_is_one_line(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard.writer", None)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    with Journal(tmp_path) as diary:
        resource.setrlimit(resource.RLIMIT_FSIZE, (10, hard))
        try:
            with pytest.raises(TrainingError, match=r"cannot write the journal in .*: File too large"):
                diary.write("train", 1, {"lr": 1.0})
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_status_is_replaced_whole(tmp_path):
    journal.set_status(tmp_path, "running")
    journal.set_status(tmp_path, "done")
    assert (tmp_path / "status").read_text() == "done\n"
    assert [path.name for path in tmp_path.iterdir()] == ["status"]
    json.dumps(journal.read(tmp_path))  # a folder without a journal reads as empty
