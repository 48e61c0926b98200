"""Memory banks: what is read when, how rows mix, what survives a checkpoint, how much memory they hold."""

from __future__ import annotations

import io

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from tipr.methods.memory_bank import MemoryBank

PAIRS, WIDTH = 7, 3
ALL = torch.arange(PAIRS)


def features(seed: int, rows: int = PAIRS) -> Tensor:
    return torch.randn(rows, WIDTH, generator=torch.Generator().manual_seed(seed))


def filled(**options: object) -> MemoryBank:
    bank = MemoryBank(PAIRS, WIDTH, **options)  # type: ignore[arg-type]
    bank.fill(ALL, features(0))
    return bank


def test_reads_of_an_epoch_see_the_epoch_before() -> None:
    bank, start = filled(momentum=0.25), features(0)
    bank.write(torch.tensor([1, 4]), features(1, 2))
    bank.write(torch.tensor([5]), features(2, 1))
    assert torch.equal(bank.read(), start)
    bank.end_epoch()
    expected = start.clone()
    expected[[1, 4]] = 0.25 * features(1, 2) + 0.75 * start[[1, 4]]
    expected[5] = 0.25 * features(2, 1)[0] + 0.75 * start[5]
    torch.testing.assert_close(bank.read(), expected)


def test_a_row_written_twice_in_an_epoch_starts_from_the_epoch_before_both_times() -> None:
    bank = filled(momentum=0.5)
    bank.write(torch.tensor([2]), features(1, 1))
    bank.write(torch.tensor([2]), features(2, 1))
    bank.end_epoch()
    torch.testing.assert_close(bank.read()[2], (features(2, 1)[0] + features(0)[2]) / 2)


def test_unvisited_rows_keep_their_value_over_many_epochs() -> None:
    bank = filled()
    for epoch in range(4):
        visited = torch.tensor([epoch, 6])
        before = bank.read().clone()
        bank.write(visited, features(epoch, 2))
        bank.end_epoch()
        left = torch.tensor([row for row in range(PAIRS) if row not in visited.tolist()])
        assert torch.equal(bank.read()[left], before[left])
        assert not torch.equal(bank.read()[visited], before[visited])


def test_step_update_is_readable_at_once() -> None:
    bank, rows = filled(update="step", momentum=0.25), torch.tensor([3, 0])
    bank.write(rows, features(1, 2))
    expected = features(0)
    expected[rows] = 0.25 * features(1, 2) + 0.75 * expected[rows]
    torch.testing.assert_close(bank.read(), expected)
    torch.testing.assert_close(bank.inverse_norm, 1 / expected.norm(dim=1))
    held = bank.read().clone()
    bank.end_epoch()
    assert torch.equal(bank.read(), held)


@pytest.mark.parametrize("update", ["epoch", "step"])
def test_normalised_rows_stay_unit_vectors(update: str) -> None:
    bank, rows = filled(update=update, normalise=True, momentum=0.25), torch.tensor([3, 0])
    torch.testing.assert_close(bank.read(), F.normalize(features(0), dim=1))
    bank.write(rows, 100 * features(1, 2))
    bank.end_epoch()
    mixed = 0.25 * F.normalize(features(1, 2), dim=1) + 0.75 * F.normalize(features(0)[rows], dim=1)
    torch.testing.assert_close(bank.read()[rows], F.normalize(mixed, dim=1))
    torch.testing.assert_close(bank.inverse_norm, torch.ones(PAIRS))


def test_plain_rows_are_stored_as_the_encoder_gives_them() -> None:
    bank = filled()
    assert torch.equal(bank.read(), features(0))
    torch.testing.assert_close(bank.inverse_norm, 1 / features(0).norm(dim=1))


def test_norms_follow_the_rows_that_are_read() -> None:
    bank = filled()
    bank.write(ALL, 9 * features(1))
    torch.testing.assert_close(bank.inverse_norm, 1 / features(0).norm(dim=1))
    bank.end_epoch()
    torch.testing.assert_close(bank.inverse_norm, 1 / bank.read().norm(dim=1))


def test_a_zero_row_has_no_direction() -> None:
    bank = MemoryBank(2, WIDTH)
    bank.fill(torch.arange(2), torch.tensor([[0.0, 0, 0], [0, 2, 0]]))
    assert bank.inverse_norm.tolist() == [0, 0.5]


