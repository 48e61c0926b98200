"""Erased people: no byte of them in a file, none in an answer, none by adding them again, whatever is killed when."""

from __future__ import annotations

import json
import shutil
import time
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from killed_erasures import Killed, copied
from planted_people import Planted, found, plant

from tipr.cli import main
from tipr.gallery import Gallery
from tipr.gallery.info import PENDING


def run(*arguments: Any) -> int:
    """Run a command in this process; its exit code."""
    with pytest.raises(SystemExit) as stop:
        main([str(argument) for argument in arguments])
    code = stop.value.code
    assert isinstance(code, int)
    return code


@pytest.fixture(scope="module")
def crowd(tmp_path_factory: pytest.TempPathFactory) -> Planted:
    return plant(tmp_path_factory.mktemp("crowd"), 100)


def test_half_of_a_hundred_people_are_erased_to_the_last_byte(crowd: Planted, tmp_path: Path) -> None:
    planted = copied(crowd, tmp_path / "g")
    people = sorted(planted.marks)
    assert found(planted, people) == {name: len(planted.marks[name]) for name in people}, "the marks can be found"
    going, staying = people[::2], people[1::2]
    planted.open()._store.index()  # its codes of 8 bits hold no mark that could be found
    index_files = [path for path in (planted.path / "people.lance" / "_indices").rglob("*") if path.is_file()]
    assert index_files
    reader = planted.open()  # another process that has everything in memory
    assert len(reader.search("anyone", k=500)) == 200
    gallery = planted.open()
    for name in going[:5]:
        assert gallery.privacy.erase(gallery.privacy.find(identity=name)) is not None
    others = gallery.privacy.find(where="identity in ({})".format(", ".join(going[5:])))
    assert gallery.privacy.erase(others) is not None
    assert sum(found(planted, going).values()) == 0
    assert not [path for path in index_files if path.exists()]
    assert not (planted.path / "reports").exists()
    assert not (planted.path / PENDING).exists()
    kept_by_row = len(planted.marks[staying[0]]) - 1  # all but the one of the page in reports/
    assert set(found(planted, staying).values()) == {kept_by_row}

    gone = {row for name in going for row in planted.ids[name]}
    for place in (reader, gallery, planted.open()):
        hits = place.search("anyone", k=500)
        assert len(hits) == 100
        assert not gone & {hit.id for hit in hits}
        assert {hit.metadata["identity"] for hit in hits} == set(staying)

    again = planted.open()
    elsewhere = tmp_path / "elsewhere"  # the same files under other names
    shutil.copytree(planted.folder / going[0], elsewhere)
    patch = pytest.MonkeyPatch()
    with patch.context() as context:
        context.setattr("tipr.gallery.model.reranker_of", lambda retriever: retriever)
        listed = again.add(manifest=planted.folder / "people.jsonl")
        walked = again.add([planted.folder], recursive=True)
        moved = again.add([elsewhere])
    assert (listed.added, listed.unchanged, listed.refused) == (0, 100, 100)
    assert (walked.added, walked.unchanged, walked.refused) == (0, 100, 100)
    assert (moved.added, moved.refused) == (0, 2)
    assert sum(found(planted, going).values()) == 0
    certificates = planted.open().privacy.certificates()
    assert (len(certificates), sum(item.pictures for item in certificates)) == (6, 100)


@pytest.fixture(scope="module")
def few(tmp_path_factory: pytest.TempPathFactory) -> Planted:
    return plant(tmp_path_factory.mktemp("few"), 12, commits=3)


def test_a_killed_erasure_is_completed_by_a_restart(few: Planted, tmp_path: Path) -> None:
    outcome = Killed(few, tmp_path).rounds(at_points=7, at_moments=3)
    assert outcome.killed == outcome.completed == 10
    assert outcome.begun >= 3, "most points lie inside of the erasure"


@pytest.mark.slow
def test_an_erasure_killed_at_fifty_points_is_completed(few: Planted, tmp_path: Path) -> None:
    outcome = Killed(few, tmp_path).rounds(at_points=38, at_moments=12, twice=True)
    assert outcome.killed == outcome.completed == 50
    assert min(outcome.begun, outcome.twice) >= 19


