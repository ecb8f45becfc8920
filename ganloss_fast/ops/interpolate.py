"""interpolate: points between real and generated samples.

The op, its plain-PyTorch reference, its Python autograd and its fake kernel. The kernels have the
same name in ``csrc/cpu``, ``csrc/cuda`` and ``triton``.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ganloss_fast.ops.dispatch import Kernels, declare, serving
from ganloss_fast.ops.terms import compute_dtype


def interpolate(real: Tensor, fake: Tensor, alpha: Tensor) -> Tensor:
    """``fake + alpha * (real - fake)``; alpha is 0-d, [B], or shaped like the images."""
    return (serving(INTERPOLATE, real) or interpolate_reference)(real, fake, alpha)


# ---- reference ---------------------------------------------------------------------------------


def interpolate_reference(real: Tensor, fake: Tensor, alpha: Tensor) -> Tensor:
    """``fake + alpha (real - fake)``, exact at alpha 0 and 1; alpha is 0-d, [B] or full."""
    dtype = compute_dtype(real.dtype)
    if alpha.dim() == 1:
        alpha = alpha.reshape(-1, *[1] * (real.dim() - 1))
    return torch.lerp(fake.to(dtype), real.to(dtype), alpha.to(dtype)).to(real.dtype)


# ---- Python autograd ---------------------------------------------------------------------------


class Interpolate(torch.autograd.Function):
    """Linear in the samples, so its backward is a few PyTorch ops with all their derivatives."""

    @staticmethod
    def forward(ctx: Any, kernels: Kernels, real: Tensor, fake: Tensor, alpha: Tensor) -> Tensor:
        ctx.set_materialize_grads(False)
        samples = (real, fake) if ctx.needs_input_grad[3] else (None, None)
        ctx.save_for_backward(*samples, alpha)
        ctx.dtype = real.dtype
        points: Tensor = kernels.interpolate(real, fake, alpha)
        return points

    @staticmethod
    def backward(ctx: Any, g: Tensor | None) -> tuple[Tensor | None, ...]:
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
            compute = compute_dtype(ctx.dtype)
            per_element = g.to(compute) * (real.to(compute) - fake.to(compute))
            to_alpha = per_element.sum_to_size(weight.shape).view_as(alpha).to(alpha.dtype)
        return None, to_real, to_fake, to_alpha


def interpolate_function(kernels: Kernels, real: Tensor, fake: Tensor, alpha: Tensor) -> Tensor:
    """``ganloss_fast::interpolate``, with all derivatives."""
    points: Tensor = Interpolate.apply(kernels, real, fake, alpha)
    return points


# ---- fake kernel -------------------------------------------------------------------------------


def _fake(real: Tensor, fake: Tensor, alpha: Tensor) -> Tensor:
    return torch.empty_like(real)


INTERPOLATE = declare("interpolate", interpolate_function, _fake)
