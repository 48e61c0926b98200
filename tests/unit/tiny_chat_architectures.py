"""More architectures of vision-language models, as small as they go and with random weights, laid out as published."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tiny_vision_language import tokenizer
from transformers import (
    Gemma3Config,
    Gemma3ForConditionalGeneration,
    Gemma3Processor,
    Idefics3Config,
    Idefics3ForConditionalGeneration,
    Idefics3Processor,
    PreTrainedTokenizerFast,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen3VLConfig,
    Qwen3VLForConditionalGeneration,
)
from transformers.models.gemma3.image_processing_pil_gemma3 import Gemma3ImageProcessorPil
from transformers.models.idefics3.image_processing_pil_idefics3 import Idefics3ImageProcessorPil
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

TEXT = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
TOWER = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
QWEN_TOWER = {"hidden_size": 32, "intermediate_size": 64, "depth": 2, "num_heads": 2, "patch_size": 8}
QWEN_TOKENS = ("<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>")


def build_qwen2_5(folder: Path) -> Path:
    """A Qwen2.5-VL."""
    rope = {"rope_type": "default", "mrope_section": [2, 3, 3], "rope_theta": 1e4}
    tower = {**QWEN_TOWER, "out_hidden_size": 32, "window_size": 32, "fullatt_block_indexes": [1]}
    return _build_qwen(folder, Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration, {"rope_parameters": rope}, tower)


def build_qwen3(folder: Path) -> Path:
    """A Qwen3-VL."""
    rope = {"rope_type": "default", "mrope_section": [2, 3, 3], "mrope_interleaved": True, "rope_theta": 1e4}
    tower = {**QWEN_TOWER, "out_hidden_size": 32, "deepstack_visual_indexes": [0], "num_position_embeddings": 64}
    text = {"rope_parameters": rope, "head_dim": 16}
    return _build_qwen(folder, Qwen3VLConfig, Qwen3VLForConditionalGeneration, text, tower)


def _build_qwen(folder: Path, kind: Any, network: Any, text: dict[str, Any], tower: dict[str, Any]) -> Path:
    words = tokenizer(*QWEN_TOKENS, image="<|vision_start|><|image_pad|><|vision_end|>")
    start, end, image, video = words.convert_tokens_to_ids(list(QWEN_TOKENS))
    configuration = kind(
        text_config={**TEXT, **text, "vocab_size": len(words)},
        vision_config=tower,
        image_token_id=image,
        video_token_id=video,
        vision_start_token_id=start,
        vision_end_token_id=end,
    )
    network(configuration).save_pretrained(folder)
    words.save_pretrained(folder)
    Qwen2VLImageProcessorPil(patch_size=8, merge_size=2, min_pixels=256, max_pixels=4096).save_pretrained(folder)
    return folder


def build_gemma3(folder: Path) -> Path:
    """A Gemma 3."""
    tokens = {"boi_token": "<start_of_image>", "eoi_token": "<end_of_image>", "image_token": "<image_soft_token>"}
    plain = tokenizer(*tokens.values(), image="<start_of_image>")
    words = PreTrainedTokenizerFast(
        tokenizer_object=plain.backend_tokenizer,
        pad_token="<|pad|>",
        bos_token="<|begin|>",
        eos_token="<|end|>",
        chat_template=plain.chat_template,
        extra_special_tokens=tokens,
    )
    start, end, image = words.convert_tokens_to_ids(list(tokens.values()))
    configuration = Gemma3Config(
        text_config={**TEXT, "vocab_size": len(words), "head_dim": 16},
        vision_config={**TOWER, "image_size": 32, "patch_size": 8},
        mm_tokens_per_image=4,
        boi_token_index=start,
        eoi_token_index=end,
        image_token_index=image,
    )
    Gemma3ForConditionalGeneration(configuration).save_pretrained(folder)
    pictures = Gemma3ImageProcessorPil(size={"height": 32, "width": 32})
    Gemma3Processor(pictures, words, image_seq_length=4, chat_template=words.chat_template).save_pretrained(folder)
    return folder


def build_idefics3(folder: Path) -> Path:
    """An Idefics 3."""
    tokens = ("<fake_token_around_image>", "<image>", "<end_of_utterance>", "<global-img>")
    words = tokenizer(*tokens, image="<image>")
    configuration = Idefics3Config(
        text_config={"model_type": "llama", **TEXT, "vocab_size": len(words)},
        vision_config={**TOWER, "image_size": 32, "patch_size": 8},
        image_token_id=words.convert_tokens_to_ids("<image>"),
        scale_factor=2,
    )
    Idefics3ForConditionalGeneration(configuration).save_pretrained(folder)
    side = {"longest_edge": 32}
    pictures = Idefics3ImageProcessorPil(do_image_splitting=False, size=side, max_image_size=side)
    Idefics3Processor(pictures, words, image_seq_len=4, chat_template=words.chat_template).save_pretrained(folder)
    return folder
