"""SIGKILL at random moments and at named points: nothing that was acknowledged is lost, nothing is half there."""

from __future__ import annotations

from pathlib import Path

import pytest
from kills import Outcome, kill_many


def _check(outcome: Outcome, kills: int) -> None:
    assert outcome.kills == kills
    assert outcome.lost == []
    assert outcome.half_visible == []
    assert outcome.not_opened == []
    assert outcome.heavy == set(), "a child imported torch or transformers"


def test_kills_lose_nothing(tmp_path: Path) -> None:
    outcome = kill_many(tmp_path, 20, seed=1)
    _check(outcome, 20)
    assert len(outcome.points) == 11


@pytest.mark.slow
def test_many_kills_lose_nothing(tmp_path: Path) -> None:
    outcome = kill_many(tmp_path, 240, seed=2)
    _check(outcome, 240)
    assert len(outcome.points) == 24
    assert {"add", "update", "remove", "erase", "compact"} <= set(outcome.in_flight)
