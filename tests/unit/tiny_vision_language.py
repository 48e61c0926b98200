"""Small vision-language models built from a configuration, captions to teach them, and the files before them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from colour_model import paint
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    CLIPVisionConfig,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaProcessor,
    PreTrainedTokenizerFast,
    Qwen2VLConfig,
    Qwen2VLForConditionalGeneration,
)
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

from tipr.translation.records import FILTERED, Item, Row

COLOURS = {
    "red": ("rotem", "红色"),
    "green": ("grünem", "绿色"),
    "blue": ("blauem", "蓝色"),
    "grey": ("grauem", "灰色"),
}
GARMENTS = {
    "coat": ("Mantel", "大衣"),
    "shirt": ("Hemd", "衬衫"),
    "jacket": ("Sakko", "夹克"),
    "pullover": ("Pullover", "毛衣"),
    "dress": ("Kleid", "连衣裙"),
    "anorak": ("Anorak", "风衣"),
    "vest": ("Leibchen", "背心"),
    "scarf": ("Halstuch", "围巾"),
}
SPECIAL = ["<|pad|>", "<|begin|>", "<|end|>", "<|user|>", "<|assistant|>"]
TEMPLATE = (
    "<|begin|>{% for turn in messages %}<|{{ turn.role }}|>{% for part in turn.content %}"
    "{% if part.type == 'image' %}IMAGE{% else %}{{ part.text }}{% endif %}{% endfor %}<|end|>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)


def wordings(upper: str, garment: str, lower: str) -> dict[str, str]:
    """One description of a person in three languages."""
    (de_upper, zh_upper), (de_lower, zh_lower), (de, zh) = COLOURS[upper], COLOURS[lower], GARMENTS[garment]
    return {
        "en": f"A person with a {upper} {garment} and with {lower} trousers.",
        "de": f"Eine Person mit {de_upper} {de} und mit {de_lower} Beinkleid.",
        "zh": f"一个人穿着{zh_upper}{zh}和{zh_lower}裤子。",
    }


def all_wordings() -> list[tuple[str, str, dict[str, str]]]:
    """(upper colour, lower colour, wordings) of every description."""
    return [
        (upper, lower, wordings(upper, garment, lower))
        for garment in GARMENTS
        for upper in COLOURS
        for lower in COLOURS
    ]


def tokenizer(*more: str, image: str) -> PreTrainedTokenizerFast:
    """Byte-level BPE learned from the captions; `more` special tokens, `image` stands for a picture in the template."""
    engine = Tokenizer(models.BPE())
    engine.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    engine.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=480,
        special_tokens=[*SPECIAL, *more],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    engine.train_from_iterator((text for *_, words in all_wordings() for text in words.values()), trainer=trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=engine,
        pad_token="<|pad|>",
        bos_token="<|begin|>",
        eos_token="<|end|>",
        chat_template=TEMPLATE.replace("IMAGE", image),
    )


def build_llava(folder: Path) -> Path:
    """A LLaVA of 2 + 2 layers with random weights, large enough to be unlike an even guess."""
    words = tokenizer("<image>", image="<image>")
    configuration = LlavaConfig(
        vision_config=CLIPVisionConfig(
            hidden_size=32,
            intermediate_size=64,
            num_hidden_layers=2,
            num_attention_heads=2,
            image_size=32,
            patch_size=16,
            projection_dim=32,
        ),
        text_config=LlamaConfig(
            vocab_size=len(words),
            hidden_size=64,
            intermediate_size=128,
            num_hidden_layers=2,
            num_attention_heads=2,
            num_key_value_heads=2,
            initializer_range=0.15,
            pad_token_id=0,
            bos_token_id=1,
            eos_token_id=2,
        ),
        image_token_index=words.convert_tokens_to_ids("<image>"),
        vision_feature_layer=-1,
        vision_feature_select_strategy="default",
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = LlavaForConditionalGeneration(configuration)
    processor = LlavaProcessor(
        CLIPImageProcessorPil(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32}),
        words,
        patch_size=16,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=words.chat_template,
    )
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


def build_qwen(folder: Path) -> Path:
    """A Qwen2-VL of 2 + 2 layers with random weights, laid out as its makers publish theirs."""
    extra = ("<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>")
    words = tokenizer(*extra, image="<|vision_start|><|image_pad|><|vision_end|>")
    start, end, image, video = words.convert_tokens_to_ids(list(extra))
    configuration = Qwen2VLConfig(
        text_config={
            "vocab_size": len(words),
            "hidden_size": 32,
            "intermediate_size": 64,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "num_key_value_heads": 2,
            "pad_token_id": 0,
            "bos_token_id": 1,
            "eos_token_id": 2,
            "rope_parameters": {"rope_type": "default", "mrope_section": [2, 3, 3], "rope_theta": 1e4},
        },
        vision_config={
            "depth": 2,
            "embed_dim": 32,
            "hidden_size": 32,
            "num_heads": 2,
            "mlp_ratio": 2,
            "patch_size": 8,
            "spatial_merge_size": 2,
        },
        image_token_id=image,
        video_token_id=video,
        vision_start_token_id=start,
        vision_end_token_id=end,
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = Qwen2VLForConditionalGeneration(configuration)
    model.save_pretrained(folder)
    words.save_pretrained(folder)
    Qwen2VLImageProcessorPil(patch_size=8, merge_size=2, min_pixels=256, max_pixels=4096).save_pretrained(folder)
    return folder


def paint_all(folder: Path) -> Path:
    """A picture `UPPER-LOWER.png` of every pair of colours."""
    for upper in COLOURS:
        for lower in COLOURS:
            paint(folder / f"{upper}-{lower}.png", upper, lower)
    return folder


def filtered_row(
    upper: str, garment: str, lower: str, language: str, *, noise: float | None = 0.1, **changes: Any
) -> Row:
    """A row of `filtered.jsonl`; noisy from 0.2 on, or by a rule."""
    words = wordings(upper, garment, lower)
    image = f"{upper}-{lower}.png"
    item = Item(f"{image}#{garment}@{language}", image, 0, "en", language, words["en"], "train")
    row = {
        **item.to_row(),
        "draft": words[language],
        "error": None,
        "provenance": {},
        "rule": None,
        "noise": noise,
        "threshold": 0.2,
        "estimator": {"name": "scripted"},
        **changes,
    }
    return {**row, "noisy": row["rule"] is not None or row["noise"] > row["threshold"]}


def write_filtered(out: Path, rows: Iterable[Mapping[str, Any]]) -> Path:
    """`OUT/filtered.jsonl` as another machine would have made it: without its meta file."""
    out.mkdir(parents=True, exist_ok=True)
    text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    (out / FILTERED).write_text(text, encoding="utf-8")
    return out
