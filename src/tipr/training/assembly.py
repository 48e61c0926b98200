"""From a configuration to the objects of a run: splits, tokenizer, model, optimiser, batches, validation."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor

from tipr.data.datasets import DATASETS
from tipr.data.images import Preprocessing
from tipr.data.loading import Source
from tipr.data.samples import Pairs, Split
from tipr.encoders import ENCODERS, Encoder
from tipr.encoders.tokenizers import TOKENIZERS, SubwordTokenizer, Tokenizer, load_tokenizer
from tipr.errors import ConfigError, DatasetError, WeightsError
from tipr.methods import METHODS, Method, TrainingFacts
from tipr.methods.base import keep
from tipr.retrieval import Retriever
from tipr.retrieval.model_folder import read_heads
from tipr.training import environment
from tipr.training.card import starts_from_research
from tipr.training.checkpoint import reported
from tipr.training.features import pair_features
from tipr.training.optim import WeightAverage, build_optimizer, parameter_groups
from tipr.training.parts import encode_in_parts
from tipr.training.run_config import PreprocessingConfig, RunConfig, SubwordTokenizerConfig, XlmrTokenizerConfig
from tipr.training.sources import Note, Share, build_source, load_split, read_images, tokenise
from tipr.training.validation import Validation

TOKENIZER = "tokenizer"
"""Folder below the run folder."""
Progress = Callable[[int, int], None]


@dataclass
class Run:
    """Everything that a step touches.

    Attributes:
        config: of the run.
        fabric: the launched Lightning Fabric.
        method: the bare method; `module` is what Fabric made of it, for the forward pass.
        optimizer: the bare optimiser; `stepper` is what Fabric made of it.
        source: of the batches.
        tokenizer, preprocessing: travel with the exported model.
        train: the training split; for a method of bare pairs a view of it without identities.
        validation: scores an encoder; None without selection, and on all processes but the first.
        average: running mean of the encoder's weights, or None.
        shadow: an encoder that holds the mean when it is scored or exported, or None.
    """

    config: RunConfig
    fabric: Any
    method: Method
    module: Any
    optimizer: torch.optim.Optimizer
    stepper: Any
    source: Source[Any]
    tokenizer: Tokenizer
    preprocessing: Preprocessing
    train: Split | Pairs
    validation: Validation | None
    average: WeightAverage | None
    shadow: Encoder | None

    @property
    def folder(self) -> Path:
        """The run folder."""
        return self.config.out

    @property
    def device(self) -> torch.device:
        """Where this process computes."""
        return cast(torch.device, self.fabric.device)

    @property
    def total_steps(self) -> int:
        """Optimiser steps of the whole run."""
        if self.config.max_steps is not None:
            return self.config.max_steps
        assert self.config.epochs is not None
        return sum(self.source.length(epoch) for epoch in range(1, self.config.epochs + 1))

    @property
    def warmup_steps(self) -> int | None:
        """Length of a warm-up that is given in epochs; None: the schedule has it in its own unit."""
        epochs = self.config.schedule.warmup_epochs
        return None if epochs is None else sum(self.source.length(epoch) for epoch in range(1, epochs + 1))

    def autocast(self) -> AbstractContextManager[object]:
        """The precision of a forward pass."""
        if self.config.precision == "32":
            return nullcontext()
        kind = torch.bfloat16 if self.config.precision == "bf16" else torch.float16
        return torch.autocast(self.device.type, dtype=kind)

    def features(self) -> tuple[Tensor, Tensor]:
        """See `tipr.methods.TrainingFeatures`."""
        return pair_features(
            self.source,
            self.method.encoder,
            self.autocast,
            batch_size=self.config.selection.batch_size,
            device=self.device,
            reduce_sum=environment.reduce_sum if self.fabric.world_size > 1 else keep,
        )

    def current_encoder(self) -> Encoder:
        """What would be deployed now: the mean of the weights where one is kept, else the weights."""
        if self.average is None or self.shadow is None:
            return self.method.encoder
        self.average.copy_to(self.shadow)
        return self.shadow

    def export(self, name: str, card: dict[str, Any]) -> None:
        """Write the current encoder as the model folder `name`.

        Raises:
            TrainingError: disk full or not writable.
        """
        with reported(self.folder, f"write {name}/"):
            Retriever(self.current_encoder(), self.tokenizer, self.preprocessing, card).save(
                self.folder / name, half=self.config.export_half
            )


def assemble(config: RunConfig, fabric: Any, note: Note) -> Run:
    """Build a run; weights are random from the run's seed, or those of `start_from`.

    Args:
        config: of the run.
        fabric: launched; the run folder exists.
        note: takes one-line remarks about what is being done.

    Raises:
        ConfigError, DatasetError, WeightsError: what does not fit, in one line.
    """
    first = fabric.global_rank == 0
    kind = METHODS[config.method.name]
    _check_use(config)
    train = _training_split(config)
    environment.seed_all(config.seed)
    base = None if config.start_from is None else Retriever.load(config.start_from)
    tokenizer = _tokenizer(config, train, fabric) if base is None else base.tokenizer
    settings = _encoder_settings(config, tokenizer)
    encoder = cast(Any, ENCODERS[settings.name]).build(settings) if base is None else _start(config, base, settings)
    encoder.train()
    if config.preprocessing is not None or base is None:
        preprocessing = (config.preprocessing or PreprocessingConfig()).at(encoder.image_size)
    else:
        preprocessing = base.preprocessing
    facts = TrainingFacts(
        pairs=len(train),
        mask_id=tokenizer.mask_id,
        vocabulary_size=tokenizer.vocabulary_size,
        identities=train.identity_count if isinstance(train, Split) else None,
        image_id=train.image_id if isinstance(train, Pairs) else None,
        seed=config.seed,
    )
    _check_memory(kind.memory_needed(config.method, encoder.embed_dim, facts), fabric, f"{len(train):,} training pairs")
    method = kind.build(config.method, encoder, facts)
    if base is not None:
        _take_heads(method, str(config.start_from), note)
    if config.precision == "reference_half":
        environment.hold_in_half(method)
    method.to(fabric.device)
    shadow = copy.deepcopy(encoder) if config.ema is not None else None
    average = WeightAverage(encoder, config.ema) if config.ema is not None else None
    if config.data.micro_batch is not None:  # after the copy above, which must stay independent
        encode_in_parts(encoder, config.data.micro_batch)
    optimizer = build_optimizer(
        parameter_groups(
            method.named_parameters(),
            method.learning_rate_factor,
            lr=config.optimizer.lr,
            weight_decay=config.optimizer.weight_decay,
        ),
        config.optimizer,
        device=fabric.device,
    )
    share = Share(fabric.global_rank, fabric.world_size)
    source = build_source(config, train, tokenizer, preprocessing, method=method, share=share, note=note)
    module, stepper = fabric.setup(method, optimizer, move_to_device=False)
    return Run(
        config=config,
        fabric=fabric,
        method=method,
        module=module,
        optimizer=optimizer,
        stepper=stepper,
        source=source,
        tokenizer=tokenizer,
        preprocessing=preprocessing,
        train=train,
        validation=_validation(config, fabric.device, tokenizer, preprocessing) if first else None,
        average=average,
        shadow=shadow,
    )


def _check_use(config: RunConfig) -> None:
    """See that a model for commercial use does not come from what may be used for research only.

    Raises:
        ConfigError: it does; names what stands in the way.
        WeightsError: there is no model to start from.
    """
    if config.intended_use != "commercial":
        return
    facts = DATASETS[config.data.dataset].facts
    if facts.research_only:
        raise ConfigError(f"intended_use: commercial is refused: the licence of {facts.title} is {facts.licence}")
    if starts_from_research(config):
        raise ConfigError(
            f"intended_use: commercial is refused: {config.start_from} learned from data for research only"
        )


def _training_split(config: RunConfig) -> Split | Pairs:
    """The training split, checked; for a method of bare pairs nothing in it says who is shown.

    Raises:
        DatasetError: there are no captions; or, of bare pairs, some have no words.
        ConfigError: there are fewer bare pairs than a batch has.
    """
    split = load_split(config, "train", languages=config.data.languages)
    if not split.samples:
        raise DatasetError(f"{config.data.root}: the training split has no captions")
    if not config.bare_pairs:
        return split
    pairs = split.pairs()
    silent = [row for row, caption in enumerate(pairs.captions) if not any(map(str.isalnum, caption))]
    if silent:
        image = pairs.images[pairs.image_id[silent[0]]]
        raise DatasetError(
            f"{config.data.root}: {len(silent)} of {len(pairs)} training captions have no words, first of {image}"
        )
    units, name = (len(pairs), "pairs") if config.data.epoch_unit == "caption" else (len(pairs.images), "images")
    if units < config.data.batch_size:
        raise ConfigError(f"data.batch_size {config.data.batch_size} is above {units}, the training {name} of an epoch")
    return pairs


def _check_memory(needed: int, fabric: Any, what: str) -> None:
    """See that what a method keeps of every pair can be there before anything is.

    Raises:
        ConfigError: says how much is needed and how much there is.
    """
    if fabric.device.type == "cpu":
        needed *= fabric.world_size  # every process has its own
    free = environment.free_memory(fabric.device)
    if free is not None and needed > free:
        raise ConfigError(
            f"the memory banks of {what} need {needed / 2**30:.1f} GiB, {fabric.device} has {free / 2**30:.1f} GiB free"
        )


def _texts(split: Split | Pairs) -> Sequence[str]:
    return split.captions if isinstance(split, Pairs) else [sample.caption for sample in split.samples]


def _tokenizer(config: RunConfig, train: Split | Pairs, fabric: Any) -> Tokenizer:
    """The run's tokenizer, made once by the first process and kept in the run folder."""
    folder = config.out / TOKENIZER
    if fabric.global_rank == 0 and not (folder / "tokenizer.json").is_file():
        settings = config.tokenizer
        if isinstance(settings, SubwordTokenizerConfig):
            made: Tokenizer = SubwordTokenizer.train(
                _texts(train),
                vocabulary_size=settings.vocabulary_size,
                max_tokens=config.max_tokens,
            )
        else:
            published: Any = TOKENIZERS[settings.kind]()
            file = settings.path if isinstance(settings, XlmrTokenizerConfig) else settings.vocabulary
            made = published.from_file(file, max_tokens=config.max_tokens)
        with reported(config.out, "write the tokenizer"):
            draft = config.out / f".{TOKENIZER}"
            draft.mkdir(exist_ok=True)
            made.save(draft)
            draft.rename(folder)
    fabric.barrier()
    return load_tokenizer(folder)