def test_the_command_shows_then_erases_and_certifies(few: Planted, tmp_path: Path, capsys: Any) -> None:
    planted = copied(few, tmp_path / "g")
    name, other, *_ = sorted(planted.marks)
    page, sheet = tmp_path / "review.html", tmp_path / "review.png"
    assert run("erase", planted.path, "--identity", name, "--dry-run", "--review", page, "--review", sheet) == 0
    out, err = capsys.readouterr()
    assert out == f"identity {name}: 2 pictures would be erased; nothing was\n"
    assert f"{page} shows the chosen pictures: delete it after the review" in err
    text = page.read_text(encoding="utf-8")
    assert text.count("data:image/jpeg;base64,") == 2
    assert "delete it after the review" in text
    assert sheet.read_bytes().startswith(b"\x89PNG")
    assert found(planted, [name])[name] == len(planted.marks[name])

    assert run("erase", planted.path, "--identity", name) == 2  # nobody can be asked here
    assert "an erasure cannot be undone: add --yes" in capsys.readouterr().err
    assert run("erase", planted.path, "--identity", name, "--yes", "--json") == 0
    out, err = capsys.readouterr()
    (certificate,) = json.loads(out)["certificates"]
    assert (certificate["pictures"], certificate["left"], certificate["derived_files"]) == (2, 22, 13)
    assert name not in json.dumps(certificate) + (planted.path / "certificates.jsonl").read_text()
    assert "the picture files themselves are not touched, 2 of them are still there" in err
    assert found(planted, [name])[name] == 0
    assert run("erase", planted.path, "--identity", name, "--yes") == 1
    assert capsys.readouterr().err.endswith(
        f"identity {name}: no picture of gallery {planted.path}; nothing was erased\n"
    )

    kept, leaves = planted.ids[other]
    assert run("erase", planted.path, "--where", f"identity = {other}", "--except", kept, "--yes", "-q") == 0
    assert "certificate of erasure" in capsys.readouterr().out
    ids = Gallery.open(planted.path).vectors()[0].tolist()
    assert kept in ids
    assert leaves not in ids
    assert run("index", "info", planted.path) == 0
    assert "3 marks keep erased pictures away" in capsys.readouterr().out


def test_a_restart_says_what_it_completed(few: Planted, tmp_path: Path, capsys: Any, monkeypatch: Any) -> None:
    planted = copied(few, tmp_path / "g")
    name = min(planted.marks)

    def stop(self: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("tipr.gallery.stores.lance.LanceStore.purge", stop)
        assert run("erase", planted.path, "--identity", name, "--yes") == 130
    assert "stopped; run the same command again" in capsys.readouterr().err
    assert run("index", "info", planted.path) == 0
    assert "one was stopped half-way; the next command that writes completes it" in capsys.readouterr().out
    assert run("erase", planted.path, "--identity", name, "--yes") == 0
    assert "certificate of erasure" in capsys.readouterr().out
    assert found(planted, [name])[name] == 0


def test_retention_shows_what_it_would_take_and_how_many_count_from_indexing(
    few: Planted, tmp_path: Path, capsys: Any
) -> None:
    planted = copied(few, tmp_path / "g")
    name, *_ = sorted(planted.marks)
    assert run("hold", planted.path, "case 7", "--identity", name, "--reason", "order", "--until", "2999-01-01") == 0
    out, err = capsys.readouterr()
    assert out.split() == ["case", "7", "2", "pictures", "until", "2999-01-01", "23:59", "UTC", "order"]
    assert "on hold: 2 pictures" in err
    assert run("retain", planted.path, "--older-than", "72h", "--camera", "gate", "--yes") == 0
    assert "older than 72h, camera = gate: no picture of gallery" in capsys.readouterr().out

    limit = ("retain", planted.path, "--older-than", "0.001h", "--camera", "gate")
    while len(Gallery.open(planted.path).privacy.expired(timedelta(hours=0.001))) < 24:
        time.sleep(0.2)
    assert run(*limit, "--dry-run", "--review", tmp_path / "r.html") == 3
    out, err = capsys.readouterr()
    assert out == "older than 0.001h, camera = gate: 22 pictures would be erased; nothing was\n"
    assert "so that their age counts from indexing: 24 pictures" in err
    assert "left because of a legal hold (case 7): 2 pictures" in err
    assert len(Gallery.open(planted.path)) == 24
    assert run(*limit, "--yes", "--json") == 3
    answer = json.loads(capsys.readouterr().out)
    assert (answer["pictures"], answer["counted_from_indexing"], len(answer["on_hold"])) == (22, 24, 2)
    assert answer["certificates"][0]["chosen_by"] == "retention"
    assert sorted(Gallery.open(planted.path).vectors()[0].tolist()) == sorted(planted.ids[name])
    assert run("hold", planted.path, "case 7", "--release") == 0
    assert capsys.readouterr().out == "no legal hold\n"


def test_look_alikes_are_proposed_best_first(few: Planted, tmp_path: Path) -> None:
    planted = copied(few, tmp_path / "g")
    name = min(planted.marks)
    picture = planted.folder / name / "1.png"
    privacy = planted.open().privacy
    (same,) = privacy.find(like=picture, at_least=0.99)
    assert same.id == planted.ids[name][1]
    assert same.similarity == pytest.approx(1, abs=1e-3)
    listed = [row.similarity for row in privacy.find(like=picture, at_least=-1, top=5)]
    assert listed == sorted(listed, reverse=True)
    assert len(listed) == 6  # the same file, and five others
    assert [row.id for row in privacy.find(like=picture, at_least=2)] == [same.id], "its own file is always there"
    certificate = privacy.erase(privacy.find(like=picture, at_least=0.99))
    assert certificate is not None
    assert (certificate.chosen_by, certificate.pictures) == ("like", 1)
    assert not len(privacy.find(like=picture, at_least=0.99))
