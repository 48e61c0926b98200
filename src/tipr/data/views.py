"""The two views of an image-caption pair that a method without identities learns from (dual-granularity.md 1 and 6)."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from tipr.config import Section

TextMask = Literal["exact", "bernoulli"]


class PairViews(Section):
    """How the clean and the perturbed view of a pair are made.

    The perturbed image is the run's `augmentation`; the perturbed caption has some of its tokens replaced by the mask
    token. A method that does not use the perturbed view gets none, whatever stands here.

    Attributes:
        clean_view_augment: of the clean image: "none"; "flip" mirrors it with the probability of `augmentation`;
            "full" is the whole `augmentation`, with draws of its own. The clean caption is never masked.
        perturb: "both" sides of a pair; "one_of_two": a fair coin for each pair and epoch picks the side, the other
            one is that of the clean view; "crossed": both, and the method matches each perturbed side with the clean
            other one.
        mask_ratio: share of a caption's ordinary tokens that is masked; 0 masks nothing.
        text_mask: "exact": that share of each caption, rounded and at least one token; "bernoulli": each token by
            itself with that probability.
    """

    clean_view_augment: Literal["none", "flip", "full"] = "none"
    perturb: Literal["both", "one_of_two", "crossed"] = "both"
    mask_ratio: float = Field(default=0.5, ge=0, le=1)
    text_mask: TextMask = "exact"
