"""The method's own step: the worked example as a whole, its variants, its numbers of an epoch, and its banks."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tipr import config as configuration
from tipr.data.batch import PairBatch
from tipr.encoders.base import Encoded, Encoder
from tipr.errors import ConfigError
from tipr.losses import global_relation, relation_loss
from tipr.methods import DualGranularity, StepContext, TrainingFacts

EXAMPLE = json.loads((Path(__file__).parents[1] / "data" / "dual_granularity_example.json").read_text())
INPUTS, RUNS = EXAMPLE["inputs"], EXAMPLE["expected"]["runs"]
PAIRS, WIDTH, BATCH = 6, 4, 3
PARTS = {"itc": "L_itc", "local": "L_rc_b", "global": "L_rc_g", "consistency": "L_rc_h"}

temperatures = pytest.mark.parametrize("temperature", [0.02, 0.1])


def table(name: str) -> Tensor:
    return torch.tensor(INPUTS[name], dtype=torch.float64)


class Given(Encoder):
    """Gives the example's features: clean ones for the numbers 0-2, perturbed ones for 3-5."""

    embed_dim, image_size, max_tokens, vocabulary_size = WIDTH, (1, 1), 1, 2 * BATCH

    def __init__(self) -> None:
        super().__init__()
        self.image = nn.Parameter(torch.cat([table("f_v"), table("f_v_aug")]))
        self.text = nn.Parameter(torch.cat([table("f_t"), table("f_t_aug")]))

    def encode_image(self, pixels: Tensor) -> Encoded:
        pooled = self.image[pixels[:, 0, 0, 0].long()]
        return Encoded(pooled[:, None], pooled, torch.ones(len(pooled), 1, dtype=torch.bool))

    def encode_text(self, ids: Tensor, mask: Tensor) -> Encoded:
        pooled = self.text[ids[:, 0]]
        return Encoded(pooled[:, None], pooled, mask)


def make(**changes: Any) -> DualGranularity:
    config = configuration.parse({"k": EXAMPLE["config"]["top_k"], **changes}, DualGranularity.Config, source="test")
    facts = TrainingFacts(PAIRS, mask_id=0, vocabulary_size=6, identities=None, image_id=IMAGE_OF)
    return DualGranularity.build(config, Given(), facts).double()


IMAGE_OF = torch.tensor([0, 1, 2, 3, 4, 1]).numpy()
"""Pairs 1 and 5, the first and the last of the batch, are of one image file."""


def make_batch() -> PairBatch:
    numbers = torch.arange(BATCH)
    rows = torch.tensor(INPUTS["dataset_index"])
    return PairBatch(
        pixels=numbers.double()[:, None, None, None],
        perturbed_pixels=(numbers + BATCH).double()[:, None, None, None],
        ids=numbers[:, None],
        mask=torch.ones(BATCH, 1, dtype=torch.bool),
        perturbed_ids=(numbers + BATCH)[:, None],
        image_id=torch.from_numpy(IMAGE_OF)[rows],
        row=rows,
    )


def stored_features() -> tuple[Tensor, Tensor]:
    return table("bank_v"), table("bank_t")


def step(method: DualGranularity, epoch: int = 1) -> dict[str, Tensor]:
    """The losses of the first step of an epoch."""
    method.begin_epoch(epoch, stored_features)
    losses: dict[str, Tensor] = method(make_batch(), StepContext(epoch=epoch)).losses
    return losses


@temperatures
def test_the_whole_loss_of_the_worked_example(temperature: float) -> None:
    losses = step(make(temperature=temperature))
    expected = RUNS[f"tau_{temperature}"]
    assert list(losses) == list(PARTS)
    for name, stored in PARTS.items():
        assert losses[name].item() == pytest.approx(expected[stored], abs=1e-6), name
    assert sum(losses.values()).item() == pytest.approx(expected["L_total"], abs=1e-6)  # type: ignore[union-attr]


@pytest.mark.parametrize("part", ["local", "global"])
@temperatures
def test_gradients_of_the_worked_example(temperature: float, part: str) -> None:
    method = make(temperature=temperature)
    step(method)[part].backward()
    for name, parameter in (("f_v", method.encoder.image), ("f_t", method.encoder.text)):
        assert isinstance(parameter.grad, Tensor)
        stored = RUNS[f"tau_{temperature}"][f"grad_{PARTS[part]}_wrt_{name}"]
        torch.testing.assert_close(
            parameter.grad[:BATCH], torch.tensor(stored, dtype=torch.float64), rtol=1e-5, atol=1e-6
        )


