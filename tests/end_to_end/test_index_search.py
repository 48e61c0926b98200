"""`tipr index` and `tipr search` as a user meets them, with a real (tiny, untrained) model folder."""

from __future__ import annotations

import io
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from tipr import Gallery, Retriever
from tipr.cli import main
from tipr.data.images import Preprocessing
from tipr.data.manifest import Caption, Record, write_manifest
from tipr.data.samples import ImageItem, Split
from tipr.encoders import CompactEncoder
from tipr.encoders.tokenizers import SubwordTokenizer
from tipr.evaluation.evaluate import encode_split, score_features
from tipr.metrics import retrieval_metrics_from_features
from tipr.metrics.ranking import full_order, stable_similarity

CAPTIONS = {
    "en": "a woman in a red coat",
    "zh": "一个穿红色外套的女人",
    "fr": "une femme en manteau rouge",
    "de": "eine Frau",
}


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    tokenizer = SubwordTokenizer.train(CAPTIONS.values(), vocabulary_size=280, max_tokens=24)
    settings = CompactEncoder.Config(
        image_size=(32, 16),
        widths=(16,),
        blocks=(1,),
        image_layers=0,
        stripes=2,
        vocabulary_size=tokenizer.vocabulary_size,
        max_tokens=24,
        text_width=16,
        text_layers=1,
        head_width=8,
        embed_dim=24,
    )
    folder = tmp_path_factory.mktemp("model") / "tiny"
    Retriever(CompactEncoder.build(settings), tokenizer, Preprocessing((32, 16))).save(folder)
    return folder


@pytest.fixture(scope="session")
def people(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """24 pictures of 8 people with captions; two pictures have an exact copy later on."""
    folder = tmp_path_factory.mktemp("people")
    records = []
    for place in range(24):
        person = place % 8
        rng = np.random.default_rng(2 if place == 18 else 5 if place == 21 else place)
        pixels = rng.normal(128, 60, (48, 20, 3)) + np.array([person * 12, 0, -person * 12])
        Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8)).save(folder / f"{place:02d}.png")
        captions = [Caption(language, f"{text} {person} {place}") for language, text in CAPTIONS.items()]
        minute = f"2026-03-01T08:{place:02d}:00Z"
        camera = "门口" if place % 2 else "gate"
        records.append(Record(f"{place:02d}.png", tuple(captions), person, camera, minute, split="test"))
    write_manifest(folder / "manifest.jsonl", records)
    for copy, original in ((18, 2), (21, 5)):
        (folder / f"{copy:02d}.png").write_bytes((folder / f"{original:02d}.png").read_bytes())
    return folder


@pytest.fixture(scope="session")
def gallery(tmp_path_factory: pytest.TempPathFactory, model: Path, people: Path) -> Path:
    path = tmp_path_factory.mktemp("galleries") / "g"
    Gallery.create(path, model).add(manifest=people / "manifest.jsonl")
    return path


def run(*arguments: Any) -> int:
    """Run a command in this process; its exit code."""
    with pytest.raises(SystemExit) as stop:
        main([str(argument) for argument in arguments])
    code = stop.value.code
    assert isinstance(code, int)
    return code


def _split(people: Path) -> Split:
    from tipr.data.manifest import read_manifest

    items = [
        ImageItem(people / record.image, record.identity or 0, tuple((c.language, c.text) for c in record.captions))
        for record in read_manifest(people / "manifest.jsonl")
    ]
    return Split.build("test", items)


def test_a_gallery_of_a_split_ranks_as_the_evaluator_does(gallery: Path, model: Path, people: Path) -> None:
    split, opened = _split(people), Gallery.open(gallery)
    retriever = Retriever.load(model)
    ids, half = opened.vectors()
    features = encode_split(retriever, split, images=half.astype(np.float32))
    order = full_order(stable_similarity(features.text, half))
    ties = 0
    for query, row in enumerate(order):
        hits = opened.search(features.text[query], k=len(split.images))
        assert [hit.id for hit in hits] == ids[row].tolist()
        assert [Path(hit.metadata["path"]) for hit in hits] == [split.images[g].resolve() for g in row]
        found = [hit.score for hit in hits]
        ties += sum(one == two for one, two in pairwise(found))
    assert ties >= 2 * len(order)  # both copies tie for every caption
    assert [hit.id for hit in opened.search(features.captions[0], k=5)] == ids[order[0][:5]].tolist()

    sides = features.query_identity, features.gallery_identity
    scored = score_features(features.text, half, *sides).mean
    first = [int(np.flatnonzero(sides[1][row] == person)[0]) for row, person in zip(order, sides[0], strict=True)]
    assert scored.recall[1] == pytest.approx(100 * np.mean(np.array(first) < 1))
    assert scored.recall[5] == pytest.approx(100 * np.mean(np.array(first) < 5))


