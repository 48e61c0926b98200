"""Draws by counter and the two samplers (irra.md 5)."""

import numpy as np
import pytest

from tipr.data.sampling import IdentitySampler, RandomSampler, Stream, share, uniforms
from tipr.errors import ConfigError


def split(people=12, images=3, captions=2):
    """(identity, image_id) of a split, one row for each caption."""
    rows = people * images * captions
    image = np.arange(rows) // captions
    return image // images, image


def reference_splitmix(seed, count):
    """The published generator, one word at a time, in Python integers."""
    state, words = seed, []
    for _ in range(count):
        state = (state + 0x9E3779B97F4A7C15) % 2**64
        z = state
        z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9 % 2**64
        z = (z ^ (z >> 27)) * 0x94D049BB133111EB % 2**64
        words.append(z ^ (z >> 31))
    return words


def test_mix_is_splitmix64():
    from tipr.data.sampling import GOLDEN, mix

    with np.errstate(over="ignore"):
        states = np.uint64(1234567) + (np.arange(5, dtype=np.uint64) + np.uint64(1)) * GOLDEN
        assert mix(states).tolist() == reference_splitmix(1234567, 5)
    assert reference_splitmix(1234567, 1) == [6457827717110365317]  # the generator's published first word


def test_draws_depend_on_each_argument_and_on_nothing_else():
    rows = np.arange(50)
    one = uniforms(3, 2, rows, Stream.MASKING, 8)
    assert one.shape == (50, 8)
    assert one.min() >= 0
    assert one.max() < 1
    np.testing.assert_array_equal(uniforms(3, 2, rows[::-1], Stream.MASKING, 8), one[::-1])  # order of rows
    np.testing.assert_array_equal(uniforms(3, 2, rows[7:9], Stream.MASKING, 8), one[7:9])  # other rows
    np.testing.assert_array_equal(uniforms(3, 2, rows, Stream.MASKING, 3), one[:, :3])  # how many are asked for
    for other in (
        uniforms(4, 2, rows, Stream.MASKING, 8),
        uniforms(3, 3, rows, Stream.MASKING, 8),
        uniforms(3, 2, rows + 50, Stream.MASKING, 8),
        uniforms(3, 2, rows, Stream.AUGMENTATION, 8),
    ):
        assert not np.isin(other, one).any()


def test_draws_are_uniform_and_uncorrelated():
    drawn = uniforms(0, 1, np.arange(40_000), Stream.CAPTION, 2)
    counts = np.histogram(drawn[:, 0], bins=20, range=(0, 1))[0]
    assert ((counts - 2000) ** 2 / 2000).sum() < 44  # chi square, 19 degrees of freedom: 1 in 1000
    assert abs(np.corrcoef(drawn.T)[0, 1]) < 0.02
    assert abs(np.corrcoef(drawn[:-1, 0], drawn[1:, 0])[0, 1]) < 0.02


@pytest.mark.parametrize(("drop_last", "sizes"), [(False, [32, 32, 8]), (True, [32, 32])])
def test_random_sampler_visits_every_pair_once(drop_last, sizes):
    identity, image = split()
    sampler = RandomSampler(identity, image, batch_size=32, seed=5, drop_last=drop_last)
    batches = sampler.batches(1)
    assert [len(batch) for batch in batches] == sizes
    rows = np.concatenate(batches)
    assert len(set(rows.tolist())) == len(rows)
    if not drop_last:
        assert sorted(rows.tolist()) == list(range(72))
    np.testing.assert_array_equal(np.concatenate(sampler.batches(1)), rows)
    assert not np.array_equal(np.concatenate(sampler.batches(2)), rows)


def test_image_unit_takes_one_caption_of_every_image():
    identity, image = split(captions=8)
    shuffled = np.random.default_rng(0).permutation(len(image))  # captions of an image need not be neighbours
    identity, image = identity[shuffled], image[shuffled]
    sampler = RandomSampler(identity, image, batch_size=10, seed=1, unit="image")
    seen = np.zeros(len(image), int)
    for epoch in range(1, 161):
        rows = np.concatenate(sampler.batches(epoch))
        assert sorted(image[rows].tolist()) == list(range(36))
        seen[rows] += 1
    assert seen.min() > 3  # 20 expected for each caption
    assert seen.max() < 45


@pytest.mark.parametrize("unit", ["caption", "image"])
def test_identity_sampler_gives_groups_of_distinct_people(unit):
    identity, image = split(people=12, images=5, captions=2)
    sampler = IdentitySampler(identity, image, batch_size=16, seed=2, unit=unit, per_identity=4)
    for epoch in (1, 2):
        batches = sampler.batches(epoch)
        rows = np.concatenate(batches)
        assert len(set(rows.tolist())) == len(rows)
        for batch in batches:
            people = identity[batch].reshape(4, 4)
            assert (people == people[:, :1]).all()
            assert len(set(people[:, 0].tolist())) == 4
        groups = {"caption": 2, "image": 1}[unit]  # 10 captions or 5 images: 2 groups or 1, the rest is dropped
        used = np.bincount(identity[rows], minlength=12)
        assert used.max() <= 4 * groups
        left = groups - used // 4
        assert (left > 0).sum() < 4  # it ends only when fewer than B/K people are left
        np.testing.assert_array_equal(np.concatenate(sampler.batches(epoch)), rows)


def test_identity_sampler_draws_with_replacement_from_people_with_few_samples():
    identity = np.array([0, 1, 1, 2, 2, 2, 2, 3])
    sampler = IdentitySampler(identity, np.arange(8), batch_size=16, seed=0, per_identity=4)
    (batch,) = sampler.batches(1)
    assert np.bincount(identity[batch]).tolist() == [4, 4, 4, 4]
    assert sorted(batch[identity[batch] == 2].tolist()) == [3, 4, 5, 6]


def test_identity_sampler_says_what_does_not_fit():
    identity, image = split(people=3)
    with pytest.raises(ConfigError, match="need 4 people, the training split has 3"):
        IdentitySampler(identity, image, batch_size=16, seed=0, per_identity=4)
    with pytest.raises(ConfigError, match="does not divide"):
        IdentitySampler(identity, image, batch_size=10, seed=0, per_identity=4)


@pytest.mark.parametrize("processes", [1, 2, 3, 4])
def test_shares_are_equal_and_in_order(processes):
    batch = np.arange(100, 114)
    shares = [share(batch, rank, processes) for rank in range(processes)]
    assert len({len(each) for each in shares}) == 1
    joined = np.concatenate(shares)
    np.testing.assert_array_equal(joined, batch[: len(joined)])
    assert len(batch) - len(joined) < processes
