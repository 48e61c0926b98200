"""Published IRRA checkpoints (`best.pth`) -> `Irra` over a `ClipEncoder`."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from pydantic import Field

from tipr.config import parse
from tipr.encoders.clip import ClipEncoder
from tipr.errors import ConfigError
from tipr.importers.foreign_files import read_tensors
from tipr.importers.openai_clip_tensors import (
    TowerOptions,
    block_count,
    check_names,
    check_shapes,
    convert_towers,
    tower_config,
    tower_names,
    transformer_names,
)
from tipr.methods.base import TrainingFacts
from tipr.methods.interaction import default_heads
from tipr.methods.irra import Irra, IrraConfig, LossName

log = logging.getLogger(__name__)

TOWERS = "base_model."
FUSION_BLOCKS = "cross_modal_transformer.resblocks."
CLASSIFIER = {"classifier.weight", "classifier.bias"}
FUSION = {
    *(f"cross_attn.{name}" for name in ("in_proj_weight", "in_proj_bias", "out_proj.weight", "out_proj.bias")),
    *(f"{norm}.{kind}" for norm in ("ln_pre_t", "ln_pre_i", "ln_post") for kind in ("weight", "bias")),
    *(f"mlm_head.{layer}.{kind}" for layer in ("dense", "ln", "fc") for kind in ("weight", "bias")),
}
"""The interaction encoder and its head, without the blocks."""

PUBLISHED_LOSSES: dict[str, LossName] = {"sdm": "sdm", "id": "id", "mlm": "mlm", "itc": "itc", "cmpm": "cmpm"}


class IrraImportConfig(TowerOptions):
    """What the tensors of an IRRA checkpoint cannot tell; see `TowerOptions` for the towers.

    Attributes:
        fusion_heads: attention heads of the interaction encoder; None: width / 64, at least 1.
        mask_id: id of the mask token; None: the third from the end, where the published vocabulary has it.
        identities: people of the training set to go on with; a classifier of another size is made anew.
        temperature: of the global losses.
        losses: terms of the method; None: sdm, and id and mlm where the checkpoint has their heads.
        weights: factor of a term; 1 where none is given.
        new_rate, bias_rate: learning-rate factors of new modules and of biases.
    """

    fusion_heads: int | None = None
    mask_id: int | None = None
    identities: int | None = None
    temperature: float = 0.02
    losses: tuple[LossName, ...] | None = None
    weights: dict[LossName, float] = Field(default_factory=dict)
    new_rate: float = 5.0
    bias_rate: float = 2.0


def read_irra(path: Path, config: Mapping[str, Any] | Path | None = None, *, unconfined: bool = False) -> Irra:
    """Read a published IRRA checkpoint.

    Names must be exactly those of the published layout. The classifier, and the interaction encoder with its head, may
    be absent as a whole; that is noted in `method.notices` and logged.

    Args:
        path: the checkpoint.
        config: settings of `IrraImportConfig` as a mapping, as a YAML file, or as the `configs.yaml` that the published
            training script writes. None: the `configs.yaml` beside the checkpoint when there is one.
        unconfined: see `read_tensors`.

    Returns:
        the method in evaluation mode, float32, on the CPU.

    Raises:
        WeightsError: the file cannot be read, or names or shapes are not those of the layout.
        ConfigError: a setting is not allowed.
    """
    beside = path.parent / "configs.yaml"
    if config is None and beside.is_file():
        config = beside
    tree = _read_config(config) if isinstance(config, Path) else dict(config or {})
    options = parse(tree, IrraImportConfig, source=str(config) if isinstance(config, Path) else "config")
    source, tensors = str(path), read_tensors(path, unconfined=unconfined)

    has_classifier = bool(CLASSIFIER & tensors.keys())
    has_fusion = any(name in FUSION or name.startswith(FUSION_BLOCKS) for name in tensors)
    depth = max(1, block_count(tensors, FUSION_BLOCKS))
    expected = tower_names(tensors, TOWERS)
    expected |= CLASSIFIER if has_classifier else set()
    expected |= FUSION | transformer_names(FUSION_BLOCKS, depth) if has_fusion else set()
    check_names(tensors, expected, source=source)

    tower = tower_config(tensors, options, prefix=TOWERS, source=source)
    state = {f"encoder.{k}": v for k, v in convert_towers(tensors, tower, prefix=TOWERS, source=source).items()}
    notices = []
    losses = options.losses or _losses(has_classifier or options.identities is not None, has_fusion)
    stored = len(tensors["classifier.weight"]) if has_classifier else 0
    identities = options.identities or stored
    if "id" in losses and not identities:
        raise ConfigError(f"{source} has no classifier: give identities to train with the id loss")
    keeps_classifier = "id" in losses and identities == stored
    if not has_classifier:
        notices.append("the checkpoint has no identity classifier")
    elif not keeps_classifier:
        notices.append(f"the identity classifier of {stored} people was left out")
    if not has_fusion:
        notices.append("the checkpoint has no interaction encoder")
    elif "mlm" not in losses:
        notices.append("the interaction encoder was left out")

    heads = options.fusion_heads or default_heads(tower.embed_dim)
    if tower.embed_dim % heads:
        raise ConfigError(f"fusion_heads {heads} does not divide {tower.embed_dim}, the width of the joint space")
    settings = IrraConfig(
        losses=losses,
        weights=options.weights,
        temperature=options.temperature,
        depth=depth,
        heads=heads,
        new_rate=options.new_rate,
        bias_rate=options.bias_rate,
    )
    mask_id = tower.vocabulary_size - 3 if options.mask_id is None else options.mask_id
    method = Irra.build(
        settings,
        ClipEncoder.build(tower),
        TrainingFacts(pairs=0, mask_id=mask_id, vocabulary_size=tower.vocabulary_size, identities=identities),
    )
    fresh = method.state_dict()
    for name, tensor in tensors.items():
        if name in CLASSIFIER and keeps_classifier:
            state[name] = tensor.float()
        elif not name.startswith(TOWERS) and name not in CLASSIFIER and "mlm" in losses:
            state[name if name.startswith("mlm_head.") else f"interaction.{name}"] = tensor.float()
    # heads without a source keep their fresh values; a tower without one would be refused by the strict load
    state = {name: tensor for name, tensor in fresh.items() if not name.startswith("encoder.")} | state
    check_shapes(state, fresh, source=source)
    method.load_state_dict(state, strict=True)
    method.notices = tuple(notices)
    for notice in notices:
        log.info("%s: %s", source, notice)
    return method.eval()


def _losses(classifier: bool, fusion: bool) -> tuple[LossName, ...]:
    heads: tuple[tuple[LossName, bool], ...] = (("sdm", True), ("id", classifier), ("mlm", fusion))
    return tuple(name for name, present in heads if present)


class _PublishedLoader(yaml.SafeLoader):
    """Safe YAML that also knows the tuple tag of the published options."""


def _tuple(loader: yaml.SafeLoader, node: yaml.SequenceNode) -> tuple[Any, ...]:
    return tuple(loader.construct_sequence(node))


_PublishedLoader.add_constructor("tag:yaml.org,2002:python/tuple", _tuple)


def _read_config(path: Path) -> dict[str, Any]:
    """Settings from a YAML file: our own keys, or the options of the published training script."""
    try:
        tree = yaml.load(path.read_text(encoding="utf-8"), _PublishedLoader)
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"cannot read {path}: {error}") from None
    except yaml.YAMLError as error:
        raise ConfigError(f"{path} is not plain YAML: {' '.join(str(error).split())}") from None
    if not isinstance(tree, dict):
        raise ConfigError(f"{path}: the top level must be a mapping, not {type(tree).__name__}")
    return _from_published(tree, path) if "img_size" in tree or "loss_names" in tree else tree


def _from_published(options: Mapping[str, Any], path: Path) -> dict[str, Any]:
    """The published script's options under our names; options that the model does not depend on are left out."""
    renamed = {
        "img_size": "image_size",
        "stride_size": "patch_stride",
        "text_length": "max_tokens",
        "temperature": "temperature",
        "lr_factor": "new_rate",
        "bias_lr_factor": "bias_rate",
    }
    tree = {ours: options[theirs] for theirs, ours in renamed.items() if theirs in options}
    weights = {"mlm": options.get("mlm_loss_weight"), "id": options.get("id_loss_weight")}
    tree["weights"] = {name: weight for name, weight in weights.items() if weight is not None}
    if "loss_names" in options:
        names = str(options["loss_names"]).split("+")
        unknown = [name for name in names if name not in PUBLISHED_LOSSES]
        if unknown:
            raise ConfigError(f"{path}: loss_names {unknown} are not among {', '.join(PUBLISHED_LOSSES)}")
        tree["losses"] = [PUBLISHED_LOSSES[name] for name in names]
    return tree
