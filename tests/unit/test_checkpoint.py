"""Checkpoints are whole or not there."""

import resource

import pytest
import torch

from tipr.errors import TrainingError
from tipr.training import checkpoint


def state(value, size=50_000):
    return {"value": value, "weights": torch.full((size,), float(value)), "random": ({"a": [1, (2, 3)]},)}


def test_round_trip_keeps_the_newest_and_names_them_by_step(tmp_path):
    folder = tmp_path / "checkpoints"
    for step in (5, 40, 300):
        checkpoint.save(folder, state(step), step=step, keep=2)
    assert [path.name.split("-")[1] for path in checkpoint.newest_first(folder)] == ["000000300", "000000040"]
    content, path, damaged = checkpoint.load_latest(folder)
    assert path.name.startswith("step-000000300-")
    assert damaged == []
    assert content["value"] == 300
    assert content["random"] == ({"a": [1, (2, 3)]},)
    assert torch.equal(content["weights"], torch.full((50_000,), 300.0))


@pytest.mark.parametrize("share", [0.0, 0.001, 0.3, 0.9, 0.99999])
def test_a_torn_file_is_passed_over(tmp_path, share):
    checkpoint.save(tmp_path, state(1), step=1, keep=2)
    torn = checkpoint.save(tmp_path, state(2), step=2, keep=2)
    whole = torn.read_bytes()
    torn.write_bytes(whole[: int(len(whole) * share)])
    content, _, damaged = checkpoint.load_latest(tmp_path)
    assert content["value"] == 1
    assert damaged == [torn]


def test_a_flipped_bit_is_noticed_and_with_nothing_left_there_is_one_line(tmp_path):
    path = checkpoint.save(tmp_path, state(1), step=1, keep=2)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(TrainingError, match=r"no usable checkpoint in .* \(1 damaged\)") as caught:
        checkpoint.load_latest(tmp_path)
    assert "\n" not in str(caught.value)


def test_a_kill_inside_a_write_leaves_only_a_partial_file_that_the_next_write_clears(tmp_path):
    checkpoint.save(tmp_path, state(1), step=1, keep=2)
    (tmp_path / "step-000000002.partial").write_bytes(b"half")
    assert checkpoint.load_latest(tmp_path)[0]["value"] == 1
    checkpoint.save(tmp_path, state(3), step=3, keep=2)
    assert not list(tmp_path.glob("*.partial"))


def test_a_full_disk_is_one_line_and_the_last_checkpoint_stays(tmp_path):
    checkpoint.save(tmp_path, state(1), step=1, keep=1)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (60_000, hard))  # the kernel refuses to write beyond
    try:
        with pytest.raises(TrainingError, match=r"cannot write a checkpoint in .*: File too large") as caught:
            checkpoint.save(tmp_path, state(2), step=2, keep=1)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.glob("*.partial"))
    assert checkpoint.load_latest(tmp_path)[0]["value"] == 1
    checkpoint.save(tmp_path, state(2), step=2, keep=1)  # works again without anything to repair
    assert checkpoint.load_latest(tmp_path)[0]["value"] == 2


def test_a_folder_that_cannot_be_made_is_one_line(tmp_path):
    (tmp_path / "file").write_text("here")
    with pytest.raises(TrainingError, match="cannot write a checkpoint"):
        checkpoint.save(tmp_path / "file" / "checkpoints", state(1), step=1, keep=1)


def test_reading_runs_no_code(tmp_path):
    class Evil:
        def __reduce__(self):
            return (exec, ("raise SystemExit('code ran')",))

    path = checkpoint.save(tmp_path, {"evil": Evil()}, step=1, keep=1)
    with pytest.raises(TrainingError, match="no usable checkpoint"):
        checkpoint.load_latest(tmp_path)
    assert path.is_file()
