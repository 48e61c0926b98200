"""Mined relations against a slow reference, one pair and one loop at a time, and what must hold whatever is mined.

Drawn vectors have one or four entries of +-1, times a power of two: their cosines are multiples of a quarter without
any rounding, so that ties and cosines equal to the threshold are frequent and exact.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor

from tipr.losses import (
    GlobalReading,
    GlobalRelation,
    global_relation,
    global_relation_loss,
    local_links,
    local_relation_target,
    relation_loss,
)
from tipr.losses.relation import GROUP, Left, inverse_norms

cheap = settings(
    max_examples=100, deadline=None, database=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow]
)
THRESHOLDS = (0.25, 0.5, 0.7, 0.75, 1.0)
Rows = list[list[float]]


def slow_cosine(a: list[float], b: list[float]) -> float:
    norms = math.sqrt(sum(x * x for x in a)) * math.sqrt(sum(x * x for x in b))
    return max(-1.0, min(1.0, sum(x * y for x, y in zip(a, b, strict=True)) / norms)) if norms else 0.0


def slow_softmax(scores: dict[int, float], columns: int) -> list[float]:
    total = sum(math.exp(x) for x in scores.values())
    return [math.exp(scores[j]) / total if j in scores else 0.0 for j in range(columns)]


def slow_local(
    image: Rows, text: Rows, *, threshold: float, softness: float, modality: str, image_id: list[int]
) -> Rows:
    target = []
    for i in range(len(image)):
        scores = {}
        for j in range(len(image)):
            by_image = slow_cosine(image[i], image[j]) > threshold
            by_text = slow_cosine(text[i], text[j]) > threshold
            linked = {"both": by_image and by_text, "image": by_image, "text": by_text}[modality]
            if i == j:
                scores[j] = 1.0
            elif linked or image_id[i] == image_id[j]:
                scores[j] = softness
        target.append(slow_softmax(scores, len(image)))
    return target


def slow_mined(features: Rows, bank: Rows, k: int, threshold: float) -> list[list[int]]:
    mined = []
    for one in features:
        cosines = [slow_cosine(one, other) for other in bank]
        best = sorted(range(len(bank)), key=lambda j: (-cosines[j], j))[:k]
        mined.append([j for j in best if cosines[j] > threshold])
    return mined


def slow_global(
    image: Rows, bank: Rows, rows: list[int], mined: list[list[int]], *, image_of: list[int], reading: GlobalReading
) -> tuple[list[int], Rows]:
    columns = [j for row in mined for j in row if not (reading.drop_batch_rows and j in rows)]
    if not reading.repeat_columns:
        columns = sorted(set(columns))
    behind, numbers = image + [bank[j] for j in columns], rows + columns
    target = []
    for i, one in enumerate(image):
        members = [
            c
            for c, row in enumerate(numbers)
            if (row in mined[i] and not (reading.negative_batch_mates and c < len(rows)))
            or row == rows[i]
            or image_of[row] == image_of[rows[i]]
        ]
        cosines = {c: slow_cosine(one, behind[c]) for c in members}
        total = sum(math.exp(x) for x in cosines.values())
        scores = {c: 1 - math.exp(x) / total for c, x in cosines.items()}
        for c in members:
            if c == i or reading.flat_weights or (reading.own_twin_at_one and numbers[c] == rows[i]):
                scores[c] = 1.0
        target.append(slow_softmax(scores, len(numbers)))
    return columns, target


def slow_loss(query: Rows, keys: Rows, target: Rows, *, temperature: float, left: str) -> float:
    eps, total = 1e-8, 0.0
    for one, wanted in zip(query, target, strict=True):
        logits = [slow_cosine(one, key) / temperature for key in keys]
        log_sum = max(logits) + math.log(sum(math.exp(x - max(logits)) for x in logits))
        for x, q in zip(logits, wanted, strict=True):
            difference = x - log_sum - math.log(q + eps)
            total += math.exp(x - log_sum) * difference if left == "prediction" else -q * difference
    return total / len(query)


@dataclass
class Case:
    image: Tensor
    text: Tensor
    image_bank: Tensor
    text_bank: Tensor
    rows: Tensor
    image_of: Tensor
    k: int
    threshold: float


def exact(draw: np.random.Generator, count: int) -> Tensor:
    """(count, 4) float64 vectors whose cosines are multiples of a quarter."""
    signs = draw.choice([-1.0, 1.0], size=(count, 4), p=[0.2, 0.8])
    single = np.eye(4)[draw.integers(0, 4, count)] * signs
    whole = np.where(draw.random((count, 1)) < 0.5, single, signs)
    return torch.from_numpy(whole * 2.0 ** draw.integers(-3, 4, size=(count, 1)))


@st.composite
def cases(draw: st.DrawFn) -> Case:
    numbers = np.random.default_rng(draw(st.integers(0, 10_000)))
    pairs = draw(st.sampled_from([1, 2, 7, GROUP - 1, GROUP, GROUP + 1, 3 * GROUP + 5]))
    batch = draw(st.integers(1, min(pairs, 6)))
    make = exact if draw(st.booleans()) else lambda g, n: torch.from_numpy(g.normal(size=(n, 4)) + 1)
    return Case(
        *(make(numbers, n) for n in (batch, batch, pairs, pairs)),
        rows=torch.from_numpy(numbers.permutation(pairs)[:batch].copy()),
        image_of=torch.from_numpy(numbers.integers(0, pairs, pairs)),
        k=draw(st.integers(1, min(pairs, 12))),
        threshold=draw(st.sampled_from(THRESHOLDS)),
    )


def mine(case: Case, **options: object) -> GlobalRelation:
    return global_relation(case.image, case.image_bank, case.rows, k=case.k, threshold=case.threshold, **options)  # type: ignore[arg-type]


readings = st.builds(GlobalReading, *[st.booleans()] * len(fields(GlobalReading)))


def members_of(mined: Tensor) -> list[list[int]]:
    """Each row of J; -1 must come last."""
    found = [[j for j in row if j >= 0] for row in mined.tolist()]
    assert [row + [-1] * (mined.shape[1] - len(row)) for row in found] == mined.tolist()
    return found


@cheap
@given(cases(), st.floats(0.05, 0.95), st.sampled_from(["both", "image", "text"]), st.booleans())
def test_local_target_against_the_reference(case: Case, softness: float, modality: str, by_file: bool) -> None:
    image_id = case.image_of[case.rows] if by_file else None
    ours = local_relation_target(
        case.image,
        case.text,
        threshold=case.threshold,
        softness=softness,
        modality=modality,  # type: ignore[arg-type]
        image_id=image_id,
    )
    files = image_id.tolist() if image_id is not None else list(range(len(case.rows)))
    slow = slow_local(
        case.image.tolist(),
        case.text.tolist(),
        threshold=case.threshold,
        softness=softness,
        modality=modality,
        image_id=files,
    )
    torch.testing.assert_close(ours, torch.tensor(slow, dtype=torch.float64), rtol=0, atol=1e-12)


@cheap
@given(cases(), st.sampled_from(["image", "text", "both"]), readings, st.booleans(), st.booleans())
def test_global_relation_against_the_reference(
    case: Case, anchor: str, reading: GlobalReading, by_file: bool, known_norms: bool
) -> None:
    first = (case.text, case.text_bank) if anchor == "text" else (case.image, case.image_bank)
    norms = inverse_norms(case.text_bank) if known_norms else None
    ours = global_relation(
        *first,
        case.rows,
        k=case.k,
        threshold=case.threshold,
        inverse_norm=inverse_norms(first[1]) if known_norms else None,
        also=(case.text, case.text_bank, norms) if anchor == "both" else None,
        image_of=case.image_of if by_file else None,
        reading=reading,
    )
    features, bank = (part.tolist() for part in first)
    mined = slow_mined(features, bank, case.k, case.threshold)
    if anchor == "both":
        other = slow_mined(case.text.tolist(), case.text_bank.tolist(), case.k, case.threshold)
        mined = [[j for j in own if j in allowed] for own, allowed in zip(mined, other, strict=True)]
    files = case.image_of.tolist() if by_file else list(range(len(bank)))
    columns, target = slow_global(features, bank, case.rows.tolist(), mined, image_of=files, reading=reading)
    assert members_of(ours.mined) == mined
    assert ours.columns.tolist() == columns
    torch.testing.assert_close(ours.target, torch.tensor(target, dtype=torch.float64), rtol=0, atol=1e-12)
    assert torch.equal(ours.members, ours.target > 0)


@cheap
@given(cases(), st.sampled_from([0.02, 0.1, 1.0]), st.sampled_from(["prediction", "target"]), st.booleans())
def test_both_directions_of_the_loss_against_the_reference(
    case: Case, temperature: float, left: Left, by_texts: bool
) -> None:
    relation = mine(case)
    other = global_relation(case.text, case.text_bank, case.rows, k=case.k, threshold=case.threshold)
    ours = global_relation_loss(
        case.image,
        case.text,
        case.image_bank,
        case.text_bank,
        relation,
        image_to_text=other if by_texts else None,
        temperature=temperature,
        left=left,
    )
    image, text, image_bank, text_bank = (x.tolist() for x in (case.image, case.text, case.image_bank, case.text_bank))
    columns, target = relation.columns.tolist(), relation.target.tolist()
    slow = slow_loss(text, image + [image_bank[j] for j in columns], target, temperature=temperature, left=left)
    if by_texts:
        columns, target = other.columns.tolist(), other.target.tolist()
    slow += slow_loss(image, text + [text_bank[j] for j in columns], target, temperature=temperature, left=left)
    assert float(ours) == pytest.approx(slow, rel=1e-9, abs=1e-12)


@cheap
@given(cases(), readings, st.sampled_from(["prediction", "target"]))
def test_padded_columns_change_nothing(case: Case, reading: GlobalReading, left: Left) -> None:
    cut, padded = mine(case, reading=reading), mine(case, reading=reading, pad=True)
    width = len(case.rows) + len(cut.columns)
    assert len(padded.columns) == len(case.rows) * case.k
    assert torch.equal(padded.columns[: len(cut.columns)], cut.columns)
    assert torch.equal(padded.used, torch.arange(len(padded.used)) < width)
    assert torch.equal(padded.mined, cut.mined)
    torch.testing.assert_close(padded.target[:, :width], cut.target, rtol=0, atol=1e-15)
    assert not padded.target[:, width:].any()
    assert not padded.members[:, width:].any()
    results = []
    for relation in (cut, padded):
        inputs = case.image.clone().requires_grad_(), case.text.clone().requires_grad_()
        loss = global_relation_loss(*inputs, case.image_bank, case.text_bank, relation, left=left)
        results.append((loss.detach(), *torch.autograd.grad(loss, inputs)))
    for ours, other in zip(*results, strict=True):
        torch.testing.assert_close(ours, other, rtol=1e-9, atol=1e-9)


@cheap
@given(cases(), st.randoms(use_true_random=False))
def test_relabelling_the_batch_permutes_the_result(case: Case, random: object) -> None:
    order = torch.randperm(len(case.rows), generator=torch.Generator().manual_seed(random.randrange(1000)))  # type: ignore[attr-defined]
    local = local_relation_target(case.image, case.text, threshold=case.threshold)
    moved = local_relation_target(case.image[order], case.text[order], threshold=case.threshold)
    torch.testing.assert_close(moved, local[order][:, order], rtol=0, atol=1e-12)
    relation = mine(case)
    again = global_relation(case.image[order], case.image_bank, case.rows[order], k=case.k, threshold=case.threshold)
    columns = torch.cat([order, torch.arange(len(order), relation.target.shape[1])])
    assert torch.equal(again.mined, relation.mined[order])
    assert torch.equal(again.columns, relation.columns)
    torch.testing.assert_close(again.target, relation.target[order][:, columns], rtol=0, atol=1e-12)


@cheap
@given(cases())
def test_targets_are_distributions_over_related_columns(case: Case) -> None:
    local, relation = local_relation_target(case.image, case.text, threshold=case.threshold), mine(case)
    for target in (local, relation.target):
        assert (target >= 0).all()
        torch.testing.assert_close(target.sum(1), torch.ones(len(target)).double(), rtol=0, atol=1e-12)
        # the true pair weighs most
        assert (target <= target.diagonal()[:, None]).all()
    assert torch.equal(local > 0, (local > 0).T)
    assert torch.equal(
        local > 0, local_links(case.image, threshold=case.threshold) & local_links(case.text, threshold=case.threshold)
    )


@cheap
@given(st.integers(0, 10_000), st.integers(1, 40), st.sampled_from([torch.float32, torch.float64, torch.bfloat16]))
def test_threshold_one_links_nothing_but_the_diagonal(seed: int, distinct: int, dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(seed)
    people = torch.randn(distinct, 33, generator=generator)
    features = people[torch.randint(0, distinct, (40,), generator=generator)].to(dtype)
    assert torch.equal(local_links(features, threshold=1.0), torch.eye(40, dtype=torch.bool))
    target = local_relation_target(features, features, threshold=1.0)
    assert torch.equal(target, torch.eye(40, dtype=target.dtype))
    bank = features.float() if dtype == torch.bfloat16 else features
    relation = global_relation(features[:8], bank, torch.arange(8), k=10, threshold=1.0)
    assert (relation.mined == -1).all()
    assert len(relation.columns) == 0
    assert torch.equal(relation.target, torch.eye(8, dtype=relation.target.dtype))


def test_equal_rows_in_single_precision_do_have_cosines_above_one() -> None:
    """Without clamping, the property above would be broken."""
    features = torch.nn.functional.normalize(torch.randn(500, 33, generator=torch.Generator().manual_seed(0)), dim=1)
    assert ((features @ features.T).diagonal() > 1).any()


@cheap
@given(cases())
def test_texts_are_compared_with_the_image_bank_and_images_with_the_text_bank(case: Case) -> None:
    relation = mine(case)
    texts_against = relation_loss(case.text, relation.keys(case.image, case.image_bank), relation.target)
    images_against = relation_loss(case.image, relation.keys(case.text, case.text_bank), relation.target)
    both = global_relation_loss(case.image, case.text, case.image_bank, case.text_bank, relation)
    torch.testing.assert_close(both, texts_against + images_against, rtol=1e-9, atol=1e-12)


@cheap
@given(cases(), st.floats(0.01, 100))
def test_scale_of_features_and_bank_rows_does_not_matter(case: Case, factor: float) -> None:
    if case.threshold == 0.7:  # elsewhere drawn cosines may equal the threshold, and rounding then decides
        scaled = global_relation(
            factor * case.image, case.image_bank / factor, case.rows, k=len(case.image_bank), threshold=0.7
        )
        plain = global_relation(case.image, case.image_bank, case.rows, k=len(case.image_bank), threshold=0.7)
        assert torch.equal(scaled.columns, plain.columns)
        torch.testing.assert_close(scaled.target, plain.target, rtol=0, atol=1e-12)