def test_half_precision_costs_at_most_a_tenth_of_a_point() -> None:
    rng = np.random.default_rng(7)
    people = rng.normal(size=(400, 128))
    images = people.repeat(4, axis=0) + rng.normal(0, 1.6, (1600, 128))
    texts = people.repeat(4, axis=0) + rng.normal(0, 1.6, (1600, 128))
    images, texts = (
        (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32) for rows in (images, texts)
    )
    who = np.arange(400).repeat(4)
    full = retrieval_metrics_from_features(texts, images, who, who)
    half = score_features(texts, images.astype(np.float16), who, who).mean
    assert 20 < full.recall[1] < 95
    for k in (1, 5, 10):
        assert abs(full.recall[k] - half.recall[k]) <= 0.1
    assert abs(full.mean_ap - half.mean_ap) <= 0.1


def test_from_a_folder_to_a_result(tmp_path: Path, model: Path, people: Path, capsys: Any) -> None:
    (tmp_path / "p").mkdir()
    for name in ("00.png", "01.png", "02.png"):
        (tmp_path / "p" / name).write_bytes((people / name).read_bytes())
    (tmp_path / "p" / "\x1b[31mnotes\u202e.txt").write_text("no picture")
    assert run("index", "create", tmp_path / "g", "--model", model, tmp_path / "p", "--camera", "door") == 3
    out, err = capsys.readouterr()
    assert "indexed 3, unchanged 0, skipped 1; 3 pictures in all" in out
    assert f"skipped {tmp_path}/p/notes.txt: not an image; JPEG, PNG, WebP, BMP, TIFF are read" in out
    assert "indexing: 4/4 images" in err
    assert "\x1b" not in out + err
    assert run("index", "add", tmp_path / "g", tmp_path / "p" / "00.png", "--quiet") == 0
    assert capsys.readouterr().err == ""
    assert run("index", "add", tmp_path / "g", tmp_path / "p", "--json") == 3
    answer = json.loads(capsys.readouterr().out)
    assert (answer["added"], answer["unchanged"], len(answer["skipped"])) == (0, 3, 1)
    assert set(answer["skipped"][0]) == {"path", "reason", "hint", "code"}
    assert run("search", tmp_path / "g", CAPTIONS["zh"], "-k", "2") == 0
    out, err = capsys.readouterr()
    assert len(out.splitlines()) == 2
    assert out.splitlines()[0].startswith("1  ")
    assert "door" in out
    assert err == "tipr: language: Chinese (detected)\ntipr: similar appearance, not an identification\n"
    assert run("index", "info", tmp_path / "g") == 0
    assert "door: 3" in capsys.readouterr().out
    assert run("index", "remove", tmp_path / "g", tmp_path / "p" / "01.png", "--id", "0") == 0
    assert run("index", "info", tmp_path / "g", "--json") == 0
    assert json.loads(capsys.readouterr().out.split("\n", 1)[1])["count"] == 1


def test_several_words_without_quotes_are_one_description(gallery: Path, capsys: Any) -> None:
    assert run("search", gallery, "a", "red", "coat", "--json", "-k", "1") == 0
    assert json.loads(capsys.readouterr().out)["query"] == "a red coat"


def test_json_tells_everything_and_paths_nothing_else(gallery: Path, people: Path, capsys: Any) -> None:
    assert run("search", gallery, "red", "--json", "-k", "24") == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer["note"] == "similar appearance, not an identification"
    assert [result["rank"] for result in answer["results"]] == list(range(1, 25))
    assert answer["results"][0].keys() >= {"id", "score", "band", "path", "camera", "time", "identity", "tags", "box"}
    assert {result["camera"] for result in answer["results"]} == {"gate", "门口"}
    assert run("search", gallery, "red", "--paths", "-k", "24") == 0
    assert capsys.readouterr().out.splitlines() == [result["path"] for result in answer["results"]]
    assert run("search", gallery, "red", "--json", "--group-by", "identity") == 0
    grouped = json.loads(capsys.readouterr().out)["results"]
    assert sorted(result["identity"] for result in grouped) == list(range(8))


