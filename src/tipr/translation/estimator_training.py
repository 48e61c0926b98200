"""Training of the default estimator's network on synthetic captions and damaged translations of them.

A step draws statements. Each is worded in every language, and once more in each language after damage; a caption is
read once and stands in several pairs. Four losses: what each caption says (slots and language), which slots of a pair
disagree, and whether the pair is damaged at all.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from tipr.data.samples import LANGUAGES
from tipr.encoders.tokenizers import SubwordTokenizer, Tokenizer
from tipr.retrieval import Retriever
from tipr.translation.caption_reader import SLOTS, CaptionReader, Reading, places_of
from tipr.translation.damage import CONTENT_DAMAGES, Statement, change, draw_statement, word
from tipr.translation.wordings import Plans

MAX_TOKENS = 160
"""Longest caption that is read; unknown words are spelled in bytes, so this is more than a search needs."""
VOCABULARY = 4000
VOCABULARY_STATEMENTS = 3000
"""Statements, worded in every language and both styles, that the vocabulary is learned from."""
STUDY_SHARE = 0.6
"""Share of captions in the study style (`wordings`); the others are in the training style."""
STATEMENTS = 20
"""Statements of one step; seven captions and twelve pairs each."""
PEAK_RATE = 1.5e-3
WARM_UP = 50
"""Steps until the learning rate has risen to its peak."""
VALUE_WEIGHT = 5.0
"""Weight of the slot readings, whose mean over all slots is small because most say nothing."""
LARGEST_SPLIT_SHARE = 0.2
LARGEST_SMUDGE_SHARE = 0.12
SMUDGE_PIECES = 10
FRAGMENTS = (4, 336)
"""Ids of the bytes and the shortest merges: what unknown words fall apart into."""
Progress = Callable[[int, int], None]


class Batch(NamedTuple):
    """N captions and P pairs of them.

    Attributes:
        ids, mask: (N, L).
        values: (N, S) int64 class of each slot.
        spoken: (N,) int64 place in `LANGUAGES` of the language each caption is in.
        source, translation: (P,) int64 rows.
        language: (P,) int64 place of the language the translation should be in.
        damaged: (P,) bool.
    """

    ids: Tensor
    mask: Tensor
    values: Tensor
    spoken: Tensor
    source: Tensor
    translation: Tensor
    language: Tensor
    damaged: Tensor


def learn_vocabulary(*, seed: int, study_share: float = STUDY_SHARE) -> SubwordTokenizer:
    """A vocabulary in which the names of the learned styles are one or two pieces, not strings of bytes."""
    styles: tuple[Plans, ...] = ("training", "study") if study_share else ("training",)
    draw = np.random.default_rng([seed, 11])
    texts = []
    for _ in range(VOCABULARY_STATEMENTS):
        statement = draw_statement(draw)
        texts += [word(statement, language, draw, plans) for language in LANGUAGES for plans in styles]
    return SubwordTokenizer.train(texts, vocabulary_size=VOCABULARY, max_tokens=MAX_TOKENS)


def vocabulary_of(tokenizer: Tokenizer) -> dict[str, int]:
    """Piece -> id of a subword tokenizer; pieces are spelled in the signs that stand for bytes."""
    pieces: dict[str, int] = tokenizer.to_json()["engine"]["model"]["vocab"]
    return pieces


class Captions:
    """Endless training captions; the same seed gives the same ones.

    Args:
        tokenizer: a subword tokenizer.
        seed: of the people, the wordings, the damage and the blemishes.
        study_share: share of captions in the study style.
    """

    def __init__(self, tokenizer: Tokenizer, *, seed: int, study_share: float = STUDY_SHARE) -> None:
        self.tokenizer = tokenizer
        self.study_share = study_share
        self.generator = np.random.default_rng([seed, 7])
        self.ids = vocabulary_of(tokenizer)
        self.spelling = {number: text for text, number in self.ids.items()}
        self.classes = {
            name: {value: place for place, value in enumerate(values, start=1)} for name, values in SLOTS.items()
        }

    def batch(self, statements: int) -> Batch:
        """Draw statements, word them, damage them, blemish them and pair them."""
        draw = self.generator
        texts: list[str] = []
        values: list[list[int]] = []
        spoken: list[int] = []
        pairs: list[tuple[int, int, int, bool]] = []

        def add(statement: Statement, language: str) -> int:
            texts.append(word(statement, language, draw, "study" if draw.random() < self.study_share else "training"))
            values.append([self.classes[name].get(statement.items().get(name, ""), 0) for name in SLOTS])
            spoken.append(LANGUAGES.index(language))
            return len(texts) - 1

        for _ in range(statements):
            statement = draw_statement(draw)
            clean = {language: add(statement, language) for language in LANGUAGES}
            for language in LANGUAGES[1:]:
                place = LANGUAGES.index(language)
                broken = add(*self.damaged(statement, language))
                others = [clean[other] for other in LANGUAGES[1:] if other != language]
                for source in (clean[LANGUAGES[0]], others[int(draw.integers(len(others)))]):
                    pairs += [(source, clean[language], place, False), (source, broken, place, True)]
        rows = [self.blemish(row) for row in self.tokenizer.pieces(texts)]
        ids, mask = places_of(self.tokenizer, rows, MAX_TOKENS)
        sources, translations, asked, damaged = zip(*pairs, strict=True)
        return Batch(
            ids,
            mask,
            torch.tensor(values),
            torch.tensor(spoken),
            torch.tensor(sources),
            torch.tensor(translations),
            torch.tensor(asked),
            torch.tensor(damaged),
        )

    def damaged(self, statement: Statement, language: str) -> tuple[Statement, str]:
        """A changed statement in the right language, or the same in a wrong one; all kinds equally often."""
        draw = self.generator
        while True:
            kind = int(draw.integers(len(CONTENT_DAMAGES) + 1))
            if kind == len(CONTENT_DAMAGES):
                wrong = [other for other in LANGUAGES if other != language]
                return statement, wrong[int(draw.integers(len(wrong)))]
            changed = change(statement, CONTENT_DAMAGES[kind], draw)
            if changed is not None:
                return changed[0], language

    def blemish(self, row: Sequence[int]) -> list[int]:
        """Known words in unknown spelling, and unknown words.

        A piece may be split into shorter ones (as BPE-dropout does; Provilkov et al., ACL 2020), so that `blau` is
        known inside a new compound; fragments that mean nothing stand here and there, so that an unknown word is no
        sign of damage. They rarely take the place of a piece: what is said must stay true.
        """
        draw = self.generator
        split, smudge = (
            max(0.0, draw.uniform(-0.5, 1.0)) * share for share in (LARGEST_SPLIT_SHARE, LARGEST_SMUDGE_SHARE)
        )
        chances = draw.random((len(row) + 1, 2)).tolist()
        blemished: list[int] = []
        position = 0
        while position < len(row):
            if chances[position][0] < smudge:
                blemished += draw.integers(*FRAGMENTS, int(draw.integers(1, SMUDGE_PIECES))).tolist()
                position += int(draw.integers(4)) // 3
            if position < len(row):
                blemished += self._parts(row[position]) if chances[position][1] < split else [row[position]]
                position += 1
        return blemished

    def _parts(self, piece: int) -> list[int]:
        text = self.spelling[piece]
        if len(text) < 2:
            return [piece]
        cut = int(self.generator.integers(1, len(text)))
        return [
            number
            for part in (text[:cut], text[cut:])
            for number in ([self.ids[part]] if part in self.ids else [self.ids[sign] for sign in part])
        ]


def train_reader(
    retriever: Retriever,
    *,
    steps: int,
    seed: int,
    study_share: float = STUDY_SHARE,
    progress: Progress | None = None,
) -> tuple[CaptionReader, SubwordTokenizer]:
    """Train the network from the text branch of a compact model with a subword tokenizer, such as the demo's.

    Args:
        retriever: its text branch is the start; it is not changed.
        steps: training steps of `STATEMENTS` statements.
        seed: of vocabulary, data and initial weights.
        study_share: share of captions in the study style; 0 learns the names of the training style alone.
        progress: called with (steps done, steps).

    Returns:
        The network in evaluation mode, and its tokenizer.
    """
    tokenizer = learn_vocabulary(seed=seed, study_share=study_share)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        reader = CaptionReader(vocabulary_size=tokenizer.vocabulary_size, max_tokens=MAX_TOKENS)
    _start_from(reader, tokenizer, retriever)
    captions = Captions(tokenizer, seed=seed, study_share=study_share)
    optimizer = torch.optim.AdamW(reader.parameters(), lr=PEAK_RATE, weight_decay=0.01, fused=True)
    reader.train()
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = PEAK_RATE * _rate(step, steps)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            loss = sum(losses(reader, captions.batch(STATEMENTS)).values(), torch.zeros(()))
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(reader.parameters(), 1.0)
        optimizer.step()
        if progress is not None:
            progress(step + 1, steps)
    return reader.eval(), tokenizer


def losses(reader: CaptionReader, batch: Batch) -> dict[str, Tensor]:
    """The four weighted terms of one step, each a scalar."""
    reading = reader.read(batch.ids, batch.mask)
    source, translation = (Reading(*(part[rows] for part in reading)) for rows in (batch.source, batch.translation))
    clean, logits = reader(source, translation, batch.language)
    differs = (batch.values[batch.source] != batch.values[batch.translation]).float()
    clean = clean.clamp(max=-1e-5)
    return {
        "values": VALUE_WEIGHT * functional.nll_loss(reading.values.flatten(0, 1), batch.values.flatten()),
        "language": functional.nll_loss(reading.language, batch.spoken),
        "slots": functional.binary_cross_entropy_with_logits(logits, differs, reduction="none").sum(1).mean(),
        "pair": -torch.where(batch.damaged, torch.log(-torch.expm1(clean)), clean).mean(),
    }


def _start_from(reader: CaptionReader, tokenizer: Tokenizer, retriever: Retriever) -> None:
    """Copy the text branch; a piece that is new starts as the mean of the known pieces it consists of."""
    weights = {
        name.removeprefix("text."): value
        for name, value in retriever.encoder.state_dict().items()
        if name.startswith("text.")
    }
    known = vocabulary_of(retriever.tokenizer)
    table = weights["embedding.weight"]
    with torch.no_grad():
        for piece, number in vocabulary_of(tokenizer).items():
            reader.text.embedding.weight[number] = table[spelled(piece, known)].mean(0)
        positions = weights["position"][:MAX_TOKENS]
        reader.text.position[: len(positions)] = positions
    for name in ("layers", "norm"):
        branch = {key.removeprefix(f"{name}."): value for key, value in weights.items() if key.startswith(f"{name}.")}
        getattr(reader.text, name).load_state_dict(branch)


def spelled(piece: str, known: Mapping[str, int]) -> list[int]:
    """The longest known pieces, from the left, that a piece consists of; single signs are always known."""
    numbers = []
    while piece:
        length = next(length for length in range(len(piece), 0, -1) if piece[:length] in known)
        numbers.append(known[piece[:length]])
        piece = piece[length:]
    return numbers


def _rate(step: int, steps: int) -> float:
    """Linear warm-up, then half a cosine down to nearly nothing."""
    warm = min(1.0, (step + 1) / WARM_UP)
    return warm * (0.51 + 0.49 * math.cos(math.pi * step / steps))
