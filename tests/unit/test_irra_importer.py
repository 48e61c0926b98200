"""Published IRRA checkpoints: settings, position tables, absent parts, the script's own options file."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from torch import Tensor

from tipr.data.batch import TrainBatch
from tipr.data.images import Preprocessing
from tipr.encoders.clip import ClipConfig, ClipEncoder, resize_image_positions
from tipr.encoders.clip_tokenizer import ClipTokenizer
from tipr.errors import ConfigError, WeightsError
from tipr.importers import read
from tipr.methods import Irra, StepContext, TrainingFacts
from tipr.methods.irra import IrraConfig
from tipr.retrieval import Retriever

pytestmark = pytest.mark.usefixtures("foreign_files_read_here")
TINY = Path(__file__).parents[1] / "data" / "golden_irra" / "tiny.pth"


@pytest.fixture
def state() -> dict[str, Tensor]:
    loaded: dict[str, Tensor] = torch.load(TINY, weights_only=True)["model"]
    return loaded


def save(state: dict[str, Any], folder: Path, **extra: Any) -> Path:
    path = folder / "best.pth"
    torch.save({"model": state, **extra}, path)
    return path


def irra(path: Path, config: Any = None) -> Irra:
    method = read("irra", path, config=config)
    assert isinstance(method, Irra)
    assert isinstance(method.encoder, ClipEncoder)
    return method


def test_sizes_come_from_the_tensors() -> None:
    method = irra(TINY)
    c = method.encoder.config  # type: ignore[union-attr]
    assert (c.image_size, c.grid, c.patch_size) == ((384, 128), (24, 8), 16)
    assert (c.vision_width, c.vision_layers, c.text_width, c.text_layers) == (64, 2, 64, 2)
    assert (c.embed_dim, c.max_tokens, c.vocabulary_size) == (64, 77, 400)
    assert (c.heads("vision"), c.heads("text"), method.interaction.cross_attn.heads) == (1, 1, 1)
    assert method.mask_id == 397
    assert method.config.depth == 4
    assert method.config.losses == ("sdm", "id", "mlm")
    assert method.config.global_caption == "masked"
    assert method.classifier.out_features == 5
    assert method.notices == ()


def test_published_size_on_the_meta_device() -> None:
    """One step at ViT-B/16 size: shapes fit, sizes are the published ones."""
    with torch.device("meta"):
        method = Irra.build(
            IrraConfig(),
            ClipEncoder.build(ClipConfig()),
            TrainingFacts(pairs=0, mask_id=49405, vocabulary_size=49408, identities=11003),
        )
        ids = torch.zeros(4, 77, dtype=torch.long)
        person = torch.zeros(4, dtype=torch.long)
        batch = TrainBatch(torch.zeros(4, 3, 384, 128), ids, ids == 0, ids, ids, person, person)
        losses = method(batch, StepContext()).losses
    assert all(loss.shape == () for loss in losses.values())
    assert sum(p.numel() for p in method.interaction.parameters()) == 13_663_232  # the paper: 13.66 M
    # 367 published tensors; 24 tower blocks hold query, key and value apart (4 more each)
    assert len(method.state_dict()) == 367 + 24 * 4


def test_every_tensor_of_the_file_arrives(state: dict[str, Tensor]) -> None:
    total = sum(tensor.double().sum() for tensor in state.values())
    ours = sum(parameter.detach().double().sum() for parameter in irra(TINY).parameters())
    assert float(ours) == pytest.approx(float(total), rel=1e-12)
    assert sum(p.numel() for p in irra(TINY).parameters()) == sum(t.numel() for t in state.values())


def test_fused_projections_are_split_and_projections_transposed(state: dict[str, Tensor]) -> None:
    ours = irra(TINY).encoder.state_dict()
    layer = "vision_model.encoder.layers.1.self_attn."
    fused = state["base_model.visual.transformer.resblocks.1.attn.in_proj_weight"]
    assert torch.equal(torch.cat([ours[f"{layer}{x}_proj.weight"] for x in "qkv"]), fused)
    assert torch.equal(ours["visual_projection.weight"], state["base_model.visual.proj"].T)
    assert torch.equal(ours["text_projection.weight"], state["base_model.text_projection"].T)


def test_settings_from_mapping_and_file(tmp_path: Path) -> None:
    settings = {"text_heads": 2, "vision_heads": 4, "fusion_heads": 8, "mask_id": 5}
    (tmp_path / "own.yaml").write_text("text_heads: 2\nvision_heads: 4\nfusion_heads: 8\nmask_id: 5\n")
    for config in (settings, tmp_path / "own.yaml", str(tmp_path / "own.yaml")):
        method = irra(TINY, config)
        c = method.encoder.config  # type: ignore[union-attr]
        assert (c.heads("text"), c.heads("vision")) == (2, 4)
        assert (method.interaction.cross_attn.heads, method.mask_id) == (8, 5)


def test_module_prefix_is_stripped_only_when_every_name_has_it(state: dict[str, Tensor], tmp_path: Path) -> None:
    wrapped = {f"module.{name}": tensor for name, tensor in state.items()}
    expected = irra(TINY).state_dict()
    got = irra(save(wrapped, tmp_path)).state_dict()
    assert all(torch.equal(got[name], tensor) for name, tensor in expected.items())
    wrapped["classifier.bias"] = wrapped.pop("module.classifier.bias")
    with pytest.raises(WeightsError, match="unknown keys: module"):
        irra(save(wrapped, tmp_path))


def test_half_weights_optimiser_state_and_bare_state_dicts_are_accepted(
    state: dict[str, Tensor], tmp_path: Path
) -> None:
    half = {name: tensor.half() for name, tensor in state.items()}
    optimiser = torch.optim.Adam([torch.nn.Parameter(torch.zeros(2))]).state_dict()
    method = irra(save(half, tmp_path, optimizer=optimiser, epoch=3, iteration=0))
    assert method.classifier.weight.dtype == torch.float32
    torch.save(state, tmp_path / "bare.pth")
    assert torch.equal(irra(tmp_path / "bare.pth").classifier.weight, state["classifier.weight"])


def test_square_position_table_is_resized_to_the_image(state: dict[str, Tensor], tmp_path: Path) -> None:
    square = torch.randn(1 + 14 * 14, 64)
    state["base_model.visual.positional_embedding"] = square
    path, key = save(state, tmp_path), "encoder.vision_model.embeddings.position_embedding.weight"
    assert torch.equal(irra(path).state_dict()[key], resize_image_positions(square, (14, 14), (24, 8)))
    small = irra(path, {"image_size": [64, 48]})
    assert torch.equal(small.state_dict()[key], resize_image_positions(square, (14, 14), (4, 3)))
    assert small.encoder.encode_image(torch.zeros(1, 3, 64, 48)).tokens.shape == (1, 13, 64)


def test_a_table_of_193_rows_is_the_24x8_grid() -> None:
    key = "encoder.vision_model.embeddings.position_embedding.weight"
    table = irra(TINY).state_dict()[key]
    other = irra(TINY, {"image_size": (256, 128)}).state_dict()[key]
    assert torch.equal(other, resize_image_positions(table, (24, 8), (16, 8)))


def test_a_grid_that_cannot_be_told_asks_for_the_image_size(state: dict[str, Tensor], tmp_path: Path) -> None:
    state["base_model.visual.positional_embedding"] = torch.randn(1 + 12 * 5, 64)
    with pytest.raises(WeightsError, match=r"61 rows.*give image_size"):
        irra(save(state, tmp_path))
    irra(save(state, tmp_path), {"image_size": (192, 80)})


def test_longer_captions_interpolate_the_text_table(state: dict[str, Tensor]) -> None:
    method = irra(TINY, {"max_tokens": 168})
    table = method.state_dict()["encoder.text_model.embeddings.position_embedding.weight"]
    assert table.shape == (168, 64)
    assert torch.equal(table[[0, -1]], state["base_model.positional_embedding"][[0, -1]])
    assert method.encoder.max_tokens == 168


def test_without_interaction_encoder_or_classifier(
    state: dict[str, Tensor], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    towers = {name: tensor for name, tensor in state.items() if name.startswith("base_model.")}
    with caplog.at_level(logging.INFO, logger="tipr.importers.irra"):
        method = irra(save(towers, tmp_path))
    assert method.config.losses == ("sdm",)
    assert method.notices == (
        "the checkpoint has no identity classifier",
        "the checkpoint has no interaction encoder",
    )
    assert all(notice in caplog.text for notice in method.notices)
    pixels = torch.randn(1, 3, 384, 128)
    torch.testing.assert_close(
        method.encoder.encode_image(pixels).pooled, irra(TINY).encoder.encode_image(pixels).pooled
    )


def test_training_set_of_another_size_gets_a_new_classifier(state: dict[str, Tensor]) -> None:
    method = irra(TINY, {"identities": 11})
    assert method.classifier.out_features == 11
    assert method.notices == ("the identity classifier of 5 people was left out",)
    assert torch.equal(irra(TINY, {"identities": 5}).classifier.weight, state["classifier.weight"])


def test_half_an_interaction_encoder_is_not_accepted(state: dict[str, Tensor], tmp_path: Path) -> None:
    del state["cross_modal_transformer.resblocks.2.mlp.c_fc.bias"]
    del state["ln_pre_t.weight"]
    with pytest.raises(
        WeightsError, match=r"2 missing keys: cross_modal_transformer\.resblocks\.2\.mlp\.c_fc\.bias, ln_pre_t\.weight"
    ):
        irra(save(state, tmp_path))


def test_bare_clip_weights_never_fill_the_interaction_encoder(state: dict[str, Tensor], tmp_path: Path) -> None:
    clip = {name.removeprefix("base_model."): t for name, t in state.items() if name.startswith("base_model.")}
    with pytest.raises(WeightsError, match=r"missing keys: base_model\..* and \d+ more; .* unknown keys"):
        irra(save(clip, tmp_path))


def test_wrong_shapes_are_named(state: dict[str, Tensor], tmp_path: Path) -> None:
    state["mlm_head.dense.bias"] = torch.zeros(3)
    with pytest.raises(WeightsError, match=r"mlm_head\.dense\.bias is \(3,\), needs \(64,\)"):
        irra(save(state, tmp_path))


PUBLISHED_OPTIONS = """\
batch_size: 64
bias_lr_factor: 2.0
cmt_depth: 4
dataset_name: CUHK-PEDES
id_loss_weight: 0.5
img_size: !!python/tuple
- 256
- 128
loss_names: sdm+id
lr_factor: 4.0
mlm_loss_weight: 1.0
stride_size: 16
temperature: 0.05
text_length: 77
vocab_size: 49408
"""


def test_the_published_options_beside_the_checkpoint_are_read(state: dict[str, Tensor], tmp_path: Path) -> None:
    path = save(state, tmp_path)
    (tmp_path / "configs.yaml").write_text(PUBLISHED_OPTIONS)
    method = irra(path)
    assert method.encoder.image_size == (256, 128)
    assert method.config.losses == ("sdm", "id")
    assert method.config.temperature == 0.05
    assert method.config.weights == {"id": 0.5, "mlm": 1.0}
    assert method.config.new_rate == 4.0
    assert method.notices == ("the interaction encoder was left out",)
    # given settings replace the file's
    assert irra(path, {}).encoder.image_size == (384, 128)
    assert irra(path, tmp_path / "configs.yaml").encoder.image_size == (256, 128)


def test_a_clip_encoder_makes_a_model_folder(tmp_path: Path) -> None:
    torch.manual_seed(0)
    encoder = ClipEncoder.build(
        ClipConfig(
            image_size=(32, 16),
            vision_width=32,
            vision_layers=1,
            text_width=32,
            text_layers=1,
            embed_dim=32,
            max_tokens=12,
            vocabulary_size=518,
        )
    ).eval()
    tokenizer = ClipTokenizer([("t", "h"), ("m", "a"), ("r", "e"), ("u", "p")], max_tokens=12)
    assert tokenizer.vocabulary_size == encoder.vocabulary_size
    retriever = Retriever(encoder, tokenizer, Preprocessing(image_size=(32, 16)), {"method": "irra"})
    retriever.save(tmp_path / "model")
    again = Retriever.load(tmp_path / "model")
    image = Image.new("RGB", (20, 40), (200, 30, 30))
    assert (again.encode_text(["the man"]) == retriever.encode_text(["the man"])).all()
    assert (again.encode_images([image]) == retriever.encode_images([image])).all()
    assert again.fingerprint == retriever.fingerprint


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("img_size: !!python/object/apply:os.system ['true']\n", "is not plain YAML"),
        ("loss_names: sdm+xyz\n", r"loss_names \['xyz'\] are not among sdm, id"),
        ("- 1\n", "must be a mapping, not list"),
        ("text_heads: many\n", "text_heads"),
    ],
)
def test_options_files_with_defects(text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "o.yaml").write_text(text)
    with pytest.raises(ConfigError, match=message):
        irra(TINY, tmp_path / "o.yaml")


def test_heads_that_do_not_divide_are_refused() -> None:
    with pytest.raises(ConfigError, match="text_width 64 is not a multiple of text_heads 7"):
        irra(TINY, {"text_heads": 7})
    with pytest.raises(ConfigError, match="fusion_heads 7 does not divide 64"):
        irra(TINY, {"fusion_heads": 7})
