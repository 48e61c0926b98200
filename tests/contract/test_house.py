"""What the house promises: public names, quick start-up, pinned dependencies, no dumping grounds."""

from __future__ import annotations

import importlib
import importlib.metadata
import keyword
import re
import subprocess
import sys
import time
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SOURCE = ROOT / "src" / "tipr"


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, *arguments], capture_output=True, text=True, check=False)


def test_public_names() -> None:
    import tipr

    assert tipr.__all__ == ["Gallery", "Hit", "Reranker", "Retriever", "__version__", "evaluate", "train"]
    for name in tipr.__all__:
        assert getattr(tipr, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        tipr.nothing  # noqa: B018
    assert tipr.__version__ == importlib.metadata.version("tipr")


@pytest.mark.parametrize(
    ("module", "names"),
    [
        ("tipr.losses", {"sdm_loss", "itc_loss", "cmpm_loss", "identity_loss", "mlm_loss"}),
        ("tipr.metrics", {"RetrievalMetrics", "retrieval_metrics", "retrieval_metrics_from_features"}),
        ("tipr.importers", {"IMPORTERS", "read"}),
        ("tipr.encoders", {"ENCODERS", "Encoded", "Encoder"}),
        ("tipr.methods", {"METHODS", "Method", "StepContext", "StepOutput"}),
        ("tipr.data.datasets", {"DATASETS"}),
        ("tipr.gallery", {"Gallery", "Hit"}),
    ],
)
def test_names_that_others_build_on(module: str, names: set[str]) -> None:
    loaded = importlib.import_module(module)
    assert names <= set(loaded.__all__)
    for name in loaded.__all__:
        assert hasattr(loaded, name), name


def test_import_tipr_is_light() -> None:
    heavy = "{'torch', 'transformers', 'lancedb', 'numpy', 'lightning_fabric', 'rich'}"
    child = run("-c", f"import sys, tipr, tipr.errors, tipr.cli; print(sorted({heavy} & set(sys.modules)))")
    assert child.stdout.strip() == "[]", child.stderr


def test_gallery_needs_neither_torch_nor_transformers() -> None:
    heavy = "{'torch', 'transformers', 'lightning_fabric'}"
    child = run("-c", f"import sys, tipr.gallery; print(sorted({heavy} & set(sys.modules)))")
    assert child.stdout.strip() == "[]", child.stderr


def test_help_is_quick_and_lists_every_command() -> None:
    from tipr.cli import COMMANDS

    seconds = []
    for _ in range(3):
        started = time.perf_counter()
        child = run("-m", "tipr", "--help")
        seconds.append(time.perf_counter() - started)
        assert child.returncode == 0
    assert min(seconds) <= 3 * 0.5
    for said in ("--debug", "0 done; 1 run-time error; 2 usage", "5 damaged data", "130 interrupted"):
        assert said in " ".join(child.stdout.split())
    for name in COMMANDS:
        assert name in child.stdout
        file = f"{name}_.py" if keyword.iskeyword(name) else f"{name}.py"
        assert (SOURCE / "cli" / file).is_file(), f"{name} is promised but has no file"
        assert run("-m", "tipr", name, "--help").returncode == 0


def test_no_dumping_grounds_and_no_long_files() -> None:
    for path in SOURCE.rglob("*.py"):
        assert path.stem not in ("utils", "helpers", "common", "misc"), path
        assert len(path.read_text(encoding="utf-8").splitlines()) <= 450, path


def test_every_installed_dependency_is_pinned() -> None:
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pinned = {}
    for line in lines:
        name, _, version = line.partition("==")
        assert re.fullmatch(r"[A-Za-z0-9._-]+==[A-Za-z0-9.+!]+", line), f"{line!r} is not an exact pin"
        pinned[canonical(name)] = version
    for name in dependencies("tipr", {"train", "fast", "translate", "dev"}):
        assert name in pinned, f"{name} is installed but not pinned"
        installed = importlib.metadata.version(name).partition("+")[0]
        assert installed == pinned[name], f"{name}: installed {installed}, pinned {pinned[name]}"


def test_version_is_stated_once_everywhere() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert f"version: {project['version']}" in (ROOT / "CITATION.cff").read_text(encoding="utf-8")


def canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def dependencies(root: str, extras: set[str]) -> set[str]:
    """All distributions that `root` with its extras needs here."""
    from packaging.requirements import Requirement

    found: set[str] = set()
    waiting = [(root, frozenset(extras))]
    seen: set[tuple[str, frozenset[str]]] = set()
    while waiting:
        name, wanted = waiting.pop()
        if (name, wanted) in seen:
            continue
        seen.add((name, wanted))
        for text in importlib.metadata.requires(name) or []:
            requirement = Requirement(text)
            marker = requirement.marker
            if marker and not any(marker.evaluate({"extra": extra}) for extra in (wanted or {""})):
                continue
            child = canonical(requirement.name)
            if child != root:
                found.add(child)
            waiting.append((child, frozenset(requirement.extras) if child != root else wanted))
    return found
