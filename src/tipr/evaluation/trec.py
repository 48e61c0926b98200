"""TREC run and qrels files, so that outside tools can recompute what we report.

A run line is `query Q0 image rank score tag`; a qrels line is `query 0 image 1`. Names hold no white space: anything
but letters, digits and `/ . _ -` is percent-encoded.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import numpy as np
from numpy.typing import NDArray

from tipr.metrics import stable_similarity, top_k

if TYPE_CHECKING:
    from tipr.evaluation.two_stage import SecondStage

DEPTH = 100
BLOCK = 256


def write_trec(
    path: Path | str,
    text: NDArray[Any],
    images: NDArray[Any],
    queries: Sequence[str],
    gallery: Sequence[str],
    *,
    depth: int = DEPTH,
    tag: str = "tipr",
    second_stage: SecondStage | None = None,
) -> Path:
    """Write the ranked lists of all queries as a TREC run.

    Tools such as trec_eval order by score alone, in float32, and break ties in their own way. So that they see OUR
    order, a score that is not below the one before it is written as the next smaller float32.

    Args:
        path: the file; replaced in one step.
        text: (Q, D) unit rows of the queries.
        images: (G, D) unit rows of the gallery.
        queries: Q names, each once.
        gallery: G names, each once.
        depth: images listed for each query; more than G lists all.
        tag: name of the run.
        second_stage: of these queries; its order is written then, its match scores in front of the cosines.

    Raises:
        ValueError: names do not fit the rows or occur twice, or `depth` is below 1.
    """
    if depth < 1:
        raise ValueError(f"depth is {depth}; it must be 1 or more")
    query_names, image_names = _names("query", queries, len(text)), _names("image", gallery, len(images))
    tag = _name(tag)

    def lines() -> Iterator[str]:
        wide = np.asarray(images, dtype=np.float64)
        for begin in range(0, len(text), BLOCK):
            scores = stable_similarity(text[begin : begin + BLOCK], wide)
            first = top_k(scores, depth) if second_stage is None else _reranked(second_stage, begin, scores, depth)
            for row, order in enumerate(first):
                name = query_names[begin + row]
                for rank, (image, score) in enumerate(zip(order, _falling(scores[row, order]), strict=True), start=1):
                    yield f"{name} Q0 {image_names[image]} {rank} {score!s} {tag}\n"

    return _write(Path(path), lines())


def write_qrels(
    path: Path | str,
    query_identity: NDArray[np.int64],
    gallery_identity: NDArray[np.int64],
    queries: Sequence[str],
    gallery: Sequence[str],
) -> Path:
    """Write which images are relevant to which query; the counterpart of `write_trec`.

    Args:
        path: the file; replaced in one step.
        query_identity: (Q,) integers.
        gallery_identity: (G,) integers.
        queries, gallery: names, as in `write_trec`.
    """
    query_names = _names("query", queries, len(query_identity))
    image_names = _names("image", gallery, len(gallery_identity))
    members: dict[int, list[str]] = {}
    for name, identity in zip(image_names, gallery_identity.tolist(), strict=True):
        members.setdefault(identity, []).append(name)
    lines = (
        f"{query} 0 {image} 1\n"
        for query, identity in zip(query_names, query_identity.tolist(), strict=True)
        for image in members.get(identity, ())
    )
    return _write(Path(path), lines)


def _reranked(stage: SecondStage, begin: int, scores: NDArray[np.float32], depth: int) -> Iterator[NDArray[np.int64]]:
    """The first positions of each row of cosines, best first; the row then holds match scores where there are any."""
    for row, query in enumerate(range(begin, begin + len(scores))):
        order = stage.order(query, scores[row])[:depth]
        scores[row, stage.shortlist[query]] = stage.match[query]
        yield order


def _falling(scores: NDArray[np.float32]) -> NDArray[np.float32]:
    """The same scores, each strictly below the one before it."""
    falling = scores.copy()
    for i in np.flatnonzero(scores[1:] >= scores[:-1]) + 1:
        j = i
        while j < len(falling) and falling[j] >= falling[j - 1]:
            falling[j] = np.nextafter(falling[j - 1], np.float32(-np.inf))
            j += 1
    return falling


def _names(side: str, names: Sequence[str], expected: int) -> list[str]:
    if len(names) != expected:
        raise ValueError(f"{len(names)} {side} names for {expected} rows")
    encoded = [_name(name) for name in names]
    if len(set(encoded)) != len(encoded):
        raise ValueError(f"a {side} name occurs twice")
    return encoded


def _name(name: str) -> str:
    if not name:
        raise ValueError("a name is empty")
    return quote(name, safe="/._-")


def _write(path: Path, lines: Iterator[str]) -> Path:
    draft = path.with_name(f".{path.name}.{os.getpid()}.draft")
    try:
        with draft.open("w", encoding="ascii", newline="\n") as file:
            file.writelines(lines)
        os.replace(draft, path)
    finally:
        draft.unlink(missing_ok=True)
    return path
