"""Every committed configuration is complete, valid, and in the folder of its method."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from tipr.analysis.ablation import AblationConfig, plan
from tipr.analysis.run_scores import pairs_seen
from tipr.config import load
from tipr.data.synthetic.presets import PRESETS
from tipr.methods import METHODS
from tipr.training import RunConfig

ROOT = Path(__file__).resolve().parents[2] / "configs"
GOLDEN_BI_IRRA = ROOT.parent / "tests" / "data" / "golden_bi_irra" / "expected.json"
ABLATIONS = sorted(ROOT.rglob("ablation*.yaml"))
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


def test_every_published_recipe_is_there_with_its_expected_range() -> None:
    plain, several = {"cuhk_pedes", "icfg_pedes", "rstpreid"}, {"cuhk_pedes", "icfg_pedes", "rstpreid", "ufinebench"}
    wanted = {(method, name) for method in ("irra", "clip_baseline", "dual_granularity") for name in plain}
    wanted |= {("bi_irra", f"{name}_m") for name in several}
    real = {(path.parent.name, path.stem): load(path, RunConfig) for path in FILES}
    real = {place: config for place, config in real.items() if config.data.dataset not in ("synthetic", "manifest")}
    assert set(real) == wanted
    for (_, name), config in real.items():
        assert config.data.dataset == name
        assert set(config.expected) == set(config.data.languages or ())
        assert all("R@1" in ranges for ranges in config.expected.values())
        for low, high in (ranges["R@1"] for ranges in config.expected.values()):
            assert 2 <= high - low <= 6, "a range of seeds, not any result"


@pytest.mark.parametrize("path", sorted((ROOT / "bi_irra").glob("*_m.yaml")), ids=lambda path: path.stem)
def test_bi_irra_is_trained_as_published(path: Path) -> None:
    config, golden = load(path, RunConfig), json.loads(GOLDEN_BI_IRRA.read_text(encoding="utf-8"))
    optimizer, schedule, method = config.optimizer, config.schedule, config.method
    rates = [optimizer.lr, optimizer.lr * schedule.warmup_start, optimizer.lr * schedule.final]
    assert rates == pytest.approx([golden["schedule"][key] for key in ("lr", "lr_start", "lr_end")])
    assert (schedule.warmup_epochs, schedule.warmup_inclusive, config.epochs) == (1, True, 10)
    assert (optimizer.name, optimizer.betas, optimizer.eps, optimizer.weight_decay) == (
        "adamw",
        (0.9, 0.98),
        1e-8,
        0.02,
    )
    assert optimizer.clip_grad_norm is None
    assert {name: method.weights[name] for name in method.losses} == golden["loss_weights"]
    long = path.stem.startswith("ufine")
    assert (config.data.batch_size, config.max_tokens) == ((64, 168) if long else (128, 77))
    assert (
        method.itm_negative_group == config.data.batch_size // 4 == method.itc_gradient_scale * config.data.batch_size
    )
    assert config.encoder.target_languages == ("zh",)
    assert config.start_from is not None


@pytest.mark.parametrize("path", ABLATIONS, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_every_run_of_an_ablation_is_valid_and_sees_the_same_number_of_pairs(path: Path) -> None:
    config = load(path, AblationConfig)
    assert path.read_text(encoding="utf-8").startswith("# "), "the first line says what it is about"
    runs = plan(config, config.base.out, seeds=3)
    assert len(runs) == 3 * len(config.settings) <= 48
    seen: dict[str, set[tuple[int, int]]] = {}
    for run in runs:
        assert not run.folder.is_absolute()
        assert not run.config.data.root.is_absolute()
        assert run.config.selection.split != "test"
        for table in set(run.setting.tables) - {"time"}:
            seen.setdefault(table, set()).add((captions_seen(run.config), run.config.data.batch_size))
    assert all(len(amounts) == 1 for amounts in seen.values()), seen


def captions_seen(config: RunConfig) -> int:
    """Captions in all epochs, as a multiple of the pictures."""
    if config.data.epoch_unit == "image":
        return (config.epochs or 0) * (2 if config.bilingual else config.data.captions_per_image)
    return (config.epochs or 0) * 2 * len(config.data.languages or PRESETS["standard"].languages)


def test_a_step_of_bi_irra_sees_two_captions_of_a_picture() -> None:
    config = load(ROOT / "bi_irra" / "ablation.yaml", AblationConfig).base
    assert pairs_seen(config, 10, captions=64_000, images=8_000) == 10 * 32 * 2


def test_the_ablation_of_bi_irra_has_the_figures_of_the_paper() -> None:
    config = load(ROOT / "bi_irra" / "ablation.yaml", AblationConfig)
    figures = {
        setting.runs_of or setting.name: tuple(setting.paper.values()) for setting in config.settings if setting.paper
    }
    assert figures == {
        "bi_irra": (78.82, 76.43),
        "bi_irra_short": (78.82, 76.43),
        "md_ga": (76.97, 74.81),
        "md_ga_mim": (77.81, 75.18),
        "md_ga_mlm": (77.49, 75.36),
        "sdm": (66.89, 64.36),
        "identity": (78.28, 76.20),
    }


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
