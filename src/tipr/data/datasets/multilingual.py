"""The multilingual versions of the four benchmarks: the same images and splits, captions in four languages."""

from __future__ import annotations

from dataclasses import replace
from typing import ClassVar

from tipr.data.annotated import AnnotatedDataset
from tipr.data.dataset import DatasetFacts
from tipr.data.samples import LANGUAGES


class Multilingual(AnnotatedDataset):
    """`annos/{train,test}_reid_{en,ch,fr,de}.json`, aligned by record and by caption (bi-irra.md section 9).

    The captions of an image come in the order of `LANGUAGES`, and within a language in that of the file, so the n-th
    captions of an image in two languages say the same.

    Args:
        base: the facts of the data set in English.
    """

    by_language: ClassVar[bool] = True

    def __init__(self, base: DatasetFacts) -> None:
        self.facts = replace(
            base,
            title=f"{base.title}(M)",
            languages=LANGUAGES,
            layout="annos/{train,test}_reid_{en,ch,fr,de}.json beside the images of " + base.title,
            request=f"https://github.com/Flame-Chasers/Bi-IRRA (annotation), {base.request} (images)",
            citation="M. Cao, X. Zhou, D. Jiang, B. Du, M. Ye, M. Zhang: Multilingual Text-to-Image Person Retrieval "
            f"via Bidirectional Relation Reasoning and Aligning. arXiv:2510.17685, 2025; and {base.citation}",
            editions=base.editions[:1],
            optional=("val",),
            defects=(
                *(defect for defect in base.defects if ".json" not in defect),
                "captions in Chinese, French and German are translations by language models; those of the test part "
                "were corrected by hand",
                "no files of a validation split are named publicly; val_reid_*.json is read where it is there",
            ),
        )
