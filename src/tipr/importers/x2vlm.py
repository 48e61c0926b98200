"""CCLM-X2VLM pretraining checkpoints, Bi-IRRA's published starting point -> `BiIrra`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tipr.importers.bi_irra import read_layout
from tipr.methods.bi_irra import BiIrra


def read_x2vlm(path: Path, config: Mapping[str, Any] | Path | None = None, *, unconfined: bool = False) -> BiIrra:
    """Read a file in the pretraining layout (a state dict, or one under `model`).

    Names must be exactly those of the layout; constants and the box head are not used. The mask token and the head of
    image distillation are not in the file and start at random; every target language starts with a copy of the
    source's projection. In this layout the word table and the text head's matrix are two parameters: `word_table` and
    `tie_decoder` choose, and `method.notices` says when they differ.

    Args:
        path: the checkpoint.
        config: settings of `BiIrraImportConfig` as a mapping or a YAML file.
        unconfined: see `read_tensors`.

    Returns:
        the method in evaluation mode, float32, on the CPU.

    Raises:
        WeightsError: the file cannot be read, or names or shapes are not those of the layout.
        ConfigError: a setting is not allowed.
    """
    return read_layout("pretraining", path, config, unconfined=unconfined)
