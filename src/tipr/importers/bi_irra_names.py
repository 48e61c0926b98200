"""Tensor names of Bi-IRRA's checkpoints: the pretraining layout (CCLM-X2VLM), the released one, and ours.

Source: the original model classes; the released layout keeps the fusion layers behind the text layers in one stack.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from tipr.encoders.beit_xlmr import BeitXlmrConfig
from tipr.encoders.relative_positions import RelativePositions
from tipr.errors import WeightsError
from tipr.importers.foreign_files import Tensors
from tipr.importers.openai_clip_tensors import block_count

LayoutName = Literal["pretraining", "released"]

CONSTANTS = ("position_ids", "relative_position_index")
"""Ends of names of tensors that the model's sizes decide; they are not read."""
KINDS = ("weight", "bias")
VISION_BLOCK = {
    "layernorm_before.weight": "norm1.weight",
    "layernorm_before.bias": "norm1.bias",
    "layernorm_after.weight": "norm2.weight",
    "layernorm_after.bias": "norm2.bias",
    "attention.q_proj.bias": "attn.q_bias",
    "attention.v_proj.bias": "attn.v_bias",
    "attention.o_proj.weight": "attn.proj.weight",
    "attention.o_proj.bias": "attn.proj.bias",
    "relative_position_bias.relative_position_bias_table": "attn.relative_position_bias_table",
    "lambda_1": "gamma_1",
    "lambda_2": "gamma_2",
    "mlp.fc1.weight": "mlp.fc1.weight",
    "mlp.fc1.bias": "mlp.fc1.bias",
    "mlp.fc2.weight": "mlp.fc2.weight",
    "mlp.fc2.bias": "mlp.fc2.bias",
}
"""Ours -> theirs, of one block; the query, key and value weights stand apart, as theirs are one tensor."""
QUERY_KEY_VALUE = tuple(f"attention.{part}_proj.weight" for part in "qkv")
ATTENTION = ("self.query", "self.key", "self.value", "output.dense", "output.LayerNorm")
TEXT_LAYER = (*(f"attention.{part}" for part in ATTENTION), "intermediate.dense", "output.dense", "output.LayerNorm")
FUSION_LAYER = (*TEXT_LAYER, *(f"crossattention.{part}" for part in ATTENTION))
"""Of one layer, without weight and bias; the library's names are those of the checkpoints."""
EMBEDDINGS = ("word_embeddings.weight", "position_embeddings.weight", "token_type_embeddings.weight")
TEXT_HEAD = {
    "dense.weight": "transform.dense.weight",
    "dense.bias": "transform.dense.bias",
    "norm.weight": "transform.LayerNorm.weight",
    "norm.bias": "transform.LayerNorm.bias",
    "bias": "bias",
}
HEAD_PARTS = tuple(f"{number}.{kind}" for number in (0, 1, 3) for kind in KINDS)
BOX_HEAD = tuple(f"bbox_head.{part}" for part in HEAD_PARTS)


@dataclass(frozen=True)
class Layout:
    """How a checkpoint calls its parts.

    Attributes:
        name: "pretraining" or "released".
        segment: "bert.", "roberta." or "", inside the text tower's (and the fusion encoder's) names.
        text_head: prefix of the text head; None: there is none.
        has_mim_head, has_box_head, has_temperature: whether these parts are there. The box head is not used.
    """

    name: LayoutName
    segment: str
    text_head: str | None
    has_mim_head: bool
    has_box_head: bool
    has_temperature: bool

    @property
    def text(self) -> str:
        """Prefix of the text tower."""
        return f"text_encoder.{self.segment}"

    def fusion(self, number: int, text_layers: int) -> str:
        """Prefix of a fusion layer."""
        if self.name == "pretraining":
            return f"cross_encoder.{self.segment}encoder.layer.{number}."
        return f"{self.text}encoder.layer.{number + text_layers}."

    @property
    def decoder(self) -> str:
        """Name of the matrix that the text head multiplies with."""
        return f"{self.text_head}decoder.weight"

    @property
    def words(self) -> str:
        """Name of the word table."""
        return f"{self.text}embeddings.word_embeddings.weight"


def recognise(tensors: Mapping[str, Tensor], *, source: str) -> Layout:
    """Tell the layout of a checkpoint by its names.

    Raises:
        WeightsError: a monolingual X-VLM checkpoint, or neither of the two layouts.
    """
    fused = any(name.startswith("text_encoder.") and ".crossattention." in name for name in tensors)
    separate = any(name.startswith("cross_encoder.") for name in tensors)
    target = any(name.startswith("tl_text_proj.") for name in tensors)
    monolingual = any(name.startswith("text_encoder.cls.") for name in tensors) or (fused and not target)
    if monolingual and not separate:
        table = next((tensor for name, tensor in tensors.items() if name.endswith("word_embeddings.weight")), None)
        words = "" if table is None else f" with {len(table):,} word pieces"
        raise WeightsError(
            f"{source} is a monolingual X-VLM checkpoint (XVLMBase, English{words}): no starting point for Bi-IRRA, "
            "which needs the multilingual CCLM-X2VLM weights or a released Bi-IRRA file"
        )
    if separate == target:
        raise WeightsError(
            f"{source} is no Bi-IRRA checkpoint: expected the names of the pretraining layout (cross_encoder.*) or of "
            "the released one (tl_text_proj.*)"
        )
    segment = next((part for part in ("bert.", "roberta.") if _starts(tensors, f"text_encoder.{part}")), "")
    prefix = "mlm_head.predictions." if separate else "text_encoder.mlm_head.predictions."
    return Layout(
        name="pretraining" if separate else "released",
        segment=segment,
        text_head=prefix if separate or _starts(tensors, prefix) else None,
        has_mim_head=not separate and _starts(tensors, "mim_head."),
        has_box_head=separate and _starts(tensors, "bbox_head."),
        has_temperature="temp" in tensors,
    )


