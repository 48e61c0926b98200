"""Relations mined from similarities instead of identity labels, in the batch and against memory banks.

Targets are built without gradient; a loss reads a target and compares it with the softmax of cosines. Nothing here asks
an accelerator for a value, except `global_relation` without `pad`, which cuts its columns to length.

Source: Zhang, Shang and Li, "Dual-Granularity Cross-Modal Identity Association for Weakly-Supervised Text-to-Person
Image Matching", ACM MM 2025; equation numbers are the paper's.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from tipr.losses.inputs import check_identity, check_pairs, check_temperature, cosine, full_precision
from tipr.losses.sdm import predicted_divergence

Modality = Literal["both", "image", "text"]
Left = Literal["prediction", "target"]

GROUP = 64
"""Bank rows whose largest similarity stands for all of them while the top k are looked for."""
SMALLEST_NORM = 1e-12
"""Shorter vectors count as zero and have cosine 0 with everything, as in `torch.nn.functional.normalize`."""


@torch.no_grad()
@full_precision
def local_links(features: Tensor, *, threshold: float = 0.7) -> Tensor:
    """Which rows of a batch look alike in one modality (Eq. 3).

    Args:
        features: (B, D), any float dtype, any scale.
        threshold: in (0, 1]; two rows are linked when their cosine is strictly larger.

    Returns:
        (B, B) bool, symmetric; the diagonal is True. With threshold 1 nothing else is.

    Raises:
        ValueError: a shape or the threshold is not as above.
    """
    check_pairs(features, features)
    check_threshold(threshold)
    # float32 gives equal rows cosines above 1, and a product that is symmetric only up to rounding
    similarity = cosine(features, features).clamp(-1, 1)
    alike = similarity > threshold
    return alike & alike.T | torch.eye(len(features), dtype=torch.bool, device=features.device)


@torch.no_grad()
@full_precision
def local_relation_target(
    image: Tensor,
    text: Tensor,
    *,
    threshold: float = 0.7,
    softness: float = 0.5,
    modality: Modality = "both",
    image_id: Tensor | None = None,
) -> Tensor:
    """Target of the relation loss inside a batch (Eq. 3-7).

    Args:
        image: (B, D) features, any float dtype, any scale.
        text: (B, D) features; row i is the caption of image i.
        threshold: in (0, 1]; see `local_links`.
        softness: lambda, in (0, 1); a mined pair gets e^(lambda - 1) of the weight of the true pair.
        modality: which modality must link two rows: "both" (the method), "image" or "text" (its ablations).
        image_id: (B,) integers of the image files; rows that share one are linked whatever they look like.

    Returns:
        (B, B), float32 (float64 for float64 inputs), without gradient: row i is the distribution over columns that
        belongs to sample i in either direction. Rows sum to 1; the matrix is NOT symmetric, never transpose it.

    Raises:
        ValueError: a shape or a value is not as above.
    """
    check_pairs(image, text)
    if not 0 < softness < 1:
        raise ValueError(f"softness must lie in (0, 1), got {softness}")
    if modality not in ("both", "image", "text"):
        raise ValueError(f"modality must be 'both', 'image' or 'text', got {modality!r}")
    chosen = {"both": (image, text), "image": (image,), "text": (text,)}[modality]
    links = torch.stack([local_links(features, threshold=threshold) for features in chosen]).all(dim=0)
    if image_id is not None:
        check_identity(image_id, len(image), "image_id")
        links = links | (image_id[:, None] == image_id[None, :])
    own = torch.eye(len(image), dtype=image.dtype, device=image.device)
    scores = own + softness * (links.to(own.dtype) - own)
    return scores.masked_fill(~links, -torch.inf).softmax(dim=1)


@full_precision
def relation_loss(
    query: Tensor,
    keys: Tensor,
    target: Tensor,
    *,
    temperature: float | Tensor = 0.02,
    eps: float = 1e-8,
    left: Left = "prediction",
    used: Tensor | None = None,
) -> Tensor:
    """Divergence of predicted relations from a target, one direction (Eq. 8-9, 16-17).

    The mean over rows of KL(p || target), p the softmax over keys of cosine / temperature: the PREDICTION p stands on
    the left, unless `left` says otherwise.

    Args:
        query: (B, D) features, any float dtype, any scale.
        keys: (M, D) features of the other modality.
        target: (B, M) distribution of each row; no gradient goes into it.
        temperature: > 0; a float or a () tensor.
        eps: added to the target inside the logarithm.
        left: "prediction" for KL(p || target), "target" for KL(target || p).
        used: (M,) bool; keys that are False take no part at all (padding); their target must be 0.

    Returns:
        () scalar, float32 (float64 for float64 inputs).

    Raises:
        ValueError: shapes do not fit, temperature <= 0, or an unknown `left`.
    """
    fits = query.ndim == 2 and keys.ndim == 2 and len(query) and query.shape[1] == keys.shape[1]
    if not fits or target.shape != (len(query), len(keys)):
        shapes = f"{tuple(query.shape)}, {tuple(keys.shape)} and {tuple(target.shape)}"
        raise ValueError(f"query must be (B, D), keys (M, D) and target (B, M) with B > 0, got {shapes}")
    if used is not None and (used.shape != (len(keys),) or used.dtype != torch.bool):
        raise ValueError(f"used must be ({len(keys)},) bool, got {tuple(used.shape)} {used.dtype}")
    if left not in ("prediction", "target"):
        raise ValueError(f"left must be 'prediction' or 'target', got {left!r}")
    check_temperature(temperature)
    logits = cosine(query, keys) / temperature
    if used is not None:
        # minus infinity would give 0 * inf below
        logits = logits.masked_fill(~used, torch.finfo(logits.dtype).min)
    target = target.detach()
    log_target = (target + eps).log()
    if left == "target":
        return (target * (log_target - logits.log_softmax(dim=1))).sum(dim=1).mean()
    return predicted_divergence(logits, log_target)


@dataclass(frozen=True)
class GlobalReading:
    """Other readings of what the paper leaves open in Eq. 12-15; with all of them off, the method's own.

    Attributes:
        repeat_columns: the mined rows of all samples stand side by side, J_1 .. J_B, a row as often as it was mined.
        drop_batch_rows: the batch's own rows are no stored columns, so that only their fresh ones count.
        negative_batch_mates: having mined a batch mate's row makes its stored column positive, not its fresh one.
        own_twin_at_one: stored columns of a sample's own row score 1 as its fresh one does, instead of Eq. 14.
        flat_weights: no Eq. 14: every related column weighs the same.
    """

    repeat_columns: bool = False
    drop_batch_rows: bool = False
    negative_batch_mates: bool = False
    own_twin_at_one: bool = False
    flat_weights: bool = False


@dataclass(frozen=True)
class GlobalRelation:
    """Which columns each batch sample is related to: the batch itself, then rows of a memory bank.

    Attributes:
        columns: (|U|,) int64, U: the distinct bank rows that any sample mined, rising; with `repeat_columns` all mined
            rows, one sample after the other. With `pad` (B * k,): the same, then -1.
        target: (B, B + len(columns)), q' of Eq. 15: row i is a distribution over the B fresh columns and `columns`;
            0 in padding. It serves both directions.
        members: (B, B + len(columns)) bool, J': the columns sample i is related to; its own fresh one always.
        mined: (B, k) int64, J of Eq. 12: bank rows by falling similarity, -1 where there are fewer than k.
    """

    columns: Tensor
    target: Tensor
    members: Tensor
    mined: Tensor

    @property
    def used(self) -> Tensor:
        """(B + len(columns),) bool: False in padding."""
        fresh = self.columns.new_ones(len(self.target), dtype=torch.bool)
        return torch.cat([fresh, self.columns >= 0])

    def keys(self, fresh: Tensor, bank: Tensor) -> Tensor:
        """(B + len(columns), D) features behind the columns: the batch's own, then copies of the bank's rows.

        Args:
            fresh: (B, D) features of the batch; gradients reach them.
            bank: (N, D) memory of the same modality; a constant.
        """
        return torch.cat([fresh, bank.detach()[self.columns.clamp(min=0)]])


@torch.no_grad()
@full_precision
def global_relation(
    image: Tensor,
    image_bank: Tensor,
    rows: Tensor,
    *,
    k: int = 10,
    threshold: float = 0.7,
    inverse_norm: Tensor | None = None,
    also: tuple[Tensor, Tensor, Tensor | None] | None = None,
    image_of: Tensor | None = None,
    reading: GlobalReading = GlobalReading(),
    pad: bool = False,
) -> GlobalRelation:
    """Mine the relations of a batch against a memory bank and weigh them (Eq. 12-15).

    A sample's relations are its k most similar bank rows (equal similarities: lower row first), as far as their cosine
    is above the threshold. Positive columns are decided by data-set row: the fresh column of a batch mate whose row was
    mined is positive too, and so is every column of the sample's own row. Weaker members get more weight (Eq. 14).

    Args:
        image: (B, D) features of the anchor modality, any float dtype, any scale. For the ablation that mines with
            texts, pass text features and the text bank.
        image_bank: (N, D) memory of the same modality, any scale.
        rows: (B,) integers, the bank row of each sample.
        k: at most this many relations a sample, in 1..N.
        threshold: in (0, 1]; strict. With threshold 1 a sample is related to its own row's fresh column only.
        inverse_norm: (N,) 1 / |row| of the bank (0 for a zero row); computed here, at the cost of one pass over the
            bank, when None.
        also: features, bank and inverse norm of a second modality: only rows mined in both stay; the weights come from
            the first.
        image_of: (N,) integers of the image file of every bank row; columns of the sample's image are then related
            to it whatever they look like. No column is added for that.
        reading: of what the equations leave open.
        pad: give `columns` the fixed length B * k, which needs no answer from an accelerator.

    Returns:
        the relations; float32 (float64 for float64 inputs), without gradient.

    Raises:
        ValueError: a shape or a value is not as above.
    """
    _check_bank(image, image_bank, rows, inverse_norm, k)
    check_threshold(threshold)
    if image_of is not None:
        check_identity(image_of, len(image_bank), "image_of")
    anchor = F.normalize(image, dim=1)
    similarity = _bank_similarity(anchor, image_bank, inverse_norm)
    mined = _above(threshold, *_largest(similarity, k))
    if also is not None:
        features, bank, inverse = also
        _check_bank(features, bank, rows, inverse, k)
        unit = F.normalize(features.to(image.dtype), dim=1)
        other = _above(threshold, *_largest(_bank_similarity(unit, bank, inverse), k))
        mined = _kept_first(mined, (mined[:, :, None] == other[:, None, :]).any(dim=2))
    columns = _columns(mined, repeat=reading.repeat_columns, without=rows if reading.drop_batch_rows else None)
    if not pad:
        columns = columns[columns >= 0]

    all_rows = torch.cat([rows, columns])
    own = all_rows[None, :] == rows[:, None]
    members = (all_rows[None, :, None] == mined[:, None, :]).any(dim=2)
    if reading.negative_batch_mates:
        members[:, : len(rows)] = False
    members |= own
    if image_of is not None:
        members |= image_of[all_rows.clamp(min=0)][None, :] == image_of[rows][:, None]
    members &= all_rows >= 0
    weight = torch.cat([anchor @ anchor.T, similarity[:, columns.clamp(min=0)]], dim=1).clamp(-1, 1)
    scores = 1 - weight.masked_fill(~members, -torch.inf).softmax(dim=1)
    scores.fill_diagonal_(1)  # the own fresh column; a wide matrix has one diagonal only
    if reading.own_twin_at_one:
        scores.masked_fill_(own, 1)
    if reading.flat_weights:
        scores.fill_(1)
    target = scores.masked_fill(~members, -torch.inf).softmax(dim=1)
    return GlobalRelation(columns, target, members, mined)


@full_precision
def global_relation_loss(
    image: Tensor,
    text: Tensor,
    image_bank: Tensor,
    text_bank: Tensor,
    relation: GlobalRelation,
    *,
    image_to_text: GlobalRelation | None = None,
    temperature: float | Tensor = 0.02,
    eps: float = 1e-8,
    left: Left = "prediction",
) -> Tensor:
    """Both directions of the loss on mined relations (Eq. 16-18): texts against images, images against TEXTS.

    Args:
        image: (B, D) features; gradients reach them.
        text: (B, D) features; row i is the caption of image i.
        image_bank: (N, D) memory of the images; a constant.
        text_bank: (N, D) memory of the texts, same rows.
        relation: of this batch; its target serves both directions.
        image_to_text: the relation of images against texts, where it is another.
        temperature: > 0; a float or a () tensor.
        eps: added to the target inside the logarithm.
        left: of the divergence; see `relation_loss`.

    Returns:
        () scalar, float32 (float64 for float64 inputs): the SUM of the two directions.

    Raises:
        ValueError: shapes do not fit, temperature <= 0, or an unknown `left`.
    """
    check_pairs(image, text)

    def one_direction(query: Tensor, fresh: Tensor, bank: Tensor, known: GlobalRelation) -> Tensor:
        keys = known.keys(fresh, bank)
        return relation_loss(query, keys, known.target, temperature=temperature, eps=eps, left=left, used=known.used)

    text_to_image = one_direction(text, image, image_bank, relation)
    return text_to_image + one_direction(image, text, text_bank, image_to_text or relation)


def inverse_norms(bank: Tensor) -> Tensor:
    """(N,) 1 / |row| of an (N, D) bank; 0 for a zero row, so that its cosines are 0."""
    norm = torch.linalg.vector_norm(bank, dim=1)
    return torch.where(norm > SMALLEST_NORM, 1 / norm.clamp(min=SMALLEST_NORM), 0)


def check_threshold(threshold: float) -> None:
    """Refuse a threshold outside (0, 1].

    Raises:
        ValueError: naming the value.
    """
    if not 0 < threshold <= 1:
        raise ValueError(f"threshold must lie in (0, 1], got {threshold}")


def _check_bank(features: Tensor, bank: Tensor, rows: Tensor, inverse_norm: Tensor | None, k: int) -> None:
    if features.ndim != 2 or bank.ndim != 2 or not len(features) or features.shape[1] != bank.shape[1]:
        raise ValueError(
            f"features must be (B, D) and the bank (N, D) with B > 0, got {tuple(features.shape)}, {tuple(bank.shape)}"
        )
    check_identity(rows, len(features), "rows")
    if inverse_norm is not None and inverse_norm.shape != (len(bank),):
        raise ValueError(f"inverse_norm must be ({len(bank)},), got {tuple(inverse_norm.shape)}")
    if not 1 <= k <= len(bank):
        raise ValueError(f"k must lie in 1..{len(bank)}, the rows of the bank, got {k}")


def _bank_similarity(unit: Tensor, bank: Tensor, inverse_norm: Tensor | None) -> Tensor:
    """(B, N) cosines of unit rows with bank rows, M of Eq. 12; rounding may leave some just outside [-1, 1]."""
    if inverse_norm is None:
        inverse_norm = inverse_norms(bank)
    return (unit @ bank.T).mul_(inverse_norm)


def _largest(similarity: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The k largest of each row, clamped to [-1, 1], and their columns; equal ones: lower column first.

    The columns are cut into groups. A group outside the k groups with the largest maxima (equal ones: lower group
    first) is beaten by k elements, so only those k groups need sorting: no pass over all columns but one maximum.

    Args:
        similarity: (B, N).
        k: in 1..N.

    Returns:
        (B, k) values, falling, and (B, k) int64 columns.
    """
    count = similarity.shape[1]
    whole = count // GROUP
    peaks = similarity[:, : whole * GROUP].view(len(similarity), whole, GROUP).amax(dim=2)
    if count > whole * GROUP:
        peaks = torch.cat([peaks, similarity[:, whole * GROUP :].amax(dim=1, keepdim=True)], dim=1)
    groups = _sorted(peaks.clamp(-1, 1))[1][:, :k].sort(dim=1).values
    columns = (groups[:, :, None] * GROUP + torch.arange(GROUP, device=similarity.device)).flatten(1)
    values = similarity.gather(1, columns.clamp(max=count - 1)).clamp(-1, 1).masked_fill(columns >= count, -torch.inf)
    values, order = _sorted(values)
    return values[:, :k], columns.gather(1, order[:, :k])


