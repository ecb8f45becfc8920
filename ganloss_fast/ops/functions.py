"""The ops as ``torch.autograd.Function`` classes: autograd for kernels that are no registered ops.

They serve in eager where the extension does not: Triton where it could not be built, or Triton by
choice. Each op is a chain of nested classes,

    MultiTensorLoss -> MultiTensorLossBackward -> MultiTensorLossDoubleBackward

and the same for norm_penalty; the last of a chain raises when it is differentiated.
``kernels`` is any namespace of functions with the signatures of the schemas in
``csrc/registration.cpp``, such as ``triton_kernels.launchers``.

Under torch.func and torch.compile such classes lose the second-order term or refuse to run, and a
dispatch mode (FakeTensorMode, a FLOP counter) does not see their kernels. :func:`can_serve` says
when to take the reference instead.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

Kernels = Any  # a module or another namespace of op-level functions


def can_serve(tensor: Tensor) -> bool:
    """Whether this is plain eager PyTorch, where the classes are right."""
    return (
        not torch.compiler.is_compiling()
        and type(tensor) in (Tensor, torch.nn.Parameter)
        and not torch._C._are_functorch_transforms_active()
        and torch._C._len_torch_dispatch_stack() == 0
    )


class SegmentList(NamedTuple):
    """What a multi-tensor loss is told besides its tensors: see ``csrc/segments.h``."""

    a_count: int
    b_count: int
    operands: Sequence[int]  # [S]
    terms: Sequence[int]  # [S]
    parameters: Sequence[float]  # [2 S]
    scale: Sequence[float]  # [S]

    @property
    def differentiable(self) -> int:
        """How many of the tensors a ++ b ++ weights may have a gradient: the first."""
        return self.a_count + self.b_count

    def arguments(self, tensors: Sequence[Tensor]) -> tuple:
        """The segment arguments of an op, from the tensors a ++ b ++ weights."""
        return (
            list(tensors[: self.a_count]),
            list(tensors[self.a_count : self.differentiable]),
            list(tensors[self.differentiable :]),
            self.operands,
            self.terms,
            self.parameters,
            self.scale,
        )


def refuse_third_order(op: str) -> None:
    raise NotImplementedError(
        f"ganloss_fast::{op} has no third-order derivative. Use ganloss_fast.ops.reference for it."
    )


# ---- multi_tensor_loss -------------------------------------------------------------------------


class MultiTensorLoss(torch.autograd.Function):
    @staticmethod
    def forward(ctx, kernels, segments, with_statistics, *tensors):
        ctx.set_materialize_grads(False)
        ctx.kernels, ctx.segments = kernels, segments
        ctx.save_for_backward(*tensors)
        total, values, statistics = kernels.multi_tensor_loss(
            *segments.arguments(tensors), with_statistics
        )
        ctx.mark_non_differentiable(statistics)
        return total, values, statistics

    @staticmethod
    def backward(ctx, grad_total, grad_values, _):
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
    def forward(ctx, kernels, segments, wanted, grad_total, grad_values, *tensors):
        ctx.set_materialize_grads(False)
        ctx.kernels, ctx.segments, ctx.wanted = kernels, segments, wanted
        ctx.save_for_backward(grad_total, grad_values, *tensors)
        return tuple(
            kernels.multi_tensor_loss_backward(
                grad_total, grad_values, *segments.arguments(tensors), wanted
            )
        )

    @staticmethod
    def backward(ctx, *directions):
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
        ctx,
        kernels,
        segments,
        wanted,
        wanted_second,
        direction_count,
        grad_total,
        grad_values,
        *directions_and_tensors,
    ):
        directions = list(directions_and_tensors[:direction_count])
        tensors = directions_and_tensors[direction_count:]
        grad_grad_total, grad_grad_values, second = kernels.multi_tensor_loss_double_backward(
            directions,
            grad_total,
            grad_values,
            *segments.arguments(tensors),
            wanted,
            wanted_second,
        )
        return grad_grad_total, grad_grad_values, *second

    @staticmethod
    def backward(ctx, *_):
        refuse_third_order("multi_tensor_loss")


def multi_tensor_loss(
    kernels: Kernels,
    a: Sequence[Tensor],
    b: Sequence[Tensor],
    weights: Sequence[Tensor],
    operands: Sequence[int],
    terms: Sequence[int],
    parameters: Sequence[float],
    scale: Sequence[float],
    with_statistics: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """``ganloss_fast::multi_tensor_loss``, differentiable to second order in a and b."""
    if torch.is_grad_enabled() and any(weight.requires_grad for weight in weights):
        raise NotImplementedError(
            "weights: no gradient flows to the weights of a segment, but one of them requires "
            "grad. Detach it, or multiply the logits yourself."
        )
    segments = SegmentList(len(a), len(b), operands, terms, parameters, scale)
    return MultiTensorLoss.apply(kernels, segments, with_statistics, *a, *b, *weights)


class LogitMeans(torch.autograd.Function):
    """The means [K] of K tensors, already taken: a gradient for them without reading the data.

    Linear, so its backward is a few PyTorch ops that have every derivative there is.
    """

    @staticmethod
    def forward(ctx, means, *logits):
        ctx.kinds = [(t.shape, t.numel(), t.dtype) for t in logits]
        return means.clone()

    @staticmethod
    def backward(ctx, g):
        gradients: list[Tensor | None] = [None] * len(ctx.kinds)
        for k, (shape, count, dtype) in enumerate(ctx.kinds):
            if ctx.needs_input_grad[1 + k]:
                gradients[k] = (g[k] / max(count, 1)).to(dtype).expand(shape)
        return None, *gradients


# ---- norm_penalty ---------------------------------------------------------------------


class NormPenalty(torch.autograd.Function):
    @staticmethod
    def forward(ctx, kernels, gradient, mode, target, scale):
        ctx.set_materialize_grads(False)
        penalty, norms = kernels.norm_penalty(gradient, mode, target, scale)
        ctx.kernels, ctx.penalty = kernels, (mode, target, scale)
        ctx.save_for_backward(gradient, norms)
        ctx.mark_non_differentiable(norms)
        return penalty, norms

    @staticmethod
    def backward(ctx, grad_penalty, _):
        if grad_penalty is None:
            return None, None, None, None, None
        gradient, norms = ctx.saved_tensors
        result = NormPenaltyBackward.apply(ctx.kernels, grad_penalty, gradient, norms, *ctx.penalty)
        return None, result, None, None, None


class NormPenaltyBackward(torch.autograd.Function):
    @staticmethod
    def forward(ctx, kernels, grad_penalty, gradient, norms, mode, target, scale):
        ctx.set_materialize_grads(False)
        ctx.kernels, ctx.penalty = kernels, (mode, target, scale)
        ctx.save_for_backward(grad_penalty, gradient, norms)
        return kernels.norm_penalty_backward(grad_penalty, gradient, norms, mode, target, scale)

    @staticmethod
    def backward(ctx, direction):
        if direction is None:
            return (None,) * 7
        grad_grad_penalty, second = NormPenaltyDoubleBackward.apply(
            ctx.kernels, direction, *ctx.saved_tensors, *ctx.penalty
        )
        return None, grad_grad_penalty, second, None, None, None, None


class NormPenaltyDoubleBackward(torch.autograd.Function):
    @staticmethod
    def forward(ctx, kernels, direction, grad_penalty, gradient, norms, mode, target, scale):
        return kernels.norm_penalty_double_backward(
            direction, grad_penalty, gradient, norms, mode, target, scale
        )

    @staticmethod
    def backward(ctx, *_):
        refuse_third_order("norm_penalty")


def norm_penalty(
    kernels: Kernels, gradient: Tensor, mode: int, target: float, scale: float
) -> tuple[Tensor, Tensor]:
    """``ganloss_fast::norm_penalty``, differentiable to second order."""
    return NormPenalty.apply(kernels, gradient, mode, target, scale)


# ---- interpolate -------------------------------------------------------------------------------


class Interpolate(torch.autograd.Function):
    """Linear in the samples, so its backward is a few PyTorch ops with all their derivatives."""

    @staticmethod
    def forward(ctx, kernels, real, fake, alpha):
        ctx.set_materialize_grads(False)
        samples = (real, fake) if ctx.needs_input_grad[3] else (None, None)
        ctx.save_for_backward(*samples, alpha)
        ctx.dtype = real.dtype
        return kernels.interpolate(real, fake, alpha)

    @staticmethod
    def backward(ctx, g):
        if g is None:
            return None, None, None, None
        real, fake, alpha = ctx.saved_tensors
        # [B] as it broadcasts against the samples
        weight = alpha.reshape(-1, *[1] * (g.dim() - 1)) if alpha.dim() == 1 else alpha
        to_real = to_fake = to_alpha = None
        if ctx.needs_input_grad[1]:
            to_real = (g * weight).to(ctx.dtype)
        if ctx.needs_input_grad[2]:
            to_fake = (g * (1 - weight)).to(ctx.dtype)
        if ctx.needs_input_grad[3]:
            compute = torch.float64 if ctx.dtype == torch.float64 else torch.float32
            per_element = g.to(compute) * (real.to(compute) - fake.to(compute))
            to_alpha = per_element.sum_to_size(weight.shape).view_as(alpha).to(alpha.dtype)
        return None, to_real, to_fake, to_alpha


def interpolate(kernels: Kernels, real: Tensor, fake: Tensor, alpha: Tensor) -> Tensor:
    """``ganloss_fast::interpolate``, with all derivatives."""
    return Interpolate.apply(kernels, real, fake, alpha)


# ---- perturb -----------------------------------------------------------------------------------


class Perturb(torch.autograd.Function):
    """The noise does not depend on the inputs, so the gradient passes through."""

    @staticmethod
    def forward(ctx, kernels, inputs, sigma, seed):
        ctx.set_materialize_grads(False)
        return kernels.perturb(inputs, sigma, seed)

    @staticmethod
    def backward(ctx, g):
        return None, g, None, None


def perturb(kernels: Kernels, inputs: Tensor, sigma: float, seed: Tensor) -> Tensor:
    """``ganloss_fast::perturb``, with all derivatives."""
    return Perturb.apply(kernels, inputs, sigma, seed)
