"""Two-stage search in a gallery, in Python and from the command line, with a small real model."""

from __future__ import annotations

import json
import logging
import re
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from colour_model import ColourModel, paint
from matching_model import matching_retriever

from tipr import Gallery, Hit, Retriever, evaluate
from tipr.cli import main
from tipr.data.manifest import Caption, Record, write_manifest
from tipr.data.samples import ImageItem, Split
from tipr.errors import ConfigError
from tipr.evaluation import encode_split, rerank_split
from tipr.metrics import stable_similarity
from tipr.retrieval import Reranker

WORDS = {
    "en": "a woman in a red coat with a bag",
    "zh": "一个穿红色外套的女人",
    "fr": "une femme en manteau rouge",
    "de": "eine Frau mit einem roten Mantel",
}
COUNT = 18
TOKEN_BYTES = 2 * 9 * 16


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model") / "matching"
    matching_retriever().save(folder)
    return folder


@pytest.fixture(scope="module")
def retriever(model: Path) -> Retriever:
    return Retriever.load(model)


@pytest.fixture(scope="module")
def people(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pictures of six people; the last two are exact copies of the first two."""
    folder = tmp_path_factory.mktemp("people")
    records = []
    for number in range(COUNT):
        picture = paint(folder / f"{number:02d}.png", seed=number, upper=("red", "green", "blue")[number % 3])
        if number >= COUNT - 2:
            picture.write_bytes((folder / f"{number - COUNT + 2:02d}.png").read_bytes())
        captions = tuple(Caption(code, f"{text} {number}") for code, text in WORDS.items())
        records.append(Record(picture.name, captions, number % 6, f"door {number % 2}", split="test"))
    write_manifest(folder / "manifest.jsonl", records)
    return folder


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory, retriever: Retriever, people: Path) -> Gallery:
    """A gallery that keeps image tokens."""
    made = Gallery.create(tmp_path_factory.mktemp("g") / "kept", retriever, store_tokens=True)
    made.add(manifest=people / "manifest.jsonl")
    return made


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory, retriever: Retriever, people: Path) -> Gallery:
    """The same without tokens."""
    made = Gallery.create(tmp_path_factory.mktemp("g") / "bare", retriever)
    made.add(manifest=people / "manifest.jsonl")
    return made


def run(*arguments: Any) -> int:
    with pytest.raises(SystemExit) as stop:
        main([str(argument) for argument in arguments])
    assert isinstance(stop.value.code, int)
    return stop.value.code


def places(hits: list[Hit]) -> list[int]:
    return [hit.id for hit in hits]


def test_a_gallery_of_a_split_ranks_as_the_two_stage_evaluator_does(
    kept: Gallery, retriever: Retriever, people: Path
) -> None:
    items = [
        ImageItem(
            people / f"{number:02d}.png", number % 6, tuple((code, f"{text} {number}") for code, text in WORDS.items())
        )
        for number in range(COUNT)
    ]
    split = Split.build("test", items)
    _, vectors = kept.vectors(split.images)
    # one caption a pass, as a search encodes it
    features = encode_split(retriever, split, images=vectors.astype(np.float32), batch_size=1)
    tokens = kept._store.tokens(list(range(COUNT)))
    stage = rerank_split(Reranker(retriever), features, tokens, 7)
    similarity = stable_similarity(features.text, vectors)
    moved = ties = 0
    for query, caption in enumerate(features.captions):
        hits = kept.search(caption, COUNT, language=features.language[query], rerank=7)
        assert places(hits) == stage.order(query, similarity[query]).tolist()
        assert [hit.score for hit in hits] == similarity[query][places(hits)].tolist()
        scored = dict(zip(stage.shortlist[query].tolist(), stage.match[query].tolist(), strict=True))
        assert [hit.match for hit in hits] == [scored.get(hit.id) for hit in hits]
        moved += places(hits) != places(kept.search(caption, COUNT, language=features.language[query]))
        ties += sum(one.match is not None and one.match == other.match for one, other in pairwise(hits))
    assert moved > COUNT
    assert ties  # the copies
    result = evaluate(retriever, split, features=features, rerank=7, bootstrap=0, image_to_text=False)
    assert (
        result.text_to_image
        == evaluate(retriever, split, features=features, second_stage=stage, bootstrap=0).text_to_image
    )


def test_kept_tokens_and_pictures_read_again_give_the_same(kept: Gallery, bare: Gallery, tmp_path: Path) -> None:
    said: list[str] = []
    seen: list[tuple[int, int]] = []
    for text in WORDS.values():
        one = kept.search(text, COUNT, rerank=9, say=lambda _: None)
        other = bare.search(
            text, COUNT, rerank=9, say=said.append, progress=lambda done, total: seen.append((done, total))
        )
        assert places(one) == places(other)
        np.testing.assert_allclose(
            [hit.match or 0.0 for hit in one], [hit.match or 0.0 for hit in other], rtol=1e-3, atol=1e-3
        )
        assert [hit.match is None for hit in one] == [False] * 9 + [True] * (COUNT - 9)
        assert [hit.score for hit in one] == [hit.score for hit in other]
    assert seen == [(9, 9)] * 4
    assert not [sentence for sentence in said if "thumbnail" in sentence]


def test_the_vectors_are_the_same_with_and_without_tokens(kept: Gallery, bare: Gallery) -> None:
    np.testing.assert_array_equal(kept.vectors()[1], bare.vectors()[1])
    assert (kept.token_bytes, bare.token_bytes) == (TOKEN_BYTES, 0)
    assert (kept.info().token_bytes, bare.info().token_bytes) == (TOKEN_BYTES, 0)


def test_filters_come_before_the_shortlist_and_groups_after_it(kept: Gallery) -> None:
    text = WORDS["en"]
    everything = kept.search(text, COUNT, rerank=COUNT)
    assert sorted((hit.match for hit in everything), reverse=True) == [hit.match for hit in everything]
    behind = [hit for hit in everything if hit.metadata["camera"] == "door 1"]
    found = kept.search(text, COUNT, rerank=256, camera="door 1")
    assert places(found) == places(behind)
    assert len(kept.search(text, COUNT, rerank=3, camera="nowhere")) == 0
    grouped = kept.search(text, COUNT, rerank=256, group_by="identity")
    best = {hit.metadata["identity"]: hit.id for hit in reversed(everything)}
    assert places(grouped) == [hit.id for hit in everything if best[hit.metadata["identity"]] == hit.id]
    assert len(grouped) == 6


def test_a_picture_that_moved_or_changed_is_reranked_by_its_thumbnail(
    tmp_path: Path, retriever: Retriever, people: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for number in range(4):
        (tmp_path / f"{number}.png").write_bytes((people / f"{number:02d}.png").read_bytes())
    gallery = Gallery.create(tmp_path / "g", retriever)
    gallery.add([tmp_path / f"{number}.png" for number in range(4)])
    before = {hit.id: hit.match for hit in gallery.search(WORDS["en"], rerank=4)}
    assert not caplog.records
    (tmp_path / "1.png").unlink()
    paint(tmp_path / "3.png", upper="grey", lower="grey", seed=99)
    said: list[str] = []
    after = {hit.id: hit.match for hit in gallery.search(WORDS["en"], rerank=4, say=said.append)}
    assert said == [
        f"2 of the pictures to rerank are not as they were when added, first {tmp_path / '1.png'} (missing): "
        "their small kept thumbnails were reranked instead"
    ]
    for number in range(4):
        assert after[number] == pytest.approx(before[number], abs=0.3)  # a thumbnail is nearly the picture
    assert before[0] == after[0]
    with caplog.at_level(logging.WARNING):
        gallery.search(WORDS["en"], rerank=4)
    assert said[0] in caplog.text


def test_the_language_picks_the_projection(kept: Gallery) -> None:
    def found(text: str, **options: Any) -> list[float]:
        return [hit.score for hit in kept.search(text, COUNT, say=said.append, **options)]

    said: list[str] = []
    assert found(WORDS["fr"]) == found(WORDS["fr"], language="fr") != found(WORDS["fr"], language="en")
    assert found(WORDS["zh"]) == found(WORDS["zh"], language="zh") != found(WORDS["zh"], language="fr")
    assert said == []
    assert found(WORDS["de"]) == found(WORDS["de"], language="en")  # no projection of its own: the source's
    assert said == [
        "this model has projections for English, Chinese, French; queries in German go through that of English"
    ]
    assert found("12 34") == found("12 34", language="en")
    assert "queries in an unknown language go through that of English" in said[1]
    with pytest.raises(ConfigError, match="language 'es'; allowed: en, zh, fr, de"):
        kept.search("red", language="es")


def test_what_cannot_be_reranked_is_refused(kept: Gallery, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="reranking needs a query in words"):
        kept.search(np.zeros(8, np.float32), rerank=3)
    with pytest.raises(ConfigError, match="rerank must be at least 1, not 0"):
        kept.search("red", rerank=0)
    colours: Any = ColourModel()
    with pytest.raises(ConfigError, match="model demo cannot rerank"):
        Gallery.create(tmp_path / "g", colours, store_tokens=True)
    assert not (tmp_path / "g").exists()
    paint(tmp_path / "p.png")
    plain = Gallery.create(tmp_path / "h", colours)
    plain.add([tmp_path / "p.png"])
    with pytest.raises(ConfigError, match="cannot rerank: its encoder 'ColourModel' has no match head"):
        plain.search("red", rerank=3)


def test_erasing_a_row_erases_its_tokens(tmp_path: Path, retriever: Retriever, people: Path) -> None:
    gallery = Gallery.create(tmp_path / "g", retriever, store_tokens=True)
    gallery.add([people / f"{number:02d}.png" for number in range(5)])
    needle = gallery._store.tokens([2]).tobytes()

    def files() -> list[Path]:
        return [path for path in (tmp_path / "g").rglob("*") if path.is_file() and needle in path.read_bytes()]

    assert files()
    gallery.remove([2])
    assert not files()
    assert places(Gallery.open(tmp_path / "g", model=retriever).search(WORDS["en"], rerank=9))


def test_the_command_line_announces_the_size_and_shows_what_was_done(
    tmp_path: Path, model: Path, people: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert (
        run(
            "index",
            "create",
            tmp_path / "g",
            "--model",
            model,
            "--store-tokens",
            "--manifest",
            people / "manifest.jsonl",
        )
        == 0
    )
    out, err = capsys.readouterr()
    lines = err.splitlines()
    assert lines[0] == "tipr: image tokens for reranking take 0.3 KB a picture, 0.0 MB for 18 pictures"
    assert lines[1].startswith("indexing: ")
    assert run("index", "info", tmp_path / "g") == 0
    assert "0.3 KB a picture, kept for reranking" in capsys.readouterr().out
    assert run("search", tmp_path / "g", WORDS["de"], "--rerank", 5, "-k", 7) == 0
    out, err = capsys.readouterr()
    signed = [bool(re.search(r" [+-]\d+\.\d\d ", line)) for line in out.splitlines()]
    assert signed == [True] * 5 + [False] * 2
    assert "reranking: 5/5 pictures" in err
    assert "tipr: language: German (detected)\n" in err
    assert "tipr: this model has projections for English, Chinese, French; queries in German go" in err
    assert run("search", tmp_path / "g", WORDS["zh"], "--rerank", 5, "-k", 7, "--json", "--quiet") == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer["language"] == {"code": "zh", "forced": False, "confidence": 1.0}
    assert [result["match"] is None for result in answer["results"]] == [False] * 5 + [True] * 2
    assert answer["notes"] == []
    assert run("search", tmp_path / "g", "red", "--language", "fr", "--save", tmp_path / "r.html", "--rerank", 3) == 0
    page = (tmp_path / "r.html").read_text(encoding="utf-8")
    assert page.count("Reranked <small>3") == 1
    assert "language: French" in page
    assert run("search", tmp_path / "g", "12 34") == 0
    assert "language: not recognised; --language can name it" in capsys.readouterr().err


def test_evaluation_from_the_command_line_says_what_was_reranked(
    model: Path, people: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("evaluate", model, people, "--rerank", 256, "--draws", 0, "--trec", tmp_path / "run", "--depth", 4) == 0
    out, err = capsys.readouterr()
    assert "Text to image, gallery of 18 images, the best 18 reranked" in out
    assert "Text to image before reranking" in out
    assert "Shared by the first 10 in two languages, % of 18 queries" in out
    assert "Note: This model has projections for English, Chinese, French; queries in German go through" in out
    assert f"reranking: {18 * 18 * 4}/{18 * 18 * 4} pairs" in err
    assert len((tmp_path / "run").read_text().splitlines()) == 18 * 4 * 4
    trees = []
    for tail in ("cosine", "constant"):
        assert run("evaluate", model, people, "--rerank", 4, "--tail", tail, "--draws", 0, "--json", "--quiet") == 0
        trees.append(json.loads(capsys.readouterr().out))
    assert [tree["rerank"]["tail"] for tree in trees] == ["cosine", "constant"]
    assert trees[0]["rerank"]["k"] == 4
    assert trees[0]["rerank"]["first_stage"] == trees[1]["rerank"]["first_stage"]
    one, other = (tree["text_to_image"]["mean"] for tree in trees)
    assert one["R@1"] == other["R@1"]
    assert one["mAP"] != other["mAP"]


def test_a_model_without_match_head_ends_with_the_usage_code(
    tmp_path: Path, people: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for command in (
        ["evaluate", "demo", people, "--rerank", 5, "--quiet"],
        ["index", "create", tmp_path / "g", people, "--store-tokens", "--quiet"],
    ):
        assert run(*command) == 2
        out, err = capsys.readouterr()
        assert out == ""
        assert err == (
            "tipr: model demo cannot rerank: its encoder 'compact' has no match head; encoders with one: beit_xlmr\n"
        )
    assert not (tmp_path / "g").exists()
