"""norm_penalty: the penalty on the 2-norm of every sample of a gradient.

The op, its plain-PyTorch reference, its Python autograd and its fake kernels. The kernels have the
same name in ``csrc/cpu``, ``csrc/cuda`` and ``triton``.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ganloss_fast.ops.dispatch import Kernels, declare, refuse_third_order, serving
from ganloss_fast.ops.terms import compute_dtype

# A mode's code is its place here. csrc/math/penalty.h has the same names; a test compares them.
PENALTY_MODES = ("two_sided", "one_sided")


def norm_penalty(gradient: Tensor, mode: str, target: float, scale: float) -> tuple[Tensor, Tensor]:
    """``scale * mean_i penalty(||g_i||)`` and the detached norms [B] of a gradient [B, ...]."""
    kernel = serving(NORM_PENALTY, gradient)
    if kernel is None:
        return norm_penalty_reference(gradient, mode, target, scale)
    result: tuple[Tensor, Tensor] = kernel(gradient, PENALTY_MODES.index(mode), target, scale)
    return result


# ---- reference ---------------------------------------------------------------------------------


def sample_norms(gradient: Tensor) -> Tensor:
    """[B]: the 2-norm of every sample, with derivatives 0 where it is 0."""
    g = gradient.to(compute_dtype(gradient.dtype))
    squared_norms = g.flatten(1).square().sum(1) if g.dim() > 1 else g.square()
    is_zero = squared_norms == 0
    return torch.where(is_zero, 0.0, torch.where(is_zero, 1.0, squared_norms).sqrt())


def norm_penalty_reference(
    gradient: Tensor, mode: str, target: float, scale: float
) -> tuple[Tensor, Tensor]:
    """``scale * mean_i (n_i - target)^2`` (two-sided) or of ``max(0, n_i - target)^2``."""
    norms = sample_norms(gradient)
    excess = norms - target
    if mode == "one_sided":
        excess = torch.where(excess <= 0, 0.0, excess)
    # A sample with norm 0 adds its penalty and no gradient.
    return scale * excess.square().mean(), norms.detach()


# ---- Python autograd ---------------------------------------------------------------------------


class NormPenaltyForward(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, kernels: Kernels, gradient: Tensor, mode: int, target: float, scale: float
    ) -> tuple[Tensor, Tensor]:
        ctx.set_materialize_grads(False)
        penalty, norms = kernels.norm_penalty(gradient, mode, target, scale)
        ctx.kernels, ctx.penalty = kernels, (mode, target, scale)
        ctx.save_for_backward(gradient, norms)
        ctx.mark_non_differentiable(norms)
        return penalty, norms

    @staticmethod
    def backward(ctx: Any, grad_penalty: Tensor | None, _: Any) -> tuple[Tensor | None, ...]:
        if grad_penalty is None:
            return None, None, None, None, None
        gradient, norms = ctx.saved_tensors
        result = NormPenaltyBackward.apply(ctx.kernels, grad_penalty, gradient, norms, *ctx.penalty)
        return None, result, None, None, None


class NormPenaltyBackward(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        kernels: Kernels,
        grad_penalty: Tensor,
        gradient: Tensor,
        norms: Tensor,
        mode: int,
        target: float,
        scale: float,
    ) -> Tensor:
        ctx.set_materialize_grads(False)
        ctx.kernels, ctx.penalty = kernels, (mode, target, scale)
        ctx.save_for_backward(grad_penalty, gradient, norms)
        result: Tensor = kernels.norm_penalty_backward(
            grad_penalty, gradient, norms, mode, target, scale
        )
        return result

    @staticmethod
    def backward(ctx: Any, direction: Tensor | None) -> tuple[Tensor | None, ...]:
        if direction is None:
            return (None,) * 7
        grad_grad_penalty, second = NormPenaltyDoubleBackward.apply(
            ctx.kernels, direction, *ctx.saved_tensors, *ctx.penalty
        )
        return None, grad_grad_penalty, second, None, None, None, None


class NormPenaltyDoubleBackward(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        kernels: Kernels,
        direction: Tensor,
        grad_penalty: Tensor,
        gradient: Tensor,
        norms: Tensor,
        mode: int,
        target: float,
        scale: float,
    ) -> tuple[Tensor, Tensor]:
        result: tuple[Tensor, Tensor] = kernels.norm_penalty_double_backward(
            direction, grad_penalty, gradient, norms, mode, target, scale
        )
        return result

    @staticmethod
    def backward(ctx: Any, *_: Any) -> None:
        refuse_third_order("norm_penalty")


def norm_penalty_function(
    kernels: Kernels, gradient: Tensor, mode: int, target: float, scale: float
) -> tuple[Tensor, Tensor]:
    """``ganloss_fast::norm_penalty``, differentiable to second order."""
    result: tuple[Tensor, Tensor] = NormPenaltyForward.apply(kernels, gradient, mode, target, scale)
    return result


# ---- fake kernels ------------------------------------------------------------------------------


def _fake(gradient: Tensor, mode: int, target: float, scale: float) -> tuple[Tensor, Tensor]:
    dtype = compute_dtype(gradient.dtype)
    return (
        gradient.new_empty((), dtype=dtype),
        gradient.new_empty((gradient.shape[0],), dtype=dtype),
    )


def _fake_backward(
    grad_penalty: Tensor, gradient: Tensor, norms: Tensor, mode: int, target: float, scale: float
) -> Tensor:
    return torch.empty_like(gradient)


def _fake_double_backward(
    direction: Tensor,
    grad_penalty: Tensor,
    gradient: Tensor,
    norms: Tensor,
    mode: int,
    target: float,
    scale: float,
) -> tuple[Tensor, Tensor]:
    return torch.empty_like(grad_penalty), torch.empty_like(gradient)


NORM_PENALTY = declare(
    "norm_penalty", norm_penalty_function, _fake, _fake_backward, _fake_double_backward
)
