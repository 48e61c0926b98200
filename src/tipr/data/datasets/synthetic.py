"""A set of rendered people, as `tipr data synth` writes it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from tipr.data.dataset import DatasetFacts, DatasetReader, Reading
from tipr.data.datasets.manifest_dataset import manifest_path, read_manifest_file
from tipr.data.samples import LANGUAGES, SPLITS, Split, SplitMissing

PARAPHRASE_NAME = "paraphrase.jsonl"
"""The test images once more, with captions in sentence plans and words that training never sees."""


class SyntheticDataset(DatasetReader):
    """Rendered people with captions in four languages; made by `tipr.data.synthetic.benchmark`."""

    facts = DatasetFacts(
        title="Rendered people",
        licence="MIT",
        languages=LANGUAGES,
        splits=(*SPLITS, "paraphrase"),
        layout="manifest.jsonl, paraphrase.jsonl, images/, benchmark.json; docs/benchmark.md",
        note="no real person and no real camera; scores here say nothing about real photographs",
    )

    def read(self, root: Path | str, languages: Sequence[str] | None = None) -> Reading:
        """See `DatasetReader.read`; the paraphrases are a file of their own and not part of it."""
        return read_manifest_file(manifest_path(root))

    def load(
        self, root: Path | str, split: str, languages: Sequence[str] | None = None, *, allow_missing: bool = False
    ) -> Split:
        """See `DatasetReader.load`."""
        if split != "paraphrase":
            return super().load(root, split, languages, allow_missing=allow_missing)
        self.check_request(root, split, languages)
        path = manifest_path(root, PARAPHRASE_NAME)
        if path.stat().st_size == 0:
            raise SplitMissing(f"{path} is empty: the set has no test people")
        reading = read_manifest_file(path)
        return reading.split_of("test", languages, name="paraphrase", allow_missing=allow_missing)
