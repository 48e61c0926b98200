"""CUHK-PEDES: the first and most used benchmark, with images of seven sources."""

from __future__ import annotations

from typing import ClassVar

from tipr.data.annotated import AnnotatedDataset
from tipr.data.dataset import Counts, DatasetFacts, Edition


class CuhkPedes(AnnotatedDataset):
    """`reid_raw.json` beside `imgs/`; two English captions an image as a rule, nine images have more."""

    facts = DatasetFacts(
        title="CUHK-PEDES",
        licence="academic research only, asked for from a university address",
        research_only=True,
        languages=("en",),
        splits=("train", "val", "test"),
        layout="reid_raw.json beside imgs/{cam_a, cam_b, CUHK01, CUHK03, Market, test_query, train_query}",
        request="https://github.com/ShuangLI59/Person-Search-with-Natural-Language-Description",
        citation="S. Li, T. Xiao, H. Li, B. Zhou, D. Yue, X. Wang: Person Search with Natural Language Description. "
        "CVPR 2017",
        editions=(
            Edition(
                "reid_raw.json",
                {
                    "train": Counts(11_003, 34_054, 68_126),
                    "val": Counts(1_000, 3_078, 6_158),
                    "test": Counts(1_000, 3_074, 6_156),
                },
            ),
            Edition(
                "the papers",
                {
                    "train": Counts(11_003, 34_054, 68_108),
                    "val": Counts(1_000, 3_078, 6_158),
                    "test": Counts(1_000, 3_074, 6_156),
                },
                note="their parts do not add up to their total of 80,412",
            ),
        ),
        folders=("cam_a", "cam_b", "CUHK01", "CUHK03", "Market", "test_query", "train_query"),
        defects=(
            "some archives lack whole image folders",
            "archives carry caption_all.json as well, which has no splits: it is not reid_raw.json",
            "the papers count 68,108 captions of train, the file holds 68,126",
            "four persons have a single image",
        ),
    )
    names: ClassVar[tuple[str, ...]] = ("reid_raw.json", "CUHK-PEDES.json", "caption_all.json")
