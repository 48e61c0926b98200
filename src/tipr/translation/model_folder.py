"""A Hugging Face model folder on this machine: what it holds, and why it is refused, before any of it is loaded."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tipr.errors import WeightsError

CONFIGURATION = "config.json"


@dataclass(frozen=True, slots=True)
class ModelFolder:
    """A folder with a configuration and safetensors weights.

    Attributes:
        path: the folder.
        model_type: name of the architecture in transformers, such as "qwen2_5_vl".
        configuration: content of `config.json`.
    """

    path: Path
    model_type: str
    configuration: dict[str, Any]

    @property
    def name(self) -> str:
        """Name of the folder, without where it lies."""
        return self.path.resolve().name

    def sha256(self) -> str:
        """Hash of all that decides its answers: every file but read-mes and pictures of them, by name and content."""
        digest = hashlib.sha256()
        for path in sorted(self.path.iterdir()):
            if path.suffix in (".json", ".jinja", ".safetensors", ".txt", ".model") and path.is_file():
                with path.open("rb") as stream:
                    digest.update(f"{path.name}\0{hashlib.file_digest(stream, 'sha256').hexdigest()}\n".encode())
        return digest.hexdigest()


def open_model_folder(path: Path | str) -> ModelFolder:
    """Look at a folder without loading it.

    Raises:
        WeightsError: it is no model folder, its weights are not safetensors or are quantised.
    """
    path = Path(path)
    try:
        configuration = json.loads((path / CONFIGURATION).read_text(encoding="utf-8"))
        model_type = configuration["model_type"]
    except (FileNotFoundError, NotADirectoryError):
        raise WeightsError(f"no {CONFIGURATION} in {path}: give the folder of a Hugging Face model") from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise WeightsError(f"{path / CONFIGURATION} is no model configuration: {error!r}") from None
    if not any(path.glob("*.safetensors")):
        raise WeightsError(f"no *.safetensors in {path}: weights in other formats are not read")
    if configuration.get("quantization_config"):
        raise WeightsError(f"the weights in {path} are quantised: give the folder of the unquantised model")
    return ModelFolder(path, str(model_type), configuration)


def special_tokens(tokenizer: Any) -> tuple[str, ...]:
    """The tokens by which a tokenizer of transformers marks turns, pictures and ends."""
    return tuple(token.content for token in tokenizer.added_tokens_decoder.values() if token.special)


def without_tokens(text: str, tokens: Iterable[str]) -> str:
    """The text with tokens broken up: a caption that spells a special one would end the turn or ask for a picture."""
    for token in tokens:
        text = text.replace(token, f"{token[0]} {token[1:]}")
    return text


def offline_transformers() -> Any:
    """The transformers package, told to ask the network for nothing and to draw no bars of its own.

    Loading by path with `local_files_only` asks for nothing either; this holds for whatever else the package may want.
    """
    os.environ["HF_HUB_OFFLINE"] = "1"
    import huggingface_hub.constants
    import transformers

    huggingface_hub.constants.HF_HUB_OFFLINE = True
    transformers.utils.logging.disable_progress_bar()
    # what it logs is about back ends and future defaults; what matters is raised
    transformers.utils.logging.set_verbosity_error()
    return transformers
