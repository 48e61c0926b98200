"""Every committed configuration is complete, valid, and in the folder of its method."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from tipr.config import load
from tipr.methods import METHODS
from tipr.training import RunConfig

ROOT = Path(__file__).resolve().parents[2] / "configs"
FILES = sorted(ROOT.rglob("*.yaml"))


def test_every_method_has_a_configuration() -> None:
    assert {path.parent.name for path in FILES} == set(METHODS)


@pytest.mark.parametrize("path", FILES, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_configuration_is_valid_and_names_no_machine(path: Path) -> None:
    config = load(path, RunConfig)
    assert config.method.name == path.parent.name
    assert not config.out.is_absolute()
    assert not config.data.root.is_absolute()
    text = path.read_text(encoding="utf-8")
    assert text.startswith("# "), "the first line says what the run is"
    sections = set(yaml.safe_load(text))
    assert {"method", "encoder", "tokenizer", "data", "optimizer", "schedule", "selection"} <= sections
    assert config.selection.split != "test"