@pytest.mark.parametrize(
    ("flags", "count"),
    [
        (["--camera", "门口"], 12),
        (["--camera", "门口", "--camera", "gate"], 24),
        (["--since", "2026-03-01T08:20:00Z"], 4),
        (["--since", "2026-03-01", "--until", "2026-03-01"], 24),
        (["--until", "2026-02-28"], 0),
        (["--path", "/0"], 10),
        (["--path", "*/1?.png"], 10),
        (["--group-by", "camera"], 2),
    ],
)
def test_filters_from_the_command_line(gallery: Path, capsys: Any, flags: list[str], count: int) -> None:
    assert run("search", gallery, "red", "--paths", "-k", "50", *flags) == 0
    out, err = capsys.readouterr()
    assert len(out.splitlines()) == count
    assert ("no picture passes the filters" in err) == (count == 0)


def test_without_text_it_reads_descriptions_and_stays_loaded(
    gallery: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    loads = []
    real = Retriever.load
    monkeypatch.setattr(Retriever, "load", lambda *given, **more: loads.append(1) or real(*given, **more))
    monkeypatch.setattr(sys, "stdin", io.StringIO("red coat\n穿红色外套\n\nnever read\n"))
    assert run("search", gallery, "--json", "-k", "1") == 0
    lines = capsys.readouterr().out.splitlines()
    assert [json.loads(line)["query"] for line in lines] == ["red coat", "穿红色外套"]
    assert len(loads) == 1
    monkeypatch.setattr(sys, "stdin", io.StringIO("one"))  # the end of the input ends it as well
    assert run("search", gallery, "--paths", "-k", "1") == 0
    assert len(capsys.readouterr().out.splitlines()) == 1


def test_results_are_saved_as_a_page_and_as_a_sheet(gallery: Path, tmp_path: Path, capsys: Any) -> None:
    query = "<script>alert(1)</script> 红色"
    saves = ["--save", tmp_path / "out.html", "--save", tmp_path / "out.png"]
    assert run("search", gallery, query, "-k", "3", *saves, "--camera", "门口") == 0
    page = (tmp_path / "out.html").read_text(encoding="utf-8")
    assert "<script>alert(1)" not in page
    assert "红色" in page
    assert page.count("data:image/jpeg;base64,") == 3
    assert "门口" in page
    with Image.open(tmp_path / "out.png") as sheet:
        assert sheet.format == "PNG"
        assert sheet.width > 300
    assert f"saved {tmp_path}/out.png" in capsys.readouterr().err
    assert run("search", gallery, "red", "-k", "12", "--save", tmp_path / "rows.png") == 0
    with Image.open(tmp_path / "rows.png") as sheet:
        assert sheet.width < 1300, "ten pictures side by side, the others below"
        assert sheet.height > 2 * 312


def test_the_demo_model_is_not_for_real_photographs(
    tmp_path: Path, model: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tipr.retrieval.model_folder.DEMO", model)
    assert run("index", "create", tmp_path / "g") == 0
    out, err = capsys.readouterr()
    assert "for model demo" in out
    assert "trained on rendered people and is not fit for real photographs" in err


def test_pictures_that_are_no_crops_are_counted_in_a_warning(tmp_path: Path, model: Path, capsys: Any) -> None:
    Image.new("RGB", (80, 60), "red").save(tmp_path / "street.png")
    assert run("index", "create", tmp_path / "g", "--model", model, tmp_path / "street.png") == 0
    assert "1 of 1 added pictures are wider than 0.8 of their height" in capsys.readouterr().err


def test_folders_that_are_not_entered_are_counted(tmp_path: Path, model: Path, people: Path, capsys: Any) -> None:
    for place in ("p/a.png", "p/sub/b.png", "p/sub/deep/c.png", "p/.hidden/d.png"):
        (tmp_path / place).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / place).write_bytes((people / "00.png").read_bytes())
    assert run("index", "create", tmp_path / "g", tmp_path / "p", "--model", model) == 0
    assert "folders inside that were not entered: 1; --recursive enters them" in capsys.readouterr().err
    assert run("index", "add", tmp_path / "g", tmp_path / "p", "-r") == 0
    out, err = capsys.readouterr()
    assert "indexed 2, unchanged 1" in out
    assert "not entered" not in err


def _child(*arguments: Any, **variables: str) -> subprocess.Popen[str]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", **variables}
    command = [sys.executable, "-m", "tipr", *[str(argument) for argument in arguments]]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)


