"""The network behind the default estimator: read both captions, compare what they say, thing by thing.

Each caption is read on its own by the demo model's text branch (continued training). One learned query per slot (colour
of the top, kind of bag, ...) collects what the caption says about that slot; a slot's two collections are compared, and
the translation is noise when any slot disagrees (noisy-or) or when it is in another language than it should be. So the
network can say not only that a translation is suspicious but where.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple, Self

import torch
from torch import Tensor, nn
from torch.nn import functional

from tipr.data.samples import LANGUAGES
from tipr.data.synthetic.attributes import BAGS, BOTTOMS, COLORS, HAIR_COLORS, HAIR_STYLES, HATS, OUTER, SHOES, TOPS
from tipr.encoders.compact import CompactConfig, Places, TransformerLayer
from tipr.encoders.tokenizers import Tokenizer, load_tokenizer
from tipr.errors import WeightsError

FORMAT = 1
DESCRIPTION = "estimator.json"
WEIGHTS = "estimator.safetensors"
_SHADES = (*COLORS, "dark")
SLOTS: Mapping[str, tuple[str, ...]] = {
    "gender": ("f", "m"),
    "age": ("young", "old"),
    "top": (*TOPS, *OUTER[1:]),
    "top_color": _SHADES,
    "pattern": ("striped", "plaid", "dots", "print"),
    "pattern_color": _SHADES,
    "inner": TOPS,
    "inner_color": _SHADES,
    "bottom": (*BOTTOMS[1:], "dress", "denied"),
    "bottom_color": _SHADES,
    "shoes": (*SHOES, "shoes", "denied"),
    "shoe_color": _SHADES,
    "hat": (*HATS[1:], "denied"),
    "hat_color": _SHADES,
    "scarf": ("scarf", "denied"),
    "scarf_color": _SHADES,
    "hair": HAIR_STYLES,
    "hair_color": HAIR_COLORS,
    "beard": ("yes",),
    "eyewear": ("glasses", "sunglasses"),
    "bag": (*BAGS[1:], "bag", "denied"),
    "bag_color": _SHADES,
    "umbrella": ("umbrella", "denied"),
    "umbrella_color": _SHADES,
    "phone": ("yes",),
    "action": ("walking", "standing"),
    "view": ("front", "back", "side"),
}
"""Slot -> the values that a caption may state; class 0 of each slot is "nothing said"."""
CLASSES = 1 + max(map(len, SLOTS.values()))
WIDTH = 128
ROWS_TOGETHER = 48


class Reading(NamedTuple):
    """What one caption says.

    Attributes:
        slots: (B, S, WIDTH) what was collected for each slot.
        values: (B, S, CLASSES) log-probabilities of the values; impossible classes at a very low one.
        language: (B, 4) log-probabilities of the languages, in the order of `LANGUAGES`.
    """

    slots: Tensor
    values: Tensor
    language: Tensor


class TextBranch(nn.Module):
    """The layers of a compact model's text branch, without its way into the joint space; weights keep their names."""

    def __init__(self, config: CompactConfig) -> None:
        super().__init__()
        self.embedding = nn.Embedding(config.vocabulary_size, WIDTH)
        self.position = nn.Parameter(torch.randn(config.max_tokens, WIDTH) * 0.02)
        self.layers = nn.ModuleList(
            TransformerLayer(WIDTH, WIDTH // config.head_width) for _ in range(config.text_layers)
        )
        self.norm = nn.LayerNorm(WIDTH)

    def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
        """(B, L) ids and mask -> (B, L, WIDTH)."""
        places = Places(ids.shape[0], ids.shape[1], mask)
        assert places.flat is not None
        tokens = self.embedding(ids.flatten()[places.flat]) + self.position[places.flat % ids.shape[1]]
        for layer in self.layers:
            tokens = layer(tokens, places)
        return places.spread(self.norm(tokens))


class CaptionReader(nn.Module):
    """Two captions -> how surely each slot disagrees.

    Args:
        vocabulary_size: of the tokenizer.
        max_tokens: longest caption, start and end included.
    """

    def __init__(self, *, vocabulary_size: int, max_tokens: int) -> None:
        super().__init__()
        self.config = CompactConfig(vocabulary_size=vocabulary_size, max_tokens=max_tokens, text_width=WIDTH)
        self.text = TextBranch(self.config)
        slots = len(SLOTS)
        self.query = nn.Parameter(torch.randn(slots, WIDTH) * WIDTH**-0.5)
        self.key_value = nn.Linear(WIDTH, 2 * WIDTH)
        self.value_out = nn.Parameter(torch.randn(slots, WIDTH, CLASSES) * WIDTH**-0.5)
        self.language_out = nn.Linear(WIDTH, len(LANGUAGES))
        self.compare_in = nn.Linear(2 * WIDTH, WIDTH)
        self.compare_slot = nn.Parameter(torch.zeros(slots, WIDTH))
        self.compare_out = nn.Parameter(torch.randn(slots, WIDTH) * 0.02)
        self.surprise = nn.Parameter(torch.ones(slots))
        self.bias = nn.Parameter(torch.full((slots,), -4.0))
        possible = torch.zeros(slots, CLASSES, dtype=torch.bool)
        for row, values in enumerate(SLOTS.values()):
            possible[row, : 1 + len(values)] = True
        self.register_buffer("possible", possible, persistent=False)
        self.possible: Tensor

    def read(self, ids: Tensor, mask: Tensor) -> Reading:
        """Read captions: (B, L) int64 ids and (B, L) bool mask.

        Captions of like length are read together: attention over padding would cost more than the captions.
        """
        lengths = mask.sum(1)
        order = lengths.argsort()
        parts = []
        for start in range(0, len(order), ROWS_TOGETHER):
            rows = order[start : start + ROWS_TOGETHER]
            longest = int(lengths[rows].max())
            parts.append(self._read(ids[rows, :longest], mask[rows, :longest]))
        back = order.argsort()
        return Reading(*(torch.cat(pieces)[back] for pieces in zip(*parts, strict=True)))

    def _read(self, ids: Tensor, mask: Tensor) -> Reading:
        tokens = self.text(ids, mask).float()
        key, value = self.key_value(tokens).float().chunk(2, dim=-1)
        scores = torch.einsum("sd,bld->bsl", self.query, key).masked_fill(~mask[:, None], -1e4)
        slots = scores.softmax(-1) @ value
        logits = torch.einsum("bsd,sdc->bsc", slots, self.value_out).masked_fill(~self.possible, -1e4)
        mean = tokens.sum(1) / mask.sum(1, keepdim=True)  # the branch gives 0 at padding
        return Reading(slots, logits.log_softmax(-1), self.language_out(mean).log_softmax(-1))

    def compare(self, source: Reading, translation: Reading) -> Tensor:
        """(B, S) logits that a slot of the translation does not say what the source says."""
        features = torch.cat([source.slots * translation.slots, (source.slots - translation.slots).abs()], dim=-1)
        hidden = functional.relu(self.compare_in(features) + self.compare_slot)
        agreement = torch.logsumexp(source.values + translation.values, dim=-1).clamp(min=-8.0)
        return (hidden * self.compare_out).sum(-1) - self.surprise * agreement + self.bias

    def forward(self, source: Reading, translation: Reading, language: Tensor) -> tuple[Tensor, Tensor]:
        """How likely each pair is clean.

        Args:
            source, translation: readings of B pairs.
            language: (B,) int64 place in `LANGUAGES` of the language the translation should be in.

        Returns:
            (B,) log-probability that the translation is clean, at most 0; (B, S) slot logits of disagreement.
        """
        logits = self.compare(source, translation)
        right_language = translation.language.gather(1, language[:, None])[:, 0]
        return functional.logsigmoid(-logits).sum(-1) + right_language, logits

    def save(self, folder: Path, tokenizer: Tokenizer, card: Mapping[str, object]) -> None:
        """Write description, weights (float16) and tokenizer into a folder, which is made.

        Args:
            folder: where.
            tokenizer: the one the reader was trained with.
            card: how it was made; JSON values.
        """
        from safetensors.torch import save_file

        folder.mkdir(parents=True, exist_ok=True)
        description = {
            "format": FORMAT,
            "vocabulary_size": self.config.vocabulary_size,
            "max_tokens": self.config.max_tokens,
            "card": dict(card),
        }
        text = json.dumps(description, indent=2, ensure_ascii=False)
        with tempfile.TemporaryDirectory(dir=folder, prefix=".draft-") as scratch:
            draft = Path(scratch)
            (draft / DESCRIPTION).write_text(text + "\n", encoding="utf-8")
            save_file({name: value.half().contiguous() for name, value in self.state_dict().items()}, draft / WEIGHTS)
            tokenizer.save(draft)
            for path in sorted(draft.iterdir()):
                path.chmod(0o644)  # the safetensors writer makes files that nobody else may read
                os.replace(path, folder / path.name)

    @classmethod
    def load(cls, folder: Path) -> tuple[Self, Tokenizer]:
        """Read what `save` wrote; the reader is in evaluation mode, float32.

        Raises:
            WeightsError: the folder is missing, foreign or damaged.
        """
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        try:
            description = json.loads((folder / DESCRIPTION).read_text(encoding="utf-8"))
            if description["format"] != FORMAT:
                raise WeightsError(f"{folder}: format must be {FORMAT}, not {description['format']!r}")
            reader = cls(vocabulary_size=int(description["vocabulary_size"]), max_tokens=int(description["max_tokens"]))
            reader.load_state_dict({name: value.float() for name, value in load_file(folder / WEIGHTS).items()})
        except FileNotFoundError as error:
            raise WeightsError(f"no estimator of translations in {folder}: {error.filename} is missing") from None
        except (OSError, ValueError, KeyError, TypeError, RuntimeError, SafetensorError) as error:
            raise WeightsError(f"estimator {folder} is damaged: {' '.join(str(error).split())[:200]}") from None
        return reader.eval(), load_tokenizer(folder)


def places_of(tokenizer: Tokenizer, rows: Sequence[Sequence[int]], max_tokens: int) -> tuple[Tensor, Tensor]:
    """Rows of pieces as ids and mask, both (N, L): start, the row, end, padding; a long row is cut before its end."""
    framed = [[tokenizer.start_id, *row[: max_tokens - 2], tokenizer.end_id] for row in rows]
    length = max(map(len, framed))
    ids = torch.full((len(framed), length), tokenizer.pad_id)
    for place, row in enumerate(framed):
        ids[place, : len(row)] = torch.tensor(row)
    mask = torch.arange(length)[None] < torch.tensor([len(row) for row in framed])[:, None]
    return ids, mask
