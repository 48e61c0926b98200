"""Dual-granularity identity association against a worked example that was computed three times over in float64.

Every intermediate is read off what our functions return, and every loss and gradient compared. The other readings of
the paper are compared with their own values, so that a change of reading cannot hide in the tolerance.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from tipr.losses import (
    GlobalReading,
    GlobalRelation,
    global_relation,
    global_relation_loss,
    itc_loss,
    local_links,
    local_relation_target,
    relation_loss,
)
from tipr.losses.inputs import cosine
from tipr.methods.memory_bank import MemoryBank

EXAMPLE = json.loads((Path(__file__).parents[1] / "data" / "dual_granularity_example.json").read_text())
LOCAL, GLOBAL, RUNS = (EXAMPLE["expected"][name] for name in ("local", "global", "runs"))
TEMPERATURES = (0.02, 0.1)
CLOSE = 1e-6
CLOSE_GRADIENT = 1e-5
EPS = 1e-8

temperatures = pytest.mark.parametrize("temperature", TEMPERATURES)


def numbers(table: Any) -> Tensor:
    """A stored table in float64; it spells minus infinity as text."""
    return torch.tensor([[float(x) for x in row] for row in table], dtype=torch.float64)


IMAGE, TEXT, IMAGE_BANK, TEXT_BANK, IMAGE_PERTURBED, TEXT_PERTURBED = (
    numbers(EXAMPLE["inputs"][name]) for name in ("f_v", "f_t", "bank_v", "bank_t", "f_v_aug", "f_t_aug")
)
ROWS = torch.tensor(EXAMPLE["inputs"]["dataset_index"])
K = EXAMPLE["config"]["top_k"]


def close(ours: Tensor, stored: Any) -> None:
    torch.testing.assert_close(ours, numbers(stored), rtol=0, atol=CLOSE)


def run(temperature: float) -> dict[str, Any]:
    return RUNS[f"tau_{temperature}"]


def mine(**options: Any) -> GlobalRelation:
    return global_relation(IMAGE, IMAGE_BANK, ROWS, k=K, **options)


def loss_of(relation: GlobalRelation, temperature: float) -> float:
    return float(global_relation_loss(IMAGE, TEXT, IMAGE_BANK, TEXT_BANK, relation, temperature=temperature))


def scores_behind(target: Tensor) -> Tensor:
    """Q of a target = softmax(Q) whose own column scored 1."""
    return (target / target.diagonal()[:, None]).log() + 1


def prediction_inside(query: Tensor, keys: Tensor, temperature: float) -> Tensor:
    """p of the loss itself: a target that puts eps on every key but j costs p_j times a known constant less at j."""
    rows = []
    for one in query.split(1):
        nothing = relation_loss(one, keys, torch.zeros(1, len(keys)), temperature=temperature, eps=EPS)
        at = [
            relation_loss(one, keys, e[None], temperature=temperature, eps=EPS) for e in torch.eye(len(keys)).double()
        ]
        rows.append(torch.stack([(nothing - x) / (math.log(1 + EPS) - math.log(EPS)) for x in at]))
    return torch.stack(rows)


def test_local_relation() -> None:
    close(cosine(IMAGE, IMAGE), LOCAL["M_v"])
    close(cosine(TEXT, TEXT), LOCAL["M_t"])
    close(local_links(IMAGE).double(), LOCAL["Mb_v"])
    close(local_links(TEXT).double(), LOCAL["Mb_t"])
    target = local_relation_target(IMAGE, TEXT)
    close((target > 0).double(), LOCAL["M_vt"])
    close(scores_behind(target), LOCAL["Q_eq6"])
    close(scores_behind(target).clamp(min=0), LOCAL["Q_eq5"])
    close(target, LOCAL["q"])


def test_global_relation() -> None:
    relation = mine()
    close(cosine(IMAGE, IMAGE_BANK), GLOBAL["M_m"])
    assert [sorted(row[row >= 0].tolist()) for row in relation.mined] == GLOBAL["J"]
    assert relation.columns.tolist() == GLOBAL["union"]
    assert torch.cat([ROWS, relation.columns]).tolist() == GLOBAL["columns"]
    assert [row.nonzero().flatten().tolist() for row in relation.members] == GLOBAL["J_prime"]
    images, texts = relation.keys(IMAGE, IMAGE_BANK), relation.keys(TEXT, TEXT_BANK)
    close(cosine(IMAGE, images), GLOBAL["sim_anchor"])
    close(torch.where(relation.members, 1.0, -torch.inf).double(), GLOBAL["Q_eq13"])
    close(scores_behind(relation.target), GLOBAL["Q_eq14"])
    close(relation.target, GLOBAL["q"])
    close(cosine(TEXT, images), GLOBAL["S_prime_t"])
    close(cosine(IMAGE, texts), GLOBAL["S_prime_v"])


@temperatures
def test_every_loss(temperature: float) -> None:
    stored = run(temperature)

    def same(ours: Tensor, name: str) -> Tensor:
        assert float(ours) == pytest.approx(stored[name], abs=CLOSE), name
        return ours

    logits = cosine(TEXT, IMAGE) / temperature
    same(-logits.log_softmax(1).diagonal().mean(), "L_t2v")
    same(-logits.T.log_softmax(1).diagonal().mean(), "L_v2t")
    total = same(itc_loss(IMAGE, TEXT, temperature=temperature, reduction="sum"), "L_itc")

    target = local_relation_target(IMAGE, TEXT)
    close(prediction_inside(IMAGE, TEXT, temperature), stored["p_v"])
    close(prediction_inside(TEXT, IMAGE, temperature), stored["p_t"])
    image_to_text = same(relation_loss(IMAGE, TEXT, target, temperature=temperature), "L_rc_b_v")
    text_to_image = same(relation_loss(TEXT, IMAGE, target, temperature=temperature), "L_rc_b_t")
    total = total + same(image_to_text + text_to_image, "L_rc_b")
    transposed = relation_loss(TEXT, IMAGE, target.T, temperature=temperature)
    same(transposed, "L_rc_b_t_if_target_is_transposed_by_mistake")

    relation = mine()
    images, texts = relation.keys(IMAGE, IMAGE_BANK), relation.keys(TEXT, TEXT_BANK)
    close(prediction_inside(TEXT, images, temperature), stored["p_prime_t"])
    close(prediction_inside(IMAGE, texts, temperature), stored["p_prime_v"])
    same(relation_loss(TEXT, images, relation.target, temperature=temperature), "L_rc_g_t")
    same(relation_loss(IMAGE, texts, relation.target, temperature=temperature), "L_rc_g_v")
    both = global_relation_loss(IMAGE, TEXT, IMAGE_BANK, TEXT_BANK, relation, temperature=temperature)
    total = total + same(both, "L_rc_g")

    perturbed = IMAGE_PERTURBED, TEXT_PERTURBED
    image_to_text = same(relation_loss(*perturbed, target, temperature=temperature), "L_rc_h_v")
    text_to_image = same(relation_loss(*perturbed[::-1], target, temperature=temperature), "L_rc_h_t")
    total = total + same(image_to_text + text_to_image, "L_rc_h")
    recomputed = local_relation_target(*perturbed)
    both = sum(relation_loss(*pair, recomputed, temperature=temperature) for pair in (perturbed, perturbed[::-1]))
    same(both, "L_rc_h_if_target_recomputed_from_augmented")
    same(total, "L_total")


@temperatures
def test_gradients(temperature: float) -> None:
    target, relation = local_relation_target(IMAGE, TEXT), mine()
    losses: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
        "L_rc_b": lambda v, t: (
            relation_loss(v, t, target, temperature=temperature) + relation_loss(t, v, target, temperature=temperature)
        ),
        "L_rc_g": lambda v, t: global_relation_loss(v, t, IMAGE_BANK, TEXT_BANK, relation, temperature=temperature),
    }
    for name, loss in losses.items():
        inputs = IMAGE.clone().requires_grad_(), TEXT.clone().requires_grad_()
        loss(*inputs).backward()
        for features, side in zip(inputs, ("f_v", "f_t"), strict=True):
            stored = numbers(run(temperature)[f"grad_{name}_wrt_{side}"])
            assert features.grad is not None
            assert float((features.grad - stored).abs().max() / stored.abs().max()) < CLOSE_GRADIENT, (name, side)


def test_banks_after_an_epoch() -> None:
    for bank, fresh, name in ((IMAGE_BANK, IMAGE, "bank_v"), (TEXT_BANK, TEXT, "bank_t")):
        memory = MemoryBank(*bank.shape, momentum=EXAMPLE["config"]["alpha"]).double()
        memory.fill(torch.arange(len(bank)), bank)
        memory.write(ROWS, fresh)
        memory.end_epoch()
        close(memory.read(), EXAMPLE["expected"]["bank_after_update"][name])


@pytest.mark.parametrize(
    ("reading", "values"),
    [
        ({"repeat_columns": True}, (1.6989966385, 0.6690790786)),
        ({"drop_batch_rows": True}, (1.2938313026, 0.8610089827)),
        ({"negative_batch_mates": True}, (1.3473235111, 4.1672630671)),
        ({"own_twin_at_one": True}, (1.5094617437, 0.7062381908)),
        ({"flat_weights": True}, (1.6271840415, 0.7571811609)),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
@pytest.mark.parametrize("pad", [False, True])
def test_other_readings(reading: dict[str, bool], values: tuple[float, float], pad: bool) -> None:
    relation = mine(reading=GlobalReading(**reading), pad=pad)
    for temperature, value in zip(TEMPERATURES, values, strict=True):
        assert loss_of(relation, temperature) == pytest.approx(value, abs=CLOSE)


def test_columns_of_other_readings() -> None:
    assert mine(reading=GlobalReading(drop_batch_rows=True)).columns.tolist() == [0, 3]
    repeated = mine(reading=GlobalReading(repeat_columns=True))
    assert sorted(repeated.columns.tolist()) == sorted(row for mined in GLOBAL["J"] for row in mined)
    assert repeated.target.shape[1] == 13


def test_other_anchors() -> None:
    by_text = global_relation(TEXT, TEXT_BANK, ROWS, k=K)
    assert by_text.columns.tolist() == GLOBAL["union"]
    by_both = mine(also=(TEXT, TEXT_BANK, None))  # both modalities mine the same rows here, images weigh them
    for temperature, text, image in zip(
        TEMPERATURES, (1.5436996009, 0.7302062901), (1.5471646695, 0.7322456989), strict=True
    ):
        assert loss_of(by_text, temperature) == pytest.approx(text, abs=CLOSE)
        assert loss_of(by_both, temperature) == pytest.approx(image, abs=CLOSE)


@pytest.mark.parametrize(
    ("temperature", "values"), [(0.02, (0.3977066885, 0.6210253469)), (0.1, (0.3399223812, 0.4590456095))]
)
def test_crossed_perturbation(temperature: float, values: tuple[float, float]) -> None:
    target = local_relation_target(IMAGE, TEXT)
    ours = (
        float(relation_loss(IMAGE_PERTURBED, TEXT, target, temperature=temperature)),
        float(relation_loss(TEXT_PERTURBED, IMAGE, target, temperature=temperature)),
    )
    assert ours == pytest.approx(values, abs=CLOSE)
