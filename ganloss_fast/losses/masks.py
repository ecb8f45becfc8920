"""Masks over logits: which elements of an output count in its mean, and how much."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ganloss_fast.checks import broadcasts, check_same_device, describe
from ganloss_fast.ops.terms import Segment, compute_dtype

Mask = Tensor | Sequence[Tensor | None] | None


def _one_for_each(name: str, mask: object, outputs: int) -> list[tuple[str, object]]:
    """The mask of every output, with the name by which messages call it."""
    if isinstance(mask, Tensor):
        return [(name, mask)] * outputs
    if not isinstance(mask, (list, tuple)):
        raise TypeError(f"{name}: expected a tensor, or one for each output, got {describe(mask)}.")
    if len(mask) != outputs:
        raise ValueError(
            f"{name}: expected one mask for each of the {outputs} outputs (None for no mask), got "
            f"{len(mask)}."
        )
    return [(f"{name}[{k}]", one) for k, one in enumerate(mask)]


def _weight(name: str, mask: object, logits: Tensor, normalize: bool) -> Tensor | None:
    """The mask of one output as the weight of its segments: shaped like the logits."""
    if mask is None:
        return None
    if not isinstance(mask, Tensor):
        raise TypeError(f"{name}: expected a tensor, got {describe(mask)}.")
    if not (mask.dtype.is_floating_point or mask.dtype == torch.bool):
        raise TypeError(f"{name}: expected a floating-point or bool mask, got {mask.dtype}.")
    if mask.requires_grad:
        raise ValueError(f"{name}: no gradient flows to a mask; detach it.")
    check_same_device(name, mask, "the logits", logits)
    if not broadcasts(mask, logits):
        raise ValueError(
            f"{name}: expected a shape that broadcasts to the logits, {list(logits.shape)}, with "
            f"as many dimensions, got {list(mask.shape)}."
        )
    weight = mask.to(compute_dtype(logits.dtype))
    if normalize:
        weight = weight / weight.mean()
    return weight.expand(logits.shape)


def masked(
    name: str, mask: Mask, segments: list[Segment], outputs: int, normalize: bool
) -> list[Segment]:
    """The segments of one side, output by output, with its mask as a weight of their elements."""
    if mask is None:
        return segments
    per_output = len(segments) // outputs
    result = []
    for k, (label, one) in enumerate(_one_for_each(name, mask, outputs)):
        own = segments[k * per_output : (k + 1) * per_output]
        weight = _weight(label, one, own[0].a, normalize)
        for segment in own:
            if weight is not None and segment.weight is not None:
                segment = segment._replace(weight=weight * segment.weight)
            elif weight is not None:
                segment = segment._replace(weight=weight)
            result.append(segment)
    return result