def _sorted(values: Tensor) -> tuple[Tensor, Tensor]:
    """(B, M) values of each row, falling, and their places; equal values keep their order."""
    ordered = values.sort(dim=1, descending=True, stable=True)
    return ordered.values, ordered.indices


def _above(threshold: float, values: Tensor, columns: Tensor) -> Tensor:
    """(B, k) columns with -1 where the value is not strictly above the threshold."""
    return columns.masked_fill(values <= threshold, -1)


def _kept_first(columns: Tensor, keep: Tensor) -> Tensor:
    """(..., k) columns that are kept, in their order, then -1."""
    first = (~keep).to(torch.int8).argsort(dim=-1, stable=True)
    return columns.masked_fill(~keep, -1).gather(-1, first)


def _columns(mined: Tensor, *, repeat: bool, without: Tensor | None) -> Tensor:
    """(B * k,) rows in `mined` and not in `without`, then -1: each once, rising, or as they stand with `repeat`.

    Two sorts of a few hundred numbers instead of `torch.unique`, whose result has a length that an accelerator would
    have to be asked for.
    """
    rows = mined.flatten() if repeat else mined.flatten().sort().values
    keep = rows >= 0
    if not repeat:
        keep[1:] &= rows[1:] != rows[:-1]
    if without is not None:
        keep &= (rows[:, None] != without[None, :]).all(dim=1)
    return _kept_first(rows, keep)
