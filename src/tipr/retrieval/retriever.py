"""`Retriever`: encoder, tokenizer and preprocessing in one folder, with a fingerprint."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tipr.errors import ConfigError, TiprError, WeightsError
from tipr.retrieval.device import open_device
from tipr.retrieval.model_folder import (
    DESCRIPTION,
    FORMAT,
    WEIGHTS,
    Heads,
    build,
    load_weights,
    model_folder,
    one_line,
    publish,
    read_description,
    write_heads,
)

if TYPE_CHECKING:
    from PIL.Image import Image

    from tipr.data.images import Preprocessing
    from tipr.encoders.base import Encoded, Encoder
    from tipr.encoders.tokenizers import Tokenizer

Progress = Callable[[int, int], None]
"""Called with (done, total)."""
Number = TypeVar("Number", np.float16, np.float32)


class Retriever:
    """What search needs of a trained model.

    Attributes:
        encoder: the two towers, in evaluation mode, float32.
        tokenizer: caption -> token ids.
        preprocessing: images -> normalised pixels.
        card: free facts about how the model was made (JSON values); no part of the fingerprint.
        source: where it was loaded from: "demo", a path, or None for one built in memory.
    """

    def __init__(
        self,
        encoder: Encoder,
        tokenizer: Tokenizer,
        preprocessing: Preprocessing,
        card: dict[str, Any] | None = None,
        *,
        source: str | None = None,
    ) -> None:
        self.encoder = encoder
        self.tokenizer = tokenizer
        self.preprocessing = preprocessing
        self.card = dict(card or {})
        self.source = source

    @property
    def embed_dim(self) -> int:
        """D, the width of a row."""
        return self.encoder.embed_dim

    @property
    def device(self) -> torch.device:
        """Where the weights live."""
        return next(self.encoder.parameters()).device

    @classmethod
    def load(cls, path: Path | str, *, device: str = "cpu", threads: int | None = None) -> Retriever:
        """Load a model folder, or a run folder (its `best/`), or "demo", the checkpoint shipped with `tipr`.

        Args:
            path: the folder, or "demo".
            device: a torch device, such as "cpu" or "cuda".
            threads: CPU threads of torch, for the whole process; None leaves them.

        Raises:
            WeightsError: missing, foreign or damaged folder; the weights do not fit the description exactly.
            ConfigError: the device is not there.
        """
        folder = model_folder(path)
        target = open_device(device)
        if threads is not None:
            torch.set_num_threads(threads)
        description = read_description(folder)
        try:
            encoder, tokenizer, preprocessing = build(description, folder)
        except ConfigError as error:
            raise WeightsError(str(error)) from None
        except TiprError:
            raise
        except (KeyError, TypeError, ValueError, OSError) as error:
            raise WeightsError(f"{folder} is damaged: {one_line(error)}") from None
        load_weights(encoder, folder / WEIGHTS)
        encoder.to(target).eval()
        return cls(encoder, tokenizer, preprocessing, description.get("card"), source=str(path))

    def save(self, folder: Path | str, *, half: bool = False, heads: Heads | None = None) -> None:
        """Write the model folder in one step: readers see the old one or the new one, never a mixture.

        Args:
            folder: created, or replaced when it already is a model folder.
            half: store floating-point weights as float16 (they load as float32; the fingerprint differs).
            heads: to keep beside the model, for a run that starts from the folder; no part of the fingerprint.

        Raises:
            WeightsError: the folder exists and is something else.
            OSError: disk full or not writable; what was there before is intact.
        """
        folder = Path(folder)
        if folder.exists() and not (folder / DESCRIPTION).is_file() and (not folder.is_dir() or any(folder.iterdir())):
            raise WeightsError(f"{folder} exists and is not a model folder: choose another place")
        folder.parent.mkdir(parents=True, exist_ok=True)
        draft = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", suffix=".draft", dir=folder.parent))
        try:
            draft.chmod(0o755)  # mkdtemp makes 0o700, which would hide the model from others
            self._write(draft, half, heads)
            publish(draft, folder)
        finally:
            shutil.rmtree(draft, ignore_errors=True)

    def _write(self, folder: Path, half: bool, heads: Heads | None) -> None:
        from safetensors.torch import save_file

        description = {"format": FORMAT, **self._description(), "card": self.card}
        text = json.dumps(description, indent=2, ensure_ascii=False)
        (folder / DESCRIPTION).write_text(text + "\n", encoding="utf-8")
        tensors = {
            name: (value.half() if half and value.is_floating_point() else value).detach().cpu().contiguous().clone()
            for name, value in self.encoder.state_dict().items()
        }
        save_file(tensors, folder / WEIGHTS)
        self.tokenizer.save(folder)
        if heads is not None:
            write_heads(heads, folder)
        for path in sorted(folder.rglob("*")):
            if path.is_file():
                path.chmod(0o644)  # the safetensors writer makes files that nobody else may read
                with path.open("rb") as stream:
                    os.fsync(stream.fileno())

    def _description(self) -> dict[str, Any]:
        settings: Any = self.encoder.config
        return {
            "encoder": settings.model_dump(mode="json"),
            "tokenizer": {"kind": self.tokenizer.kind},
            "preprocessing": self.preprocessing.to_json(),
        }

    @cached_property
    def fingerprint(self) -> str:
        """Hex SHA-256 over weights, configuration and tokenizer: equal fingerprints give equal vectors.

        Computed once, at first use; do not train the encoder afterwards.
        """
        digest = hashlib.sha256()
        digest.update(json.dumps(self._description(), sort_keys=True).encode())
        for name, value in sorted(self.encoder.state_dict().items()):
            digest.update(f"{name}{tuple(value.shape)}{value.dtype}".encode())
            digest.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
        with tempfile.TemporaryDirectory(prefix="tipr-") as scratch:
            self.tokenizer.save(Path(scratch))
            for path in sorted(Path(scratch).rglob("*")):
                if path.is_file():
                    digest.update(path.name.encode())
                    digest.update(path.read_bytes())
        return digest.hexdigest()

    def encode_text(
        self,
        captions: Sequence[str],
        *,
        language: str | Sequence[str] | None = None,
        batch_size: int = 64,
        progress: Progress | None = None,
    ) -> NDArray[np.float32]:
        """Unit rows of captions in any of the model's languages.

        Args:
            captions: N strings.
            language: of all captions, or of each of the N; an encoder with a projection for each language takes that
                one. None, or a language that the encoder does not list: the projection of its source language.
            batch_size: captions per pass.
            progress: called with (done, N) after each pass.

        Returns:
            (N, D) float32, every row of Euclidean length 1.

        Raises:
            ValueError: as many languages as captions are needed.
            WeightsError: the weights give features that are not finite.
        """
        languages = [language] * len(captions) if language is None or isinstance(language, str) else list(language)
        if len(languages) != len(captions):
            raise ValueError(f"{len(languages)} languages for {len(captions)} captions")

        def encode(batch: Sequence[tuple[str, str | None]]) -> Tensor:
            pooled = self._encode_captions([caption for caption, _ in batch]).pooled
            spoken = [language for _, language in batch]
            unit = pooled.new_empty(len(batch), self.embed_dim)
            for one in set(spoken):
                rows = torch.tensor([row for row, other in enumerate(spoken) if other == one], device=pooled.device)
                unit[rows] = _unit(self.encoder.project_text(pooled[rows], one))
            return unit

        pairs = list(zip(captions, languages, strict=True))
        return self._checked(
            self._passes(pairs, encode, batch_size, progress, shape=(self.embed_dim,), dtype=np.float32)
        )

    def encode_images(
        self, images: Sequence[Path | Image], *, batch_size: int = 64, progress: Progress | None = None
    ) -> NDArray[np.float32]:
        """Unit rows of images.

        Args:
            images: N file paths or PIL images, any size; person crops are expected.
            batch_size: images per pass.
            progress: called with (done, N) after each pass.

        Returns:
            (N, D) float32, every row of Euclidean length 1.

        Raises:
            tipr.data.images.ImageProblem: a file cannot be read as an image.
            WeightsError: the weights give features that are not finite.
        """

        def encode(batch: Sequence[Path | Image]) -> Tensor:
            pooled = self.encoder.encode_image(self.preprocessing(batch).to(self.device)).pooled
            return _unit(self.encoder.project_image(pooled))

        return self._checked(
            self._passes(images, encode, batch_size, progress, shape=(self.embed_dim,), dtype=np.float32)
        )

    def image_tokens(
        self, images: Sequence[Path | Image], *, batch_size: int = 64, progress: Progress | None = None
    ) -> NDArray[np.float16]:
        """What a second stage of search needs of images, for an encoder that can rerank.

        Args:
            images: N file paths or PIL images, as in `encode_images`.
            batch_size: images per pass.
            progress: called with (done, N) after each pass.

        Returns:
            (N, T, W) float16, in the order of the images.

        Raises:
            tipr.data.images.ImageProblem: a file cannot be read as an image.
            WeightsError: the weights give tokens that are not finite in half precision.
        """

        def encode(batch: Sequence[Path | Image]) -> Tensor:
            return self.encoder.encode_image(self.preprocessing(batch).to(self.device)).tokens.half()

        shape = self.image_token_shape
        return self._checked(self._passes(images, encode, batch_size, progress, shape=shape, dtype=np.float16))

    @cached_property
    def image_token_shape(self) -> tuple[int, int]:
        """(T, W) of one image's tokens: N images take 2 * N * T * W bytes."""
        with torch.inference_mode():
            blank = torch.zeros(1, 3, *self.encoder.image_size, device=self.device)
            tokens, width = self.encoder.eval().encode_image(blank).tokens.shape[1:]
        return tokens, width

    def text_tokens(
        self, captions: Sequence[str], *, batch_size: int = 64
    ) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        """What a second stage of search needs of captions; it does not depend on their language's projection.

        Args:
            captions: N strings.
            batch_size: captions per pass.

        Returns:
            tokens: (N, L, W) float32, L the longest of the captions.
            mask: (N, L) bool, True at real tokens.

        Raises:
            WeightsError: the weights give tokens that are not finite.
        """
        _, mask = self.tokenizer.encode(list(captions), trim=True)
        shape = (mask.shape[1], self.encoder.width)

        def encode(batch: Sequence[str]) -> Tensor:
            tokens = self._encode_captions(batch).tokens
            return torch.nn.functional.pad(tokens, (0, 0, 0, shape[0] - tokens.shape[1]))

        tokens = self._passes(captions, encode, batch_size, None, shape=shape, dtype=np.float32)
        return self._checked(tokens), np.asarray(mask)

    def _encode_captions(self, captions: Sequence[str]) -> Encoded:
        ids, mask = self.tokenizer.encode(list(captions), trim=True)
        places = torch.from_numpy(np.asarray(ids)), torch.from_numpy(np.asarray(mask))
        return self.encoder.encode_text(*(place.to(self.device) for place in places))

    def _passes(
        self,
        items: Sequence[Any],
        encode: Callable[[Sequence[Any]], Tensor],
        batch_size: int,
        progress: Progress | None,
        *,
        shape: tuple[int, ...],
        dtype: type[Number],
    ) -> NDArray[Number]:
        """(N, *shape) of what `encode` gives for batches of the N items."""
        if batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, not {batch_size}")
        rows = np.empty((len(items), *shape), dtype=dtype)
        self.encoder.eval()
        done = 0
        for batch in _batches(items, batch_size):
            with torch.inference_mode():
                rows[done : done + len(batch)] = encode(batch).cpu().numpy()
            done += len(batch)
            if progress is not None:
                progress(done, len(items))
        return rows

    def _checked(self, rows: NDArray[Number]) -> NDArray[Number]:
        if not np.isfinite(rows).all():
            raise WeightsError(f"model {self.source or 'in memory'} gives features that are not finite")
        return rows


def _unit(rows: Tensor) -> Tensor:
    """Rows of Euclidean length 1, float32."""
    return torch.nn.functional.normalize(rows.float(), dim=-1)


def _batches(items: Sequence[Any], size: int) -> Iterator[Sequence[Any]]:
    for start in range(0, len(items), size):
        yield items[start : start + size]
