"""An encoder under other languages and other dropout: the same weights, and a projection for every new language."""

from __future__ import annotations

import torch
from bilingual_step import make_encoder


def test_known_projections_stay_and_new_ones_are_copies_of_the_source() -> None:
    encoder = make_encoder(target_languages=("zh", "fr"))
    with torch.no_grad():
        for scale, projection in enumerate((encoder.text_projection, *encoder.target_projections.values()), start=2):
            projection.weight.fill_(scale)
    config = encoder.config.model_copy(update={"target_languages": ("de", "zh"), "hidden_dropout": 0.3})
    other = encoder.adapted(config)
    assert other.languages == ("en", "de", "zh")
    assert other.config.hidden_dropout == 0.3
    found = {name: projection.weight.mean().item() for name, projection in other.target_projections.items()}
    assert found == {"de": 2.0, "zh": 3.0}
    before, after = encoder.state_dict(), other.state_dict()
    for name in before.keys() - {"target_projections.fr.weight", "target_projections.fr.bias"}:
        assert torch.equal(before[name], after[name]), name


def test_one_projection_for_all_languages_becomes_the_first_of_each() -> None:
    shared = make_encoder(target_languages=("zh", "fr"), text_projections="shared")
    assert shared.languages == ()
    own = shared.adapted(shared.config.model_copy(update={"text_projections": "per_language"}))
    pooled = torch.randn(3, own.width, generator=torch.Generator().manual_seed(0))
    for language in ("en", "zh", "fr"):
        assert torch.equal(own.project_text(pooled, language), shared.project_text(pooled, language))
    back = own.adapted(shared.config)
    assert back.state_dict().keys() == shared.state_dict().keys()
