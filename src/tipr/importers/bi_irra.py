"""Bi-IRRA's checkpoints -> `BiIrra` over a `BeitXlmrEncoder`, and the way back to the released layout."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from math import isqrt
from pathlib import Path
from typing import Any, Literal

from pydantic import PositiveInt
from torch import Tensor

from tipr.config import Section, load, parse
from tipr.encoders.beit_xlmr import BeitXlmrConfig, BeitXlmrEncoder
from tipr.encoders.relative_positions import SPECIAL_DISTANCES, resize_relative_positions, table_rows
from tipr.errors import ConfigError, WeightsError
from tipr.importers.bi_irra_names import (
    Layout,
    LayoutName,
    constants,
    expected_names,
    join_queries,
    layer_counts,
    recognise,
    renaming,
    split_queries,
    without_constants,
)
from tipr.importers.foreign_files import Tensors, read_tensors
from tipr.importers.openai_clip_tensors import check_names, check_shapes
from tipr.methods.base import TrainingFacts
from tipr.methods.bi_irra import BiIrra
from tipr.methods.bi_irra_config import BiIrraConfig

log = logging.getLogger(__name__)

FORMATS: dict[LayoutName, str] = {"released": "bi_irra", "pretraining": "x2vlm"}
"""Layout -> format that reads it."""
WORDS = "encoder.text.embeddings.word_embeddings.weight"
OWN_DECODER = "mlm_head.decoder"
TABLE = "attn.relative_position_bias_table"
OUR_TABLE = ".relative_position_bias.relative_position_bias_table"
START_AT_RANDOM = ("encoder.vision.embeddings.mask_token", "mim_head.", "mlm_head.", "classifier.", "temp")
"""What keeps the value that it is built with where a file does not have it."""


class BiIrraImportConfig(Section):
    """What the tensors of a checkpoint cannot tell.

    Attributes:
        text_heads, fusion_heads: attention heads; None: width / 64, at least 1, and as many as the text layers have.
        image_size: (height, width) in pixels; None: a square, which the relative position tables tell the size of.
            Tables of a square of another size are resampled (`resize_relative_positions`); those of weights that
            were not trained on squares fit their own size only.
        max_tokens: longest caption, start and end included.
        position_offset: 0: the released code numbers text positions from 0, whatever the weights were trained with.
            2: as XLM-R was trained.
        source_language, target_languages: of the projections. A released file has exactly one target language; from
            the pretraining layout every one gets a copy of the source's projection.
        word_table: which matrix becomes the word table where it differs from the text head's: "decoder", as in the
            released code, or "embedding".
        tie_decoder: the text head multiplies with the word table, as in the released code; else with a matrix of its
            own, as in pretraining.
        drop_path, hidden_dropout, attention_dropout: in training.
        attention: "sdpa" or "eager"; see `BeitXlmrConfig`.
        mask_id: id of the mask token; None: the last of the vocabulary.
        identities: people of the training set to go on with, for the method's term "id".
        method: settings of the method; see `BiIrraConfig`. Without `losses` a released file's heads decide.
    """

    text_heads: PositiveInt | None = None
    fusion_heads: PositiveInt | None = None
    image_size: tuple[PositiveInt, PositiveInt] | None = None
    max_tokens: int = 77
    position_offset: Literal[0, 2] = 0
    source_language: str = "en"
    target_languages: tuple[str, ...] = ("zh",)
    word_table: Literal["decoder", "embedding"] = "decoder"
    tie_decoder: bool = True
    drop_path: float = 0.1
    hidden_dropout: float = 0.1
    attention_dropout: float = 0.1
    attention: Literal["sdpa", "eager"] = "sdpa"
    mask_id: int | None = None
    identities: PositiveInt | None = None
    method: BiIrraConfig | None = None


def read_bi_irra(path: Path, config: Mapping[str, Any] | Path | None = None, *, unconfined: bool = False) -> BiIrra:
    """Read a file that the released Bi-IRRA training writes (`state_dict`).

    Names must be exactly those of the layout; constants are not looked at. The text head, or the head of image
    distillation, may be absent as a whole, which `method.notices` says.

    Args:
        path: the checkpoint.
        config: settings of `BiIrraImportConfig` as a mapping or a YAML file.
        unconfined: see `read_tensors`.

    Returns:
        the method in evaluation mode, float32, on the CPU.

    Raises:
        WeightsError: the file cannot be read, or names or shapes are not those of the layout.
        ConfigError: a setting is not allowed.
    """
    return read_layout("released", path, config, unconfined=unconfined)


def read_layout(wanted: LayoutName, path: Path, config: Mapping[str, Any] | Path | None, *, unconfined: bool) -> BiIrra:
    """Read a checkpoint of one of the two layouts; see `read_bi_irra`."""
    if isinstance(config, Path):
        options = load(config, BiIrraImportConfig)
    else:
        options = parse(config or {}, BiIrraImportConfig, source="config")
    source, tensors = str(path), read_tensors(path, unconfined=unconfined)
    layout = recognise(tensors, source=source)
    if layout.name != wanted:
        raise WeightsError(f"{source} has the {layout.name} layout: read it as {FORMATS[layout.name]!r}")
    method = convert(tensors, options, source=source)
    method.notices += word_notices(tensors, layout, options, source=source)
    for notice in method.notices:
        log.info("%s: %s", source, notice)
    return method.eval()


def convert(tensors: Mapping[str, Tensor], options: BiIrraImportConfig, *, source: str) -> BiIrra:
    """The method that the tensors of a checkpoint describe, with their values.

    Args:
        tensors: names -> tensors in either layout.
        options: the rest.
        source: names the file in errors.

    Raises:
        WeightsError: names or shapes are not those of the layout.
        ConfigError: a setting does not fit the file.
    """
    layout = recognise(tensors, source=source)
    if layout.name == "released" and len(options.target_languages) != 1:
        raise ConfigError(
            f"{source} has one projection for a target language: name that one in target_languages, "
            f"not {', '.join(options.target_languages) or 'none'}"
        )
    layers = layer_counts(tensors, layout)
    check_names(without_constants(tensors), expected_names(layout, layers), source=source)
    encoder = BeitXlmrEncoder.build(_encoder_config(tensors, layout, layers, options, source=source))
    facts = TrainingFacts(
        pairs=0,
        mask_id=encoder.vocabulary_size - 1 if options.mask_id is None else options.mask_id,
        vocabulary_size=encoder.vocabulary_size,
        identities=options.identities,
    )
    method = BiIrra.build(_method_config(layout, options), encoder, facts)

    state = _converted(tensors, layout, layers, options)
    resampled = _resize_tables(state, encoder.grid, source=source)
    fresh = method.state_dict()
    left_out = {name for name in state if name not in fresh}
    new = {name for name in fresh if name not in state and name.startswith(START_AT_RANDOM)}
    kept = {name: tensor for name, tensor in state.items() if name not in left_out}
    check_shapes(kept, {name: fresh[name] for name in kept}, source=source)
    method.load_state_dict(kept | {name: fresh[name] for name in new}, strict=True)
    parts = (("left out of the checkpoint", left_out), ("not in the checkpoint, so at its first value", new))
    method.notices = (*resampled, *(f"{what}: {_parts(names)}" for what, names in parts if names))
    return method


def _resize_tables(state: Tensors, grid: tuple[int, int], *, source: str) -> tuple[str, ...]:
    """Give the relative position tables the grid of the encoder; says so where it was another.

    Raises:
        ConfigError: the tables are too small.
    """
    changed: tuple[str, ...] = ()
    for name, table in state.items():
        if name.endswith(OUR_TABLE) and len(table) != table_rows(grid):
            square = (_side(table), _side(table))
            try:
                state[name] = resize_relative_positions(table, square, grid)
            except ValueError as error:
                raise ConfigError(f"{source}: {error}") from None
            changed = (f"relative position tables of {_times(square)} patches were resampled for {_times(grid)}",)
    return changed


def _times(grid: tuple[int, int]) -> str:
    return f"{grid[0]}x{grid[1]}"


def _encoder_config(
    tensors: Mapping[str, Tensor],
    layout: Layout,
    layers: tuple[int, int, int],
    options: BiIrraImportConfig,
    *,
    source: str,
) -> BeitXlmrConfig:
    """Sizes of the encoder, read from the tensors where they can tell.

    Raises:
        WeightsError: a tensor has an impossible number of axes or rows.
        ConfigError: sizes do not fit each other.
    """
    block, layer = "vision_encoder.blocks.0.", f"{layout.text}encoder.layer.0."
    patches, table = tensors["vision_encoder.patch_embed.proj.weight"], tensors[f"{block}{TABLE}"]
    words, positions = tensors[layout.words], tensors[f"{layout.text}embeddings.position_embeddings.weight"]
    matrices = (tensors[f"{block}mlp.fc1.weight"], tensors[f"{layer}intermediate.dense.weight"])
    projection = tensors["text_proj.weight"]
    if patches.ndim != 4 or any(tensor.ndim != 2 for tensor in (table, words, positions, projection, *matrices)):
        raise WeightsError(f"{source}: patch embedding, position tables, word table or layers are no such tensors")
    patch, width = patches.shape[-1], words.shape[1]
    side = _side(table)
    text_heads = options.text_heads or max(1, width // 64)
    try:
        config = BeitXlmrConfig(
            image_size=options.image_size or (side * patch, side * patch),
            patch=patch,
            width=width,
            vision_layers=layers[0],
            vision_heads=table.shape[1],
            vision_mlp=len(matrices[0]),
            drop_path=options.drop_path,
            vocabulary_size=len(words),
            max_positions=len(positions),
            max_tokens=options.max_tokens,
            text_layers=layers[1],
            text_heads=text_heads,
            text_mlp=len(matrices[1]),
            fusion_layers=layers[2],
            fusion_heads=options.fusion_heads,
            hidden_dropout=options.hidden_dropout,
            attention_dropout=options.attention_dropout,
            position_offset=options.position_offset,
            embed_dim=len(projection),
            source_language=options.source_language,
            target_languages=options.target_languages,
            attention=options.attention,
        )
    except ValueError as error:
        raise ConfigError(f"{source}: {' '.join(str(error).split())}") from None
    rows, columns = config.grid
    if len(table) not in (table_rows(config.grid), table_rows((side, side))):
        raise ConfigError(
            f"{source}: relative position tables of {len(table)} rows are those neither of {rows}x{columns} patches "
            "nor of a square: give the image_size that the weights were trained at"
        )
    return config


def _side(table: Tensor) -> int:
    """Patches along the side of the square whose relative position table this is; of another grid, any number."""
    return (isqrt(max(len(table) - SPECIAL_DISTANCES, 0)) + 1) // 2


def _method_config(layout: Layout, options: BiIrraImportConfig) -> BiIrraConfig:
    """The settings asked for; of a released file with the terms whose heads it has, where none are named."""
    settings = options.method or BiIrraConfig()
    changes: dict[str, Any] = {"tie_decoder": options.tie_decoder}
    if "losses" not in settings.model_fields_set and layout.name == "released":
        present = {"mlm": layout.text_head is not None, "mim": layout.has_mim_head}
        changes["losses"] = tuple(name for name in settings.losses if present.get(name, True))
    return settings.model_copy(update=changes)


def _converted(
    tensors: Mapping[str, Tensor], layout: Layout, layers: tuple[int, int, int], options: BiIrraImportConfig
) -> Tensors:
    """Everything that the file has, under the method's names, float32."""
    names = renaming(layout, layers, "".join(options.target_languages[:1]))
    state = {ours: tensors[theirs].float() for ours, theirs in names.items()}
    state |= {ours: tensor.float() for ours, tensor in split_queries(tensors, layers[0]).items()}
    if layout.text_head is not None:
        decoder = tensors[layout.decoder].float()
        if options.word_table == "decoder":
            state[WORDS] = decoder
        if not options.tie_decoder:
            state[OWN_DECODER] = decoder
    if layout.name == "pretraining":
        for language in options.target_languages:
            for kind in ("weight", "bias"):
                state[f"encoder.target_projections.{language}.{kind}"] = state[f"encoder.text_projection.{kind}"]
    return state


