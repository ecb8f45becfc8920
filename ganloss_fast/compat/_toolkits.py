"""What the drop-ins of toolkits share: both sides as segments, reduced as the codebase does."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from ganloss_fast.checks import check_choice, check_same_device, check_tensor
from ganloss_fast.losses.reductions import reduced
from ganloss_fast.ops.terms import Segment, compute_dtype

REDUCTIONS = ("mean", "sum", "none")


def reduced_sides(reduction: str, **sides: list[Segment]) -> Tensor:
    """The sum of the sides ``real`` and ``fake``, each reduced alike; elements for "none"."""
    check_choice("reduction", reduction, REDUCTIONS)
    result: Tensor | tuple[Tensor, Tensor] = reduced(sides, 1, {}, reduction, False)
    return result if isinstance(result, Tensor) else result[0] + result[1]


def plainly_reduced(elements: Tensor, reduction: str) -> Tensor:
    """PyTorch's own mean or sum. It saves nothing for its backward, so that what is made of it can
    be walked back in parts, and as a whole too."""
    check_choice("reduction", reduction, REDUCTIONS)
    dtype = compute_dtype(elements.dtype)
    if reduction == "none":
        return elements.to(dtype)
    return elements.mean(dtype=dtype) if reduction == "mean" else elements.sum(dtype=dtype)


def check_pair(names: tuple[str, str], one: object, other: object) -> tuple[Tensor, Tensor]:
    """Two tensors alike in shape and device. Toolkits subtract or add them element by element,
    where [B] against [B, 1] would be a table of B by B."""
    first, second = check_tensor(names[0], one), check_tensor(names[1], other)
    check_same_device(names[1], second, names[0], first)
    if first.shape != second.shape:
        raise ValueError(
            f"{names[1]}: expected the shape of {names[0]}, {list(first.shape)}, got "
            f"{list(second.shape)}."
        )
    return first, second


def at_leaf(points: Tensor, critic: Callable[[Tensor], Tensor]) -> tuple[Tensor, Tensor]:
    """Points that require grad and no graph behind them, and what a critic says of them."""
    leaf = points.detach().requires_grad_()
    return leaf, critic(leaf)


def pulling_away(embeddings: Tensor, axis: int) -> Tensor:
    """[B, B]: the cosines of embeddings that are normalised along an axis."""
    rows = torch.nn.functional.normalize(embeddings, p=2, dim=axis).flatten(1)
    return rows @ rows.T
