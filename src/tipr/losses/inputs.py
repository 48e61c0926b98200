"""What every loss does with its inputs: full precision inside, and shape errors that name the shapes."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from functools import wraps
from typing import ParamSpec, TypeVar

import torch
from torch import Tensor
from torch.nn import functional as F

P = ParamSpec("P")
Result = TypeVar("Result")


def full_precision(loss: Callable[P, Result]) -> Callable[P, Result]:
    """Run a loss in float32: half-precision arguments are widened (float64 stays), autocast is off inside.

    Without the second half, autocast would compute the similarity matrix in half precision although the
    features are float32.
    """

    @wraps(loss)
    def run(*args: P.args, **kwargs: P.kwargs) -> Result:
        device = next(a.device.type for a in (*args, *kwargs.values()) if isinstance(a, Tensor))
        autocast = torch.amp.is_autocast_available(device)  # not on the meta device
        with torch.autocast(device_type=device, enabled=False) if autocast else nullcontext():
            return loss(
                *(_widen(a) for a in args),  # type: ignore[arg-type]
                **{k: _widen(v) for k, v in kwargs.items()},  # type: ignore[arg-type]
            )

    return run


def _widen(value: object) -> object:
    if isinstance(value, Tensor) and value.is_floating_point() and value.dtype != torch.float64:
        return value.float()
    return value


def check_pairs(image: Tensor, text: Tensor, identity: Tensor | None = None) -> None:
    """Refuse anything but (N, D) image, (N, D) text and, when given, (N,) identity with N > 0.

    Raises:
        ValueError: naming the shapes that were given.
    """
    if image.ndim != 2 or image.shape != text.shape or not len(image):
        raise ValueError(
            f"image and text must both be (N, D) with N > 0, got {tuple(image.shape)} and {tuple(text.shape)}"
        )
    if identity is not None:
        check_identity(identity, len(image))


def check_identity(identity: Tensor, rows: int, name: str = "identity") -> None:
    """Refuse an `identity` (or another numbering, called `name`) that is not (rows,) of integers.

    Raises:
        ValueError: naming the shape and dtype that were given.
    """
    if identity.shape != (rows,) or identity.is_floating_point():
        raise ValueError(f"{name} must be ({rows},) integers, got {tuple(identity.shape)} {identity.dtype}")


def check_temperature(temperature: float | Tensor) -> None:
    """Refuse a temperature <= 0; a tensor is not looked at, because reading it would wait for the device.

    Raises:
        ValueError: naming the value.
    """
    if not isinstance(temperature, Tensor) and not temperature > 0:
        raise ValueError(f"temperature must be > 0, got {temperature}")


def cosine(image: Tensor, text: Tensor) -> Tensor:
    """(N, N) cosine similarity of every image (row) with every text (column); 0 for a zero vector."""
    return F.normalize(image, dim=-1) @ F.normalize(text, dim=-1).T


def same_identity(identity: Tensor, dtype: torch.dtype) -> Tensor:
    """(N, N) matrix with 1 where two rows show the same person, else 0."""
    return (identity[:, None] == identity[None, :]).to(dtype)
