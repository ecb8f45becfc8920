"""interpolate and gradient_penalty_loss in Triton: kernels over the samples of a batch.

A batch is rows: [batch, length], each row one block of memory. Short rows (up to COLUMNS
elements) are taken ROWS at a time by one program; a long row (ROWS == 1) is cut into `splits`
parts, each a run of tiles of COLUMNS elements that one program takes in strides.

The tiles of a long row start at a multiple of 16 elements and not at the row itself, so that the
tiles in the middle are loaded 16 bytes at a time for every length; the first and the last are
masked.
"""

import triton
import triton.language as tl

from ganloss_fast.triton_kernels.multi_tensor_loss import as_scalar
from ganloss_fast.triton_kernels.penalty import (
    penalty_coefficient,
    penalty_twist,
    penalty_value,
)
from ganloss_fast.triton_kernels.reduction import (
    partials_of,
    store_partial,
    sum_partials,
    take_ticket,
)
from ganloss_fast.triton_kernels.terms import square_root


@triton.jit
def short_rows(batch, length, ROWS: tl.constexpr, COLUMNS: tl.constexpr):
    """(rows [ROWS], their mask, offsets [ROWS, COLUMNS], their mask) of this program."""
    rows = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    columns = tl.arange(0, COLUMNS)
    inside = (rows < batch)[:, None] & (columns < length)[None, :]
    return rows, rows < batch, rows[:, None] * length + columns[None, :], inside


