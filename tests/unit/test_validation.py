"""Scoring and encoding in the middle of a run, on features worked out by hand."""

from contextlib import nullcontext

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from tipr.data.augmentation import Augmentation
from tipr.data.images import Preprocessing, normalise
from tipr.data.loading import Captions, ImageStore, PairSource
from tipr.data.samples import ImageItem, Split
from tipr.data.sampling import RandomSampler
from tipr.data.views import PairViews
from tipr.encoders import ENCODERS, Encoder
from tipr.encoders.base import Encoded
from tipr.errors import DatasetError, TrainingError
from tipr.training.features import pair_features
from tipr.training.validation import Validation

CPU = torch.device("cpu")
DIRECTIONS = {1: (1.0, 0.0), 2: (0.6, 0.8), 3: (0.0, 2.0)}
"""Colour of an image or word of a caption -> its feature."""


class Table(Encoder):
    """An encoder whose features are those of `DIRECTIONS`; notes how it is called."""

    embed_dim = 2

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[int] = []
        self.modes: set[bool] = set()

    def encode_image(self, pixels: Tensor) -> Encoded:
        return self.look_up(pixels[:, 0, 0, 0].mul(255).round().long())

    def encode_text(self, ids: Tensor, mask: Tensor) -> Encoded:
        return self.look_up(ids[:, 0])

    def look_up(self, keys: Tensor) -> Encoded:
        self.seen += keys.tolist()
        self.modes.add(self.training)
        rows = torch.tensor([DIRECTIONS[key] for key in keys.tolist()])
        return Encoded(rows[:, None], rows, torch.ones(len(rows), 1, dtype=torch.bool))


def split(folder, colours, captions, people):
    items = []
    for position, (colour, texts, person) in enumerate(zip(colours, captions, people, strict=True)):
        path = folder / f"{position}.png"
        Image.new("RGB", (4, 8), (colour, 0, 0)).save(path)
        items.append(ImageItem(path, person, texts))
    return Split.build("val", items)


def validation(made, level, words):
    ids = np.asarray(words, np.int64)[:, None]
    return Validation(
        made,
        ImageStore(made.images, (8, 4), budget=2**20),
        Captions(ids, np.ones_like(ids, np.bool_)),
        preprocessing=Preprocessing((8, 4), (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)),
        batch_size=2,
        device=CPU,
        level=level,
    )


COLOURS = (2, 1, 1, 3)
CAPTIONS = ((("en", "x"),), (("en", "x"), ("zh", "x")), (("en", "x"),), (("zh", "x"),))
WORDS = (3, 1, 2, 1, 3)
"""In the order of the pairs: image 0 en, image 1 en, image 1 zh, image 2 en, image 3 zh.

Ranks of the own image, ties to the lower position (images 1 and 2 are alike):
image 0 en, word 3: image 3, then 0: rank 2. Image 1 en, word 1: image 1 before its twin 2: rank 1. Image 2 en, word 1:
its twin 1 comes first: rank 2. Image 1 zh, word 2: image 0, 3 (0.8), then 1 and 2 (0.6): rank 3. Image 3 zh, word 3: 1.
"""


def test_a_caption_looks_for_its_own_image_and_ties_go_to_the_lower_position(tmp_path):
    made = split(tmp_path, COLOURS, CAPTIONS, [None] * 4)
    scores = validation(made, "pair", WORDS).score(Table(), nullcontext)
    english, chinese, mean = scores["en"], scores["zh"], scores["mean"]
    assert english["R@1"] == pytest.approx(100 / 3)
    assert english["mAP"] == pytest.approx(100 * (1 / 2 + 1 + 1 / 2) / 3)
    assert chinese["R@1"] == pytest.approx(50)
    assert chinese["mAP"] == pytest.approx(100 * (1 / 3 + 1) / 2)
    assert mean["R@1"] == pytest.approx(100 * (1 / 3 + 1 / 2) / 2)
    assert english["R@5"] == chinese["R@5"] == 100


def test_identity_level_counts_every_image_of_the_person_and_pair_level_reads_nobody(tmp_path):
    people = [7, 5, 5, 7]
    made = split(tmp_path, COLOURS, CAPTIONS, people)
    scores = validation(made, "identity", WORDS).score(Table(), nullcontext)
    assert scores["en"]["R@1"] == 100
    assert scores["zh"]["R@1"] == pytest.approx(50)  # image 1 zh finds image 0, of the other person
    by_pair = validation(made, "pair", WORDS).score(Table(), nullcontext)
    assert by_pair == validation(split(tmp_path, COLOURS, CAPTIONS, [9, 1, 3, 9]), "pair", WORDS).score(
        Table(), nullcontext
    )
    with pytest.raises(DatasetError, match="split 'val': 1 of 4 images have no identity"):
        validation(split(tmp_path, COLOURS, CAPTIONS, [7, None, 5, 7]), "identity", WORDS)


def test_the_encoder_is_scored_in_evaluation_mode_once_for_each_item(tmp_path):
    encoder = Table()
    validation(split(tmp_path, COLOURS, CAPTIONS, [None] * 4), "pair", WORDS).score(encoder, nullcontext)
    assert encoder.modes == {False}
    assert encoder.training
    assert sorted(encoder.seen) == sorted((*COLOURS, *WORDS))


