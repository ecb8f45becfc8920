"""multi_tensor_loss in Triton: a list of segments to one launch.

The kernels stand in ``multi_tensor_loss_kernels.py``; how the list gets to them, and when it takes
more than one launch, in ``segment_arguments.py``. Where programs share a sum, the launch is
preceded by a fill of a small workspace with zeros.
"""

from __future__ import annotations

from collections.abc import Sequence
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
    program_counts,
    zeroed_workspace,
)
from ganloss_fast.ops.triton.reduction import MAX_PROGRAMS
from ganloss_fast.ops.triton.segment_arguments import (
    Columns,
    Numbers,
    Operands,
    Tensors,
    chosen,
    launches,
)


def dense_operands(segments: SegmentLists) -> Columns:
    """The segments, their operands in the memory order of a."""
    check_segments(segments)
    a, b, weights, operands, terms, parameters, scale = segments
    dense_a = [dense(elements) for elements in a]
    counts = [elements.numel() for elements in a]
    numbers = Numbers(
        range(len(a)),
        counts,
        program_counts(counts),
        terms,
        parameters[::2],
        parameters[1::2],
        scale,
    )
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
    size: int,
    dtype: torch.dtype,
    *arguments: Tensor | int | None,
) -> None:
    """Launches a kernel on segments of a list of `size`, whose results are of a dtype.

    A segment adds up `sums` numbers at most over its programs.
    """
    with torch.cuda.device_of(operands.a[0]):
        for follows, made in enumerate(launches(operands, numbers, dtype)):
            workspace = None
            if sums > 0 and made.programs > 1:
                workspace = zeroed_workspace(
                    sums * made.programs + size, 1 + size, operands.a[0].device
                )
            kernel[(made.programs,)](
                made.groups,
                workspace,
                *arguments,
                follows,
                size,
                TERMS=made.terms,
                B_IS_SCALAR=made.b_is_scalar,
                NARROW=made.narrow,
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
        len(a),
        dtype,
        values,
        total,
        statistics if with_statistics else None,
    )
    return total, values, statistics


A, B = 0, 1
Place = tuple[int, int]
"""A segment, and A or B: what belongs to its a, or to its b."""


def places_of(name: str, operands: Sequence[int], wanted: Sequence[int]) -> list[Place]:
    """Of indices into a ++ b."""
    size = len(operands)
    with_b = [s for s, taken in enumerate(operands) if taken & HAS_B]
    limit = size + len(with_b)
    for index in wanted:
        if not 0 <= index < limit:
            raise ValueError(f"{name}: expected indices from 0 to {limit - 1}, got {index}")
    return [(k, A) if k < size else (with_b[k - size], B) for k in wanted]


def is_scalar(operands: Operands, place: Place) -> bool:
    """Whether a single element is there, for all of a."""
    s, side = place
    b = operands.b[s] if side == B and operands.b is not None else None
    return b is not None and b.dim() == 0


def empty_gradients(operands: Operands, places: Sequence[Place]) -> tuple[list[Tensor], bool]:
    """(one for each place, whether one of them is a sum)"""
    if operands.b is None:
        return [torch.empty_like(operands.a[s]) for s, _ in places], False
    scalars = [is_scalar(operands, place) for place in places]
    gradients = []
    for (s, _), scalar in zip(places, scalars):
        like = operands.b[s] if scalar else operands.a[s]
        gradients.append(torch.empty_like(like))  # type: ignore[arg-type]
    return gradients, any(scalars)


def by_side(
    places: Sequence[Place], tensors: Sequence[Tensor], size: int
) -> tuple[Tensors | None, Tensors | None]:
    """The tensors of the a and those of the b, as Operands has them."""
    sides: list[list[Tensor | None] | None] = [None, None]
    for (s, side), tensor in zip(places, tensors):
        column = sides[side]
        if column is None:
            column = sides[side] = [None] * size
        column[s] = tensor
    return sides[A], sides[B]


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
    places = places_of("wanted", given.operands, wanted)
    gradients, is_summed = empty_gradients(operands, places)
    to_a, to_b = by_side(places, gradients, len(given.a))
    operands = Operands(*operands[:3], None, None, to_a, to_b)
    asked = {s for s, _ in places}
    if len(asked) < len(given.a):
        operands, numbers = chosen(operands, numbers, sorted(asked))
    if asked:
        launch(
            kernels.term_gradient_kernel,
            operands,
            numbers,
            int(is_summed),
            len(given.a),
            result_dtype(given.a),
            *coming,
        )
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
    directed = places_of("wanted", given.operands, wanted)
    along = []
    for direction, place in zip(directions, directed):
        elements = operands.a[place[0]]
        if is_scalar(operands, place):
            check_shape("directions", direction, (), elements)
            along.append(direction.resolve_neg())
        else:
            check_same("directions", direction, elements)
            along.append(in_layout_of(direction, elements))

    places = places_of("wanted_second", given.operands, wanted_second)
    gradients, _ = empty_gradients(operands, places)
    va, vb = by_side(directed, along, len(a))
    to_a, to_b = by_side(places, gradients, len(a))
    operands = Operands(*operands[:3], va, vb, to_a, to_b)
    grad_grad_total = a[0].new_empty((), dtype=dtype)
    grad_grad_values = a[0].new_empty((len(a),), dtype=dtype)
    launch(
        kernels.term_curvature_kernel,
        operands,
        numbers,
        2,
        len(a),
        dtype,
        coming.total,
        coming.values,
        grad_grad_values,
        grad_grad_total,
        coming.stride,
    )
    return grad_grad_total, grad_grad_values, gradients
