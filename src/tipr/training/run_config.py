"""`RunConfig`: everything that decides what a run does, one frozen, closed tree that the run folder keeps."""

from __future__ import annotations

from functools import reduce
from operator import or_
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

from pydantic import (
    Discriminator,
    Field,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    Tag,
    field_validator,
    model_validator,
)

from tipr.config import Section
from tipr.data.augmentation import Augmentation
from tipr.data.batch import BilingualBatch, PairBatch
from tipr.data.datasets import DATASETS
from tipr.data.images import CLIP_MEAN, CLIP_STD, IMAGENET_MEAN, IMAGENET_STD, Interpolation, Preprocessing
from tipr.data.samples import LANGUAGES
from tipr.data.sampling import EpochUnit
from tipr.data.two_of_six import TwoOfSix
from tipr.encoders import ENCODERS
from tipr.methods import METHODS


def _augmentation_kind(given: Any) -> str:
    kind = given.get("kind") if isinstance(given, dict) else getattr(given, "kind", None)
    return "" if kind is None else str(kind)


if TYPE_CHECKING:
    EncoderConfig = Any
    MethodConfig = Any
    AugmentationConfig = Augmentation | TwoOfSix
else:  # one section of each table entry, told apart by `name`
    EncoderConfig = Annotated[reduce(or_, (kind.Config for kind in ENCODERS.values())), Field(discriminator="name")]
    MethodConfig = Annotated[reduce(or_, (kind.Config for kind in METHODS.values())), Field(discriminator="name")]

    # The first has no `kind`, so that older files of runs stay valid; its empty tag stays out of error messages.
    AugmentationConfig = Annotated[
        Annotated[Augmentation, Tag("")] | Annotated[TwoOfSix, Tag("two_of_six")],
        Discriminator(_augmentation_kind),
    ]


class SubwordTokenizerConfig(Section):
    """A byte-level vocabulary, trained on the training captions when the run starts and stored with the model.

    Attributes:
        vocabulary_size: at most this many ids; the encoder's own `vocabulary_size` is set to what came out.
        max_tokens: longest caption, start and end included; None: the encoder's.
    """

    kind: Literal["subword"] = "subword"
    vocabulary_size: PositiveInt = 1500
    max_tokens: PositiveInt | None = None


class ClipTokenizerConfig(Section):
    """CLIP's vocabulary with IRRA's mask token.

    Attributes:
        vocabulary: the user's copy of `bpe_simple_vocab_16e6.txt.gz`.
        max_tokens: longest caption, start and end included; None: the encoder's.
    """

    kind: Literal["clip"] = "clip"
    vocabulary: Path
    max_tokens: PositiveInt | None = None


class XlmrTokenizerConfig(Section):
    """XLM-R's vocabulary; captions are cleaned as Bi-IRRA does.

    Attributes:
        path: the user's copy of XLM-R's `tokenizer.json` or `sentencepiece.bpe.model`, or a folder with one of them.
        max_tokens: longest caption in tokens, start and end included, and in words; None: the encoder's.
    """

    kind: Literal["xlmr"] = "xlmr"
    path: Path
    max_tokens: PositiveInt | None = None


TokenizerConfig = Annotated[
    SubwordTokenizerConfig | ClipTokenizerConfig | XlmrTokenizerConfig, Field(discriminator="kind")
]


