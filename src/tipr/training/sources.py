"""From a training split to the source of a run's batches: of captions, of bare pairs, or in two languages."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch

from tipr.data.bilingual_loading import BilingualSource, Translations
from tipr.data.datasets import DATASETS
from tipr.data.images import Interpolation, Preprocessing
from tipr.data.loading import BatchSource, Captions, ImageStore, PairSource, Source, SourceSettings
from tipr.data.masking import CaptionPerturbation, Masking
from tipr.data.packing import Pack
from tipr.data.patch_masking import PatchMasking
from tipr.data.samples import Pairs, Split
from tipr.data.sampling import IdentitySampler, RandomSampler, Rows, Sampler
from tipr.data.span_masking import SpanMasking
from tipr.encoders.tokenizers import Tokenizer
from tipr.errors import ConfigError
from tipr.methods import Method
from tipr.training.run_config import IdentitySampling, RunConfig

Note = Callable[[str], None]


class Share(NamedTuple):
    """Whose part of every global batch is made: that of process `rank` of `processes`."""

    rank: int
    processes: int


def load_split(
    config: RunConfig, name: str, *, root: Path | None = None, languages: Sequence[str] | None = None
) -> Split:
    """A split of a run's data set, by the run's own rule for missing images.

    Args:
        config: of the run.
        name: of the split.
        root: where the data set lies now; None: where the run had it.
        languages: of the captions; None: all there are.

    Raises:
        SplitMissing, DatasetError: see `DatasetReader.load`.
    """
    data = config.data
    return DATASETS[data.dataset].load(root or data.root, name, languages, allow_missing=data.allow_missing)


def tokenise(tokenizer: Tokenizer, captions: Sequence[str]) -> Captions:
    """The ids of captions."""
    ids, mask = tokenizer.encode(captions)
    return Captions(ids, mask)


def read_images(
    config: RunConfig,
    name: str,
    split: Split | Pairs,
    size: tuple[int, int],
    note: Note,
    *,
    interpolation: Interpolation = "bilinear",
) -> ImageStore:
    """The images of the split called `name`: from the run's pack, else in memory as far as they fit.

    Raises:
        ConfigError: the pack has another size or interpolation than the training images need.
        DatasetError: images cannot be read, or are not in the pack.
    """
    if config.data.pack is not None:
        pack = Pack.open(config.data.pack)
        if (pack.size, pack.interpolation) == (size, interpolation):
            note(f"split {name!r}: {len(split.images):,} images from pack {pack.folder}")
            root = config.data.root if config.data.root.is_dir() else config.data.root.parent
            return ImageStore(
                split.images,
                size,
                budget=0,
                interpolation=interpolation,
                packed=(pack.pixels, pack.rows(split.images, root)),
            )
        if name == "train":
            raise ConfigError(
                f"data.pack {pack.folder} holds images of {pack.size[0]}x{pack.size[1]}, {pack.interpolation}; "
                f"training needs {size[0]}x{size[1]}, {interpolation}"
            )
    note(f"reading {len(split.images):,} images of split {name!r}")
    threads = config.threads or torch.get_num_threads()
    budget = int(config.data.memory_gib * 2**30)
    store = ImageStore(split.images, size, budget=budget, threads=threads, interpolation=interpolation)
    if not store.cached:
        note(f"split {name!r} does not fit into data.memory_gib {config.data.memory_gib}: files are read anew")
    return store


def build_source(
    config: RunConfig,
    train: Split | Pairs,
    tokenizer: Tokenizer,
    preprocessing: Preprocessing,
    *,
    method: Method,
    share: Share,
    note: Note,
) -> Source[Any]:
    """The batches of a run.

    Args:
        config: of the run.
        train: the training split; of a method of bare pairs without identities.
        tokenizer, preprocessing: of the model.
        method: says what its batches must carry.
        share: of this process.
        note: takes one-line remarks.

    Raises:
        ConfigError: an epoch has no batch, or the sampler does not fit.
        DatasetError: images cannot be read, or captions have no translations.
    """
    images = read_images(config, "train", train, preprocessing.image_size, note)

    def settings(identity: Rows | None, image_id: Rows) -> SourceSettings:
        return {
            "sampler": _sampler(config, identity, image_id),
            "augmentation": config.augmentation,
            "preprocessing": preprocessing,
            "trim": config.trims,
            "rank": share.rank,
            "processes": share.processes,
        }

    source: Source[Any]
    if isinstance(train, Pairs):
        views = config.method.views
        perturbation = CaptionPerturbation(tokenizer.mask_id, tokenizer.maskable, views.mask_ratio, views.text_mask)
        source = PairSource(
            images,
            tokenise(tokenizer, train.captions),
            train.image_id,
            views=views,
            perturbation=perturbation if method.uses_perturbed_view else None,
            **settings(None, train.image_id),
        )
    elif config.bilingual:
        encoder, views = config.encoder, config.method.views
        triples = Translations.match(train, encoder.source_language, encoder.target_languages)
        masking = SpanMasking(tokenizer.mask_id, tokenizer.vocabulary_size, views.mlm_masking)
        source = BilingualSource(
            images,
            tokenise(tokenizer, triples.source),
            {language: tokenise(tokenizer, captions) for language, captions in triples.targets.items()},
            triples.identity,
            triples.image_id,
            masking=masking if method.uses_mlm else None,
            patches=PatchMasking(encoder.grid, views.patch_mask) if method.uses_patch_mask else None,
            mask_each_image=views.image_mask == "per_image",
            **settings(triples.identity, triples.image_id),
        )
    else:
        rows = train.queries()
        words = Masking(tokenizer.mask_id, tokenizer.maskable, config.data.mlm_probability)
        source = BatchSource(
            images,
            tokenise(tokenizer, rows.captions),
            rows.identity,
            rows.image_id,
            masking=words if method.uses_mlm else None,
            captions_per_image=config.data.captions_per_image,
            **settings(rows.identity, rows.image_id),
        )
    if not source.length(1):
        raise ConfigError(f"data.batch_size {config.data.batch_size}: an epoch of {len(train)} samples has no batch")
    return source


def _sampler(config: RunConfig, identity: Rows | None, image_id: Rows) -> Sampler:
    common: dict[str, Any] = {
        "batch_size": config.data.batch_size,
        "seed": config.seed,
        "unit": config.data.epoch_unit,
    }
    if isinstance(config.sampler, IdentitySampling):
        return IdentitySampler(identity, image_id, per_identity=config.sampler.per_identity, **common)
    return RandomSampler(identity, image_id, drop_last=config.sampler.drop_last, **common)
