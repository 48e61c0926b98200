"""A language model from a local Hugging Face folder as a text backend: nothing is sent anywhere.

Any decoder that transformers knows itself can be used through its own chat template, such as Qwen2.5, Qwen3, Llama 3 or
Mistral. Refused, each in one line: folders that want to run code of their own, encoder-decoders, quantised weights, and
weights that are not safetensors.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

import torch

from tipr.errors import ConfigError, WeightsError
from tipr.retrieval.device import open_device
from tipr.translation.backends import Answer, Prompt, Take
from tipr.translation.folder_backend import FROM_DISK, GREEDY, FolderBackend, load_network
from tipr.translation.model_folder import (
    ModelFolder,
    offline_transformers,
    open_model_folder,
    special_tokens,
    without_tokens,
)


class LocalModel(FolderBackend):
    """A language model on this machine. Use `load`."""

    name = "local"

    def __init__(self, folder: ModelFolder, model: Any, tokenizer: Any, *, batch: int, max_new_tokens: int) -> None:
        super().__init__(folder, batch=batch, max_new_tokens=max_new_tokens)
        self._model = model
        self._tokenizer = tokenizer
        self._special = special_tokens(tokenizer)

    @classmethod
    def load(cls, path: Path | str, *, device: str = "cpu", batch: int = 8, max_new_tokens: int = 512) -> Self:
        """Read a model folder: float32 on a CPU, bfloat16 elsewhere.

        Args:
            path: folder with `config.json`, safetensors and tokenizer files.
            device: cpu, cuda or cuda:N.
            batch: prompts at a time.
            max_new_tokens: length of an answer at most.

        Raises:
            ConfigError: the device is not there.
            WeightsError: the folder is refused (see the module), or is damaged.
        """
        folder = open_model_folder(path)
        place = open_device(device)
        transformers = offline_transformers()
        _check_kind(folder)
        try:
            tokenizer = transformers.AutoTokenizer.from_pretrained(folder.path, padding_side="left", **FROM_DISK)
        except Exception as error:  # transformers raises every kind for a damaged folder
            raise WeightsError(f"cannot load {folder.path}: {' '.join(str(error).split())[:200]}") from None
        model = load_network(transformers.AutoModelForCausalLM, folder, place)
        if tokenizer.pad_token_id is None:  # masked, so any token will do
            tokenizer.pad_token = tokenizer.eos_token
        return cls(folder, model.to(place).eval(), tokenizer, batch=batch, max_new_tokens=max_new_tokens)

    def stream(self, prompts: Sequence[Prompt], take: Take) -> None:
        """See `StreamingBackend.stream`; `finish_reason` is "length" for an answer that was cut off."""
        if any(prompt.image is not None for prompt in prompts):
            raise ConfigError(f"model {self.folder.name} reads no pictures: give a vision-language model")
        super().stream(prompts, take)

    @torch.inference_mode()
    def _answer(self, prompts: Sequence[Prompt]) -> list[Answer]:
        start = time.monotonic()
        inputs = self._encode([prompt.text for prompt in prompts])
        rows = self._model.generate(
            **inputs,
            max_new_tokens=self.max_new_tokens,
            **GREEDY,
            pad_token_id=self._tokenizer.pad_token_id,
        )[:, inputs["input_ids"].shape[1] :].tolist()
        asked = inputs["attention_mask"].sum(dim=1).tolist()
        ends = self._ends()
        seconds = time.monotonic() - start
        answers = []
        for ids, tokens in zip(rows, asked, strict=True):
            length = next((place for place, token in enumerate(ids) if token in ends), None)
            text = self._tokenizer.decode(ids[:length], skip_special_tokens=True)
            reason = "length" if length is None else "stop"
            made = len(ids) if length is None else length + 1
            answers.append(Answer(text.strip(), seconds=seconds, finish_reason=reason, tokens=(tokens, made)))
        return answers

    def _encode(self, texts: Sequence[str]) -> Any:
        templated = self._tokenizer.chat_template is not None
        if templated:
            texts = [
                self._tokenizer.apply_chat_template(
                    [{"role": "user", "content": without_tokens(text, self._special)}],
                    tokenize=False,
                    add_generation_prompt=True,
                    enable_thinking=False,  # a variable of some templates; the others do not look at it
                )
                for text in texts
            ]
        # a chat template writes the start token itself
        encoded = self._tokenizer(list(texts), padding=True, add_special_tokens=not templated, return_tensors="pt")
        kept = {name: encoded[name] for name in ("input_ids", "attention_mask")}
        return {name: tensor.to(self._model.device) for name, tensor in kept.items()}

    def _ends(self) -> frozenset[int]:
        ends = self._model.generation_config.eos_token_id
        if ends is None:
            ends = self._tokenizer.eos_token_id
        return frozenset(ends if isinstance(ends, list) else [] if ends is None else [ends])


def _check_kind(folder: ModelFolder) -> None:
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

    if folder.configuration.get("is_encoder_decoder"):
        raise WeightsError(f"{folder.path} is an encoder-decoder (model type {folder.model_type!r}): give a chat model")
    if folder.model_type not in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES:
        own = "wants to run code of its own" if folder.configuration.get("auto_map") else "is no language model"
        raise WeightsError(
            f"{folder.path} {own} (model type {folder.model_type!r}), which is refused: give one that "
            "transformers knows itself, such as Qwen2.5"
        )
