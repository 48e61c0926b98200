"""CLIP checkpoints of three makes: the same features as the library that made them, and what is refused."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from checkpoint_samples import SAMPLES, clip_tensors
from safetensors.torch import save_file
from torch import Tensor, nn

from tipr.errors import ConfigError, WeightsError
from tipr.importers import read

pytestmark = pytest.mark.usefixtures("foreign_files_read_here")


def features(method: Any, *, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Pooled features of a random image and a random text."""
    encoder = method.encoder
    torch.manual_seed(seed)
    ids = torch.randint(1, encoder.vocabulary_size - 3, (2, 12))
    ids[:, -1] = encoder.vocabulary_size - 1
    pixels = torch.randn(2, 3, *encoder.image_size)
    with torch.inference_mode():
        return encoder.encode_image(pixels).pooled, encoder.encode_text(ids, torch.ones_like(ids).bool()).pooled


def test_an_openai_archive_is_the_state_dict_it_holds(tmp_path: Path) -> None:
    root = nn.Module()
    for name, value in clip_tensors().items():
        *places, leaf = name.split(".")
        module = root
        for place in places:
            if not hasattr(module, place):
                module.add_module(place, nn.Module())
            module = getattr(module, place)
        module.register_parameter(leaf, nn.Parameter(value.float(), requires_grad=False))
    root.register_buffer("input_resolution", torch.tensor(224))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch is giving up TorchScript; OpenAI's files stay
        torch.jit.script(root).save(str(tmp_path / "ViT-B-16.pt"))
    archive = read("openai_clip", tmp_path / "ViT-B-16.pt")
    plain = read("openai_clip", SAMPLES["openai_clip"](tmp_path))
    irra = read("irra", SAMPLES["irra"](tmp_path))
    for one, two, three in zip(features(archive), features(plain), features(irra), strict=True):
        assert torch.equal(one, two)
        assert torch.equal(one, three)
    assert archive.config.temperature == pytest.approx(torch.tensor(-3.0).exp().item())


@pytest.mark.parametrize("activation", ["quick_gelu", "gelu"])
@pytest.mark.parametrize("stored", ["bin", "safetensors", "parts"])
def test_a_hugging_face_folder_gives_the_librarys_features(tmp_path: Path, activation: str, stored: str) -> None:
    from transformers import CLIPConfig, CLIPModel

    file = SAMPLES["huggingface_clip"](tmp_path)
    tree = json.loads((tmp_path / "config.json").read_text())
    for tower in ("text_config", "vision_config"):
        tree[tower]["hidden_act"] = activation
    (tmp_path / "config.json").write_text(json.dumps(tree))
    reference = CLIPModel(CLIPConfig.from_dict(tree)).eval()
    state = torch.load(file, weights_only=True)
    reference.load_state_dict(state)
    if stored != "bin":
        file.unlink()
        state = {name: value.clone() for name, value in state.items()}
    if stored == "safetensors":
        save_file(state, tmp_path / "model.safetensors")
    if stored == "parts":
        names = sorted(state)
        parts = {name: f"model-0000{1 + (place % 2)}-of-00002.safetensors" for place, name in enumerate(names)}
        for part in set(parts.values()):
            save_file({name: state[name] for name in names if parts[name] == part}, tmp_path / part)
        (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": parts}))
    method = read("huggingface_clip", tmp_path, config={"image_size": [64, 64]})
    torch.manual_seed(0)
    ids = torch.randint(1, 297, (2, 12))
    ids[:, -1] = 299
    pixels = torch.randn(2, 3, 64, 64)
    with torch.inference_mode():
        wanted_image = reference.visual_projection(reference.vision_model(pixels).pooler_output)
        wanted_text = reference.text_projection(reference.text_model(ids).pooler_output)
    image, text = features(method)
    torch.testing.assert_close(image, wanted_image, atol=2e-5, rtol=1e-5)
    torch.testing.assert_close(text, wanted_text, atol=2e-5, rtol=1e-5)
    assert method.notices == ()
    assert read("huggingface_clip", tmp_path).encoder.image_size == (384, 128)


def test_open_clip_assumes_gelu_and_says_so(tmp_path: Path) -> None:
    path = SAMPLES["open_clip"](tmp_path)
    method = read("open_clip", path)
    assert method.encoder.config.activation == "gelu"
    assert any("gelu is assumed" in notice for notice in method.notices)
    quick = read("open_clip", path, config={"activation": "quick_gelu"})
    assert quick.notices == ()
    openai = read("openai_clip", SAMPLES["openai_clip"](tmp_path))
    for one, two, other in zip(features(quick), features(openai), features(method), strict=True):
        assert torch.equal(one, two)
        assert not torch.equal(one, other)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("visual.trunk.blocks.0.norm1.weight", "an image tower of the timm library"),
        ("text.transformer.embeddings.word_embeddings.weight", "a text tower of Hugging Face"),
        ("logit_bias", "the sigmoid loss"),
    ],
)
def test_other_towers_are_refused_by_name(tmp_path: Path, name: str, message: str) -> None:
    torch.save({**clip_tensors(), name: torch.zeros(1)}, tmp_path / "other.bin")
    with pytest.raises(WeightsError, match=message):
        read("open_clip", tmp_path / "other.bin")


def test_a_resnet_clip_is_refused_by_name(tmp_path: Path) -> None:
    torch.save({**clip_tensors(), "visual.layer1.0.conv1.weight": torch.zeros(1)}, tmp_path / "RN50.pt")
    with pytest.raises(WeightsError, match="ResNet image tower: use one with a vision transformer"):
        read("openai_clip", tmp_path / "RN50.pt")


def changed(folder: Path, **tree: Any) -> Path:
    SAMPLES["huggingface_clip"](folder)
    content = json.loads((folder / "config.json").read_text())
    for key, value in tree.items():
        section, _, name = key.partition("__")
        if name:
            content[section][name] = value
        else:
            content[section] = value
    (folder / "config.json").write_text(json.dumps(content))
    return folder


@pytest.mark.parametrize(
    ("tree", "message"),
    [
        ({"model_type": "siglip"}, "a model of type 'siglip', not 'clip'"),
        ({"vision_config__patch_size": "16"}, "patch_size is '16', expected a positive whole number"),
        ({"text_config__hidden_act": "relu"}, "activations quick_gelu, relu"),
        ({"text_config__intermediate_size": 100}, "an MLP is 100 wide, not 4 x 64"),
        ({"text_config__hidden_size": 128, "text_config__intermediate_size": 512}, "is .* needs"),
    ],
)
def test_folders_that_do_not_fit(tmp_path: Path, tree: dict[str, Any], message: str) -> None:
    with pytest.raises((WeightsError, ConfigError), match=message) as caught:
        read("huggingface_clip", changed(tmp_path, **tree))
    assert "\n" not in str(caught.value)


def test_a_folder_without_description_or_with_a_part_elsewhere(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"no config\.json in"):
        read("huggingface_clip", tmp_path)
    SAMPLES["huggingface_clip"](tmp_path).unlink()
    with pytest.raises(WeightsError, match="no weights in"):
        read("huggingface_clip", tmp_path)
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": "../a.safetensors"}}))
    with pytest.raises(WeightsError, match="names a part outside its folder"):
        read("huggingface_clip", tmp_path)
