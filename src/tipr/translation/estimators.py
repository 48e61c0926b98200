"""Estimators of translation quality behind one interface: noise = 1 - quality of each (source, translation).

    text-encoder         default: the demo model's text branch, trained further to compare what two captions say
    text-encoder:FOLDER  the same network from another folder
    comet:CHECKPOINT     a reference-free COMET model (CometKiwi; Rei et al., WMT 2022), the paper's, when installed
    column:FILE          values that somebody else computed

None of them sends a caption anywhere.
"""

from __future__ import annotations

import csv
import hashlib
import json
import math
import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from tipr.data.samples import LANGUAGES
from tipr.errors import ConfigError, DatasetError, MissingExtra, TiprError

Noise = NDArray[np.float64]
SHIPPED = Path(__file__).resolve().parent.parent / "assets" / "translation_estimator"
"""The trained network of the default estimator, shipped as package data."""


class Estimator(Protocol):
    """Scores translations without a reference.

    Attributes:
        name: kind and model, for records.
    """

    name: str

    def describe(self) -> dict[str, Any]:
        """JSON-like facts that decide the scores; no machine path."""
        ...

    def noise(self, sources: Sequence[str], translations: Sequence[str], source_language: str, language: str) -> Noise:
        """How noisy N translations are.

        Args:
            sources: N captions in `source_language`.
            translations: N texts that should say the same in `language`.

        Returns:
            (N,) float64 in [0, 1]; 0 is a faithful translation.

        Raises:
            ConfigError: the estimator does not know one of the languages or texts.
        """
        ...


@runtime_checkable
class Explains(Protocol):
    """An estimator that can also say where it sees the noise."""

    def assess(
        self, sources: Sequence[str], translations: Sequence[str], source_language: str, language: str
    ) -> tuple[Noise, list[str]]:
        """The noise, and for each pair the thing that agrees least, such as "top_color" or "language"."""
        ...


class TextEncoderEstimator:
    """The project's own text encoder, trained to compare what two captions of a person say; offline.

    Args:
        folder: a trained network, as `CaptionReader.save` writes it; None is the shipped one.
        batch_size: pairs of one pass.
    """

    def __init__(self, folder: Path | None = None, *, batch_size: int = 64) -> None:
        from tipr.translation.caption_reader import WEIGHTS, CaptionReader

        self.reader, self.tokenizer = CaptionReader.load(folder or SHIPPED)
        self.batch_size = batch_size
        self.name = "text-encoder"
        self.sha256 = hashlib.sha256(((folder or SHIPPED) / WEIGHTS).read_bytes()).hexdigest()

    def describe(self) -> dict[str, Any]:
        """Name and the hash of the weights."""
        return {"name": self.name, "sha256": self.sha256}

    def noise(self, sources: Sequence[str], translations: Sequence[str], source_language: str, language: str) -> Noise:
        """See `Estimator.noise`."""
        return self.assess(sources, translations, source_language, language)[0]

    def assess(
        self, sources: Sequence[str], translations: Sequence[str], source_language: str, language: str
    ) -> tuple[Noise, list[str]]:
        """See `Explains.assess`."""
        import torch

        from tipr.translation.caption_reader import SLOTS

        for given in (source_language, language):
            if given not in LANGUAGES:
                raise ConfigError(f"estimator {self.name}: no language {given!r}; it knows {', '.join(LANGUAGES)}")
        names = (*SLOTS, "language")
        noise = np.empty(len(sources), dtype=np.float64)
        suspects: list[str] = []
        for start in range(0, len(sources), self.batch_size):
            rows = slice(start, start + self.batch_size)
            with torch.inference_mode():
                source, translation = (self._read(texts[rows]) for texts in (sources, translations))
                asked = torch.full((len(source.language),), LANGUAGES.index(language))
                clean, logits = self.reader(source, translation, asked)
                wrong_language = -torch.expm1(translation.language[:, LANGUAGES.index(language)])
                doubts = torch.cat([logits.sigmoid(), wrong_language[:, None]], dim=1)
            noise[rows] = -np.expm1(clean.double().numpy())
            suspects += [names[place] for place in doubts.argmax(1).tolist()]
        return noise.clip(0.0, 1.0), suspects

    def _read(self, texts: Sequence[str]) -> Any:
        from tipr.translation.caption_reader import places_of

        rows = self.tokenizer.pieces(list(texts))
        return self.reader.read(*places_of(self.tokenizer, rows, self.reader.config.max_tokens))


