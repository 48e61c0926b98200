"""Which patches the words of a caption go with."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from matching_model import matching_retriever
from PIL import Image

from tipr.encoders.cross_encoder import FusionEncoder
from tipr.encoders.tokenizers import SubwordTokenizer
from tipr.errors import ConfigError
from tipr.retrieval import Retriever
from tipr.retrieval.word_maps import word_maps, word_spans


@pytest.fixture(scope="module")
def demo() -> Retriever:
    return Retriever.load("demo")


@pytest.fixture(scope="module")
def people(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A few rendered people."""
    from tipr.data.synthetic.benchmark import build
    from tipr.data.synthetic.presets import Knobs

    folder = tmp_path_factory.mktemp("people")
    build(folder, Knobs(preset="tiny", identities=(0, 0, 10), images=1, languages=("en",)), workers=1)
    return folder


@pytest.mark.parametrize(
    ("caption", "words"),
    [
        ("A man, in a T-shirt.", ["A", "man", "in", "a", "T-shirt"]),
        ("d’un sac à dos l'homme", ["d’un", "sac", "à", "dos", "l'homme"]),
        ("他穿着红色的毛衣和黑色的裤子，背包。", ["他穿着", "红色的", "毛衣", "和黑色的", "裤子", "背包"]),
        ("一位女子身穿一件红色西装外套。", ["一位", "女子身穿一件", "红色西装外套"]),
        ("... !", []),
    ],
)
def test_words_of_a_caption(caption: str, words: list[str]) -> None:
    assert [caption[start:stop] for start, stop in word_spans(caption)] == words


def test_shoes_are_below(demo: Retriever, people: Path) -> None:
    from tipr.data.datasets import DATASETS

    split = DATASETS["synthetic"].load(people, "test", ("en",))
    shoes = []
    for sample in split.samples:
        for found in word_maps(demo, sample.caption, sample.image_path, language="en", attention=False):
            assert found.weights.max() == 1
            assert found.weights.min() >= 0
            assert found.effect > 0
            if sample.caption[found.start : found.stop] in ("shoes", "boots", "sneakers"):
                lower = found.weights[len(found.weights) * 2 // 3 :].sum()
                shoes.append(lower / found.weights.sum())
    assert len(shoes) >= 3
    assert np.mean(shoes) > 0.55


def test_what_words_add_is_what_leaving_them_out_takes(demo: Retriever, tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    Image.new("RGB", (32, 96), (200, 30, 30)).save(path)
    caption = "a red jacket"
    whole, without = demo.encode_text([caption, "a jacket"], language="en") @ demo.encode_images([path])[0]
    found = {
        caption[each.start : each.stop]: each for each in word_maps(demo, caption, path, language="en", attention=False)
    }
    assert found["red"].effect == pytest.approx(float(whole - without), abs=1e-5)
    assert word_maps(demo, "", path, language="en", attention=False) == []


def test_attention_is_that_of_the_layers() -> None:
    torch.manual_seed(0)
    fusion = FusionEncoder(16, 2, 4, 32, hidden_dropout=0.0, attention_dropout=0.0, attention="eager").eval()
    for parameter in fusion.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    query, keys = torch.randn(3, 5, 16), torch.randn(3, 7, 16)
    mask = torch.tensor([[True] * 5, [True] * 3 + [False] * 2, [True] + [False] * 4])
    seen = []
    for layer in fusion.layers:
        layer.crossattention.self.register_forward_hook(lambda module, given, result: seen.append(result[1]))
    with torch.inference_mode():
        fusion(query, mask, keys, None)
        expected = torch.stack([weights.mean(1) for weights in seen]).mean(0)
        seen.clear()
        assert torch.allclose(fusion.attention(query, mask, keys), expected, atol=1e-6)


def test_attention_of_a_word_is_that_of_its_tokens(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Token t looks at patch t alone, so a word's map shows which tokens were taken for it."""
    path = tmp_path / "a.png"
    Image.new("RGB", (16, 32), (200, 30, 30)).save(path)
    model = matching_retriever(image_size=(64, 32))  # 32 patches, more than tokens
    caption = "a woman, in a red coat and a hat of straw"

    def looks(text: torch.Tensor, mask: torch.Tensor, image: torch.Tensor) -> torch.Tensor:
        assert image.shape[1] == 1 + 32
        return torch.eye(33)[None, 1 : 1 + text.shape[1]]

    seen = model.encode_images([path])[0]
    every_word_counts = np.stack([seen] + [0 * seen] * len(word_spans(caption)))
    monkeypatch.setattr(model, "encode_text", lambda captions, language: every_word_counts)
    monkeypatch.setattr(model.encoder, "attention", looks)
    ids = model.tokenizer.pieces([caption])[0]
    assert isinstance(model.tokenizer, SubwordTokenizer)
    ends = [len(model.tokenizer.decode(ids[: count + 1])) for count in range(len(ids))]
    for place in reversed(range(1, len(ids) - 1)):
        if ends[place] == ends[place - 1]:  # a blank, which leads to the next word
            ends[place] = ends[place + 1]
    found = word_maps(model, caption, path, language="en", attention=True, count=99)
    assert 5 <= len(found) < len(word_spans(caption)), "the last words are beyond the longest text"
    for word in found:
        # the decoded caption has no blank at its start; a token belongs to the word that it ends in
        own = {token + 1 for token, end in enumerate(ends) if word.start < end <= word.stop}
        shown = set(np.flatnonzero(word.weights.ravel()).tolist())
        assert shown == {token for token in own if token <= model.tokenizer.max_tokens - 2}


def test_a_model_without_fusion_layers_has_no_attention(demo: Retriever, tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    Image.new("RGB", (32, 96), (200, 30, 30)).save(path)
    with pytest.raises(ConfigError, match="no fusion layers"):
        word_maps(demo, "a red jacket", path, language="en", attention=True)
