"""Every committed configuration is complete, valid, and in the folder of its method."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from tipr.analysis.ablation import AblationConfig, plan
from tipr.config import load
from tipr.data.synthetic.presets import PRESETS
from tipr.methods import METHODS
from tipr.training import RunConfig

ROOT = Path(__file__).resolve().parents[2] / "configs"
ABLATIONS = sorted(ROOT.rglob("ablation.yaml"))
FILES = sorted(set(ROOT.rglob("*.yaml")) - set(ABLATIONS))


def test_every_method_has_a_configuration() -> None:
    assert {path.parent.name for path in FILES} == set(METHODS)


@pytest.mark.parametrize("path", FILES, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_configuration_is_valid_and_names_no_machine(path: Path) -> None:
    config = load(path, RunConfig)
    starts = {"synthetic_start.yaml": "irra"}  # what a run of the folder's method starts from
    assert config.method.name == starts.get(path.name, path.parent.name)
    assert not config.out.is_absolute()
    assert not config.data.root.is_absolute()
    text = path.read_text(encoding="utf-8")
    assert text.startswith("# "), "the first line says what the run is"
    sections = set(yaml.safe_load(text))
    assert {"method", "encoder", "tokenizer", "data", "optimizer", "schedule", "selection"} <= sections
    assert config.selection.split != "test"


@pytest.mark.parametrize("path", ABLATIONS, ids=lambda path: path.parent.name)
def test_every_run_of_an_ablation_is_valid_and_sees_the_same_number_of_pairs(path: Path) -> None:
    config = load(path, AblationConfig)
    assert path.read_text(encoding="utf-8").startswith("# "), "the first line says what it is about"
    runs = plan(config, config.base.out, seeds=3)
    assert len(runs) == 3 * len(config.settings) <= 48
    sets = {}
    for run in runs:
        assert not run.folder.is_absolute()
        assert not run.config.data.root.is_absolute()
        assert run.config.selection.split != "test"
        languages = len(run.config.data.languages or PRESETS["standard"].languages)
        sets[run.setting.name] = (run.config.epochs or 0) * languages, run.config.data.batch_size
    assert len(set(sets.values())) == 1, sets


def test_the_ablation_of_the_dual_granularity_method_has_the_figures_of_the_paper() -> None:
    config = load(ROOT / "dual_granularity" / "ablation.yaml", AblationConfig)
    figures = {setting.name: tuple(setting.paper.values()) for setting in config.settings if setting.paper}
    assert figures == {
        "itc": (64.69, 54.24, 54.60),
        "lrc": (69.04, 58.45, 56.30),
        "gsrc": (67.56, 58.51, 55.90),
        "lrc_gsrc": (70.20, 60.30, 57.25),
        "full": (73.06, 63.71, 61.30),
        "lrc_image": (67.56, 51.32, 53.51),
        "lrc_text": (67.61, 56.47, 55.45),
        "gsrc_text": (67.82, 57.42, 56.80),
        "gsrc_both": (68.73, 58.22, 56.90),
    }
    assert config.paper_sets == ("CUHK-PEDES", "ICFG-PEDES", "RSTPReid")
