"""One IRRA training step: captions, labelled positions, padding modes, global counts, optimiser groups."""

from __future__ import annotations

from typing import ClassVar

import pytest
import torch
from torch import Tensor, nn

from tipr.data.batch import IGNORE, TrainBatch
from tipr.encoders.base import Encoded, Encoder
from tipr.errors import ConfigError
from tipr.methods import Irra, StepContext, TrainingFacts
from tipr.methods.irra import IrraConfig, labelled_positions, trim

WIDTH, ROWS, LENGTH, VOCABULARY = 32, 4, 10, 50


class ToyEncoder(Encoder):
    """A patch convolution and an embedding table; counts its text passes."""

    name: ClassVar[str] = "toy"

    def __init__(self) -> None:
        super().__init__()
        self.embed_dim, self.image_size, self.max_tokens, self.vocabulary_size = WIDTH, (16, 8), LENGTH, VOCABULARY
        self.patches = nn.Conv2d(3, WIDTH, 4, 4)
        self.words = nn.Embedding(VOCABULARY, WIDTH)
        self.text_rows: list[int] = []

    def encode_image(self, pixels: Tensor) -> Encoded:
        tokens = self.patches(pixels).flatten(2).transpose(1, 2)
        return Encoded(tokens, tokens.mean(1), torch.ones(tokens.shape[:2], dtype=torch.bool))

    def encode_text(self, ids: Tensor, mask: Tensor) -> Encoded:
        self.text_rows.append(len(ids))
        tokens = self.words(ids)
        return Encoded(tokens, (tokens * mask[..., None]).sum(1), mask)


def make(losses: tuple[str, ...] = ("sdm", "id", "mlm"), **settings: object) -> Irra:
    torch.manual_seed(0)
    config = IrraConfig.model_validate({"losses": losses, "depth": 2, **settings})
    return Irra.build(config, ToyEncoder(), TrainingFacts(pairs=0, mask_id=4, vocabulary_size=VOCABULARY, identities=3))


def make_batch(rows: int = ROWS) -> TrainBatch:
    g = torch.Generator().manual_seed(1)
    lengths = torch.tensor([8, 5, 6, 4])[:rows]
    mask = torch.arange(LENGTH)[None] < lengths[:, None]
    ids = torch.randint(5, VOCABULARY, (rows, LENGTH), generator=g) * mask
    chosen = torch.zeros_like(mask)
    chosen[0, 2] = chosen[0, 5] = chosen[2, 1] = True
    return TrainBatch(
        pixels=torch.randn(rows, 3, 16, 8, generator=g),
        ids=ids,
        mask=mask,
        masked_ids=torch.where(chosen, 4, ids),
        mlm_labels=torch.where(chosen, ids, IGNORE),
        identity=torch.tensor([0, 1, 0, 2])[:rows],
        row=torch.arange(rows),
    )


def test_losses_and_logs_by_name() -> None:
    output = make(("sdm", "itc", "cmpm", "id", "mlm"))(make_batch(), StepContext())
    assert list(output.losses) == ["sdm", "itc", "cmpm", "id", "mlm"]
    assert all(loss.shape == () and torch.isfinite(loss) for loss in output.losses.values())
    assert set(output.logs) == {"id_image_accuracy", "id_text_accuracy", "mlm_accuracy"}
    assert all(not log.requires_grad and 0 <= float(log) <= 1 for log in output.logs.values())


def test_weights_scale_their_own_term_only() -> None:
    plain, weighted = (make(weights=w)(make_batch(), StepContext()).losses for w in ({}, {"mlm": 0.5}))
    torch.testing.assert_close(weighted["mlm"], plain["mlm"] / 2)
    assert torch.equal(weighted["sdm"], plain["sdm"])


@pytest.mark.parametrize(
    ("losses", "caption", "rows"),
    [
        (("sdm", "mlm"), "masked", [ROWS]),
        (("sdm", "mlm"), "clean", [2 * ROWS]),
        (("sdm",), "clean", [ROWS]),
        (("sdm",), "masked", [ROWS]),
    ],
)
def test_one_text_pass_serves_both_captions(losses: tuple[str, ...], caption: str, rows: list[int]) -> None:
    method = make(losses, global_caption=caption)
    method(make_batch(), StepContext())
    assert isinstance(method.encoder, ToyEncoder)
    assert method.encoder.text_rows == rows


