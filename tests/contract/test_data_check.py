"""`tipr data check`, `stats` and `import` on small copies of the true layouts, defects included."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import benchmark_copies as copies
import pytest
from benchmark_copies import Entry, write_json

from tipr import cli
from tipr.data.check import Report, check_dataset
from tipr.data.dataset import Counts, Edition
from tipr.data.datasets import DATASETS
from tipr.data.datasets.cuhk_pedes import CuhkPedes
from tipr.data.datasets.multilingual import Multilingual
from tipr.data.manifest import Caption, Record, read_manifest, write_manifest

OFFICIAL = Edition("reid_raw.json", {"train": Counts(4, 8, 16), "val": Counts(2, 4, 8), "test": Counts(2, 4, 8)})
WITHDRAWN = Edition(
    "an early release",
    {"train": Counts(4, 8, 15), "val": Counts(2, 4, 8), "test": Counts(2, 4, 8)},
    note="ask for the newest files",
)


class SmallCuhkPedes(CuhkPedes):
    """The reader with the counts of the small copy for official ones."""

    facts = replace(CuhkPedes.facts, editions=(OFFICIAL, WITHDRAWN))


def kinds(report: Report) -> dict[str, int]:
    return {problem.kind: problem.count for problem in report.problems}


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    capsys.readouterr()
    with pytest.raises(SystemExit) as stop:
        cli.main([*arguments])
    out, err = capsys.readouterr()
    assert "Traceback" not in out + err
    return int(stop.value.code or 0), out, err


def test_a_complete_copy_is_ready(tmp_path: Path) -> None:
    copies.cuhk_pedes(tmp_path)
    seen: list[tuple[int, int]] = []
    report = check_dataset(
        SmallCuhkPedes(), tmp_path, workers=2, progress=lambda done, total: seen.append((done, total))
    )
    assert report.line() == "ready"
    assert report.problems == ()
    assert report.edition == "reid_raw.json"
    assert report.decoded
    assert seen[-1] == (16, 16)
    assert {folder.name for folder in report.folders} == set(copies.CUHK_FOLDERS)
    assert report.splits["train"].captions == {"en": 16}
    assert json.loads(json.dumps(report.to_json()))["verdict"] == "ready"


def test_a_complete_multilingual_copy_is_ready_without_val(tmp_path: Path) -> None:
    copies.multilingual(tmp_path, copies.cuhk_pedes(tmp_path), splits=("train", "test"))
    report = check_dataset(Multilingual(SmallCuhkPedes.facts), tmp_path, decode=False)
    # the val images are in no record of these files
    assert kinds(report) == {"unlisted": 4}
    assert report.line() == "ready"
    (tmp_path / "annos" / "test_reid_de.json").unlink()
    report = check_dataset(Multilingual(SmallCuhkPedes.facts), tmp_path, decode=False)
    assert report.verdict == "usable with warnings"
    assert (
        report.problems[0].line() == "1 count differs from the official ones, first test: 0 captions (de), official 8"
    )


def change(root: Path, edit: Callable[[list[Entry]], Any]) -> None:
    path = root / "reid_raw.json"
    made = json.loads(path.read_text())
    edit(made)
    write_json(path, made)


def _same_caption(made: list[Entry]) -> None:
    made[2]["captions"][0] = made[0]["captions"][0].upper() + " "


def _set(place: int, caption: str) -> Callable[[list[Entry]], None]:
    def edit(made: list[Entry]) -> None:
        made[place]["captions"][0] = caption

    return edit


DEFECTS: dict[str, tuple[Callable[[list[Entry]], Any], str, str]] = {
    "shared": (_same_caption, "usable with warnings", "1 caption text is shared by several identities"),
    "empty": (_set(0, " \n"), "usable with warnings", "1 caption is empty"),
    "twice": (
        lambda made: made[0].update(captions=["the same", "The  same"]),
        "usable with warnings",
        "1 caption stands twice with the same image",
    ),
    "foreign": (_set(0, "a man in a红 coat"), "usable with warnings", "1 caption holds signs"),
    "code": (_set(0, "import json"), "usable with warnings", "1 caption holds fragments of program text"),
    "long": (_set(0, "red " * 76), "usable with warnings", "1 caption is longer than the model reads: over 77 tokens"),
    "joined": (
        lambda made: made.append({**made[0], "captions": [made[0]["captions"].pop()]}),
        "ready",
        "1 image has several records",
    ),
    "val_identity_in_test": (
        lambda made: made[8].update(id=7),
        "usable with warnings",
        "1 identity of val is in test as well",
    ),
    "train_identity_elsewhere": (
        lambda made: made[8].update(id=1),
        "unusable",
        "1 identity of train is in val or test as well",
    ),
    "bad_identity": (lambda made: made[0].update(id="seven"), "unusable", "1 record has no integer id"),
    "same_file": (
        lambda made: [
            *(entry.update(file_path=f"one/{entry['file_path']}") for entry in made),
            made.append({**made[0], "file_path": "two/cam_a/0000.jpg"}),
        ],
        "unusable",
        "1 record means the image file of another one",
    ),
    "unknown_split": (lambda made: made[0].update(split="gallery"), "unusable", "1 record has an unknown split"),
}


@pytest.mark.parametrize("kind", DEFECTS)
def test_every_defect_is_found(kind: str, tmp_path: Path) -> None:
    edit, verdict, message = DEFECTS[kind]
    copies.cuhk_pedes(tmp_path)
    change(tmp_path, edit)
    report = check_dataset(SmallCuhkPedes(), tmp_path, decode=False)
    found = next(problem for problem in report.problems if problem.kind == kind)
    assert found.message.startswith(message)
    assert found.examples
    assert report.verdict == verdict
    if verdict != "ready":
        assert message in report.line()


def test_counts_of_another_edition_are_called_by_its_name(tmp_path: Path) -> None:
    copies.cuhk_pedes(tmp_path)
    change(tmp_path, lambda made: made[0]["captions"].pop())
    report = check_dataset(SmallCuhkPedes(), tmp_path, decode=False)
    assert report.edition == "an early release"
    assert report.line() == (
        "usable with warnings: 1 count differs from the official ones: they are those of an early release "
        "(ask for the newest files)"
    )


def test_other_exports_are_counted_beside(tmp_path: Path) -> None:
    made = copies.cuhk_pedes(tmp_path)
    for split in ("train", "val", "test"):
        part = [{**entry, "captions": entry["captions"]} for entry in made if entry["split"] == split]
        write_json(tmp_path / "processed_data" / f"{split}.json", part[: 3 if split == "test" else None])
    write_json(tmp_path / "caption_all.json", [{**entry, "split": None} for entry in made])
    report = check_dataset(SmallCuhkPedes(), tmp_path, decode=False)
    assert report.splits["test"].images == 4
    named, other = report.others
    assert named.files == ("caption_all.json",)
    assert other.files == tuple(f"processed_data/{split}.json" for split in ("train", "val", "test"))
    assert other.splits["test"] == Counts(2, 3, 6)
    problem = report.problems[0]
    assert problem.kind == "other_export"
    assert problem.examples[0].endswith("test has 3 images and 6 captions, here 4 and 8")


def test_missing_and_unreadable_images_are_listed_by_folder(tmp_path: Path) -> None:
    copies.cuhk_pedes(tmp_path)
    shutil.rmtree(tmp_path / "imgs" / "Market")
    (tmp_path / "imgs" / "cam_a" / "0000.jpg").write_bytes(b"\xff\xd8\xff")
    (tmp_path / "imgs" / "cam_a" / "extra.jpg").touch()
    report = check_dataset(SmallCuhkPedes(), tmp_path)
    assert kinds(report) == {"missing": 2, "unreadable": 1, "unlisted": 1}
    assert report.folders[0].name == "Market"
    assert (report.folders[0].named, report.folders[0].missing) == (2, 2)
    assert report.line() == "unusable: 2 images are missing: Market/ 2; 1 image cannot be read"
    assert report.unreadable == ("imgs/cam_a/0000.jpg: truncated",)
    assert report.missing == ("imgs/Market/0004.jpg", "imgs/Market/0011.jpg")
    assert "unreadable" not in kinds(check_dataset(SmallCuhkPedes(), tmp_path, decode=False))


def test_every_error_of_a_check_is_one_that_loading_refuses(tmp_path: Path) -> None:
    """ready and usable mean that every split can be loaded, unusable that one cannot."""
    from tipr.errors import DatasetError

    for place, (edit, verdict, _) in enumerate(DEFECTS.values()):
        root = tmp_path / str(place)
        copies.cuhk_pedes(root)
        change(root, edit)
        assert check_dataset(SmallCuhkPedes(), root, decode=False).verdict == verdict
        try:
            for split in ("train", "val", "test"):
                SmallCuhkPedes().load(root, split)
        except DatasetError:
            assert verdict == "unusable"
        else:
            assert verdict != "unusable"


def test_the_command_prints_counts_folders_problems_and_a_verdict(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    copies.cuhk_pedes(tmp_path)
    shutil.rmtree(tmp_path / "imgs" / "Market")
    code, out, err = run(capsys, "data", "check", "cuhk_pedes", str(tmp_path))
    lines = out.splitlines()
    assert code == 1
    assert "14/14 images" in err
    assert any(line.split() == ["train", "4", "8", "16", "11,003", "/", "34,054", "/", "68,126"] for line in lines)
    assert any(line.split() == ["Market/", "2", "2"] for line in lines)
    assert "error: 2 images are missing: Market/ 2" in lines
    assert lines[-1].startswith("unusable: 2 images are missing: Market/ 2")
    assert "github.com/ShuangLI59" in lines[-2]

    code, out, err = run(capsys, "data", "check", "cuhk_pedes", str(tmp_path), "--fast", "--json")
    tree = json.loads(out)
    assert (code, err) == (1, "")
    assert tree["dataset"] == "cuhk_pedes"
    assert tree["splits"]["val"]["official"] == {"identities": 1000, "images": 3078, "captions": 6158}
    assert {problem["kind"]: problem["level"] for problem in tree["problems"]} == {
        "counts": "warning",
        "missing": "error",
    }
    assert not tree["decoded"]


def test_nothing_there_is_unusable_in_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, "data", "check", "rstpreid", str(tmp_path), "--fast")
    assert code == 1
    assert out.splitlines()[-1].startswith("unusable: no annotation file in ")
    code, out, err = run(capsys, "data", "check", "market", str(tmp_path))
    assert (code, out) == (2, "")
    assert err.startswith("tipr: unknown data set 'market'; allowed: cuhk_pedes, icfg_pedes, rstpreid, ufinebench, ")


def test_tokens_are_counted_by_the_model_that_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    copies.cuhk_pedes(tmp_path)
    code, out, _ = run(
        capsys, "data", "check", "cuhk_pedes", str(tmp_path), "--fast", "--json", "--model", "demo", "--limit", "8"
    )
    assert code == 0
    long = next(problem for problem in json.loads(out)["problems"] if problem["kind"] == "long")
    assert long["count"] == 32
    assert long["message"].endswith("over 8 tokens")


def test_names_from_files_cannot_steer_the_terminal(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    copies.cuhk_pedes(tmp_path)
    change(tmp_path, _set(0, "\x1b[31mred\x1b]0;title\x07 红"))
    _, out, _ = run(capsys, "data", "check", "cuhk_pedes", str(tmp_path), "--fast")
    assert "holds signs that are foreign" in out
    assert "\x1b" not in out
    assert "\x07" not in out


def test_import_writes_a_manifest_that_loads_alike(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = tmp_path / "RSTPReid"
    copies.multilingual(root, copies.rstpreid(root), splits=("train", "test"))
    code, out, _ = run(capsys, "data", "import", "rstpreid_m", str(root))
    assert code == 0
    assert "12 records (train 8 images, 64 captions; test 4 images, 32 captions)" in out
    before = DATASETS["rstpreid_m"].load(root, "test")
    after = DATASETS["manifest"].load(root, "test")
    assert after.samples == before.samples
    assert after.images == before.images
    code, _, err = run(capsys, "data", "import", "rstpreid_m", str(root))
    assert code == 1
    assert "manifest.jsonl is there already" in err


def test_import_elsewhere_needs_a_link(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root, out = tmp_path / "store" / "RSTPReid", tmp_path / "mine"
    copies.rstpreid(root)
    code, _, err = run(capsys, "data", "import", "rstpreid", str(root), str(out))
    assert code == 1
    assert "does not reach the images" in err
    assert run(capsys, "data", "import", "rstpreid", str(root), str(out), "--link")[0] == 0
    assert (out / "images").is_symlink()
    assert len(DATASETS["manifest"].load(out, "train").images) == 8
    # the folder above reaches them without a link
    assert run(capsys, "data", "import", "rstpreid", str(root), str(tmp_path / "store" / "all.jsonl"))[0] == 0
    assert read_manifest(tmp_path / "store" / "all.jsonl")[0].image == "RSTPReid/imgs/0000_c14_0031.jpg"


def test_import_refuses_missing_images_unless_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    copies.cuhk_pedes(tmp_path)
    shutil.rmtree(tmp_path / "imgs" / "Market")
    code, _, err = run(capsys, "data", "import", "cuhk_pedes", str(tmp_path))
    assert code == 1
    assert "2 of 16 images are missing" in err
    code, out, err = run(capsys, "data", "import", "cuhk_pedes", str(tmp_path), "--allow-missing", "--json")
    assert code == 0
    tree = json.loads(out)
    assert (tree["records"], tree["missing"]) == (14, 2)
    assert len(read_manifest(tmp_path / "manifest.jsonl")) == 14


def test_stats_counts_words_and_writes_a_page(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made = copies.rstpreid(tmp_path)
    copies.multilingual(tmp_path, made, splits=("train", "test"))
    page = tmp_path / "page.html"
    code, out, _ = run(capsys, "data", "stats", "rstpreid_m", str(tmp_path), "--page", str(page), "--samples", "5")
    assert code == 0
    assert any(line.split()[:3] == ["en", "24", "216"] for line in out.splitlines())
    text = page.read_text(encoding="utf-8")
    assert text.count("data:image/jpeg;base64,") == 5
    assert "http" not in text.replace("http-equiv", "")
    assert "RSTPReid(M)" in text
    code, out, _ = run(capsys, "data", "stats", "rstpreid_m", str(tmp_path), "--json")
    assert code == 0
    assert json.loads(out)["languages"]["zh"]["captions"] == 24


def test_a_page_escapes_what_files_say(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    copies.write_images(tmp_path, ["<b>.png"])
    record = Record("<b>.png", (Caption("en", "<script>alert(1)</script> \u202ereversed"),), identity="<i>x</i>")
    write_manifest(tmp_path / "manifest.jsonl", [record])
    page = tmp_path / "page.html"
    assert run(capsys, "data", "stats", "manifest", str(tmp_path), "--page", str(page))[0] == 0
    text = page.read_text(encoding="utf-8")
    assert "<script" not in text
    assert "<i>x" not in text
    assert "<b>.png" not in text
    assert "\u202e" not in text


def test_help_names_every_data_set(capsys: pytest.CaptureFixture[str]) -> None:
    for part in ("check", "stats", "import"):
        code, out, _ = run(capsys, "data", part, "--help")
        words = set(out.replace(",", " ").split())
        assert code == 0
        assert {name.removesuffix("_m") for name in DATASETS} <= {word.rstrip(".") for word in words}


@pytest.mark.parametrize("name", DATASETS)
def test_the_facts_of_every_data_set_can_be_read(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, "data", "list", name)
    facts = DATASETS[name].facts
    assert code == 0
    assert out.startswith(f"{name}: {facts.title}\n")
    for words in (facts.licence, facts.request, facts.citation, *facts.defects):
        assert words in out
    for edition in facts.editions:
        for counts in edition.splits.values():
            assert f"{counts.images:,}" in out
    assert run(capsys, "data", "list")[1].count(facts.title) >= 1
    tree = json.loads(run(capsys, "data", "list", name, "--json")[1])
    assert tree["dataset"] == name
    assert tree["defects"] == list(facts.defects)
