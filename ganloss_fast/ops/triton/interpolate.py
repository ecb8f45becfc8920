"""interpolate in Triton: the formula of ``csrc/math/interpolation.h``."""

import torch
import triton
import triton.language as tl
from torch import Tensor

from ganloss_fast.ops.triton.checks import check_operand, check_same
from ganloss_fast.ops.triton.layout import (
    COMPUTE_DTYPES,
    NUM_WARPS,
    dense,
    dense_by_sample,
    elementwise_geometry,
    in_layout_of,
    restore_layout,
    rows_of,
)
from ganloss_fast.ops.triton.rows import load_part, long_row, rows_end_to_end, store_part
from ganloss_fast.ops.triton.tiles import first_tile

# ---- kernels -------------------------------------------------------------------------------------


@triton.jit
def between(fake, real, alpha):
    """fake + alpha (real - fake), from the nearer end as torch.lerp: both ends are exact."""
    step = real - fake
    return tl.where(alpha < 0.5, fake + alpha * step, real - (1.0 - alpha) * step)


@triton.jit
def store_interpolated(
    out,
    real,
    fake,
    alpha,
    share,
    offsets,
    begin,
    end,
    is_whole,
    PER_ELEMENT: tl.constexpr,
    T: tl.constexpr,
):
    """out = fake + share (real - fake) at the offsets; the share is alpha's own if PER_ELEMENT."""
    if PER_ELEMENT:
        share = load_part(alpha, offsets, begin, end, is_whole, T)
    towards = load_part(real, offsets, begin, end, is_whole, T)
    result = between(load_part(fake, offsets, begin, end, is_whole, T), towards, share)
    store_part(out, result, offsets, begin, end, is_whole)


@triton.jit(do_not_specialize=["batch", "splits"])
def interpolate_kernel(
    real,  # [batch, length]
    fake,  # [batch, length]
    alpha,  # [batch], or [batch, length] if PER_ELEMENT
    out,  # [batch, length]
    batch,
    length,
    splits,
    PER_ELEMENT: tl.constexpr,
    T: tl.constexpr,
    IS_LONG: tl.constexpr,  # else rows end to end
    COLUMNS: tl.constexpr,
):
    """out = fake + alpha (real - fake)."""
    share = tl.zeros((), T)
    if IS_LONG:
        row, split, base, tiles = long_row(splits, length, COLUMNS)
        begin = row * length
        end = begin + length
        if not PER_ELEMENT:
            share = tl.load(alpha + row).to(T)
        for tile in range(split, tiles, splits):
            offsets = base + tile * COLUMNS + tl.arange(0, COLUMNS)
            is_whole = (tile > 0) & (tile < tiles - 1)
            store_interpolated(
                out, real, fake, alpha, share, offsets, begin, end, is_whole, PER_ELEMENT, T
            )
    else:
        offsets, rows, end, is_whole = rows_end_to_end(first_tile(), batch, length, COLUMNS)
        if not PER_ELEMENT:
            share = tl.load(alpha + rows, mask=offsets < end, other=0.0).to(T)
        store_interpolated(out, real, fake, alpha, share, offsets, 0, end, is_whole, PER_ELEMENT, T)


# ---- launchers -----------------------------------------------------------------------------------


def interpolate(real: Tensor, fake: Tensor, alpha: Tensor) -> Tensor:
    """alpha: [], [B] or the shape of real."""
    check_operand("real", real, real)
    check_same("fake", fake, real)
    check_operand("alpha", alpha, real)
    per_sample = alpha.dim() == 1 and real.dim() >= 1 and alpha.shape[0] == real.shape[0]
    per_element = not per_sample and alpha.dim() > 0
    if per_element and alpha.shape != real.shape:
        raise ValueError(
            "alpha: expected a 0-d tensor, one value for each of the "
            f"{real.shape[0] if real.dim() else 1} samples, or shape {list(real.shape)}, got "
            f"{list(alpha.shape)}"
        )
    r = dense_by_sample(real) if per_sample else dense(real)
    f = in_layout_of(fake, r)
    alpha = in_layout_of(alpha, r) if per_element else alpha.resolve_neg().contiguous()
    out = torch.empty_like(r)
    if out.numel() == 0:
        return restore_layout(out, r, real)
    geometry = elementwise_geometry(*(rows_of(r) if per_sample else (1, r.numel())))
    with torch.cuda.device_of(real):
        interpolate_kernel[(geometry.programs,)](
            r,
            f,
            alpha,
            out,
            geometry.batch,
            geometry.length,
            geometry.splits,
            PER_ELEMENT=per_element,
            T=COMPUTE_DTYPES[r.dtype],
            IS_LONG=geometry.rows == 1,
            COLUMNS=geometry.columns,
            num_warps=NUM_WARPS,
        )
    return restore_layout(out, r, real)