class CometEstimator:
    """A reference-free COMET model, run by the `comet-score` program on this machine's CPU.

    COMET's package needs NumPy below 2 and transformers below 5, so it cannot share an environment with `tipr`: pipx
    gives it one of its own, and `tipr` runs its program.

    Args:
        model: path of a checkpoint (`.ckpt`). A name is refused: COMET would fetch it.

    Raises:
        MissingExtra: no `comet-score` program is on the path.
        ConfigError: there is no such checkpoint.
    """

    PROGRAM = "comet-score"

    def __init__(self, model: str) -> None:
        if shutil.which(self.PROGRAM) is None:
            raise MissingExtra(self.PROGRAM, "comet", install="pipx install unbabel-comet")
        self.model = Path(model)
        if self.model.suffix != ".ckpt" or not self.model.is_file():
            raise ConfigError(f"comet: {model} is no checkpoint: give the path of a downloaded model's .ckpt file")
        self.name = "comet"

    def describe(self) -> dict[str, Any]:
        """Name, and the checkpoint's file name and size."""
        return {"name": self.name, "model": self.model.name, "bytes": self.model.stat().st_size}

    def noise(self, sources: Sequence[str], translations: Sequence[str], source_language: str, language: str) -> Noise:
        """See `Estimator.noise`; the model itself knows no language codes.

        Raises:
            TiprError: the program failed.
        """
        if not sources:
            return np.empty(0, dtype=np.float64)
        with tempfile.TemporaryDirectory(prefix="tipr-") as scratch:
            folder = Path(scratch)
            for name, texts in (("source", sources), ("translation", translations)):
                lines = [" ".join(text.split()) + "\n" for text in texts]
                (folder / name).write_text("".join(lines), encoding="utf-8")
            command = [self.PROGRAM, "-s", "source", "-t", "translation", "--model", str(self.model.absolute())]
            command += ["--gpus", "0", "--quiet", "--only_system", "--to_json", "scores.json"]
            offline = {**os.environ, "HF_HUB_OFFLINE": "1"}  # COMET would look for its vocabulary in the network
            done = subprocess.run(command, cwd=folder, env=offline, capture_output=True, text=True, check=False)
            if done.returncode:
                last = (done.stderr.strip().splitlines() or ["no message"])[-1]
                raise TiprError(f"{self.PROGRAM} failed: {last}")
            (scores,) = json.loads((folder / "scores.json").read_text(encoding="utf-8")).values()
        quality = np.array([score["COMET"] for score in scores], dtype=np.float64)
        if len(quality) != len(sources):
            raise TiprError(f"{self.PROGRAM} gave {len(quality)} scores for {len(sources)} captions")
        return 1.0 - quality.clip(0.0, 1.0)


class ColumnEstimator:
    """Noise from a column that the user brings.

    Args:
        path: a CSV file with a heading, or JSON Lines; each row has `key` and `quality` in [0, 1].
        rows: the rows of `translations.jsonl` whose texts the values belong to.

    Raises:
        DatasetError: the file cannot be read, a value is no quality, or a key of `rows` has none.
    """

    def __init__(self, path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
        self.name = "column"
        self.path = path
        quality = _column(path)
        self._noise: dict[tuple[str, str, str], float] = {}
        for row in rows:
            if row["draft"] is None:
                continue
            if row["key"] not in quality:
                raise DatasetError(f"{path}: no quality for key {row['key']!r}")
            self._noise[row["language"], row["source"], row["draft"]] = 1.0 - quality[row["key"]]
        self.sha256 = hashlib.sha256(path.read_bytes()).hexdigest()

    def describe(self) -> dict[str, Any]:
        """Name, and name and hash of the file."""
        return {"name": self.name, "file": self.path.name, "sha256": self.sha256}

    def noise(self, sources: Sequence[str], translations: Sequence[str], source_language: str, language: str) -> Noise:
        """See `Estimator.noise`; texts that are not in the translations have no value."""
        try:
            values = [self._noise[language, *pair] for pair in zip(sources, translations, strict=True)]
        except KeyError:
            raise ConfigError(
                f"estimator column: {self.path.name} has values for the translations only, not for new texts: "
                "take another estimator for rewritten captions"
            ) from None
        return np.array(values, dtype=np.float64)


def _column(path: Path) -> dict[str, float]:
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise DatasetError(f"cannot read {path}: {getattr(error, 'strerror', None) or error}") from None
    quality: dict[str, float] = {}
    try:
        if path.suffix.lower() == ".csv":
            rows: list[Any] = list(csv.DictReader(text.splitlines()))
        else:
            rows = [json.loads(line) for line in text.splitlines() if line.strip()]
        for number, row in enumerate(rows, start=1):
            value = float(row["quality"])
            if not 0.0 <= value <= 1.0 or math.isnan(value):
                raise DatasetError(f"{path}: row {number}: quality must be in [0, 1], not {row['quality']!r}")
            quality[str(row["key"])] = value
    except (KeyError, TypeError, ValueError) as error:
        raise DatasetError(f"{path}: every row needs `key` and a number `quality`: {error!r}") from None
    return quality


def _text_encoder(model: str, rows: Iterable[Mapping[str, Any]]) -> Estimator:
    return TextEncoderEstimator(Path(model) if model else None)


def _comet(model: str, rows: Iterable[Mapping[str, Any]]) -> Estimator:
    return CometEstimator(model)


def _column_estimator(model: str, rows: Iterable[Mapping[str, Any]]) -> Estimator:
    return ColumnEstimator(Path(model), rows)


ESTIMATORS: dict[str, Callable[[str, Iterable[Mapping[str, Any]]], Estimator]] = {
    "text-encoder": _text_encoder,
    "comet": _comet,
    "column": _column_estimator,
}
"""Kind -> function of what follows the colon, and the rows of the translations."""


def load_estimator(choice: str, rows: Iterable[Mapping[str, Any]] = ()) -> Estimator:
    """The estimator that a user named.

    Args:
        choice: "text-encoder", "text-encoder:FOLDER", "comet:CHECKPOINT" or "column:FILE".
        rows: the rows of `translations.jsonl`; only a column needs them.

    Raises:
        ConfigError: an unknown kind, or nothing behind the colon where something is needed.
        MissingExtra, WeightsError, DatasetError: it cannot be loaded.
    """
    kind, _, model = choice.partition(":")
    if kind not in ESTIMATORS or (kind != "text-encoder" and not model):
        raise ConfigError(
            f"unknown estimator {choice!r}; allowed: text-encoder, text-encoder:FOLDER, comet:CHECKPOINT, column:FILE"
        )
    return ESTIMATORS[kind](model, rows)
