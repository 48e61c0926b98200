"""What every entry of IMPORTERS promises."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest
import torch

import tipr.importers
from tipr.errors import ConfigError, WeightsError
from tipr.importers import IMPORTERS, read
from tipr.methods import Method

pytestmark = pytest.mark.usefixtures("foreign_files_read_here")
NOT_IMPORTERS = {"__init__", "foreign_files", "foreign_reader", "openai_clip_tensors"}
SAMPLES = {"irra": Path(__file__).parents[1] / "data" / "golden_irra" / "tiny.pth"}

every_format = pytest.mark.parametrize("name", IMPORTERS)


class Evil:
    """A pickle that would create a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return Path.touch, (self.path,)  # type: ignore[return-value]


def test_every_file_is_listed() -> None:
    folder = Path(next(iter(tipr.importers.__path__)))
    assert {path.stem for path in folder.glob("*.py")} - NOT_IMPORTERS == set(IMPORTERS)


@every_format
def test_it_gives_a_method_in_evaluation_mode_in_float32(name: str) -> None:
    for path in (SAMPLES[name], str(SAMPLES[name])):
        method = read(name, path)
        assert isinstance(method, Method)
        assert not any(module.training for module in method.modules())
        assert {parameter.dtype for parameter in method.parameters()} == {torch.float32}
        assert all(parameter.requires_grad for parameter in method.parameters())


@every_format
def test_one_unknown_and_one_missing_name_are_listed(name: str, tmp_path: Path) -> None:
    content = torch.load(SAMPLES[name], weights_only=True)
    state = content.get("model", content)
    gone = sorted(state)[3]
    del state[gone]
    state["surplus.weight"] = torch.zeros(1)
    torch.save(content, tmp_path / "changed.pth")
    with pytest.raises(WeightsError) as error:
        read(name, tmp_path / "changed.pth")
    text = str(error.value)
    assert f"1 missing key: {gone}" in text
    assert "1 unknown key: surplus.weight" in text
    assert "\n" not in text


@every_format
def test_a_pickle_that_runs_code_is_refused_and_does_not_run(name: str, tmp_path: Path) -> None:
    (tmp_path / "evil.pth").write_bytes(pickle.dumps(Evil(tmp_path / "ran")))
    torch.save({"model": Evil(tmp_path / "ran")}, tmp_path / "evil_zip.pth")
    for file in ("evil.pth", "evil_zip.pth"):
        with pytest.raises(WeightsError):
            read(name, tmp_path / file)
    assert not (tmp_path / "ran").exists()


@every_format
def test_files_that_are_no_checkpoints(name: str, tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="no checkpoint at"):
        read(name, tmp_path / "absent.pth")
    (tmp_path / "text.pth").write_text("hello")
    (tmp_path / "empty.pth").write_bytes(b"")
    (tmp_path / "cut.pth").write_bytes(SAMPLES[name].read_bytes()[:5000])
    torch.save([1, 2], tmp_path / "list.pth")
    torch.save({"model": {"a": 1}}, tmp_path / "numbers.pth")
    for file in ("text", "empty", "cut", "list", "numbers"):
        with pytest.raises(WeightsError) as error:
            read(name, tmp_path / f"{file}.pth")
        assert f"{file}.pth" in str(error.value)
        assert "\n" not in str(error.value)


@every_format
def test_unknown_settings_are_refused(name: str) -> None:
    with pytest.raises(ConfigError, match="headz: unknown key"):
        read(name, SAMPLES[name], config={"headz": 3})


def test_unknown_format_lists_the_known_ones() -> None:
    with pytest.raises(ConfigError, match=r"unknown checkpoint format 'clap': use one of .*irra"):
        read("clap", "x")
