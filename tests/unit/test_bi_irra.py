"""One Bi-IRRA step: recipes, terms, languages, the temperature, optimiser groups, and what flows where."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from bilingual_step import FACTS, make, make_batch, make_encoder, part
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F

from tipr.config import parse
from tipr.data.batch import IGNORE, BilingualBatch
from tipr.encoders.compact import CompactConfig, CompactEncoder
from tipr.errors import ConfigError
from tipr.losses import identity_loss, itc_loss, sdm_loss
from tipr.methods import BiIrra, StepContext
from tipr.methods.bi_irra_config import BiIrraConfig
from tipr.training.optim import build_optimizer, parameter_groups
from tipr.training.run_config import Optimizer

TABLE_VI = {
    "1": ("itc", "itm"),
    "2": ("itc", "itm", "mim"),
    "3": ("itc", "itm", "mlm"),
    "4": ("sdm", "mlm", "mim"),
    "5": ("itc", "itm", "mlm", "mim", "id"),
    "6": ("itc", "itm", "mlm", "mim"),
}


def step(method: BiIrra, batch: BilingualBatch | None = None, **context: Any) -> dict[str, Tensor]:
    return method(batch or make_batch(), StepContext(**context)).losses


def gradients(method: BiIrra, loss: Tensor) -> dict[str, Tensor]:
    method.zero_grad()
    loss.backward(retain_graph=True)
    return {name: parameter.grad.clone() for name, parameter in method.named_parameters() if parameter.grad is not None}


# Settings


def test_the_defaults_are_the_released_recipe() -> None:
    config = BiIrraConfig()
    assert (config.recipe, config.losses, config.weights) == ("released", ("itc", "itm", "mlm", "mim"), {})
    assert (config.temperature, config.temp_range, config.tie_decoder) == (0.07, None, True)
    assert (config.itm_mask, config.mim_tokens, config.mim_teacher, config.mim_student) == (
        "target",
        "all",
        "source",
        "target",
    )
    assert config.views.model_dump() == {"mlm_masking": "spans", "image_mask": "per_batch", "patch_mask": "block"}


def test_the_papers_recipe_fills_in_what_is_not_said() -> None:
    paper = parse({"recipe": "paper"}, BiIrraConfig, source="test")
    changed = {name for name, value in paper.model_dump().items() if value != BiIrraConfig().model_dump()[name]}
    assert changed == {"recipe", "views", "mim_tokens"}
    assert (paper.views.mlm_masking, paper.views.image_mask, paper.mim_tokens) == ("bernoulli", "per_image", "masked")
    own = parse(
        {"recipe": "paper", "mim_tokens": "all", "views": {"image_mask": "per_batch"}}, BiIrraConfig, source="test"
    )
    assert (own.views.mlm_masking, own.views.image_mask, own.mim_tokens) == ("bernoulli", "per_batch", "all")
    assert parse(own.model_dump(), BiIrraConfig, source="stored") == own


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"losses": []}, "at least one term"),
        ({"losses": ["itc", "itc"]}, "each once"),
        ({"losses": ["cmpm"]}, "losses"),
        ({"temp_range": [0.5, 0.1]}, "0 < lowest < highest"),
        ({"itm_negative_group": 0}, "itm_negative_group"),
        ({"recipe": "mine"}, "recipe"),
    ],
)
def test_settings_that_are_not_allowed_are_one_line(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        make(**options)
    assert "\n" not in str(caught.value)


def test_another_encoder_and_unknown_identities_are_refused() -> None:
    compact = CompactEncoder.build(
        CompactConfig(widths=(16, 16), blocks=(1, 1), text_width=16, head_width=8, vocabulary_size=60)
    )
    with pytest.raises(ConfigError, match=r"bi_irra needs encoder.name beit_xlmr, got compact"):
        BiIrra.build(BiIrraConfig(), compact, FACTS)
    with pytest.raises(ConfigError, match="id needs training data with identities"):
        BiIrra.build(BiIrraConfig(losses=("id",)), make_encoder(), replace(FACTS, identities=None))


# Terms


@pytest.mark.parametrize("row", TABLE_VI)
def test_rows_of_the_papers_ablation_train_what_they_name(row: str) -> None:
    method = make(losses=TABLE_VI[row])
    output = method(make_batch(), StepContext())
    assert tuple(output.losses) == TABLE_VI[row]
    names = set(gradients(method, torch.stack(list(output.losses.values())).sum()))
    for head, term in (("mim_head", "mim"), ("mlm_head", "mlm"), ("classifier", "id"), ("encoder.match_head", "itm")):
        assert any(name.startswith(head) for name in names) == (term in TABLE_VI[row]), head
    assert ("temp" in names) == ("itc" in TABLE_VI[row])
    assert method.uses_mlm == ("mlm" in TABLE_VI[row])
    assert method.uses_patch_mask


def test_weights_are_published_unless_given() -> None:
    plain = step(make(weights={"itc": 1, "itm": 1, "mlm": 1, "mim": 1}))
    published = step(make())
    for name, factor in {"itc": 1, "itm": 4, "mlm": 1, "mim": 4}.items():
        torch.testing.assert_close(published[name], factor * plain[name])
    torch.testing.assert_close(step(make(weights={"mim": 0.5}))["mim"], plain["mim"] / 2)


def test_global_terms_are_means_of_both_languages_and_see_the_whole_image() -> None:
    method, batch = make(losses=("itc", "sdm", "id"), temperature=0.1), make_batch()
    encoder = method.encoder
    image = encoder.project_image(encoder.encode_image(batch.pixels).pooled)
    texts = [
        encoder.project_text(encoder.encode_text(batch.source_ids, batch.source_mask).pooled),
        encoder.project_text(encoder.encode_text(batch.target_ids, batch.target_mask).pooled, "zh"),
    ]
    person, losses = batch.identity, step(method)
    expected = {
        "itc": [itc_loss(image, text, temperature=0.1, identity=person) for text in texts],
        "sdm": [sdm_loss(image, text, person, temperature=0.02) for text in texts],
        "id": [identity_loss(method.classifier(image), method.classifier(text), person) for text in texts],
    }
    for name, terms in expected.items():
        torch.testing.assert_close(losses[name], (terms[0] + terms[1]) / 2)


def test_only_the_student_of_the_distillation_learns() -> None:
    method = make(losses=("mim",), mim_teacher="source", mim_student="target")
    batch = make_batch()
    batch.source_ids = batch.source_ids.clone()
    batch.source_ids[:, 2] = 49  # a word that the target captions do not have
    batch.target_ids = torch.where(batch.target_ids == 49, 48, batch.target_ids)
    learnt = gradients(method, step(method, batch)["mim"])
    assert not learnt["encoder.text.embeddings.word_embeddings.weight"][49].any()
    assert learnt["encoder.text.embeddings.word_embeddings.weight"][batch.target_ids[0, 1]].any()
    assert learnt["encoder.vision.embeddings.mask_token"].any()


@pytest.mark.parametrize(("chosen", "terms"), [("target", 1), ("source", 1), ("both", 2), ("none", 0)])
def test_the_masked_image_is_matched_where_it_is_asked_for(chosen: str, terms: int) -> None:
    method = make(losses=("itm",), itm_mask=chosen)
    assert method.uses_patch_mask == (terms > 0)
    batch = make_batch()
    values = []
    for patches in (batch.patch_mask, ~batch.patch_mask):  # type: ignore[operator]
        values.append(step(method, replace(batch, patch_mask=patches))["itm"])
    assert torch.equal(*values) == (terms == 0)
    if terms:
        with pytest.raises(ValueError, match="mask of patches"):
            method(replace(batch, patch_mask=None), StepContext())


def test_masks_of_each_image_and_tokens_that_count() -> None:
    batch = make_batch()
    each = torch.rand(5, 8, generator=torch.Generator().manual_seed(3)) < 0.5
    same = batch.patch_mask[None].expand(5, 8)  # type: ignore[index]
    values = {}
    for tokens in ("all", "masked", "global"):
        method = make(losses=("mim",), mim_tokens=tokens)
        values[tokens] = step(method, batch)["mim"]
        torch.testing.assert_close(step(method, replace(batch, patch_mask=same))["mim"], values[tokens])
        assert not torch.allclose(step(method, replace(batch, patch_mask=each))["mim"], values[tokens])
    assert len({round(float(value.detach()), 6) for value in values.values()}) == 3


def test_a_batch_of_one_person_leaves_matching_out() -> None:
    method, batch = make(), make_batch()
    losses = step(method, replace(batch, identity=torch.zeros(5, dtype=torch.long)))
    assert float(losses["itm"].detach()) == 0
    assert not gradients(method, losses["itm"])["encoder.match_head.0.weight"].any()
    assert all(torch.isfinite(loss) for loss in losses.values())


@given(seed=st.integers(0, 1000), group=st.sampled_from([None, 2, 3]))
@settings(max_examples=8, deadline=None)
def test_padding_and_the_order_of_rows_change_nothing(seed: int, group: int | None) -> None:
    """Without a draw: the terms other than matching are the same for any order and for wider padding."""
    method = make(losses=("itc", "mlm", "mim"), itm_negative_group=group)
    batch = make_batch(seed=seed)
    order = torch.randperm(5, generator=torch.Generator().manual_seed(seed))
    fill = {"ids": 1, "mask": False, "labels": IGNORE}
    moved = {
        name: F.pad(value[order], (0, 1), value=fill[name.rpartition("_")[2]])
        for name, value in vars(batch).items()
        if "source" in name or name.startswith(("target_ids", "target_mask", "target_labels", "masked"))
    }
    other = replace(batch, pixels=batch.pixels[order], identity=batch.identity[order], **moved)
    torch.testing.assert_close(step(method, other), step(method, batch))


def test_negatives_stay_in_their_block() -> None:
    """In blocks of one nobody has a negative; in blocks of two the draw is forced."""
    batch = make_batch(4)
    batch.identity = torch.tensor([0, 1, 2, 2])
    assert float(step(make(losses=("itm",), itm_negative_group=1), batch)["itm"].detach()) == 0
    forced = step(make(losses=("itm",), itm_negative_group=2), batch)["itm"]
    torch.testing.assert_close(step(make(losses=("itm",), itm_negative_group=2), batch, step=7)["itm"], forced)
    first = part(batch, slice(2))
    torch.testing.assert_close(step(make(losses=("itm",)), first)["itm"], forced)  # rows 2 and 3 are one person


def test_negatives_are_drawn_from_the_seed_and_the_step_alone() -> None:
    batch, encoder = make_batch(8), make_encoder()
    first = BiIrra.build(BiIrraConfig(losses=("itm",)), encoder, FACTS)
    values = [step(first, batch, step=number)["itm"].item() for number in range(6)]
    torch.manual_seed(5)
    assert [step(first, batch, step=number)["itm"].item() for number in range(6)] == values
    assert len(set(values)) > 1
    other = BiIrra.build(BiIrraConfig(losses=("itm",)), encoder, replace(FACTS, seed=1))
    assert [step(other, batch, step=number)["itm"].item() for number in range(6)] != values


# Languages


def test_each_language_trains_its_own_projection_and_all_share_the_rest() -> None:
    method = make()
    languages = method.encoder.languages[1:]
    assert languages == ("zh", "fr", "de")
    assert len({step(method, make_batch(language=code))["itc"].item() for code in languages}) == 1  # copies at first
    for code in languages:
        total = torch.stack(list(step(method, make_batch(language=code)).values())).sum()
        learnt = set(gradients(method, total))
        projections = {name for name in learnt if "target_projections" in name}
        assert projections == {f"encoder.target_projections.{code}.{kind}" for kind in ("weight", "bias")}
        assert "encoder.text_projection.weight" in learnt


def test_public_projections_are_unit_vectors_of_the_languages_own() -> None:
    method, single = make(), make(make_encoder(target_languages=("zh",)))
    pooled = torch.randn(3, 16)
    with torch.no_grad():
        for number, code in enumerate(("zh", "fr", "de")):
            method.encoder.target_projections[code].weight += number + 1.0
        single.encoder.target_projections["zh"].weight += 1.0
    source = method.project_text(pooled)
    torch.testing.assert_close(source, method.project_text(pooled, target=False))
    torch.testing.assert_close(source, method.project_text(pooled, target="it"))  # no projection of its own
    seen = [source, *(method.project_text(pooled, target=code) for code in ("zh", "fr", "de"))]
    for one, rows in enumerate([*seen, method.project_image(pooled)]):
        torch.testing.assert_close(rows.norm(dim=1), torch.ones(3))
        assert not any(torch.allclose(rows, other) for other in seen[:one])
    torch.testing.assert_close(single.project_text(pooled, target=True), seen[1])
    with pytest.raises(ValueError, match="must name one of zh, fr, de"):
        method.project_text(pooled, target=True)


def test_match_is_the_encoders_with_the_text_as_query() -> None:
    method, batch = make(), make_batch()
    text = method.encoder.encode_text(batch.source_ids, batch.source_mask)
    image = method.encoder.encode_image(batch.pixels)
    logits = method.match(text.tokens, text.mask, image.tokens)
    assert logits.shape == (5, 2)
    fused = method.encoder.fusion(text.tokens, text.mask, image.tokens, None)
    torch.testing.assert_close(logits, method.encoder.match_head(fused[:, 0]))


def test_the_papers_readings_of_the_encoder_are_settings() -> None:
    batch = make_batch()
    released, shared, cls, image_query = (
        make(make_encoder(**sizes))
        for sizes in ({}, {"text_projections": "shared"}, {"global_token": "class"}, {"match_query": "image"})
    )
    assert not any("target_projections" in name for name in shared.state_dict())
    pooled = torch.randn(2, 16)
    assert torch.equal(shared.project_text(pooled, target="fr"), shared.project_text(pooled))
    assert step(shared, batch)["itc"] == step(released, batch)["itc"]  # the projections start as copies

    mean, first = (method.encoder.encode_image(batch.pixels) for method in (released, cls))
    torch.testing.assert_close(mean.tokens[:, 1:], first.tokens[:, 1:])
    torch.testing.assert_close(mean.pooled, first.tokens[:, 1:].mean(dim=1))
    seen = cls.encoder.vision(pixel_values=batch.pixels).last_hidden_state[:, 0]
    torch.testing.assert_close(first.pooled, cls.encoder.vision_norm(seen))

    text = released.encoder.encode_text(batch.source_ids, batch.source_mask)
    logits = [method.match(text.tokens, text.mask, mean.tokens) for method in (released, image_query)]
    fused = image_query.encoder.fusion(mean.tokens, None, text.tokens, text.mask)
    torch.testing.assert_close(logits[1], image_query.encoder.match_head(fused[:, 0]))
    assert not torch.allclose(*logits)


# The temperature, gradients and the optimiser


def test_the_temperature_is_a_number_that_divides_and_is_only_clamped_when_asked_to() -> None:
    method = make(temperature=0.07)
    assert dict(method.named_parameters())["temp"].shape == ()
    assert not any("log_scale" in name for name in method.state_dict())
    with torch.no_grad():
        method.temp.fill_(7.0)
    output = method(make_batch(), StepContext())
    assert float(output.logs["temperature"]) == 7.0
    limited = make(temp_range=(0.001, 0.5))
    with torch.no_grad():
        limited.temp.fill_(7.0)
    assert float(limited(make_batch(), StepContext()).logs["temperature"]) == 0.5
    constant = make(learnable_temperature=False)
    assert "temperature" not in constant(make_batch(), StepContext()).logs
    assert not constant.temp.requires_grad


def test_the_gradient_scale_reaches_the_encoder_and_not_the_temperature() -> None:
    full, quarter = make(losses=("itc",)), make(losses=("itc",), itc_gradient_scale=0.25)
    losses = step(full)["itc"], step(quarter)["itc"]
    assert torch.equal(*losses)
    whole, part = gradients(full, losses[0]), gradients(quarter, losses[1])
    assert whole.keys() == part.keys()
    for name, gradient in whole.items():
        torch.testing.assert_close(part[name], gradient if name == "temp" else gradient / 4, msg=name)


def test_decay_spares_vectors_and_relative_position_tables() -> None:
    method = make(losses=TABLE_VI["5"])
    spared = {name for name, each in method.named_parameters() if method.learning_rate_factor(name, each) == (1.0, 0.0)}
    decayed = {
        name for name, each in method.named_parameters() if method.learning_rate_factor(name, each) == (1.0, 1.0)
    }
    assert spared | decayed == {name for name, _ in method.named_parameters()}
    assert {name for name, each in method.named_parameters() if each.ndim < 2} < spared
    flat = {name for name in spared if method.get_parameter(name).ndim >= 2}
    assert flat == {"encoder.vision.layers.0.relative_position_bias.relative_position_bias_table"}
    assert {"temp", "mlm_head.bias"} < spared
    assert {
        "encoder.vision.embeddings.cls_token",
        "encoder.vision.embeddings.mask_token",
        "encoder.text.embeddings.word_embeddings.weight",
        "encoder.text.embeddings.position_embeddings.weight",
    } < decayed
    new = make(losses=TABLE_VI["5"], new_rate=5.0)
    faster = {name for name, each in new.named_parameters() if new.learning_rate_factor(name, each)[0] == 5.0}
    assert {name.split(".")[0] for name in faster} == {"encoder", "mlm_head", "classifier"}
    assert all("crossattention" in name for name in faster if name.startswith("encoder"))


def test_one_optimiser_step_is_adamw_of_every_parameter_by_itself() -> None:
    method, batch = make(), make_batch()
    settings = Optimizer(name="adamw", lr=1e-3, betas=(0.9, 0.98), eps=1e-8, weight_decay=0.02)
    groups = parameter_groups(method.named_parameters(), method.learning_rate_factor, lr=1e-3, weight_decay=0.02)
    assert len(groups) == 2
    optimizer = build_optimizer(groups, settings, device=torch.device("cpu"))
    before = {name: parameter.detach().clone() for name, parameter in method.named_parameters()}
    total = torch.stack(list(step(method, batch).values())).sum()
    learnt = gradients(method, total)
    optimizer.step()
    for name, parameter in method.named_parameters():
        if name not in learnt:
            assert torch.equal(parameter, before[name]), name  # projections of other languages
            continue
        decay = 0.02 if parameter.ndim >= 2 and "bias" not in name else 0.0
        gradient = learnt[name]
        expected = before[name] * (1 - 1e-3 * decay) - 1e-3 * gradient / (gradient.abs() + 1e-8)
        torch.testing.assert_close(parameter.detach(), expected, rtol=1e-4, atol=2e-6, msg=name)
    assert torch.stack(list(step(method, batch).values())).sum().item() < total.item()


def test_all_terms_fall_on_one_batch() -> None:
    method, batch = make(temperature=0.2), make_batch()
    optimizer = torch.optim.AdamW(method.parameters(), lr=5e-3)
    first = {name: float(loss.detach()) for name, loss in step(method, batch).items()}
    for _ in range(20):
        optimizer.zero_grad()
        torch.stack(list(method(batch, StepContext()).losses.values())).sum().backward()
        optimizer.step()
    last = {name: float(loss.detach()) for name, loss in step(method, batch).items()}
    assert all(last[name] < 0.9 * first[name] for name in first), (first, last)


def test_the_teacher_does_not_cost_the_student_its_gradient_under_autocast() -> None:
    method = make(losses=("mim",))
    exact = gradients(method, step(method)["mim"])
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rough = step(method)["mim"]
    half = gradients(method, rough)
    assert half.keys() == exact.keys()
    for name in exact:
        if "fusion" in name and exact[name].abs().max() > 1e-4:
            assert F.cosine_similarity(half[name].flatten(), exact[name].flatten(), dim=0) > 0.9, name


def test_an_untied_output_layer_starts_as_a_copy_and_goes_its_own_way() -> None:
    tied, untied = make(), make(tie_decoder=False)
    assert "mlm_head.decoder" not in tied.state_dict()
    torch.testing.assert_close(step(untied)["mlm"], step(tied)["mlm"])
    learnt = gradients(untied, step(untied)["mlm"])
    unused = 3  # an id that no caption has: only an output layer learns from it
    assert learnt["mlm_head.decoder"][unused].any()
    assert not learnt["encoder.text.embeddings.word_embeddings.weight"][unused].any()
    assert gradients(tied, step(tied)["mlm"])["encoder.text.embeddings.word_embeddings.weight"][unused].any()


def test_gathered_rows_are_contrasted_and_words_are_counted_over_all_processes() -> None:
    """Two processes with equal rows: every row has its twin, which is the same person."""
    method, batch = make(losses=("itc", "mlm")), make_batch()
    alone = step(method, batch)
    twice = step(
        method, batch, gather=lambda rows: torch.cat([rows, rows]), process_count=2, reduce_sum=lambda value: 2 * value
    )
    torch.testing.assert_close(twice["mlm"], alone["mlm"])
    torch.testing.assert_close(twice["itc"], alone["itc"] + math.log(2))