@pytest.mark.parametrize(
    ("changes", "part", "values"),
    [
        ({"repeat_columns": True}, "global", (1.6989966385, 0.6690790786)),
        ({"drop_batch_rows": True}, "global", (1.2938313026, 0.8610089827)),
        ({"negative_batch_mates": True}, "global", (1.3473235111, 4.1672630671)),
        ({"own_twin_at_one": True}, "global", (1.5094617437, 0.7062381908)),
        ({"flat_weights": True}, "global", (1.6271840415, 0.7571811609)),
        ({"global_anchor": "text"}, "global", (1.5436996009, 0.7302062901)),
        ({"iasc_target": "perturbed"}, "consistency", (5.4921155824, 6.5011949571)),
        ({"views": {"perturb": "crossed"}}, "consistency", (0.3977066885 + 0.6210253469, 0.3399223812 + 0.4590456095)),
        # in the example both modalities link the same rows and mine the same set
        ({"local_relation": "image"}, "local", (0.9965963314, 0.3535298404)),
        ({"local_relation": "text"}, "local", (0.9965963314, 0.3535298404)),
        ({"global_anchor": "both"}, "global", (1.5471646695, 0.7322456989)),
        ({"global_anchor": "text", "image_to_text_target": "text"}, "global", (1.5436996009, 0.7302062901)),
    ],
)
def test_other_readings(changes: dict[str, Any], part: str, values: tuple[float, float]) -> None:
    for temperature, value in zip((0.02, 0.1), values, strict=True):
        losses = step(make(temperature=temperature, **changes))
        assert losses[part].item() == pytest.approx(value, abs=1e-6)


@temperatures
def test_the_target_may_stand_on_the_left(temperature: float) -> None:
    losses = step(make(temperature=temperature, kl_left="target"))
    q, wide = (torch.tensor(EXAMPLE["expected"][part]["q"], dtype=torch.float64) for part in ("local", "global"))
    columns = torch.tensor(EXAMPLE["expected"]["global"]["union"])

    def divergence(query: Tensor, keys: Tensor, target: Tensor) -> float:
        logits = nn.functional.cosine_similarity(query[:, None], keys[None], dim=2) / temperature
        return nn.functional.kl_div(logits.log_softmax(1), target, reduction="batchmean").item()

    v, t, v_noisy, t_noisy = (table(name) for name in ("f_v", "f_t", "f_v_aug", "f_t_aug"))
    images, texts = torch.cat([v, table("bank_v")[columns]]), torch.cat([t, table("bank_t")[columns]])
    assert losses["local"].item() == pytest.approx(divergence(v, t, q) + divergence(t, v, q), abs=1e-6)
    assert losses["global"].item() == pytest.approx(divergence(t, images, wide) + divergence(v, texts, wide), abs=1e-6)
    noisy = divergence(v_noisy, t_noisy, q) + divergence(t_noisy, v_noisy, q)
    assert losses["consistency"].item() == pytest.approx(noisy, abs=1e-6)


@temperatures
def test_the_texts_may_find_and_weigh_the_texts_of_an_image(temperature: float) -> None:
    v, t, bank_t = (table(name) for name in ("f_v", "f_t", "bank_t"))
    by_texts = global_relation(t, bank_t, torch.tensor(INPUTS["dataset_index"]), k=EXAMPLE["config"]["top_k"])
    image_to_text = relation_loss(v, by_texts.keys(t, bank_t), by_texts.target, temperature=temperature)
    expected = RUNS[f"tau_{temperature}"]["L_rc_g_t"] + image_to_text.item()
    found = step(make(temperature=temperature, image_to_text_target="text"))["global"].item()
    assert found == pytest.approx(expected, abs=1e-6)
    assert abs(found - RUNS[f"tau_{temperature}"]["L_rc_g"]) > 1e-4


@pytest.mark.parametrize("softness", [0.1, 0.9])
def test_softness_is_the_weight_of_a_mined_pair(softness: float) -> None:
    """The first and the last sample have one mined partner, the second has two."""
    method = make(softness=softness)
    step(method)
    own = [math.e / (math.e + partners * math.exp(softness)) for partners in (1, 2, 1)]
    assert method.end_epoch(1).logs["own_weight"] == pytest.approx(sum(own) / 3)


