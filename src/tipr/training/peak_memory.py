"""How much memory a run will need, told before it starts: its step, rehearsed with tensors that have no values.

The step runs forward and backward on torch's fake tensors, which have shapes, types and lifetimes and nothing in them.
A ledger adds up what lives at each moment, so the answer follows every encoder, method and setting without a formula
for any of them. What a run holds besides (program, images, banks, optimiser state) is counted.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.weak import WeakIdKeyDictionary

from tipr.data.images import CLIP_MEAN, CLIP_STD, normalise
from tipr.methods import Method, StepContext
from tipr.training.blueprint import Batch, Scale, autocast, build_method, stand_in_batch
from tipr.training.run_config import RunConfig

PROGRAM = 550 * 2**20
"""Bytes of main memory that Python holds with torch, transformers and the training stack, before any model."""
ALLOCATOR = 1.08
"""Main memory taken over what tensors ask for: freed blocks that wait to be used again, scratch space of kernels."""
STATES = {"adam": 2, "adamw": 2, "sgd": 1}
"""Float32 numbers that an optimiser keeps of every trained one."""
PREFETCH = 2
"""Batches that every loader process makes ahead."""


@dataclass(frozen=True)
class MemoryPlan:
    """Bytes that one process of a run needs at its peak.

    Attributes:
        device: "cpu" or "cuda": where the step runs. On "cpu" everything is in main memory.
        weights: of the method, heads included.
        optimizer: its state.
        banks: what the method keeps of every training pair, and other buffers.
        average: the running mean of the weights and the encoder that shows it.
        step: gradients, activations and everything else that comes and goes in a training step; or in a pass without
            gradient, if that is more.
        batches: of the loader, the one in use included.
        images: decoded images that stay in memory.
        program: the program itself.
    """

    device: str
    weights: int
    optimizer: int
    banks: int
    average: int
    step: int
    batches: int
    images: int
    program: int = PROGRAM

    @property
    def on_device(self) -> int:
        """Bytes on the accelerator; 0 on "cpu"."""
        return 0 if self.device == "cpu" else self._model

    @property
    def main(self) -> int:
        """Bytes of main memory."""
        held = self.images + self.program
        if self.device != "cpu":
            return held + self.batches
        return held + round(ALLOCATOR * (self._model + self.batches))

    @property
    def _model(self) -> int:
        return self.weights + self.optimizer + self.banks + self.average + self.step

    def to_json(self) -> dict[str, Any]:
        """A tree of JSON values, with the sums."""
        return {**asdict(self), "on_device": self.on_device, "main": self.main}


def plan_memory(config: RunConfig, scale: Scale, *, device: str = "cpu") -> MemoryPlan:
    """The peak memory of one process of a run; takes seconds, and hardly any memory.

    Args:
        config: of the run.
        scale: how much data it has.
        device: "cpu" or "cuda", where it would run; the machine that asks need not have it.

    Raises:
        ConfigError: method, encoder and scale do not fit.
    """
    with torch.device("meta"):
        method = build_method(config, scale)
    rows = config.data.batch_size // config.processes
    batch = stand_in_batch(config, method, rows=rows, filled=scale.filled)
    trained = sum(parameter.numel() for parameter in method.parameters() if parameter.requires_grad)
    encoder = _bytes(method.encoder.parameters())
    banks = _bytes(method.buffers())
    size = 3 * method.encoder.image_size[0] * method.encoder.image_size[1]
    budget = int(config.data.memory_gib * 2**30)
    splits = () if config.data.pack is not None else (scale.images, scale.held_out_images)
    images = sum(count * size for count in splits if count * size <= budget)
    batch_bytes = _bytes(value for value in vars(batch).values() if isinstance(value, Tensor))
    return MemoryPlan(
        device=device,
        weights=_bytes(method.parameters()),
        optimizer=4 * STATES[config.optimizer.name] * trained,
        banks=banks,
        average=0 if config.ema is None else 2 * encoder,
        step=_rehearse(config, method, batch, pairs=scale.pairs, fused=device != "cpu"),
        batches=batch_bytes * (1 + PREFETCH * config.data.workers),
        images=images,
    )


def _rehearse(config: RunConfig, method: Method, batch: Batch, *, pairs: int, fused: bool) -> int:
    """Most bytes that live at a time in one step or scoring pass, beyond weights, buffers and the batch."""
    context = StepContext(epoch=getattr(config.method, "relation_start_epoch", 1))
    ledger = Ledger(batch)
    with FakeTensorMode(), ledger, _fused_attention(on=fused):
        _give_values_away(method)
        given = ledger.stand_in()
        before = ledger.start()
        with autocast(config, "cpu"):
            losses = method(given, context).losses
        torch.stack(list(losses.values())).sum().backward()  # type: ignore[no-untyped-call]
        step = ledger.peak - before
        method.zero_grad()
        del losses
        before = ledger.start()
        return max(step, _score(config, method, pairs) + ledger.peak - before)


def _score(config: RunConfig, method: Method, pairs: int) -> int:
    """Encode images as a run does to score a split, or to fill banks; nothing when it does neither.

    Returns:
        bytes of the encoder that is read back from disk for it, or of the features of all pairs.
    """
    scored = config.selection.split != "last"
    if not scored and not config.bare_pairs:
        return 0
    images = torch.empty(config.selection.batch_size, 3, *method.encoder.image_size, dtype=torch.uint8)
    # the models that a run ends with are scored as they were written, in float32
    with torch.no_grad(), nullcontext() if scored else autocast(config, "cpu"):
        method.eval().encoder.image_features(normalise(images, CLIP_MEAN, CLIP_STD))
    features = 2 * 4 * pairs * method.encoder.embed_dim if config.bare_pairs else 0
    return max(features, _bytes(method.encoder.parameters()) if scored else 0)


class Ledger(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Adds up the storage of the tensors that are alive.

    Fake tensors have no values, so nobody can say how many entries of a mask are True. The ledger knows the share in
    the masks and labels of a batch, follows it through views, comparisons and concatenation, and answers for them.

    Args:
        batch: of the step that is watched, with its values.
    """

    def __init__(self, batch: Batch) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.live = self.peak = 0
        self._seen: Any = WeakIdKeyDictionary()
        self._true: Any = WeakIdKeyDictionary()
        self._batch = batch
        self._columns = 0
        self._shares: dict[str, float] = {}
        for name, value in vars(batch).items():
            if not isinstance(value, Tensor):
                continue
            if name.endswith("ids"):
                self._columns = value.shape[1]
            elif name.endswith(("mask", "labels")):
                self._shares[name] = float((value > 0).float().mean())  # a label that does not count is negative

    def start(self) -> int:
        """Bytes alive now; the peak is counted from here on."""
        self.peak = self.live
        return self.live

    def stand_in(self) -> Batch:
        """The batch in fake tensors, its masks and labels known by their shares."""
        given: dict[str, Any] = {}
        for name, value in vars(self._batch).items():
            given[name] = value
            if isinstance(value, Tensor):
                fake = given[name] = torch.empty(value.shape, dtype=value.dtype)
                if name in self._shares:
                    self._true[fake.untyped_storage()] = self._shares[name]
        return type(self._batch)(**given)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run an operation and enter what it made."""
        aten = torch.ops.aten
        if func is aten.nonzero.default:
            out = torch.empty(self._count(args[0]), args[0].dim(), dtype=torch.int64)
        elif func is aten.index.Tensor and any(index is not None and index.dtype == torch.bool for index in args[1]):
            out = args[0].new_empty(self._count(args[1][0]), *args[0].shape[args[1][0].dim() :])
        elif func is aten._local_scalar_dense.default:
            # All that a step asks for: whether a mask hides nothing, and how long the longest caption is.
            return False if args[0].dtype == torch.bool else self._columns
        else:
            out = func(*args, **(kwargs or {}))
        if func is aten.ne.Scalar and args[0].untyped_storage() in self._true:
            self._true[out.untyped_storage()] = self._true[args[0].untyped_storage()]
        if func is aten.cat.default and out.dtype == torch.bool:
            self._true[out.untyped_storage()] = sum(self._count(part) for part in args[0]) / max(1, out.numel())
        for tensor in tree_leaves(out):
            if isinstance(tensor, Tensor):
                self._enter(tensor.untyped_storage())
        return out

    def _count(self, mask: Tensor) -> int:
        """How many entries of a mask are True, if it has the known share of them; else all."""
        share: float = self._true.get(mask.untyped_storage(), 1.0)
        return round(share * mask.numel())

    def _enter(self, storage: torch.UntypedStorage) -> None:
        if storage in self._seen:
            return
        size = self._seen[storage] = storage.nbytes()
        self.live += size
        self.peak = max(self.peak, self.live)
        weakref.finalize(storage, self._leave, size)

    def _leave(self, size: int) -> None:
        self.live -= size


def _give_values_away(method: Method) -> None:
    """Put fake tensors of the CPU in place of a method's parameters and buffers; shared ones stay shared."""
    made: dict[int, nn.Parameter] = {}
    for module in method.modules():
        for name, parameter in module._parameters.items():
            if parameter is not None:
                if id(parameter) not in made:
                    empty = torch.empty(parameter.shape, dtype=parameter.dtype)
                    made[id(parameter)] = nn.Parameter(empty, requires_grad=parameter.requires_grad)
                module._parameters[name] = made[id(parameter)]
        for name, buffer in module._buffers.items():
            if buffer is not None:
                module._buffers[name] = torch.empty(buffer.shape, dtype=buffer.dtype)


@contextmanager
def _fused_attention(*, on: bool) -> Iterator[None]:
    if not on:
        yield
        return
    with _Fused():
        yield


class _Fused(TorchFunctionMode):
    """Attention as accelerators compute it: with any mask and with dropout, the table of weights never exists."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        if func is F.scaled_dot_product_attention:
            kwargs.pop("attn_mask", None)
            kwargs["dropout_p"] = 0.0
            args = args[:3]
        return func(*args, **kwargs)


def _bytes(tensors: Iterable[Tensor]) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)
