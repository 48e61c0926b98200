"""A set of rendered people, as `tipr data synth` writes it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from tipr.data.datasets.manifest_dataset import manifest_path, split_of_records
from tipr.data.manifest import MANIFEST_NAME, iterate_manifest
from tipr.data.samples import LANGUAGES, SPLITS, DatasetFacts, DatasetReader, Split, SplitMissing
from tipr.errors import DatasetError

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

    def load(self, root: Path | str, split: str, languages: Sequence[str] | None = None) -> Split:
        """See `DatasetReader.load`."""
        if split not in self.facts.splits:
            raise DatasetError(f"{root}: unknown split {split!r}; allowed: {', '.join(self.facts.splits)}")
        if split == "paraphrase":
            path = manifest_path(root, PARAPHRASE_NAME)
            if path.stat().st_size == 0:
                raise SplitMissing(f"{path} is empty: the set has no test people")
            records = [(line, replace(record, split="test")) for line, record in iterate_manifest(path)]
            return split_of_records(path, records, "test", languages, name="paraphrase")
        path = manifest_path(root, MANIFEST_NAME)
        return split_of_records(path, tuple(iterate_manifest(path)), split, languages)