def test_features_that_are_not_finite_are_refused(tmp_path, monkeypatch):
    monkeypatch.setitem(DIRECTIONS, 3, (float("nan"), 0.0))
    made = split(tmp_path, COLOURS, CAPTIONS, [None] * 4)
    with pytest.raises(TrainingError, match="features of split 'val' are not finite"):
        validation(made, "pair", WORDS).score(Table(), nullcontext)


@pytest.fixture
def encoder():
    torch.manual_seed(0)
    kind = ENCODERS["compact"]
    small = {"widths": (16, 16), "blocks": (1, 1), "stripes": 2, "text_width": 16, "text_layers": 1, "head_width": 8}
    sizes = {"image_size": (32, 16), "embed_dim": 16, "max_tokens": 10, "vocabulary_size": 60}
    return kind.build(kind.Config.model_validate(small | sizes))


@pytest.fixture
def pairs(tmp_path):
    """11 pairs of 6 images; captions of an image need not be neighbours."""
    paths = []
    for index, pixels in enumerate(np.random.default_rng(0).integers(0, 256, (6, 32, 16, 3), dtype=np.uint8)):
        paths.append(tmp_path / f"{index}.png")
        Image.fromarray(pixels).save(paths[-1])
    rng = np.random.default_rng(1)
    mask = np.arange(10) < rng.integers(3, 11, 11)[:, None]
    captions = Captions(np.where(mask, rng.integers(4, 60, (11, 10)), 0), mask)
    image_id = rng.permutation(np.arange(11) % 6)
    return paths, captions, image_id


def pair_source(pairs, **share):
    paths, captions, image_id = pairs
    return PairSource(
        ImageStore(paths, (32, 16), budget=2**20),
        captions,
        image_id,
        views=PairViews(clean_view_augment="full"),
        perturbation=None,
        sampler=RandomSampler(None, image_id, batch_size=4, seed=1),
        augmentation=Augmentation(),
        preprocessing=Preprocessing((32, 16)),
        trim=True,
        **share,
    )


def test_features_of_pairs_are_those_of_the_clean_view_in_evaluation_mode(pairs, encoder):
    source = pair_source(pairs)
    images, captions = pair_features(source, encoder, nullcontext, batch_size=4, device=CPU)
    assert encoder.training
    assert images.dtype == captions.dtype == torch.float32
    assert not images.requires_grad
    assert not images.is_inference()  # a bank filled with them takes part in a loss
    encoder.eval()
    with torch.no_grad():
        for row, image in enumerate(pairs[2]):
            pixels = normalise(torch.from_numpy(source.images.take(np.array([image]))))
            np.testing.assert_allclose(images[row], encoder.encode_image(pixels).pooled[0], rtol=1e-5, atol=1e-6)
            ids, mask = (torch.from_numpy(each[row : row + 1]) for each in (pairs[1].ids, pairs[1].mask))
            np.testing.assert_allclose(captions[row], encoder.encode_text(ids, mask).pooled[0], rtol=1e-5, atol=1e-6)


def test_an_image_is_encoded_once_for_all_its_captions(tmp_path):
    made = split(tmp_path, COLOURS, CAPTIONS, [None] * 4)
    bare, encoder = made.pairs(), Table()
    ids = np.asarray(WORDS, np.int64)[:, None]
    source = PairSource(
        ImageStore(bare.images, (8, 4), budget=2**20),
        Captions(ids, np.ones_like(ids, np.bool_)),
        bare.image_id,
        views=PairViews(),
        perturbation=None,
        sampler=RandomSampler(None, bare.image_id, batch_size=2, seed=1),
        augmentation=Augmentation(),
        preprocessing=Preprocessing((8, 4), (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)),
        trim=True,
    )
    images, captions = pair_features(source, encoder, nullcontext, batch_size=3, device=CPU)
    assert sorted(encoder.seen) == sorted((*COLOURS, *WORDS))
    np.testing.assert_allclose(images, torch.tensor([DIRECTIONS[COLOURS[image]] for image in bare.image_id]))
    np.testing.assert_allclose(captions, torch.tensor([DIRECTIONS[word] for word in WORDS]))


def test_processes_share_the_passes_and_get_the_same_bits(pairs, encoder):
    alone = pair_features(pair_source(pairs), encoder, nullcontext, batch_size=2, device=CPU)
    summands: list[list[Tensor]] = []
    for rank in range(3):
        parts: list[Tensor] = []
        summands.append(parts)

        def note(rows: Tensor, parts: list[Tensor] = parts) -> Tensor:
            parts.append(rows)
            return rows

        share = pair_source(pairs, rank=rank, processes=3)
        pair_features(share, encoder, nullcontext, batch_size=2, device=CPU, reduce_sum=note)
    images, captions = (torch.stack(parts).sum(0) for parts in zip(*summands, strict=True))
    assert torch.equal(images[torch.from_numpy(pairs[2])], alone[0])
    assert torch.equal(captions, alone[1])
    for parts in zip(*summands, strict=True):
        assert (torch.stack(parts).abs().sum(2) > 0).sum(0).tolist() == [1] * len(parts[0])  # no row is made twice
