"""`tipr doctor`: what is there, what is missing with the line that brings it, and what to do next."""

from __future__ import annotations

import json
import runpy
import tomllib
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from tipr.analysis import doctor
from tipr.analysis.doctor import EXTRAS, Diagnosis, examine, look_around
from tipr.cli import DONE, RUN_TIME_ERROR, USAGE, main
from tipr.config import load
from tipr.retrieval.model_folder import DEMO
from tipr.training import RunConfig
from tipr.training.peak_memory import MemoryPlan

ROOT = Path(__file__).resolve().parents[2]
people = SimpleNamespace(**runpy.run_path(str(ROOT / "tests" / "data" / "training" / "coloured_people.py")))
GIB = 2**30


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """A run that can start: data there, no weights needed."""
    file: Path = people.make_config(tmp_path / "run.yaml", people.make_data(tmp_path / "people"))
    return file


@pytest.fixture
def plan(monkeypatch: pytest.MonkeyPatch) -> MemoryPlan:
    """Every configuration needs the same, for tests of other things: a rehearsal takes seconds."""
    plan = MemoryPlan("cpu", GIB, GIB, 0, 0, GIB, 0, images=5 * GIB)
    monkeypatch.setattr(doctor, "plan_memory", lambda *_, **__: plan)
    return plan


def run(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as stop:
        main(["doctor", *map(str, arguments)])
    out, err = capsys.readouterr()
    return int(stop.value.code or 0), out, err


def shown(found: Diagnosis, what: str) -> tuple[bool, str]:
    finding = next(each for each in found.findings if each.what == what)
    return finding.found, finding.todo


def test_extras_are_those_of_the_package() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = {name: lines for name, lines in project["optional-dependencies"].items() if name != "dev"}
    listed = {name: list(packages) for name, (_, packages) in EXTRAS.items()}
    assert listed == {name: [line.partition(">=")[0] for line in lines] for name, lines in extras.items()}


def test_the_environment_says_what_is_missing_and_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "_installed", lambda name: name != "peft")
    here = look_around()
    missing = {extra.name: (extra.missing, extra.install) for extra in here.extras if extra.missing}
    assert missing == {"translate": (("peft",), 'pip install "tipr[translate]"')}
    assert here.devices[0].name == "cpu"
    assert here.threads >= 1


def test_without_a_configuration_it_lists_the_machine(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys)
    assert code == DONE
    assert out.startswith("tipr ")
    for extra in EXTRAS:
        assert extra in out
    assert "next: tipr demo" in out


