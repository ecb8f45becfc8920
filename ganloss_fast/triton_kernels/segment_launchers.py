"""Launchers of multi_tensor_loss: a list of segments to launches of one segment each.

A list costs one launch for each segment and direction, because Triton has no pointer arrays:
10 to 20 microseconds of Python each, where the CUDA C++ kernels launch once for the whole list. A
segment of more than one tile also shares a zeroed ticket, one small fill for the call.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from ganloss_fast.terms import TERM_NAMES
from ganloss_fast.triton_kernels import multi_tensor_loss as kernels
from ganloss_fast.triton_kernels.checks import (
    HAS_B,
    HAS_WEIGHT,
    check_incoming,
    check_same,
    check_segments,
    check_shape,
)
from ganloss_fast.triton_kernels.layout import (
    ACCUMULATORS,
    BLOCK,
    COMPUTE_DTYPES,
    dense,
    in_layout_of,
    program_count,
)
from ganloss_fast.triton_kernels.reduction import MAX_PROGRAMS
from ganloss_fast.triton_kernels.terms import TERM_FUNCTIONS

TERMS = [TERM_FUNCTIONS[name] for name in TERM_NAMES]


class ResolvedSegment(NamedTuple):
    """One segment with its operands in one memory order."""

    position: int  # in the list
    a: Tensor
    b: Tensor | None  # 0-d, or in the layout of a
    weight: Tensor | None  # in the layout of a, in any dtype
    term: triton.JITFunction
    first: float
    second: float
    scale: float

    @property
    def compute_dtype(self) -> tl.dtype:
        return COMPUTE_DTYPES[self.a.dtype]

    @property
    def b_is_scalar(self) -> bool:
        return self.b is not None and self.b.dim() == 0


def resolve(a, b, weights, operands, terms, parameters, scale) -> list[ResolvedSegment]:
    check_segments(a, b, weights, operands, terms, parameters, scale)
    next_b, next_weight = iter(b), iter(weights)
    segments = []
    for s, taken in enumerate(operands):
        elements = dense(a[s])
        other = weight = None
        if taken & HAS_B:
            other = next(next_b)
            other = in_layout_of(other, elements) if other.dim() > 0 else other.resolve_neg()
        if taken & HAS_WEIGHT:
            weight = in_layout_of(next(next_weight), elements)
        segments.append(
            ResolvedSegment(
                s,
                elements,
                other,
                weight,
                TERMS[terms[s]],
                float(parameters[2 * s]),
                float(parameters[2 * s + 1]),
                float(scale[s]),
            )
        )
    return segments


def loss_dtype(a: Sequence[Tensor]) -> torch.dtype:
    return torch.float64 if any(t.dtype == torch.float64 for t in a) else torch.float32


class Workspace:
    """Partial sums and the ticket of one call. The launches of a call follow each other on one
    stream, so they share both; another call, perhaps on another stream, gets its own."""

    def __init__(self, like: Tensor) -> None:
        self.like = like
        self.ticket: Tensor | None = None
        self.buffers: dict[torch.dtype, Tensor] = {}

    def take(self, programs: int, compute_dtype: tl.dtype) -> tuple[Tensor | None, Tensor | None]:
        """(partials, ticket), or None and None for a single program, which needs neither."""
        if programs == 1:
            return None, None
        dtype = ACCUMULATORS[compute_dtype]
        if self.ticket is None:
            self.ticket = torch.zeros((), dtype=torch.int32, device=self.like.device)
        if dtype not in self.buffers:
            self.buffers[dtype] = self.like.new_empty(5 * MAX_PROGRAMS, dtype=dtype)
        return self.buffers[dtype], self.ticket


def launch(kernel, segment: ResolvedSegment, programs: int, *tensors) -> None:
    """Launches a segment kernel with what all of them take after their own tensors."""
    kernel[(programs,)](
        segment.a,
        segment.b,
        segment.weight,
        *tensors,
        segment.position,
        segment.a.numel(),
        segment.scale,
        segment.first,
        segment.second,
        TERM=segment.term,
        B_IS_SCALAR=segment.b_is_scalar,
        T=segment.compute_dtype,
        BLOCK=BLOCK,
        PARTIALS_BLOCK=MAX_PROGRAMS,
    )


def programs_of(segment: ResolvedSegment) -> int:
    return program_count(segment.a.numel())


def multi_tensor_loss(a, b, weights, operands, terms, parameters, scale, with_statistics):
    """-> total [], values [S], statistics [S, 4] or [0, 4]"""
    segments = resolve(a, b, weights, operands, terms, parameters, scale)
    dtype = loss_dtype(a)
    total = a[0].new_empty((), dtype=dtype)
    values = a[0].new_empty((len(a),), dtype=dtype)
    statistics = a[0].new_empty((len(a) if with_statistics else 0, 4), dtype=dtype)
    workspace = Workspace(a[0])
    with torch.cuda.device_of(a[0]):
        for segment in segments:
            programs = programs_of(segment)
            partials, ticket = workspace.take(programs, segment.compute_dtype)
            launch(
                kernels.term_mean_kernel,
                segment,
                programs,
                partials,
                ticket,
                values,
                total,
                statistics if with_statistics else None,
            )
    return total, values, statistics


class Gradients(NamedTuple):
    """Where the gradients of one segment go; None where nobody asked."""

    a: Tensor | None = None
    b: Tensor | None = None


def each_wanted(
    name: str, operands: Sequence[int], wanted: Sequence[int]
) -> Iterator[tuple[int, bool]]:
    """(segment, whether it is the segment's b) for every index into a ++ b."""
    with_b = [s for s, taken in enumerate(operands) if taken & HAS_B]
    limit = len(operands) + len(with_b)
    for index in wanted:
        if not 0 <= index < limit:
            raise ValueError(f"{name}: expected indices from 0 to {limit - 1}, got {index}")
        is_b = index >= len(operands)
        yield (with_b[index - len(operands)] if is_b else index), is_b


def allocate(
    name: str, segments: list[ResolvedSegment], operands: Sequence[int], wanted: Sequence[int]
) -> tuple[list[Tensor], list[Gradients]]:
    """The wanted gradients: as the list to return, and by segment."""
    by_segment = [Gradients() for _ in segments]
    gradients = []
    for s, is_b in each_wanted(name, operands, wanted):
        segment = segments[s]
        like = segment.a
        if is_b and segment.b is not None and segment.b_is_scalar:
            like = segment.b
        gradient = torch.empty_like(like)
        by_segment[s] = by_segment[s]._replace(**{"b" if is_b else "a": gradient})
        gradients.append(gradient)
    return gradients, by_segment


def incoming(
    grad_total: Tensor | None, grad_values: Tensor | None, a: Sequence[Tensor]
) -> tuple[Tensor | None, Tensor | None]:
    """The gradients of the total and of the values, as a kernel may read them."""
    check_incoming(grad_total, grad_values, a)
    return (
        None if grad_total is None else grad_total.resolve_neg(),
        None if grad_values is None else grad_values.resolve_neg(),
    )


def stride_of(grad_values: Tensor | None) -> int:
    """grad_values may be expanded: its stride is passed on, so nothing is copied."""
    return 0 if grad_values is None else grad_values.stride(0)


def multi_tensor_loss_backward(
    grad_total, grad_values, a, b, weights, operands, terms, parameters, scale, wanted
):
    """Gradients of the tensors of  a ++ b  whose indices are in ``wanted``, in that order."""
    segments = resolve(a, b, weights, operands, terms, parameters, scale)
    grad_total, grad_values = incoming(grad_total, grad_values, a)
    gradients, by_segment = allocate("wanted", segments, operands, wanted)
    workspace = Workspace(a[0])
    with torch.cuda.device_of(a[0]):
        for segment, to in zip(segments, by_segment):
            if to.a is None and to.b is None:
                continue
            programs = programs_of(segment)
            partials = ticket = None
            if segment.b_is_scalar and to.b is not None:
                partials, ticket = workspace.take(programs, segment.compute_dtype)
            launch(
                kernels.term_gradient_kernel,
                segment,
                programs,
                grad_total,
                grad_values,
                to.a,
                to.b,
                partials,
                ticket,
                stride_of(grad_values),
            )
    return gradients


def multi_tensor_loss_double_backward(
    directions,
    grad_total,
    grad_values,
    a,
    b,
    weights,
    operands,
    terms,
    parameters,
    scale,
    wanted,
    wanted_second,
):
    """-> grad of grad_total [], grad of grad_values [S], gradients of ``wanted_second``"""
    segments = resolve(a, b, weights, operands, terms, parameters, scale)
    grad_total, grad_values = incoming(grad_total, grad_values, a)
    if len(directions) != len(wanted):
        raise ValueError(
            f"directions: expected {len(wanted)} tensors, one for each entry of wanted, got "
            f"{len(directions)}"
        )
    along = [Gradients() for _ in segments]
    for direction, (s, is_b) in zip(directions, each_wanted("wanted", operands, wanted)):
        elements = segments[s].a
        if is_b and segments[s].b_is_scalar:
            check_shape("directions", direction, (), elements)
            direction = direction.resolve_neg()
        else:
            check_same("directions", direction, elements)
            direction = in_layout_of(direction, elements)
        along[s] = along[s]._replace(**{"b" if is_b else "a": direction})

    gradients, by_segment = allocate("wanted_second", segments, operands, wanted_second)
    dtype = loss_dtype(a)
    grad_grad_total = a[0].new_empty((), dtype=dtype)
    grad_grad_values = a[0].new_empty((len(a),), dtype=dtype)
    workspace = Workspace(a[0])
    with torch.cuda.device_of(a[0]):
        for segment, v, to in zip(segments, along, by_segment):
            programs = programs_of(segment)
            partials, ticket = workspace.take(programs, segment.compute_dtype)
            launch(
                kernels.term_curvature_kernel,
                segment,
                programs,
                v.a,
                v.b,
                grad_total,
                grad_values,
                to.a,
                to.b,
                partials,
                ticket,
                grad_grad_values,
                grad_grad_total,
                stride_of(grad_values),
            )
    return grad_grad_total, grad_grad_values, gradients