@pytest.mark.parametrize("part", ["local", "global", "consistency"])
def test_eps_bounds_what_an_unrelated_column_costs(part: str) -> None:
    strict, mild = step(make(temperature=0.1)), step(make(temperature=0.1, eps=1e-2))
    assert mild[part] < strict[part]
    assert mild["itc"] == strict["itc"]


def test_one_modality_decides_alone_when_asked_to() -> None:
    """With texts that all look alike, LRCT links everything, LRCI and both only what images link."""
    shares = {}
    for modality in ("both", "image", "text"):
        method = make(local_relation=modality)
        with torch.no_grad():
            method.encoder.text.copy_(torch.ones_like(method.encoder.text))  # type: ignore[operator,arg-type]
        step(method)
        shares[modality] = method.end_epoch(1).logs["own_weight"]
    assert shares["both"] == shares["image"]
    assert shares["text"] == pytest.approx(math.e / (math.e + 2 * math.exp(0.5)))


def test_captions_of_one_image_are_related_on_request() -> None:
    plain, linked = step(make()), step(make(link_same_image=True))
    assert plain["itc"] == linked["itc"]
    # the link that was missing between the first and the last sample makes the target symmetric
    weight = math.e / (math.e + 2 * math.exp(0.5))
    target = torch.full((3, 3), (1 - weight) / 2, dtype=torch.float64).fill_diagonal_(weight)
    image, text = table("f_v"), table("f_t")
    expected = relation_loss(image, text, target) + relation_loss(text, image, target)
    assert linked["local"].item() == pytest.approx(expected.item())
    assert linked["global"] != plain["global"]


def test_captions_of_one_image_do_not_compete_on_request() -> None:
    plain, ignored = step(make()), step(make(itc_ignore_same_image=True))
    assert ignored["itc"] < plain["itc"]
    assert all(ignored[name] == plain[name] for name in PARTS if name != "itc")


@pytest.mark.parametrize("terms", [["itc"], ["local", "itc"], ["global"], ["consistency"]])
def test_terms_can_be_dropped_and_take_what_they_need_with_them(terms: list[str]) -> None:
    method, whole = make(terms=terms), step(make())
    batch = make_batch()
    if "consistency" not in terms:
        assert not method.uses_perturbed_view
        batch.perturbed_pixels = batch.perturbed_ids = None
    assert hasattr(method, "image_bank") == ("global" in terms)
    assert (method.memory_needed(method.config, WIDTH, facts()) > 0) == ("global" in terms)
    method.begin_epoch(1, stored_features)
    losses = method(batch, StepContext()).losses
    assert set(losses) == set(terms)
    assert all(losses[name] == whole[name] for name in terms)


def test_a_learnt_temperature_is_trained_and_reported() -> None:
    method = make(temperature=0.1, learnable_temperature=True)
    method.begin_epoch(1, stored_features)
    output = method(make_batch(), StepContext())
    assert sum(output.losses.values()).item() == pytest.approx(RUNS["tau_0.1"]["L_total"], abs=1e-6)
    assert output.logs["temperature"].item() == pytest.approx(0.1)
    for loss in output.losses.values():
        (gradient,) = torch.autograd.grad(loss, [method.log_scale], retain_graph=True)
        assert gradient != 0
    assert method.learning_rate_factor("log_scale", method.log_scale) == (1.0, 0.0)


def facts() -> TrainingFacts:
    return TrainingFacts(PAIRS, mask_id=0, vocabulary_size=6, identities=None)


def test_an_epoch_reports_its_links_and_warns_when_nearly_everything_is_linked() -> None:
    method = make()
    step(method)
    report = method.end_epoch(1)
    assert report.logs == pytest.approx(
        {
            "linked_image": 4 / 6,
            "linked_text": 4 / 6,
            "linked_both": 4 / 6,
            "own_weight": (2 * 0.622459331202 + 0.451862761878) / 3,
            "mined_per_pair": 10 / 3,
        }
    )
    assert report.warning is not None
    assert report.warning.startswith("67% of the pairs in a batch")
    mined = report.arrays["mined"]
    assert (mined.shape, mined.dtype) == ((PAIRS, 4), "int32")
    assert [set(mined[row]) - {-1} for row in INPUTS["dataset_index"]] == [
        set(j) for j in EXAMPLE["expected"]["global"]["J"]
    ]
    assert mined[1].tolist() == [1, 0, 4, -1]  # by falling similarity
    assert (mined[[0, 2, 3]] == -1).all()

    method.begin_epoch(2, stored_features)  # forgets
    empty = method.end_epoch(2)
    assert (empty.arrays["mined"] == -1).all()
    assert set(empty.logs.values()) == {0}