@pytest.mark.parametrize("update", ["epoch", "step"])
def test_a_checkpoint_in_mid_epoch_continues_the_same(update: str) -> None:
    bank = filled(update=update)
    bank.write(torch.tensor([1, 2]), features(1, 2))
    stream = io.BytesIO()
    torch.save(bank.state_dict(), stream)
    stream.seek(0)
    again = MemoryBank(PAIRS, WIDTH, update=update)  # type: ignore[arg-type]
    again.load_state_dict(torch.load(stream, weights_only=True))
    for one in (bank, again):
        one.write(torch.tensor([2, 6]), features(2, 2))
        one.end_epoch()
    assert torch.equal(again.read(), bank.read())
    assert torch.equal(again.inverse_norm, bank.inverse_norm)


def test_nothing_is_learnt_and_no_graph_is_kept() -> None:
    bank, fresh = filled(update="step"), features(1).requires_grad_()
    bank.write(ALL, fresh)
    assert list(bank.parameters()) == []
    assert not bank.read().requires_grad
    assert set(bank.state_dict()) == {"current", "inverse_norm"}
    assert set(filled().state_dict()) == {"current", "coming", "inverse_norm"}


def test_half_precision_features_are_stored_in_single_precision() -> None:
    bank = MemoryBank(PAIRS, WIDTH)
    bank.fill(ALL, features(0).bfloat16())
    bank.write(ALL, features(1).bfloat16())
    bank.end_epoch()
    assert bank.read().dtype == torch.float32
    torch.testing.assert_close(bank.read(), (features(0).bfloat16().float() + features(1).bfloat16().float()) / 2)


@pytest.mark.parametrize(("update", "copies"), [("epoch", 2), ("step", 1)])
def test_memory_held_is_what_was_announced(update: str, copies: int) -> None:
    bank = MemoryBank(1000, 64, update=update)  # type: ignore[arg-type]
    held = sum(buffer.numel() * buffer.element_size() for buffer in bank.buffers())
    assert held == MemoryBank.memory_needed(1000, 64, update=update)  # type: ignore[arg-type]
    # rows, and beside them one number a row
    assert held == copies * 1000 * 64 * 4 + 1000 * 4


class LargestResult(TorchDispatchMode):
    """The most elements that any operation made anew."""

    def __init__(self, *known: Tensor) -> None:
        super().__init__()
        self.known = {tensor.untyped_storage().data_ptr() for tensor in known}
        self.elements = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        out = func(*args, **(kwargs or {}))
        for tensor in out if isinstance(out, tuple | list) else (out,):
            if isinstance(tensor, Tensor) and tensor.untyped_storage().data_ptr() not in self.known:
                self.elements = max(self.elements, tensor.numel())
        return out


@pytest.mark.parametrize("normalise", [False, True])
def test_no_further_copy_of_a_bank_is_made(normalise: bool) -> None:
    pairs, width = 20_000, 32
    bank, start = MemoryBank(pairs, width, normalise=normalise), torch.ones(pairs, width)
    with LargestResult(*bank.buffers(), start) as largest:
        bank.fill(torch.arange(pairs), start)
        bank.write(torch.arange(64), torch.ones(64, width))
        bank.end_epoch()
    assert largest.elements < pairs * width / 4


def test_no_call_waits_for_an_accelerator() -> None:
    """The meta device has no values: whatever needs one fails on it."""
    rows = torch.arange(2, device="meta")
    for update in ("epoch", "step"):
        bank = MemoryBank(PAIRS, WIDTH, update=update, normalise=True).to("meta")  # type: ignore[arg-type]
        bank.fill(rows, torch.ones(2, WIDTH, device="meta"))
        bank.write(rows, torch.ones(2, WIDTH, device="meta"))
        bank.end_epoch()
    with pytest.raises(RuntimeError):
        bank.read().sum().item()


@pytest.mark.parametrize(
    ("arguments", "options", "message"),
    [
        ((0, 4), {}, "pairs >= 1 and width >= 1, got 0 and 4"),
        ((4, 4), {"momentum": 0.0}, r"momentum must lie in \(0, 1\), got 0.0"),
        ((4, 4), {"momentum": 1.0}, r"momentum must lie in \(0, 1\), got 1.0"),
        ((4, 4), {"update": "never"}, "'epoch' or 'step', got 'never'"),
    ],
)
def test_wrong_settings_are_named(arguments: tuple[int, int], options: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        MemoryBank(*arguments, **options)  # type: ignore[arg-type]
