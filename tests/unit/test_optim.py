"""Merged parameter groups, optimisers and the running mean of weights."""

import pytest
import torch
from torch import nn

from tipr.encoders import CompactEncoder
from tipr.methods import Irra, TrainingFacts
from tipr.training.optim import WeightAverage, build_optimizer, parameter_groups, set_rate
from tipr.training.run_config import Optimizer

CPU = torch.device("cpu")
TINY = CompactEncoder.Config(
    image_size=(48, 24),
    widths=(8, 16),
    blocks=(1, 1),
    stripes=3,
    text_width=16,
    text_layers=1,
    embed_dim=16,
    head_width=8,
    vocabulary_size=300,
    max_tokens=16,
)


def irra():
    torch.manual_seed(0)
    config = Irra.Config(depth=1, padding="trimmed")
    return Irra.build(
        config, CompactEncoder.build(TINY), TrainingFacts(pairs=0, mask_id=3, vocabulary_size=300, identities=5)
    )


def test_groups_are_few_and_hold_every_parameter_once_with_the_published_rates():
    method = irra()
    groups = parameter_groups(method.named_parameters(), method.learning_rate_factor, lr=1e-5, weight_decay=4e-5)
    assert len(groups) <= 5
    held = [id(parameter) for group in groups for parameter in group["params"]]
    assert sorted(held) == sorted(id(parameter) for parameter in method.parameters())
    rates = {id(p): (group["lr"], group["weight_decay"]) for group in groups for p in group["params"]}
    named = dict(method.named_parameters())
    for name, (lr, decay) in {
        "encoder.text.embedding.weight": (1e-5, 4e-5),
        "encoder.image.token_out.bias": (2e-5, 0.0),
        "classifier.weight": (5e-5, 4e-5),
        "classifier.bias": (5e-5, 0.0),
        "mlm_head.fc.weight": (5e-5, 4e-5),
    }.items():
        assert rates[id(named[name])] == pytest.approx((lr, decay)), name


def test_frozen_parameters_are_left_out():
    layer = nn.Linear(2, 2)
    layer.bias.requires_grad_(False)
    (group,) = parameter_groups(layer.named_parameters(), lambda name, parameter: (1.0, 1.0), lr=1.0, weight_decay=0.0)
    assert group["params"] == [layer.weight]


@pytest.mark.parametrize("name", ["adam", "adamw", "sgd"])
def test_merged_and_fused_equals_one_group_for_each_parameter(name):
    """The published code has a group for every parameter; merging and fusing must change nothing."""
    settings = Optimizer(name=name, lr=1e-2, weight_decay=1e-2)
    ours, theirs = irra(), irra()
    groups = parameter_groups(ours.named_parameters(), ours.learning_rate_factor, lr=1e-2, weight_decay=1e-2)
    one = build_optimizer(groups, settings, device=CPU)
    separate = []
    for key, parameter in theirs.named_parameters():
        rate, decay = theirs.learning_rate_factor(key, parameter)
        separate.append({"params": [parameter], "lr": 1e-2 * rate, "weight_decay": 1e-2 * decay})
    kinds = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}
    if name == "sgd":
        many = torch.optim.SGD(separate, lr=1e-2, momentum=0.9, foreach=False)
    else:
        many = kinds[name](separate, lr=1e-2, betas=settings.betas, eps=settings.eps, foreach=False)
    generator = torch.Generator().manual_seed(0)
    for _ in range(3):
        for a, b in zip(ours.parameters(), theirs.parameters(), strict=True):
            a.grad = torch.randn(a.shape, generator=generator)
            b.grad = a.grad.clone()
        one.step()
        many.step()
    for a, b in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(a, b, atol=1e-6, rtol=1e-5)


def test_set_rate_keeps_the_ratio_of_groups():
    method = irra()
    groups = parameter_groups(method.named_parameters(), method.learning_rate_factor, lr=1e-5, weight_decay=0.0)
    optimizer = build_optimizer(groups, Optimizer(), device=CPU)
    before = [group["lr"] for group in optimizer.param_groups]
    set_rate(optimizer, 0.1)
    set_rate(optimizer, 0.25)
    assert [group["lr"] for group in optimizer.param_groups] == pytest.approx([0.25 * lr for lr in before])


def test_weight_average_is_the_recursion():
    layer = nn.Linear(3, 2)
    average = WeightAverage(layer, 0.9)
    expected = layer.weight.detach().clone()
    for step in range(30):
        with torch.no_grad():
            layer.weight += 0.1
        average.update(step)
        decay = min(0.9, (1 + step) / (10 + step))
        expected = decay * expected + (1 - decay) * layer.weight.detach()
    assert average.state()[0].dtype == torch.float32
    torch.testing.assert_close(average.state()[0], expected)
    other = nn.Linear(3, 2)
    average.copy_to(other)
    torch.testing.assert_close(other.weight.detach(), expected)


def test_weight_average_goes_on_after_a_restore():
    torch.manual_seed(0)
    layer = nn.Linear(2, 2)
    average = WeightAverage(layer, 0.5)
    with torch.no_grad():
        layer.weight += 1.0
    average.update(9)
    saved = [tensor.clone() for tensor in average.state()]
    again = WeightAverage(layer, 0.5)
    again.restore(saved)
    for each in (average, again):
        each.update(10)
    assert all(torch.equal(a, b) for a, b in zip(average.state(), again.state(), strict=True))


@pytest.mark.parametrize("name", ["adam", "adamw", "sgd"])
def test_a_parameter_may_have_its_first_gradient_later_than_others(name):
    """As the projection of a language whose turn comes in a later step."""
    early, late = torch.nn.Parameter(torch.zeros(2)), torch.nn.Parameter(torch.zeros(2))
    settings = Optimizer(name=name, lr=0.1, weight_decay=0.0)
    optimizer = build_optimizer([{"params": [early, late], "lr": 0.1}], settings, device=CPU)
    for gradients in ((1.0, None), (None, 1.0), (1.0, 1.0)):
        for parameter, gradient in zip((early, late), gradients, strict=True):
            parameter.grad = None if gradient is None else torch.full((2,), gradient)
        optimizer.step()
    assert (early < 0).all()
    torch.testing.assert_close(early, late)
