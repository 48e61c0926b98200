"""The data statement that is written beside every set of rendered people."""

from __future__ import annotations

from tipr.data.samples import SPLITS
from tipr.data.synthetic.presets import Knobs

STATEMENT_NAME = "DATA_STATEMENT.md"


def data_statement(knobs: Knobs, manifest_sha256: str) -> str:
    """Markdown: what the set is, how it came about, licence, and what it is not good for."""
    people = ", ".join(f"{knobs.people(split):,} {split}" for split in SPLITS if knobs.people(split))
    return f"""# Rendered people, preset `{knobs.preset}`

**What it is.** {knobs.image_count:,} computer-drawn pictures of people who do not exist ({people}; {knobs.images}
pictures each; {knobs.width} x {knobs.height} pixels), each with two captions in {", ".join(knobs.languages)}.
Seed {knobs.seed}; SHA-256 of `manifest.jsonl`: {manifest_sha256}.

**How it came about.** Attributes (clothes, colours, bags, hair, pose, camera) are drawn at random, a program renders
them, and a grammar words them. No photograph, no scan, no text of a person and no trained model went into it. The
share of each attribute follows, roughly, how often captions of public person data sets name it. Times of day are drawn
too and mean nothing.

**Licence.** MIT, like the program that made it. Use it for anything; no warranty.

**People.** Nobody is depicted. Six skin tones are drawn in equal shares, independently of every other attribute, and
are never captioned; neither are origin, beauty or body shape. Captions say "man" and "woman" of figures that were
drawn that way, and "person" in one case out of ten; this is a convention of the field, not a statement about gender.

**Good for.** Checking that training, evaluation, indexing and search work and stay correct; comparing methods with each
other under known conditions; teaching; demonstrations without anybody's picture.

**Not good for.** Anything about real people. A model trained on it is not fit for real photographs, and its scores say
nothing about them. Eight drawn cameras are not real cameras; clothes, bodies, streets and sentences have far less
variety than the world; disability, children, religious dress and most kinds of work wear do not occur. Fairness
measured here is not fairness elsewhere. It must not be used to claim that a system can find or identify people.

**Reference.** `benchmark.json` holds the score of a reader who knows every true attribute and sees no pixels, and
chance: read every score between these two. A result needs the size of the gallery, the language and the seed beside it.
"""