class Data(Section):
    """What is learned from.

    Attributes:
        dataset: name in `DATASETS`.
        root: folder of the data set, relative to the working directory.
        languages: captions to use; None: all that are there.
        allow_missing: images that the data set names and that are not on disk are left out, with their captions, and
            counted in the card and beside every score; else such a data set is refused.
        epoch_unit: "caption": an epoch visits every (image, caption) pair once; "image": every image once, with one
            of its captions, of any language, drawn for the epoch.
        batch_size: samples of a step, over all processes; images, when a step has several captions of each.
        micro_batch: rows whose activations are in memory at a time (`tipr.training.parts`); None: all. The losses see
            the whole batch and the gradients are its own, so a recipe keeps its meaning on small memory.
        captions_per_image: n captions of every image in a step (any language), drawn anew each epoch. Needs
            `epoch_unit: image`. The image tower, the costly one, then learns from n captions for one pass.
        workers: loader processes beside each training process; 0 makes batches in line.
        mlm_probability: share of the caption tokens that IRRA's MLM masks; Bi-IRRA has `method.views`.
        memory_gib: decoded images up to this much are kept in memory; a larger split is read from files each epoch.
        pack: folder of `tipr data pack`: images that are decoded already, so that no step waits and no memory is
            needed. The batches are the same.
    """

    dataset: str
    root: Path
    languages: tuple[str, ...] | None = None
    allow_missing: bool = False
    epoch_unit: EpochUnit = "caption"
    batch_size: PositiveInt = 64
    micro_batch: PositiveInt | None = None
    captions_per_image: PositiveInt = 1
    workers: NonNegativeInt = 0
    mlm_probability: float = Field(default=0.15, ge=0, le=1)
    memory_gib: float = Field(default=8.0, ge=0)
    pack: Path | None = None

    @field_validator("dataset")
    @classmethod
    def _known(cls, dataset: str) -> str:
        if dataset not in DATASETS:
            raise ValueError(f"must be one of {', '.join(DATASETS)}")
        return dataset

    @field_validator("languages")
    @classmethod
    def _known_languages(cls, languages: tuple[str, ...] | None) -> tuple[str, ...] | None:
        if languages is not None and (not languages or not set(languages) <= set(LANGUAGES)):
            raise ValueError(f"must be some of {', '.join(LANGUAGES)}, or null for all")
        return languages

    @model_validator(mode="after")
    def _several_captions_need_image_epochs(self) -> Self:
        if self.captions_per_image > 1 and self.epoch_unit != "image":
            raise ValueError("captions_per_image above 1 needs epoch_unit: image")
        return self


class PreprocessingConfig(Section):
    """From image files to what the encoder takes; stored with the model.

    Attributes:
        statistics: of the normalisation: "clip" or "imagenet".
        interpolation: of images that are searched or evaluated; training images are resized bilinearly.
    """

    statistics: Literal["clip", "imagenet"] = "clip"
    interpolation: Interpolation = "bilinear"

    def at(self, image_size: tuple[int, int]) -> Preprocessing:
        """The preprocessing for images of a size."""
        clip = self.statistics == "clip"
        mean, std = (CLIP_MEAN, CLIP_STD) if clip else (IMAGENET_MEAN, IMAGENET_STD)
        return Preprocessing(image_size, mean, std, self.interpolation)


class RandomSampling(Section):
    """A new permutation every epoch.

    Attributes:
        drop_last: leave out the last, shorter batch; the published recipe keeps it.
    """

    name: Literal["random"] = "random"
    drop_last: bool = False


class IdentitySampling(Section):
    """Groups of samples of one person in every batch; all batches are full.

    Attributes:
        per_identity: K, samples of one person in a batch.
    """

    name: Literal["identity"] = "identity"
    per_identity: PositiveInt = 4


class Optimizer(Section):
    """The optimiser; the defaults are the published recipe.

    Attributes:
        name: "adam" (decay coupled, L2), "adamw" (decoupled) or "sgd" (momentum is the first of `betas`).
        lr: base learning rate; the method gives each parameter a factor.
        betas: of Adam.
        eps: of Adam. 1e-3 is part of the published method: with gradients well below it a step is momentum SGD.
        weight_decay: base decay; the method gives each parameter a factor.
        clip_grad_norm: largest Euclidean norm of the gradient; None: no limit.
    """

    name: Literal["adam", "adamw", "sgd"] = "adam"
    lr: PositiveFloat = 1e-5
    betas: tuple[float, float] = (0.9, 0.999)
    eps: PositiveFloat = 1e-3
    weight_decay: float = Field(default=4e-5, ge=0)
    clip_grad_norm: PositiveFloat | None = None

    @field_validator("betas")
    @classmethod
    def _below_one(cls, betas: tuple[float, float]) -> tuple[float, float]:
        if not all(0 <= beta < 1 for beta in betas):
            raise ValueError("must be two numbers in [0, 1)")
        return betas


class Schedule(Section):
    """Learning rate over the run (irra.md 7): linear warm-up, then half a cosine.

    Attributes:
        kind: "cosine", or "constant" after the warm-up.
        unit: "epoch": one value for each epoch, as published; "step": a new value every step, for short runs.
        warmup: W, in units of `unit`.
        warmup_epochs: length of the warm-up in epochs, instead of `warmup`; for `unit: step`.
        warmup_inclusive: the last step of the warm-up has the full rate already, so that the peak comes twice
            (Bi-IRRA); else the first step after it does.
        warmup_start: factor at the start of the warm-up.
        final: factor that the cosine falls to.
    """

    kind: Literal["cosine", "constant"] = "cosine"
    unit: Literal["epoch", "step"] = "epoch"
    warmup: NonNegativeInt = 5
    warmup_epochs: PositiveInt | None = None
    warmup_inclusive: bool = False
    warmup_start: float = Field(default=0.1, ge=0, le=1)
    final: float = Field(default=0.0, ge=0, le=1)

    @model_validator(mode="after")
    def _epochs_for_steps(self) -> Self:
        if self.warmup_epochs is not None and self.unit != "step":
            raise ValueError("warmup_epochs needs unit: step; with unit: epoch set warmup")
        return self