def test_a_run_that_can_start_is_told_its_memory_and_its_command(
    config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, err = run(capsys, config)
    assert code == DONE
    assert "96 training pairs, 48 images, 16 people" in out
    assert "for 96 pairs and 48 images (counted)" in out
    assert "main memory: 0." in out
    assert "program 0.54 GiB" in out
    assert out.splitlines()[-1] == f"  next: tipr train {config}"
    assert f"rehearsing a step of {config}" in err


def test_json_has_the_same_facts(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, config, "--json", "--quiet", "--device", "cuda")
    tree = json.loads(out)
    found = tree["configs"][0]
    assert code == DONE
    assert found["ready"] is True
    assert found["memory"]["device"] == "cuda"
    assert found["memory"]["on_device"] > 0
    assert found["todo"] == [f"tipr train {config} --device cuda"]
    assert tree["environment"]["extras"][0]["name"] == "train"


def test_what_is_missing_comes_with_the_command_that_brings_it(plan: MemoryPlan) -> None:
    recipe = ROOT / "configs" / "irra" / "cuhk_pedes.yaml"
    found = examine(recipe)
    assert not found.ready
    assert not found.counted
    assert shown(found, "data") == (False, found.todo[0])
    assert found.todo[0].startswith("put CUHK-PEDES at data/CUHK-PEDES (asked for at https://")
    assert shown(found, "weights") == (False, "tipr import openai_clip models/ViT-B-16.pt models/clip-vit-b-16")
    assert found.todo[-1] == f"tipr train {recipe}"
    assert found.memory is plan
    assert found.scale is not None
    assert found.scale.pairs == 68_126


@pytest.mark.usefixtures("plan")
def test_rendered_people_and_a_first_run_are_made_by_commands() -> None:
    found = examine(ROOT / "configs" / "bi_irra" / "synthetic.yaml")
    assert shown(found, "data") == (False, "tipr data synth data/standard --preset standard")
    start = ROOT / "configs" / "bi_irra" / "synthetic_start.yaml"
    assert shown(found, "weights") == (False, f"tipr train {start}")


def test_a_run_that_cannot_start_ends_with_one(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (config.parent / "people" / "manifest.jsonl").unlink()
    (config.parent / "people").rename(config.parent / "elsewhere")
    code, out, _ = run(capsys, config, "--quiet")
    assert code == RUN_TIME_ERROR
    assert "memory      not known before the data are there" in out
    assert f"next: put a manifest at {config.parent / 'people'} (docs/manifest.md)" in out


@pytest.mark.usefixtures("plan")
def test_weights_that_are_there_and_a_run_that_was_begun(config: Path) -> None:
    text = config.read_text(encoding="utf-8")
    config.write_text(f"{text}start_from: demo\n", encoding="utf-8")
    run_folder = config.parent / "run"
    (run_folder / "checkpoints").mkdir(parents=True)
    (run_folder / "checkpoints" / "step-00000001.pt").touch()
    found = examine(config)
    weights = next(each for each in found.findings if each.what == "weights")
    assert weights.found
    assert str(DEMO) in weights.note
    assert shown(found, "run folder") == (False, f"tipr train --resume {run_folder}, or choose another --out")


def test_a_data_set_that_cannot_be_used_is_sent_to_the_check(config: Path) -> None:
    folder = config.parent / "people"
    (folder / "manifest.jsonl").write_text("{\n", encoding="utf-8")
    found = examine(config)
    assert shown(found, "data") == (False, f"tipr data check manifest {folder}")
    assert found.memory is None


PARTS = ["set data.micro_batch=32 (the same batch, its activations in parts)"]
ON_DISK = ["set data.memory_gib=0 (images are read anew each epoch), or data.pack (tipr data pack)"]


@pytest.mark.parametrize(
    ("device", "short", "advice"),
    [
        ("cpu", (0, None), []),
        ("cpu", (3 * GIB, None), ON_DISK),
        ("cpu", (6 * GIB, None), PARTS),
        ("cuda", (0, 0), []),
        ("cuda", (0, 1), PARTS),
        ("cuda", (1, 1), ON_DISK + PARTS),
    ],
)
def test_memory_that_does_not_suffice_brings_advice(
    device: str, short: tuple[int, int | None], advice: list[str]
) -> None:
    """Images fill 5 GiB; `short` is what main memory and device lack."""
    settings = load(ROOT / "configs" / "irra" / "cuhk_pedes.yaml", RunConfig)
    plan = MemoryPlan(device, GIB, GIB, 0, 0, GIB, 0, images=5 * GIB)
    free = plan.main - short[0], None if short[1] is None else plan.on_device - short[1]
    assert doctor._too_much(settings, plan, free, lambda part: replace(plan, weights=0, images=0)) == advice


def test_the_part_that_suffices_is_rehearsed_or_none_is_proposed() -> None:
    settings = load(ROOT / "configs" / "irra" / "cuhk_pedes.yaml", RunConfig)
    plan = MemoryPlan("cpu", GIB, GIB, 0, 0, 64 * GIB, 0, images=0)
    asked: list[int] = []

    def in_parts(part: int) -> MemoryPlan:
        asked.append(part)
        return replace(plan, step=part * GIB)

    (line,) = doctor._too_much(settings, plan, (20 * GIB, None), in_parts)
    assert asked == [32, 8]
    assert line.startswith("set data.micro_batch=8 ")
    (line,) = doctor._too_much(settings, plan, (5 * GIB, None), in_parts)
    assert line.startswith("find more memory: with data.micro_batch=8 it is ")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere.yaml"], "no configuration file at nowhere.yaml"),
        (["--device", "tpu"], "'tpu' is not one of 'cpu', 'cuda'"),
    ],
)
def test_bad_input_is_named(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    code, _, err = run(capsys, *arguments)
    assert code == USAGE
    assert message in err
