"""Encoding in parts: the gradients of the whole batch, the memory of a part, the same random state twice."""

from __future__ import annotations

import copy
import json
import runpy
from pathlib import Path

import pytest
import torch
from small_encoders import make_encoder
from test_methods import encoders_of, make, make_batch

from tipr import config as configuration
from tipr.losses import itc_loss
from tipr.methods import METHODS, Method, StepContext
from tipr.retrieval import Retriever
from tipr.training import RunConfig, train
from tipr.training.parts import encode_in_parts

PEOPLE = runpy.run_path(str(Path(__file__).parents[1] / "data" / "training" / "coloured_people.py"))
PAIRS = [(name, encoder) for name in METHODS for encoder in encoders_of(name)]


def still(method: Method) -> Method:
    """Without dropout, whose draws depend on how many rows come at once."""
    for module in method.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    for layer in method.modules():
        if hasattr(layer, "drop_path") and isinstance(layer.drop_path, torch.nn.Module):
            layer.drop_path = torch.nn.Identity()
    return method


def gradients(method: Method, rows: int | None) -> dict[str, torch.Tensor]:
    method = copy.deepcopy(method).train()
    if rows is not None:
        encode_in_parts(method.encoder, rows)
    batch = make_batch(method, rows=7)
    if hasattr(method, "image_bank"):
        rows_of = torch.arange(len(method.image_bank.read()))
        for bank in (method.image_bank, method.text_bank):
            torch.manual_seed(3)
            bank.fill(rows_of, torch.randn(len(rows_of), method.encoder.embed_dim))
    torch.manual_seed(5)
    losses = method(batch, StepContext()).losses
    sum(losses.values()).backward()
    return {name: p.grad for name, p in method.named_parameters() if p.grad is not None}


@pytest.mark.parametrize(("name", "encoder_name"), PAIRS)
def test_gradients_are_those_of_the_whole_batch(name: str, encoder_name: str) -> None:
    method = still(make(name, encoder_name))
    whole = gradients(method, None)
    for rows in (1, 3):
        parts = gradients(method, rows)
        assert parts.keys() == whole.keys()
        norm = torch.cat([value.flatten() for value in whole.values()]).norm()
        for key, value in whole.items():
            assert (parts[key] - value).norm() <= 1e-5 * max(value.norm(), 1e-3 * norm), key


def test_what_is_drawn_in_a_part_is_drawn_again_for_its_gradient() -> None:
    """Contrast under dropout: the parts' own draws, replayed, as if each part had been kept."""
    encoder = make_encoder("beit_xlmr").train()
    g = torch.Generator().manual_seed(0)
    pixels, ids = torch.randn(6, 3, 32, 16, generator=g), torch.randint(4, 50, (6, 10), generator=g)
    mask = torch.ones_like(ids, dtype=torch.bool)

    def step(kept: bool) -> list[torch.Tensor]:
        model = copy.deepcopy(encoder)
        torch.manual_seed(9)
        if kept:
            image = torch.cat([model.encode_image(part).pooled for part in pixels.split(2)])
            text = torch.cat(
                [model.encode_text(*part).pooled for part in zip(ids.split(2), mask.split(2), strict=True)]
            )
        else:
            encode_in_parts(model, 2)
            image, text = model.encode_image(pixels).pooled, model.encode_text(ids, mask).pooled
        itc_loss(model.project_image(image), model.project_text(text), temperature=0.1).backward()
        return [p.grad for p in model.parameters() if p.grad is not None]

    for one, two in zip(step(kept=True), step(kept=False), strict=True):
        torch.testing.assert_close(one, two, atol=1e-7, rtol=1e-5)


def kept_bytes(rows: int | None) -> int:
    """Most bytes that wait for the backward pass at the end of the forward pass."""
    encoder = make_encoder("compact").train()
    if rows is not None:
        encode_in_parts(encoder, rows)
    total = 0

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        nonlocal total
        total += tensor.numel() * tensor.element_size()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        encoder.encode_image(torch.randn(32, 3, 32, 16))
    return total


def test_little_waits_for_the_backward_pass() -> None:
    assert kept_bytes(2) < 0.2 * kept_bytes(None)


def test_a_mask_of_the_whole_batch_is_not_cut() -> None:
    encoder = make_encoder("beit_xlmr").train()
    for module in encoder.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    rows, columns = encoder.grid
    pixels = torch.randn(rows * columns, 3, 32, 16)  # as many images as cells: only the form of the mask tells
    shared = torch.arange(rows * columns) % 3 == 0
    each = torch.rand(len(pixels), rows * columns) < 0.5
    wanted = [encoder.encode_image(pixels, mask).pooled for mask in (shared, shared.view(rows, columns), each)]
    encode_in_parts(encoder, 3)
    for mask, value in zip((shared, shared.view(rows, columns), each), wanted, strict=True):
        torch.testing.assert_close(encoder.encode_image(pixels, mask).pooled, value, atol=1e-5, rtol=1e-4)


def test_a_run_with_micro_batches_learns_the_same(tmp_path: Path) -> None:
    data = PEOPLE["make_data"](tmp_path / "data")
    models = []
    for name, change in (("whole", []), ("parts", ["data.micro_batch=3"])):
        path = PEOPLE["make_config"](tmp_path / f"{name}.yaml", data, epochs=1)
        # not Adam: it makes steps of one size out of gradients that are nothing but rounding
        out = [f"out={json.dumps(str(tmp_path / name))}", "optimizer.name=sgd"]
        before = torch.get_num_threads()
        train(configuration.load(path, RunConfig, overrides=[*out, *change]))
        torch.set_num_threads(before)
        models.append(Retriever.load(tmp_path / name).encoder.state_dict())
    for name, value in models[0].items():
        torch.testing.assert_close(models[1][name], value, atol=1e-4, rtol=1e-3)
