"""RSTPReid: five images of each person by different cameras, two captions each."""

from __future__ import annotations

from typing import ClassVar

from tipr.data.annotated import AnnotatedDataset
from tipr.data.dataset import Counts, DatasetFacts, Edition


class RstpReid(AnnotatedDataset):
    """`data_captions.json` (with `img_path`) beside a flat folder `imgs/`."""

    facts = DatasetFacts(
        title="RSTPReid",
        licence="research; no licence is stated; its images are of MSMT17, whose terms hold as well",
        research_only=True,
        languages=("en",),
        splits=("train", "val", "test"),
        layout="data_captions.json beside imgs/",
        request="https://github.com/NjtechCVLab/RSTPReid-Dataset",
        citation="A. Zhu, Z. Wang, Y. Li, X. Wan, J. Jin, T. Wang, F. Hu, G. Hua: DSSL: Deep Surroundings-person "
        "Separation Learning for Text-based Person Retrieval. ACM MM 2021",
        editions=(
            Edition(
                "data_captions.json",
                {
                    "train": Counts(3_701, 18_505, 37_010),
                    "val": Counts(200, 1_000, 2_000),
                    "test": Counts(200, 1_000, 2_000),
                },
            ),
            Edition(
                "an early release",
                {
                    "train": Counts(3_901, 19_505, 39_010),
                    "val": Counts(100, 500, 1_000),
                    "test": Counts(100, 500, 1_000),
                },
                note="corrected later: ask for the newest files",
            ),
        ),
        defects=(
            "an early release had another split (3,901 / 100 / 100 persons)",
            "many captions are repeated under different persons although they do not fit",
            "CJK characters and fragments of program text occur in some captions",
            "shares its source, MSMT17, with ICFG-PEDES under other names and ids: never pool the two, nor transfer "
            "between them, without saying so",
        ),
    )
    names: ClassVar[tuple[str, ...]] = ("data_captions.json", "RSTPReid.json")