def word_notices(
    tensors: Mapping[str, Tensor], layout: Layout, options: BiIrraImportConfig, *, source: str
) -> tuple[str, ...]:
    """What there is to say about the word table and the text head's matrix.

    They are one parameter in the released code and two in pretraining. The original loader writes the table from the
    embeddings and then again from the text head, so that the text head's matrix wins.

    Raises:
        WeightsError: the text head's bias is there twice with different values, or the matrices' shapes differ.
    """
    if layout.text_head is None:
        return ()
    table, decoder = tensors[layout.words], tensors[layout.decoder]
    twice = [tensors[f"{layout.text_head}{name}"] for name in ("bias", "decoder.bias")]
    if table.shape != decoder.shape or twice[0].shape != twice[1].shape:
        raise WeightsError(f"{source}: {layout.decoder} is {tuple(decoder.shape)}, needs {tuple(table.shape)}")
    if not twice[0].equal(twice[1]):
        raise WeightsError(f"{source}: {layout.text_head}bias and {layout.text_head}decoder.bias differ")
    apart = (table.float() - decoder.float()).abs().amax(dim=1)
    rows = int((apart > 0).sum())
    if not rows:
        return ()
    taken = f"word_table: {options.word_table}, tie_decoder: {str(options.tie_decoder).lower()}"
    return (
        f"the word table and the text head's matrix differ in {rows:,} of {len(table):,} rows, by up to "
        f"{float(apart.max()):.3g}; taken: {taken}",
    )


