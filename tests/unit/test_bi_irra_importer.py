"""Bi-IRRA's two checkpoint layouts: all real names and shapes, the way back, the word matrices, what is refused."""

from __future__ import annotations

import json
import logging
import runpy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from tipr.encoders.beit_xlmr import BeitXlmrConfig, BeitXlmrEncoder
from tipr.encoders.relative_positions import resize_relative_positions
from tipr.errors import ConfigError, WeightsError
from tipr.importers import read
from tipr.importers.bi_irra import BiIrraImportConfig, convert, released_state
from tipr.methods.base import TrainingFacts
from tipr.methods.bi_irra import BiIrra
from tipr.methods.bi_irra_config import BiIrraConfig

pytestmark = pytest.mark.usefixtures("foreign_files_read_here")
GOLDEN = Path(__file__).parents[1] / "data" / "golden_bi_irra"
LAYOUTS = runpy.run_path(str(GOLDEN / "pretraining_layout.py"))
KEYS: dict[str, Any] = json.loads((GOLDEN / "checkpoint_keys.json").read_text())
TINY = GOLDEN / "tiny_finetuned.pth"
HEADS = {"text_heads": 4}
WORDS = "text_encoder.bert.embeddings.word_embeddings.weight"


def save(state: dict[str, Tensor], folder: Path, holder: str = "model") -> Path:
    torch.save({holder: state}, folder / "file.pth")
    return folder / "file.pth"


def bi_irra(path: Path, format: str = "bi_irra", **config: Any) -> BiIrra:
    method = read(format, path, config=HEADS | config)
    assert isinstance(method, BiIrra)
    return method


def real_names(layout: str) -> dict[str, list[int]]:
    """Name -> shape of every tensor of the real file."""
    rows = [row for row in KEYS["rows"] if row[layout] is not None]
    names = {row[layout]: row["shape"] for row in rows if "(copied)" not in row[layout]}
    if layout == "finetuned":
        return names | KEYS["finetuned_only"]
    return names | {name: [197, 197] for name in KEYS["pretrained_only_dropped"]}


@pytest.mark.parametrize(("layout", "count"), [("finetuned", 590), ("pretrained", 587)])
def test_every_real_name_and_shape_is_read_and_no_other(layout: str, count: int) -> None:
    names = real_names(layout)
    assert len(names) == count
    with torch.device("meta"):
        tensors = {name: torch.empty(shape) for name, shape in names.items()}
        method = convert(tensors, BiIrraImportConfig(), source="real")
        written = {name: list(tensor.shape) for name, tensor in released_state(method).items()}
    assert method.encoder.config == BeitXlmrConfig()  # the published sizes are the default ones
    assert written == real_names("finetuned")
    untouched = [name for name in method.notices if "first value" in name]
    assert bool(untouched) == (layout == "pretrained")
    if untouched:
        assert untouched == [
            "not in the checkpoint, so at its first value: encoder.vision.embeddings.mask_token, mim_head"
        ]
    for gone in ("vision_encoder.blocks.11.gamma_2", "itm_head.3.bias", "text_proj.weight"):
        with pytest.raises(WeightsError, match=f"real: 1 missing key: {gone}"):
            convert(
                {name: tensor for name, tensor in tensors.items() if name != gone}, BiIrraImportConfig(), source="real"
            )


def test_reading_and_writing_gives_the_released_file_back(tmp_path: Path) -> None:
    method = bi_irra(TINY)
    assert method.notices == ()
    assert method.temp.item() == pytest.approx(0.0613)
    written, original = released_state(method), LAYOUTS["released"]()
    assert written.keys() == original.keys()
    assert all(torch.equal(written[name], tensor) for name, tensor in original.items())
    again = bi_irra(save(written, tmp_path, "state_dict"))
    assert all(torch.equal(tensor, again.state_dict()[name]) for name, tensor in method.state_dict().items())


def test_pretraining_weights_start_every_target_language_alike(tmp_path: Path) -> None:
    path = save(LAYOUTS["pretraining"](), tmp_path)
    method = bi_irra(path, "x2vlm", target_languages=["zh", "fr", "de"])
    released = bi_irra(TINY)
    assert method.encoder.languages == ("en", "zh", "fr", "de")
    for projection in method.encoder.target_projections.values():
        assert torch.equal(projection.weight, released.encoder.text_projection.weight)
        assert torch.equal(projection.bias, released.encoder.text_projection.bias)
    state = released.state_dict()
    fresh = {name for name, tensor in method.state_dict().items() if name not in state or not tensor.equal(state[name])}
    assert {
        name.rsplit(".", 1)[0] for name in fresh if "target_projections" not in name and "mim_head" not in name
    } == {"encoder.vision.embeddings"}
    with pytest.raises(ConfigError, match="one target language with a projection, the encoder 3"):
        released_state(method)