@triton.jit
def long_row(splits, length, COLUMNS: tl.constexpr):
    """(row, split, first element of its tiles, number of tiles) of this program."""
    program = tl.program_id(0)
    row = (program // splits).to(tl.int64)
    start = row * length
    base = start // 16 * 16
    return row, program % splits, base, tl.cdiv(start + length - base, COLUMNS)


@triton.jit
def is_inside(offsets, row, length):
    return (offsets >= row * length) & (offsets < (row + 1) * length)


@triton.jit
def product(x, y, offsets, mask, T: tl.constexpr):
    """x * y at the offsets, x^2 where y is None; 0 outside the mask."""
    left = tl.load(x + offsets, mask=mask).to(T)
    if y is None:
        result = left * left
    else:
        result = left * tl.load(y + offsets, mask=mask).to(T)
    if mask is not None:
        result = tl.where(mask, result, 0.0)
    return result


@triton.jit
def finish_rows(
    dots,  # [rows]: <x_i, y_i>
    rows,  # [rows] indices of the samples
    mask,  # [rows]
    norms,  # [batch] or None
    results,  # [batch]
    target,
    MODE: tl.constexpr,
):
    """Stores what is kept of each sample and gives its share of the sum over samples.

    Without norms, the dots are squared norms: keeps the norm, gives the penalty. With norms, keeps
    the dot <g, v>, gives its coefficient times it.
    """
    if norms is None:
        norm = square_root(dots)
        tl.store(results + rows, norm, mask=mask)
        share = penalty_value(norm, target, MODE)
    else:
        tl.store(results + rows, dots, mask=mask)
        norm = tl.load(norms + rows, mask=mask, other=0.0)
        share = penalty_coefficient(norm, target, MODE) * dots
    return tl.where(mask, share, 0.0)


@triton.jit
def store_scaled_mean(mean, total, scale, batch):
    """mean [] = scale / batch * total"""
    result = as_scalar(scale, total.dtype) * (total / batch.to(total.dtype))
    tl.store(mean, result.to(mean.dtype.element_ty))


@triton.jit(do_not_specialize=["batch", "splits"])
def row_dots_kernel(
    x,  # [batch, length]
    y,  # [batch, length], or None: x itself
    norms,  # [batch], or None in the forward: see finish_rows
    results,  # [batch]
    mean,  # []
    workspace,  # int32, see reduction.py; None for a single program
    batch,
    length,
    splits,
    target: tl.float64,
    scale: tl.float64,
    MODE: tl.constexpr,
    SPLIT: tl.constexpr,  # splits > 1: a sample is summed by several programs
    T: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    PARTIALS_BLOCK: tl.constexpr,
    SPLITS_BLOCK: tl.constexpr,
):
    """results_i from <x_i, y_i>, and mean = scale / batch * the sum of the shares of samples."""
    target = as_scalar(target, T)
    if ROWS == 1:
        row, split, base, tiles = long_row(splits, length, COLUMNS)
        sums = tl.zeros((COLUMNS,), T)
        for tile in range(split, tiles, splits):
            offsets = base + tile * COLUMNS + tl.arange(0, COLUMNS)
            if (tile > 0) & (tile < tiles - 1):
                sums += product(x, y, offsets, None, T)
            else:
                sums += product(x, y, offsets, is_inside(offsets, row, length), T)
        rows = row + tl.arange(0, 1)
        is_row = rows < batch
        dots = tl.zeros((1,), T) + tl.sum(sums, 0)
    else:
        rows, is_row, offsets, inside = short_rows(batch, length, ROWS, COLUMNS)
        dots = tl.sum(product(x, y, offsets, inside, T), 1)

    if SPLIT:
        store_partial(workspace, 0, tl.sum(dots, 0))
        if take_ticket(workspace):
            partials = partials_of(workspace, T)
            SAMPLES: tl.constexpr = PARTIALS_BLOCK // SPLITS_BLOCK
            parts = tl.arange(0, SPLITS_BLOCK)
            shares = tl.zeros((SAMPLES,), T)
            for start in range(0, batch, SAMPLES):
                samples = start + tl.arange(0, SAMPLES)
                is_sample = samples < batch
                is_part = is_sample[:, None] & (parts < splits)[None, :]
                index = samples[:, None] * splits + parts[None, :]
                totals = tl.sum(tl.load(partials + index, mask=is_part, other=0.0), 1)
                shares += finish_rows(totals, samples, is_sample, norms, results, target, MODE)
            store_scaled_mean(mean, tl.sum(shares, 0), scale, batch)
    else:
        share = tl.sum(finish_rows(dots, rows, is_row, norms, results, target, MODE), 0)
        if workspace is None:
            store_scaled_mean(mean, share, scale, batch)
        else:
            store_partial(workspace, 0, share)
            if take_ticket(workspace):
                shares = sum_partials(workspace, 0, T, PARTIALS_BLOCK)
                store_scaled_mean(mean, shares, scale, batch)


@triton.jit
def combination(x, x_scale, y, y_scale, offsets, mask, T: tl.constexpr):
    """x_scale x + y_scale y at the offsets; y may be None."""
    result = x_scale * tl.load(x + offsets, mask=mask).to(T)
    if y is not None:
        result += y_scale * tl.load(y + offsets, mask=mask).to(T)
    return result


@triton.jit(do_not_specialize=["batch", "splits"])
def penalty_gradient_kernel(
    x,  # [batch, length]: the gradient g in the backward, the direction v in the one of it
    y,  # [batch, length]: None in the backward, g in the one of it
    norms,  # [batch]: ||g_i||
    dots,  # [batch]: <g_i, v_i>, or None with y
    grad_penalty,  # []
    out,  # [batch, length]
    batch,
    length,
    splits,
    target: tl.float64,
    scale: tl.float64,
    MODE: tl.constexpr,
    T: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    """The backward: out_i = c coefficient_i g_i, with c = grad_penalty * scale / batch.

    The backward of it, along v: out_i = c (coefficient_i v_i + twist_i <g_i, v_i> g_i).
    """
    target = as_scalar(target, T)
    factor = tl.load(grad_penalty).to(T) * as_scalar(scale, T) / batch.to(T)
    if ROWS == 1:
        row, split, base, tiles = long_row(splits, length, COLUMNS)
        norm = tl.load(norms + row)
    else:
        rows, is_row, offsets, inside = short_rows(batch, length, ROWS, COLUMNS)
        norm = tl.load(norms + rows, mask=is_row, other=0.0)[:, None]
    along_x = factor * penalty_coefficient(norm, target, MODE)
    along_y = along_x
    if dots is not None:
        if ROWS == 1:
            dot = tl.load(dots + row)
        else:
            dot = tl.load(dots + rows, mask=is_row, other=0.0)[:, None]
        along_y = factor * penalty_twist(norm, dot, target, MODE)

    if ROWS == 1:
        for tile in range(split, tiles, splits):
            offsets = base + tile * COLUMNS + tl.arange(0, COLUMNS)
            if (tile > 0) & (tile < tiles - 1):
                result = combination(x, along_x, y, along_y, offsets, None, T)
                tl.store(out + offsets, result.to(out.dtype.element_ty))
            else:
                inside = is_inside(offsets, row, length)
                result = combination(x, along_x, y, along_y, offsets, inside, T)
                tl.store(out + offsets, result.to(out.dtype.element_ty), mask=inside)
    else:
        result = combination(x, along_x, y, along_y, offsets, inside, T)
        tl.store(out + offsets, result.to(out.dtype.element_ty), mask=inside)


@triton.jit
def between(fake, real, alpha):
    """fake + alpha (real - fake), from the nearer end as torch.lerp: both ends are exact."""
    step = real - fake
    return tl.where(alpha < 0.5, fake + alpha * step, real - (1.0 - alpha) * step)


@triton.jit
def interpolated(
    real, fake, alpha, alpha_of_row, offsets, mask, PER_ELEMENT: tl.constexpr, T: tl.constexpr
):
    if PER_ELEMENT:
        share = tl.load(alpha + offsets, mask=mask).to(T)
    else:
        share = alpha_of_row
    towards = tl.load(real + offsets, mask=mask).to(T)
    return between(tl.load(fake + offsets, mask=mask).to(T), towards, share)


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
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    """out = fake + alpha (real - fake)."""
    if ROWS == 1:
        row, split, base, tiles = long_row(splits, length, COLUMNS)
        share = tl.zeros((), T)
        if not PER_ELEMENT:
            share = tl.load(alpha + row).to(T)
        for tile in range(split, tiles, splits):
            offsets = base + tile * COLUMNS + tl.arange(0, COLUMNS)
            if (tile > 0) & (tile < tiles - 1):
                result = interpolated(real, fake, alpha, share, offsets, None, PER_ELEMENT, T)
                tl.store(out + offsets, result.to(out.dtype.element_ty))
            else:
                inside = is_inside(offsets, row, length)
                result = interpolated(real, fake, alpha, share, offsets, inside, PER_ELEMENT, T)
                tl.store(out + offsets, result.to(out.dtype.element_ty), mask=inside)
    else:
        rows, is_row, offsets, inside = short_rows(batch, length, ROWS, COLUMNS)
        share = tl.zeros((), T)
        if not PER_ELEMENT:
            share = tl.load(alpha + rows, mask=is_row, other=0.0).to(T)[:, None]
        result = interpolated(real, fake, alpha, share, offsets, inside, PER_ELEMENT, T)
        tl.store(out + offsets, result.to(out.dtype.element_ty), mask=inside)
