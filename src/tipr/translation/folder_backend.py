"""What the two kinds of local models share: how weights are loaded, how answers are asked for and handed over."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

import torch

from tipr.errors import WeightsError
from tipr.translation.backends import Answer, Prompt, Take
from tipr.translation.model_folder import ModelFolder

FROM_DISK: Mapping[str, Any] = MappingProxyType({"local_files_only": True, "trust_remote_code": False})
"""How anything of a folder is read: without the network, and without code of its own."""
GREEDY: Mapping[str, Any] = MappingProxyType(
    {
        "do_sample": False,
        "num_beams": 1,
        # settings of sampling that folders bring along; with greedy decoding they would only be warned of
        "temperature": None,
        "top_p": None,
        "top_k": None,
    }
)
"""How answers are made: the same prompt gives the same one."""


class FolderBackend(ABC):
    """A model from a local folder: a `TextBackend` and a `StreamingBackend`.

    Attributes:
        folder: where the weights came from.
        batch: prompts at a time: what a kill can cost.
        max_new_tokens: length of an answer at most.
    """

    name: str

    def __init__(self, folder: ModelFolder, *, batch: int, max_new_tokens: int) -> None:
        self.folder = folder
        self.batch = batch
        self.max_new_tokens = max_new_tokens
        self._sha256 = folder.sha256()

    def describe(self) -> dict[str, Any]:
        """See `TextBackend.describe`."""
        return {
            "name": self.name,
            "model": self.folder.name,
            "model_type": self.folder.model_type,
            "model_sha256": self._sha256,
            "max_new_tokens": self.max_new_tokens,
            "decoding": "greedy",
        }

    def complete(self, prompts: Sequence[Prompt]) -> list[str]:
        """See `TextBackend.complete`.

        Raises:
            ConfigError: a prompt has an image and the model takes none, or the other way round.
            ImageProblem: an image cannot be read.
        """
        answers: dict[int, str] = {}
        self.stream(prompts, lambda place, answer: answers.__setitem__(place, answer.text or ""))
        return [answers[place] for place in range(len(prompts))]

    def stream(self, prompts: Sequence[Prompt], take: Take) -> None:
        """See `StreamingBackend.stream`; `finish_reason` is "length" for an answer that was cut off."""
        for first in range(0, len(prompts), self.batch):
            for place, answer in enumerate(self._answer(prompts[first : first + self.batch]), start=first):
                take(place, answer)

    @abstractmethod
    def _answer(self, prompts: Sequence[Prompt]) -> list[Answer]:
        """The answers to at most `batch` prompts."""


def load_network(kind: Any, folder: ModelFolder, place: torch.device) -> Any:
    """The network of a folder, float32 on a CPU and bfloat16 elsewhere; still on the CPU.

    Args:
        kind: one of transformers' Auto classes.
        folder: looked at before.
        place: where it will run.

    Raises:
        WeightsError: the folder is damaged or lacks weights.
    """
    try:
        network, report = kind.from_pretrained(
            folder.path,
            use_safetensors=True,
            output_loading_info=True,
            dtype=torch.float32 if place.type == "cpu" else torch.bfloat16,
            **FROM_DISK,
        )
    except Exception as error:  # transformers and safetensors raise every kind for a damaged folder
        raise WeightsError(f"cannot load {folder.path}: {' '.join(str(error).split())[:200]}") from None
    if report["missing_keys"]:
        raise WeightsError(f"{folder.path} lacks weights: {', '.join(sorted(report['missing_keys'])[:3])}, ...")
    return network
