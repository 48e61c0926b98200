"""Optimiser groups, learning-rate schedule and the running mean of weights."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn

from tipr.training.run_config import Optimizer, Schedule

Group = dict[str, Any]


def parameter_groups(
    parameters: Iterable[tuple[str, nn.Parameter]],
    factor: Callable[[str, nn.Parameter], tuple[float, float]],
    *,
    lr: float,
    weight_decay: float,
) -> list[Group]:
    """Merge parameters with equal settings into one group each: 4-5 groups instead of one for every tensor.

    Args:
        parameters: (name, parameter); those without gradient are left out.
        factor: (name, parameter) -> (learning-rate factor, weight-decay factor), `Method.learning_rate_factor`.
        lr, weight_decay: base values.

    Returns:
        groups in order of first appearance, with `params`, `lr`, `initial_lr` and `weight_decay`.
    """
    groups: dict[tuple[float, float], Group] = {}
    for name, parameter in parameters:
        if not parameter.requires_grad:
            continue
        rate, decay = factor(name, parameter)
        group = groups.setdefault(
            (rate, decay),
            {"params": [], "lr": lr * rate, "initial_lr": lr * rate, "weight_decay": weight_decay * decay},
        )
        group["params"].append(parameter)
    return list(groups.values())


def build_optimizer(groups: list[Group], config: Optimizer, *, device: torch.device) -> torch.optim.Optimizer:
    """The configured optimiser over groups; Adam fused where torch has it (CPU and CUDA)."""
    if config.name == "sgd":
        # not fused: that fails where a parameter has its first gradient after the first step (one of several languages)
        return torch.optim.SGD(groups, lr=config.lr, momentum=config.betas[0])
    fused = device.type in ("cpu", "cuda")
    kind = torch.optim.Adam if config.name == "adam" else torch.optim.AdamW
    return kind(groups, lr=config.lr, betas=config.betas, eps=config.eps, fused=fused)


def rate_factor(config: Schedule, *, done: int, total: int, warmup: int | None = None) -> float:
    """Factor on the base learning rate (irra.md 7, bi-irra.md 6).

    With k units done, W of warm-up and E in all: k < W gives s (1 - k/W) + k/W from the start factor s, or with
    W - 1 for W where the warm-up is inclusive; later f + (1 - f) (1 + cos(pi (k - W) / (E - W))) / 2 down to the final
    factor f.

    Args:
        config: the schedule.
        done: k, units (epochs or steps) completed before the current one.
        total: E, units of the whole run.
        warmup: W; None: that of the schedule.
    """
    warmup = config.warmup if warmup is None else warmup
    if done < warmup:
        share = done / (max(1, warmup - 1) if config.warmup_inclusive else warmup)
        return config.warmup_start * (1 - share) + share
    if config.kind == "constant" or total <= warmup:
        return 1.0
    share = min(1.0, (done - warmup) / (total - warmup))
    return config.final + (1 - config.final) * 0.5 * (1 + math.cos(math.pi * share))


def set_rate(optimizer: torch.optim.Optimizer, factor: float) -> None:
    """Give every group its own base rate times the factor."""
    for group in optimizer.param_groups:
        group["lr"] = group["initial_lr"] * factor


class WeightAverage:
    """Exponential running mean of a module's parameters, in float32.

    The mean starts as a copy; step t (from 0) uses min(decay, (1 + t) / (10 + t)), so that early weights fade quickly.

    Args:
        module: whose parameters are followed; buffers are copied when they are read.
        decay: of the old mean at every step, in (0, 1).
    """

    def __init__(self, module: nn.Module, decay: float) -> None:
        self.decay = decay
        self._source = [parameter.detach() for parameter in module.parameters()]  # views: they see every update
        self._mean = [parameter.float().clone() for parameter in self._source]

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Move the mean towards the weights that optimiser step `step` (from 0) has made."""
        decay = min(self.decay, (1 + step) / (10 + step))
        torch._foreach_lerp_(self._mean, self._source, 1 - decay)

    @torch.no_grad()
    def copy_to(self, module: nn.Module) -> None:
        """Write the mean into a module of the same layout."""
        for parameter, mean in zip(module.parameters(), self._mean, strict=True):
            parameter.copy_(mean)

    def state(self) -> list[Tensor]:
        """The mean, for a checkpoint."""
        return self._mean

    def restore(self, mean: list[Tensor]) -> None:
        """Go on from a checkpoint's mean."""
        for own, saved in zip(self._mean, mean, strict=True):
            own.copy_(saved)
