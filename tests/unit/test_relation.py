"""Mined relations: top k and ties, what an option adds, precision, cost, and errors that name the thing."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import fields
from typing import Any, get_args

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from tipr.losses import (
    GlobalReading,
    global_relation,
    global_relation_loss,
    local_relation_target,
    relation_loss,
)
from tipr.losses.relation import GROUP, Left, inverse_norms


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("pairs", [5, GROUP, GROUP + 1, 10 * GROUP, 10 * GROUP + 17])
def test_of_equal_similarities_the_lower_rows_are_mined(pairs: int) -> None:
    direction = torch.tensor([[1.0, 2.0, 2.0]])
    k = min(pairs, 12)
    relation = global_relation(direction, direction.expand(pairs, 3), torch.tensor([pairs - 1]), k=k)
    assert relation.mined.tolist() == [list(range(k))]


def test_top_k_equals_a_full_stable_sort() -> None:
    # few distinct directions make ties across every group border
    directions = torch.nn.functional.normalize(noise(9, 4), dim=1)
    bank = directions[torch.randint(0, 9, (1000,), generator=torch.Generator().manual_seed(1))].double()
    query = noise(5, 4, seed=2).double()
    unit = torch.nn.functional.normalize(query, dim=1)
    similarity = (unit @ bank.T) * inverse_norms(bank)
    for k in (1, 7, 40, 1000):
        expected = similarity.sort(dim=1, descending=True, stable=True)
        mined = global_relation(query, bank, torch.arange(5), k=k, threshold=1e-9).mined
        assert torch.equal(mined, expected.indices[:, :k].masked_fill(expected.values[:, :k] <= 1e-9, -1))


def test_similarities_that_rounding_puts_above_one_are_ties() -> None:
    bank, norms = torch.tensor([[1.0, 0.0]]).expand(3000, 2), torch.ones(3000)
    norms[2000] += 1e-6
    relation = global_relation(bank[:1], bank, torch.tensor([0]), k=1, inverse_norm=norms)
    assert relation.mined.tolist() == [[0]]


def test_weaker_members_weigh_more() -> None:
    bank = torch.tensor([[1.0, 0.0], [1.0, 0.3], [1.0, 0.6], [0.0, 1.0]])
    relation = global_relation(bank[:1], bank, torch.tensor([3]), k=3)
    assert relation.columns.tolist() == [0, 1, 2]
    own, same, near, far = relation.target[0].tolist()
    assert own > far > near > same


def test_a_batch_mate_is_positive_in_its_fresh_column_when_its_row_was_mined() -> None:
    bank = torch.eye(4)
    # sample 1 has drifted far from its stored row 1, which sample 0 still looks like
    fresh = torch.tensor([[0.0, 1.0, 0.0, 0.0], [0.0, 0.0, 0.0, 1.0]])
    relation = global_relation(fresh, bank, torch.tensor([0, 1]), k=1)
    assert relation.mined.tolist() == [[1], [3]]
    assert relation.columns.tolist() == [1, 3]
    assert relation.members.tolist() == [[True, True, True, False], [False, True, True, True]]


def test_a_declared_batch_mate_stays_positive_when_mined_ones_are_not() -> None:
    bank, rows = torch.eye(3), torch.arange(3)
    reading = GlobalReading(negative_batch_mates=True)
    looks_like_the_next = bank.roll(-1, 0)
    relation = global_relation(looks_like_the_next, bank, rows, k=1, image_of=torch.tensor([4, 9, 4]), reading=reading)
    assert relation.members[:, :3].tolist() == [[True, False, True], [False, True, False], [True, False, True]]


def test_pictures_in_common_relate_on_request_only() -> None:
    image, text = torch.eye(3), torch.eye(3)
    assert torch.equal(local_relation_target(image, text), torch.eye(3))
    target = local_relation_target(image, text, image_id=torch.tensor([4, 9, 4]))
    assert (target > 0).tolist() == [[True, False, True], [False, True, False], [True, False, True]]
    bank, rows = torch.eye(3), torch.arange(3)
    plain = global_relation(image, bank, rows, k=1)
    assert (plain.target > 0).tolist() == [[i == j % 3 for j in range(6)] for i in range(3)]
    relation = global_relation(image, bank, rows, k=1, image_of=torch.tensor([4, 9, 4]))
    assert relation.columns.tolist() == [0, 1, 2]
    assert relation.members[0].tolist() == [True, False, True, True, False, True]


def test_targets_and_banks_are_constants() -> None:
    image, text = noise(4, 8).requires_grad_(), noise(4, 8, seed=1).requires_grad_()
    bank = noise(30, 8, seed=2).requires_grad_()
    target = local_relation_target(image, text)
    relation = global_relation(image, bank, torch.arange(4))
    assert not target.requires_grad
    assert not relation.target.requires_grad
    soft = torch.full((4, 4), 0.25, requires_grad=True)
    (relation_loss(image, text, soft) + global_relation_loss(image, text, bank, bank, relation)).backward()
    assert bank.grad is None
    assert soft.grad is None
    assert image.grad is not None
    assert text.grad is not None


def test_gradients_against_finite_differences() -> None:
    image, text = noise(4, 5).double().requires_grad_(), noise(4, 5, seed=1).double().requires_grad_()
    bank = noise(9, 5, seed=2).double()
    target = local_relation_target(image, text, threshold=0.1)
    relation = global_relation(image, bank, torch.arange(4), k=3, threshold=0.1, pad=True)
    for left in get_args(Left):
        kind = {"temperature": 0.2, "left": left}
        assert torch.autograd.gradcheck(lambda v, t, k=kind: relation_loss(v, t, target, **k), (image, text))
        assert torch.autograd.gradcheck(
            lambda v, t, k=kind: global_relation_loss(v, t, bank, bank, relation, **k), (image, text)
        )


def test_zero_vectors_relate_to_nothing_and_stay_finite() -> None:
    image = torch.zeros(3, 4, requires_grad=True)
    bank = torch.cat([torch.zeros(2, 4), torch.ones(3, 4)])
    relation = global_relation(image, bank, torch.arange(3), k=2)
    assert (relation.mined == -1).all()
    global_relation_loss(image, torch.zeros(3, 4), bank, bank, relation).backward()
    assert image.grad is not None
    assert torch.isfinite(image.grad).all()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_widened_and_autocast_stays_out(dtype: torch.dtype) -> None:
    image, text, bank = noise(6, 16).to(dtype), noise(6, 16, seed=1).to(dtype), noise(50, 16, seed=2)
    rows = torch.arange(6)

    def everything(v: Tensor, t: Tensor) -> list[Tensor]:
        target = local_relation_target(v, t, threshold=0.1)
        relation = global_relation(v, bank, rows, threshold=0.1, also=(t, bank, None))
        loss = global_relation_loss(v, t, bank, bank, relation)
        return [target, relation.target, relation_loss(v, t, target), loss]

    expected = everything(image.float(), text.float())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = everything(image, text)
    for ours, wide in zip(found, expected, strict=True):
        assert ours.dtype == torch.float32
        assert torch.equal(ours, wide)


class Watch(TorchDispatchMode):
    """Sizes of everything an operation made anew; views of known tensors do not count."""

    def __init__(self, *known: Tensor) -> None:
        super().__init__()
        self.known = {tensor.untyped_storage().data_ptr() for tensor in known}
        self.largest = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        out = func(*args, **(kwargs or {}))
        for tensor in out if isinstance(out, tuple | list) else (out,):
            if isinstance(tensor, Tensor) and tensor.untyped_storage().data_ptr() not in self.known:
                self.largest = max(self.largest, tensor.numel())
        return out


def test_nothing_larger_than_batch_times_bank_is_made() -> None:
    pairs, batch, width = 6000, 8, 64
    bank, image, rows = noise(pairs, width), noise(batch, width, seed=1), torch.arange(batch)
    norms = inverse_norms(bank)
    with Watch(bank) as watch:
        global_relation(image, bank, rows, inverse_norm=norms, pad=True)
    # neither N x N nor a normalised copy of the bank
    assert watch.largest == batch * pairs < pairs * width


@pytest.mark.parametrize("on", [False, True])
def test_a_step_asks_an_accelerator_for_nothing(on: bool) -> None:
    """The meta device has no values: whatever needs one fails on it."""
    image, text, bank = (torch.ones(n, 8, device="meta") for n in (4, 4, 300))
    rows, files = torch.arange(4, device="meta"), torch.arange(300, device="meta")
    relation = global_relation(
        image,
        bank,
        rows,
        inverse_norm=inverse_norms(bank),
        also=(text, bank, inverse_norms(bank)),
        image_of=files,
        reading=GlobalReading(*[on] * len(fields(GlobalReading))),
        pad=True,
    )
    target = local_relation_target(image, text, image_id=rows)
    for left in get_args(Left):
        relation_loss(image, text, target, left=left)
        global_relation_loss(image, text, bank, bank, relation, left=left)
    with pytest.raises(RuntimeError):
        global_relation(image, bank, rows)


def test_mining_costs_little_more_than_the_product() -> None:
    """The committed figure is for N = 68,126; here a smaller bank and a generous factor."""
    pairs, batch, width = 12_000, 64, 512
    bank, rows = noise(pairs, width), torch.arange(batch)
    image = bank[:batch] + 0.1 * noise(batch, width, seed=1)
    norms = inverse_norms(bank)
    seconds: dict[str, list[float]] = {"product": [], "mining": []}
    steps: dict[str, Callable[[], Any]] = {
        "product": lambda: image @ bank.T,
        "mining": lambda: global_relation(image, bank, rows, inverse_norm=norms, pad=True),
    }
    for _ in range(7):
        for name, step in steps.items():
            started = time.perf_counter()
            step()
            seconds[name].append(time.perf_counter() - started)
    assert min(seconds["mining"]) < 8 * min(seconds["product"])


x = torch.ones(3, 4)
n = torch.arange(3)
same = torch.full((3, 3), 1 / 3)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: local_relation_target(x, x[:2]), r"got \(3, 4\) and \(2, 4\)"),
        (lambda: local_relation_target(x, x, threshold=0.0), r"threshold must lie in \(0, 1\], got 0.0"),
        (lambda: local_relation_target(x, x, threshold=1.01), r"threshold must lie in \(0, 1\], got 1.01"),
        (lambda: local_relation_target(x, x, threshold=float("nan")), "got nan"),
        (lambda: local_relation_target(x, x, softness=1.0), r"softness must lie in \(0, 1\), got 1.0"),
        (lambda: local_relation_target(x, x, modality="none"), "'both', 'image' or 'text', got 'none'"),  # type: ignore[arg-type]
        (lambda: local_relation_target(x, x, image_id=n[:2]), r"image_id must be \(3,\) integers, got \(2,\)"),
        (lambda: relation_loss(x, x, same[:2]), r"got \(3, 4\), \(3, 4\) and \(2, 3\)"),
        (lambda: relation_loss(x, x[:, :2], same), r"got \(3, 4\), \(3, 2\)"),
        (lambda: relation_loss(x, x, same, temperature=0.0), "temperature must be > 0, got 0.0"),
        (lambda: relation_loss(x, x, same, left="p"), "left must be 'prediction' or 'target', got 'p'"),  # type: ignore[arg-type]
        (lambda: relation_loss(x, x, same, used=n), r"used must be \(3,\) bool, got \(3,\) torch.int64"),
        (lambda: global_relation(x, x[:, :2], n, k=1), r"got \(3, 4\), \(3, 2\)"),
        (lambda: global_relation(x, x, n[:2], k=1), r"rows must be \(3,\) integers, got \(2,\)"),
        (lambda: global_relation(x, x, n.float(), k=1), "rows must be .* torch.float32"),
        (lambda: global_relation(x, x, n), "k must lie in 1..3, the rows of the bank, got 10"),
        (lambda: global_relation(x, x, n, k=0), "k must lie in 1..3, the rows of the bank, got 0"),
        (lambda: global_relation(x, x, n, k=1, threshold=-0.5), r"threshold must lie in \(0, 1\], got -0.5"),
        (lambda: global_relation(x, x, n, k=1, inverse_norm=x), r"inverse_norm must be \(3,\), got \(3, 4\)"),
        (lambda: global_relation(x, x, n, k=1, image_of=n[:1]), r"image_of must be \(3,\) integers, got \(1,\)"),
    ],
)
def test_wrong_input_names_the_thing(call: Callable[[], Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()
