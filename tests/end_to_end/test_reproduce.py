"""`tipr reproduce`: a small recipe from data and weights of the true layouts to the comparison; repeating resumes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import benchmark_copies
import pytest
import torch
import yaml
from checkpoint_samples import SAMPLES
from test_import_bi_irra import vocabulary
from test_import_command import merge_list

from tipr.analysis import reproduction
from tipr.cli import main
from tipr.errors import ConfigError
from tipr.importers.model_folder import import_model

ROOT = Path(__file__).resolve().parents[2]
pytestmark = pytest.mark.usefixtures("foreign_files_read_here")


def run(*arguments: object) -> int:
    with pytest.raises(SystemExit) as stop:
        main(["reproduce", *(str(each) for each in arguments)])
    return int(stop.value.code or 0)


@pytest.fixture
def given(tmp_path: Path) -> dict[str, Path]:
    """A data set, weights with their vocabulary, and a recipe that fits both."""
    data = tmp_path / "CUHK-PEDES"
    benchmark_copies.cuhk_pedes(data)
    (tmp_path / "weights").mkdir()
    weights = SAMPLES["openai_clip"](tmp_path / "weights")
    content = torch.load(weights, weights_only=True)
    content["token_embedding.weight"] = torch.randn(600, content["token_embedding.weight"].shape[1])
    torch.save(content, weights)
    words = merge_list(tmp_path / "weights" / "bpe_simple_vocab_16e6.txt.gz", 600)
    import_model("openai_clip", weights, tmp_path / "once", config={"image_size": [64, 32]})
    encoder = json.loads((tmp_path / "once" / "model.json").read_text())["encoder"]
    recipe: dict[str, Any] = {
        "out": "runs/x",
        "start_from": "models/clip",
        "expected": {"en": {"R@1": [0.0, 100.0], "mAP": [99.0, 100.0]}},
        "method": {"name": "clip_baseline"},
        "encoder": encoder,
        "tokenizer": {"kind": "clip", "vocabulary": str(words), "max_tokens": encoder["max_tokens"]},
        "data": {"dataset": "cuhk_pedes", "root": "data", "batch_size": 4},
        "schedule": {"unit": "step", "warmup": 1},
        "max_steps": 3,
        "threads": 1,
    }
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    return {"data": data, "weights": weights, "recipe": tmp_path / "recipe.yaml"}


def test_a_recipe_is_run_once_and_compared(
    tmp_path: Path, given: dict[str, Path], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    command = (given["recipe"], "--data", given["data"], "--weights", given["weights"], "--seeds", 2, "--out", out)
    assert run(*command) == 0
    printed = capsys.readouterr().out
    assert "recipe.yaml: 2 seeds; data " in printed
    assert "expected 0 to 100: reached" in printed
    assert "expected 99 to 100: NOT reached" in printed
    page = (out / "comparison.md").read_text()
    assert "| **clip_baseline, 2 seeds** | validation |" in page
    assert "| **zero-shot, start** | not trained |" in page
    assert "CLIP ViT-B/16 InfoNCE" in page
    assert sorted(each.name for each in out.iterdir()) == ["comparison.md", "seed-1", "seed-2", "start"]
    monkeypatch.setattr(reproduction, "train", None)  # everything is there already
    monkeypatch.setattr(reproduction, "import_model", None)
    assert run(*command, "--json", "-q") == 0
    tree = json.loads(capsys.readouterr().out)
    assert [each["inside"] for each in tree["expected"]] == [True, False]
    assert run(*command, "--set", "max_steps=4", "-q") == 2
    assert "was made with other settings: max_steps" in capsys.readouterr().err


def test_bi_irra_starts_from_its_pretraining_file_and_reranks(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data, folder = tmp_path / "RSTPReid", tmp_path / "weights"
    benchmark_copies.multilingual(data, benchmark_copies.rstpreid(data), splits=("train", "test"))
    folder.mkdir()
    weights = SAMPLES["x2vlm"](folder)
    sentences = vocabulary(folder, 300)
    import_model("x2vlm", weights, tmp_path / "once", config={"image_size": [64, 32]})
    encoder = json.loads((tmp_path / "once" / "model.json").read_text())["encoder"]
    recipe: dict[str, Any] = {
        "out": "runs/x",
        "start_from": "models/cclm",
        "expected": {"en": {"R@1": [0.0, 100.0]}, "zh": {"R@1": [0.0, 100.0]}},
        "method": {"name": "bi_irra"},
        "encoder": encoder,
        "tokenizer": {"kind": "xlmr", "path": str(sentences), "max_tokens": encoder["max_tokens"]},
        "data": {"dataset": "rstpreid_m", "root": "data", "languages": ["en", "zh"], "batch_size": 4},
        "augmentation": {"kind": "two_of_six"},
        "sampler": {"name": "random", "drop_last": True},
        "schedule": {"unit": "step", "warmup": 1},
        "selection": {"split": "last"},
        "max_steps": 1,
        "threads": 1,
    }
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    command = (tmp_path / "recipe.yaml", "--data", data, "--weights", weights, "--seeds", 1, "--out", tmp_path / "out")
    assert run(*command) == 0
    assert capsys.readouterr().out.count("expected 0 to 100: reached") == 2
    page = (tmp_path / "out" / "comparison.md").read_text()
    assert "| **bi_irra, reranked 256, 1 seed** | last epoch |" in page
    for language in ("en", "zh"):
        assert f"## RSTPReid(M) (rstpreid_m), captions in {language}" in page
    card = (tmp_path / "out" / "seed-1" / "card.md").read_text()
    assert "RESEARCH ONLY" in card


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("nobody/knows", "--data", "x"), 2, "no recipe 'nobody/knows'; there are "),
        (("irra/cuhk_pedes", "--data", "x"), 2, "needs --weights"),
        (("irra/synthetic", "--data", "x", "--weights", "y"), 2, "starts from random weights: give no --weights"),
        (("irra/synthetic", "--data", "nowhere"), 1, "nowhere is unusable: "),
    ],
)
def test_what_is_missing_is_said_before_anything_is_done(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    *,
    arguments: tuple[str, ...],
    code: int,
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run(*arguments, "-q") == code
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_a_recipe_is_found_by_name_or_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert reproduction.recipe_file("irra/cuhk_pedes") == ROOT / "configs" / "irra" / "cuhk_pedes.yaml"
    (tmp_path / "mine.yaml").write_text("")
    assert reproduction.recipe_file("mine.yaml") == Path("mine.yaml")
    with pytest.raises(ConfigError, match="bi_irra/cuhk_pedes_m"):
        reproduction.recipe_file("mine")
