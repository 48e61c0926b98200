"""The model card says what was trained, on what, and how it was chosen."""

import json

import pytest

from tipr import config as configuration
from tipr.data.datasets import DATASETS
from tipr.errors import ConfigError, DatasetError
from tipr.retrieval import Retriever
from tipr.training import RunConfig, train
from tipr.training.card import (
    card_facts,
    learning_history,
    render,
    selection_line,
    starts_from_research,
    write_card,
)

SCORES = {code: {"R@1": 61.5, "R@5": 80.0, "R@10": 90.25, "mAP": 55.0, "mINP": 40.0} for code in ("en", "zh", "mean")}
DATA = {
    "dataset": "synthetic",
    "licence": "MIT",
    "people": 2000,
    "images": 8000,
    "captions": 64000,
    "languages": ["en", "zh"],
    "sha256_manifest": "ab" * 32,
    "benchmark_seed": 7,
}
MACHINE = {"commit": "c0ffee", "tipr": "0.1.0", "machine": "Some CPU, 2 CPU cores"}


def facts(*, stopped=None, scores=SCORES, **selection):
    tree = {
        "out": "runs/x",
        "method": {"name": "irra"},
        "encoder": {"name": "compact"},
        "tokenizer": {"kind": "subword"},
        "data": {"dataset": "synthetic", "root": "data/x"},
        "epochs": 30,
        "selection": selection or {},
    }
    return card_facts(
        configuration.parse(tree, RunConfig, source="test"),
        data=DATA,
        environment=MACHINE,
        best={"epoch": 12, "step": 1500, "scores": scores},
        last={"epoch": 30, "step": 3750, "scores": scores},
        history=learning_history(
            [{"kind": "train", "step": 1}, {"kind": "scores", "step": 125, "epoch": 1, "scores": SCORES}]
            if scores is not None
            else []
        ),
        minutes=61.234,
        stopped=stopped,
    )


def test_facts_are_json_and_the_card_shows_them(tmp_path):
    made = facts()
    assert json.loads(json.dumps(made)) == made
    assert [(row["epoch"], row["step"]) for row in made["history"]] == [(1, 125)]
    assert made["history"][0]["recall_1"].keys() == SCORES.keys()
    write_card(tmp_path, made)
    card = (tmp_path / "card.md").read_text()
    for words in (
        "irra with the compact encoder",
        "not an identification",
        "rendered people: not fit for real photographs",
        "8,000 images of 2,000 people, 64,000 captions (en, zh)",
        "ab" * 32,
        "30 epochs",
        "61.2 minutes on Some CPU, 2 CPU cores",
        "commit c0ffee",
        "best/: epoch 12, step 1,500",
        "last/: epoch 30, step 3,750",
        "| mean | 61.50 | 80.00 | 90.25 | 55.00 | 40.00 |",
    ):
        assert words in card, words


@pytest.mark.parametrize(
    ("selection", "words"),
    [
        ({}, "chosen by mean R@1 over languages on the split 'val'"),
        ({"split": "last"}, "No selection"),
        ({"split": "test", "select_on_test": True}, "SELECTED ON TEST"),
    ],
)
def test_selection_is_one_sentence(selection, words):
    made = facts(**selection)
    assert words in selection_line(made)
    assert words in render(made)
    assert made["selected_on_test"] == ("SELECTED" in words)


def test_an_early_end_and_missing_scores_are_said():
    card = render(facts(stopped="max_minutes", scores=None, split="last"))
    assert "stopped before its configured length: max_minutes" in card
    assert "| mean |" not in card


def commercial(folder, **changes):
    tree = {
        "out": str(folder / "run"),
        "method": {"name": "clip_baseline"},
        "encoder": {"name": "compact"},
        "tokenizer": {"kind": "subword"},
        "data": {"dataset": "manifest", "root": str(folder / "nowhere")},
        "epochs": 1,
        "intended_use": "commercial",
        "threads": 1,
    }
    return configuration.parse({**tree, **changes}, RunConfig, source="test")


def test_a_commercial_model_must_not_learn_from_data_for_research_only(tmp_path):
    for dataset, fact in DATASETS.items():
        config = commercial(tmp_path, data={"dataset": dataset, "root": str(tmp_path / "nowhere")})
        with pytest.raises((ConfigError, DatasetError)) as caught:
            train(config)
        refused = "intended_use: commercial is refused: the licence of" in str(caught.value)
        assert refused == fact.facts.research_only == (dataset not in ("manifest", "synthetic"))


def test_nor_start_from_a_model_that_did(tmp_path):
    demo = Retriever.load("demo")
    for name, card, refused in (
        ("own", {"data": {"research_only": True}}, True),
        ("started", {"data": {"research_only": False}, "start_research_only": True}, True),
        ("free", {"data": {"research_only": False}}, False),
    ):
        Retriever(demo.encoder, demo.tokenizer, demo.preprocessing, card).save(tmp_path / name)
        config = commercial(tmp_path, start_from=str(tmp_path / name))
        assert starts_from_research(config) == refused
        with pytest.raises((ConfigError, DatasetError)) as caught:
            train(config)
        assert ("learned from data for research only" in str(caught.value)) == refused


def test_the_card_names_use_and_limits():
    made = facts()
    page = render(made)
    assert "- use: research\n" in page
    assert "RESEARCH ONLY" not in page
    assert "identifies nobody" in page
    assert "RESEARCH ONLY" in render({**made, "data": {**made["data"], "research_only": True}})