def _encoder_settings(config: RunConfig, tokenizer: Tokenizer) -> Any:
    """The encoder's section with what the tokenizer decides."""
    known = {"vocabulary_size": tokenizer.vocabulary_size, "pad_id": tokenizer.pad_id}
    return config.encoder.model_copy(
        update={key: value for key, value in known.items() if key in type(config.encoder).model_fields}
    )


def _start(config: RunConfig, base: Retriever, settings: Any) -> Encoder:
    """The encoder to start from under the settings of the run.

    Raises:
        WeightsError: its weights are not those of the configured encoder.
    """
    wanted, found = settings.model_dump(), cast(Any, base.encoder).config.model_dump()
    free = base.encoder.ADAPTABLE
    different = sorted(key for key in wanted if key not in free and wanted[key] != found.get(key))
    if different:
        raise WeightsError(f"start_from {config.start_from} has another encoder: {', '.join(different)} differ")
    return base.encoder.adapted(settings)


def _take_heads(method: Method, path: str, note: Note) -> None:
    """Give the method the heads that stand beside the weights to start from, where they are its own and fit."""
    heads = read_heads(path)
    if heads is None or heads.method != method.name:
        return
    own = method.state_dict()
    fitting = {name for name, tensor in heads.tensors.items() if name in own and own[name].shape == tensor.shape}
    method.load_state_dict({name: heads.tensors[name] for name in fitting}, strict=False)
    for what, names in (("taken too", fitting), ("not taken, as they do not fit", heads.tensors.keys() - fitting)):
        if names:
            note(f"start_from {path}: {what}: {', '.join(sorted({name.split('.')[0] for name in names}))}")


def _validation(
    config: RunConfig, device: torch.device, tokenizer: Tokenizer, preprocessing: Preprocessing
) -> Validation | None:
    name = config.selection.split
    if name == "last":
        return None
    try:
        split = load_split(config, name, languages=config.data.languages)
    except DatasetError as error:
        raise DatasetError(f"selection.split {name}: {error} (selection.split: last needs none)") from None
    return Validation(
        split,
        read_images(
            config, name, split, preprocessing.image_size, lambda text: None, interpolation=preprocessing.interpolation
        ),
        tokenise(tokenizer, _texts(split)),
        preprocessing=preprocessing,
        batch_size=config.selection.batch_size,
        device=device,
        level="pair" if config.bare_pairs else "identity",
    )
