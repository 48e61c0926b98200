"""What a band means in one gallery, measured with a background sample of queries for people who are not in it.

The queries are descriptions of rendered people, who are nobody, in four languages, whole and a few words long (a short
query spreads a gallery less, so its limits are its own). Each is compared
with the gallery, and its best picture is noted in units above the query's own background (`tipr.gallery.bands`). Then a
picture stands out when fewer than one in 60 of them gets one like it, and is similar when fewer than half of them do.
The more pictures, the better the best of them by chance alone: that is why a gallery that has grown by half is measured
again. The queries' vectors are kept, so that this needs no model.

GALLERY/background.json   vectors of the queries and their languages; made from a fixed seed
GALLERY/bands.json        the limits, and of how many pictures they were measured
"""

from __future__ import annotations

import base64
import re
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from tipr.errors import GalleryCorrupt
from tipr.gallery.bands import DEFAULT, BandLimits, Units, background, backgrounds
from tipr.gallery.durable import read_json, write_json
from tipr.metrics.ranking import stable_similarity

if TYPE_CHECKING:
    from tipr.gallery.stores.exact import ExactScan
    from tipr.gallery.stores.on_disk import OnDisk
    from tipr.retrieval import Retriever

QUERIES = 1600
"""Background queries, as many in each language; half of them are short."""
SHORT = 48
"""Bytes of UTF-8 up to which a query is short: some eight words, or sixteen Chinese characters."""
FEWEST_ROWS = 100
"""Pictures below which a background says little: the limits of `tipr.gallery.bands` hold."""
GROWTH = 1.5
"""Measured again when a gallery has grown, or shrunk, by this factor."""
FALSE_RATE = 0.015
"""Share of background queries whose best picture may stand out: well below what is promised for others, 5 %, who say
things otherwise than the background does."""
TOGETHER = 256
"""Queries that are compared with the sample at a time."""
SEED = 20_261_121
BACKGROUND = "background.json"
LIMITS = "bands.json"


@dataclass(frozen=True, slots=True)
class Calibration:
    """What was measured.

    Attributes:
        rows: pictures of the gallery then.
        queries: background queries.
        similar, stands_out: limits in units above a query's background, by `group` of the query.
    """

    rows: int
    queries: int
    similar: dict[str, float]
    stands_out: dict[str, float]

    def fits(self, rows: int) -> bool:
        """Whether it still holds for so many pictures."""
        return self.rows / GROWTH < rows < self.rows * GROWTH

    def units(self, language: str | None, text: str | None = None) -> Units:
        """The limits for words in a language; the strictest of all for an unknown one, or where the words are not."""
        lengths = ("short", "long") if text is None else (length(text),)
        alike = [name for name in self.stands_out if name.split()[1] in lengths] or list(self.stands_out)
        known = [name for name in alike if name.split()[0] == language] or alike
        return Units(max(self.similar[name] for name in known), max(self.stands_out[name] for name in known))


def length(text: str) -> str:
    """ "short" or "long"."""
    return "short" if len(text.encode("utf-8", "replace")) <= SHORT else "long"


