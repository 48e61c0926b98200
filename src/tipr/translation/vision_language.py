"""A vision-language model from a local Hugging Face folder: it answers prompts with pictures, and can be taught to.

Whatever transformers loads as "image-text-to-text" is used through its own processor and chat template, so Qwen2-VL,
Qwen2.5-VL, Qwen3-VL, LLaVA, Gemma 3, Idefics 3 and their like need no code here. Refused, each in one line:
folders that want to run code of their own (Qwen-VL, Phi-3-vision), encoder-decoders, models without a chat template,
quantised weights, and weights that are not safetensors.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.nn import functional

from tipr.data.images import read_image
from tipr.errors import ConfigError, WeightsError
from tipr.retrieval.device import open_device
from tipr.translation.backends import Answer, Prompt
from tipr.translation.folder_backend import FROM_DISK, GREEDY, FolderBackend, load_network
from tipr.translation.model_folder import (
    ModelFolder,
    offline_transformers,
    open_model_folder,
    special_tokens,
    without_tokens,
)

Inputs = dict[str, Tensor]
"""What the processor makes of prompts: ids, masks, pixels, under the names that the model takes."""


@dataclass(frozen=True, slots=True)
class Lesson:
    """Prompts with the answers that they should get, ready for the model.

    Attributes:
        inputs: of N prompts and answers, padded on the left, so that every answer ends at the last column.
        answers: tokens of each answer, its end token among them, N of them, each at least 1.
    """

    inputs: Inputs
    answers: tuple[int, ...]


class VisionLanguageModel(FolderBackend):
    """A model that reads a picture and a text; every prompt has an image. Use `load`.

    Attributes:
        model: the network, in eval mode; trained by `adapt`, with the weights of `folder` frozen.
        adapter: facts about the adapter in it; None: there is none.
    """

    name = "vision_language"

    def __init__(
        self, folder: ModelFolder, model: nn.Module, processor: Any, *, batch: int = 4, max_new_tokens: int = 256
    ) -> None:
        super().__init__(folder, batch=batch, max_new_tokens=max_new_tokens)
        self.model = model
        self.adapter: dict[str, Any] | None = None
        self._processor = processor
        self._special = special_tokens(processor.tokenizer)

    @classmethod
    def load(cls, path: Path | str, *, device: str = "cpu", batch: int = 4, max_new_tokens: int = 256) -> Self:
        """Read a model folder: float32 on a CPU, bfloat16 elsewhere.

        Args:
            path: folder with `config.json`, safetensors, tokenizer and processor files, as its makers publish it.
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
        processor = _load_processor(folder)
        model = load_network(transformers.AutoModelForImageTextToText, folder, place)
        if "logits_to_keep" not in inspect.signature(model.forward).parameters:
            raise WeightsError(f"model type {folder.model_type!r} scores whole texts only: give one such as Qwen2.5-VL")
        model.requires_grad_(False)
        return cls(folder, model.to(place).eval(), processor, batch=batch, max_new_tokens=max_new_tokens)

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        return next(self.model.parameters()).device

    def describe(self) -> dict[str, Any]:
        """See `TextBackend.describe`; with the adapter."""
        return {**super().describe(), "adapter": self.adapter}

    @torch.inference_mode()
    def _answer(self, prompts: Sequence[Prompt]) -> list[Answer]:
        inputs = self._process([self._wording(prompt, None) for prompt in prompts], prompts)
        start = inputs["input_ids"].shape[1]
        rows = self.model.generate(  # type: ignore[operator]  # a model of transformers
            **inputs,
            max_new_tokens=self.max_new_tokens,
            **GREEDY,
        )[:, start:]
        ends = _end_ids(self.model)
        answers = []
        for ids in rows.tolist():
            finished = any(token in ends for token in ids)
            text = self._processor.tokenizer.decode(ids, skip_special_tokens=True).strip()
            answers.append(Answer(text, finish_reason="stop" if finished else "length"))
        return answers

    def lesson(self, prompts: Sequence[Prompt], answers: Sequence[str]) -> Lesson:
        """Prompts and the right answers as one batch.

        Args:
            prompts: N prompts with images.
            answers: N texts, not empty.

        Raises:
            ConfigError: a prompt has no image.
            ImageProblem: an image cannot be read.
            WeightsError: the chat template does not go on with the answer where a prompt ends.
        """
        asked = [self._wording(prompt, None) for prompt in prompts]
        whole = [self._wording(prompt, answer) for prompt, answer in zip(prompts, answers, strict=True)]
        counts = []
        for question, text in zip(asked, whole, strict=True):
            if not text.startswith(question):
                raise WeightsError(
                    f"the chat template of {self.folder.path} words a question differently once it is answered"
                )
            before, after = self._ids(question), self._ids(text)
            # a tokenizer may merge the last sign of the question with the first of the answer
            shared = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(before, after, strict=False)))
            counts.append(len(after) - shared)
        return Lesson(self._process(whole, prompts), tuple(counts))

    def answer_loss(self, lesson: Lesson) -> Tensor:
        """Negative log-likelihood, summed over all answer tokens: () float32; questions and pictures are not scored."""
        longest = max(lesson.answers)
        logits = self.model(**lesson.inputs, use_cache=False, logits_to_keep=longest + 1).logits[:, :-1].float()
        ids = lesson.inputs["input_ids"][:, -longest:]
        place = torch.arange(longest, 0, -1, device=ids.device)
        scored = place <= torch.tensor(lesson.answers, device=ids.device)[:, None]
        return functional.cross_entropy(logits[scored], ids[scored], reduction="sum")

    def _wording(self, prompt: Prompt, answer: str | None) -> str:
        if prompt.image is None:
            raise ConfigError(f"model {self.folder.name} needs a picture with every prompt")
        content = [{"type": "image"}, {"type": "text", "text": without_tokens(prompt.text, self._special)}]
        turns = [{"role": "user", "content": content}]
        if answer is not None:
            turns.append(
                {"role": "assistant", "content": [{"type": "text", "text": without_tokens(answer, self._special)}]}
            )
        try:
            text = self._processor.apply_chat_template(
                turns,
                tokenize=False,
                add_generation_prompt=answer is None,
                enable_thinking=False,  # a variable of some templates; the others do not look at it
            )
        except Exception as error:  # a template is a program of the model's makers
            raise WeightsError(f"the chat template of {self.folder.path} fails: {_line(error)}") from None
        return str(text)

    def _ids(self, text: str) -> list[int]:
        ids: list[int] = self._processor.tokenizer(text, add_special_tokens=self._adds_start(text))["input_ids"]
        return ids

    def _adds_start(self, text: str) -> bool:
        start = self._processor.tokenizer.bos_token
        return start is None or not text.startswith(start)

    def _process(self, texts: Sequence[str], prompts: Sequence[Prompt]) -> Inputs:
        images = [[read_image(prompt.image)] for prompt in prompts if prompt.image is not None]
        inputs = self._processor(
            text=list(texts),
            images=images,
            padding=True,
            padding_side="left",
            add_special_tokens=self._adds_start(texts[0]),
            return_tensors="pt",
        )
        kind = self.model.dtype
        return {
            name: value.to(self.device, kind) if value.is_floating_point() else value.to(self.device)
            for name, value in inputs.items()
        }


