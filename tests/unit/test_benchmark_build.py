"""Building a set of rendered people: the same bytes however it is made, and nothing half-made under the final name."""

from __future__ import annotations

import fcntl
import json
import multiprocessing
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import fields
from itertools import pairwise
from pathlib import Path

import pytest

from tipr.cli import main
from tipr.data.datasets import DATASETS
from tipr.data.manifest import read_manifest
from tipr.data.synthetic.benchmark import build, people_of, read_info
from tipr.data.synthetic.presets import PRESETS, Knobs, knobs_of
from tipr.errors import ConfigError, DatasetError

SMALL = knobs_of("tiny", {"identities": (4, 2, 3), "images": 2, "width": 24, "height": 72})


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("sets") / "small"
    assert build(out, SMALL).built
    return out


def test_any_number_of_workers_gives_the_same_bytes(small: Path, tmp_path: Path) -> None:
    steps: list[tuple[int, int]] = []
    build(tmp_path / "two", SMALL, workers=2, progress=lambda done, total: steps.append((done, total)))
    assert contents(tmp_path / "two") == contents(small)
    assert steps == [(2 * person, 18) for person in range(1, 10)]


def test_layout_and_record(small: Path) -> None:
    assert sorted(path.name for path in small.iterdir()) == [
        "DATA_STATEMENT.md", "benchmark.json", "images", "manifest.jsonl", "paraphrase.jsonl",
    ]  # fmt: skip
    records = read_manifest(small / "manifest.jsonl")
    assert [record.split for record in records] == ["train"] * 8 + ["val"] * 4 + ["test"] * 6
    assert [record.identity for record in records] == [position // 2 for position in range(18)]
    for record in records:
        assert [caption.language for caption in record.captions] == ["en", "en", "zh", "zh", "fr", "fr", "de", "de"]
        assert record.time is not None
    assert len({record.camera for record in records[:2]}) == 2
    info = read_info(small)
    assert info["splits"]["test"] == {"identities": 3, "images": 6, "captions": 48}
    assert info["knobs"] == json.loads(SMALL.model_dump_json())
    assert info["reference_reader"]["chance_recall_1"] == pytest.approx(100 / 3, abs=0.01)
    assert info["reference_reader"]["queries"] == 12
    statement = (small / "DATA_STATEMENT.md").read_text(encoding="utf-8")
    assert info["manifest_sha256"] in statement
    for part in ("Licence", "Not good for", "Nobody is depicted"):
        assert part in statement


def test_every_split_loads(small: Path) -> None:
    reader = DATASETS["synthetic"]
    assert reader.load(small, "train").identity_count == 4
    test, paraphrase = reader.load(small, "test"), reader.load(small, "paraphrase")
    assert test.images == paraphrase.images
    assert test.image_identity.tolist() == paraphrase.image_identity.tolist()
    assert not {sample.caption for sample in test.samples} & {sample.caption for sample in paraphrase.samples}


def test_making_it_again_is_a_no_op(small: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in small.rglob("*")}
    again = build(small, SMALL)
    assert not again.built
    assert again.manifest_sha256 == read_info(small)["manifest_sha256"]
    assert again.reference is not None
    assert {path: path.stat().st_mtime_ns for path in small.rglob("*")} == before


def test_a_stopped_run_leaves_no_set_and_continues(small: Path, tmp_path: Path) -> None:
    out = tmp_path / "set"

    def stop(done: int, total: int) -> None:
        if done >= 10:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build(out, SMALL, progress=stop)
    assert not out.exists()
    left = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.jpg")}
    assert len(left) == 10
    torn = next(iter(left))
    torn.write_bytes(torn.read_bytes()[:50])  # as after a loss of power
    kept = {path.relative_to(tmp_path / "set.partial"): when for path, when in left.items() if path != torn}
    build(out, SMALL)
    assert contents(out) == contents(small)
    assert {path: (out / path).stat().st_mtime_ns for path in kept} == kept
    assert [path.name for path in tmp_path.iterdir()] == ["set"]


def test_a_stopped_run_of_other_knobs_is_not_mixed_in(small: Path, tmp_path: Path) -> None:
    out = tmp_path / "set"

    def stop(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build(out, SMALL.model_copy(update={"seed": 9}), progress=stop)
    build(out, SMALL)
    assert contents(out) == contents(small)


def test_what_is_there_is_never_overwritten(small: Path, tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="other knobs"):
        build(small, SMALL.model_copy(update={"seed": 9}))
    (tmp_path / "file").touch()
    for taken in (tmp_path, tmp_path / "file"):
        with pytest.raises(DatasetError, match="is no set of rendered people"):
            build(taken, SMALL)
    changed = tmp_path / "changed"
    shutil.copytree(small, changed)
    (changed / "manifest.jsonl").write_text("", encoding="utf-8")
    with pytest.raises(DatasetError, match="was changed since it was made"):
        build(changed, SMALL)
    shutil.copy(small / "manifest.jsonl", changed)
    next(changed.rglob("*.jpg")).unlink()
    with pytest.raises(DatasetError, match="1 of 18 images are missing"):
        build(changed, SMALL)
    (tmp_path / "mine.partial").mkdir()
    with pytest.raises(DatasetError, match="was not left by a stopped run"):
        build(tmp_path / "mine", SMALL)
    with pytest.raises(DatasetError, match="cannot write"):
        build(tmp_path / "file" / "set", SMALL)
    with pytest.raises(DatasetError, match="no readable"):
        read_info(tmp_path)


def test_two_processes_do_not_make_the_same_set(tmp_path: Path) -> None:
    partial = tmp_path / "set.partial"
    partial.mkdir()
    with (partial / "job.json").open("w") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        with pytest.raises(DatasetError, match="another process"):
            build(tmp_path / "set", SMALL)


def test_a_worker_that_dies_is_reported_in_one_line(tmp_path: Path) -> None:
    def kill(done: int, total: int) -> None:
        for child in multiprocessing.active_children():
            child.kill()

    many = SMALL.model_copy(update={"identities": (0, 0, 400)})
    with pytest.raises(DatasetError, match="a worker process died"):
        build(tmp_path / "set", many, workers=2, progress=kill)
    assert [path.name for path in tmp_path.iterdir()] == ["set.partial"]


def test_leaving_out_languages_changes_no_other_caption(small: Path, tmp_path: Path) -> None:
    build(tmp_path / "two", SMALL.model_copy(update={"languages": ("zh", "de"), "identities": (1, 0, 1)}))
    two = {record.image: record.captions for record in read_manifest(tmp_path / "two" / "manifest.jsonl")}
    all_four = {record.image: record.captions for record in read_manifest(small / "manifest.jsonl")}
    assert len(two) == 4
    for image, captions in two.items():
        assert captions == tuple(caption for caption in all_four[image] if caption.language in ("zh", "de"))


def test_siblings_follow_each_other_and_differ_in_one_attribute() -> None:
    def differences(knobs: Knobs, split: str) -> list[int]:
        people = people_of(knobs, split)
        return [
            sum(getattr(one, field.name) != getattr(other, field.name) for field in fields(one))
            for one, other in pairwise(people)
        ]

    for split in ("train", "val", "test"):
        assert set(differences(SMALL.model_copy(update={"hard": 1.0}), split)) == {1}
        assert min(differences(SMALL.model_copy(update={"hard": 0.0}), split)) > 1
    found = differences(PRESETS["standard"], "test")
    assert 0.2 < sum(count == 1 for count in found) / len(found) < 0.4


@pytest.mark.parametrize(
    "names", [["demo", "tiny", "standard"], pytest.param(list(PRESETS), marks=pytest.mark.slow)], ids=["most", "all"]
)
def test_nobody_of_a_published_test_split_is_in_a_published_training_split(names: list[str]) -> None:
    published = [PRESETS[name] for name in names]
    training = {person for knobs in published for person in people_of(knobs, "train")}
    assert len(training) == sum(knobs.people("train") for knobs in published)  # nobody twice
    for knobs in published:
        assert training.isdisjoint(people_of(knobs, "test"))
        assert training.isdisjoint(people_of(knobs, "val"))


def test_presets_are_those_of_the_documentation() -> None:
    page = (Path(__file__).parents[2] / "docs" / "benchmark.md").read_text(encoding="utf-8")
    assert [knobs.preset for knobs in PRESETS.values()] == list(PRESETS)
    for name, knobs in PRESETS.items():
        people = " / ".join(f"{count:,}" for count in knobs.identities)
        row = f"| `{name}` | {people} | {knobs.images} | {knobs.width}x{knobs.height} | {knobs.hard} | {knobs.seed} |"
        assert row in page
    assert len({knobs.seed for knobs in PRESETS.values()}) == len(PRESETS)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"hard": 1.5}, "hard: "),
        ({"identities": (0, 0, 0)}, "identities: "),
        ({"cameras": 9}, "cameras: "),
        ({"languages": ("en", "es")}, "unknown language 'es'; allowed: en, zh, fr, de"),
        ({"languages": ()}, "at least one of en, zh, fr, de"),
        ({"width": 3}, "width: "),
        ({"seed": -1}, "seed: "),
    ],
)
def test_knobs_outside_their_range_are_refused(overrides: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        knobs_of("tiny", overrides)
    with pytest.raises(ConfigError, match="unknown preset 'big'; allowed: demo, tiny, standard, large"):
        knobs_of("big")


def test_ctrl_c_ends_the_command_in_order_and_says_how_to_continue(tmp_path: Path) -> None:
    out = tmp_path / "set"
    arguments = ["data", "synth", str(out), "--identities", "0/0/400", "--size", "24x72", "--workers", "2", "--quiet"]
    process = subprocess.Popen([sys.executable, "-m", "tipr", *arguments], stderr=subprocess.PIPE, text=True)
    while process.poll() is None and not any(tmp_path.rglob("*.jpg")):
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    _, message = process.communicate(timeout=60)
    assert process.returncode == 130
    assert message.strip() == f"stopped; continue with:  tipr {' '.join(arguments)}"
    assert [path.name for path in tmp_path.iterdir()] == ["set.partial"]


def run(arguments: Sequence[str]) -> int:
    with pytest.raises(SystemExit) as stopped:
        main(list(arguments))
    code = stopped.value.code
    assert isinstance(code, int)
    return code


def test_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "set"
    make = ["data", "synth", str(out), "--identities", "0/0/2", "--images", "1", "--size", "24x72", "--languages", "en"]
    assert run([*make, "--json", "--quiet"]) == 0
    printed = capsys.readouterr()
    assert json.loads(printed.out)["knobs"]["languages"] == ["en"]
    assert printed.err == ""
    assert run(make) == 0
    assert "already there, 2 images" in capsys.readouterr().out
    assert run(["data", "check", "synthetic", str(out)]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "ready"
    assert run(["data", "check", "synthetic", str(out), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["verdict"] == "ready"
    for wrong, code in ((["--size", "24"], 2), (["--preset", "big"], 2), (["--hard", "7"], 2), (["--seed", "5"], 1)):
        assert run([*make, *wrong]) == code
        message = capsys.readouterr().err
        assert message.startswith("tipr: ")
        assert message.count("\n") == 1
    assert run(["data", "check", "x", str(out)]) == 2
    assert run(["data", "check", "synthetic", str(tmp_path / "none")]) == 1
