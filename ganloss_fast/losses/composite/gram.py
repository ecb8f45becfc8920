"""Gram matrices of feature maps: the second moment of their channels."""

from __future__ import annotations

import math
from typing import Any, Literal

import torch
from torch import Tensor

from ganloss_fast.checks import check_choice, check_tensor
from ganloss_fast.ops.dispatch import is_plain_eager

GramNormalization = Literal["chw", "hw", "none"]
NORMALIZATIONS = ("chw", "hw", "none")


class _SecondMoment(torch.autograd.Function):
    """F F^T. Autograd, which does not know that both factors are one, would take a product for
    each of them; their sum is one: (g + g^T) F. It is made of operations that have derivatives."""

    @staticmethod
    def forward(ctx: Any, features: Tensor) -> Tensor:
        ctx.save_for_backward(features)
        return features.bmm(features.transpose(1, 2))

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        (features,) = ctx.saved_tensors
        return (gradient + gradient.transpose(1, 2)).bmm(features)


def check_maps(name: str, features: Tensor) -> Tensor:
    if check_tensor(name, features).dim() < 3:
        raise ValueError(
            f"{name}: a Gram matrix needs feature maps [B, C, ...], got shape "
            f"{list(features.shape)}."
        )
    return features


def _positions(features: Tensor) -> int:
    return math.prod(features.shape[2:])


def divisor(features: Tensor, normalization: GramNormalization) -> int:
    """What the second moment of [B, C, ...] is divided by."""
    if normalization == "none":
        return 1
    channels = features.shape[1] if normalization == "chw" else 1
    return max(channels * _positions(features), 1)


def scaled_second_moment(features: Tensor, divisor: int) -> tuple[Tensor, float]:
    """A Gram matrix [B, C, C], and by what it is still to be divided.

    The division belongs to whoever uses the matrix, which is scaled there for nothing. In float16
    a sum over the pixels of a large map would overflow first, so there it comes ahead.
    """
    remaining = float(divisor)
    if features.dtype == torch.float16:
        features, remaining = features * divisor**-0.5, 1.0
    flat = features.reshape(*features.shape[:2], _positions(features))  # [B, C, H W]
    with torch.autocast(features.device.type, enabled=False):
        if is_plain_eager(flat):
            moment: Tensor = _SecondMoment.apply(flat)
        else:
            moment = flat.bmm(flat.transpose(1, 2))
    return moment, remaining


def gram_matrix(features: Tensor, normalization: GramNormalization = "chw") -> Tensor:
    """The Gram matrix of feature maps (Gatys et al., 2016).

    .. math:: G_b = \\frac{F_b F_b^T}{c h w}

    with ``F_b`` of shape [C, H W]. The backward is one product instead of two.

    Args:
        features: [B, C, ...], floating point.
        normalization: what it is divided by: ``"chw"`` as in BasicSR, mmagic and EdgeConnect,
            ``"hw"``, or ``"none"``.

    Returns:
        Tensor [B, C, C] of the dtype of ``features``, under autocast too.

    Raises:
        ValueError: if ``features`` have fewer than three dimensions.
        TypeError: if they are not a floating-point tensor.
    """
    check_choice("normalization", normalization, NORMALIZATIONS)
    by = divisor(check_maps("features", features), normalization)
    moment, remaining = scaled_second_moment(features, by)
    return moment if remaining == 1.0 else moment / remaining
