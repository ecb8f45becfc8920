"""Losses that set one logit against many: the dual contrastive one and the multi-class hinge."""

from __future__ import annotations

import torch
from torch import Tensor

from ganloss_fast import ops
from ganloss_fast.checks import (
    Weight,
    check_number,
    check_same_device,
    check_tensor,
    check_weight,
    describe,
)
from ganloss_fast.losses.reductions import number_of, weighted
from ganloss_fast.ops import terms
from ganloss_fast.ops.terms import Segment, compute_dtype


def dual_contrastive_loss(real: Tensor, fake: Tensor, *, weight: Weight = 1.0) -> Tensor:
    """The dual contrastive loss (Yu et al., 2021): each logit against all of the other side.

    .. math:: E_i[-\\log \\frac{e^{r_i}}{e^{r_i} + \\sum_j e^{f_j}}] +
        E_i[-\\log \\frac{e^{-f_i}}{e^{-f_i} + \\sum_j e^{-r_j}}]

    A cross-entropy against one row for all is ``softplus(logsumexp(f) - r_i)``: two sums of
    exponentials, and one call of the op, in place of two tables of B by B. lucidrains'
    stylegan2-pytorch calls it with the arguments swapped, as its real logits are low.

    Args:
        real: logits on real samples, of any shape.
        fake: logits on generated samples, of any shape.
        weight: factor of the result; a number or a 0-d tensor.

    Returns:
        0-d tensor, float32 (float64 for float64 logits). The generator's loss is the same with
        the arguments swapped.

    Raises:
        ValueError: if the two lie on different devices, or one is empty.
        TypeError: if logits are not floating-point tensors.
    """
    weight = check_weight("weight", weight)
    for name, logits in (("real", real), ("fake", fake)):
        if check_tensor(name, logits).numel() == 0:
            raise ValueError(f"{name}: expected at least one logit, got none.")
    check_same_device("fake", fake, "real", real)
    any_fake = fake.to(compute_dtype(fake.dtype)).reshape(-1).logsumexp(0)
    any_real = -(-real.to(compute_dtype(real.dtype))).reshape(-1).logsumexp(0)
    scale = number_of(weight)
    segments = [
        Segment(real, terms.softplus(-1.0), scale, any_fake),
        Segment(fake, terms.softplus(1.0), scale, any_real),
    ]
    return weighted(weight, ops.multi_tensor_loss(segments).total)


def multi_hinge_loss(
    logits: Tensor, labels: Tensor, *, margin: float = 1.0, weight: Weight = 1.0
) -> Tensor:
    """The multi-class hinge loss of Crammer & Singer (2001; in GANs: Kavalerov et al., 2021).

    .. math:: w \\, E_i[max(0, m + \\max_{j \\ne y_i} x_{ij} - x_{i y_i})]

    as StudioGAN's ``crammer_singer_loss``, where the last class is "generated". The largest wrong
    logit is plain PyTorch, the rest the op's.

    Args:
        logits: [B, C], two classes at least.
        labels: [B], int64, from 0 to C - 1.
        margin: ``m``.
        weight: factor of the result; a number or a 0-d tensor.

    Returns:
        0-d tensor, float32 (float64 for float64 logits).

    Raises:
        ValueError: if the shapes or devices do not fit.
        TypeError: if the logits are not floating point, or the labels no int64.
    """
    weight = check_weight("weight", weight)
    margin = check_number("margin", margin)
    if check_tensor("logits", logits).dim() != 2 or logits.shape[1] < 2:
        raise ValueError(
            f"logits: expected shape [B, C] with two classes at least, got {list(logits.shape)}."
        )
    if not isinstance(labels, Tensor) or labels.dtype != torch.int64:
        raise TypeError(f"labels: expected an int64 tensor, got {describe(labels)}.")
    if labels.shape != logits.shape[:1]:
        raise ValueError(
            f"labels: expected shape [{logits.shape[0]}], one for each row of logits, got "
            f"{list(labels.shape)}."
        )
    check_same_device("labels", labels, "logits", logits)
    columns = labels.unsqueeze(1)
    right = logits.gather(1, columns).squeeze(1)
    wrong = logits.scatter(1, columns, -torch.inf).max(1).values  # of equal ones, one
    segment = Segment(right, terms.hinge(1.0, margin), number_of(weight), wrong)
    return weighted(weight, ops.multi_tensor_loss([segment]).total)
