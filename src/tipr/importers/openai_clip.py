"""OpenAI's CLIP checkpoints, and others under the same names -> the contrastive baseline over a `ClipEncoder`."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from tipr import config as configuration
from tipr.encoders.clip import ClipEncoder
from tipr.errors import WeightsError
from tipr.importers.foreign_files import Tensors, read_tensors
from tipr.importers.openai_clip_tensors import (
    TowerOptions,
    check_names,
    check_shapes,
    convert_towers,
    tower_config,
    tower_names,
)
from tipr.methods.base import MAX_SCALE, TrainingFacts
from tipr.methods.clip_baseline import ClipBaseline, ClipBaselineConfig

log = logging.getLogger(__name__)

BESIDES = {"logit_scale", "input_resolution", "context_length", "vocab_size"}
"""Single numbers beside the towers; all but the first only repeat what the shapes say."""


def read_openai_clip(
    path: Path, config: Mapping[str, Any] | Path | None = None, *, unconfined: bool = False
) -> ClipBaseline:
    """Read a CLIP with a vision transformer as OpenAI published it: a TorchScript archive, or its state dict.

    The position table is resized once, bilinearly, to the grid of `image_size` (IRRA's published code does the same).

    Args:
        path: such as `ViT-B-16.pt`.
        config: settings of `TowerOptions`, as a mapping or a YAML file.
        unconfined: see `read_tensors`.

    Returns:
        the method in evaluation mode, float32, on the CPU; its temperature is the checkpoint's.

    Raises:
        WeightsError: the file cannot be read, or names or shapes are not those of the layout.
        ConfigError: a setting is not allowed.
    """
    options = tower_options(config)
    return clip_baseline(read_tensors(path, unconfined=unconfined), options, source=str(path))


def tower_options(config: Mapping[str, Any] | Path | None) -> TowerOptions:
    """Settings of the towers from a mapping or a YAML file.

    Raises:
        ConfigError: a setting is not allowed.
    """
    if isinstance(config, Path):
        return configuration.load(config, TowerOptions)
    return configuration.parse(dict(config or {}), TowerOptions, source="config")


def clip_baseline(tensors: Tensors, options: TowerOptions, *, source: str) -> ClipBaseline:
    """The contrastive baseline over the towers of a state dict with OpenAI's names.

    Raises:
        WeightsError: names or shapes are not those of the layout.
    """
    if any(name.startswith("visual.layer1.") for name in tensors):
        raise WeightsError(f"{source} is a CLIP with a ResNet image tower: use one with a vision transformer (ViT)")
    expected = tower_names(tensors, "")
    check_names(tensors.keys() - BESIDES, expected, source=source)
    tower = tower_config(tensors, options, prefix="", source=source)
    encoder = ClipEncoder.build(tower)
    state = convert_towers(tensors, tower, prefix="", source=source)
    check_shapes(state, encoder.state_dict(), source=source)
    encoder.load_state_dict(state, strict=True)
    method = baseline_over(encoder, tensors.get("logit_scale"), source=source)
    if tower.image_size[0] == tower.image_size[1]:
        method.notices = (f"images of {tower.image_size[0]}x{tower.image_size[1]}: people are taller than wide",)
    for notice in method.notices:
        log.info("%s: %s", source, notice)
    return method


def baseline_over(encoder: ClipEncoder, logit_scale: Tensor | None, *, source: str) -> ClipBaseline:
    """The contrastive baseline over imported towers, in evaluation mode, with the checkpoint's temperature.

    Raises:
        WeightsError: the logit scale is no number.
    """
    tokens = encoder.vocabulary_size
    facts = TrainingFacts(pairs=0, mask_id=tokens - 3, vocabulary_size=tokens, identities=None)
    settings = ClipBaselineConfig(temperature=_temperature(logit_scale, source=source))
    return ClipBaseline.build(settings, encoder, facts).eval()


def _temperature(logit_scale: Tensor | None, *, source: str) -> float:
    """1 / exp(logit scale) of a checkpoint, at least 1 / 100; the default of the baseline without one.

    Raises:
        WeightsError: it is no number.
    """
    if logit_scale is None:
        return float(ClipBaselineConfig.model_fields["temperature"].default)
    if logit_scale.numel() != 1 or not math.isfinite(value := float(logit_scale)):
        raise WeightsError(f"{source}: logit_scale is not one finite number")
    return max(1 / MAX_SCALE, math.exp(-min(value, 20.0)))
