"""multi_tensor_loss: the weighted means of one list of segments, in one call.

The op, its plain-PyTorch reference, its Python autograd and its fake kernels. The kernels have the
same name in ``csrc/cpu``, ``csrc/cuda`` and ``triton``.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor

from ganloss_fast import backends
from ganloss_fast.checks import is_unsavable, savable
from ganloss_fast.ops.dispatch import Kernels, declare, refuse_third_order, serving
from ganloss_fast.ops.terms import (
    HAS_B,
    HAS_WEIGHT,
    TERM_FUNCTIONS,
    TERM_NAMES,
    LossOutputs,
    Segment,
    SegmentLists,
    SideOfLoss,
    compute_dtype,
    result_dtype,
)

if backends.HAS_NATIVE:  # takes the segments as they are: less Python in front of small losses
    from ganloss_fast._C import multi_tensor_loss as _multi_tensor_loss_eager
    from ganloss_fast._C import total_of_sides as _total_of_sides_eager


def multi_tensor_loss(segments: list[Segment], with_statistics: bool = False) -> LossOutputs:
    """Sum of ``scale * mean(weight * term(a - b))`` over segments, in one call.

    See :mod:`ganloss_fast.ops.terms`. Gradients flow to every ``a`` and ``b``, to second order.
    """
    if torch.compiler.is_compiling():
        return _dispatched(segments, with_statistics)
    try:
        if not backends.is_native(segments[0].a):
            return _dispatched(segments, with_statistics)
        return LossOutputs._make(_multi_tensor_loss_eager(segments, with_statistics))
    except RuntimeError:
        # Autograd saves no tensor that was made under inference mode. Nobody waits to ask for
        # those before something failed.
        savable_segments = [_savable(segment) for segment in segments]
        if all(new is old for new, old in zip(savable_segments, segments)):
            raise
        return multi_tensor_loss(savable_segments, with_statistics)


def total_of_sides(*sides: SideOfLoss) -> Tensor | None:
    """The total of ``multi_tensor_loss`` for the segments that the sides stand for, without
    building them; that takes longer than to read small logits.

    None where it has to be done the long way, which also says what is wrong: with logits that are
    no dense floating-point tensors on one device, with a label map, with another backend, under
    torch.compile.
    """
    if torch.compiler.is_compiling():
        return None
    outputs = sides[0][0]
    first = outputs[0] if type(outputs) in (list, tuple) and outputs else outputs
    if type(first) is not Tensor or not backends.is_native(first):
        return None
    try:
        return _total_of_sides_eager(sides)
    except RuntimeError:  # made under inference mode, say: the long way mends that, or raises
        return None


def _dispatched(segments: list[Segment], with_statistics: bool) -> LossOutputs:
    kernel = serving(MULTI_TENSOR_LOSS, segments[0].a)
    if kernel is None:
        return multi_tensor_loss_reference(segments, with_statistics)
    return LossOutputs(*kernel(*flatten_segments(segments), with_statistics))


def _savable(segment: Segment) -> Segment:
    """The segment, with copies of what was made under inference mode."""
    others = (segment.b, segment.weight)
    if not any(t is not None and is_unsavable(t) for t in (segment.a, *others)):
        return segment
    b, weight = (None if t is None else savable(t) for t in others)
    return segment._replace(a=savable(segment.a), b=b, weight=weight)


def flatten_segments(segments: Sequence[Segment]) -> SegmentLists:
    """The segments as the op's schema takes them: dense lists, and which operands are there."""
    return SegmentLists(
        a=[s.a for s in segments],
        b=[s.b for s in segments if s.b is not None],
        weights=[s.weight for s in segments if s.weight is not None],
        operands=[
            HAS_B * (s.b is not None) + HAS_WEIGHT * (s.weight is not None) for s in segments
        ],
        terms=[s.term.code for s in segments],
        parameters=[p for s in segments for p in (s.term.first, s.term.second)],
        scale=[s.scale for s in segments],
    )


def refuse_weight_gradient(weights: Iterable[Tensor]) -> None:
    """Says, as the C++ node does, what would otherwise be a gradient left out."""
    if torch.is_grad_enabled() and any(weight.requires_grad for weight in weights):
        raise NotImplementedError(
            "weights: no gradient flows to the weights of a segment, but one of them requires "
            "grad. Detach it, or multiply the logits yourself."
        )


# ---- reference ---------------------------------------------------------------------------------


