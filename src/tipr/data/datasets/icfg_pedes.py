"""ICFG-PEDES: one identity-centric, fine-grained caption an image; no validation split."""

from __future__ import annotations

from typing import ClassVar

from tipr.data.annotated import AnnotatedDataset
from tipr.data.dataset import Counts, DatasetFacts, Edition


class IcfgPedes(AnnotatedDataset):
    """`ICFG-PEDES.json` or `ICFG_PEDES.json` beside `imgs/`. The folders train and test below it are not the split."""

    facts = DatasetFacts(
        title="ICFG-PEDES",
        licence="academic research only; its images are of MSMT17, whose terms hold as well",
        research_only=True,
        languages=("en",),
        splits=("train", "test"),
        layout="ICFG-PEDES.json beside imgs/{train, test}",
        request="https://github.com/zifyloo/SSAN",
        citation="Z. Ding, C. Ding, Z. Shao, D. Tao: Semantically Self-Aligned Network for Text-to-Image Part-aware "
        "Person Re-identification. arXiv:2107.12666, 2021",
        editions=(
            Edition("ICFG-PEDES.json", {"train": Counts(3_102, 34_674, 34_674), "test": Counts(1_000, 19_848, 19_848)}),
        ),
        folders=("train", "test"),
        defects=(
            "the folders imgs/train and imgs/test are those of MSMT17, not the split: only the field split decides",
            "no validation split: the last epoch is the model",
            "shares its source, MSMT17, with RSTPReid under other names and ids: never pool the two, nor transfer "
            "between them, without saying so",
        ),
    )
    names: ClassVar[tuple[str, ...]] = ("ICFG-PEDES.json", "ICFG_PEDES.json")