def _check_kind(folder: ModelFolder) -> None:
    from transformers.models.auto.modeling_auto import MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES

    if folder.model_type not in MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES:
        if folder.configuration.get("auto_map"):
            raise WeightsError(
                f"{folder.path} wants to run code of its own (model type {folder.model_type!r}), which is refused: "
                "give a model that transformers knows itself, such as Qwen2.5-VL"
            )
        raise WeightsError(
            f"{folder.path} is no vision-language model (model type {folder.model_type!r}): give one that transformers "
            "loads for image-text-to-text, such as Qwen2.5-VL"
        )
    if folder.configuration.get("is_encoder_decoder"):
        raise WeightsError(f"{folder.path} is an encoder-decoder (model type {folder.model_type!r}): give a chat model")


def _load_processor(folder: ModelFolder) -> Any:
    """The folder's processor. Where videos cannot be read for want of torchvision, one that reads pictures only."""
    import transformers
    from transformers.models.auto.processing_auto import PROCESSOR_MAPPING_NAMES

    try:
        processor = transformers.AutoProcessor.from_pretrained(folder.path, **FROM_DISK)
    except ImportError as error:
        name = PROCESSOR_MAPPING_NAMES.get(folder.model_type)
        if name is None:
            raise WeightsError(f"cannot load the processor of {folder.path}: {_line(error)}") from None
        processor = _load_parts(getattr(transformers, name), folder)
    except Exception as error:  # every kind is raised for a damaged or incomplete folder
        raise WeightsError(f"cannot load the processor of {folder.path}: {_line(error)}") from None
    if not hasattr(processor, "tokenizer") or not hasattr(processor, "image_processor"):
        raise WeightsError(f"{folder.path} has no processor for pictures and texts: is preprocessor_config.json there?")
    if processor.chat_template is None:
        raise WeightsError(f"{folder.path} has no chat template: give a model that was trained to follow instructions")
    return processor


def _load_parts(kind: type, folder: ModelFolder) -> Any:
    import transformers

    def accept_nothing(self: Any, name: str, part: Any) -> Any:
        return None if part is None else kind.check_argument_for_proper_class(self, name, part)  # type: ignore[attr-defined]

    try:
        tokenizer = transformers.AutoTokenizer.from_pretrained(folder.path, **FROM_DISK)
        pictures = transformers.AutoImageProcessor.from_pretrained(folder.path, backend="pil", **FROM_DISK)
        without_videos = type(kind.__name__, (kind,), {"check_argument_for_proper_class": accept_nothing})
        return without_videos(
            image_processor=pictures, tokenizer=tokenizer, video_processor=None, chat_template=tokenizer.chat_template
        )
    except Exception as error:
        raise WeightsError(f"cannot load the processor of {folder.path}: {_line(error)}") from None


def _end_ids(model: Any) -> frozenset[int]:
    ends = model.generation_config.eos_token_id
    return frozenset(ends if isinstance(ends, list) else [] if ends is None else [ends])


def _line(error: BaseException) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__
