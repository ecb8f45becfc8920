"""TensorFlow's weighted losses: how weights broadcast, and the five ways to reduce them."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from ganloss_fast import ops
from ganloss_fast.checks import broadcasts, check_choice, check_number, check_same_device, describe
from ganloss_fast.compat._toolkits import check_pair
from ganloss_fast.ops.multi_tensor_loss import segment_elements
from ganloss_fast.ops.terms import Segment, compute_dtype

Weights = float | Tensor

BY_NONZERO_WEIGHTS = "weighted_sum_by_nonzero_weights"
REDUCTIONS = (
    "none",
    "weighted_sum",
    "weighted_sum_over_batch_size",
    "weighted_mean",
    BY_NONZERO_WEIGHTS,
)


class _Weighing(NamedTuple):
    """What the mean of a loss's elements is multiplied by: a number, and element by element."""

    factor: float
    weight: Tensor | None


def _weighing(reduction: str, weights: Weights, like: Tensor) -> _Weighing:
    check_choice("reduction", reduction, REDUCTIONS)
    count = like.numel()
    if not isinstance(weights, Tensor):
        number = check_number("weights", weights)
        if reduction == "weighted_sum":
            return _Weighing(number * count, None)
        if reduction == "weighted_mean":
            return _Weighing(float(number != 0), None)  # TensorFlow divides 0 by 0 to 0
        return _Weighing(number, None)
    check_same_device("weights", weights, "the outputs", like)
    if not broadcasts(weights, like):
        raise ValueError(
            f"weights: expected a number, a 0-d tensor, or a shape that broadcasts to "
            f"{list(like.shape)} with as many dimensions, got {list(weights.shape)}."
        )
    weight = weights.detach().to(compute_dtype(like.dtype)).expand(like.shape)
    if reduction == "weighted_sum":
        return _Weighing(float(count), weight)
    if reduction == "weighted_mean":
        total = weight.sum()
        share = torch.where(total == 0, 0.0, count / torch.where(total == 0, 1.0, total))
        return _Weighing(1.0, weight * share)
    if reduction == BY_NONZERO_WEIGHTS:
        return _Weighing(1.0, weight * (count / weight.count_nonzero().clamp(min=1)))
    return _Weighing(1.0, weight)


def weighted_loss(reduction: str, *sides: tuple[list[Segment], Weights]) -> Tensor:
    """The sum of sides, each weighted and reduced; elements for "none"."""
    segments = [
        segment._replace(scale=weighing.factor * segment.scale, weight=weighing.weight)
        for own, weights in sides
        for weighing in [_weighing(reduction, weights, own[0].a)]
        for segment in own
    ]
    if reduction != "none":
        return ops.multi_tensor_loss(segments).total
    elements = [segment.scale * segment_elements(segment) for segment in segments]
    first = elements[0]
    for segment, other in zip(segments[1:], elements[1:]):
        check_pair(("the real outputs", "the generated ones"), segments[0].a, segment.a)
        first = first + other
    return first


def weighted_elements(reduction: str, elements: Tensor, weights: Weights) -> Tensor:
    """The same for elements that no segment describes."""
    if not isinstance(elements, Tensor):
        raise TypeError(f"losses: expected a tensor, got {describe(elements)}.")
    factor, weight = _weighing(reduction, weights, elements)
    weighed = elements if weight is None else elements * weight.to(elements.dtype)
    return factor * (weighed if reduction == "none" else weighed.mean())
