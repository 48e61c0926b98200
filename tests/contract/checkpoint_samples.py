"""A small checkpoint of every import format, written as its makers write it."""

from __future__ import annotations

import json
import runpy
import shutil
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

DATA = Path(__file__).parents[1] / "data"
IRRA = DATA / "golden_irra" / "tiny.pth"
BI_IRRA = DATA / "golden_bi_irra"


def clip_tensors() -> dict[str, Tensor]:
    """A tiny CLIP under OpenAI's names: the towers of the tiny IRRA checkpoint, and the temperature."""
    stored = torch.load(IRRA, weights_only=True)["model"]
    towers = {name.removeprefix("base_model."): value for name, value in stored.items() if "base_model." in name}
    return {**towers, "logit_scale": torch.tensor(3.0)}


def irra(folder: Path) -> Path:
    """The published layout."""
    return Path(shutil.copy(IRRA, folder / "best.pth"))


def openai_clip(folder: Path) -> Path:
    """A state dict with the numbers that OpenAI's archives hold beside the weights."""
    numbers = {"input_resolution": 224, "context_length": 77, "vocab_size": 512}
    tensors = {**clip_tensors(), **{name: torch.tensor(value) for name, value in numbers.items()}}
    torch.save(tensors, folder / "ViT.pt")
    return folder / "ViT.pt"


def open_clip(folder: Path) -> Path:
    """A training checkpoint, saved from data-parallel training, text tower in a module of its own."""
    text = ("transformer.", "token_embedding", "positional_embedding", "ln_final", "text_projection")
    tensors = {
        f"module.{'text.' * name.startswith(text)}{name}": value
        for name, value in {**clip_tensors(), "attn_mask": torch.zeros(4, 4)}.items()
    }
    torch.save({"epoch": 32, "name": "tiny", "state_dict": tensors}, folder / "epoch_32.pt")
    return folder / "epoch_32.pt"


def huggingface_clip(folder: Path) -> Path:
    """A folder as the transformers library writes it; the file with the weights is returned."""
    from transformers import CLIPConfig, CLIPModel

    torch.manual_seed(0)
    tower = {"hidden_size": 64, "intermediate_size": 256, "num_hidden_layers": 2, "num_attention_heads": 4}
    config = CLIPConfig(
        text_config={**tower, "vocab_size": 300, "bos_token_id": 298, "eos_token_id": 299},
        vision_config={**tower, "image_size": 64, "patch_size": 16},
        projection_dim=32,
    )
    model = CLIPModel(config)
    torch.save(model.state_dict(), folder / "pytorch_model.bin")
    (folder / "config.json").write_text(json.dumps(config.to_dict()))
    return folder / "pytorch_model.bin"


def bi_irra(folder: Path) -> Path:
    """What the released training writes."""
    return Path(shutil.copy(BI_IRRA / "tiny_finetuned.pth", folder / "checkpoint_best_zh.pth"))


def x2vlm(folder: Path) -> Path:
    """The same under the names of pretraining."""
    tensors = runpy.run_path(str(BI_IRRA / "pretraining_layout.py"))["pretraining"]()
    torch.save({"model": tensors}, folder / "cclm_x2vlm_base.th")
    return folder / "cclm_x2vlm_base.th"


SAMPLES: dict[str, Callable[[Path], Path]] = {
    "bi_irra": bi_irra,
    "huggingface_clip": huggingface_clip,
    "irra": irra,
    "open_clip": open_clip,
    "openai_clip": openai_clip,
    "x2vlm": x2vlm,
}
"""Format -> function that writes a checkpoint into a folder and returns the file with its tensors."""
FOLDERS = {"huggingface_clip"}
"""Formats that are read from the folder of that file."""


def argument(name: str, file: Path) -> Path:
    """What `read` takes for a sample."""
    return file.parent if name in FOLDERS else file
