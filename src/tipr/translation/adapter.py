"""Low-rank adapters (LoRA, Hu et al., 2021) on a vision-language model; peft is imported here only.

An adapter folder holds `adapter_model.safetensors` and `adapter_config.json`, as peft lays them out, and
`adaptation.json`: which model it belongs to and how it was made.
"""

from __future__ import annotations

import json
import os
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from tipr.errors import MissingExtra, WeightsError
from tipr.translation.vision_language import VisionLanguageModel

WEIGHTS = "adapter_model.safetensors"
CONFIGURATION = "adapter_config.json"
FACTS = "adaptation.json"


@dataclass(frozen=True, slots=True)
class Shape:
    """Size of an adapter.

    Attributes:
        rank: of each pair of matrices.
        alpha: the pair's product is scaled by alpha / rank.
        dropout: probability of leaving out an input of a pair in training.
    """

    rank: int
    alpha: float
    dropout: float


class Adapter:
    """A pair of small matrices beside every linear layer of the language model; nothing else of the model learns.

    The picture tower and the projector stay as they are: what a picture shows does not depend on the language. The new
    matrices change nothing at first, and are part of `model` from here on.

    Args:
        model: gets the matrices; it must have none yet.
        shape: their size.
        seed: of their start.

    Raises:
        MissingExtra: peft is not installed.
        WeightsError: the model has an adapter already.
    """

    def __init__(self, model: VisionLanguageModel, shape: Shape, *, seed: int = 0) -> None:
        peft = _peft()
        if model.adapter is not None:
            raise WeightsError(f"model {model.folder.name} has an adapter already")
        self.model = model
        self.shape = shape
        configuration = peft.LoraConfig(
            r=shape.rank,
            lora_alpha=shape.alpha,
            lora_dropout=shape.dropout,
            target_modules=sorted(_linear_layers(model.model)),
        )
        with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # peft asks for attributes that transformers renamed
            torch.manual_seed(seed)
            self._network = peft.get_peft_model(model.model, configuration)
        # peft notes the folder's path; a path of one machine helps nobody on another
        self._configuration = self._network.peft_config["default"]
        self._configuration.base_model_name_or_path = model.folder.name
        self._network.eval()
        model.adapter = {}

    def parameters(self) -> Iterator[nn.Parameter]:
        """What learns, in an order that does not change."""
        return (parameter for parameter in self._network.parameters() if parameter.requires_grad)

    def train(self, mode: bool) -> None:
        """Switch dropout of the new matrices on or off; the model itself stays as in use."""
        self._network.eval()
        for name, module in self._network.named_modules():
            if ".lora_dropout" in name:
                module.train(mode)

    def tensors(self) -> dict[str, Tensor]:
        """The matrices by peft's names, on the CPU."""
        found = _peft().get_peft_model_state_dict(self._network, save_embedding_layers=False)
        return {name: value.detach().cpu().contiguous() for name, value in found.items()}

    def load(self, tensors: Mapping[str, Tensor], *, source: str) -> None:
        """Take over matrices; `source` names them in errors.

        Raises:
            WeightsError: names or shapes are not those of this adapter.
        """
        own = self.tensors()
        if own.keys() != tensors.keys() or any(own[name].shape != value.shape for name, value in tensors.items()):
            raise WeightsError(f"{source} holds the adapter of another model")
        _peft().set_peft_model_state_dict(self._network, dict(tensors))

    def save(self, folder: Path, facts: Mapping[str, Any]) -> None:
        """Write the adapter folder; `adaptation.json` comes last, so a folder that has it is whole.

        Args:
            folder: made where needed.
            facts: JSON-like, how it was made; the model's facts are added.
        """
        folder.mkdir(parents=True, exist_ok=True)
        described = self.model.describe()
        model = {name: described[name] for name in ("model", "model_type", "model_sha256")}
        content = {**model, "rank": self.shape.rank, "alpha": self.shape.alpha, "dropout": self.shape.dropout, **facts}
        draft = folder / f".{WEIGHTS}.partial"
        save_file(self.tensors(), draft, metadata={"format": "pt"})
        os.replace(draft, folder / WEIGHTS)
        configuration = {**self._configuration.to_dict(), "inference_mode": True}
        _write_json(folder / CONFIGURATION, configuration)
        _write_json(folder / FACTS, content)
        self.model.adapter = _identity(folder)


def load_adapter(model: VisionLanguageModel, folder: Path | str) -> dict[str, Any]:
    """Put a saved adapter into the model that it was trained on.

    Returns:
        what `adaptation.json` says.

    Raises:
        MissingExtra: peft is not installed.
        WeightsError: the folder is not whole, or its adapter belongs to another model.
    """
    folder = Path(folder)
    facts = read_facts(folder)
    described = model.describe()
    if facts["model_sha256"] != described["model_sha256"]:
        raise WeightsError(
            f"the adapter in {folder} belongs to {facts['model']} ({facts['model_sha256'][:12]}), not to "
            f"{described['model']} ({described['model_sha256'][:12]})"
        )
    try:
        tensors = load_file(folder / WEIGHTS)
    except (OSError, SafetensorError) as error:
        raise WeightsError(f"cannot read {folder / WEIGHTS}: {error}") from None
    adapter = Adapter(model, Shape(facts["rank"], facts["alpha"], facts["dropout"]))
    adapter.load(tensors, source=str(folder / WEIGHTS))
    model.adapter = _identity(folder)
    return facts


def read_facts(folder: Path) -> dict[str, Any]:
    """What `adaptation.json` of an adapter folder says.

    Raises:
        WeightsError: there is none, or it is damaged.
    """
    try:
        facts = json.loads((folder / FACTS).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise WeightsError(f"no {FACTS} in {folder}: give the folder that the adapt stage finished") from None
    except (OSError, ValueError) as error:
        raise WeightsError(f"cannot read {folder / FACTS}: {error}") from None
    if not isinstance(facts, dict) or not {"model", "model_sha256", "rank", "alpha", "dropout"} <= facts.keys():
        raise WeightsError(f"{folder / FACTS} is damaged: adapt again")
    return facts


def _identity(folder: Path) -> dict[str, Any]:
    from tipr.translation.records import file_sha256

    return {"sha256": file_sha256(folder / WEIGHTS)}


def _linear_layers(model: Any) -> list[str]:
    """Names of the linear layers of the language model, its output layer left out."""
    inside = {id(module) for module in model.get_decoder().modules() if isinstance(module, nn.Linear)}
    output = id(model.get_output_embeddings())
    return [name for name, module in model.named_modules() if id(module) in inside and id(module) != output]


def _peft() -> Any:
    try:
        import peft
    except ModuleNotFoundError:
        raise MissingExtra("peft", "translate") from None
    return peft


def _write_json(path: Path, content: Mapping[str, Any]) -> None:
    draft = path.with_name(f".{path.name}.partial")
    text = json.dumps(content, ensure_ascii=False, indent=1, default=_plain)
    draft.write_text(text + "\n", encoding="utf-8")
    os.replace(draft, path)


def _plain(value: object) -> object:
    """peft keeps names in sets and kinds in enumerations."""
    return sorted(value) if isinstance(value, set) else str(value)
