"""Bi-IRRA from a contrast-trained start to a searchable model, stopped and resumed, with any number of languages."""

from __future__ import annotations

import json
import runpy
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

from tipr import config as configuration
from tipr.cli import main
from tipr.data.datasets import DATASETS
from tipr.errors import ConfigError, DatasetError, WeightsError
from tipr.evaluation import evaluate
from tipr.report.from_run import run_report
from tipr.retrieval import Retriever
from tipr.training import RunConfig, journal, train

PEOPLE = runpy.run_path(str(Path(__file__).parents[1] / "data" / "training" / "bilingual_people.py"))
CONTRAST = {"name": "irra", "losses": ["itc"], "padding": "trimmed", "global_caption": "clean", "temperature": 0.07}
CHECKPOINTS = {"every_steps": 1}
PROJECTIONS = ("text_projection", "target_projections.zh", "target_projections.fr")


class Crash(Exception):
    pass


def configure(folder: Path, data: Path, **changes: Any) -> RunConfig:
    return configuration.load(PEOPLE["make_config"](folder / "run.yaml", data, **changes), RunConfig)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder: Path = PEOPLE["make_data"](tmp_path_factory.mktemp("people") / "data")
    return folder


@pytest.fixture(scope="module")
def start(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that one projection for all languages was trained with."""
    folder = tmp_path_factory.mktemp("start")
    encoder = {**PEOPLE["SHARED"], "hidden_dropout": 0.0, "attention_dropout": 0.0}
    return train(configure(folder, data, method=CONTRAST, encoder=encoder, epochs=1)).folder


@pytest.fixture(scope="module")
def unbroken(data: Path, start: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run that nothing interrupts; its folder."""
    config = configure(tmp_path_factory.mktemp("unbroken"), data, start_from=str(start), checkpoints=CHECKPOINTS)
    return train(config).folder


def weights(run: Path) -> dict[str, bytes]:
    return {name: (run / name / "model.safetensors").read_bytes() for name in ("best", "last")}


def command(*arguments: object) -> int | str | None:
    """Exit code of `tipr ARGUMENTS`."""
    with pytest.raises(SystemExit) as stopped:
        main([str(argument) for argument in arguments])
    return stopped.value.code


def test_a_run_scores_every_language_as_evaluate_does_afterwards(unbroken: Path, data: Path) -> None:
    entries = journal.read(unbroken)
    assert set(entries[0]["losses"]) == {"itc", "itm", "mlm", "mim"}
    model = Retriever.load(unbroken / "last")
    card = model.card
    found = evaluate(model, DATASETS["manifest"].load(data, "val"), bootstrap=0).text_to_image
    assert set(found.languages) == {"en", "zh", "fr"}
    for language, scores in found.languages.items():
        assert card["last"]["scores"][language] == pytest.approx(scores.named())
    assert model.preprocessing.interpolation == "bicubic"
    text = (unbroken / "card.md").read_text()
    assert "bi_irra with the beit_xlmr encoder" in text
    assert "- languages: each batch has en and one of zh, fr, in turn" in text
    assert f"- start: {card['config']['start_from']}" in text


def test_each_language_starts_with_the_projection_that_was_trained_and_learns_its_own(
    start: Path, unbroken: Path, tmp_path: Path, data: Path
) -> None:
    first = Retriever.load(start).encoder.state_dict()
    assert not any(name.startswith("target_projections") for name in first)
    no_steps = {"optimizer": {"lr": 1e-30}, "epochs": None, "max_steps": 1, "selection": {"split": "last"}}
    frozen = configure(tmp_path, data, start_from=str(start), **no_steps)
    before, after = (Retriever.load(run / "last").encoder.state_dict() for run in (train(frozen).folder, unbroken))
    for name in PROJECTIONS:
        torch.testing.assert_close(before[f"{name}.weight"], first["text_projection.weight"], atol=1e-12, rtol=0)
    learnt = [after[f"{name}.weight"] for name in PROJECTIONS]
    for place, one in enumerate(learnt):
        for other in learnt[place + 1 :]:
            assert (one - other).abs().max() > 1e-4


def test_a_stop_at_any_step_changes_nothing(data: Path, start: Path, unbroken: Path, tmp_path: Path) -> None:
    """Inside an epoch, right behind its end and in the last one; dropout and draws of negatives included."""
    config = configure(tmp_path, data, start_from=str(start), checkpoints=CHECKPOINTS)
    for number, step in enumerate((2, 3, 8)):

        def progress(done: int, total: int, step: int = step) -> None:
            if done == step:
                raise Crash

        with pytest.raises(Crash):
            train(config, resume=number > 0, progress=progress)
    train(config, resume=True)
    assert weights(config.out) == weights(unbroken)
    keys = ("kind", "step", "losses", "scores")
    diaries = [[{key: entry.get(key) for key in keys} for entry in journal.read(run)] for run in (config.out, unbroken)]
    assert diaries[0] == diaries[1]


def test_a_trained_model_is_evaluated_and_searched_in_two_stages(
    unbroken: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command("evaluate", unbroken, data, "--split", "val", "--rerank", 4, "--draws", 0, "--json", "-q") == 0
    assert {"en", "zh", "fr"} <= json.loads(capsys.readouterr().out)["text_to_image"].keys()
    gallery = tmp_path / "gallery"
    assert command("index", "create", gallery, data / "images", "--model", unbroken, "-q") == 0
    capsys.readouterr()
    query = ("search", gallery, "une personne avec un haut rouge", "--language", "fr", "--rerank", 5, "--json", "-q")
    assert command(*query) == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown["language"]["code"] == "fr"
    matches = [hit["match"] for hit in shown["results"][:5]]
    assert matches == sorted(matches, reverse=True)


def test_the_report_shows_the_attention_of_trained_fusion_layers_alone(
    start: Path, unbroken: Path, tmp_path: Path
) -> None:
    for run, said in ((unbroken, "Attention of a word's tokens"), (start, "words do not look at pictures")):
        page = tmp_path / f"{run.parent.name}.html"
        assert command("report", run, "--split", "val", "--draws", 0, "--out", page, "-q") == 0
        attention = page.read_text(encoding="utf-8").split('id="attention"')[1].split("</section>")[0]
        assert said in attention
        assert attention.count("<img") >= 2


def test_a_report_can_show_the_second_stage(
    data: Path, start: Path, unbroken: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    page = tmp_path / "page.html"
    line = ("report", unbroken, "--split", "val", "--draws", 0, "--out", page, "-q")
    assert command(*line, "--rerank", 6, "--json") == 0
    shown = json.loads(capsys.readouterr().out)["scores"]
    assert command("evaluate", unbroken, data, "--split", "val", "--rerank", 6, "--draws", 0, "--json", "-q") == 0
    expected = json.loads(capsys.readouterr().out)
    for language, scores in shown.items():
        assert scores == pytest.approx({name: expected["text_to_image"][language][name] for name in scores})
    text = page.read_text(encoding="utf-8")
    before = text.split("Before reranking</th>")[1].split("</tr>")[0]
    assert f">{expected['rerank']['first_stage']['mean']['mAP']:.1f}<" in before
    assert "The first 6 pictures of every search were looked at again" in text
    assert "--rerank 6" in text.split('id="again"')[1]
    assert "never trained" not in text
    assert command("report", start, "--split", "val", "--draws", 0, "--out", page, "-q", "--rerank", 6) == 0
    assert "The second stage of this model was never trained" in page.read_text(encoding="utf-8")


def test_the_searches_of_a_report_are_in_the_order_that_is_scored(unbroken: Path) -> None:
    made = [
        run_report(
            unbroken,
            split="val",
            weights="best",
            root=None,
            languages=None,
            seed=7,
            draws=0,
            batch_size=64,
            device="cpu",
            threads=None,
            stage=lambda title: nullcontext(lambda done, total: None),
            rerank=rerank,
        )
        for rerank in (None, 8)
    ]
    for report in made:
        for query in report.queries:
            found = [place / rank for place, rank in enumerate(query.right_ranks, 1)]
            assert query.average_precision == pytest.approx(sum(found) / len(found))
    one, two = ([query.right_ranks for query in report.queries] for report in made)
    assert one != two
    assert [curve.y for curve in made[0].found] != [curve.y for curve in made[1].found]


def test_one_target_language_and_the_readings_of_the_paper(data: Path, start: Path, tmp_path: Path) -> None:
    train_here = partial(configure, tmp_path, data, epochs=1, selection={"split": "last"})
    paper = train_here(
        method={"name": "bi_irra", "recipe": "paper", "losses": ["itc", "itm", "mlm", "mim", "sdm", "id"]},
        encoder={**PEOPLE["ENCODER"], "target_languages": ["zh"]},
        section={"languages": ["en", "zh"], "epoch_unit": "image"},
        start_from=str(start),
    )
    result = train(paper)
    assert set(journal.read(result.folder)[0]["losses"]) == {"itc", "itm", "mlm", "mim", "sdm", "id"}
    assert Retriever.load(result.folder).encoder.languages == ("en", "zh")


def test_what_does_not_fit_is_one_line(data: Path, start: Path, tmp_path: Path) -> None:
    wider = {**PEOPLE["ENCODER"], "width": 32}
    with pytest.raises(WeightsError, match=r"another encoder: width differ"):
        train(configure(tmp_path, data, start_from=str(start), encoder=wider))
    lines = (data / "manifest.jsonl").read_text(encoding="utf-8").splitlines()
    broken = json.loads(lines[0])
    broken["captions"] = broken["captions"][:2]
    (tmp_path / "other.jsonl").write_text("\n".join([json.dumps(broken), *lines[1:]]) + "\n", encoding="utf-8")
    (tmp_path / "images").symlink_to(data / "images")
    with pytest.raises(DatasetError, match=r"1 of 48 images have not the same number of captions in 'en' and 'fr'"):
        train(configure(tmp_path, data, section={"root": str(tmp_path / "other.jsonl")}, out=str(tmp_path / "two")))
    with pytest.raises(ConfigError, match="an epoch of 144 samples has no batch"):
        train(configure(tmp_path, data, section={"batch_size": 512}, out=str(tmp_path / "three")))


@pytest.mark.slow
def test_the_committed_pair_of_short_runs_works_as_its_comments_say(data: Path, tmp_path: Path) -> None:
    """Both files as they are, but for the data, the number of steps, and German, which the coloured people lack."""
    configs = Path(__file__).resolve().parents[2] / "configs" / "bi_irra"
    common = (
        "data.dataset=manifest",
        f"data.root={data}",
        "data.languages=[en, zh, fr]",
        "encoder.target_languages=[zh, fr]",
        "data.batch_size=16",
        "epochs=null",
        "threads=1",
        "log_every=1",
    )
    start, run = tmp_path / "start", tmp_path / "run"
    warmup = "schedule.warmup=2"
    assert command("train", configs / "synthetic_start.yaml", *common, warmup, "max_steps=3", "--out", start, "-q") == 0
    arguments = (f"start_from={start}", "max_steps=4", "selection.split=val", "--out", run, "-q")
    assert command("train", configs / "synthetic.yaml", *common, *arguments) == 0
    rates = [entry["lr"] for entry in journal.read(run) if entry["kind"] == "train"]
    assert rates == pytest.approx([2e-5, 5.1e-4, 1e-3, 1e-3])  # an epoch is the warm-up: three batches of 48 images
    assert command("evaluate", run, data, "--split", "val", "--rerank", 8, "--draws", 0, "-q") == 0
