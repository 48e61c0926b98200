"""A map of a few people: their pictures and captions in the two directions in which these differ most."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from tipr.evaluation import Features
from tipr.report.content import MapPoint, PeopleMap

PEOPLE = 10
PICTURES, CAPTIONS = 4, 2
"""At most, of a person; captions in each language."""
FEWEST = 3
"""People that a map needs."""

Rows = NDArray[np.float64]


def people_map(features: Features, picture: Callable[[int], bytes], *, seed: int) -> PeopleMap | None:
    """Principal components of the pictures and captions of people drawn at random; None when there are too few.

    Pictures and captions are centred apart: where their two clouds lie says nothing about people. The components are
    exact and their signs fixed, so that the same features give the same map.

    Args:
        features: of the split.
        picture: gallery position -> JPEG bytes.
        seed: of the draw.
    """
    both = np.intersect1d(features.query_identity, features.gallery_identity)
    if len(both) < FEWEST:
        return None
    drawn = np.random.default_rng(seed).permutation(both)[:PEOPLE]
    pictures = [np.flatnonzero(features.gallery_identity == person)[:PICTURES] for person in drawn]
    captions = [_captions(features, int(person)) for person in drawn]
    shown, said = np.concatenate(pictures), np.concatenate(captions)
    seen, read = _centred(features.images[shown]), _centred(features.text[said])
    _, sizes, directions = np.linalg.svd(np.concatenate([seen, read]), full_matrices=False)
    axes = directions[:2] * np.sign(directions[:2, np.abs(directions[:2]).argmax(axis=1)].diagonal())[:, None]
    variance = sizes**2
    if len(axes) < 2 or not variance.sum() > 0:
        return None
    shown_of, said_of = _whose(pictures), _whose(captions)
    here_seen, here_read = seen @ axes.T, read @ axes.T
    points = [
        MapPoint(float(x), float(y), int(person) + 1, None) for (x, y), person in zip(here_seen, shown_of, strict=True)
    ] + [
        MapPoint(float(x), float(y), int(person) + 1, features.language[query])
        for (x, y), person, query in zip(here_read, said_of, said, strict=True)
    ]
    return PeopleMap(
        points=tuple(points),
        pictures=tuple(picture(int(part[0])) for part in pictures),
        shares=(float(100 * variance[0] / variance.sum()), float(100 * variance[1] / variance.sum())),
        nearest_here=_nearest(here_seen, shown_of, here_read, said_of),
        nearest=_nearest(seen, shown_of, read, said_of),
    )


def _captions(features: Features, person: int) -> NDArray[np.int64]:
    """The first captions of a person in each language."""
    taken: dict[str, int] = {}
    chosen = []
    for query in np.flatnonzero(features.query_identity == person):
        language = features.language[query]
        taken[language] = taken.get(language, 0) + 1
        if taken[language] <= CAPTIONS:
            chosen.append(query)
    return np.array(chosen, dtype=np.int64)


def _whose(parts: list[NDArray[np.int64]]) -> NDArray[np.int64]:
    """Number of the part, from 0, that each of the joined items comes from."""
    return np.repeat(np.arange(len(parts)), [len(part) for part in parts])


def _centred(rows: NDArray[np.float32]) -> Rows:
    wide: Rows = rows.astype(np.float64)
    wide -= wide.mean(axis=0)
    return wide


def _nearest(seen: Rows, shown_of: NDArray[np.int64], read: Rows, said_of: NDArray[np.int64]) -> float:
    """Per cent of the captions whose nearest mean of pictures is their own person's."""
    means = np.stack([seen[shown_of == person].mean(axis=0) for person in range(int(shown_of.max()) + 1)])
    apart = ((read[:, None] - means[None]) ** 2).sum(axis=-1)
    return float(100 * np.mean(apart.argmin(axis=1) == said_of))
