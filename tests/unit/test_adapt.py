"""Stage 3 runs for real: a small vision-language model learns with LoRA, and what it learnt can be kept and loaded."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from statistics import fmean
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from tiny_chat_architectures import build_gemma3, build_idefics3, build_qwen2_5, build_qwen3
from tiny_vision_language import all_wordings, build_llava, build_qwen, filtered_row, paint_all, write_filtered

from tipr.errors import ConfigError, DatasetError, MissingExtra, TrainingError, WeightsError
from tipr.translation.adapt import FOLDER, PROGRESS, Adapted, AdaptSettings, learning_rate, run_adapt
from tipr.translation.adapter import FACTS, WEIGHTS, Adapter, Shape, load_adapter
from tipr.translation.backends import Prompt
from tipr.translation.prompts import load_prompt
from tipr.translation.records import REWRITTEN, Item, Row, read_rows
from tipr.translation.rewrite import RewriteSettings, run_rewrite
from tipr.translation.vision_language import VisionLanguageModel

STEPS = 30


def clean(language: str = "de") -> list[Row]:
    """128 clean rows, every image with eight captions."""
    return [filtered_row(upper, words["en"].split()[5], lower, language) for upper, lower, words in all_wordings()]


class Proof(NamedTuple):
    base: Path
    settings: AdaptSettings
    done: Adapted
    model: VisionLanguageModel
    damaged: list[Row]


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return paint_all(tmp_path_factory.mktemp("images"))


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_llava(tmp_path_factory.mktemp("models") / "tiny-llava")


@pytest.fixture(scope="module")
def proof(base: Path, images: Path, tmp_path_factory: pytest.TempPathFactory) -> Proof:
    """One epoch of 30 steps over 120 clean translations; eight others are damaged, so nothing is learnt of them."""
    rows = clean()
    for place, row in enumerate(rows[::16]):
        empty = {"draft": "", "noise": None, "rule": "empty"}
        row.update(empty if place % 2 else {"draft": "Nichts davon ist zu sehen.", "noise": 1.0}, noisy=True)
    out = write_filtered(tmp_path_factory.mktemp("proof"), rows)
    settings = AdaptSettings(out, images, batch=4, learning_rate=1e-2, dropout=0.0)
    model = VisionLanguageModel.load(base, max_new_tokens=40)
    return Proof(base, settings, run_adapt(settings, model), model, rows[::16])


def prompts(rows: list[Row], images: Path) -> list[Prompt]:
    template = load_prompt("rewrite")
    return [Prompt(template.fill(Item.of(row)), images / row["image"]) for row in rows]


def small(out: Path, images: Path, captions: int = 24, **changes: Any) -> AdaptSettings:
    """A run of a few steps, with dropout."""
    write_filtered(out, clean()[:captions])
    settings = AdaptSettings(out, images, batch=4, rank=4, dropout=0.2, learning_rate=3e-3, keep_every=2)
    return replace(settings, **changes)


class Stop(Exception):
    """Raised from the progress callback, in place of a kill."""


def stop_at(captions: int) -> Any:
    def progress(done: int, total: int) -> None:
        if done >= captions:
            raise Stop

    return progress


def test_loss_falls(proof: Proof) -> None:
    losses = proof.done.losses
    assert len(losses) == STEPS
    assert proof.done.captions == 120
    assert fmean(losses[-5:]) < 0.5 * fmean(losses[:5])


class KnownWords:
    """Noise = share of words that no clean translation has."""

    name = "known words"

    def __init__(self) -> None:
        self.words = {word for row in clean() for word in row["draft"].rstrip(".").split()}

    def describe(self) -> dict[str, Any]:
        return {"name": "scripted"}

    def noise(self, sources: Any, translations: Any, source_language: str, language: str) -> NDArray[np.float64]:
        return np.array([self.unknown(text) for text in translations])

    def unknown(self, text: str) -> float:
        return fmean(word not in self.words for word in text.rstrip(".").split())


def test_rewriting_with_the_adapter_changes_noisy_captions(proof: Proof) -> None:
    estimator, out = KnownWords(), proof.settings.out
    settings = RewriteSettings(out, proof.settings.images)
    untaught = VisionLanguageModel.load(proof.base, max_new_tokens=12)
    (before,) = run_rewrite(settings, untaught, estimator)
    assert (before.noisy, before.kept, before.without_text) == (8, 0, 4)
    (out / REWRITTEN).unlink()
    (after,) = run_rewrite(settings, proof.model, estimator)
    assert after.kept >= 6
    final = {row["key"]: row for row in read_rows(out / REWRITTEN)}
    for row in proof.damaged:
        if final[row["key"]]["kept"]:
            text = final[row["key"]]["text"]
            assert text != row["draft"]
            assert estimator.unknown(text) < 0.5
            assert final[row["key"]]["rewriter"]["adapter"] == proof.model.adapter
    assert all(final[row["key"]]["text"] == row["draft"] for row in final.values() if not row["noisy"])


def test_reloaded_adapter_gives_equal_outputs(proof: Proof) -> None:
    asked = prompts(proof.damaged, proof.settings.images)
    reloaded = VisionLanguageModel.load(proof.base, max_new_tokens=40)
    load_adapter(reloaded, proof.done.folder)
    assert reloaded.complete(asked) == proof.model.complete(asked)
    answers = [row["source"] for row in proof.damaged]
    with torch.no_grad():
        losses = [model.answer_loss(model.lesson(asked, answers)) for model in (reloaded, proof.model)]
    assert torch.equal(*losses)
    assert reloaded.describe() == proof.model.describe()
    assert reloaded.describe()["adapter"]["sha256"]


def test_only_the_new_matrices_learn(proof: Proof) -> None:
    before = VisionLanguageModel.load(proof.base).model.state_dict()
    after = {
        name.replace(".base_layer", ""): value
        for name, value in proof.model.model.state_dict().items()
        if ".lora_" not in name
    }
    assert after.keys() == before.keys()
    assert all(torch.equal(after[name], value) for name, value in before.items())
    learnt = [name for name, parameter in proof.model.model.named_parameters() if parameter.requires_grad]
    assert len(learnt) == 2 * 2 * 7  # two matrices for each of seven linear layers in two layers
    assert all(".language_model." in name and ".lora_" in name for name in learnt)


def test_adapter_folder_is_whole_and_names_no_place(proof: Proof) -> None:
    folder = proof.done.folder
    assert sorted(path.name for path in folder.iterdir()) == [FACTS, "adapter_config.json", WEIGHTS]
    for name in (FACTS, "adapter_config.json"):
        text = (folder / name).read_text(encoding="utf-8")
        assert str(proof.base.parent) not in text
        assert str(proof.settings.out) not in text
    facts = json.loads((folder / FACTS).read_text(encoding="utf-8"))
    assert facts["model"] == json.loads((folder / "adapter_config.json").read_text())["base_model_name_or_path"]
    assert facts["losses"] == proof.done.losses


def test_finished_stage_is_not_run_again(proof: Proof) -> None:
    asked = prompts(proof.damaged, proof.settings.images)
    model = VisionLanguageModel.load(proof.base, max_new_tokens=40)
    again = run_adapt(proof.settings, model, progress=stop_at(0))
    assert again == proof.done
    assert model.complete(asked) == proof.model.complete(asked)


def test_stopped_run_ends_with_the_same_adapter(base: Path, images: Path, tmp_path: Path) -> None:
    whole = small(tmp_path / "whole", images)
    straight = run_adapt(whole, VisionLanguageModel.load(base))
    stopped = small(tmp_path / "stopped", images)
    for captions in (4, 12, 20):  # before a state was kept, and after the first and the second
        with pytest.raises(Stop):
            run_adapt(stopped, VisionLanguageModel.load(base), progress=stop_at(captions))
        assert not (stopped.out / FOLDER / FACTS).exists()
    assert (stopped.out / FOLDER / PROGRESS).is_file()
    (stopped.out / FOLDER / f".{PROGRESS}.partial").write_bytes(b"a kill while a state was written")
    resumed = run_adapt(stopped, VisionLanguageModel.load(base))
    assert resumed.losses == straight.losses
    assert (resumed.folder / WEIGHTS).read_bytes() == (straight.folder / WEIGHTS).read_bytes()
    assert {path.name for path in resumed.folder.iterdir()} == {path.name for path in straight.folder.iterdir()}


def test_dropout_is_on_and_leaves_the_callers_randomness_alone(base: Path, images: Path, tmp_path: Path) -> None:
    torch.manual_seed(5)
    state = torch.get_rng_state()
    losses = run_adapt(small(tmp_path, images, 8), VisionLanguageModel.load(base)).losses
    assert torch.equal(torch.get_rng_state(), state)
    without = run_adapt(small(tmp_path / "without", images, 8, dropout=0.0), VisionLanguageModel.load(base)).losses
    assert losses[0] == without[0]  # nothing is learnt yet that could be left out
    assert losses[1] != without[1]


def test_micro_batches_change_no_step(base: Path, images: Path, tmp_path: Path) -> None:
    losses = [
        run_adapt(
            small(tmp_path / str(size), images, 8, micro_batch=size, dropout=0.0), VisionLanguageModel.load(base)
        ).losses
        for size in (1, 3)
    ]
    assert losses[1] == pytest.approx(losses[0], rel=1e-4)


def test_other_architecture_learns_too(images: Path, tmp_path: Path) -> None:
    model = VisionLanguageModel.load(build_qwen(tmp_path / "tiny-qwen"))
    losses = run_adapt(small(tmp_path / "out", images, learning_rate=1e-1, alpha=64.0, dropout=0.0), model).losses
    assert losses[-1] < losses[0]


@pytest.mark.slow
@pytest.mark.parametrize("build", [build_qwen2_5, build_qwen3, build_gemma3, build_idefics3])
def test_published_architectures_answer_and_learn(build: Callable[[Path], Path], images: Path, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = VisionLanguageModel.load(build(tmp_path / "tiny"), max_new_tokens=4)
    asked = prompts(clean()[:3], images)
    together = model.complete(asked)
    model.batch = 1
    assert model.complete(asked) == together
    losses = run_adapt(small(tmp_path / "out", images, learning_rate=1e-1, alpha=64.0, dropout=0.0), model).losses
    assert losses[-1] < losses[0]


def test_learns_only_what_is_clean_and_chosen(base: Path, images: Path, tmp_path: Path) -> None:
    rows = [
        filtered_row("red", "coat", "blue", "de"),
        filtered_row("red", "coat", "blue", "zh"),
        filtered_row("red", "vest", "blue", "de", noise=0.9),
        filtered_row("red", "scarf", "blue", "de", noise=None, rule="empty", draft=None),
    ]
    write_filtered(tmp_path, rows)
    settings = AdaptSettings(tmp_path, images, languages=("de",))
    assert run_adapt(settings, VisionLanguageModel.load(base)).captions == 1
    with pytest.raises(DatasetError, match="no clean translation in fr to learn from"):
        run_adapt(replace(settings, languages=("fr",)), VisionLanguageModel.load(base))


def test_unreadable_images_are_left_out_and_counted(base: Path, images: Path, tmp_path: Path) -> None:
    rows = clean()[:8]
    rows[3] = {**rows[3], "image": "gone.png"}
    write_filtered(tmp_path, rows)
    settings = AdaptSettings(tmp_path, images, batch=4)
    done = run_adapt(settings, VisionLanguageModel.load(base))
    assert (done.captions, done.unreadable) == (7, 1)
    elsewhere = write_filtered(tmp_path / "none", rows)
    with pytest.raises(DatasetError, match=r"no image of the clean translations can be read below .*nowhere"):
        run_adapt(AdaptSettings(elsewhere, tmp_path / "nowhere"), VisionLanguageModel.load(base))


def test_refuses_other_settings(base: Path, images: Path, tmp_path: Path) -> None:
    settings = small(tmp_path, images)
    with pytest.raises(Stop):
        run_adapt(settings, VisionLanguageModel.load(base), progress=stop_at(12))
    with pytest.raises(ConfigError, match=r"adapter was made with other settings \(learning_rate\): give those again"):
        run_adapt(replace(settings, learning_rate=1e-3), VisionLanguageModel.load(base))
    (tmp_path / FOLDER / PROGRESS).write_bytes(b"torn")
    with pytest.raises(TrainingError, match=r"progress.safetensors is damaged: delete it to adapt from the start"):
        run_adapt(settings, VisionLanguageModel.load(base))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"rank": 0}, "rank must be at least 1, not 0"),
        ({"batch": 0}, "batch must be at least 1, not 0"),
        ({"learning_rate": 0.0}, "learning_rate must be above 0, not 0.0"),
        ({"dropout": 1.0}, r"dropout must lie in \[0, 1\), not 1.0"),
    ],
)
def test_refuses_values_out_of_range(changes: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=message):
        AdaptSettings(tmp_path, tmp_path, **changes)


def test_refuses_the_adapter_of_another_model(proof: Proof, tmp_path: Path) -> None:
    other = VisionLanguageModel.load(build_qwen(tmp_path / "tiny-qwen"))
    with pytest.raises(WeightsError, match=r"the adapter in .* belongs to tiny-llava \(.{12}\), not to tiny-qwen"):
        load_adapter(other, proof.done.folder)
    with pytest.raises(WeightsError, match=r"no adaptation.json in .*: give the folder that the adapt stage finished"):
        load_adapter(other, tmp_path)
    with pytest.raises(WeightsError, match="model tiny-llava has an adapter already"):
        Adapter(proof.model, Shape(4, 8.0, 0.0))


def test_absent_peft_names_the_install_line(proof: Proof, base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(MissingExtra, match=r'peft is not installed: run  pip install "tipr\[translate\]"'):
        load_adapter(VisionLanguageModel.load(base), proof.done.folder)


def test_rate_rises_and_falls(tmp_path: Path) -> None:
    settings = AdaptSettings(tmp_path, tmp_path, learning_rate=1.0, warmup=0.2)
    assert [learning_rate(step, 10, settings) for step in range(10)] == pytest.approx(
        [0.5, 1.0, 1.0, 7 / 8, 6 / 8, 5 / 8, 4 / 8, 3 / 8, 2 / 8, 1 / 8]
    )
    assert learning_rate(0, 1, replace(settings, warmup=0.0)) == 1.0
