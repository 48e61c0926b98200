"""The encoder against tensors from the original code, and a slow text tower of our own that agrees with both."""

from __future__ import annotations

import runpy
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from tipr.encoders import BeitXlmrEncoder, Encoded
from tipr.importers.bi_irra import BiIrraImportConfig, convert
from tipr.methods.bi_irra import BiIrra

GOLDEN = Path(__file__).parents[1] / "data" / "golden_bi_irra"
LAYOUTS = runpy.run_path(str(GOLDEN / "pretraining_layout.py"))
CLOSE = 5e-5
TEXT_HEADS = 4
"""In no tensor."""


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def stored(name: str) -> dict[str, Tensor]:
    with np.load(GOLDEN / name) as arrays:
        return {key: torch.from_numpy(np.asarray(arrays[key])) for key in arrays}


def method(tensors: dict[str, Tensor], **options: object) -> BiIrra:
    config = BiIrraImportConfig.model_validate({"text_heads": TEXT_HEADS, **options})
    return convert(tensors, config, source="tiny").eval()


class Passes:
    """Everything that the golden file has tensors of, computed once."""

    def __init__(self, model: BiIrra, given: dict[str, Tensor]) -> None:
        encoder, pixels, hidden = model.encoder, given["images"][:2], given["patch_mask"].bool()
        with torch.no_grad():
            self.image, self.masked = encoder.encode_image(pixels), encoder.encode_image(pixels, hidden)
            self.source, self.target = (
                encoder.encode_text(given[f"ids_{side}"][:2], given[f"atts_{side}"][:2].bool()) for side in ("sl", "tl")
            )
            student = self.fuse(encoder, self.masked, self.target)
            self.tensors = {
                "image_embeds": self.image.tokens,
                "image_embeds_masked": self.masked.tokens,
                "text_embeds_sl": self.source.tokens,
                "text_embeds_tl": self.target.tokens,
                "image_feat": model.project_image(self.image.pooled),
                "image_feat_masked": model.project_image(self.masked.pooled),
                "text_feat_sl": model.project_text(self.source.pooled),
                "text_feat_tl": model.project_text(self.target.pooled, target=True),
                "cross_text_query_sl": self.fuse(encoder, self.source, self.image),
                "cross_text_query_tl_masked_image": self.fuse(encoder, self.target, self.masked),
                "cross_image_query_sl": self.fuse(encoder, self.image, self.source),
                "cross_image_query_tl_masked_image": student,
                "mim_head_output": model.mim_head(student),
                "itm_logits_sl": self.pairs(model, self.source, self.image),
                "itm_logits_tl": self.pairs(model, self.target, self.masked),
            }

    @staticmethod
    def fuse(encoder: BeitXlmrEncoder, query: Encoded, keys: Encoded) -> Tensor:
        return encoder.fusion(query.tokens, query.mask, keys.tokens, keys.mask)  # type: ignore[no-any-return]

    @staticmethod
    def pairs(model: BiIrra, text: Encoded, image: Encoded) -> Tensor:
        """Both pairs, then the other image for each text, then the other text for each image."""
        texts, images = torch.tensor([0, 1, 0, 1, 1, 0]), torch.tensor([0, 1, 1, 0, 0, 1])
        return model.match(text.tokens[texts], text.mask[texts], image.tokens[images])


@pytest.fixture(scope="module")
def given() -> dict[str, Tensor]:
    return stored("inputs.npz")


@pytest.fixture(scope="module")
def expected() -> dict[str, Tensor]:
    return stored("outputs.npz")


@pytest.fixture(scope="module", params=["eager", "sdpa"])
def passes(request: pytest.FixtureRequest, given: dict[str, Tensor]) -> Passes:
    return Passes(method(LAYOUTS["released"](), attention=request.param), given)


def test_every_tensor_is_the_original_ones(passes: Passes, expected: dict[str, Tensor]) -> None:
    assert passes.tensors.keys() == expected.keys()
    far = {name: float((passes.tensors[name] - tensor).abs().max()) for name, tensor in expected.items()}
    assert max(far.values()) < CLOSE, far


def test_the_same_weights_under_the_pretraining_names_give_the_same_tensors(
    given: dict[str, Tensor], expected: dict[str, Tensor]
) -> None:
    pretraining = LAYOUTS["pretraining"]()
    pretraining["temp"] = LAYOUTS["released"]()["temp"]
    model = method(pretraining, attention="eager")
    at_random = {"image_embeds_masked", "image_feat_masked", "mim_head_output"}  # the mask token and that head
    at_random |= {"cross_text_query_tl_masked_image", "cross_image_query_tl_masked_image", "itm_logits_tl"}
    at_random |= {"text_feat_tl"}  # a copy of the source's projection instead of its own
    found = Passes(model, given).tensors
    for name in expected.keys() - at_random:
        torch.testing.assert_close(found[name], expected[name], rtol=0, atol=CLOSE)


def test_the_four_shapes_of_a_patch_mask_say_the_same(given: dict[str, Tensor]) -> None:
    encoder = method(LAYOUTS["released"]()).encoder
    hidden = given["patch_mask"].bool()
    with torch.no_grad():
        tokens = [
            encoder.encode_image(given["images"][:2], mask).tokens
            for mask in (hidden, hidden.flatten(), hidden.expand(2, -1, -1), hidden.flatten().expand(2, -1))
        ]
        other = encoder.encode_image(given["images"][:2], torch.stack([hidden, ~hidden])).tokens
    assert all(torch.equal(tokens[0], same) for same in tokens[1:])
    torch.testing.assert_close(other[0], tokens[0][0], rtol=0, atol=1e-5)
    assert float((other[1] - tokens[0][1]).abs().max()) > 0.1
    for wrong in (hidden.int(), hidden[:7], hidden.expand(3, -1, -1)):
        with pytest.raises(ValueError, match="patch_mask must be bool of shape"):
            encoder.encode_image(given["images"][:2], wrong)