class Selection(Section):
    """Which weights become `best/`, and how often they are scored.

    Attributes:
        split: "val"; "test", only together with `select_on_test`; "last": no selection, the last epoch is the best.
        select_on_test: says yes to choosing the epoch on the test split; the card and every report then show it.
        every_epochs: epochs between two scorings; the last epoch is always scored.
        batch_size: images or captions of an encoding pass.
    """

    split: Literal["val", "test", "last"] = "val"
    select_on_test: bool = False
    every_epochs: PositiveInt = 1
    batch_size: PositiveInt = 256

    @model_validator(mode="after")
    def _asked_for(self) -> Self:
        if (self.split == "test") != self.select_on_test:
            raise ValueError("split: test needs select_on_test: true, and nothing else takes it")
        return self


class Checkpoints(Section):
    """When the state of the run is written.

    Attributes:
        every_epochs: epochs between two checkpoints; the end of the run always writes one.
        every_steps: further checkpoints inside epochs, this many steps apart; None: none.
        keep: newest checkpoints that stay.
    """

    every_epochs: PositiveInt = 1
    every_steps: PositiveInt | None = None
    keep: int = Field(default=2, ge=1)


class RunConfig(Section):
    """One training run.

    Attributes:
        out: the run folder.
        method, encoder, tokenizer, data, augmentation, sampler, optimizer, schedule, selection, checkpoints: sections.
        preprocessing: None: that of `start_from`, or its defaults.
        start_from: model folder (or "demo") that gives first weights and tokenizer; None: from scratch. Languages in
            `encoder.target_languages` that it has no projection for get a copy of its source language's.
        epochs: length of the run; or
        max_steps: length of the run in optimiser steps. Exactly one of the two.
        max_minutes: stop early after this time, all sessions of the run together; the card then says so.
        precision: "32"; "bf16" (float32 weights, bfloat16 autocast); "reference_half" (weights of linear, convolution
            and attention modules held and updated in float16 without loss scaling, as the published code does).
        ema: decay of a running mean of the encoder's weights, which is then what is scored and exported; None: none.
        seed: of everything that is drawn.
        device: "auto" (CUDA where there is one), "cpu", "cuda" or "cuda:N".
        processes: training processes on this machine; each takes its share of the batch.
        threads: CPU threads of each process; None: torch's choice.
        log_every: steps between two lines of the journal; the only times the device is waited for.
        export_half: store `best/` and `last/` as float16.
        intended_use: what the model card says the model is for. "commercial" is refused for training data that may be
            used for research only, and for a start from a model that learned from such data.
        expected: of a published recipe: language -> metric -> (low, high) in percent on the test split, for whoever
            runs it again (`tipr reproduce`); nothing in training looks at it.
    """

    out: Path
    method: MethodConfig
    encoder: EncoderConfig
    tokenizer: TokenizerConfig
    data: Data
    preprocessing: PreprocessingConfig | None = None
    augmentation: AugmentationConfig = Augmentation()
    sampler: Annotated[RandomSampling | IdentitySampling, Field(discriminator="name")] = RandomSampling()
    optimizer: Optimizer = Optimizer()
    schedule: Schedule = Schedule()
    selection: Selection = Selection()
    checkpoints: Checkpoints = Checkpoints()
    start_from: str | None = None
    epochs: PositiveInt | None = None
    max_steps: PositiveInt | None = None
    max_minutes: PositiveFloat | None = None
    precision: Literal["32", "bf16", "reference_half"] = "32"
    ema: float | None = Field(default=None, gt=0, lt=1)
    seed: NonNegativeInt = 1
    device: str = Field(default="auto", pattern=r"^(auto|cpu|cuda(:\d+)?)$")
    processes: PositiveInt = 1
    threads: PositiveInt | None = None
    log_every: PositiveInt = 20
    export_half: bool = False
    intended_use: Literal["research", "commercial"] = "research"
    expected: dict[str, dict[Literal["R@1", "R@5", "R@10", "mAP", "mINP"], tuple[float, float]]] = Field(
        default_factory=dict
    )

    @field_validator("precision", mode="before")
    @classmethod
    def _number(cls, precision: Any) -> Any:
        return str(precision) if precision == 32 else precision  # YAML reads a bare 32 as a number

    @field_validator("expected")
    @classmethod
    def _ranges(cls, expected: dict[str, dict[str, tuple[float, float]]]) -> dict[str, dict[str, tuple[float, float]]]:
        if not set(expected) <= set(LANGUAGES):
            raise ValueError(f"languages must be some of {', '.join(LANGUAGES)}")
        if any(not 0 <= low < high <= 100 for ranges in expected.values() for low, high in ranges.values()):
            raise ValueError("a range must be two rising numbers in [0, 100]")
        return expected

    @model_validator(mode="after")
    def _possible(self) -> Self:
        if (self.epochs is None) == (self.max_steps is None):
            raise ValueError("give exactly one of epochs and max_steps")
        batch = self.data.batch_size
        if batch % self.processes:
            raise ValueError(f"data.batch_size {batch} is not a multiple of processes {self.processes}")
        if isinstance(self.sampler, IdentitySampling) and batch % self.sampler.per_identity:
            raise ValueError(
                f"sampler.per_identity {self.sampler.per_identity} does not divide data.batch_size {batch}"
            )
        if self.bare_pairs:
            name = self.method.name
            if isinstance(self.sampler, IdentitySampling):
                raise ValueError(f"sampler.name: identity needs identities, method {name} learns without: use random")
            if self.data.captions_per_image > 1:
                raise ValueError(f"data.captions_per_image {self.data.captions_per_image}: method {name} takes 1 only")
        if self.max_steps is not None and self.schedule.unit == "epoch" and self.schedule.kind == "cosine":
            raise ValueError("max_steps needs schedule.unit: step (a cosine over epochs needs epochs)")
        if self.precision == "reference_half" and self.ema is not None:
            raise ValueError("ema needs precision 32 or bf16")
        if self.tokenizer.kind == "subword" and getattr(self.encoder, "text_pooling", None) == "largest_id":
            raise ValueError(
                "encoder.text_pooling: largest_id takes the largest token id for the end of the text, which holds for "
                "tokenizer.kind: clip only; with a subword tokenizer use text_pooling: last_token"
            )
        tokens = self.tokenizer.max_tokens
        if tokens is not None and tokens > self.encoder.max_tokens:
            raise ValueError(f"tokenizer.max_tokens {tokens} is above encoder.max_tokens {self.encoder.max_tokens}")
        return self

    @model_validator(mode="after")
    def _languages_fit(self) -> Self:
        name, targets = self.method.name, getattr(self.encoder, "target_languages", None)
        if self.precision == "reference_half" and targets is not None:
            raise ValueError(f"precision reference_half is not for encoder.name {self.encoder.name}: use bf16")
        if not self.bilingual:
            if getattr(self.encoder, "projected_languages", ()):
                raise ValueError(
                    f"encoder.text_projections: method {name} trains one projection for all languages, so it must be "
                    "shared (a run of bi_irra can start from it all the same)"
                )
            return self
        if targets is None:
            raise ValueError(f"method {name} needs encoder.name: beit_xlmr, not {self.encoder.name}")
        if not targets:
            raise ValueError(f"encoder.target_languages: method {name} needs at least one")
        wanted = (self.encoder.source_language, *targets)
        if set(self.data.languages or ()) != set(wanted):
            given = ", ".join(self.data.languages or ()) or "none"
            raise ValueError(
                f"data.languages must be those of the encoder, source_language and target_languages: "
                f"{', '.join(wanted)}; named: {given}"
            )
        if self.data.captions_per_image > 1:
            raise ValueError(f"data.captions_per_image {self.data.captions_per_image}: method {name} takes 1 only")
        return self

    @property
    def bilingual(self) -> bool:
        """Whether the method learns from captions in two languages at a time."""
        return METHODS[self.method.name].batch is BilingualBatch

    @property
    def bare_pairs(self) -> bool:
        """Whether the method learns from pairs alone and must not be given identities."""
        return METHODS[self.method.name].batch is PairBatch

    @property
    def max_tokens(self) -> int:
        """Longest caption in tokens."""
        return int(self.tokenizer.max_tokens or self.encoder.max_tokens)

    @property
    def trims(self) -> bool:
        """Whether batches are cut at their longest caption: not where the method lets padding take part ("exact")."""
        return getattr(self.method, "padding", "trimmed") != "exact"
