"""`Reranker`: the second stage of a search, which looks at the words and a picture together.

The first stage compares two vectors that were made apart. The second lets the tokens of the words look at the tokens
of a picture in the encoder's fusion layers and judges the pair: better, and so slow that only a shortlist gets it
(Bi-IRRA, arXiv 2510.17685, section "Inference").
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from tipr.errors import ConfigError, WeightsError
from tipr.retrieval.retriever import Progress, Retriever

if TYPE_CHECKING:
    from PIL.Image import Image

BLOCK_BYTES = 32 * 2**20
"""Image tokens matched in one pass, as float32: some 55 pictures of the published size, thousands of a small one."""
RAM_BYTES = 2**30
"""Image tokens of a gallery beyond this lie in a temporary file."""


class Reranker:
    """Match scores of a description with pictures.

    Args:
        retriever: a model whose encoder has a match head.

    Raises:
        ConfigError: it has none.
    """

    def __init__(self, retriever: Retriever) -> None:
        encoder = getattr(retriever, "encoder", None)
        if not getattr(encoder, "can_rerank", False):
            raise ConfigError(cannot_rerank(retriever))
        self.retriever = retriever

    @classmethod
    def load(cls, path: Path | str, *, device: str = "cpu", threads: int | None = None) -> Reranker:
        """Load a model folder or a run folder; see `Retriever.load`.

        Raises:
            WeightsError: the model cannot be loaded.
            ConfigError: it has no match head, or the device is not there.
        """
        return cls(Retriever.load(path, device=device, threads=threads))

    @property
    def token_shape(self) -> tuple[int, int]:
        """(T, W) of one picture's tokens; they take 2 * T * W bytes in half precision."""
        return self.retriever.image_token_shape

    @property
    def block(self) -> int:
        """Pictures matched in one pass."""
        tokens, width = self.token_shape
        return max(1, BLOCK_BYTES // (4 * tokens * width))

    def image_tokens(
        self, images: Sequence[Path | Image], *, batch_size: int = 64, progress: Progress | None = None
    ) -> NDArray[np.float16]:
        """Tokens of many pictures, in memory or, when they take more than `RAM_BYTES`, in a temporary file.

        Args:
            images: N file paths or PIL images.
            batch_size: images per pass.
            progress: called with (done, N) after each pass.

        Returns:
            (N, T, W) float16; the file is gone when the array is.

        Raises:
            tipr.data.images.ImageProblem: a file cannot be read as an image.
            WeightsError: the tokens are not finite in half precision.
        """
        shape = (len(images), *self.token_shape)
        tokens = _room(shape)
        for start in range(0, len(images), batch_size):
            part = images[start : start + batch_size]
            tokens[start : start + len(part)] = self.retriever.image_tokens(part, batch_size=batch_size)
            if progress is not None:
                progress(start + len(part), len(images))
        return tokens

    def vectors_and_tokens(self, images: Sequence[Path | Image]) -> tuple[NDArray[np.float32], NDArray[np.float16]]:
        """What both stages need of a batch of pictures, from one pass of the image tower.

        Args:
            images: N file paths or PIL images, as many as fit into one pass.

        Returns:
            vectors: (N, D) float32, those of `Retriever.encode_images`.
            tokens: (N, T, W) float16, those of `image_tokens`.

        Raises:
            tipr.data.images.ImageProblem: a file cannot be read as an image.
            WeightsError: the weights give values that are not finite.
        """
        retriever = self.retriever
        with torch.inference_mode():
            encoded = retriever.encoder.eval().encode_image(retriever.preprocessing(images).to(retriever.device))
            joint = retriever.encoder.project_image(encoded.pooled).float()
            vectors = torch.nn.functional.normalize(joint, dim=-1).cpu().numpy()
            tokens = encoded.tokens.half().cpu().numpy()
        if not (np.isfinite(vectors).all() and np.isfinite(tokens).all()):
            raise WeightsError(f"model {retriever.source or 'in memory'} gives features that are not finite")
        return vectors, tokens

    def score(
        self, query: str, image_tokens: NDArray[Any] | torch.Tensor, *, progress: Progress | None = None
    ) -> NDArray[np.float32]:
        """Match scores of one description with pictures.

        The language of the description makes no difference: the fusion layers see tokens, not projections. The scores
        of one pair agree to the last bits of float32 only when it stands in a block of the same size.

        Args:
            query: words in one of the model's languages.
            image_tokens: (N, T, W) half or float, from `image_tokens`.
            progress: called with (done, N) after each block.

        Returns:
            (N,) float32: the raw logit of "match", higher is better. It is neither a probability nor comparable
            between queries.

        Raises:
            ConfigError: the query is empty.
            ValueError: the tokens have another shape.
            WeightsError: a score is not finite.
        """
        total = len(image_tokens)

        def blocks() -> Iterator[Any]:
            for start in range(0, total, self.block):
                yield image_tokens[start : start + self.block]
                if progress is not None:
                    progress(min(start + self.block, total), total)

        return self.score_blocks(query, blocks())

    def score_blocks(self, query: str, blocks: Iterable[NDArray[Any] | torch.Tensor]) -> NDArray[np.float32]:
        """`score` of pictures whose tokens come piece by piece, so that they need not be in memory together.

        Args:
            query: as in `score`.
            blocks: (n, T, W) each, n at most `block`.
        """
        if not query.strip():
            raise ConfigError("the query is empty: describe a person in words")
        device = self.retriever.device
        words, mask = self.retriever.text_tokens([query.strip()])
        text, real = torch.from_numpy(words).to(device), torch.from_numpy(mask).to(device)
        scores = [np.empty(0, dtype=np.float32)]
        with torch.inference_mode():
            for block in blocks:
                tokens = self._on_device(block)
                pairs = text.expand(len(tokens), -1, -1), real.expand(len(tokens), -1), tokens
                scores.append(self.retriever.encoder.match(*pairs)[:, 1].float().cpu().numpy())
        found = np.concatenate(scores)
        if not np.isfinite(found).all():
            raise WeightsError(f"model {self.retriever.source or 'in memory'} gives match scores that are not finite")
        return found

    def _on_device(self, block: NDArray[Any] | torch.Tensor) -> torch.Tensor:
        tokens = block if isinstance(block, torch.Tensor) else torch.from_numpy(np.array(block))
        if tuple(tokens.shape[1:]) != self.token_shape or not tokens.is_floating_point():
            expected = ", ".join(map(str, self.token_shape))
            raise ValueError(
                f"image tokens have shape {tuple(tokens.shape)} and type {tokens.dtype}; "
                f"expected (N, {expected}) in half or single precision"
            )
        return tokens.to(self.retriever.device).float()  # converted there: half the bytes travel


def cannot_rerank(model: object) -> str:
    """The one line for a model without a match head."""
    from tipr.encoders import ENCODERS

    encoder = getattr(getattr(model, "encoder", None), "name", type(model).__name__)
    source = getattr(model, "source", None) or "in memory"
    able = ", ".join(name for name, kind in ENCODERS.items() if kind.can_rerank)
    return f"model {source} cannot rerank: its encoder {encoder!r} has no match head; encoders with one: {able}"


def _room(shape: tuple[int, ...]) -> NDArray[np.float16]:
    if 2 * int(np.prod(shape)) <= RAM_BYTES:
        return np.empty(shape, dtype=np.float16)
    with tempfile.TemporaryFile(prefix="tipr-") as file:  # has no name, and lasts as long as the array
        return np.memmap(file, dtype=np.float16, mode="w+", shape=shape)
