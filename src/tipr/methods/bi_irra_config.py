"""Settings of Bi-IRRA: the released recipe, the paper's reading of each difference, and the parts of its ablations."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import Field, PositiveInt, field_validator, model_validator

from tipr.data.views import BilingualViews
from tipr.methods.base import MethodConfig, some_and_distinct

LossName = Literal["itc", "itm", "mlm", "mim", "sdm", "id"]
Language = Literal["source", "target"]
PUBLISHED_WEIGHTS: dict[LossName, float] = {"itm": 4.0, "mim": 4.0}
PAPER: dict[str, Any] = {
    "views": {"mlm_masking": "bernoulli", "image_mask": "per_image"},
    "mim_tokens": "masked",
}
"""What `recipe: paper` sets where the configuration says nothing."""


class BiIrraConfig(MethodConfig):
    """Settings of Bi-IRRA; the defaults are the released code's.

    Every difference between paper and released code is an option. `recipe` sets those of the method; one that is given
    by itself wins over it. What the paper has otherwise in the encoder is set there: `encoder.global_token: class`,
    `encoder.match_query: image`, `encoder.text_projections: shared`, `encoder.position_offset: 2`; for imported
    weights by the importer's `word_table` and `tie_decoder`.

    On one process the two readings of `itc_gather` are the same, and a batch means the same on any number of processes
    by default. The released gradient of W processes is `itc_gather: local_slice` with `itm_negative_group`: batch / W;
    on any number of processes `itc_gradient_scale` 1 / W says the same. The published models embed W = 4 and 32 rows.

    Attributes:
        name: "bi_irra".
        recipe: "released": the defaults below. "paper": `views.mlm_masking: bernoulli`, `views.image_mask: per_image`,
            `mim_tokens: masked`.
        losses: terms that are summed: "itc" (Eq. 10-13) and "itm" (Eq. 14-16) are the paper's Md-GA, "mlm" is Eq. 7-9,
            "mim" (D-MIM) Eq. 4-6; "sdm" and "id" are IRRA's, over both languages.
        weights: factor of a term; where none is given, 4 for "itm" and "mim" and 1 for the others (Eq. 17).
        temperature: first value of what similarities are divided by; a number, not a logarithm.
        learnable_temperature: train it.
        temp_range: (lowest, highest) value that a step begins with, as X2-VLM has it; None: no limit, as released.
        sdm_temperature: of the term "sdm" alone, constant as in IRRA.
        itc_gradient_scale: factor of the gradient that "itc" and "sdm" send into the encoder, and not of the one that
            the temperature gets.
        itc_gather: "joint": the gradient of the loss of the whole batch. "local_slice": as released, every process
            keeps the gradient of its own rows; after averaging, the encoder gets 1 / W of it and the temperature all.
        itm_negative_group: negatives of "itm" are drawn inside blocks of this many rows; None: from the whole batch.
        itm_mask: whose pairs of "itm" have the masked image: those of the "target" language, as published, of the
            "source" language, of "both" or of "none" (Table IX).
        mim_teacher, mim_student: language beside the whole and beside the masked image (Table VII).
        mim_tokens: image tokens that count: "all", as released, the global one included; the "masked" patches; or the
            "global" one alone.
        tie_decoder: the output layer of MLM is the word table, as in the released code; else a matrix of its own.
        views: how captions and patches are masked.
        new_rate: learning-rate factor of names with cross, classifier or mlm_head.
        bias_rate: learning-rate factor of biases.
        bias_decay: weight-decay factor of tensors of fewer than two dimensions and of names with bias, ln or bn, which
            is how relative position tables come in.
    """

    name: Literal["bi_irra"] = "bi_irra"
    recipe: Literal["released", "paper"] = "released"
    losses: tuple[LossName, ...] = ("itc", "itm", "mlm", "mim")
    weights: dict[LossName, float] = Field(default_factory=dict)
    temperature: float = Field(default=0.07, gt=0)
    learnable_temperature: bool = True
    temp_range: tuple[float, float] | None = None
    sdm_temperature: float = Field(default=0.02, gt=0)
    itc_gradient_scale: float = Field(default=1.0, gt=0)
    itc_gather: Literal["joint", "local_slice"] = "joint"
    itm_negative_group: PositiveInt | None = None
    itm_mask: Literal["target", "source", "both", "none"] = "target"
    mim_teacher: Language = "source"
    mim_student: Language = "target"
    mim_tokens: Literal["all", "masked", "global"] = "all"
    tie_decoder: bool = True
    views: BilingualViews = BilingualViews()
    new_rate: float = Field(default=1.0, gt=0)
    bias_rate: float = Field(default=1.0, gt=0)
    bias_decay: float = Field(default=0.0, ge=0)

    _losses = field_validator("losses")(some_and_distinct)

    @model_validator(mode="before")
    @classmethod
    def _recipe(cls, given: Any) -> Any:
        """Fill in what the recipe says; later code sees the options alone."""
        if not isinstance(given, Mapping) or given.get("recipe") != "paper":
            return given
        views = given.get("views", {})
        if isinstance(views, Mapping):
            views = {**PAPER["views"], **views}
        return {**PAPER, **given, "views": views}

    @field_validator("temp_range")
    @classmethod
    def _a_range(cls, bounds: tuple[float, float] | None) -> tuple[float, float] | None:
        if bounds is not None and not 0 < bounds[0] < bounds[1]:
            raise ValueError("must be two numbers, 0 < lowest < highest, or null")
        return bounds

    @property
    def trains_fusion(self) -> bool:
        """The terms in which texts look at images."""
        return bool({"itm", "mlm"} & set(self.losses))

    @property
    def masks_image_of(self) -> tuple[Language, ...]:
        """Languages whose pairs of "itm" have the masked image."""
        if "itm" not in self.losses or self.itm_mask == "none":
            return ()
        return ("source", "target") if self.itm_mask == "both" else (self.itm_mask,)