def test_a_pretraining_file_without_box_head_or_temperature_is_whole(tmp_path: Path) -> None:
    state = {name: t for name, t in LAYOUTS["pretraining"]().items() if not name.startswith(("bbox_head", "temp"))}
    method = bi_irra(save(state, tmp_path), "x2vlm")
    assert method.temp.item() == pytest.approx(0.07)
    assert "temp" in method.notices[0]


@pytest.mark.parametrize("word_table", ["decoder", "embedding"])
@pytest.mark.parametrize("tie_decoder", [True, False])
def test_two_word_matrices_are_reported_and_chosen_between(
    word_table: str, tie_decoder: bool, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    words = LAYOUTS["released"]()[WORDS]
    decoder = words.clone()
    decoder[5:10] += 0.25
    path = save(LAYOUTS["pretraining"](decoder), tmp_path)
    with caplog.at_level(logging.INFO, logger="tipr"):
        method = bi_irra(path, "x2vlm", word_table=word_table, tie_decoder=tie_decoder)
    notice = method.notices[-1]
    assert notice.startswith(
        "the word table and the text head's matrix differ in 5 of 300 rows, by up to 0.25; taken: "
    )
    assert notice.endswith(f"word_table: {word_table}, tie_decoder: {str(tie_decoder).lower()}")
    assert notice in caplog.text
    assert torch.equal(method.encoder.word_embeddings.weight, decoder if word_table == "decoder" else words)
    if tie_decoder:
        assert method.mlm_head.decoder is None
    else:
        assert torch.equal(method.mlm_head.decoder, decoder)
        with pytest.raises(ConfigError, match="tie_decoder is false"):
            released_state(method)


def test_equal_word_matrices_need_no_remark(tmp_path: Path) -> None:
    method = bi_irra(save(LAYOUTS["pretraining"](), tmp_path), "x2vlm")
    assert not any("word table" in notice for notice in method.notices)


def test_the_extra_segment_of_other_library_versions(tmp_path: Path) -> None:
    plain = LAYOUTS["pretraining"]()
    renamed = {
        name.replace("text_encoder.", "text_encoder.roberta.").replace(
            "cross_encoder.", "cross_encoder.roberta."
        ): tensor
        for name, tensor in plain.items()
    }
    torch.manual_seed(0)
    first = bi_irra(save(plain, tmp_path), "x2vlm").state_dict()
    torch.manual_seed(0)
    second = bi_irra(save(renamed, tmp_path), "x2vlm").state_dict()
    assert all(torch.equal(tensor, second[name]) for name, tensor in first.items())


def test_a_released_file_without_its_heads(tmp_path: Path) -> None:
    # with the text head switched off, the names lose their middle segment
    state = {
        name.replace("text_encoder.bert.", "text_encoder."): tensor
        for name, tensor in LAYOUTS["released"]().items()
        if not name.startswith(("text_encoder.mlm_head", "mim_head"))
    }
    path = save(state, tmp_path, "state_dict")
    method = bi_irra(path)
    assert method.config.losses == ("itc", "itm")
    assert released_state(method).keys() == state.keys()
    whole = bi_irra(path, method={"losses": ["itc", "itm", "mlm", "mim"]})
    assert whole.notices == ("not in the checkpoint, so at its first value: mim_head, mlm_head",)
    for name, tensor in method.state_dict().items():
        assert torch.equal(whole.state_dict()[name], tensor)


def test_heads_that_the_method_does_not_want_are_left_out() -> None:
    method = bi_irra(TINY, method={"losses": ["itc", "itm"]})
    assert method.notices == ("left out of the checkpoint: mim_head, mlm_head",)


def monolingual() -> dict[str, Tensor]:
    """An X-VLM file: one stack for text and fusion, its text head called `cls`, English word pieces."""
    state = {
        name.replace("text_encoder.mlm_head.", "text_encoder.cls."): tensor
        for name, tensor in LAYOUTS["released"]().items()
        if not name.startswith(("tl_text_proj", "mim_head", "vision_encoder.mask_token"))
    }
    return state | {WORDS: torch.zeros(30522, 64)}


@pytest.mark.parametrize("format", ["bi_irra", "x2vlm"])
def test_a_monolingual_file_is_refused_by_name(format: str, tmp_path: Path) -> None:
    state = monolingual()
    headless = {name: tensor for name, tensor in state.items() if not name.startswith("text_encoder.cls.")}
    for content in (state, headless):
        with pytest.raises(WeightsError, match=r"monolingual X-VLM checkpoint \(XVLMBase, English with 30,522 word"):
            read(format, save(content, tmp_path))


def test_each_format_names_the_other_and_knows_no_third(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="has the released layout: read it as 'bi_irra'"):
        bi_irra(TINY, "x2vlm")
    with pytest.raises(WeightsError, match="has the pretraining layout: read it as 'x2vlm'"):
        bi_irra(save(LAYOUTS["pretraining"](), tmp_path))
    with pytest.raises(WeightsError, match="is no Bi-IRRA checkpoint: expected the names"):
        bi_irra(save({"conv.weight": torch.zeros(2)}, tmp_path))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"itm_head.0.weight": torch.zeros(3, 64)}, r"encoder.match_head.0.weight is \(3, 64\), needs \(128, 64\)"),
        ({"vision_encoder.patch_embed.proj.weight": torch.zeros(64, 3)}, "are no such tensors"),
        ({"vision_encoder.blocks.1.attn.qkv.weight": torch.zeros(100, 64)}, r"q_proj.weight is \(34, 64\)"),
        ({"text_encoder.mlm_head.predictions.decoder.bias": torch.ones(300)}, "predictions.decoder.bias differ"),
        ({"text_encoder.mlm_head.predictions.decoder.weight": torch.zeros(9, 64)}, r"is \(9, 64\), needs \(300, 64\)"),
    ],
)
def test_wrong_tensors_are_named_in_one_line(change: dict[str, Tensor], message: str, tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=message) as error:
        bi_irra(save(LAYOUTS["released"]() | change, tmp_path))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"text_heads": 5}, "width 64 is not a multiple of text_heads 5"),
        ({"target_languages": ["zh", "fr"]}, "name that one in target_languages, not zh, fr"),
        ({"target_languages": ["en"]}, "name one twice"),
        ({"image_size": [200, 224]}, "must be multiples of patch 16"),
        ({"word_table": "both"}, "word_table: "),
        ({"method": {"losses": []}}, "at least one term"),
    ],
)
def test_settings_that_do_not_fit_are_refused(config: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message) as error:
        bi_irra(TINY, **config)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("size", [(384, 384), (384, 128), (224, 112)])
