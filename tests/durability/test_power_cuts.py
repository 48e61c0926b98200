"""A power cut keeps what was synced; with `durability="power"` that is every acknowledged row."""

from __future__ import annotations

from pathlib import Path

import pytest
from power_cuts import Outcome, cut_many

from tipr.errors import ConfigError
from tipr.gallery import Gallery
from tipr.gallery.settings import read_settings


def _check(outcome: Outcome, cuts: int) -> None:
    assert outcome.cuts == cuts
    assert outcome.not_opened == []
    assert outcome.lost == []
    assert outcome.half_visible == []
    assert outcome.erased_left == []


def test_power_cuts_lose_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _check(cut_many(tmp_path, 50, 1, monkeypatch.setattr, "power"), 50)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(2, 7))
def test_many_power_cuts_lose_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seed: int) -> None:
    outcome = cut_many(tmp_path, 200, seed, monkeypatch.setattr, "power")
    _check(outcome, 200)
    assert outcome.stepped_back, "no cut tore a manifest: the test is too kind"


def test_the_durability_is_chosen_when_a_gallery_is_made(tmp_path: Path) -> None:
    from test_state_machine import Blind

    for durability in ("process", "power"):
        Gallery.create(tmp_path / durability, Blind(), durability=durability)  # type: ignore[arg-type]
        assert read_settings(tmp_path / durability)["durability"] == durability
        assert Gallery.open(tmp_path / durability)._store._files._power is (durability == "power")  # type: ignore[attr-defined]
    with pytest.raises(ConfigError, match="unknown durability 'disk'; known: process, power"):
        Gallery.create(tmp_path / "disk", Blind(), durability="disk")  # type: ignore[arg-type]
    assert not (tmp_path / "disk").exists()


def test_without_syncs_a_power_cut_takes_acknowledged_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    outcome = cut_many(tmp_path, 10, 1, monkeypatch.setattr, "process")
    assert outcome.lost or outcome.not_opened