def segment_elements(segment: Segment) -> Tensor:
    """weight * term(a - b), element by element; shaped like a."""
    dtype = compute_dtype(segment.a.dtype)
    z = segment.a.to(dtype)
    if segment.b is not None:
        z = z - segment.b.to(dtype)
    code, first, second = segment.term
    phi = TERM_FUNCTIONS[TERM_NAMES[code]]
    if segment.weight is None:
        return phi(z, first, second)
    refuse_weight_gradient([segment.weight])
    weight = segment.weight.to(dtype)
    z = torch.where(weight == 0, 0.0, z)  # a masked inf is not NaN, nor is its gradient
    return weight * phi(z, first, second)


def segment_value(segment: Segment) -> Tensor:
    """mean(weight * term(a - b)) of one segment."""
    return segment_elements(segment).mean()


def segment_statistics(a: Tensor) -> Tensor:
    """[4]: mean, standard deviation, mean sign and non-finite count of a segment."""
    x = a.detach().to(compute_dtype(a.dtype))
    signs = (x > 0).to(x.dtype) - (x < 0).to(x.dtype)
    nonfinite = x.isfinite().logical_not().sum().to(x.dtype)
    return torch.stack([x.mean(), (x - x.mean()).square().mean().sqrt(), signs.mean(), nonfinite])


def multi_tensor_loss_reference(
    segments: Sequence[Segment], with_statistics: bool = False
) -> LossOutputs:
    """Sum of ``scale * mean(weight * term(a - b))``; see :mod:`ganloss_fast.ops.terms`."""
    dtype = result_dtype(segment.a for segment in segments)
    values = torch.stack([segment_value(segment).to(dtype) for segment in segments])
    scaled = [segment.scale * value for segment, value in zip(segments, values.unbind())]
    if with_statistics:
        rows = [segment_statistics(segment.a).to(dtype) for segment in segments]
        statistics = torch.stack(rows)
    else:
        statistics = values.new_empty((0, 4))
    return LossOutputs(torch.stack(scaled).sum(), values, statistics)


# ---- Python autograd ---------------------------------------------------------------------------


class MultiTensorLossForward(torch.autograd.Function):
    """``segments`` come without their tensors, which autograd has to see one by one."""

    @staticmethod
    def forward(
        ctx: Any,
        kernels: Kernels,
        segments: SegmentLists,
        with_statistics: bool,
        *tensors: Tensor,
    ) -> tuple[Tensor, Tensor, Tensor]:
        ctx.set_materialize_grads(False)
        ctx.kernels, ctx.segments = kernels, segments
        ctx.save_for_backward(*tensors)
        total, values, statistics = kernels.multi_tensor_loss(
            *segments.with_tensors(tensors), with_statistics
        )
        ctx.mark_non_differentiable(statistics)
        return total, values, statistics

    @staticmethod
    def backward(
        ctx: Any, grad_total: Tensor | None, grad_values: Tensor | None, _: Any
    ) -> tuple[Tensor | None, ...]:
        tensors = ctx.saved_tensors
        needed = ctx.needs_input_grad[3:]
        gradients: list[Tensor | None] = [None] * len(tensors)
        if grad_total is not None or grad_values is not None:
            wanted = [k for k in range(ctx.segments.differentiable) if needed[k]]
            computed = MultiTensorLossBackward.apply(
                ctx.kernels, ctx.segments, wanted, grad_total, grad_values, *tensors
            )
            for k, gradient in zip(wanted, computed):
                gradients[k] = gradient
        return None, None, None, *gradients


class MultiTensorLossBackward(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        kernels: Kernels,
        segments: SegmentLists,
        wanted: Sequence[int],
        grad_total: Tensor | None,
        grad_values: Tensor | None,
        *tensors: Tensor,
    ) -> tuple[Tensor, ...]:
        ctx.set_materialize_grads(False)
        ctx.kernels, ctx.segments, ctx.wanted = kernels, segments, wanted
        ctx.save_for_backward(grad_total, grad_values, *tensors)
        return tuple(
            kernels.multi_tensor_loss_backward(
                grad_total, grad_values, *segments.with_tensors(tensors), wanted
            )
        )

    @staticmethod
    def backward(ctx: Any, *directions: Tensor | None) -> tuple[Tensor | None, ...]:
        grad_total, grad_values, *tensors = ctx.saved_tensors
        gradients: list[Tensor | None] = [None] * (2 + len(tensors))
        if any(direction is not None for direction in directions):
            directions = tuple(
                torch.zeros_like(tensors[k]) if direction is None else direction
                for k, direction in zip(ctx.wanted, directions)
            )
            needed = ctx.needs_input_grad[5:]
            wanted_second = [k for k in range(ctx.segments.differentiable) if needed[k]]
            grad_grad_total, grad_grad_values, *second = MultiTensorLossDoubleBackward.apply(
                ctx.kernels,
                ctx.segments,
                ctx.wanted,
                wanted_second,
                len(directions),
                grad_total,
                grad_values,
                *directions,
                *tensors,
            )
            if grad_total is not None:
                gradients[0] = grad_grad_total
            if grad_values is not None:
                gradients[1] = grad_grad_values
            for k, gradient in zip(wanted_second, second):
                gradients[2 + k] = gradient
        return None, None, None, *gradients


