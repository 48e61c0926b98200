"""What every entry of IMPORTERS promises."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest
import torch
from checkpoint_samples import SAMPLES, argument

import tipr.importers
from tipr.errors import ConfigError, WeightsError
from tipr.importers import IMPORTERS, read
from tipr.methods import Method

pytestmark = pytest.mark.usefixtures("foreign_files_read_here")
NOT_IMPORTERS = {
    "__init__",
    "bi_irra_names",
    "foreign_files",
    "foreign_reader",
    "model_folder",
    "official",
    "openai_clip_tensors",
}

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
def test_it_gives_a_method_in_evaluation_mode_in_float32(name: str, tmp_path: Path) -> None:
    path = argument(name, SAMPLES[name](tmp_path))
    for given in (path, str(path)):
        method = read(name, given)
        assert isinstance(method, Method)
        assert not any(module.training for module in method.modules())
        assert {parameter.dtype for parameter in method.parameters()} == {torch.float32}
        assert all(parameter.requires_grad for parameter in method.parameters())


@every_format
def test_one_unknown_and_one_missing_name_are_listed(name: str, tmp_path: Path) -> None:
    path = SAMPLES[name](tmp_path)
    content = torch.load(path, weights_only=True)
    state = content.get("model", content.get("state_dict", content))
    gone = sorted(key for key in state if key.endswith("weight"))[3]
    prefix = "module." if gone.startswith("module.") else ""
    del state[gone]
    state[f"{prefix}surplus.weight"] = torch.zeros(1)
    torch.save(content, path)
    with pytest.raises(WeightsError) as error:
        read(name, argument(name, path))
    text = str(error.value)
    assert f"1 missing key: {gone.removeprefix('module.').removeprefix('text.')}" in text
    assert "1 unknown key: surplus.weight" in text
    assert "\n" not in text


@every_format
def test_a_pickle_that_runs_code_is_refused_and_does_not_run(name: str, tmp_path: Path) -> None:
    path = SAMPLES[name](tmp_path)
    path.write_bytes(pickle.dumps(Evil(tmp_path / "ran")))
    with pytest.raises(WeightsError):
        read(name, argument(name, path))
    torch.save({"model": Evil(tmp_path / "ran")}, path)
    with pytest.raises(WeightsError):
        read(name, argument(name, path))
    assert not (tmp_path / "ran").exists()


@every_format
def test_files_that_are_no_checkpoints(name: str, tmp_path: Path) -> None:
    path = SAMPLES[name](tmp_path)
    whole = path.read_bytes()
    for content in (b"hello", b"", whole[:5000]):
        path.write_bytes(content)
        with pytest.raises(WeightsError) as error:
            read(name, argument(name, path))
        assert str(path) in str(error.value)
        assert "\n" not in str(error.value)
    torch.save([1, 2], path)
    with pytest.raises(WeightsError, match="no state dict"):
        read(name, argument(name, path))
    path.unlink()
    with pytest.raises(WeightsError, match=r"no (checkpoint at|weights in) "):
        read(name, argument(name, path))


@every_format
def test_unknown_settings_are_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="headz: unknown key"):
        read(name, argument(name, SAMPLES[name](tmp_path)), config={"headz": 3})


def test_unknown_format_lists_the_known_ones() -> None:
    with pytest.raises(ConfigError, match=r"unknown checkpoint format 'clap': use one of .*irra"):
        read("clap", "x")
