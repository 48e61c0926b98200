"""The configuration of a run: defaults, round trip, and one line for everything that cannot be."""

import pytest
import yaml

from tipr import config as configuration
from tipr.errors import ConfigError
from tipr.training import RunConfig

SMALL = {"name": "beit_xlmr", "max_tokens": 64, "target_languages": ["zh", "fr"]}
BOTH = {"dataset": "synthetic", "root": "data/tiny", "languages": ["fr", "en", "zh"]}
BASE = {
    "out": "runs/x",
    "method": {"name": "irra"},
    "encoder": {"name": "compact"},
    "tokenizer": {"kind": "subword"},
    "data": {"dataset": "synthetic", "root": "data/tiny"},
    "epochs": 60,
}


def build(**changes):
    return configuration.parse({**BASE, **changes}, RunConfig, source="run.yaml")


def test_defaults_are_the_published_recipe():
    config = build()
    assert (config.data.batch_size, config.epochs, config.seed) == (64, 60, 1)
    assert (config.optimizer.name, config.optimizer.lr, config.optimizer.eps) == ("adam", 1e-5, 1e-3)
    assert config.optimizer.weight_decay == 4e-5
    assert config.data.mlm_probability == 0.15
    assert config.sampler.name == "random"
    assert not config.sampler.drop_last
    assert (config.schedule.kind, config.schedule.unit, config.schedule.warmup) == ("cosine", "epoch", 5)
    assert config.selection.split == "val"
    assert not config.trims  # "exact": padding takes part


def test_round_trip_through_yaml(tmp_path):
    config = build(sampler={"name": "identity"}, precision="bf16", selection={"split": "last"})
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump(config.model_dump(mode="json")))
    assert configuration.load(path, RunConfig) == config


def test_overrides_reach_every_section(tmp_path):
    path = tmp_path / "run.yaml"
    path.write_text(yaml.safe_dump(BASE))
    config = configuration.load(
        path, RunConfig, overrides=["method.padding=trimmed", "data.batch_size=32", "precision=32"]
    )
    assert config.trims
    assert config.data.batch_size == 32
    assert config.precision == "32"


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"epochs": None}, "exactly one of epochs and max_steps"),
        ({"max_steps": 10}, "exactly one of epochs and max_steps"),
        ({"epochs": None, "max_steps": 10}, "max_steps needs schedule.unit: step"),
        ({"processes": 3}, "data.batch_size 64 is not a multiple of processes 3"),
        (
            {"sampler": {"name": "identity", "per_identity": 5}},
            "sampler.per_identity 5 does not divide data.batch_size 64",
        ),
        ({"selection": {"split": "test"}}, "split: test needs select_on_test: true"),
        ({"selection": {"select_on_test": True}}, "split: test needs select_on_test: true"),
        ({"precision": "reference_half", "ema": 0.9}, "ema needs precision 32 or bf16"),
        ({"precision": "fp8"}, "precision"),
        ({"device": "tpu"}, "device"),
        ({"ema": 1.0}, "ema"),
        ({"seeds": 3}, "seeds: unknown key"),
        ({"method": {"name": "nix"}}, "'irra', 'clip_baseline'"),
        ({"method": {"name": "irra", "depht": 2}}, "method.irra.depht: unknown key"),
        ({"encoder": {"name": "resnet"}}, "'clip', 'compact'"),
        ({"tokenizer": {"kind": "words"}}, "'subword', 'clip'"),
        (
            {"tokenizer": {"kind": "subword", "max_tokens": 100}},
            "tokenizer.max_tokens 100 is above encoder.max_tokens 64",
        ),
        ({"data": {"dataset": "nix", "root": "x"}}, "must be one of"),
        ({"data": {"dataset": "synthetic", "root": "x", "languages": ["en", "es"]}}, "must be some of en, zh, fr, de"),
        ({"optimizer": {"betas": [0.9, 1.0]}}, "two numbers in [0, 1)"),
        ({"augmentation": {"flip": 2}}, "augmentation.flip"),
        ({"encoder": {"name": "clip"}}, "with a subword tokenizer use text_pooling: last_token"),
        ({"augmentation": {"kind": "two_of_six", "pad": 3}}, "augmentation.two_of_six.pad: unknown key"),
        ({"augmentation": {"kind": "three"}}, "augmentation"),
        ({"preprocessing": {"statistics": "lab"}}, "'clip' or 'imagenet'"),
        ({"schedule": {"warmup_epochs": 1}}, "warmup_epochs needs unit: step"),
        ({"encoder": SMALL}, "method irra trains one projection for all languages, so it must be shared"),
        ({"encoder": {**SMALL, "text_projections": "shared"}, "precision": "reference_half"}, "use bf16"),
        ({"method": {"name": "bi_irra"}}, "method bi_irra needs encoder.name: beit_xlmr, not compact"),
        (
            {"method": {"name": "bi_irra"}, "encoder": SMALL},
            "must be those of the encoder, source_language and target_languages: en, zh, fr; named: none",
        ),
        (
            {"method": {"name": "bi_irra"}, "encoder": SMALL, "data": {**BOTH, "languages": ["en", "zh"]}},
            "en, zh, fr; named: en, zh",
        ),
        (
            {"method": {"name": "bi_irra"}, "encoder": {**SMALL, "target_languages": []}, "data": BOTH},
            "encoder.target_languages: method bi_irra needs at least one",
        ),
        (
            {
                "method": {"name": "bi_irra"},
                "encoder": SMALL,
                "data": {**BOTH, "epoch_unit": "image", "captions_per_image": 2},
            },
            "data.captions_per_image 2: method bi_irra takes 1 only",
        ),
    ],
)
def test_what_cannot_be_is_one_line(changes, words):
    with pytest.raises(ConfigError) as caught:
        build(**changes)
    assert words in str(caught.value)
    assert str(caught.value).startswith("run.yaml: ")
    assert "\n" not in str(caught.value)


def test_a_run_in_two_languages_round_trips_and_older_files_stay_valid(tmp_path):
    config = build(
        method={"name": "bi_irra"},
        encoder=SMALL,
        data=BOTH,
        augmentation={"kind": "two_of_six", "grey": 0.2},
        preprocessing={"statistics": "imagenet", "interpolation": "bicubic"},
    )
    assert config.bilingual
    assert not config.bare_pairs
    assert config.trims
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump(config.model_dump(mode="json")))
    assert configuration.load(path, RunConfig) == config
    preprocessing = config.preprocessing.at((24, 8))
    assert preprocessing.to_json() == {
        "image_size": [24, 8],
        "mean": [0.485, 0.456, 0.406],
        "std": [0.229, 0.224, 0.225],
        "interpolation": "bicubic",
    }
    older = build().model_dump(mode="json")
    assert "kind" not in older["augmentation"]


def test_reference_half_holds_the_attention_of_the_interaction_encoder_too():
    import torch

    from tipr.methods.interaction import InteractionEncoder
    from tipr.training.environment import hold_in_half

    module = InteractionEncoder(16, 2, 1)
    hold_in_half(module)
    kinds = {name: parameter.dtype for name, parameter in module.named_parameters()}
    halves = {name for name, kind in kinds.items() if kind == torch.float16}
    assert {name for name in kinds if "in_proj" in name or "out_proj" in name} <= halves
    assert all(kind == torch.float32 for name, kind in kinds.items() if "ln_" in name)


def test_a_rule_between_values_is_told_without_repeating_them_all():
    with pytest.raises(ConfigError) as caught:
        build(max_steps=4)
    assert str(caught.value) == "run.yaml: (top level): give exactly one of epochs and max_steps"