def test_global_caption_decides_what_the_global_losses_see() -> None:
    batch = make_batch()
    masked = make(global_caption="masked")(batch, StepContext()).losses
    clean = make(global_caption="clean")(batch, StepContext()).losses
    torch.testing.assert_close(masked["mlm"], clean["mlm"])
    assert float((masked["sdm"] - clean["sdm"]).detach().abs()) > 1e-4
    batch.masked_ids = batch.ids
    torch.testing.assert_close(
        make(("sdm",), global_caption="masked")(batch, StepContext()).losses["sdm"], clean["sdm"]
    )


def slow_mlm(method: Irra, batch: TrainBatch, mask: Tensor | None) -> Tensor:
    """MLM with logits at every position, from the two encodings."""
    text = method.encoder.encode_text(batch.masked_ids, batch.mask)
    image = method.encoder.encode_image(batch.pixels)
    logits = method.mlm_head(method.interaction(text.tokens, image.tokens, mask))
    return nn.functional.cross_entropy(logits.flatten(0, 1), batch.mlm_labels.flatten(), ignore_index=IGNORE)


def test_labelled_logits_equal_all_logits_with_gradients() -> None:
    fast, slow, batch = make(("mlm",)), make(("mlm",)), make_batch()
    a, b = fast(batch, StepContext()).losses["mlm"], slow_mlm(slow, batch, None)
    torch.testing.assert_close(a, b)
    a.backward()
    b.backward()
    for (name, p), q in zip(fast.named_parameters(), slow.parameters(), strict=True):
        assert p.grad is not None, name
        torch.testing.assert_close(p.grad, q.grad, rtol=1e-4, atol=1e-7)


def test_padding_is_attended_in_exact_mode_only() -> None:
    batch = make_batch()
    wider = trim(batch)
    assert wider.ids.shape == (ROWS, 8)
    exact, trimmed = make(("mlm",)), make(("mlm",), padding="trimmed")
    full = exact(batch, StepContext()).losses["mlm"]
    assert float((exact(wider, StepContext()).losses["mlm"] - full).detach().abs()) > 1e-6
    torch.testing.assert_close(trimmed(batch, StepContext()).losses["mlm"], trimmed(wider, StepContext()).losses["mlm"])
    torch.testing.assert_close(trimmed(batch, StepContext()).losses["mlm"], slow_mlm(trimmed, batch, batch.mask))


def test_two_processes_sum_to_the_global_step() -> None:
    """The gradient that DDP would average over two halves equals the gradient of the whole batch."""
    whole, batch = make(), make_batch()
    sum(whole(batch, StepContext()).losses.values(), torch.tensor(0.0)).backward()
    halves = [TrainBatch(**{k: v[s] for k, v in vars(batch).items()}) for s in (slice(0, 2), slice(2, 4))]
    parts = make()
    images = torch.cat([parts.encoder.encode_image(h.pixels).pooled for h in halves])
    texts = torch.cat([parts.encoder.encode_text(h.masked_ids, h.mask).pooled for h in halves])
    everything = {(2, WIDTH): [images, texts], (2,): [batch.identity]}
    labelled = sum(int((h.mlm_labels != IGNORE).sum()) for h in halves)
    total = torch.tensor(0.0)
    for half in halves:
        features = iter(everything[(2, WIDTH)])
        context = StepContext(
            gather=lambda rows, f=features: next(f) if rows.ndim == 2 else batch.identity,  # type: ignore[misc]
            reduce_sum=lambda count: torch.tensor(labelled),
            process_count=2,
        )
        total = total + sum(parts(half, context).losses.values(), torch.tensor(0.0)) / 2  # DDP's average
    total.backward()
    for (name, p), q in zip(whole.named_parameters(), parts.named_parameters(), strict=True):
        torch.testing.assert_close(p.grad, q[1].grad, rtol=1e-4, atol=1e-6, msg=name)


def test_a_process_without_labels_still_gives_every_gradient() -> None:
    method, batch = make(), make_batch()
    batch.mlm_labels = torch.full_like(batch.mlm_labels, IGNORE)
    output = method(batch, StepContext())
    assert float(output.losses["mlm"].detach()) == 0
    sum(output.losses.values(), torch.tensor(0.0)).backward()
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in method.parameters())


def test_labelled_positions_of_fixed_size_are_padded() -> None:
    labels = torch.tensor([[IGNORE, 3, IGNORE], [7, IGNORE, IGNORE]])
    assert labelled_positions(labels, capacity=0.5).tolist() == [1, 3]
    meta = labelled_positions(labels.to("meta"), capacity=0.5)
    assert meta.shape == (3,)