def test_position_tables_are_resampled_for_an_image_size_of_another_grid(size: tuple[int, int]) -> None:
    whole, method = bi_irra(TINY).state_dict(), bi_irra(TINY, image_size=list(size))
    grid = size[0] // 16, size[1] // 16
    assert method.notices == (f"relative position tables of 14x14 patches were resampled for {grid[0]}x{grid[1]}",)
    for name, tensor in method.state_dict().items():
        resampled = name.endswith("relative_position_bias_table")
        wanted = resize_relative_positions(whole[name], (14, 14), grid) if resampled else whole[name]
        assert torch.equal(tensor, wanted)
    with torch.no_grad():
        features = method.encoder.eval().encode_image(torch.zeros(1, 3, *size))
    assert features.tokens.shape == (1, 1 + grid[0] * grid[1], method.encoder.width)
    assert torch.isfinite(features.tokens).all()


def test_weights_of_a_grid_that_is_not_square_come_back_with_their_image_size(tmp_path: Path) -> None:
    torch.manual_seed(0)
    config = bi_irra(TINY).encoder.config.model_copy(update={"image_size": (64, 32)})
    facts = TrainingFacts(pairs=0, mask_id=299, vocabulary_size=300, identities=None)
    method = BiIrra.build(BiIrraConfig(), BeitXlmrEncoder.build(config), facts)
    path = save(released_state(method), tmp_path, "state_dict")
    for other in (None, [64, 64]):
        with pytest.raises(ConfigError, match="nor of a square: give the image_size that the weights were trained at"):
            bi_irra(path, image_size=other)
    again = bi_irra(path, image_size=[64, 32]).state_dict()
    assert all(torch.equal(tensor, again[name]) for name, tensor in method.state_dict().items())


def test_settings_come_from_a_yaml_file_too(tmp_path: Path) -> None:
    (tmp_path / "heads.yaml").write_text("text_heads: 4\nfusion_heads: 2\ntarget_languages: [fr]\n")
    method = read("bi_irra", TINY, config=tmp_path / "heads.yaml")
    assert isinstance(method, BiIrra)
    assert (method.encoder.config.text_heads, method.encoder.config.fusion_heads) == (4, 2)
    assert method.encoder.languages == ("en", "fr")
    assert "tl_text_proj.weight" in released_state(method)
