"""Folders of Hugging Face CLIP models -> the contrastive baseline over a `ClipEncoder`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tipr.encoders.clip import ClipConfig, ClipEncoder, resize_image_positions, resize_text_positions
from tipr.errors import ConfigError, WeightsError
from tipr.importers.foreign_files import Tensors, read_tensors
from tipr.importers.openai_clip import baseline_over, tower_options
from tipr.importers.openai_clip_tensors import DEFAULT_IMAGE_SIZE, check_names, check_shapes
from tipr.methods.clip_baseline import ClipBaseline

WEIGHTS = ("model.safetensors", "pytorch_model.bin")
TOWERS = ("vision", "text")
IMAGE_POSITIONS = "vision_model.embeddings.position_embedding.weight"
TEXT_POSITIONS = "text_model.embeddings.position_embedding.weight"
CONSTANTS = ("vision_model.embeddings.position_ids", "text_model.embeddings.position_ids")


def read_huggingface_clip(
    path: Path, config: Mapping[str, Any] | Path | None = None, *, unconfined: bool = False
) -> ClipBaseline:
    """Read a folder that the transformers library wrote: `config.json`, and weights whole or in numbered parts.

    Args:
        path: the folder.
        config: `image_size`, `max_tokens` of `TowerOptions`; heads, patches and activation are the folder's.
        unconfined: see `read_tensors`.

    Returns:
        the method in evaluation mode, float32, on the CPU.

    Raises:
        WeightsError: a file is missing or damaged, it is another kind of model, or names or shapes do not fit.
        ConfigError: a setting is not allowed.
    """
    options = tower_options(config)
    described = _description(path)
    settings = _sizes(described, path)
    side = int(settings.pop("side"))
    taken = {"image_size": options.image_size or DEFAULT_IMAGE_SIZE, "patch_stride": options.patch_stride}
    if options.max_tokens is not None:
        taken["max_tokens"] = options.max_tokens
    try:
        tower = ClipConfig(**{**settings, **taken})
    except ValueError as error:
        raise ConfigError(f"{path}: {' '.join(str(error).split())}") from None
    encoder = ClipEncoder.build(tower)
    fresh = encoder.state_dict()
    tensors = {name: value for name, value in _weights(path, unconfined).items() if name not in CONSTANTS}
    scale = tensors.pop("logit_scale", None)
    check_names(tensors, fresh, source=str(path))
    state = {name: tensor.float() for name, tensor in tensors.items()}
    grid = (side // tower.patch_size,) * 2
    try:
        state[IMAGE_POSITIONS] = resize_image_positions(state[IMAGE_POSITIONS], grid, tower.grid)
        state[TEXT_POSITIONS] = resize_text_positions(state[TEXT_POSITIONS], tower.max_tokens)
    except ValueError as error:
        raise WeightsError(f"{path}: {error}") from None
    check_shapes(state, fresh, source=str(path))
    encoder.load_state_dict(state, strict=True)
    return baseline_over(encoder, scale, source=str(path))


def _description(path: Path) -> dict[str, Any]:
    """`config.json` of a CLIP.

    Raises:
        WeightsError: there is none, or it describes something else.
    """
    tree = _json(path / "config.json")
    kind = tree.get("model_type")
    if kind != "clip":
        raise WeightsError(f"{path} holds a model of type {kind!r}, not 'clip'")
    return tree


def _json(path: Path) -> dict[str, Any]:
    try:
        tree = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise WeightsError(f"no {path.name} in {path.parent}: expected the folder of a Hugging Face model") from None
    except (OSError, ValueError, RecursionError) as error:
        raise WeightsError(f"cannot read {path}: {' '.join(str(error).split())[:120]}") from None
    if not isinstance(tree, dict):
        raise WeightsError(f"{path} is not a mapping")
    return tree


def _sizes(tree: Mapping[str, Any], path: Path) -> dict[str, Any]:
    """Settings of `ClipConfig` and the image `side`; what a folder leaves out has the library's default.

    Raises:
        WeightsError: a size is no number, the towers have two activations, or an MLP is not four times as wide.
    """
    vision, text = ({**part} if isinstance(part := tree.get(f"{name}_config"), dict) else {} for name in TOWERS)
    activations = {str(part.get("hidden_act", "quick_gelu")) for part in (vision, text)}
    if len(activations) > 1 or not activations <= {"quick_gelu", "gelu"}:
        raise WeightsError(f"{path}: activations {', '.join(sorted(activations))}; one of quick_gelu, gelu for both")
    sizes = {
        "side": vision.get("image_size", 224),
        "patch_size": vision.get("patch_size", 32),
        "vision_width": vision.get("hidden_size", 768),
        "vision_layers": vision.get("num_hidden_layers", 12),
        "vision_heads": vision.get("num_attention_heads", 12),
        "text_width": text.get("hidden_size", 512),
        "text_layers": text.get("num_hidden_layers", 12),
        "text_heads": text.get("num_attention_heads", 8),
        "max_tokens": text.get("max_position_embeddings", 77),
        "vocabulary_size": text.get("vocab_size", 49408),
        "embed_dim": tree.get("projection_dim", 512),
    }
    for name, value in sizes.items():
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise WeightsError(f"{path / 'config.json'}: {name} is {value!r}, expected a positive whole number")
    for part, default in ((vision, 3072), (text, 2048)):
        width = sizes["vision_width"] if part is vision else sizes["text_width"]
        if part.get("intermediate_size", default) != 4 * width:
            raise WeightsError(f"{path}: an MLP is {part.get('intermediate_size', default)} wide, not 4 x {width}")
    return {**sizes, "activation": activations.pop()}


def _weights(path: Path, unconfined: bool) -> Tensors:
    """All tensors of a folder, whose parts a `*.index.json` lists.

    Raises:
        WeightsError: there are none, or a part is missing.
    """
    for name in WEIGHTS:
        if (path / name).is_file():
            return read_tensors(path / name, unconfined=unconfined)
        index = path / f"{name}.index.json"
        if index.is_file():
            parts = _json(index).get("weight_map")
            if not isinstance(parts, dict) or not all(isinstance(part, str) for part in parts.values()):
                raise WeightsError(f"{index} names no parts")
            if any(Path(part).name != part for part in parts.values()):
                raise WeightsError(f"{index} names a part outside its folder")
            tensors: Tensors = {}
            for part in sorted(set(parts.values())):
                tensors.update(read_tensors(path / part, unconfined=unconfined))
            return tensors
    raise WeightsError(f"no weights in {path}: expected {' or '.join(WEIGHTS)}")
