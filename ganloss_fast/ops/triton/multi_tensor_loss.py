"""multi_tensor_loss in Triton: a list of segments to one launch.

The kernels stand in ``multi_tensor_loss_kernels.py``; how the list gets to them, and when it takes
more than one launch, in ``segment_arguments.py``. Where programs share a sum, the launch is
preceded by a fill of a small workspace with zeros.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ganloss_fast.ops.terms import HAS_B, HAS_WEIGHT, SegmentLists, result_dtype
from ganloss_fast.ops.triton import multi_tensor_loss_kernels as kernels
from ganloss_fast.ops.triton.checks import (
    check_incoming,
    check_same,
    check_segments,
    check_shape,
)
from ganloss_fast.ops.triton.layout import (
    BLOCK,
    COMPUTE_DTYPES,
    NUM_WARPS,
    dense,
    in_layout_of,
    zeroed_workspace,
)
from ganloss_fast.ops.triton.reduction import MAX_PROGRAMS
from ganloss_fast.ops.triton.segment_arguments import Numbers, Operands, Tensors, chosen, launches


def dense_operands(segments: SegmentLists) -> tuple[Operands, Numbers]:
    """The segments, their operands in the memory order of a."""
    check_segments(segments)
    a, b, weights, operands, terms, parameters, scale = segments
    dense_a = [dense(elements) for elements in a]
    numbers = Numbers(range(len(a)), terms, parameters[::2], parameters[1::2], scale)
    if not b and not weights:
        return Operands(dense_a, None, None), numbers
    next_b, next_weight = iter(b), iter(weights)
    dense_b: list[Tensor | None] = []
    dense_weights: list[Tensor | None] = []
    for elements, taken in zip(dense_a, operands):
        other = next(next_b) if taken & HAS_B else None
        if other is not None:
            other = in_layout_of(other, elements) if other.dim() > 0 else other.resolve_neg()
        dense_b.append(other)
        weight = in_layout_of(next(next_weight), elements) if taken & HAS_WEIGHT else None
        dense_weights.append(weight)
    return Operands(dense_a, dense_b if b else None, dense_weights if weights else None), numbers


def launch(
    kernel: Any,
    operands: Operands,
    numbers: Numbers,
    sums: int,
    given: SegmentLists,
    *arguments: Tensor | int | None,
) -> None:
    """Launches a kernel on segments of the list, each of which adds up `sums` numbers at most."""
    size, dtype, device = len(given.a), result_dtype(given.a), given.a[0].device
    with torch.cuda.device_of(given.a[0]):
        for follows, made in enumerate(launches(operands, numbers, dtype)):
            workspace = None
            if sums > 0 and made.programs > 1:
                workspace = zeroed_workspace(sums * made.programs + size, 1 + size, device)
            kernel[(made.programs,)](
                made.groups,
                workspace,
                *arguments,
                follows,
                size,
                KINDS=made.kinds,
                L=COMPUTE_DTYPES[dtype],
                SEGMENTS=made.segments,
                BLOCK=BLOCK,
                PARTIALS_BLOCK=MAX_PROGRAMS,
                num_warps=NUM_WARPS,
            )


def multi_tensor_loss(*arguments: Any) -> tuple[Tensor, Tensor, Tensor]:
    """-> total [], values [S], statistics [S, 4] or [0, 4]"""
    *lists, with_statistics = arguments
    given = SegmentLists(*lists)
    a, dtype = given.a, result_dtype(given.a)
    operands, numbers = dense_operands(given)
    total = a[0].new_empty((), dtype=dtype)
    values = a[0].new_empty((len(a),), dtype=dtype)
    statistics = a[0].new_empty((len(a) if with_statistics else 0, 4), dtype=dtype)
    launch(
        kernels.term_mean_kernel,
        operands,
        numbers,
        5 if with_statistics else 1,
        given,
        values,
        total,
        statistics if with_statistics else None,
    )
    return total, values, statistics


A, B = 0, 1
Sides = tuple[list[Tensor | None], list[Tensor | None]]
"""What goes with the a, and with the b, of every segment; None where nobody asked."""


def each_wanted(
    name: str, operands: Sequence[int], wanted: Sequence[int]
) -> Iterator[tuple[int, int]]:
    """(segment, A or B) for every index into a ++ b."""
    with_b = [s for s, taken in enumerate(operands) if taken & HAS_B]
    limit = len(operands) + len(with_b)
    for index in wanted:
        if not 0 <= index < limit:
            raise ValueError(f"{name}: expected indices from 0 to {limit - 1}, got {index}")
        if index < len(operands):
            yield index, A
        else:
            yield with_b[index - len(operands)], B


def nothing_for(segments: Sequence[Any]) -> Sides:
    return [None] * len(segments), [None] * len(segments)


def scalar_b(operands: Operands, s: int) -> Tensor | None:
    """The b of a segment where it is a single element."""
    b = None if operands.b is None else operands.b[s]
    return b if b is not None and b.dim() == 0 else None


def allocate(
    name: str, operands: Operands, taken: Sequence[int], wanted: Sequence[int]
) -> tuple[list[Tensor], Sides]:
    """The wanted gradients: as the list to return, and by side and segment."""
    gradients, to = [], nothing_for(taken)
    for s, side in each_wanted(name, taken, wanted):
        like = scalar_b(operands, s) if side == B else None
        gradient = torch.empty_like(operands.a[s] if like is None else like)
        to[side][s] = gradient
        gradients.append(gradient)
    return gradients, to


def unless_empty(column: Tensors) -> Tensors | None:
    """None for a list of nothing but None, as Operands has it."""
    return column if any(tensor is not None for tensor in column) else None


class Incoming(NamedTuple):
    """The gradients of the total and of the values, as the kernels take them."""

    total: Tensor | None
    values: Tensor | None
    stride: int  # of values, which may be expanded: so nothing is copied


def incoming(
    grad_total: Tensor | None, grad_values: Tensor | None, a: Sequence[Tensor]
) -> Incoming:
    check_incoming(grad_total, grad_values, a)
    return Incoming(
        None if grad_total is None else grad_total.resolve_neg(),
        None if grad_values is None else grad_values.resolve_neg(),
        0 if grad_values is None else grad_values.stride(0),
    )


def multi_tensor_loss_backward(
    grad_total: Tensor | None,
    grad_values: Tensor | None,
    *arguments: Any,
) -> list[Tensor]:
    """Gradients of the tensors of  a ++ b  whose indices are in ``wanted``, in that order."""
    *lists, wanted = arguments
    given = SegmentLists(*lists)
    operands, numbers = dense_operands(given)
    coming = incoming(grad_total, grad_values, given.a)
    gradients, (to_a, to_b) = allocate("wanted", operands, given.operands, wanted)
    operands = operands._replace(to_a=unless_empty(to_a), to_b=unless_empty(to_b))
    asked = [s for s in range(len(to_a)) if to_a[s] is not None or to_b[s] is not None]
    is_summed = any(to_b[s] is not None and scalar_b(operands, s) is not None for s in asked)
    if len(asked) < len(to_a):
        operands, numbers = chosen(operands, asked), chosen(numbers, asked)
    if asked:
        launch(kernels.term_gradient_kernel, operands, numbers, int(is_summed), given, *coming)
    return gradients


def multi_tensor_loss_double_backward(
    directions: Sequence[Tensor],
    grad_total: Tensor | None,
    grad_values: Tensor | None,
    *arguments: Any,
) -> tuple[Tensor, Tensor, list[Tensor]]:
    """-> grad of grad_total [], grad of grad_values [S], gradients of ``wanted_second``"""
    *lists, wanted, wanted_second = arguments
    given = SegmentLists(*lists)
    a, dtype = given.a, result_dtype(given.a)
    operands, numbers = dense_operands(given)
    coming = incoming(grad_total, grad_values, a)
    if len(directions) != len(wanted):
        raise ValueError(
            f"directions: expected {len(wanted)} tensors, one for each entry of wanted, got "
            f"{len(directions)}"
        )
    along = nothing_for(a)
    for direction, (s, side) in zip(directions, each_wanted("wanted", given.operands, wanted)):
        elements = operands.a[s]
        if side == B and scalar_b(operands, s) is not None:
            check_shape("directions", direction, (), elements)
            along[side][s] = direction.resolve_neg()
        else:
            check_same("directions", direction, elements)
            along[side][s] = in_layout_of(direction, elements)

    gradients, to = allocate("wanted_second", operands, given.operands, wanted_second)
    va, vb, to_a, to_b = map(unless_empty, (*along, *to))
    operands = operands._replace(va=va, vb=vb, to_a=to_a, to_b=to_b)
    grad_grad_total = a[0].new_empty((), dtype=dtype)
    grad_grad_values = a[0].new_empty((len(a),), dtype=dtype)
    launch(
        kernels.term_curvature_kernel,
        operands,
        numbers,
        2,
        given,
        coming.total,
        coming.values,
        grad_grad_values,
        grad_grad_total,
        coming.stride,
    )
    return grad_grad_total, grad_grad_values, gradients
