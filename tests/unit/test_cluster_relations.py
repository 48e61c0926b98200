"""The clustering peer: clusters from the training images, SDM on them, and what it reports."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tipr.data.batch import PairBatch
from tipr.encoders import ENCODERS
from tipr.errors import ConfigError
from tipr.losses import itc_loss, sdm_loss
from tipr.methods import StepContext, TrainingFacts
from tipr.methods.cluster_relations import ClusterRelations, ClusterRelationsConfig

PAIRS, PEOPLE = 60, 6
SMALL = {"image_size": (32, 16), "widths": (16, 16), "blocks": (1, 1), "stripes": 2, "text_width": 16, "text_layers": 1}
SIZE = {"head_width": 8, "embed_dim": 16, "max_tokens": 10, "vocabulary_size": 60}


def make(**settings):
    torch.manual_seed(0)
    kind = ENCODERS["compact"]
    encoder = kind.build(kind.Config.model_validate({**SMALL, **SIZE}))
    config = ClusterRelationsConfig(k1=8, k2=3, **settings)
    return ClusterRelations.build(
        config, encoder, TrainingFacts(pairs=PAIRS, mask_id=57, vocabulary_size=60, identities=None)
    )


def features():
    """Six people far apart, ten pairs of each; the last pair is like nobody."""
    random = torch.Generator().manual_seed(1)
    image = torch.eye(16)[torch.arange(PAIRS) % PEOPLE] + 0.02 * torch.randn(PAIRS, 16, generator=random)
    image[-1] = torch.eye(16)[PEOPLE + 1]
    return image, -image  # were the texts used, nothing would change; their sign says that they are not the images


def batch(rows):
    random = torch.Generator().manual_seed(2)
    ids = torch.randint(4, 50, (len(rows), 8), generator=random)
    return PairBatch(
        pixels=torch.randn(len(rows), 3, 32, 16, generator=random),
        perturbed_pixels=None,
        ids=ids,
        mask=torch.ones_like(ids, dtype=torch.bool),
        perturbed_ids=None,
        image_id=rows,
        row=rows,
    )


def test_pairs_of_one_cluster_are_positives_and_a_lonely_pair_is_its_own():
    method = make(terms=("sdm", "itc"))
    method.begin_epoch(1, features)
    assert (method.cluster[:-1] == torch.arange(PAIRS - 1) % PEOPLE).all()
    assert method.cluster[-1] == -1
    rows = torch.tensor([0, 6, 1, 59, 12, 7])
    output = method(batch(rows), StepContext())
    image = method.encoder.encode_image(batch(rows).pixels).pooled
    text = method.encoder.encode_text(batch(rows).ids, batch(rows).mask).pooled
    person = torch.tensor([0, 0, 1, 2, 0, 1])
    torch.testing.assert_close(output.losses["sdm"], sdm_loss(image, text, person, temperature=0.02))
    torch.testing.assert_close(output.losses["itc"], itc_loss(image, text, temperature=0.02, reduction="sum"))
    assert output.logs["linked"] == pytest.approx((6 + 2) / 30)  # three and two of a kind


def test_before_any_cluster_every_pair_is_related_to_itself_alone():
    method, rows = make(relation_start_epoch=2), torch.arange(8)
    method.begin_epoch(1, lambda: pytest.fail("features are not needed yet"))
    assert method.pseudo_identity(rows).unique().numel() == 8
    assert method(batch(rows), StepContext()).logs["linked"] == 0
    assert method.end_epoch(1).warning is None
    method.begin_epoch(2, features)
    assert method.cluster.max() == PEOPLE - 1


def test_the_report_of_an_epoch_counts_clusters_and_keeps_them():
    method = make()
    method.begin_epoch(1, features)
    report = method.end_epoch(1)
    expected = {"clusters": 6, "outliers": 1 / 60, "mean_cluster": 59 / 6, "largest_cluster": 10 / 60}
    assert report.logs == pytest.approx(expected)
    assert report.warning is None
    assert report.arrays["cluster"].dtype == np.int32
    assert (report.arrays["cluster"] == method.cluster.numpy()).all()
    assert make(record_relations=False).end_epoch(1).arrays == {}


def test_clusters_that_tell_nobody_apart_or_nothing_are_said():
    method = make()
    assert "no clusters were found" in method.end_epoch(1).warning
    method.cluster.fill_(0)
    assert "100% of the pairs are in one cluster" in method.end_epoch(1).warning


def test_clusters_are_part_of_the_saved_state():
    method, other = make(), make()
    method.begin_epoch(1, features)
    other.load_state_dict(method.state_dict(), strict=True)
    assert torch.equal(other.cluster, method.cluster)
    assert not any(name.startswith("cluster") for name, _ in method.named_parameters())


def test_the_temperature_can_be_learnt():
    method = make(temperature=0.07, learnable_temperature=True)
    output = method(batch(torch.arange(4)), StepContext())
    assert output.logs["temperature"] == pytest.approx(0.07)
    output.losses["sdm"].backward()
    assert method.log_scale.grad is not None
    assert method.learning_rate_factor("log_scale", method.log_scale) == (1.0, 0.0)


@pytest.mark.parametrize(
    ("settings", "message"),
    [({"k1": 60}, "method.k1 60 must be below the number of training pairs, 60"), ({"k2": 31}, "k2 31 is above")],
)
def test_settings_that_do_not_fit_are_one_line(settings, message):
    facts = TrainingFacts(pairs=PAIRS, mask_id=57, vocabulary_size=60, identities=None)
    with pytest.raises(ConfigError, match=message):
        ClusterRelations.build(ClusterRelationsConfig(**settings), torch.nn.Identity(), facts)
