"""From a foreign checkpoint to a model folder that `tipr search`, `tipr train start_from=` and the rest can use."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from tipr.data.images import CLIP_MEAN, CLIP_STD, IMAGENET_MEAN, IMAGENET_STD, Interpolation, Preprocessing
from tipr.encoders.base import Encoder
from tipr.encoders.clip_tokenizer import ClipTokenizer
from tipr.encoders.tokenizers import Tokenizer
from tipr.encoders.xlmr_tokenizer import XlmrTokenizer
from tipr.errors import WeightsError
from tipr.importers.official import CLIP_VOCABULARY, XLMR_VOCABULARY, OfficialFile, where_to_get
from tipr.retrieval import Retriever
from tipr.retrieval.model_folder import Heads


@dataclass(frozen=True)
class Companions:
    """What the weights of a format are used with.

    Attributes:
        vocabulary: the tokenizer's official file.
        others: names that it may have beside a checkpoint as well.
        tokenizer: reads it.
        mean, std, interpolation: see `Preprocessing`.
        research_only: files of this format come from training on benchmarks that may be used for research only.
    """

    vocabulary: OfficialFile
    others: tuple[str, ...] = ()
    tokenizer: type[ClipTokenizer] | type[XlmrTokenizer] = ClipTokenizer
    mean: tuple[float, float, float] = CLIP_MEAN
    std: tuple[float, float, float] = CLIP_STD
    interpolation: Interpolation = "bilinear"
    research_only: bool = False


X2VLM = Companions(XLMR_VOCABULARY, ("tokenizer.json",), XlmrTokenizer, interpolation="bicubic")
COMPANIONS = {
    # the statistics changed in fine-tuning
    "bi_irra": replace(X2VLM, mean=IMAGENET_MEAN, std=IMAGENET_STD, research_only=True),
    "huggingface_clip": Companions(CLIP_VOCABULARY, ("merges.txt",)),
    "irra": Companions(CLIP_VOCABULARY, research_only=True),
    "open_clip": Companions(CLIP_VOCABULARY, ("merges.txt",)),
    "openai_clip": Companions(CLIP_VOCABULARY),
    "x2vlm": X2VLM,
}
"""By format."""
CAPTIONS = ("a man in a red jacket", "a woman with a black backpack")
"""What a verified model must be able to encode."""


@dataclass(frozen=True)
class Imported:
    """What came of an import.

    Attributes:
        folder: the model folder.
        format, file: what was read.
        sha256: of that file; of a folder, of the names and digests of its files.
        parameters: numbers in the encoder.
        image_size: (height, width).
        embed_dim: width of a feature.
        fingerprint: of the model.
        notices: what was absent, left out or assumed.
        verified: tensors compared bit by bit after reading the folder back; 0 when that was not asked for.
    """

    folder: Path
    format: str
    file: Path
    sha256: str
    parameters: int
    image_size: tuple[int, int]
    embed_dim: int
    fingerprint: str
    notices: tuple[str, ...]
    verified: int = 0


def import_model(
    format: str,
    path: Path,
    out: Path,
    *,
    config: Mapping[str, Any] | Path | None = None,
    vocabulary: Path | None = None,
    unconfined: bool = False,
    verify: bool = False,
) -> Imported:
    """Read a foreign checkpoint and write its encoder, with tokenizer and preprocessing, as a model folder.

    What the checkpoint has for training alone stands beside it, so that a run can start where the checkpoint stopped.

    Args:
        format: key of `IMPORTERS`.
        path: the checkpoint.
        out: the folder to make.
        config: see `tipr.importers.read`.
        vocabulary: file of the tokenizer; None: the one beside the checkpoint.
        unconfined: see `tipr.importers.read`.
        verify: read the folder back, compare every tensor, and encode pictures and captions.

    Raises:
        ConfigError, WeightsError: see `tipr.importers.read`; no vocabulary, or one of another size than the model's; or
            what was written is not what was read.
    """
    from tipr.importers import read

    companions = COMPANIONS[format]
    official, tokenizer_file = vocabulary_of(format, path, vocabulary)
    if not tokenizer_file.is_file():
        raise WeightsError(where_to_get(official, tokenizer_file))
    method = read(format, path, config=config, unconfined=unconfined)
    encoder = method.encoder
    tokenizer = companions.tokenizer.from_file(tokenizer_file, max_tokens=encoder.max_tokens)
    _check_vocabulary(tokenizer, encoder, tokenizer_file)
    digest = _sha256(path)
    card = {
        "imported": {"format": format, "file": path.name, "sha256": digest, "notices": list(method.notices)},
        "licence": "that of the imported weights; ask their makers",
        **({"start_research_only": True} if companions.research_only else {}),
    }
    preprocessing = Preprocessing(encoder.image_size, companions.mean, companions.std, companions.interpolation)
    model = Retriever(encoder, tokenizer, preprocessing, card, source=str(out))
    rest = {name: value for name, value in method.state_dict().items() if not name.startswith("encoder.")}
    model.save(out, heads=Heads(method.name, rest) if rest else None)
    return Imported(
        folder=out,
        format=format,
        file=path,
        sha256=digest,
        parameters=sum(parameter.numel() for parameter in encoder.parameters()),
        image_size=encoder.image_size,
        embed_dim=encoder.embed_dim,
        fingerprint=model.fingerprint,
        notices=method.notices,
        verified=_verify(encoder.state_dict(), out) if verify else 0,
    )


def vocabulary_of(format: str, path: Path, given: Path | None) -> tuple[OfficialFile, Path]:
    """What the tokenizer of a format is made from, and where that file is, or is expected.

    Args:
        format: key of `IMPORTERS`.
        path: the checkpoint.
        given: where the user says it is; None: one of the usual names beside the checkpoint.
    """
    official = COMPANIONS[format].vocabulary
    folder = path if path.is_dir() else path.parent
    usual = [folder / name for name in (official.name, *COMPANIONS[format].others)]
    return official, given or next((file for file in usual if file.is_file()), usual[0])


def _check_vocabulary(tokenizer: Tokenizer, encoder: Encoder, file: Path) -> None:
    ours, wanted = tokenizer.vocabulary_size, encoder.vocabulary_size
    if ours != wanted:
        raise WeightsError(f"{file} has {ours:,} tokens, the model {wanted:,}: it is another model's vocabulary")


def _sha256(path: Path) -> str:
    """Digest of a file; of a folder, of its files' digests in the order of their names."""
    if path.is_dir():
        parts = "".join(f"{file.name} {_sha256(file)}\n" for file in sorted(path.iterdir()) if file.is_file())
        return hashlib.sha256(parts.encode()).hexdigest()
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _verify(wanted: Mapping[str, Tensor], folder: Path) -> int:
    """Read the folder back; the number of tensors that are equal, which is all of them.

    Raises:
        WeightsError: one is not, or the model cannot encode.
    """
    model = Retriever.load(folder)
    found = model.encoder.state_dict()
    different = [name for name, value in wanted.items() if not torch.equal(found[name], value)]
    if different or found.keys() != wanted.keys():
        raise WeightsError(f"{folder} holds other tensors than were read: {', '.join(different[:3])}")
    height, width = model.preprocessing.image_size
    noise = np.random.default_rng(0).integers(0, 256, (2, height, width, 3), dtype=np.uint8)
    for rows in (model.encode_text(CAPTIONS), model.encode_images([Image.fromarray(each) for each in noise])):
        if not np.allclose(np.linalg.norm(rows, axis=1), 1, atol=1e-4):
            raise WeightsError(f"{folder}: features of the model are not of unit length")
    return len(wanted)
