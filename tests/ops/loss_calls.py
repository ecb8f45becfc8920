"""The op multi_tensor_loss as its tests call it."""

from __future__ import annotations

from ganloss_fast import ops
from ganloss_fast.ops import terms

SOFTPLUS = terms.softplus(-1.0)


def total(segments):
    return ops.multi_tensor_loss(segments).total


def values_sum(segments):
    """The total again, put together from the differentiable values."""
    values = ops.multi_tensor_loss(segments).values
    return sum(segment.scale * value for segment, value in zip(segments, values.unbind()))