@pytest.mark.slow
def test_stopping_an_index_run_prints_the_command_that_continues(tmp_path: Path, model: Path, people: Path) -> None:
    for place in range(1500):
        folder = tmp_path / "p" / f"{place // 100:02d}"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{place}.png").write_bytes((people / f"{place % 24:02d}.png").read_bytes())
    child = _child("index", "create", tmp_path / "a gallery", tmp_path / "p", "-r", "--model", model)
    deadline = time.monotonic() + 60
    while len(list((tmp_path / "a gallery").glob("people.lance/data/*"))) < 2:  # the first commit is behind it
        assert time.monotonic() < deadline
        assert child.poll() is None, child.communicate()
        time.sleep(0.02)
    child.send_signal(signal.SIGINT)
    _, err = child.communicate(timeout=60)
    assert child.returncode == 130
    assert "Traceback" not in err
    assert f"tipr index add '{tmp_path}/a gallery' {tmp_path}/p -r --model {model}" in err
    opened = Gallery.open(tmp_path / "a gallery")
    kept = len(opened)
    assert 0 < kept < 1500
    report = opened.add([tmp_path / "p"], recursive=True)
    assert report.added == 1500 - kept
    assert len(opened) == 1500


def test_a_search_loads_only_what_it_needs(gallery: Path) -> None:
    code = (
        "import sys\nfrom tipr.cli import main\n"
        f"try:\n    main(['search', {str(gallery)!r}, 'red', '-k', '1', '--paths'])\n"
        "except SystemExit as stop:\n    assert stop.code == 0\n"
        "print(*sorted(sys.modules))"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = set(result.stdout.split())
    assert "tipr.gallery.stores.lance" in loaded
    unwanted = {"transformers", "lancedb", "lightning_fabric", "tensorboard", "numba", "jinja2", "scipy", "pandas"}
    assert not loaded & unwanted


def test_help_loads_no_command(gallery: Path) -> None:
    parts = {f"tipr.cli.{name}" for name in ("index", "index_care", "index_fill", "index_rebuild", "options")}
    for arguments, allowed in ((["--help"], set()), (["index", "--help"], parts)):
        code = (
            "import sys\nfrom tipr.cli import main\n"
            f"try:\n    main({arguments!r})\nexcept SystemExit as stop:\n    assert stop.code == 0\n"
            "print('\\n', *sorted(sys.modules))"
        )
        result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        loaded = set(result.stdout.split("\n")[-2].split())
        assert not loaded & {"torch", "numpy", "PIL", "lance", "rich", "pydantic", "yaml", "tipr.gallery"}
        assert {name for name in loaded if name.startswith("tipr.cli.")} == allowed


def test_every_form_of_query_from_the_command_line(gallery: Path, people: Path, tmp_path: Path, capsys: Any) -> None:
    def asked(*arguments: Any) -> dict[str, Any]:
        assert run("search", gallery, *arguments, "--json") == 0
        answer: dict[str, Any] = json.loads(capsys.readouterr().out)
        return answer

    alike = asked("--image", people / "05.png", "-k", 2)
    assert {Path(hit["path"]).name for hit in alike["results"]} == {"05.png", "21.png"}
    assert (alike["query"], alike["language"]) == (None, None)
    both = asked("a red coat", "--image", people / "05.png", "--image-weight", "0.3", "--not", "blue")
    assert (both["query"], both["not"]) == ("a red coat", "blue")
    first = asked("a red coat", "-k", 5, "--where", "camera = gate and time < 2026-03-01T08:20:00Z")
    second = asked(
        "a red coat", "-k", 9, "--where", "camera = gate and time < 2026-03-01T08:20:00Z", "--after", first["cursor"]
    )
    places = [int(Path(hit["path"]).stem) for page in (first, second) for hit in page["results"]]
    assert sorted(places) == list(range(0, 20, 2))
    assert second["cursor"] is None

    (tmp_path / "q.txt").write_text("a red coat\n穿红色外套\n", encoding="utf-8")
    assert run("search", gallery, "--queries", tmp_path / "q.txt", "-k", 3, "--json") == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [line["query"] for line in lines] == ["a red coat", "穿红色外套"]
    assert lines[0]["results"] == asked("a red coat", "-k", 3)["results"]
    assert run("search", gallery, "--queries", tmp_path / "q.txt", "-k", 3) == 0
    printed = capsys.readouterr().out.splitlines()
    assert len(printed) == 8
    assert (printed[0], printed[4]) == ("a red coat", "穿红色外套")


def test_an_approximate_search_needs_its_index(gallery: Path, tmp_path: Path, capsys: Any) -> None:
    shutil.copytree(gallery, tmp_path / "g")
    assert run("search", tmp_path / "g", "a red coat", "--approximate") == 2
    assert "has no index: build one with `tipr index approximate`" in capsys.readouterr().err
    assert run("index", "approximate", tmp_path / "g") == 0
    assert "an index of 24 pictures" in capsys.readouterr().out
    assert run("search", tmp_path / "g", "a red coat", "--approximate", "-k", 24, "--json") == 0
    assert len(json.loads(capsys.readouterr().out)["results"]) == 24


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["red", "--where", "camera ="], "where: a value was expected, not the end"),
        (["red", "--where", "gait = slow"], "no row has a column or tag 'gait'"),
        (["red", "--image-weight", "0.5"], "--image-weight needs TEXT and --image"),
        (["red", "--not-weight", "0.5"], "--not-weight needs --not"),
        (["red", "--not", " "], "the query's `not` is empty"),
        (["red", "--after", "x"], "this is not a cursor"),
        (["--after", "x"], "--after needs TEXT or --image"),
        (["red", "--queries", "q.txt"], "--queries cannot be combined"),
        (["--queries", "none.txt"], "cannot read queries none.txt"),
    ],
)
def test_a_query_that_makes_no_sense_is_a_usage_error(
    gallery: Path, arguments: list[str], message: str, capsys: Any
) -> None:
    assert run("search", gallery, *arguments) == 2
    assert message in " ".join(capsys.readouterr().err.split())