def test_padded_positions_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    expected = make()(make_batch(), StepContext())

    def fixed(labels: Tensor, *, capacity: float) -> Tensor:
        return torch.nonzero_static(labels.flatten() != IGNORE, size=12, fill_value=-1).flatten()

    monkeypatch.setattr("tipr.methods.irra.labelled_positions", fixed)
    output = make()(make_batch(), StepContext())
    torch.testing.assert_close(output.losses, expected.losses)
    torch.testing.assert_close(output.logs, expected.logs)


def test_batch_is_left_alone() -> None:
    for padding in ("exact", "trimmed"):
        batch, before = make_batch(), make_batch()
        make(padding=padding, global_caption="clean")(batch, StepContext())
        assert all(torch.equal(getattr(batch, k), v) for k, v in vars(before).items())


@pytest.mark.parametrize(
    ("name", "factors"),
    [
        ("encoder.patches.weight", (1, 1)),
        ("encoder.patches.bias", (2, 0)),
        ("encoder.cross_layer.weight", (1, 1)),
        ("interaction.cross_attn.in_proj_weight", (5, 1)),
        ("interaction.cross_attn.in_proj_bias", (2, 0)),
        ("interaction.cross_modal_transformer.resblocks.0.ln_1.weight", (5, 1)),
        ("interaction.cross_modal_transformer.resblocks.0.mlp.c_fc.bias", (2, 0)),
        ("interaction.ln_pre_t.weight", (1, 1)),
        ("interaction.ln_post.bias", (2, 0)),
        ("mlm_head.fc.weight", (5, 1)),
        ("mlm_head.fc.bias", (5, 0)),
        ("classifier.weight", (5, 1)),
        ("classifier.bias", (5, 0)),
    ],
)
def test_learning_rate_rules(name: str, factors: tuple[float, float]) -> None:
    assert make().learning_rate_factor(name, torch.zeros(1)) == factors


def test_the_published_rules_make_four_groups() -> None:
    method = make()
    factors = {method.learning_rate_factor(*named) for named in method.named_parameters()}
    assert factors == {(1, 1), (2, 0), (5, 1), (5, 0)}


def test_initialisation() -> None:
    torch.manual_seed(0)
    encoder = ToyEncoder()
    encoder.embed_dim = 256
    config = IrraConfig()
    method = Irra.build(config, encoder, TrainingFacts(pairs=0, mask_id=4, vocabulary_size=3000, identities=500))
    narrow = 256**-0.5 * 8**-0.5
    block = method.interaction.cross_modal_transformer.resblocks[3]
    expected = {
        "in_proj": (method.interaction.cross_attn.in_proj_weight, 256**-0.5),
        "out_proj": (method.interaction.cross_attn.out_proj.weight, narrow),
        "block in_proj": (block.attn.in_proj_weight, 256**-0.5),
        "block out_proj": (block.attn.out_proj.weight, narrow),
        "c_fc": (block.mlp.c_fc.weight, 512**-0.5),
        "c_proj": (block.mlp.c_proj.weight, narrow),
        "dense": (method.mlm_head.dense.weight, 512**-0.5),
        "fc": (method.mlm_head.fc.weight, narrow),
        "classifier": (method.classifier.weight, 0.001),
    }
    for name, (weight, std) in expected.items():
        assert float(weight.std().detach()) == pytest.approx(std, rel=0.03), name
        assert abs(float(weight.mean().detach())) < std * 0.02, name
    assert not method.interaction.cross_attn.in_proj_bias.any()
    assert not method.interaction.cross_attn.out_proj.bias.any()
    assert not method.classifier.bias.any()
    assert method.mlm_head.fc.bias.any()
    assert method.interaction.cross_attn.heads == 4


def test_heads_exist_only_for_their_losses() -> None:
    names = {name.split(".")[0] for name, _ in make(("sdm",)).named_parameters()}
    assert names == {"encoder"}
    assert make(("sdm",)).uses_mlm is False
    assert make().uses_mlm is True


@pytest.mark.parametrize("losses", [[], ["sdm", "sdm"], ["sdn"]])
def test_losses_are_checked(losses: list[str]) -> None:
    from tipr.config import parse

    with pytest.raises(ConfigError, match="losses"):
        parse({"losses": losses}, IrraConfig, source="test")
