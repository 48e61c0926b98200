"""What only the report of a run has: numbers over the steps, the map of people, words on pictures."""

from __future__ import annotations

import re

import numpy as np
import pytest
from PIL import Image

from tipr.evaluation import Features
from tipr.report.content import PeopleMap, Series
from tipr.report.people_map import people_map
from tipr.report.pictures import SHOWN_HEIGHT, shown
from tipr.report.run_charts import SHAPES, map_chart, number, series_chart
from tipr.report.training_series import POINTS, training_series
from tipr.report.word_patches import DARK, spotlight


def features(people: int = 5, *, offset: float = 0.0) -> Features:
    """Three pictures and, in two languages, three captions of each person, close to the person's own direction."""
    rng = np.random.default_rng(0)
    own = rng.normal(size=(people, 8))
    gallery = np.repeat(np.arange(people), 3)
    asked = np.repeat(np.arange(people), 6)
    images = own[gallery] + rng.normal(scale=0.02, size=(len(gallery), 8))
    text = own[asked] + rng.normal(scale=0.02, size=(len(asked), 8)) + offset
    return Features(
        text=text.astype(np.float32),
        images=images.astype(np.float32),
        captions=tuple(f"caption {number}" for number in range(len(asked))),
        query_identity=asked,
        gallery_identity=gallery,
        language=("en", "en", "en", "zh", "zh", "zh") * people,
        image_id=np.repeat(np.arange(people) * 3, 6),
    )


def made(given: Features, seed: int = 3) -> PeopleMap:
    found = people_map(given, lambda position: f"{position}".encode(), seed=seed)
    assert found is not None
    return found


def test_people_who_are_far_apart_are_apart_on_the_map() -> None:
    found = made(features())
    assert found.nearest == 100
    assert found.nearest_here >= 80
    assert sum(found.shares) <= 100
    assert found.shares[0] >= found.shares[1] > 0
    assert len(found.pictures) == 5
    captions = [point for point in found.points if point.language is not None]
    assert len(found.points) - len(captions) == 15
    assert len(captions) == 5 * 2 * 2, "two captions of each language"


def test_the_map_is_a_function_of_features_and_seed() -> None:
    assert made(features()) == made(features())
    assert made(features(12), seed=1) != made(features(12), seed=2)


def test_the_distance_between_the_clouds_says_nothing_about_people() -> None:
    one, other = made(features()), made(features(offset=3.0))
    assert np.allclose([(p.x, p.y) for p in one.points], [(p.x, p.y) for p in other.points], atol=1e-5)


def test_components_are_those_of_the_covariance() -> None:
    found = made(features())
    places = np.array([(point.x, point.y) for point in found.points])
    assert abs(places[:, 0] @ places[:, 1]) < 1e-6 * (places**2).sum()


def test_two_people_make_no_map() -> None:
    assert people_map(features(2), lambda position: b"", seed=0) is None


def test_the_map_shows_everybody_with_a_number_and_each_language_with_a_shape() -> None:
    chart = str(map_chart(made(features())))
    assert re.findall(r'class="t b who"[^>]*>(\d+)<', chart) == ["1", "2", "3", "4", "5"]
    assert chart.count('class="shot"') == 15
    assert chart.count(SHAPES["en"]) == chart.count(SHAPES["zh"]) == 10
    numbers = [float(value) for value in re.findall(r"[ML](-?[\d.]+) ", chart)]
    assert min(numbers) >= 0
    assert max(numbers) <= 520


def entry(step: int, **losses: float) -> dict[str, object]:
    return {"kind": "train", "step": step, "losses": losses, "logs": {"hard_pairs": 0.5}, "lr": 1e-3}


def test_series_hold_the_sum_and_every_part() -> None:
    entries = [entry(20, sdm=2.0, id=1.0), entry(40, sdm=1.0, id=0.5), {"kind": "scores", "step": 40, "epoch": 1}]
    found = {series.name: series for series in training_series(entries)}
    assert found["loss"] == Series("loss", (20.0, 40.0), (3.0, 1.5))
    assert found["loss sdm"].y == (2.0, 1.0)
    assert set(found) == {"loss", "loss sdm", "loss id", "hard pairs", "learning rate"}
    alone = training_series([entry(1, itc=2.0), entry(2, itc=float("nan")), entry(3, itc=1.0)])
    assert next(series for series in alone if series.name == "loss (itc)").x == (1.0, 3.0)
    assert training_series(entries[:1]) == ()


def test_a_long_run_is_averaged() -> None:
    series = training_series([entry(step, itc=float(step % 2)) for step in range(10 * POINTS)])[0]
    assert len(series.x) == POINTS
    assert set(series.y) == {0.5}


def test_an_epoch_is_logged_too() -> None:
    entries = [{"kind": "epoch", "step": step, "epoch": step, "logs": {"clusters": 7 + step}} for step in (1, 2)]
    assert training_series(entries) == (Series("clusters", (1.0, 2.0), (8.0, 9.0)),)


def test_a_flat_series_is_drawn() -> None:
    chart = str(series_chart(Series("lr", (1.0, 2.0), (0.5, 0.5))))
    assert "nan" not in chart
    assert "lr: 0.5 at step 1, 0.5 at step 2" in chart


@pytest.mark.parametrize(
    ("value", "words"),
    [(0, "0"), (5.586, "5.59"), (0.001, "0.001"), (5e-5, "5.0e-5"), (123.4, "123"), (4521.0, "4,521"), (2e7, "2.0e7")],
)
def test_numbers_are_short(value: float, words: str) -> None:
    assert number(value) == words


def test_the_light_falls_where_the_weights_are() -> None:
    weights = np.zeros((4, 2), dtype=np.float32)
    weights[3] = 1
    lit = np.asarray(spotlight(Image.new("RGB", (40, 120), (200, 200, 200)), weights)).astype(float)
    assert lit[-5:].mean() == pytest.approx(200, abs=2)
    assert lit[:40].mean() == pytest.approx(200 * DARK, abs=2)


@pytest.mark.parametrize(
    ("size", "expected"), [((50, 100), (50, 100)), ((4000, 1000), (312, 78)), ((208, 624), (104, 312))]
)
def test_no_side_of_a_shown_picture_is_longer_than_the_limit(size: tuple[int, int], expected: tuple[int, int]) -> None:
    assert shown(Image.new("RGB", size)).size == expected
    assert max(expected) <= SHOWN_HEIGHT
