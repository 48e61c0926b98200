"""`Retriever`: encoder, tokenizer and preprocessing in one folder, with a fingerprint.

A model folder holds `model.json` (what to build), `model.safetensors` (the weights, float32 or float16) and the
tokenizer's own file. Nothing in it is executed: no pickle, no code.
"""

from __future__ import annotations

import ctypes
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tipr import config
from tipr.errors import ConfigError, TiprError, WeightsError

if TYPE_CHECKING:
    from PIL.Image import Image

    from tipr.data.images import Preprocessing
    from tipr.encoders.base import Encoder
    from tipr.encoders.tokenizers import Tokenizer

FORMAT = 1
"""Version of the model folder; another one is refused."""
DESCRIPTION = "model.json"
WEIGHTS = "model.safetensors"
DEMO = Path(__file__).resolve().parent.parent / "assets" / "demo"
"""The small checkpoint shipped as package data."""

Progress = Callable[[int, int], None]
"""Called with (done, total)."""


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
        target = _device(device)
        if threads is not None:
            torch.set_num_threads(threads)
        description = read_description(folder)
        try:
            encoder, tokenizer, preprocessing = _build(description, folder)
        except ConfigError as error:
            raise WeightsError(str(error)) from None
        except TiprError:
            raise
        except (KeyError, TypeError, ValueError, OSError) as error:
            raise WeightsError(f"{folder} is damaged: {_line(error)}") from None
        _load_weights(encoder, folder / WEIGHTS)
        encoder.to(target).eval()
        return cls(encoder, tokenizer, preprocessing, description.get("card"), source=str(path))

    def save(self, folder: Path | str, *, half: bool = False) -> None:
        """Write the model folder in one step: readers see the old one or the new one, never a mixture.

        Args:
            folder: created, or replaced when it already is a model folder.
            half: store floating-point weights as float16 (they load as float32; the fingerprint differs).

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
            self._write(draft, half)
            _publish(draft, folder)
        finally:
            shutil.rmtree(draft, ignore_errors=True)

    def _write(self, folder: Path, half: bool) -> None:
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
        self, captions: Sequence[str], *, batch_size: int = 64, progress: Progress | None = None
    ) -> NDArray[np.float32]:
        """Unit rows of captions in any of the model's languages.

        Args:
            captions: N strings.
            batch_size: captions per pass.
            progress: called with (done, N) after each pass.

        Returns:
            (N, D) float32, every row of Euclidean length 1.

        Raises:
            WeightsError: the weights give features that are not finite.
        """

        def encode(batch: Sequence[str]) -> Tensor:
            ids, mask = self.tokenizer.encode(list(batch), trim=True)
            places = torch.from_numpy(np.asarray(ids)), torch.from_numpy(np.asarray(mask))
            return self.encoder.encode_text(*(place.to(self.device) for place in places)).pooled

        return self._rows(captions, encode, batch_size, progress)

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
            return self.encoder.encode_image(self.preprocessing(batch).to(self.device)).pooled

        return self._rows(images, encode, batch_size, progress)

    def _rows(
        self,
        items: Sequence[Any],
        encode: Callable[[Sequence[Any]], Tensor],
        batch_size: int,
        progress: Progress | None,
    ) -> NDArray[np.float32]:
        if batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, not {batch_size}")
        rows = np.empty((len(items), self.embed_dim), dtype=np.float32)
        self.encoder.eval()
        done = 0
        for batch in _batches(items, batch_size):
            with torch.inference_mode():
                unit = torch.nn.functional.normalize(encode(batch).float(), dim=-1)
            rows[done : done + len(batch)] = unit.cpu().numpy()
            done += len(batch)
            if progress is not None:
                progress(done, len(items))
        if not np.isfinite(rows).all():
            raise WeightsError(f"model {self.source or 'in memory'} gives features that are not finite")
        return rows


def model_folder(path: Path | str) -> Path:
    """The folder that holds `model.json` for "demo", a model folder, or a run folder (its `best/`).

    Raises:
        WeightsError: there is none.
    """
    if str(path) == "demo":
        if not (DEMO / DESCRIPTION).is_file():
            raise WeightsError("this installation has no demo model (tipr/assets/demo): give --model PATH")
        return DEMO
    folder = Path(path)
    for candidate in (folder, folder / "best"):
        if (candidate / DESCRIPTION).is_file():
            return candidate
    if not folder.exists():
        raise WeightsError(f"no model at {folder}: give a model folder, a run folder or 'demo'")
    raise WeightsError(f"{folder} is not a model folder: {DESCRIPTION} is missing (foreign weights need an importer)")


def read_description(folder: Path) -> dict[str, Any]:
    """`model.json` as a mapping with the keys `encoder`, `tokenizer`, `preprocessing` and perhaps `card`.

    Raises:
        WeightsError: not JSON, not ours, or of another format version.
    """
    try:
        description = json.loads((folder / DESCRIPTION).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise WeightsError(f"{folder / DESCRIPTION} is damaged: {_line(error)}") from None
    required = ("encoder", "tokenizer", "preprocessing")
    if not isinstance(description, dict) or not isinstance(description.get("format"), int):
        raise WeightsError(f"{folder / DESCRIPTION} does not describe a tipr model")
    if description["format"] != FORMAT:
        raise WeightsError(f"{folder} has model format {description['format']}; this version of tipr reads {FORMAT}")
    missing = [key for key in required if not isinstance(description.get(key), dict)]
    if missing:
        raise WeightsError(f"{folder / DESCRIPTION} is damaged: no {', '.join(missing)}")
    if not isinstance(description.get("card", {}), dict):
        raise WeightsError(f"{folder / DESCRIPTION} is damaged: card is not a mapping")
    return description


def _build(description: dict[str, Any], folder: Path) -> tuple[Encoder, Tokenizer, Preprocessing]:
    from tipr.data.images import Preprocessing
    from tipr.encoders import ENCODERS
    from tipr.encoders.tokenizers import load_tokenizer

    name = description["encoder"].get("name")
    if name not in ENCODERS:
        raise WeightsError(f"{folder}: unknown encoder {name!r}; this version of tipr knows {', '.join(ENCODERS)}")
    kind: Any = ENCODERS[name]
    settings = config.parse(description["encoder"], kind.Config, source=f"{folder / DESCRIPTION} encoder")
    tokenizer = load_tokenizer(folder)
    if description["tokenizer"].get("kind") != tokenizer.kind:
        raise WeightsError(f"{folder}: tokenizer.json is not of the kind that {DESCRIPTION} names")
    return kind.build(settings), tokenizer, Preprocessing.from_json(description["preprocessing"])


def _load_weights(encoder: Encoder, path: Path) -> None:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        tensors = load_file(path)
    except FileNotFoundError:
        raise WeightsError(f"{path} is missing") from None
    except (SafetensorError, OSError, ValueError) as error:
        raise WeightsError(f"{path} is damaged: {_line(error)}") from None
    wanted = encoder.state_dict()
    missing, unknown = sorted(wanted.keys() - tensors.keys()), sorted(tensors.keys() - wanted.keys())
    wrong = [name for name in wanted if name in tensors and tensors[name].shape != wanted[name].shape]
    parts = (("missing", missing), ("unknown", unknown), ("of another shape", wrong))
    if defects := "; ".join(f"{what}: {_few(names)}" for what, names in parts if names):
        raise WeightsError(f"{path} does not fit {DESCRIPTION}: {defects}")
    for name, value in tensors.items():
        if value.is_floating_point() and not torch.isfinite(value).all():
            raise WeightsError(f"{path} is damaged: {name} is not finite")
    encoder.load_state_dict({name: value.to(wanted[name].dtype) for name, value in tensors.items()}, strict=True)


def _device(name: str) -> torch.device:
    try:
        device = torch.device(name)
    except RuntimeError:
        raise ConfigError(f"unknown device {name!r}: use cpu, cuda or cuda:N") from None
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise ConfigError(f"device {name!r} is not here: {torch.cuda.device_count()} CUDA devices found; use cpu")
    return device


def _publish(draft: Path, folder: Path) -> None:
    """Put `draft` at `folder`; what was there before ends up at `draft`."""
    if folder.exists() and not _exchange(draft, folder):
        shutil.rmtree(folder)  # a file system without exchange: a moment without the folder
    if draft.exists() and not folder.exists():
        draft.rename(folder)
    parent = os.open(folder.parent, os.O_RDONLY)
    try:
        os.fsync(parent)
    finally:
        os.close(parent)


def _exchange(one: Path, two: Path) -> bool:
    """Swap two folders atomically (Linux renameat2 with RENAME_EXCHANGE); False where that is not offered."""
    here, exchange = -100, 2
    renameat2 = getattr(ctypes.CDLL(None), "renameat2", None)
    return renameat2 is not None and renameat2(here, os.fsencode(one), here, os.fsencode(two), exchange) == 0


def _batches(items: Sequence[Any], size: int) -> Iterator[Sequence[Any]]:
    for start in range(0, len(items), size):
        yield items[start : start + size]


def _few(names: Sequence[str]) -> str:
    rest = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return ", ".join(names[:3]) + rest


def _line(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__
