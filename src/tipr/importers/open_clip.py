"""State dicts of the open_clip library -> the contrastive baseline over a `ClipEncoder`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tipr.errors import WeightsError
from tipr.importers.foreign_files import Tensors, read_tensors
from tipr.importers.openai_clip import clip_baseline, tower_options
from tipr.methods.clip_baseline import ClipBaseline

TEXT = "text."
"""In front of the text tower's names in newer files."""
OTHER_TOWERS = {
    "visual.trunk.": "an image tower of the timm library",
    "text.transformer.embeddings.": "a text tower of Hugging Face",
    "visual.attnpool.": "a ResNet image tower",
    "logit_bias": "the sigmoid loss (SigLIP)",
}
"""Names that tell of a model that is no CLIP with two transformers of OpenAI's make."""


def read_open_clip(
    path: Path, config: Mapping[str, Any] | Path | None = None, *, unconfined: bool = False
) -> ClipBaseline:
    """Read a CLIP that the open_clip library saved: a state dict, a checkpoint that holds one, or safetensors.

    The file does not say which activation its MLPs have. GELU is the library's default and ours; models whose name ends
    in `-quickgelu`, and OpenAI's weights saved again, need `activation: quick_gelu`.

    Args:
        path: such as `open_clip_pytorch_model.bin` or an `epoch_32.pt`.
        config: settings of `TowerOptions`, as a mapping or a YAML file.
        unconfined: see `read_tensors`.

    Returns:
        the method in evaluation mode, float32, on the CPU.

    Raises:
        WeightsError: the file cannot be read, or names or shapes are not those of the layout.
        ConfigError: a setting is not allowed.
    """
    options = tower_options(config)
    guessed = options.activation is None
    if guessed:
        options = options.model_copy(update={"activation": "gelu"})
    tensors = _under_openai_names(read_tensors(path, unconfined=unconfined), source=str(path))
    method = clip_baseline(tensors, options, source=str(path))
    if guessed:
        method.notices = (*method.notices, "activation gelu is assumed; a -quickgelu model needs quick_gelu")
    return method


def _under_openai_names(tensors: Tensors, *, source: str) -> Tensors:
    """The same tensors under the names of OpenAI's state dict.

    Raises:
        WeightsError: a tower is of another make.
    """
    for prefix, make in OTHER_TOWERS.items():
        if any(name.startswith(prefix) for name in tensors):
            raise WeightsError(f"{source} has {make}: only CLIP's own two transformers are read")
    return {name.removeprefix(TEXT): tensor for name, tensor in tensors.items() if name != "attn_mask"}
