"""The folder that a deployed model lives in: reading it strictly, replacing it in one step.

A model folder holds `model.json` (what to build), `model.safetensors` (the weights, float32 or float16) and the
tokenizer's own file; an importer adds `heads.safetensors`, what training needs besides. Nothing in it is executed: no
pickle, no code.
"""

from __future__ import annotations

import ctypes
import json
import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from tipr import config
from tipr.errors import WeightsError

if TYPE_CHECKING:
    from tipr.data.images import Preprocessing
    from tipr.encoders.base import Encoder
    from tipr.encoders.tokenizers import Tokenizer

FORMAT = 1
"""Version of the model folder; another one is refused."""
DESCRIPTION = "model.json"
WEIGHTS = "model.safetensors"
HEADS = "heads.safetensors"
DEMO = Path(__file__).resolve().parent.parent / "assets" / "demo"
"""The small checkpoint shipped as package data."""


@dataclass(frozen=True)
class Heads:
    """What a training method has besides its encoder, kept for a run that starts from the folder; search ignores it.

    Attributes:
        method: key in `METHODS` of the one that they belong to.
        tensors: by the method's names.
    """

    method: str
    tensors: dict[str, Tensor]


def model_folder(path: Path | str) -> Path:
    """The folder that holds `model.json` for "demo", a model folder, or a run folder (its `best/`).

    Raises:
        WeightsError: there is none.
    """
    if str(path) == "demo":
        if not (DEMO / DESCRIPTION).is_file():
            raise WeightsError("this installation has no demo model (tipr/assets/demo): give --model PATH")
        return DEMO
    folder = Path(path)
    for candidate in (folder, folder / "best"):
        if (candidate / DESCRIPTION).is_file():
            return candidate
    if not folder.exists():
        raise WeightsError(f"no model at {folder}: give a model folder, a run folder or 'demo'")
    raise WeightsError(f"{folder} is not a model folder: {DESCRIPTION} is missing (foreign weights need an importer)")


def read_description(folder: Path) -> dict[str, Any]:
    """`model.json` as a mapping with the keys `encoder`, `tokenizer`, `preprocessing` and perhaps `card`.

    Raises:
        WeightsError: not JSON, not ours, or of another format version.
    """
    try:
        description = json.loads((folder / DESCRIPTION).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise WeightsError(f"{folder / DESCRIPTION} is damaged: {one_line(error)}") from None
    required = ("encoder", "tokenizer", "preprocessing")
    if not isinstance(description, dict) or not isinstance(description.get("format"), int):
        raise WeightsError(f"{folder / DESCRIPTION} does not describe a tipr model")
    if description["format"] != FORMAT:
        raise WeightsError(f"{folder} has model format {description['format']}; this version of tipr reads {FORMAT}")
    missing = [key for key in required if not isinstance(description.get(key), dict)]
    if missing:
        raise WeightsError(f"{folder / DESCRIPTION} is damaged: no {', '.join(missing)}")
    if not isinstance(description.get("card", {}), dict):
        raise WeightsError(f"{folder / DESCRIPTION} is damaged: card is not a mapping")
    return description


def build(description: dict[str, Any], folder: Path) -> tuple[Encoder, Tokenizer, Preprocessing]:
    """What a description and the tokenizer's file beside it say, the encoder with random weights.

    Raises:
        WeightsError: an unknown encoder, or a tokenizer of another kind.
        ConfigError, KeyError, TypeError, ValueError: the description does not hold what it should.
    """
    from tipr.data.images import Preprocessing
    from tipr.encoders import ENCODERS
    from tipr.encoders.tokenizers import load_tokenizer

    name = description["encoder"].get("name")
    if name not in ENCODERS:
        raise WeightsError(f"{folder}: unknown encoder {name!r}; this version of tipr knows {', '.join(ENCODERS)}")
    kind: Any = ENCODERS[name]
    settings = config.parse(description["encoder"], kind.Config, source=f"{folder / DESCRIPTION} encoder")
    tokenizer = load_tokenizer(folder)
    if description["tokenizer"].get("kind") != tokenizer.kind:
        raise WeightsError(f"{folder}: tokenizer.json is not of the kind that {DESCRIPTION} names")
    return kind.build(settings), tokenizer, Preprocessing.from_json(description["preprocessing"])


def load_weights(encoder: Encoder, path: Path) -> None:
    """Give an encoder the tensors of a file; names and shapes must be exactly its own.

    Raises:
        WeightsError: missing or damaged file, other names or shapes, or numbers that are not finite.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        tensors = load_file(path)
    except FileNotFoundError:
        raise WeightsError(f"{path} is missing") from None
    except (SafetensorError, OSError, ValueError) as error:
        raise WeightsError(f"{path} is damaged: {one_line(error)}") from None
    wanted = encoder.state_dict()
    missing, unknown = sorted(wanted.keys() - tensors.keys()), sorted(tensors.keys() - wanted.keys())
    wrong = [name for name in wanted if name in tensors and tensors[name].shape != wanted[name].shape]
    parts = (("missing", missing), ("unknown", unknown), ("of another shape", wrong))
    if defects := "; ".join(f"{what}: {_few(names)}" for what, names in parts if names):
        raise WeightsError(f"{path} does not fit {DESCRIPTION}: {defects}")
    for name, value in tensors.items():
        if value.is_floating_point() and not torch.isfinite(value).all():
            raise WeightsError(f"{path} is damaged: {name} is not finite")
    encoder.load_state_dict({name: value.to(wanted[name].dtype) for name, value in tensors.items()}, strict=True)


def write_heads(heads: Heads, folder: Path) -> None:
    """Write `heads.safetensors` into an existing folder."""
    from safetensors.torch import save_file

    tensors = {name: value.detach().cpu().contiguous().clone() for name, value in heads.tensors.items()}
    save_file(tensors, folder / HEADS, metadata={"method": heads.method})


def read_heads(path: Path | str) -> Heads | None:
    """The heads in a model folder, or None; see `model_folder` for the path.

    Raises:
        WeightsError: there is no model, or the file is damaged.
    """
    from safetensors import SafetensorError, safe_open
    from safetensors.torch import load_file

    file = model_folder(path) / HEADS
    if not file.is_file():
        return None
    try:
        with safe_open(file, framework="pt") as stored:
            method = (stored.metadata() or {})["method"]
        return Heads(method, load_file(file))
    except (SafetensorError, OSError, KeyError) as error:
        raise WeightsError(f"{file} is damaged: {one_line(error)}") from None


def publish(draft: Path, folder: Path) -> None:
    """Put `draft` at `folder`; what was there before ends up at `draft`."""
    if folder.exists() and not _exchange(draft, folder):
        shutil.rmtree(folder)  # a file system without exchange: a moment without the folder
    if draft.exists() and not folder.exists():
        draft.rename(folder)
    parent = os.open(folder.parent, os.O_RDONLY)
    try:
        os.fsync(parent)
    finally:
        os.close(parent)


def _exchange(one: Path, two: Path) -> bool:
    """Swap two folders atomically (Linux renameat2 with RENAME_EXCHANGE); False where that is not offered."""
    here, exchange = -100, 2
    renameat2 = getattr(ctypes.CDLL(None), "renameat2", None)
    return renameat2 is not None and renameat2(here, os.fsencode(one), here, os.fsencode(two), exchange) == 0


def _few(names: Sequence[str]) -> str:
    rest = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return ", ".join(names[:3]) + rest


def one_line(error: BaseException) -> str:
    """The message of an error without its line breaks, or the error's name."""
    return " ".join(str(error).split()) or type(error).__name__