@lru_cache(maxsize=1)
def descriptions(count: int, seed: int) -> tuple[tuple[str, str], ...]:
    """(language, description) of rendered people, another one for each; `count` in each of the four languages."""
    from tipr.data.samples import LANGUAGES
    from tipr.data.synthetic.attributes import sample_person, sample_shot
    from tipr.data.synthetic.captions import facts, realise

    generator = np.random.default_rng(seed)
    made = []
    for number in range(count):
        for language in LANGUAGES:
            person = sample_person(generator)
            seen = facts(person, sample_shot(generator, person, 0), generator)
            text = realise(seen, language, generator, plans="paraphrase" if number // 2 % 2 else "training")
            made.append((language, text if number % 2 else shortened(text, generator)))
    return tuple(made)


def measure(
    scan: ExactScan | OnDisk, vectors: NDArray[np.float16], groups: Sequence[str], *, false_rate: float = FALSE_RATE
) -> Calibration:
    """Compare background queries with a gallery.

    Args:
        scan: the gallery's rows, at least one.
        vectors: (Q, D) of the queries.
        groups: Q of them: language and `length`.
        false_rate: share of the queries whose best picture may stand out.
    """
    best = best_units(scan, vectors.astype(np.float32))
    belongs = np.asarray(groups)
    similar, stands_out = {}, {}
    for group in sorted(set(groups)):
        own = best[belongs == group]
        similar[group] = float(np.quantile(own, 0.5, method="higher"))
        stands_out[group] = float(np.quantile(own, 1 - false_rate, method="higher"))
    return Calibration(len(scan), len(vectors), similar, stands_out)


def best_units(scan: ExactScan | OnDisk, queries: NDArray[np.float32]) -> NDArray[np.float64]:
    """(Q,) how far the best row of each of (Q, D) queries stands above the query's background, in units."""
    best = np.array([ranked.scores[0] for ranked in scan.best(queries, 1)], dtype=np.float64)
    result = []
    for start in range(0, len(queries), TOGETHER):
        middle, unit = backgrounds(stable_similarity(queries[start : start + TOGETHER], scan.sample))
        above = best[start : start + TOGETHER] - middle
        result.append(np.divide(above, unit, out=np.zeros_like(above), where=unit > 0))
    return np.concatenate(result)


def calibrate(folder: Path, scan: ExactScan | OnDisk, retriever: Callable[[], Retriever]) -> Calibration | None:
    """Measure a gallery again where that is due, and note it; None for one with too few pictures.

    Args:
        folder: of the gallery; the caller is its only writer.
        scan: its rows.
        retriever: gives its model, which encodes the background queries the first time.

    Raises:
        GalleryError: the notes cannot be written.
    """
    if len(scan) < FEWEST_ROWS:
        return None
    found = read_calibration(folder)
    if found is not None and found.fits(len(scan)):
        return found
    groups, vectors = _read_background(folder) or _new_background(folder, retriever())
    measured = measure(scan, vectors, groups)
    write_json(folder / LIMITS, asdict(measured))
    return measured


def read_calibration(folder: Path) -> Calibration | None:
    """What was measured last; None for a gallery that was not.

    Raises:
        GalleryCorrupt: the file is damaged.
    """
    said = read_json(folder / LIMITS)
    if said is None:
        return None
    try:
        sides = [{str(name): float(value) for name, value in said[side].items()} for side in ("similar", "stands_out")]
        if not sides[0] or sides[0].keys() != sides[1].keys() or any(len(name.split()) != 2 for name in sides[0]):
            raise ValueError("groups")
        return Calibration(int(said["rows"]), int(said["queries"]), *sides)
    except (AttributeError, KeyError, TypeError, ValueError):
        raise GalleryCorrupt(folder, f"{LIMITS} holds values of the wrong kind") from None


def limits_of(
    scores: NDArray[np.float32], calibration: Calibration | None, *, language: str | None, words: str | None
) -> BandLimits:
    """The bands of one query.

    Args:
        scores: of the query with the gallery's sample.
        calibration: of the gallery, if it has one.
        language: of the query, where it is known.
        words: the query, where it is words alone; pictures are more alike to each other than words are to pictures, so
            for others the limits are at least the default ones.
    """
    units = DEFAULT if calibration is None else calibration.units(language, words)
    if words is None:
        units = Units(max(units.similar, DEFAULT.similar), max(units.stands_out, DEFAULT.stands_out))
    middle, unit = background(scores)
    return BandLimits(middle + units.similar * unit, middle + units.stands_out * unit)


def _read_background(folder: Path) -> tuple[list[str], NDArray[np.float16]] | None:
    said: Any = read_json(folder / BACKGROUND)
    if said is None:
        return None
    try:
        groups = [str(group) for group in said["groups"]]
        flat = np.frombuffer(base64.b64decode(said["vectors"], validate=True), dtype="<f2")
        return groups, flat.reshape(len(groups), -1).astype(np.float16)
    except (KeyError, TypeError, ValueError):
        raise GalleryCorrupt(folder, f"{BACKGROUND} holds values of the wrong kind") from None


def _new_background(folder: Path, retriever: Retriever) -> tuple[list[str], NDArray[np.float16]]:
    said = descriptions(QUERIES // 4, SEED)
    languages = [language for language, _ in said]
    groups = [f"{language} {length(text)}" for language, text in said]
    vectors = retriever.encode_text([text for _, text in said], language=languages).astype(np.float16)
    packed = base64.b64encode(vectors.astype("<f2").tobytes()).decode()
    write_json(folder / BACKGROUND, {"seed": SEED, "groups": groups, "vectors": packed}, indent=None)
    return groups, vectors


def shortened(text: str, generator: np.random.Generator) -> str:
    """A few words of a description, as people type them: its beginning, or one of its parts."""
    parts = [part.strip() for part in re.split(r"[,.;，。；、]", text) if part.strip()]
    chosen = text if generator.random() < 0.5 else parts[int(generator.integers(len(parts)))]
    while len(chosen.encode()) > SHORT:
        chosen = chosen.rsplit(" ", 1)[0] if " " in chosen else chosen[:-1]
    return chosen.strip(" ,.;，。；、")