def slow_text(state: dict[str, Tensor], words: Tensor, ids: Tensor, mask: Tensor, first_position: int) -> Tensor:
    """The text tower token by token from its equations: the released names, plain products, no library layer.

    Args:
        state: the tiny released checkpoint.
        words: (V, W) word table.
        ids, mask: (L,) of one text.
        first_position: row of the position table for the first token.

    Returns:
        (real tokens, W).
    """
    text, real = "text_encoder.bert.", int(mask.sum())

    def norm(x: Tensor, name: str) -> Tensor:
        centred = x - x.mean(-1, keepdim=True)
        scaled = centred / (centred.square().mean(-1, keepdim=True) + 1e-5).sqrt()
        return scaled * state[f"{name}.weight"] + state[f"{name}.bias"]

    def linear(x: Tensor, name: str) -> Tensor:
        return x @ state[f"{name}.weight"].T + state[f"{name}.bias"]

    positions = state[f"{text}embeddings.position_embeddings.weight"]
    x = words[ids[:real]] + positions[first_position : first_position + real]
    x = norm(x + state[f"{text}embeddings.token_type_embeddings.weight"][0], f"{text}embeddings.LayerNorm")
    for number in range(2):
        layer = f"{text}encoder.layer.{number}."
        query, key, value = (linear(x, f"{layer}attention.self.{part}") for part in ("query", "key", "value"))
        size = x.shape[1] // TEXT_HEADS
        heads = [slice(h * size, (h + 1) * size) for h in range(TEXT_HEADS)]
        mixed = [(query[:, h] @ key[:, h].T / size**0.5).softmax(-1) @ value[:, h] for h in heads]
        attended = linear(torch.cat(mixed, 1), f"{layer}attention.output.dense")
        x = norm(x + attended, f"{layer}attention.output.LayerNorm")
        inner = linear(F.gelu(linear(x, f"{layer}intermediate.dense")), f"{layer}output.dense")
        x = norm(x + inner, f"{layer}output.LayerNorm")
    return x


def test_the_slow_text_tower_is_the_original_one(given: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    state = LAYOUTS["released"]()
    words = state["text_encoder.bert.embeddings.word_embeddings.weight"]
    for side in ("sl", "tl"):
        for row in range(2):
            slow = slow_text(state, words, given[f"ids_{side}"][row], given[f"atts_{side}"][row], 0)
            torch.testing.assert_close(slow, expected[f"text_embeds_{side}"][row, : len(slow)], rtol=0, atol=CLOSE)


@pytest.mark.parametrize(("word_table", "tie_decoder"), [("decoder", True), ("embedding", True), ("embedding", False)])
def test_the_text_of_two_word_matrices_follows_the_one_chosen(
    word_table: str, tie_decoder: bool, given: dict[str, Tensor], expected: dict[str, Tensor]
) -> None:
    state = LAYOUTS["released"]()
    words = state["text_encoder.bert.embeddings.word_embeddings.weight"]
    decoder = words + 0.1 * torch.randn(words.shape, generator=torch.Generator().manual_seed(1))
    model = method(LAYOUTS["pretraining"](decoder), word_table=word_table, tie_decoder=tie_decoder, attention="eager")
    ids, mask = given["ids_sl"][:2], given["atts_sl"][:2]
    with torch.no_grad():
        tokens = model.encoder.encode_text(ids, mask.bool()).tokens
    for row in range(2):
        slow = slow_text(state, decoder if word_table == "decoder" else words, ids[row], mask[row], 0)
        torch.testing.assert_close(tokens[row, : len(slow)], slow, rtol=0, atol=CLOSE)
    apart = float((tokens - expected["text_embeds_sl"])[mask.bool()].abs().max())
    assert (apart > 0.05) == (word_table == "decoder")


def test_the_other_position_rule_starts_two_rows_further(given: dict[str, Tensor]) -> None:
    state = LAYOUTS["released"]()
    words = state["text_encoder.bert.embeddings.word_embeddings.weight"]
    encoder = method(state, position_offset=2, attention="eager").encoder
    ids, mask = given["ids_sl"][:2], given["atts_sl"][:2]
    with torch.no_grad():
        tokens = encoder.encode_text(ids, mask.bool()).tokens
    for row in range(2):
        slow = slow_text(state, words, ids[row], mask[row], 2)
        torch.testing.assert_close(tokens[row, : len(slow)], slow, rtol=0, atol=CLOSE)
        assert float((slow - slow_text(state, words, ids[row], mask[row], 0)).abs().max()) > 0.1


def test_every_position_is_trained_and_padding_is_not_a_word(given: dict[str, Tensor]) -> None:
    encoder = method(LAYOUTS["released"]()).encoder
    encoder.encode_text(given["ids_sl"][:2], given["atts_sl"][:2].bool()).pooled.sum().backward()
    positions = encoder.text.embeddings.position_embeddings.weight.grad
    assert positions is not None
    assert float(positions[1].abs().max()) > 0  # the row at the padding id, which the library would freeze
    assert encoder.word_embeddings.padding_idx == 1
