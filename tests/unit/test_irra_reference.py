"""The benchmark of IRRA's published code: its stand-in weights are CLIP's, and it drives a checkout by its names."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tipr.importers.openai_clip_tensors import TowerOptions, tower_config, tower_names

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"
OPTIONS = """
import argparse
def get_args():
    parser = argparse.ArgumentParser()
    parser.add_argument("--pretrain_choice")
    parser.add_argument("--loss_names")
    parser.add_argument("--MLM", action="store_true")
    return argparse.Namespace(**vars(parser.parse_args()), img_size=(384, 128))
"""
MODEL = """
import torch
class Model(torch.nn.Module):
    def __init__(self, args, classes):
        super().__init__()
        assert args.loss_names == "sdm+id+mlm" and args.MLM and classes == 11003
        self.table = torch.nn.Parameter(torch.load(args.pretrain_choice)["token_embedding.weight"])
    def forward(self, batch):
        assert batch["images"].shape[1:] == (3, 384, 128)
        assert (batch["caption_ids"].argmax(dim=-1) == 38).all()
        assert ((batch["mlm_ids"] != batch["caption_ids"]) == (batch["mlm_labels"] != 0)).all()
        assert batch["pids"].tolist() == [0, 0, 1]
        return {"temperature": 0.02, "sdm_loss": self.table[batch["caption_ids"]].square().mean()}
def build_model(args, classes):
    return Model(args, classes)
"""
SOLVER = """
import torch
def build_optimizer(args, model):
    return torch.optim.SGD(model.parameters(), lr=1e3)
"""
RUN = """
import json, sys
sys.path.insert(0, {benchmarks!r})
from pathlib import Path
import irra_reference
irra_reference.LAYERS, irra_reference.WORDS = 1, 300
print(json.dumps(irra_reference.measure(Path({checkout!r}), rows=3, device="cpu", peak_tflops=None)))
"""


def test_the_stand_in_weights_are_those_of_clip(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(BENCHMARKS)
    from irra_reference import clip_weights

    with torch.device("meta"):
        tensors = clip_weights()
    assert set(tensors) - {"logit_scale"} == tower_names(tensors, "")
    config = tower_config(tensors, TowerOptions(), prefix="", source="stand-in")
    assert (config.vision_width, config.vision_layers, config.text_width, config.text_layers) == (768, 12, 512, 12)
    assert (config.patch_size, config.vocabulary_size, config.max_tokens, config.embed_dim) == (16, 49408, 77, 512)
    numbers = sum(tensor.numel() for tensor in tensors.values())
    assert numbers == 149_620_737, "CLIP ViT-B/16 as everybody counts it"


@pytest.mark.slow
def test_a_checkout_is_driven_by_its_own_options_model_and_optimiser(tmp_path: Path) -> None:
    for name, text in (("utils/options", OPTIONS), ("model/__init__", MODEL), ("solver/__init__", SOLVER)):
        (tmp_path / name).parent.mkdir()
        (tmp_path / f"{name}.py").write_text(text)
    script = RUN.format(benchmarks=str(BENCHMARKS), checkout=str(tmp_path))
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    row = json.loads(done.stdout.splitlines()[-1])
    assert row["method"] == "irra, reference implementation"
    assert set(row["losses"]) == {"sdm_loss"}
    assert row["parameters"] == 300 * 512