def layer_counts(tensors: Mapping[str, Tensor], layout: Layout) -> tuple[int, int, int]:
    """Vision, text and fusion layers of a checkpoint; at least one of each."""
    stack = f"{layout.text}encoder.layer."
    total = block_count(tensors, stack)
    if layout.name == "pretraining":
        fusion = block_count(tensors, f"cross_encoder.{layout.segment}encoder.layer.")
    else:
        fusion = len({name[len(stack) :].split(".")[0] for name in tensors if _crosses(name, stack)})
        total -= fusion
    vision = block_count(tensors, "vision_encoder.blocks.")
    return max(1, vision), max(1, total), max(1, fusion)


def renaming(layout: Layout, layers: tuple[int, int, int], target_language: str) -> dict[str, str]:
    """Ours -> theirs for every tensor of the method that has its counterpart in the file.

    Not in it: the query, key and value weights of the vision blocks, the text head's own matrix, and the projections of
    target languages where the layout has none.

    Args:
        layout: of the file.
        layers: vision, text and fusion layers.
        target_language: whose projection `tl_text_proj` is, in the released layout.
    """
    vision, text, fusion = layers
    names = {
        "vision.embeddings.cls_token": "vision_encoder.cls_token",
        **_both("vision.embeddings.patch_embeddings.projection", "vision_encoder.patch_embed.proj"),
        **_both("vision_norm", "vision_encoder.fc_norm"),
        **{f"text.embeddings.{name}": f"{layout.text}embeddings.{name}" for name in EMBEDDINGS},
        **_both("text.embeddings.LayerNorm", f"{layout.text}embeddings.LayerNorm"),
        **_both("vision_projection", "vision_proj"),
        **_both("text_projection", "text_proj"),
        **{f"match_head.{part}": f"itm_head.{part}" for part in HEAD_PARTS},
    }
    for i in range(vision):
        block = f"vision_encoder.blocks.{i}."
        names |= {f"vision.layers.{i}.{ours}": block + theirs for ours, theirs in VISION_BLOCK.items()}
    for i in range(text):
        for part in TEXT_LAYER:
            names |= _both(f"text.encoder.layer.{i}.{part}", f"{layout.text}encoder.layer.{i}.{part}")
    for i in range(fusion):
        for part in FUSION_LAYER:
            names |= _both(f"fusion.layers.{i}.{part}", layout.fusion(i, text) + part)
    if layout.name == "released":
        names["vision.embeddings.mask_token"] = "vision_encoder.mask_token"
        names |= _both(f"target_projections.{target_language}", "tl_text_proj")
    names = {f"encoder.{ours}": theirs for ours, theirs in names.items()}
    if layout.text_head is not None:
        names |= {f"mlm_head.{ours}": layout.text_head + theirs for ours, theirs in TEXT_HEAD.items()}
    if layout.has_mim_head:
        names |= {f"mim_head.{part}": f"mim_head.{part}" for part in HEAD_PARTS}
    if layout.has_temperature:
        names["temp"] = "temp"
    return names


def expected_names(layout: Layout, layers: tuple[int, int, int]) -> set[str]:
    """All names that a file of the layout must have, constants not counted."""
    names = set(renaming(layout, layers, "target").values())
    names |= {f"vision_encoder.blocks.{i}.attn.qkv.weight" for i in range(layers[0])}
    if layout.text_head is not None:
        names |= {layout.decoder, f"{layout.text_head}decoder.bias"}
    if layout.has_box_head:
        names |= set(BOX_HEAD)
    return names


def split_queries(tensors: Mapping[str, Tensor], vision_layers: int) -> Tensors:
    """The fused query, key and value weights of the vision blocks under our names."""
    state: Tensors = {}
    for i in range(vision_layers):
        fused = tensors[f"vision_encoder.blocks.{i}.attn.qkv.weight"]
        for name, part in zip(QUERY_KEY_VALUE, fused.tensor_split(3), strict=True):
            state[f"encoder.vision.layers.{i}.{name}"] = part
    return state


def join_queries(state: Mapping[str, Tensor], vision_layers: int) -> Tensors:
    """The way back of `split_queries`."""
    return {
        f"vision_encoder.blocks.{i}.attn.qkv.weight": torch.cat(
            [state[f"encoder.vision.layers.{i}.{name}"] for name in QUERY_KEY_VALUE]
        )
        for i in range(vision_layers)
    }


def constants(config: BeitXlmrConfig, layout: Layout) -> Tensors:
    """What the sizes decide and a file holds all the same."""
    index = RelativePositions(config.grid, 1).index
    names = (f"vision_encoder.blocks.{i}.attn.relative_position_index" for i in range(config.vision_layers))
    positions = torch.arange(config.max_positions)[None]
    return {**{name: index.clone() for name in names}, f"{layout.text}embeddings.position_ids": positions}


def without_constants(names: Iterable[str]) -> set[str]:
    """The names of tensors that are learned."""
    return {name for name in names if not name.endswith(CONSTANTS)}


def _starts(names: Iterable[str], prefix: str) -> bool:
    return any(name.startswith(prefix) for name in names)


def _crosses(name: str, stack: str) -> bool:
    return name.startswith(stack) and ".crossattention." in name


def _both(ours: str, theirs: str) -> dict[str, str]:
    return {f"{ours}.{kind}": f"{theirs}.{kind}" for kind in KINDS}
