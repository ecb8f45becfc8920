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

from ganloss_fast.ops.terms import HAS_B, HAS_WEIGHT, TERM_NAMES, SegmentLists, result_dtype
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
from ganloss_fast.ops.triton.segment_arguments import Segment, launches
from ganloss_fast.ops.triton.terms import TERM_FUNCTIONS

TERMS = [TERM_FUNCTIONS[name] for name in TERM_NAMES]


def dense_segments(segments: SegmentLists) -> list[Segment]:
    check_segments(segments)
    a, b, weights, operands, terms, parameters, scale = segments
    next_b, next_weight = iter(b), iter(weights)
    found = []
    for s, taken in enumerate(operands):
        elements = dense(a[s])
        other = weight = None
        if taken & HAS_B:
            other = next(next_b)
            other = in_layout_of(other, elements) if other.dim() > 0 else other.resolve_neg()
        if taken & HAS_WEIGHT:
            weight = in_layout_of(next(next_weight), elements)
        found.append(
            Segment(
                s,
                TERMS[terms[s]],
                parameters[2 * s],
                parameters[2 * s + 1],
                scale[s],
                elements,
                other,
                weight,
            )
        )
    return found


def launch(
    kernel: Any,
    segments: Sequence[Segment],
    sums: int,
    given: SegmentLists,
    *arguments: Tensor | int | None,
) -> None:
    """Launches a kernel on segments of the list, each of which adds up `sums` numbers at most."""
    a, size, dtype = given.a[0], len(given.a), result_dtype(given.a)
    with torch.cuda.device_of(a):
        for follows, (groups, kinds, count, programs) in enumerate(launches(segments, dtype)):
            workspace = None
            if sums > 0 and programs > 1:
                workspace = zeroed_workspace(sums * programs + size, 1 + size, a.device)
            kernel[(programs,)](
                groups,
                workspace,
                *arguments,
                follows,
                size,
                KINDS=kinds,
                L=COMPUTE_DTYPES[dtype],
                SEGMENTS=count,
                BLOCK=BLOCK,
                PARTIALS_BLOCK=MAX_PROGRAMS,
                num_warps=NUM_WARPS,
            )


def multi_tensor_loss(*arguments: Any) -> tuple[Tensor, Tensor, Tensor]:
    """-> total [], values [S], statistics [S, 4] or [0, 4]"""
    *lists, with_statistics = arguments
    given = SegmentLists(*lists)
    a, segments = given.a, dense_segments(given)
    dtype = result_dtype(a)
    total = a[0].new_empty((), dtype=dtype)
    values = a[0].new_empty((len(a),), dtype=dtype)
    statistics = a[0].new_empty((len(a) if with_statistics else 0, 4), dtype=dtype)
    launch(
        kernels.term_mean_kernel,
        segments,
        5 if with_statistics else 1,
        given,
        values,
        total,
        statistics if with_statistics else None,
    )
    return total, values, statistics


A, B = 0, 1
Operands = tuple[list[Tensor | None], list[Tensor | None]]
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


def nothing_for(segments: list[Segment]) -> Operands:
    return [None] * len(segments), [None] * len(segments)


def allocate(
    name: str, segments: list[Segment], operands: Sequence[int], wanted: Sequence[int]
) -> tuple[list[Tensor], Operands]:
    """The wanted gradients: as the list to return, and by side and segment."""
    gradients, to = [], nothing_for(segments)
    for s, side in each_wanted(name, operands, wanted):
        like, b = segments[s].a, segments[s].b
        if side == B and b is not None and b.dim() == 0:
            like = b
        gradient = torch.empty_like(like)
        to[side][s] = gradient
        gradients.append(gradient)
    return gradients, to


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
    a, segments = given.a, dense_segments(given)
    coming = incoming(grad_total, grad_values, a)
    gradients, (to_a, to_b) = allocate("wanted", segments, given.operands, wanted)
    asked = [
        segment._replace(to_a=for_a, to_b=for_b)
        for segment, for_a, for_b in zip(segments, to_a, to_b)
        if for_a is not None or for_b is not None
    ]
    if asked:
        launch(
            kernels.term_gradient_kernel,
            asked,
            int(any(s.b_is_scalar and s.to_b is not None for s in asked)),
            given,
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
    a, segments = given.a, dense_segments(given)
    coming = incoming(grad_total, grad_values, a)
    if len(directions) != len(wanted):
        raise ValueError(
            f"directions: expected {len(wanted)} tensors, one for each entry of wanted, got "
            f"{len(directions)}"
        )
    along = nothing_for(segments)
    for direction, (s, side) in zip(directions, each_wanted("wanted", given.operands, wanted)):
        elements = segments[s].a
        if side == B and segments[s].b_is_scalar:
            check_shape("directions", direction, (), elements)
            along[side][s] = direction.resolve_neg()
        else:
            check_same("directions", direction, elements)
            along[side][s] = in_layout_of(direction, elements)

    gradients, (to_a, to_b) = allocate("wanted_second", segments, given.operands, wanted_second)
    dtype = result_dtype(a)
    grad_grad_total = a[0].new_empty((), dtype=dtype)
    grad_grad_values = a[0].new_empty((len(a),), dtype=dtype)
    launch(
        kernels.term_curvature_kernel,
        [
            segment._replace(va=along[A][s], vb=along[B][s], to_a=to_a[s], to_b=to_b[s])
            for s, segment in enumerate(segments)
        ],
        2,
        given,
        coming.total,
        coming.values,
        grad_grad_values,
        grad_grad_total,
        coming.stride,
    )
    return grad_grad_total, grad_grad_values, gradients
