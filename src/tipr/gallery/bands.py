"""Bands instead of percentages: how far a similarity stands out from what the query gives to everybody else.

A similarity of 0.6 is not a probability of 60 %, and its size moves with the query. A band compares a score with the
scores that the same query gives to the whole gallery: their median is the background, and their median absolute
deviation, scaled to a standard deviation, is the unit. Both are robust against the few pictures that do fit. How many
units a band takes is measured for each gallery (`tipr.gallery.calibration`); the numbers here hold where it was not.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

BANDS = ("stands_out", "similar", "weak")
BAND_NAMES = {"stands_out": "stands out", "similar": "similar", "weak": "weak"}
STANDS_OUT = 3.5
"""Units above the background from which a picture stands out."""
SIMILAR = 2.0
"""Units above the background from which a picture is similar."""
SCALE = 1.4826
"""Median absolute deviation -> standard deviation, for normal scores."""


class Units(NamedTuple):
    """Units above a query's background from which a picture is similar, and from which it stands out."""

    similar: float
    stands_out: float


DEFAULT = Units(SIMILAR, STANDS_OUT)


class BandLimits(NamedTuple):
    """Scores from which a picture is similar, and from which it stands out."""

    similar: float
    stands_out: float


def band_limits(scores: np.ndarray) -> BandLimits:
    """Limits for one query.

    Args:
        scores: (G,) float similarities of the query with the whole gallery, G >= 1.

    Raises:
        ValueError: there is no score.
    """
    if scores.size == 0:
        raise ValueError("band limits need at least one score")
    middle, unit = background(scores)
    return BandLimits(middle + SIMILAR * unit, middle + STANDS_OUT * unit)


def background(scores: np.ndarray) -> tuple[float, float]:
    """Middle and unit of a query's scores with a gallery, or with a sample of it: (G,) floats, G >= 1."""
    middle, unit = backgrounds(scores[None])
    return float(middle[0]), float(unit[0])


def backgrounds(scores: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(Q,) middles and (Q,) units of several queries' scores: (Q, G) floats, G >= 1."""
    middle = np.median(scores, axis=1)
    return middle.astype(np.float64), SCALE * np.median(np.abs(scores - middle[:, None]), axis=1).astype(np.float64)


def band(score: float, limits: BandLimits) -> str:
    """The band of one score, a key of `BAND_NAMES`; with no spread in the background nothing stands out."""
    if limits.stands_out <= limits.similar:
        return "weak"
    if score >= limits.stands_out:
        return "stands_out"
    return "similar" if score >= limits.similar else "weak"
