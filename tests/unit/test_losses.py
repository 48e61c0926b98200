"""The five losses: worked example, closed forms, symmetry, gradients, dtypes, overflow, untouched inputs."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from tipr.losses import cmpm_loss, identity_loss, itc_loss, mlm_loss, sdm_loss

V = torch.tensor([[1, 0.2, 0], [0.8, 0.4, 0.1], [0, 1, 0.5]], dtype=torch.float64)
T = torch.tensor([[0.9, 0.1, 0.2], [0.5, 0.5, 0], [0.1, 0.8, 0.6]], dtype=torch.float64)
PID = torch.tensor([7, 7, 9])

# every loss as a function of (image, text) features; the identity classifier's logits play the features' part
PAIR_LOSSES: dict[str, Callable[[Tensor, Tensor, Tensor], Tensor]] = {
    "sdm": sdm_loss,
    "itc": lambda v, t, y: itc_loss(v, t, temperature=0.02),
    "itc_soft": lambda v, t, y: itc_loss(v, t, temperature=0.02, identity=y),
    "cmpm": cmpm_loss,
    "identity": identity_loss,
}
pair_losses = pytest.mark.parametrize("loss", PAIR_LOSSES.values(), ids=PAIR_LOSSES.keys())


def batch(rows: int = 8, width: int = 16, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    g = torch.Generator().manual_seed(seed)
    identity = torch.randint(0, 4, (rows,), generator=g)
    return torch.randn(rows, width, generator=g), torch.randn(rows, width, generator=g), identity


def slow_sdm(v: Tensor, t: Tensor, identity: Tensor, scale: float) -> tuple[float, float]:
    """The two directions of SDM, element by element, from the equations."""

    def direction(a: Tensor, b: Tensor) -> float:
        total = 0.0
        for i in range(len(a)):
            s = [scale * float(a[i] @ b[j] / (a[i].norm() * b[j].norm())) for j in range(len(b))]
            z = sum(math.exp(x) for x in s)
            y = [float(identity[i] == identity[j]) for j in range(len(b))]
            for j, x in enumerate(s):
                p = math.exp(x) / z
                total += p * (math.log(p) - math.log(y[j] / sum(y) + 1e-8))
        return total / len(a)

    return direction(v, t), direction(t, v)


@pytest.mark.parametrize(("scale", "i2t", "t2i"), [(50, 0.2356530054, 0.3255693828), (10, 0.2379238931, 0.2423762261)])
def test_sdm_worked_example(scale: float, i2t: float, t2i: float) -> None:
    assert slow_sdm(V, T, PID, scale) == pytest.approx((i2t, t2i), abs=2e-10)
    assert float(sdm_loss(V, T, PID, temperature=1 / scale)) == pytest.approx(i2t + t2i, abs=2e-10)


@pytest.mark.parametrize(
    ("scale", "i2t", "t2i", "mean"),
    [(50, 0.1695765517, 0.0472414400, 0.1084089958), (10, 0.3033884630, 0.2828956777, 0.2931420703)],
)
def test_itc_worked_example(scale: float, i2t: float, t2i: float, mean: float) -> None:
    assert float(itc_loss(V, T, temperature=1 / scale)) == pytest.approx(mean, abs=2e-10)
    assert float(itc_loss(V, T, temperature=1 / scale, reduction="sum")) == pytest.approx(i2t + t2i, abs=3e-10)


def test_cmpm_worked_example() -> None:
    assert float(cmpm_loss(V, T, PID)) == pytest.approx(10.4948861289, abs=1e-9)


def test_sdm_puts_the_prediction_on_the_left() -> None:
    reversed_kl = 0.0
    cos = torch.nn.functional.normalize(V, dim=1) @ torch.nn.functional.normalize(T, dim=1).T
    q = (PID[:, None] == PID[None]).double()
    q = q / q.sum(1, keepdim=True)
    for logits in (cos * 50, cos.T * 50):
        reversed_kl += float((q * ((q + 1e-8).log() - logits.log_softmax(1))).sum(1).mean())
    assert abs(float(sdm_loss(V, T, PID)) - reversed_kl) > 0.1


@pytest.mark.parametrize("rows", [1, 2, 7])
def test_equal_embeddings_give_closed_forms(rows: int) -> None:
    zero, distinct = torch.zeros(rows, 4), torch.arange(rows)
    assert float(itc_loss(zero, zero, temperature=0.02)) == pytest.approx(math.log(rows), abs=1e-6)
    assert float(itc_loss(zero, zero, temperature=0.02, reduction="sum")) == pytest.approx(2 * math.log(rows), abs=1e-6)
    uniform = -math.log(rows) - (math.log(1 + 1e-8) + (rows - 1) * math.log(1e-8)) / rows
    assert float(sdm_loss(zero, zero, distinct)) == pytest.approx(2 * uniform, rel=1e-5, abs=1e-6)
    assert float(cmpm_loss(zero, zero, distinct)) == pytest.approx(2 * uniform, rel=1e-5, abs=1e-6)
    # one person only: the target is uniform too, so the prediction is perfect
    assert float(sdm_loss(zero, zero, torch.zeros_like(distinct))) == pytest.approx(0, abs=1e-5)
    assert float(identity_loss(torch.zeros(rows, 9), torch.zeros(rows, 9), distinct)) == pytest.approx(math.log(9))
    assert float(mlm_loss(torch.zeros(rows, 9), distinct, ignore_index=-100)) == pytest.approx(math.log(9))


def test_perfect_alignment_of_distinct_people_is_nearly_zero() -> None:
    eye = torch.eye(6)
    assert float(sdm_loss(eye, eye, torch.arange(6))) == pytest.approx(0, abs=1e-6)
    assert float(itc_loss(eye, eye, temperature=0.02)) == pytest.approx(0, abs=1e-6)


@pair_losses
def test_swapping_the_modalities_changes_nothing(loss: Callable[..., Tensor]) -> None:
    v, t, y = batch()
    torch.testing.assert_close(loss(v, t, y), loss(t, v, y))


@pair_losses
def test_order_of_rows_changes_nothing(loss: Callable[..., Tensor]) -> None:
    v, t, y = batch()
    order = torch.randperm(len(v), generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(loss(v[order], t[order], y[order]), loss(v, t, y))


@pytest.mark.parametrize("name", ["sdm", "itc", "itc_soft", "cmpm"])
def test_names_of_identities_do_not_matter(name: str) -> None:
    v, t, y = batch()
    torch.testing.assert_close(PAIR_LOSSES[name](v, t, 1000 - 7 * y), PAIR_LOSSES[name](v, t, y))


@pytest.mark.parametrize("name", ["sdm", "itc", "itc_soft"])
def test_scale_of_features_does_not_matter_to_cosine_losses(name: str) -> None:
    v, t, y = batch()
    torch.testing.assert_close(PAIR_LOSSES[name](3 * v, 0.1 * t, y), PAIR_LOSSES[name](v, t, y))


def test_cmpm_normalises_only_the_other_side() -> None:
    v, t, y = batch()
    assert abs(float(cmpm_loss(3 * v, t, y) - cmpm_loss(v, t, y))) > 0.1


@pair_losses
def test_gradients_against_finite_differences(loss: Callable[..., Tensor]) -> None:
    v, t, y = batch(5, 4)
    inputs = (v.double().requires_grad_(), t.double().requires_grad_())
    assert torch.autograd.gradcheck(lambda a, b: loss(a, b, y[:5]), inputs)


def test_mlm_gradient_against_finite_differences() -> None:
    logits = torch.randn(2, 3, 5, dtype=torch.float64, requires_grad=True)
    labels = torch.tensor([[1, -100, 4], [-100, -100, 0]])
    assert torch.autograd.gradcheck(lambda x: mlm_loss(x, labels, ignore_index=-100), (logits,))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pair_losses
def test_every_dtype(loss: Callable[..., Tensor], dtype: torch.dtype) -> None:
    v, t, y = (x.to(dtype) if x.is_floating_point() else x for x in batch())
    out = loss(v, t, y)
    assert out.shape == ()
    assert out.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    # computed in float32 from the rounded input, not in half precision
    torch.testing.assert_close(out.float(), loss(v.float(), t.float(), y))


@pair_losses
def test_autocast_does_not_reach_inside(loss: Callable[..., Tensor]) -> None:
    v, t, y = batch()
    expected = loss(v, t, y)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(loss(v, t, y), expected)


@pair_losses
def test_inputs_are_not_modified(loss: Callable[..., Tensor]) -> None:
    inputs = batch()
    copies = [x.clone() for x in inputs]
    loss(*inputs)
    assert all(torch.equal(x, c) for x, c in zip(inputs, copies, strict=True))


@pair_losses
def test_large_inputs_stay_finite(loss: Callable[..., Tensor]) -> None:
    v, t, y = batch()
    v, t = (1e4 * v).requires_grad_(), (1e4 * t).requires_grad_()
    out = loss(v, t, y)
    out.backward()
    assert torch.isfinite(out)
    assert v.grad is not None
    assert torch.isfinite(v.grad).all()


def test_tiny_temperature_stays_finite() -> None:
    v, t, y = batch()
    assert torch.isfinite(sdm_loss(v, t, y, temperature=1e-5))
    assert torch.isfinite(itc_loss(v, t, temperature=1e-5))


@pair_losses
def test_zero_vectors_have_finite_gradients(loss: Callable[..., Tensor]) -> None:
    v, t = torch.zeros(3, 4, requires_grad=True), torch.zeros(3, 4, requires_grad=True)
    loss(v, t, torch.tensor([0, 0, 1])).backward()
    assert v.grad is not None
    assert torch.isfinite(v.grad).all()


def test_itc_soft_targets_share_among_repeated_identities() -> None:
    v, t, _ = batch(3)
    y = torch.tensor([4, 4, 2])
    cos = torch.nn.functional.normalize(v, dim=1) @ torch.nn.functional.normalize(t, dim=1).T
    target = torch.tensor([[0.5, 0.5, 0], [0.5, 0.5, 0], [0, 0, 1]])
    expected = 0.0
    for logits in (cos / 0.1, cos.T / 0.1):
        expected += float(-(target * logits.log_softmax(1)).sum(1).mean()) / 2
    assert float(itc_loss(v, t, temperature=0.1, identity=y)) == pytest.approx(expected, rel=1e-6)


def test_itc_soft_targets_of_distinct_identities_are_the_diagonal() -> None:
    v, t, _ = batch()
    distinct = torch.arange(len(v))
    torch.testing.assert_close(itc_loss(v, t, temperature=0.1, identity=distinct), itc_loss(v, t, temperature=0.1))


def test_itc_leaves_other_captions_of_the_picture_out() -> None:
    v, t, _ = batch(4)
    files = torch.tensor([3, 8, 3, 5])
    cos = torch.nn.functional.normalize(v, dim=1) @ torch.nn.functional.normalize(t, dim=1).T
    expected = 0.0
    for logits in (cos / 0.1, cos.T / 0.1):
        for i in range(4):
            rest = [logits[i, j].exp() for j in range(4) if j == i or files[j] != files[i]]
            expected -= float((logits[i, i].exp() / sum(rest)).log()) / 4
    ours = itc_loss(v, t, temperature=0.1, image_id=files, reduction="sum")
    assert float(ours) == pytest.approx(expected, rel=1e-5)
    distinct = itc_loss(v, t, temperature=0.1, image_id=torch.arange(4))
    torch.testing.assert_close(distinct, itc_loss(v, t, temperature=0.1))


def test_a_tensor_temperature_learns() -> None:
    v, t, _ = batch()
    temperature = torch.tensor(0.07, requires_grad=True)
    itc_loss(v, t, temperature=temperature).backward()
    assert temperature.grad is not None
    assert temperature.grad.abs() > 0


def test_mlm_is_the_mean_over_labelled_positions_of_the_whole_batch() -> None:
    logits = torch.randn(2, 3, 5, generator=torch.Generator().manual_seed(0))
    labels = torch.tensor([[1, 0, 4], [0, 0, 2]])
    log_p = logits.log_softmax(-1)
    expected = -(log_p[0, 0, 1] + log_p[0, 2, 4] + log_p[1, 2, 2])
    torch.testing.assert_close(mlm_loss(logits, labels, ignore_index=0), expected / 3)
    torch.testing.assert_close(mlm_loss(logits, labels, ignore_index=0, count=torch.tensor(12)), expected / 12)


def test_mlm_of_unlabelled_batch_is_zero_with_zero_gradient() -> None:
    logits = torch.randn(4, 5, requires_grad=True)
    out = mlm_loss(logits, torch.full((4,), -100), ignore_index=-100)
    out.backward()
    assert float(out.detach()) == 0
    assert logits.grad is not None
    assert not logits.grad.any()


def test_mlm_half_precision_is_widened() -> None:
    logits = torch.randn(6, 5).half()
    labels = torch.tensor([0, 1, 2, 3, 4, 0])
    torch.testing.assert_close(
        mlm_loss(logits, labels, ignore_index=-100), mlm_loss(logits.float(), labels, ignore_index=-100)
    )


x = torch.zeros(3, 4)
y = torch.tensor([0, 1, 2])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: sdm_loss(x, x[:2], y), r"got \(3, 4\) and \(2, 4\)"),
        (lambda: sdm_loss(x, x, y[:2]), r"identity must be \(3,\) integers, got \(2,\)"),
        (lambda: sdm_loss(x, x, y.float()), "integers, got .* torch.float32"),
        (lambda: sdm_loss(x, x, y, temperature=0.0), "temperature must be > 0, got 0.0"),
        (lambda: sdm_loss(x[:0], x[:0], y[:0]), "N > 0"),
        (lambda: itc_loss(x[0], x[0], temperature=1.0), r"got \(4,\) and \(4,\)"),
        (lambda: itc_loss(x, x, temperature=-1.0), "temperature must be > 0, got -1.0"),
        (lambda: itc_loss(x, x, temperature=1.0, reduction="none"), "'mean' or 'sum', got 'none'"),  # type: ignore[arg-type]
        (lambda: itc_loss(x, x, temperature=1.0, image_id=y[:1]), r"image_id must be \(3,\) integers, got \(1,\)"),
        (lambda: itc_loss(x, x, temperature=1.0, identity=y, image_id=y), "identity or image_id, not both"),
        (lambda: cmpm_loss(x, x.T, y), r"got \(3, 4\) and \(4, 3\)"),
        (lambda: identity_loss(x, x, y[:1]), r"got \(1,\)"),
        (lambda: identity_loss(x, x[:, :2], y), r"got \(3, 4\) and \(3, 2\)"),
        (lambda: mlm_loss(x, y[:2], ignore_index=0), r"got \(3, 4\), \(2,\)"),
    ],
)
def test_wrong_input_names_the_shapes(call: Callable[[], Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()
