"""What holds for all tests."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import pytest


def pytest_configure() -> None:
    # A shell starts background jobs with Ctrl-C ignored, and children inherit that; here they are sent Ctrl-C.
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture
def foreign_files_read_here(monkeypatch: pytest.MonkeyPatch) -> None:
    """Read foreign files in this process, for tests of what becomes of the tensors: a child costs a second each.

    `tests/unit/test_foreign_files.py` is about the child.
    """
    from tipr.errors import WeightsError
    from tipr.importers import foreign_files, foreign_reader

    def ask(path: Path, request: dict[str, Any], *, patience: int) -> None:
        with os.fdopen(os.dup(request["descriptor"]), "wb") as stream:
            try:
                foreign_reader.write(foreign_reader.read(path, request["kind"]), stream)
            except foreign_reader.Unreadable as error:
                raise WeightsError(f"{path} {error}") from None

    monkeypatch.setattr(foreign_files, "_ask", ask)