def test_threshold_one_links_nothing_and_warns_of_nothing() -> None:
    method = make(threshold=1.0)
    step(method)
    report = method.end_epoch(1)
    assert report.warning is None
    assert report.logs == {
        "linked_image": 0, "linked_text": 0, "linked_both": 0, "own_weight": 1, "mined_per_pair": 0,
    }  # fmt: skip


def test_relations_wait_for_their_epoch_and_find_fresh_banks() -> None:
    method = make(relation_start_epoch=3)
    filled: list[int] = []

    def features(epoch: int) -> Callable[[], tuple[Tensor, Tensor]]:
        def once() -> tuple[Tensor, Tensor]:
            filled.append(epoch)
            return stored_features()

        return once

    seen = []
    for epoch in range(1, 5):
        method.begin_epoch(epoch, features(epoch))
        seen.append(method(make_batch(), StepContext(epoch=epoch)).losses)
        report = method.end_epoch(epoch)
        assert report.logs["linked_both"] == pytest.approx(4 / 6)  # to be seen before they are used
        assert (report.warning is None) == (epoch < 3)
    assert filled == [1, 3]
    assert [set(losses) for losses in seen] == [{"itc"}] * 2 + [set(PARTS)] * 2
    assert seen[2]["global"].item() == pytest.approx(RUNS["tau_0.02"]["L_rc_g"], abs=1e-6)
    assert seen[3]["global"] != seen[2]["global"]  # with what the third epoch has stored


@pytest.mark.parametrize(("update", "readable"), [("epoch", False), ("step", True)])
def test_the_banks_after_the_step(update: str, readable: bool) -> None:
    method = make(bank_update=update)
    assert step(method)["global"].item() == pytest.approx(RUNS["tau_0.02"]["L_rc_g"], abs=1e-6)  # reads come first
    updated = EXAMPLE["expected"]["bank_after_update"]
    for bank, name in ((method.image_bank, "bank_v"), (method.text_bank, "bank_t")):
        before, after = table(name), torch.tensor(updated[name], dtype=torch.float64)
        torch.testing.assert_close(bank.read(), after if readable else before)
    method.end_epoch(1)
    for bank, name in ((method.image_bank, "bank_v"), (method.text_bank, "bank_t")):
        torch.testing.assert_close(bank.read(), torch.tensor(updated[name], dtype=torch.float64))


def test_what_is_kept_of_every_pair_is_announced() -> None:
    """The bytes asked for before a start cover the banks and the features that fill them."""
    method = make().float()
    held = sum(buffer.nbytes for name, buffer in method.named_buffers() if "bank" in name)
    assert method.memory_needed(method.config, WIDTH, facts()) == held + 2 * PAIRS * WIDTH * 4


def test_relations_need_not_be_kept() -> None:
    method = make(record_relations=False)
    step(method)
    assert method.end_epoch(1).arrays == {}
    assert "mined" not in method.state_dict()


@pytest.mark.parametrize("anchor", ["image", "text", "both"])
def test_a_step_asks_an_accelerator_for_nothing(anchor: str) -> None:
    """The meta device has no values: whatever needs one fails on it."""
    method = make(
        global_anchor=anchor,
        link_same_image=True,
        learnable_temperature=True,
        repeat_columns=True,
        image_to_text_target="text",
    ).to("meta")
    image, text = stored_features()
    method.begin_epoch(1, lambda: (image.to("meta"), text.to("meta")))
    losses = method(make_batch().to("meta"), StepContext()).losses
    assert set(losses) == set(PARTS)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"threshold": 0.0}, "threshold: .*greater than 0"),
        ({"threshold": 1.01}, "threshold: .*less than or equal to 1"),
        ({"softness": 1.0}, "softness: .*less than 1"),
        ({"bank_momentum": 0.0}, "bank_momentum: .*greater than 0"),
        ({"terms": []}, "terms: .*at least one term"),
        ({"terms": ["itc", "itc"]}, "terms: .*each once"),
        ({"terms": ["local"], "relation_start_epoch": 2}, "needs the term itc"),
        ({"k": 7}, "method.k 7 is above 6, the number of training pairs"),
        ({"views": {"mask_ratio": 1.5}}, "views.mask_ratio"),
    ],
)
def test_wrong_settings_are_named(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        make(**changes)
    assert "\n" not in str(caught.value)