def released_state(method: BiIrra) -> Tensors:
    """The method's tensors in the released layout, constants included; `read_bi_irra` of them gives it back.

    A head that the method does not have is absent, and so is a classifier.

    Args:
        method: with exactly one target language, which has its own projection, and a text head tied to the word table.

    Raises:
        ConfigError: it is not.
    """
    config, targets = method.encoder.config, method.encoder.config.projected_languages
    if len(targets) != 1:
        raise ConfigError(f"the released layout has one target language with a projection, the encoder {len(targets)}")
    state = method.state_dict()
    if OWN_DECODER in state:
        raise ConfigError("the released layout has no text head with a matrix of its own: tie_decoder is false")
    text_head = "text_encoder.mlm_head.predictions." if method.uses_mlm else None
    layout = Layout(
        name="released",
        segment="bert." if method.uses_mlm else "",
        text_head=text_head,
        has_mim_head="mim_head.0.weight" in state,
        has_box_head=False,
        has_temperature=True,
    )
    names = renaming(layout, (config.vision_layers, config.text_layers, config.fusion_layers), targets[0])
    given = {theirs: state[ours] for ours, theirs in names.items()} | join_queries(state, config.vision_layers)
    if text_head is not None:
        given |= {layout.decoder: state[WORDS], f"{text_head}decoder.bias": state["mlm_head.bias"]}
    return {name: tensor.detach().clone() for name, tensor in (given | constants(config, layout)).items()}


def _parts(names: set[str]) -> str:
    """What a group of tensors belongs to: first parts of the names, the encoder's in full."""
    return ", ".join(sorted({name if name.startswith("encoder.") else name.split(".")[0] for name in names}))
