"""What of a sample is hidden in training.

The two views of a pair that a method without identities learns from (dual-granularity.md 1 and 6), and the masked
captions and patches of a method in two languages (bi-irra.md 2.3 and 2.4).
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from tipr.config import Section

TextMask = Literal["exact", "bernoulli"]
MlmMasking = Literal["spans", "bernoulli"]
PatchMaskKind = Literal["block", "random", "grid"]


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


class BilingualViews(Section):
    """How the masked captions and the masked image of a method in two languages are made.

    Attributes:
        mlm_masking: "spans": min(12, 40 %) of a caption's tokens in runs of up to three, most of them replaced by the
            mask token, as released; "bernoulli": each word token with probability 0.4, replaced by the mask token, as
            the paper says.
        image_mask: "per_batch": one mask of patches for all images of a step, as released; "per_image": one for each.
        patch_mask: "block", "random" or "grid": how half of the patches is chosen.
    """

    mlm_masking: MlmMasking = "spans"
    image_mask: Literal["per_batch", "per_image"] = "per_batch"
    patch_mask: PatchMaskKind = "block"