class MultiTensorLossDoubleBackward(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        kernels: Kernels,
        segments: SegmentLists,
        wanted: Sequence[int],
        wanted_second: Sequence[int],
        direction_count: int,
        grad_total: Tensor | None,
        grad_values: Tensor | None,
        *directions_and_tensors: Tensor,
    ) -> tuple[Tensor, ...]:
        directions = list(directions_and_tensors[:direction_count])
        tensors = directions_and_tensors[direction_count:]
        grad_grad_total, grad_grad_values, second = kernels.multi_tensor_loss_double_backward(
            directions,
            grad_total,
            grad_values,
            *segments.with_tensors(tensors),
            wanted,
            wanted_second,
        )
        return grad_grad_total, grad_grad_values, *second

    @staticmethod
    def backward(ctx: Any, *_: Any) -> None:
        refuse_third_order("multi_tensor_loss")


def multi_tensor_loss_function(kernels: Kernels, *arguments: Any) -> tuple[Tensor, Tensor, Tensor]:
    """``ganloss_fast::multi_tensor_loss``, differentiable to second order in a and b."""
    *lists, with_statistics = arguments
    segments = SegmentLists(*lists)
    refuse_weight_gradient(segments.weights)
    tensors = (*segments.a, *segments.b, *segments.weights)
    result: tuple[Tensor, Tensor, Tensor] = MultiTensorLossForward.apply(
        kernels, segments.without_tensors(), with_statistics, *tensors
    )
    return result


# ---- fake kernels, of the arguments of the schemas ---------------------------------------------


def _fake(*arguments: Any) -> tuple[Tensor, Tensor, Tensor]:
    *lists, with_statistics = arguments
    a = SegmentLists(*lists).a
    dtype = result_dtype(a)
    return (
        a[0].new_empty((), dtype=dtype),
        a[0].new_empty((len(a),), dtype=dtype),
        a[0].new_empty((len(a) if with_statistics else 0, 4), dtype=dtype),
    )


def _fake_gradients(segments: SegmentLists, wanted: Sequence[int]) -> list[Tensor]:
    """Gradients of ``wanted`` of a ++ b: a b shaped like its a takes the layout of a."""
    a, b = segments.a, segments.b
    with_b = [s for s, taken in enumerate(segments.operands) if taken & HAS_B]
    gradients = []
    for index in wanted:
        if index < len(a):
            gradients.append(torch.empty_like(a[index]))
        elif b[index - len(a)].dim() == 0:
            gradients.append(torch.empty_like(b[index - len(a)]))
        else:
            gradients.append(torch.empty_like(a[with_b[index - len(a)]]))
    return gradients


def _fake_backward(
    grad_total: Tensor | None, grad_values: Tensor | None, *arguments: Any
) -> list[Tensor]:
    *lists, wanted = arguments
    return _fake_gradients(SegmentLists(*lists), wanted)


def _fake_double_backward(
    directions: Sequence[Tensor],
    grad_total: Tensor | None,
    grad_values: Tensor | None,
    *arguments: Any,
) -> tuple[Tensor, Tensor, list[Tensor]]:
    *lists, _, wanted_second = arguments
    segments = SegmentLists(*lists)
    a, dtype = segments.a, result_dtype(segments.a)
    total, values = a[0].new_empty((), dtype=dtype), a[0].new_empty((len(a),), dtype=dtype)
    return total, values, _fake_gradients(segments, wanted_second)


MULTI_TENSOR_LOSS = declare(
    "multi_tensor_loss",
    multi_tensor_loss_function,
    _fake,
    _fake_backward,
    _fake_double_backward,
)