def test_a_folder_is_followed_and_rebuilt(tmp_path: Path, model: Path, people: Path, capsys: Any) -> None:
    for name in ("00.png", "01.png", "02.png"):
        (tmp_path / "p" / "gate").mkdir(parents=True, exist_ok=True)
        (tmp_path / "p" / "gate" / name).write_bytes((people / name).read_bytes())
    assert run("index", "create", tmp_path / "g", "--model", model) == 0
    follow = ("index", "sync", tmp_path / "g", tmp_path / "p", "--pattern", "{camera}/{track}.png")
    assert run(*follow) == 0
    assert "indexed 3, unchanged 0, skipped 0; 3 pictures in all" in capsys.readouterr().out
    (tmp_path / "p" / "gate" / "00.png").rename(tmp_path / "p" / "gate" / "10.png")
    (tmp_path / "p" / "gate" / "01.png").unlink()
    (tmp_path / "p" / "loose.png").write_bytes((people / "03.png").read_bytes()[:99])
    assert run(*follow, "--json") == 3
    answer = json.loads(capsys.readouterr().out)
    assert [answer[key] for key in ("added", "unchanged", "moved", "vanished")] == [1, 1, 1, 1]
    assert [(item["code"], answer["skip_report"][-13:]) for item in answer["skipped"]] == [
        ("truncated", "skipped.jsonl")
    ]
    assert run("index", "rebuild", tmp_path / "g", "--model", model, "--quiet") == 0
    assert f"rebuilt with {model}, 2 pictures" in capsys.readouterr().out
    (tmp_path / "p" / "gate" / "02.png").unlink()
    assert run("index", "rebuild", tmp_path / "g", "--model", model, "--quiet") == 3
    out = capsys.readouterr().out
    assert f"missing {tmp_path}/p/gate/02.png: missing" in out
    assert "the old vectors serve on" in out
    assert run("index", "sync", tmp_path / "g", tmp_path / "nowhere") == 1
    assert "nothing was changed" in capsys.readouterr().err
    assert run("index", "sync", tmp_path / "g", tmp_path / "p", "--pattern", "{camera") == 2
    assert "a brace without its other one" in capsys.readouterr().err
