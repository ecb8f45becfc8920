"""From the sides of a loss to its result: weights, masks and reductions."""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor

from ganloss_fast import ops
from ganloss_fast.checks import Logits, Weight, check_choice, check_flag, scaled
from ganloss_fast.losses.details import REDUCTIONS, Reduction, Sides, flatten
from ganloss_fast.losses.masks import Mask, masked
from ganloss_fast.losses.table import Loss, Side
from ganloss_fast.ops.multi_tensor_loss import segment_elements
from ganloss_fast.ops.terms import SideOfLoss

ElementReduction = Literal["mean", "sum", "none", "sample"]

APART = ("none", "sample")  # reductions that keep outputs and sides apart


def output_share(reduction: Reduction, count: int) -> float:
    if reduction == "sum":
        return 1.0
    check_choice("output_reduction", reduction, REDUCTIONS)
    return 1.0 / count


def number_of(weight: Weight) -> float:
    """The part of a weight that goes into the op's scales; a tensor multiplies the result."""
    return 1.0 if isinstance(weight, Tensor) else weight


def weighted(weight: Weight, value: Tensor) -> Tensor:
    """``value``, whose scales hold the weight if it is a number."""
    return scaled(weight, value) if isinstance(weight, Tensor) else value


def total_at_once(loss: Loss, *sides: tuple[Side, Logits, Weight]) -> Tensor | None:
    """The sum of weighted means where nothing needs the segments: straight from the logits, whose
    checks it leaves, as everything out of the ordinary, to the long way round (None)."""
    if loss.relativistic is not None:
        return None
    asked: list[SideOfLoss] = []
    for side, logits, weight in sides:
        if isinstance(weight, Tensor):
            return None
        asked.append((logits, loss.summands(side), weight))
    return ops.total_of_sides(*asked)


def total_of(sides: Sides, weights: dict[str, Weight]) -> Tensor:
    """The sum of all segments: one call, or one for each side where a weight is a tensor."""
    for weight in weights.values():
        if isinstance(weight, Tensor):
            break
    else:
        return ops.multi_tensor_loss(flatten(sides)).total
    parts = [
        weighted(weights[name], ops.multi_tensor_loss(segments).total)
        for name, segments in sides.items()
    ]
    return parts[0] if len(parts) == 1 else parts[0] + parts[1]


def _elements(sides: Sides, outputs: int) -> dict[str, list[Tensor]]:
    """What the op takes the means of, for every side and output: tensors shaped like the logits."""
    found = {}
    for name, segments in sides.items():
        values = [segment.scale * segment_elements(segment) for segment in segments]
        own = len(segments) // outputs
        found[name] = [sum(values[k : k + own][1:], values[k]) for k in range(0, len(values), own)]
    return found


def _summed(sides: Sides) -> Sides:
    """The segments with their sums in place of their means."""
    return {
        name: [segment._replace(scale=segment.scale * segment.a.numel()) for segment in segments]
        for name, segments in sides.items()
    }


def reduced(
    sides: Sides, outputs: int, weights: dict[str, Weight], reduction: str, is_list: bool
) -> Any:
    """The loss of weighted sides: 0-d, or for "none" and "sample" structured like the logits."""
    if reduction == "mean":
        return total_of(sides, weights)
    if reduction == "sum" and all(segment.a.numel() > 0 for segment in flatten(sides)):
        return total_of(_summed(sides), weights)
    elements = {
        name: [weighted(weights.get(name, 1.0), t) for t in tensors]
        for name, tensors in _elements(sides, outputs).items()
    }
    if reduction == "sum":  # with an empty output, whose mean is NaN and whose sum is 0
        return torch.stack([t.sum() for tensors in elements.values() for t in tensors]).sum()
    if reduction == "sample":
        elements = {name: [_by_sample(t) for t in own] for name, own in elements.items()}
    parts = [
        elements[name] if is_list else elements[name][0]
        for name in ("real", "fake", "paired")
        if name in elements
    ]
    return parts[0] if len(parts) == 1 else tuple(parts)


def _by_sample(elements: Tensor) -> Tensor:
    """[B]: the mean over all but the first dimension."""
    if elements.dim() == 0:
        raise ValueError("reduction: 'sample' needs logits [B, ...], got a 0-d tensor.")
    return elements.flatten(1).mean(1) if elements.dim() > 1 else elements


def check_reduction(reduction: object, output_reduction: object, normalize_by_mask: bool) -> None:
    check_choice("reduction", reduction, ("mean", "sum", *APART))
    if reduction in APART and output_reduction != "sum":
        raise ValueError(
            f"output_reduction: reduction={reduction!r} keeps the outputs apart; leave it out."
        )
    if normalize_by_mask and reduction != "mean":
        raise ValueError(
            f"normalize_by_mask: it is for means; it cannot be combined with reduction="
            f"{reduction!r}."
        )


def masked_sides(
    sides: Sides, masks: dict[str, Mask], loss: Loss, outputs: int, normalize: bool
) -> Sides:
    if check_flag("normalize_by_mask", normalize) and all(m is None for m in masks.values()):
        raise ValueError("normalize_by_mask: there is no mask to normalise by; leave it out.")
    for name, mask in masks.items():
        if mask is None:
            continue
        if loss.relativistic is not None:
            raise ValueError(
                f"{name}: cannot be combined with relativistic={loss.relativistic!r}, whose terms "
                "compare the logits of both sides. Select those that count before: real[keep], "
                "fake[keep]."
            )
        for side in sides if name == "mask" else [name.removesuffix("_mask")]:
            sides = sides | {side: masked(name, mask, sides[side], outputs, normalize)}
    return sides
