"""UFineBench (UFine6926): two captions an image of 81 words on average; no validation split."""

from __future__ import annotations

from typing import ClassVar

from tipr.data.annotated import AnnotatedDataset
from tipr.data.dataset import Counts, DatasetFacts, Edition


class UFineBench(AnnotatedDataset):
    """A JSON file of any name (or ROOT itself) beside `images/`; paths are relative to the folder above `images/`.

    UFine3C, its extra evaluation set, has the same form and any number of captions an image: it is read as a test
    split of its own folder.
    """

    facts = DatasetFacts(
        title="UFineBench",
        licence="research only, after a licence agreement that a supervisor signs for students",
        research_only=True,
        languages=("en",),
        splits=("train", "test"),
        layout="an annotation file (.json, of any name) beside images/",
        request="https://github.com/Zplusdragon/UFineBench",
        citation="J. Zuo, H. Zhou, Y. Nie, F. Zhang, T. Guo, N. Sang, Y. Wang, C. Gao: UFineBench: Towards Text-based "
        "Person Retrieval with Ultra-fine Granularity. CVPR 2024",
        editions=(
            Edition(
                "UFine6926",
                # the persons of the two splits are published together only: 6,926
                {"train": Counts(None, 18_577, 37_154), "test": Counts(None, 7_629, 15_258)},
            ),
            Edition(
                "UFine3C",
                {"test": Counts(2_250, 7_446, 37_939)},
                note="an extra evaluation set: say so beside every score",
            ),
        ),
        defects=(
            "no validation split: the last epoch is the model",
            "77 tokens cut most captions; published runs use 168",
            "the name of the annotation file is not stated publicly",
        ),
    )
    names: ClassVar[tuple[str, ...]] = ("UFine6926.json", "UFineBench.json", "UFine3C.json")
