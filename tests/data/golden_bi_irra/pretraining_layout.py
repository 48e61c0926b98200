"""The tiny released checkpoint under the names of the pretraining layout, by the table of the real names."""

from __future__ import annotations

import json
import re
from pathlib import Path

import torch
from torch import Tensor

HERE = Path(__file__).parent
REAL_TEXT_LAYERS, TINY_TEXT_LAYERS = 12, 2
LAYER = re.compile(r"(text_encoder\.bert\.encoder\.layer\.)(\d+)(\..*)")


def released() -> dict[str, Tensor]:
    """The tiny checkpoint's tensors under their own names."""
    state: dict[str, Tensor] = torch.load(HERE / "tiny_finetuned.pth", weights_only=True)["state_dict"]
    return state


def pretraining(decoder: Tensor | None = None) -> dict[str, Tensor]:
    """The same tensors as pretraining would have saved them: no mask token, no image distillation, a box head.

    Args:
        decoder: (V, W) matrix of the text head; None: that of the file, which is its word table too.
    """
    rows = json.loads((HERE / "checkpoint_keys.json").read_text())["rows"]
    pretrained = {row["finetuned"]: row["pretrained"] for row in rows if "(copied)" not in row["pretrained"]}
    state = {}
    for name, tensor in released().items():
        if found := LAYER.fullmatch(name):
            number = int(found[2])
            fusion = number - TINY_TEXT_LAYERS
            real = number if fusion < 0 else fusion + REAL_TEXT_LAYERS
            name = f"{found[1]}{real}{found[3]}"  # noqa: PLW2901
        if name in pretrained:
            state[pretrained[name]] = tensor
    if decoder is not None:
        state["mlm_head.predictions.decoder.weight"] = decoder
    width = state["vision_proj.weight"].shape[1]
    for number, shape in ((0, (2 * width, width)), (1, (2 * width,)), (3, (4, 2 * width))):
        state |= {f"bbox_head.{number}.weight": torch.ones(shape), f"bbox_head.{number}.bias": torch.ones(shape[0])}
    return state
