"""`tipr evaluate`: what it prints, writes and returns."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result

from tipr.cli import DONE, SKIPPED, USAGE, exit_code, root
from tipr.errors import DatasetError
from tipr.evaluation import Evaluation
from tipr.retrieval import Retriever

REFERENCE = {
    "recall_1": 87.5,
    "recall_5": 97.9,
    "recall_10": 99.5,
    "mean_ap": 89.5,
    "mean_inp": 70.0,
    "chance_recall_1": 10.0,
    "queries": 40,
    "gallery": 20,
}


class Fake:
    """Rows that depend on the words of a text and the name of a file only."""

    fingerprint = "ff00"

    def __init__(self, card, source) -> None:
        self.card = card
        self.source = source

    def encode_text(self, captions, *, language=None, batch_size=64, progress=None):
        return self.rows(captions, progress)

    def encode_images(self, images, *, batch_size=64, progress=None):
        return self.rows([path.stem for path in images], progress)

    def rows(self, names, progress):
        rows = np.array([np.random.default_rng(int(name.split("_")[1])).standard_normal(16) for name in names])
        if progress is not None:
            progress(len(names), len(names))
        return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


@pytest.fixture
def model(monkeypatch: pytest.MonkeyPatch) -> dict:
    card: dict = {}
    loads: dict = {"card": card}

    def load(path, *, device="cpu", threads=None):
        loads.update(path=path, device=device, threads=threads)
        return Fake(card, path)

    monkeypatch.setattr(Retriever, "load", load)
    return loads


def write_manifest(path: Path, *, split: str, people: int = 10, silent: int = 0, word: str = "a") -> None:
    lines = []
    for person in range(people):
        for number in range(2):
            image = path.parent / "images" / f"p_{person}_{number}.jpg"
            image.parent.mkdir(exist_ok=True)
            image.touch()
            captions = [{"language": code, "text": f"{word}_{person}"} for code in ("en", "de") if person >= silent]
            lines.append({"image": f"images/{image.name}", "identity": person, "split": split, "captions": captions})
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")


@pytest.fixture
def data(tmp_path: Path) -> Path:
    folder = tmp_path / "set"
    folder.mkdir()
    write_manifest(folder / "manifest.jsonl", split="test")
    return folder


def make_synthetic(folder: Path) -> None:
    write_manifest(folder / "paraphrase.jsonl", split="test", word="b")
    (folder / "benchmark.json").write_text(json.dumps({"format": 1, "reference_reader": REFERENCE}), encoding="utf-8")


def run(*arguments: object) -> Result:
    return CliRunner().invoke(root, ["evaluate", *map(str, arguments)], standalone_mode=False)


def test_the_table_names_languages_scores_and_intervals(model: dict, data: Path) -> None:
    result = run("some/model", data, "--draws", 50, "--seed", 3, "--quiet")
    assert result.exception is None
    assert result.return_value == DONE
    assert "some/model on split test: 10 people, 20 images, 40 captions" in result.stdout
    lines = result.stdout.splitlines()
    assert lines[2] == "Text to image, gallery of 20 images"
    assert lines[3].split() == ["R@1", "R@5", "R@10", "mAP", "mINP", "interval", "queries"]
    english = next(line for line in lines if line.startswith("English"))
    assert english.split() == ["English", *["100.0"] * 5, "100.0-100.0", "20"]
    assert any(line.startswith("mean") for line in lines)
    chance = next(line for line in lines if line.startswith("chance"))
    assert chance.split()[1] == "10.0"
    assert "Image to text, gallery of 20 captions" in lines
    assert max(len(line) for line in lines[2:-2]) <= 80
    assert "95% of 50 bootstrap draws over identities, seed 3" in result.stdout
    assert "reference" not in result.stdout
    assert "\x1b" not in result.stdout
    assert result.stderr == ""
    assert (model["path"], model["device"], model["threads"]) == ("some/model", "cpu", None)


def test_images_without_identity_cannot_be_scored(model: dict, data: Path) -> None:
    manifest = data / "manifest.jsonl"
    manifest.write_text(manifest.read_text(encoding="utf-8").replace('"identity": 7, ', ""), encoding="utf-8")
    result = run("m", data)
    assert isinstance(result.exception, DatasetError)
    message = str(result.exception)
    assert message.startswith("split 'test': 2 of 20 images have no identity, first ")
    assert message.endswith("images/p_7_0.jpg; scores need one for every image")
    assert "path" not in model  # said before the model is loaded


def test_progress_goes_to_stderr(model: dict, data: Path) -> None:
    result = run("m", data, "--draws", 0, "--threads", 1)
    assert "encoding: 60/60 items" in result.stderr
    assert "encoding" not in result.stdout
    assert "interval" not in result.stdout
    assert model["threads"] == 1


def test_json_is_all_that_stands_on_stdout(model: dict, data: Path, tmp_path: Path) -> None:
    out = tmp_path / "result.json"
    result = run("m", data, "--json", "--out", out, "--draws", 20, "--language", "de")
    evaluation = Evaluation.from_json(json.loads(result.stdout))
    assert evaluation.languages == ("de",)
    assert (evaluation.draws, evaluation.fingerprint, evaluation.model) == (20, "ff00", "m")
    assert json.loads(out.read_text(encoding="utf-8")) == json.loads(result.stdout)


def test_a_synthetic_set_shows_reference_reader_and_paraphrases(model: dict, data: Path) -> None:
    make_synthetic(data)
    result = run("m", data, "--draws", 10, "--quiet")
    assert result.exception is None
    lines = result.stdout.splitlines()
    assert lines[3].endswith("para. R@1")
    assert next(line for line in lines if line.startswith("English")).endswith("100.0")
    assert next(line for line in lines if line.startswith("reference ")).split()[1:3] == ["87.5", "97.9"]
    tree = json.loads(run("m", data, "--draws", 0, "--json", "--quiet").stdout)
    assert tree["reference_reader"]["R@1"] == 87.5
    assert tree["paraphrase"]["split"] == "paraphrase"
    assert Evaluation.from_json(tree["paraphrase"]).text_to_image.mean.recall[1] == 100.0


@pytest.mark.parametrize("record", ["{}", "not JSON", '{"reference_reader": null}', "[]"])
def test_a_set_without_a_reference_score_is_scored_all_the_same(model: dict, data: Path, record: str) -> None:
    make_synthetic(data)
    (data / "benchmark.json").write_text(record, encoding="utf-8")
    result = run("m", data, "--draws", 0, "--quiet")
    assert result.exception is None
    assert "reference" not in result.stdout


def test_queries_with_nothing_to_find(model: dict, data: Path) -> None:
    write_manifest(data / "manifest.jsonl", split="test", silent=3)
    result = run("m", data, "--quiet")
    assert "6 of 20 queries have no relevant image" in str(result.exception)
    result = run("m", data, "--quiet", "--skip-without-relevant", "--draws", 10)
    assert result.return_value == SKIPPED
    assert "12 queries have nothing to find in the gallery and are left out." in result.stdout


def test_a_choice_on_the_test_split_is_shown(model: dict, data: Path) -> None:
    model["card"]["selection"] = "test"
    result = run("m", data, "--quiet", "--draws", 0)
    assert "Weights chosen on: test." in result.stdout
    assert "Note: The weights were chosen by their score on a test split" in result.stdout


def test_trec_run_and_qrels(model: dict, data: Path, tmp_path: Path) -> None:
    run("m", data, "--quiet", "--draws", 0, "--trec", tmp_path / "out.run", "--depth", 3)
    lines = (tmp_path / "out.run").read_text().splitlines()
    assert len(lines) == 40 * 3
    assert lines[0].split()[:4] == ["en-0", "Q0", "images/p_0_0.jpg", "1"]
    assert lines[-1].startswith("de-19 Q0 ")
    assert "en-0 0 images/p_0_1.jpg 1" in (tmp_path / "out.run.qrels").read_text().splitlines()


def test_the_overlap_of_the_languages_is_a_table(model: dict, data: Path) -> None:
    lines = run("m", data, "--quiet", "--draws", 0).stdout.splitlines()
    title = lines.index("Shared by the first 10 in two languages, % of 20 queries; mean 100.0")
    assert lines[title + 1].split() == ["English", "German"]
    assert lines[title + 2].split() == ["English", "100.0"]
    assert "Shared by" not in run("m", data, "--quiet", "--draws", 0, "--language", "de").stdout


def test_reranking_needs_a_model_that_can(model: dict, data: Path) -> None:
    result = run("some/model", data, "--rerank", 256)
    assert str(result.exception) == (
        "model some/model cannot rerank: its encoder 'Fake' has no match head; encoders with one: beit_xlmr"
    )
    assert exit_code(result.exception) == USAGE
    result = run("m", data, "--tail", "constant")
    assert str(result.exception) == "--tail needs --rerank K"
    assert exit_code(result.exception) == USAGE


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--dataset", "cuhk"], "--dataset 'cuhk'; allowed: "),
        (["--split", "night"], "unknown split 'night'; allowed: train, val, test"),
        (["--split", "val"], "no record of split 'val'"),
        (["--language", "zh"], "no captions in 'zh'; languages there: en, de"),
        (["--language", "ch"], "Chinese is 'zh'"),
    ],
)
def test_wrong_arguments_are_one_line(model: dict, data: Path, arguments, message: str) -> None:
    result = run("m", data, *arguments)
    assert message in str(result.exception)
    assert "\n" not in str(result.exception)


def test_an_unwritable_output_is_one_error(model: dict, data: Path, tmp_path: Path) -> None:
    result = run("m", data, "--quiet", "--draws", 0, "--out", tmp_path / "absent" / "x.json")
    assert isinstance(result.exception, OSError)
