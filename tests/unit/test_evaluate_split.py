"""Scoring a split: directions, languages, intervals, JSON, TREC files."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import defaultdict
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from tipr.data.samples import ImageItem, Split
from tipr.errors import DatasetError
from tipr.evaluation import (
    Evaluation,
    Features,
    encode_split,
    evaluate,
    score_features,
    write_qrels,
    write_trec,
)
from tipr.metrics import retrieval_metrics, stable_similarity

LANGUAGES = ("en", "zh")


class Fake:
    """Encodes a text or a path as a fixed noisy point near its person; the person is the number in its name."""

    def __init__(self, width: int = 24) -> None:
        self.width = width
        self.card = {}
        self.source = "fake"
        self.fingerprint = "ab12"
        self.encoded = 0

    def rows(self, names, progress):
        rows = np.empty((len(names), self.width), np.float32)
        for i, name in enumerate(names):
            person = int(str(name).split("person")[1].split("_")[0])
            centre = np.random.default_rng(person).standard_normal(self.width)
            seed = list(str(name).encode())
            rows[i] = centre + 1.2 * np.random.default_rng(seed).standard_normal(self.width)
            if progress is not None:
                progress(i + 1, len(names))
        self.encoded += len(names)
        return rows / np.linalg.norm(rows, axis=1, keepdims=True)

    def encode_text(self, captions, *, language=None, batch_size=64, progress=None):
        return self.rows(captions, progress)

    def encode_images(self, images, *, batch_size=64, progress=None):
        return self.rows([path.name for path in images], progress)


def make_split(people: int = 12, images: int = 3, without_captions: int = 0) -> Split:
    items = []
    for person in range(people):
        for number in range(images):
            captions = []
            if person >= without_captions:
                captions = [
                    (language, f"{language} person{person}_{number} {writer}")
                    for language in LANGUAGES
                    for writer in "ab"
                ]
            items.append(ImageItem(Path(f"set/person{person}_{number}.jpg"), person, tuple(captions)))
    return Split.build("test", items, check_files=False)


def test_both_directions_and_every_language() -> None:
    model, split = Fake(), make_split()
    result = evaluate(model, split, bootstrap=200, seed=4)
    assert (result.split, result.identities, result.images, result.captions) == ("test", 12, 36, 144)
    assert result.languages == LANGUAGES
    assert (result.model, result.fingerprint, result.selection, result.notes) == ("fake", "ab12", "", ())
    images = model.encode_images(split.images)
    reverse = result.image_to_text
    assert reverse is not None
    for language in LANGUAGES:
        queries = split.queries(language)
        similarity = stable_similarity(model.encode_text(queries.captions), images)
        expected = retrieval_metrics(similarity, queries.identity, split.image_identity)
        score = result.text_to_image.languages[language]
        assert score.recall == expected.recall
        assert (score.mean_ap, score.mean_inp) == (expected.mean_ap, expected.mean_inp)
        assert (score.queries, score.gallery, score.skipped) == (72, 36, 0)
        expected = retrieval_metrics(similarity.T, split.image_identity, queries.identity)
        assert reverse.languages[language].mean_ap == pytest.approx(expected.mean_ap, abs=1e-9)
        assert (reverse.languages[language].queries, reverse.languages[language].gallery) == (36, 72)
        assert 0 < score.recall[1] < 100  # the fake is neither perfect nor blind, so the numbers above say something


def test_mean_counts_every_language_the_same() -> None:
    features = encode_split(Fake(), make_split())
    of_zh = np.flatnonzero(np.array(features.language) == "zh")
    kept = np.setdiff1d(np.arange(len(features.language)), of_zh[3:])
    scores = score_features(
        features.text[kept],
        features.images,
        features.query_identity[kept],
        features.gallery_identity,
        [features.language[i] for i in kept],
    )
    en, zh = scores.languages["en"], scores.languages["zh"]
    assert (en.queries, zh.queries, scores.mean.queries) == (72, 3, 75)
    assert scores.mean.mean_ap == pytest.approx((en.mean_ap + zh.mean_ap) / 2)
    assert scores.mean.recall[5] == pytest.approx((en.recall[5] + zh.recall[5]) / 2)


def test_intervals_hold_the_score_and_need_the_bootstrap() -> None:
    split = make_split()
    with_intervals = evaluate(Fake(), split, bootstrap=300, seed=1)
    assert with_intervals.draws == 300
    for score in (*with_intervals.text_to_image.languages.values(), with_intervals.text_to_image.mean):
        assert set(score.intervals) == {"R@1", "R@5", "R@10", "mAP", "mINP"}
        for name, (low, high) in score.intervals.items():
            assert low <= score.named()[name] <= high
            assert 0 <= low <= high <= 100
    assert evaluate(Fake(), split, bootstrap=300, seed=1) == with_intervals
    without = evaluate(Fake(), split, bootstrap=0)
    assert without.text_to_image.mean.intervals == {}
    assert without.text_to_image.mean.mean_ap == with_intervals.text_to_image.mean.mean_ap


def test_chance_stands_beside_the_scores() -> None:
    chance = evaluate(Fake(), make_split(), bootstrap=0).text_to_image.chance
    assert chance.recall[1] == pytest.approx(100 * 3 / 36)


def test_images_without_captions_need_a_decision() -> None:
    split = make_split(without_captions=2)
    with pytest.raises(DatasetError, match=r"split 'test': 6 of 36 queries have no relevant image"):
        evaluate(Fake(), split, bootstrap=0)
    result = evaluate(Fake(), split, bootstrap=50, without_relevant="skip")
    assert result.image_to_text is not None
    assert (result.text_to_image.mean.skipped, result.image_to_text.languages["en"].skipped) == (0, 6)
    assert result.skipped == 12
    assert evaluate(Fake(), split, bootstrap=0, image_to_text=False).image_to_text is None


def test_a_split_without_captions_is_an_error() -> None:
    with pytest.raises(DatasetError, match="no captions"):
        evaluate(Fake(), make_split(without_captions=12))


def test_a_choice_on_the_test_split_is_carried_into_the_result() -> None:
    model = Fake()
    model.card = {"selection": "test"}
    result = evaluate(model, make_split(), bootstrap=0, notes=("second",))
    assert result.selection == "test"
    assert "chosen by their score on a test split" in result.notes[0]
    assert result.notes[1] == "second"


def test_progress_counts_images_and_captions_together() -> None:
    seen: list[tuple[int, int]] = []
    encode_split(Fake(), make_split(), progress=lambda done, total: seen.append((done, total)))
    assert seen == [(done, 36 + 144) for done in range(1, 181)]


def test_known_image_features_are_not_encoded_again() -> None:
    model, split = Fake(), make_split()
    images = model.encode_images(split.images)
    model.encoded = 0
    features = encode_split(model, split, images=images)
    assert model.encoded == 144
    assert evaluate(model, split, features=features, bootstrap=0) == evaluate(model, split, bootstrap=0)


def test_json_and_back() -> None:
    reference = score_features(*some_features()).mean
    result = evaluate(Fake(), make_split(), bootstrap=20, reference=reference, notes=("a note",))
    assert Evaluation.from_json(json.loads(json.dumps(result.to_json()))) == result
    shorter = evaluate(Fake(), make_split(), bootstrap=0, image_to_text=False)
    assert Evaluation.from_json(json.loads(json.dumps(shorter.to_json()))) == shorter


@pytest.mark.parametrize("damage", [None, [], {}, {"format": 2}, "text"])
def test_foreign_json_is_refused(damage) -> None:
    with pytest.raises(DatasetError, match="not the JSON of an evaluation"):
        Evaluation.from_json(damage)


@pytest.mark.parametrize("key", ["text_to_image", "bootstrap", "images", "notes"])
def test_damaged_json_is_refused(key: str) -> None:
    tree = evaluate(Fake(), make_split(), bootstrap=0).to_json()
    tree[key] = None
    with pytest.raises(DatasetError, match="damaged JSON"):
        Evaluation.from_json(tree)


def some_features():
    features = encode_split(Fake(), make_split())
    return features.text, features.images, features.query_identity, features.gallery_identity


def test_one_unnamed_language() -> None:
    scores = score_features(*some_features())
    assert list(scores.languages) == ["all"]
    assert scores.mean == scores.languages["all"]


def test_illegal_arguments_of_score_features_are_named() -> None:
    with pytest.raises(ValueError, match="1 languages for 144 captions"):
        score_features(*some_features(), ["en"])
    with pytest.raises(ValueError, match="allowed: text_to_image, image_to_text"):
        score_features(*some_features(), direction="both")  # type: ignore[arg-type]


def read_run(path: Path) -> dict[str, list[tuple[str, int, float]]]:
    lists = defaultdict(list)
    for line in path.read_text().splitlines():
        query, q0, image, rank, score, tag = line.split()
        assert (q0, tag) == ("Q0", "tipr")
        lists[query].append((image, int(rank), float(np.float32(score))))
    return lists


def test_trec_files_let_another_tool_recompute_the_scores(tmp_path: Path) -> None:
    features: Features = encode_split(Fake(), make_split())
    queries = features.query_names()
    gallery = [f"set/a picture_{g}.jpg" for g in range(36)]
    run = write_trec(tmp_path / "run", features.text, features.images, queries, gallery)
    qrels = write_qrels(
        tmp_path / "qrels", features.query_identity, features.gallery_identity, queries, gallery
    ).read_text()
    lists = read_run(run)
    assert len(lists) == 144
    assert "a%20picture_0.jpg" in qrels
    relevant = defaultdict(set)
    for line in qrels.splitlines():
        query, zero, image, one = line.split()
        assert (zero, one) == ("0", "1")
        relevant[query].add(image)
    precisions = []
    for query, ranked in lists.items():
        assert [rank for _, rank, _ in ranked] == list(range(1, 37))
        ranked.sort(key=lambda line: -line[2])  # as outside tools do: by score alone
        at = [rank for rank, (image, _, _) in enumerate(ranked, start=1) if image in relevant[query]]
        precisions.append(np.mean([nth / rank for nth, rank in enumerate(at, start=1)]))
    scores = score_features(features.text, features.images, features.query_identity, features.gallery_identity)
    assert 100 * np.mean(precisions) == pytest.approx(scores.mean.mean_ap, abs=1e-9)
    assert {path.name for path in tmp_path.iterdir()} == {"run", "qrels"}


def test_trec_ties_keep_our_order_for_tools_that_sort_by_score(tmp_path: Path) -> None:
    images = np.array([[1, 0], [0, 1], [1, 0], [1, 0], [-1, 0]], np.float32)
    run = write_trec(tmp_path / "run", images[:1], images, ["q"], list("abcde"), depth=4)
    ranked = read_run(run)["q"]
    assert [image for image, _, _ in ranked] == ["a", "c", "d", "b"]
    scores = [score for _, _, score in ranked]
    assert all(left > right for left, right in pairwise(scores))
    assert scores == pytest.approx([1, 1, 1, 0], abs=1e-6)


@pytest.mark.parametrize(
    ("queries", "gallery", "depth", "message"),
    [
        (["q"], ["a", "b"], 0, "depth is 0"),
        (["q", "r"], ["a", "b"], 1, "2 query names for 1 rows"),
        (["q"], ["a", "a"], 1, "image name occurs twice"),
        ([""], ["a", "b"], 1, "a name is empty"),
    ],
)
def test_trec_names_that_do_not_fit_are_named(tmp_path: Path, queries, gallery, depth, message) -> None:
    with pytest.raises(ValueError, match=message):
        write_trec(tmp_path / "run", np.eye(2)[:1], np.eye(2), queries, gallery, depth=depth)
    assert not list(tmp_path.iterdir())


def test_importing_evaluation_is_light() -> None:
    program = "import sys, tipr.evaluation; assert not {'transformers', 'numba', 'lance', 'rich'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", program], check=True)
