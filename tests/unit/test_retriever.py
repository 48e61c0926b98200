"""Model folder and `Retriever`: strict loading, atomic saving, unit rows. The encoder here is a tiny stand-in."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

import tipr.encoders
import tipr.retrieval.model_folder as home
from tipr.config import Section
from tipr.data.images import CLIP_MEAN, CLIP_STD, Preprocessing
from tipr.encoders.base import Encoded, Encoder
from tipr.encoders.tokenizers import SubwordTokenizer
from tipr.errors import ConfigError, WeightsError
from tipr.retrieval import Retriever

CAPTIONS = ["a red coat", "", "une veste bleue", "一个穿黑色外套的男人", "ein grüner Rucksack"]


class TinyEncoder(Encoder):
    name = "tiny"

    class Config(Section):
        name: Literal["tiny"] = "tiny"
        width: int = 6

    config: Config  # type: ignore[assignment]
    built: ClassVar[int] = 0

    def __init__(self, settings: Config) -> None:
        super().__init__()
        self._settings = settings
        self.embed_dim, self.image_size, self.max_tokens, self.vocabulary_size = settings.width, (8, 4), 16, 300
        self.image = nn.Linear(3, settings.width)
        self.words = nn.Embedding(300, settings.width)
        self.register_buffer("steps", torch.zeros((), dtype=torch.int64))

    @property
    def config(self) -> Config:  # type: ignore[no-redef]
        return self._settings

    @classmethod
    def build(cls, settings: Config) -> TinyEncoder:
        return cls(settings)

    def encode_image(self, pixels: Tensor) -> Encoded:
        tokens = self.image(pixels.flatten(2).transpose(1, 2))
        return Encoded(tokens, tokens.mean(1), torch.ones(tokens.shape[:2], dtype=torch.bool))

    def encode_text(self, ids: Tensor, mask: Tensor) -> Encoded:
        tokens = self.words(ids)
        weight = mask.unsqueeze(-1).float()
        return Encoded(tokens, (tokens * weight).sum(1) / weight.sum(1), mask)


@pytest.fixture
def retriever(monkeypatch: pytest.MonkeyPatch) -> Retriever:
    monkeypatch.setattr(tipr.encoders, "ENCODERS", {"tiny": TinyEncoder}, raising=False)
    torch.manual_seed(3)
    tokenizer = SubwordTokenizer.train(CAPTIONS, vocabulary_size=300, max_tokens=16)
    preprocessing = Preprocessing(image_size=(8, 4), mean=CLIP_MEAN, std=CLIP_STD)
    return Retriever(TinyEncoder(TinyEncoder.Config()), tokenizer, preprocessing, {"made": "in a test"})


@pytest.fixture
def folder(retriever: Retriever, tmp_path: Path) -> Path:
    retriever.save(tmp_path / "model")
    return tmp_path / "model"


def test_a_saved_model_loads_as_it_was(retriever: Retriever, folder: Path) -> None:
    loaded = Retriever.load(folder)
    assert loaded.fingerprint == retriever.fingerprint
    assert re.fullmatch("[0-9a-f]{64}", loaded.fingerprint)
    assert loaded.card == {"made": "in a test"}
    assert loaded.source == str(folder)
    np.testing.assert_array_equal(loaded.encode_text(CAPTIONS), retriever.encode_text(CAPTIONS))
    assert sorted(path.name for path in folder.iterdir()) == ["model.json", "model.safetensors", "tokenizer.json"]
    assert all(path.stat().st_mode & 0o444 == 0o444 for path in folder.iterdir())  # others may use it


def test_half_weights_are_float32_after_loading(retriever: Retriever, tmp_path: Path) -> None:
    retriever.save(tmp_path / "full")
    retriever.save(tmp_path / "half", half=True)
    loaded = Retriever.load(tmp_path / "half")
    assert all(p.dtype == torch.float32 for p in loaded.encoder.parameters())
    assert loaded.encoder.state_dict()["steps"].dtype == torch.int64
    assert (tmp_path / "half/model.safetensors").stat().st_size < (tmp_path / "full/model.safetensors").stat().st_size
    cosine = (loaded.encode_text(CAPTIONS) * retriever.encode_text(CAPTIONS)).sum(1)
    assert cosine.min() > 0.9999
    assert loaded.fingerprint != retriever.fingerprint
    assert loaded.fingerprint == Retriever.load(tmp_path / "half").fingerprint


def test_rows_are_unit_float32_and_do_not_depend_on_the_batch(retriever: Retriever, tmp_path: Path) -> None:
    image = Image.effect_noise((20, 40), 90).convert("RGB")
    image.save(tmp_path / "a.png")
    calls: list[tuple[int, int]] = []
    pictures: list[Any] = [tmp_path / "a.png", image, Image.new("RGB", (5, 9), "red")]
    images = retriever.encode_images(pictures, batch_size=2, progress=lambda done, total: calls.append((done, total)))
    assert calls == [(2, 3), (3, 3)]
    np.testing.assert_allclose(images[0], images[1], atol=1e-6)
    texts = retriever.encode_text(CAPTIONS, batch_size=2)
    for rows, count in ((images, 3), (texts, 5)):
        assert rows.shape == (count, 6)
        assert rows.dtype == np.float32
        np.testing.assert_allclose(np.linalg.norm(rows, axis=1), 1, atol=1e-6)
    for position, caption in enumerate(CAPTIONS):
        np.testing.assert_allclose(texts[position], retriever.encode_text([caption])[0], atol=1e-6)
    assert retriever.encode_text([]).shape == (0, 6)


def test_the_fingerprint_follows_what_changes_vectors(retriever: Retriever) -> None:
    before = retriever.fingerprint
    assert Retriever(retriever.encoder, retriever.tokenizer, retriever.preprocessing, {}).fingerprint == before
    other = Preprocessing(image_size=(8, 5), mean=CLIP_MEAN, std=CLIP_STD)
    assert Retriever(retriever.encoder, retriever.tokenizer, other).fingerprint != before
    with torch.no_grad():
        retriever.encoder.image.bias[0] += 1e-3  # type: ignore[union-attr,index,operator]
    assert Retriever(retriever.encoder, retriever.tokenizer, retriever.preprocessing).fingerprint != before


def test_a_run_folder_gives_its_best(retriever: Retriever, tmp_path: Path) -> None:
    retriever.save(tmp_path / "run" / "best")
    assert Retriever.load(tmp_path / "run").fingerprint == retriever.fingerprint


def test_saving_replaces_a_model_and_leaves_no_draft(retriever: Retriever, folder: Path) -> None:
    retriever.card = {"made": "again"}
    retriever.save(folder)
    assert Retriever.load(folder).card == {"made": "again"}
    assert [path.name for path in folder.parent.iterdir()] == ["model"]


def test_saving_works_where_folders_cannot_be_exchanged(
    retriever: Retriever, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(home, "_exchange", lambda one, two: False)
    retriever.card = {"made": "again"}
    retriever.save(folder)
    assert Retriever.load(folder).card == {"made": "again"}
    assert [path.name for path in folder.parent.iterdir()] == ["model"]


def test_a_failed_save_keeps_the_old_model(retriever: Retriever, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(folder: Path) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(retriever.tokenizer, "save", full)
    retriever.card = {"made": "never"}
    with pytest.raises(OSError, match="No space left"):
        retriever.save(folder)
    assert Retriever.load(folder).card == {"made": "in a test"}
    assert [path.name for path in folder.parent.iterdir()] == ["model"]


def test_saving_never_replaces_something_else(retriever: Retriever, tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "a.jpg").write_bytes(b"x")
    with pytest.raises(WeightsError, match="not a model folder"):
        retriever.save(tmp_path / "photos")
    assert (tmp_path / "photos" / "a.jpg").read_bytes() == b"x"


def _edit(folder: Path, **changes: Any) -> None:
    description = json.loads((folder / "model.json").read_text())
    (folder / "model.json").write_text(json.dumps({**description, **changes}))


def _rename_weight(folder: Path) -> None:
    from safetensors.torch import load_file, save_file

    tensors = load_file(folder / "model.safetensors")
    tensors["strange"] = tensors.pop("image.bias")
    save_file(tensors, folder / "model.safetensors")


def _not_finite(folder: Path) -> None:
    from safetensors.torch import load_file, save_file

    tensors = load_file(folder / "model.safetensors")
    tensors["image.bias"][2] = float("nan")
    save_file(tensors, folder / "model.safetensors")


def _cut(name: str, size: int) -> Callable[[Path], None]:
    return lambda folder: (folder / name).write_bytes((folder / name).read_bytes()[:size]) and None


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda f: (f / "model.json").unlink(), "not a model folder"),
        (lambda f: (f / "model.safetensors").unlink(), "is missing"),
        (lambda f: (f / "tokenizer.json").unlink(), "tokenizer.json"),
        (_cut("model.json", 40), "damaged"),
        (_cut("model.safetensors", 0), "damaged"),
        (_cut("model.safetensors", 30), "damaged"),
        (_cut("model.safetensors", 900), "damaged"),
        (_cut("tokenizer.json", 50), "tokenizer.json"),
        (lambda f: (f / "model.json").write_text("[" * 100_000), "damaged"),
        (lambda f: (f / "model.json").write_text("[]"), "does not describe"),
        (lambda f: (f / "model.json").write_text('{"model_type": "clip"}'), "does not describe"),
        (lambda f: (f / "model.json").write_bytes(b"\xff\xfe"), "damaged"),
        (lambda f: _edit(f, format=2), "format 2"),
        (lambda f: _edit(f, encoder={"name": "beit"}), "unknown encoder 'beit'; .* tiny"),
        (lambda f: _edit(f, encoder={"name": "tiny", "depth": 3}), "depth: unknown key"),
        (lambda f: _edit(f, encoder={"name": "tiny", "width": 7}), "of another shape: "),
        (lambda f: _edit(f, tokenizer={"kind": "clip"}), "tokenizer"),
        (lambda f: _edit(f, tokenizer=None), "no tokenizer"),
        (lambda f: _edit(f, preprocessing={}), "."),
        (lambda f: _edit(f, card=3), "card"),
        (_rename_weight, "missing: image.bias; unknown: strange"),
        (_not_finite, "image.bias is not finite"),
    ],
)
def test_a_damaged_or_foreign_folder_is_refused_in_one_line(
    folder: Path, damage: Callable[[Path], None], message: str
) -> None:
    damage(folder)
    with pytest.raises(WeightsError, match=message) as caught:
        Retriever.load(folder)
    assert "\n" not in str(caught.value)


def test_what_is_not_there_is_refused_in_one_line(
    retriever: Retriever, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(WeightsError, match=r"no model at .*nowhere"):
        Retriever.load(tmp_path / "nowhere")
    (tmp_path / "irra.pth").write_bytes(b"PK\x03\x04")
    with pytest.raises(WeightsError, match="not a model folder"):
        Retriever.load(tmp_path / "irra.pth")
    monkeypatch.setattr(home, "DEMO", tmp_path / "demo")
    with pytest.raises(WeightsError, match="no demo model"):
        Retriever.load("demo")
    retriever.save(tmp_path / "demo")
    assert Retriever.load("demo").source == "demo"


@pytest.mark.parametrize("device", ["gpu", "cuda:99", ""])
def test_an_absent_device_is_refused(folder: Path, device: str) -> None:
    with pytest.raises(ConfigError, match="device"):
        Retriever.load(folder, device=device)
