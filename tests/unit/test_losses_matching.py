"""Matching with hard negatives, and reconstruction of a masked image: closed forms, slow references, gradients."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F

from tipr.losses import hard_negatives, itc_loss, itm_loss, reconstruction_loss

TEMPERATURE = 0.07


def features(rows: int = 4, width: int = 6, seed: int = 0) -> tuple[Tensor, Tensor]:
    g = torch.Generator().manual_seed(seed)
    return torch.randn(rows, width, generator=g), torch.randn(rows, width, generator=g)


def slow_weights(queries: Tensor, keys: Tensor, identity: Tensor, group: int) -> list[list[float]]:
    """Weights of the draws of every query, element by element."""
    rows = len(queries)
    table = []
    for i in range(rows):
        reach = [j for j in range(rows) if j // group == i // group]
        score = {j: float(F.cosine_similarity(queries[i], keys[j], dim=0)) / TEMPERATURE for j in reach}
        top = max(score.values())
        total = sum(math.exp(s - top) for s in score.values())
        table.append(
            [
                math.exp(score[j] - top) / total + 1e-5 if j in reach and identity[i] != identity[j] else 0.0
                for j in range(rows)
            ]
        )
    return table


def slow_draw(weights: list[float], uniform: float) -> int:
    """Walk along a row until the draw is used up."""
    left = uniform * sum(weights)
    for column, weight in enumerate(weights):
        if left < weight:
            return column
        left -= weight
    raise AssertionError("a draw below 1 ends inside the row")


@given(
    seed=st.integers(0, 10_000),
    identity=st.lists(st.integers(0, 3), min_size=2, max_size=9),
    group=st.none() | st.integers(1, 10),
)
@settings(max_examples=40, deadline=None)
def test_draws_follow_the_slow_reference_and_never_hit_the_same_person(
    seed: int, identity: list[int], group: int | None
) -> None:
    rows, person = len(identity), torch.tensor(identity)
    image, text = (each.double() for each in features(rows, seed=seed))
    uniforms = torch.rand(2, rows, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    drawn = hard_negatives(image, text, person, uniforms, temperature=TEMPERATURE, group=group)
    for found_at, queries, keys, draws in (
        (drawn.image, text, image, uniforms[0]),
        (drawn.text, image, text, uniforms[1]),
    ):
        for i, weights in enumerate(slow_weights(queries, keys, person, group or rows)):
            assert bool(drawn.found[i]) == any(weights)
            if drawn.found[i]:
                j = int(found_at[i])
                assert j == slow_draw(weights, float(draws[i]))
                assert person[j] != person[i]
                assert group is None or j // group == i // group


def test_a_person_twice_in_the_batch_is_no_negative_of_either_picture() -> None:
    image, text = features()
    person = torch.tensor([0, 1, 0, 2])
    counts = torch.zeros(4, 4)
    for seed in range(400):
        uniforms = torch.rand(2, 4, generator=torch.Generator().manual_seed(seed))
        drawn = hard_negatives(image, text, person, uniforms, temperature=1.0)
        counts[torch.arange(4), drawn.image] += 1
    assert counts[0, [0, 2]].sum() == counts[2, [0, 2]].sum() == 0
    assert (counts[[0, 1, 1, 1, 2], [1, 0, 2, 3, 3]] > 0).all()
    expected = torch.tensor(slow_weights(text, image, person, 4))  # at 0.07: only the order of the shares is compared
    assert counts[1].argmax() == expected[1].argmax()


def test_shares_of_the_draws_are_the_softmax() -> None:
    """Evenly spaced draws count out the distribution function."""
    image, text = features(5)
    steps = 600
    person = torch.arange(5)
    counts = torch.zeros(5, 5, dtype=torch.float64)
    for k in range(steps):
        drawn = hard_negatives(image, text, person, torch.full((2, 5), (k + 0.5) / steps), temperature=TEMPERATURE)
        counts[torch.arange(5), drawn.text] += 1
    expected = torch.tensor(slow_weights(image, text, person, 5), dtype=torch.float64)
    torch.testing.assert_close(counts / steps, expected / expected.sum(dim=1, keepdim=True), atol=2e-3, rtol=0)


def test_the_harder_image_is_drawn_for_a_text() -> None:
    """The softmax runs over images for a text, over texts for an image."""
    image = torch.tensor([[1.0, 0], [0, 1.0], [0.6, 0.8]])
    text = torch.tensor([[1.0, 0], [0.8, 0.6], [-1.0, 0.1]])
    drawn = hard_negatives(image, text, torch.arange(3), torch.full((2, 3), 0.5), temperature=0.02)
    assert drawn.image.tolist() == [2, 2, 1]
    assert drawn.text.tolist() == [1, 2, 1]


@pytest.mark.parametrize("uniform", [0.0, 1 - 2.0**-24])
def test_the_ends_of_the_unit_interval_stay_among_the_candidates(uniform: float) -> None:
    image, text = features(6)
    person = torch.tensor([0, 0, 1, 1, 0, 0])
    drawn = hard_negatives(image, text, person, torch.full((2, 6), uniform), temperature=1e-3)
    assert (person[drawn.image] != person).all()
    assert (person[drawn.text] != person).all()


def test_one_person_alone_has_no_negative_and_adds_nothing() -> None:
    image, text = features(3)
    drawn = hard_negatives(image, text, torch.zeros(3, dtype=torch.long), torch.rand(2, 3), temperature=1.0)
    assert not drawn.found.any()
    assert drawn.image.tolist() == drawn.text.tolist() == [0, 1, 2]
    logits = torch.randn(3, 3, 2, requires_grad=True)
    loss = itm_loss(*logits, found=drawn.found)
    loss.backward()
    assert float(loss.detach()) == 0
    assert logits.grad is not None
    assert not logits.grad.any()


def test_rows_without_a_negative_are_left_out_of_the_mean() -> None:
    logits = torch.randn(3, 4, 2, generator=torch.Generator().manual_seed(0))
    found = torch.tensor([True, False, True, True])
    expected, label = 0.0, (1, 0, 0)
    for group in range(3):
        for row in (0, 2, 3):
            expected -= float(logits[group, row].log_softmax(0)[label[group]]) / 9
    assert float(itm_loss(*logits, found=found)) == pytest.approx(expected, rel=1e-6)
    halved = itm_loss(*logits, found=found, count=torch.tensor(6))
    assert float(halved) == pytest.approx(expected / 2, rel=1e-6)


def test_itm_is_the_plain_cross_entropy_when_every_row_has_negatives() -> None:
    logits = torch.randn(3, 5, 2, generator=torch.Generator().manual_seed(1))
    label = torch.tensor([1, 0, 0]).repeat_interleave(5)
    loss = itm_loss(*logits, found=torch.ones(5, dtype=torch.bool))
    torch.testing.assert_close(loss, F.cross_entropy(logits.flatten(0, 1), label))
    assert float(itm_loss(*torch.zeros(3, 5, 2), found=torch.ones(5, dtype=torch.bool))) == pytest.approx(math.log(2))


def slow_reconstruction(student: Tensor, teacher: Tensor, scored: Tensor) -> float:
    total = 0.0
    for z, target, chosen in zip(student, teacher, scored, strict=True):
        rows = [1 - float(a @ b / (a.norm() * b.norm())) for a, b, use in zip(z, target, chosen, strict=True) if use]
        total += sum(rows) / max(1, len(rows))
    return total / len(student)


@given(seed=st.integers(0, 10_000), rows=st.integers(1, 4), tokens=st.integers(1, 5))
@settings(max_examples=25, deadline=None)
def test_reconstruction_follows_the_slow_reference(seed: int, rows: int, tokens: int) -> None:
    g = torch.Generator().manual_seed(seed)
    student, teacher = torch.randn(2, rows, tokens, 7, generator=g, dtype=torch.float64)
    scored = torch.rand(rows, tokens, generator=g) < 0.5
    every = torch.ones(rows, tokens, dtype=torch.bool)
    assert float(reconstruction_loss(student, teacher)) == pytest.approx(slow_reconstruction(student, teacher, every))
    ours = reconstruction_loss(student, teacher, scored=scored)
    assert float(ours) == pytest.approx(slow_reconstruction(student, teacher, scored))
    same = reconstruction_loss(student, teacher, scored=scored[0])
    assert float(same) == pytest.approx(slow_reconstruction(student, teacher, scored[0].expand(rows, tokens)))


def test_reconstruction_of_parallel_tokens_is_0_and_of_opposite_ones_2() -> None:
    tokens = torch.randn(2, 3, 4)
    assert float(reconstruction_loss(3 * tokens, tokens)) == pytest.approx(0, abs=1e-6)
    assert float(reconstruction_loss(-tokens, tokens)) == pytest.approx(2, abs=1e-6)


def test_nothing_flows_into_the_teacher_nor_into_tokens_that_are_not_scored() -> None:
    student, teacher = (torch.randn(2, 3, 4, requires_grad=True) for _ in range(2))
    scored = torch.tensor([[True, False, True], [False, False, False]])
    reconstruction_loss(student, teacher, scored=scored).backward()
    assert teacher.grad is None
    assert student.grad is not None
    assert torch.equal(student.grad.any(dim=2), scored)


def test_zero_tokens_have_finite_gradients() -> None:
    student = torch.zeros(1, 2, 4, requires_grad=True)
    reconstruction_loss(student, torch.ones(1, 2, 4)).backward()
    assert student.grad is not None
    assert torch.isfinite(student.grad).all()


def test_gradients_against_finite_differences() -> None:
    g = torch.Generator().manual_seed(3)
    logits = torch.randn(3, 4, 2, generator=g, dtype=torch.float64, requires_grad=True)
    found = torch.tensor([True, True, False, True])
    assert torch.autograd.gradcheck(lambda x: itm_loss(*x, found=found), (logits,))
    student = torch.randn(2, 3, 4, generator=g, dtype=torch.float64, requires_grad=True)
    teacher = torch.randn(2, 3, 4, generator=g, dtype=torch.float64)
    scored = torch.tensor([[True, False, True], [True, True, True]])
    assert torch.autograd.gradcheck(lambda z: reconstruction_loss(z, teacher), (student,))
    assert torch.autograd.gradcheck(lambda z: reconstruction_loss(z, teacher, scored=scored), (student,))


def test_contrast_with_shared_targets_and_a_learnt_divisor_against_finite_differences() -> None:
    g = torch.Generator().manual_seed(5)
    image, text = (torch.randn(4, 3, generator=g, dtype=torch.float64, requires_grad=True) for _ in range(2))
    temperature = torch.tensor(0.07, dtype=torch.float64, requires_grad=True)
    person = torch.tensor([0, 1, 0, 2])
    assert torch.autograd.gradcheck(
        lambda v, t, divisor: itc_loss(v, t, temperature=divisor, identity=person), (image, text, temperature)
    )


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_every_dtype_is_computed_in_full_precision(dtype: torch.dtype) -> None:
    g = torch.Generator().manual_seed(4)
    logits = torch.randn(3, 4, 2, generator=g).to(dtype)
    student, teacher = torch.randn(2, 2, 3, 4, generator=g).to(dtype)
    found = torch.ones(4, dtype=torch.bool)
    wide = torch.float64 if dtype == torch.float64 else torch.float32
    for ours, full in (
        (itm_loss(*logits, found=found), itm_loss(*logits.to(wide), found=found)),
        (reconstruction_loss(student, teacher), reconstruction_loss(student.to(wide), teacher.to(wide))),
    ):
        assert ours.dtype == wide
        assert torch.equal(ours, full)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = reconstruction_loss(student, teacher)
    assert torch.equal(inside, reconstruction_loss(student, teacher))


x = torch.zeros(3, 4)
y = torch.arange(3)
u = torch.zeros(2, 3)
logits = torch.zeros(3, 2)
every = torch.ones(3, dtype=torch.bool)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: hard_negatives(x, x[:2], y, u, temperature=1.0), r"got \(3, 4\) and \(2, 4\)"),
        (lambda: hard_negatives(x, x, y[:2], u, temperature=1.0), r"identity must be \(3,\) integers"),
        (lambda: hard_negatives(x, x, y, u.T, temperature=1.0), r"uniforms must be \(2, 3\), got \(3, 2\)"),
        (lambda: hard_negatives(x, x, y, u, temperature=0.0), "temperature must be > 0"),
        (lambda: hard_negatives(x, x, y, u, temperature=1.0, group=0), "group must be >= 1, got 0"),
        (lambda: itm_loss(logits, logits, logits[:2], found=every), r"\(N, 2\) and found \(N,\)"),
        (lambda: reconstruction_loss(x, x), r"\(N, T, D\), got \(3, 4\)"),
        (lambda: reconstruction_loss(x[None], x[None, :2]), r"got \(1, 3, 4\) and \(1, 2, 4\)"),
        (lambda: reconstruction_loss(x[None], x[None], scored=every[:2]), r"scored must be \(1, 3\), got \(2,\)"),
    ],
)
def test_wrong_input_names_the_shapes(call: Callable[[], Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()
