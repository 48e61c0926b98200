"""The tensor names and layouts of OpenAI's CLIP, which the published IRRA checkpoints share, and their conversion."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from math import isqrt
from typing import Literal

from torch import Tensor

from tipr.config import Section
from tipr.encoders.clip import ClipConfig, resize_image_positions, resize_text_positions
from tipr.errors import ConfigError, WeightsError
from tipr.importers.foreign_files import Tensors

DEFAULT_IMAGE_SIZE = (384, 128)
SHOWN_KEYS = 8

BLOCK_NAMES = (
    *(f"attn.{name}" for name in ("in_proj_weight", "in_proj_bias", "out_proj.weight", "out_proj.bias")),
    *(f"{norm}.{name}" for norm in ("ln_1", "ln_2") for name in ("weight", "bias")),
    *(f"mlp.{layer}.{name}" for layer in ("c_fc", "c_proj") for name in ("weight", "bias")),
)
"""Tensors of one transformer block, relative to `...resblocks.{i}.`."""


class TowerOptions(Section):
    """What the tensors cannot tell.

    Attributes:
        text_heads, vision_heads: attention heads; None: width / 64, at least 1.
        image_size: (height, width); None: 384x128. The position table is resized when its grid is another.
        patch_stride: step between patches; None: the patch size.
        max_tokens: longest caption wanted; None: as in the file. The text position table is resized when it differs.
        activation: of the MLPs; None: that of the format.
    """

    text_heads: int | None = None
    vision_heads: int | None = None
    image_size: tuple[int, int] | None = None
    patch_stride: int | None = None
    max_tokens: int | None = None
    activation: Literal["quick_gelu", "gelu"] | None = None


def block_count(names: Iterable[str], prefix: str) -> int:
    """Number of transformer blocks under `prefix`, by the highest block number."""
    numbers = [name.removeprefix(prefix).split(".")[0] for name in names if name.startswith(prefix)]
    return max((int(number) for number in numbers if number.isdigit()), default=-1) + 1


def transformer_names(prefix: str, depth: int) -> set[str]:
    """All tensor names of a transformer called `prefix` (`...resblocks.`) with `depth` blocks."""
    return {f"{prefix}{i}.{name}" for i in range(depth) for name in BLOCK_NAMES}


def tower_names(names: Iterable[str], prefix: str) -> set[str]:
    """All tensor names that the two towers need; depths are those found in `names`."""
    names = list(names)
    single = {
        *("positional_embedding", "text_projection", "token_embedding.weight", "ln_final.weight", "ln_final.bias"),
        *(f"visual.{name}" for name in ("class_embedding", "positional_embedding", "proj", "conv1.weight")),
        *(f"visual.{norm}.{name}" for norm in ("ln_pre", "ln_post") for name in ("weight", "bias")),
    }
    towers = (f"{prefix}visual.transformer.resblocks.", f"{prefix}transformer.resblocks.")
    blocks = [transformer_names(tower, max(1, block_count(names, tower))) for tower in towers]
    return {prefix + name for name in single}.union(*blocks)


def check_names(given: Iterable[str], expected: Iterable[str], *, source: str) -> None:
    """Refuse a checkpoint whose names are not exactly the expected ones.

    Raises:
        WeightsError: listing missing and unknown names (the first few of many).
    """
    given, expected = set(given), set(expected)
    parts = [
        f"{len(keys)} {word} {'key' if len(keys) == 1 else 'keys'}: {listing(keys)}"
        for word, keys in (("missing", expected - given), ("unknown", given - expected))
        if keys
    ]
    if parts:
        raise WeightsError(f"{source}: {'; '.join(parts)}")


def check_shapes(state: Mapping[str, Tensor], target: Mapping[str, Tensor], *, source: str) -> None:
    """Refuse tensors whose shape does not fit the model that the other tensors describe.

    Raises:
        WeightsError: naming each tensor with both shapes.
    """
    wrong = {
        f"{name} is {tuple(state[name].shape)}, needs {tuple(target[name].shape)}"
        for name in target
        if state[name].shape != target[name].shape
    }
    if wrong:
        raise WeightsError(f"{source}: {listing(wrong)}")


def listing(items: Iterable[str]) -> str:
    """Sorted items in one line; of many only the first few and how many more there are."""
    items = sorted(items)
    more = f" and {len(items) - SHOWN_KEYS} more" if len(items) > SHOWN_KEYS else ""
    return ", ".join(items[:SHOWN_KEYS]) + more


def tower_config(tensors: Mapping[str, Tensor], options: TowerOptions, *, prefix: str, source: str) -> ClipConfig:
    """Sizes of the towers, read from the tensors where they can tell.

    Args:
        tensors: names -> tensors; all of `tower_names` are there.
        options: the rest.
        prefix: in front of every name, "" or "base_model.".
        source: names the file in errors.

    Raises:
        WeightsError: a tensor has an impossible number of axes, or sizes do not fit each other.
    """
    conv, table = tensors[f"{prefix}visual.conv1.weight"], tensors[f"{prefix}visual.positional_embedding"]
    text, projection = tensors[f"{prefix}token_embedding.weight"], tensors[f"{prefix}visual.proj"]
    positions = tensors[f"{prefix}positional_embedding"]
    if conv.ndim != 4 or not table.ndim == text.ndim == projection.ndim == positions.ndim == 2:
        raise WeightsError(f"{source}: conv1, position tables, token table or projection are no CLIP tensors")
    try:
        return ClipConfig(
            image_size=options.image_size or DEFAULT_IMAGE_SIZE,
            patch_size=conv.shape[-1],
            patch_stride=options.patch_stride,
            vision_width=conv.shape[0],
            vision_layers=block_count(tensors, f"{prefix}visual.transformer.resblocks."),
            vision_heads=options.vision_heads,
            text_width=text.shape[1],
            text_layers=block_count(tensors, f"{prefix}transformer.resblocks."),
            text_heads=options.text_heads,
            embed_dim=projection.shape[1],
            max_tokens=options.max_tokens or positions.shape[0],
            vocabulary_size=text.shape[0],
            activation=options.activation or "quick_gelu",
        )
    except ValueError as error:
        raise ConfigError(f"{source}: {' '.join(str(error).split())}") from None


def convert_towers(tensors: Mapping[str, Tensor], config: ClipConfig, *, prefix: str, source: str) -> Tensors:
    """Tensors under CLIP's own names -> state dict of a `ClipEncoder` with `config`, float32.

    Fused query-key-value projections are split, the two projections transposed, position tables resized.

    Raises:
        WeightsError: the image position table belongs to a grid that cannot be told.
    """

    def take(name: str) -> Tensor:
        return tensors[prefix + name].float()

    table = take("visual.positional_embedding")
    source_grid = _source_grid(len(table) - 1, config.grid, source=source)
    state = {
        "vision_model.embeddings.class_embedding": take("visual.class_embedding"),
        "vision_model.embeddings.patch_embedding.weight": take("visual.conv1.weight"),
        "vision_model.embeddings.position_embedding.weight": resize_image_positions(table, source_grid, config.grid),
        "text_model.embeddings.token_embedding.weight": take("token_embedding.weight"),
        "text_model.embeddings.position_embedding.weight": resize_text_positions(
            take("positional_embedding"), config.max_tokens
        ),
        "visual_projection.weight": take("visual.proj").T,
        "text_projection.weight": take("text_projection").T,
    }
    norms = {
        "vision_model.pre_layrnorm": "visual.ln_pre",  # the spelling is the library's
        "vision_model.post_layernorm": "visual.ln_post",
        "text_model.final_layer_norm": "ln_final",
    }
    for ours, theirs in norms.items():
        for kind in ("weight", "bias"):
            state[f"{ours}.{kind}"] = take(f"{theirs}.{kind}")
    for ours, theirs, depth in (
        ("vision_model.encoder.layers", "visual.transformer.resblocks", config.vision_layers),
        ("text_model.encoder.layers", "transformer.resblocks", config.text_layers),
    ):
        for i in range(depth):
            block = {name: take(f"{theirs}.{i}.{name}") for name in BLOCK_NAMES}
            state.update({f"{ours}.{i}.{name}": tensor for name, tensor in _convert_block(block).items()})
    return state


def _convert_block(block: Mapping[str, Tensor]) -> Tensors:
    state: Tensors = {}
    for kind in ("weight", "bias"):
        for name, part in zip("qkv", block[f"attn.in_proj_{kind}"].chunk(3), strict=True):
            state[f"self_attn.{name}_proj.{kind}"] = part
        state[f"self_attn.out_proj.{kind}"] = block[f"attn.out_proj.{kind}"]
        for ours, theirs in (("layer_norm1", "ln_1"), ("layer_norm2", "ln_2"), ("mlp.fc1", "mlp.c_fc")):
            state[f"{ours}.{kind}"] = block[f"{theirs}.{kind}"]
        state[f"mlp.fc2.{kind}"] = block[f"mlp.c_proj.{kind}"]
    return state


def _source_grid(cells: int, wanted: tuple[int, int], *, source: str) -> tuple[int, int]:
    """Grid of a position table: the wanted one when the number of cells agrees, 24x8, or a square."""
    if cells == wanted[0] * wanted[1]:
        return wanted
    if cells == 24 * 8:
        return 24, 8
    side = isqrt(max(cells, 0))
    if side < 1 or side * side != cells:
        raise WeightsError(
            f"{source}: the image position table has {cells + 1} rows, neither the {wanted[0]}x{wanted[1]} grid of "
            "image_size, nor 24x8, nor a square; give image_size"
        )
    return side, side
