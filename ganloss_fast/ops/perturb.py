"""perturb: samples with normal noise that depends on a seed and the index alone.

The op, its plain-PyTorch reference, its Python autograd and its fake kernel. The kernels have the
same name in ``csrc/cpu``, ``csrc/cuda`` and ``triton``.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ganloss_fast.ops.dispatch import Kernels, declare, serving
from ganloss_fast.ops.terms import compute_dtype


def perturb(inputs: Tensor, sigma: float, seed: Tensor) -> Tensor:
    """``inputs + sigma * noise``; the noise depends on the int64 seed and the index alone."""
    return (serving(PERTURB, inputs) or perturb_reference)(inputs, sigma, seed)


# ---- reference ---------------------------------------------------------------------------------


def philox(counter: Tensor, key: Tensor) -> Tensor:
    """[N, 4] int64: the 32-bit words of Philox4x32-10 for counters [N, 4] under an int64 key."""
    low = 0xFFFFFFFF
    c0, c1, c2, c3 = counter.unbind(1)
    k0, k1 = key.reshape(()) & low, (key.reshape(()) >> 32) & low
    for _ in range(10):
        # The product of two 32-bit words wraps in int64, but its bits are right.
        p0, p1 = 0xD2511F53 * c0, 0xCD9E8D57 * c2
        c0, c1, c2, c3 = (
            ((p1 >> 32) & low) ^ c1 ^ k0,
            p1 & low,
            ((p0 >> 32) & low) ^ c3 ^ k1,
            p0 & low,
        )
        k0, k1 = (k0 + 0x9E3779B9) & low, (k1 + 0xBB67AE85) & low
    return torch.stack([c0, c1, c2, c3], dim=1)


def words_of_blocks(seed: Tensor, blocks: Tensor) -> Tensor:
    """[N, 4] int64: the random words of the blocks of elements [N]; the block is the counter."""
    zero = torch.zeros_like(blocks)
    return philox(torch.stack([blocks & 0xFFFFFFFF, blocks >> 32, zero, zero], dim=1), seed)


def sine_cosine(turns: Tensor) -> tuple[Tensor, Tensor]:
    """Of a number of full turns in [0, 1]. The nearest quarter is taken off without rounding:
    near the zeros of sine and cosine, 2 pi turns would have lost most of their digits."""
    quarter = (4 * turns + 0.5).to(torch.int64)
    angle = (turns - quarter / 4) * (2 * torch.pi)
    is_odd = quarter % 2 == 1
    sine = torch.where(is_odd, angle.cos(), angle.sin())
    cosine = torch.where(is_odd, angle.sin(), angle.cos())
    return (
        torch.where(quarter & 2 != 0, -sine, sine),
        torch.where((quarter + 1) & 2 != 0, -cosine, cosine),
    )


def normals_of_blocks(seed: Tensor, blocks: Tensor, dtype: torch.dtype) -> Tensor:
    """[N, 4] standard normals: Box-Muller on words 0, 1 and on words 2, 3 of blocks [N]."""
    uniform = words_of_blocks(seed, blocks).to(dtype) * 2.0**-32 + 2.0**-33
    radius = (-2 * uniform[:, 0::2].log()).sqrt()
    sine, cosine = sine_cosine(uniform[:, 1::2])
    return torch.stack([radius * sine, radius * cosine], dim=2).flatten(1)


def normals(seed: Tensor, count: int, dtype: torch.dtype) -> Tensor:
    """[count] standard normals, four to a block."""
    blocks = torch.arange((count + 3) // 4, device=seed.device)
    return normals_of_blocks(seed, blocks, dtype).flatten()[:count]


def perturb_reference(inputs: Tensor, sigma: float, seed: Tensor) -> Tensor:
    """``inputs + sigma * normals``, in row-major order whatever the layout."""
    dtype = compute_dtype(inputs.dtype)
    noise = normals(seed, inputs.numel(), dtype).reshape(inputs.shape)
    return (inputs.to(dtype) + sigma * noise).to(inputs.dtype)


# ---- Python autograd ---------------------------------------------------------------------------


class Perturb(torch.autograd.Function):
    """The noise does not depend on the inputs, so the gradient passes through."""

    @staticmethod
    def forward(ctx: Any, kernels: Kernels, inputs: Tensor, sigma: float, seed: Tensor) -> Tensor:
        ctx.set_materialize_grads(False)
        perturbed: Tensor = kernels.perturb(inputs, sigma, seed)
        return perturbed

    @staticmethod
    def backward(ctx: Any, g: Tensor | None) -> tuple[Tensor | None, ...]:
        return None, g, None, None


def perturb_function(kernels: Kernels, inputs: Tensor, sigma: float, seed: Tensor) -> Tensor:
    """``ganloss_fast::perturb``, with all derivatives."""
    perturbed: Tensor = Perturb.apply(kernels, inputs, sigma, seed)
    return perturbed


# ---- fake kernel -------------------------------------------------------------------------------


def _fake(inputs: Tensor, sigma: float, seed: Tensor) -> Tensor:
    return torch.empty_like(inputs)


PERTURB = declare("perturb", perturb_function, _fake)
