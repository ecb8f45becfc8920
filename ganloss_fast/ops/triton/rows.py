"""interpolate and norm_penalty in Triton: kernels over the samples of a batch.

A batch is rows: [batch, length], each row one block of memory. A long row (ROWS == 1) is cut into
`splits` parts, each a run of tiles of COLUMNS elements that one program takes in strides. Short
rows (up to COLUMNS elements) are summed ROWS at a time by one program; kernels that sum nothing
take them end to end, in tiles of COLUMNS.

The tiles of a long row start at a multiple of 16 elements and not at the row itself, so that the
tiles in the middle are loaded 16 bytes at a time for every length; the first and the last are
masked. Tiles end to end are aligned as they are. Sums of short rows of odd length are left with
narrow loads, which neighbouring threads share sectors of.
"""

import triton
import triton.language as tl

from ganloss_fast.ops.triton.multi_tensor_loss import as_scalar, first_tile
from ganloss_fast.ops.triton.penalty import (
    penalty_coefficient,
    penalty_twist,
    penalty_value,
)
from ganloss_fast.ops.triton.reduction import (
    partials_of,
    store_partial,
    sum_partials,
    take_ticket,
)
from ganloss_fast.ops.triton.terms import square_root


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
def rows_end_to_end(tile, batch, length, BLOCK: tl.constexpr):
    """(offsets [BLOCK] of a tile, the row of each, the end of the batch, whether it is whole)."""
    start = tile * BLOCK
    first = start // length
    # In 32 bits: a division in 64 takes several times as long.
    within = (start - first * length).to(tl.int32) + tl.arange(0, BLOCK)
    end = batch.to(tl.int64) * length
    return start + tl.arange(0, BLOCK), first + within // length, end, start + BLOCK <= end


@triton.jit
def load_part(pointer, offsets, begin, end, is_whole, T: tl.constexpr):
    """Elements in the compute dtype; 0 for those that are not in [begin, end)."""
    if is_whole:
        x = tl.load(pointer + offsets)
    else:
        inside = (offsets >= begin) & (offsets < end)
        x = tl.load(pointer + offsets, mask=inside, other=0.0)
    return x.to(T)


@triton.jit
def store_part(pointer, x, offsets, begin, end, is_whole):
    """Writes elements in the dtype of the memory."""
    x = x.to(pointer.dtype.element_ty)
    if is_whole:
        tl.store(pointer + offsets, x)
    else:
        tl.store(pointer + offsets, x, mask=(offsets >= begin) & (offsets < end))


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
def store_combination(out, x, x_scale, y, y_scale, offsets, begin, end, is_whole, T: tl.constexpr):
    """out = x_scale x + y_scale y at the offsets; y may be None."""
    result = x_scale * load_part(x, offsets, begin, end, is_whole, T)
    if y is not None:
        result += y_scale * load_part(y, offsets, begin, end, is_whole, T)
    store_part(out, result, offsets, begin, end, is_whole)


@triton.jit
def scales_of_rows(norms, dots, rows, mask, factor, target, MODE: tl.constexpr):
    """The factors of x and of y in penalty_gradient_kernel; without dots there is no y."""
    norm = tl.load(norms + rows, mask=mask)
    along_x = factor * penalty_coefficient(norm, target, MODE)
    along_y = along_x
    if dots is not None:
        dot = tl.load(dots + rows, mask=mask)
        along_y = factor * penalty_twist(norm, dot, target, MODE)
    return along_x, along_y


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
    IS_LONG: tl.constexpr,  # else rows end to end
    COLUMNS: tl.constexpr,
):
    """The backward: out_i = c coefficient_i g_i, with c = grad_penalty * scale / batch.

    The backward of it, along v: out_i = c (coefficient_i v_i + twist_i <g_i, v_i> g_i).
    """
    target = as_scalar(target, T)
    factor = tl.load(grad_penalty).to(T) * as_scalar(scale, T) / batch.to(T)
    if IS_LONG:
        row, split, base, tiles = long_row(splits, length, COLUMNS)
        begin = row * length
        end = begin + length
        along_x, along_y = scales_of_rows(norms, dots, row, None, factor, target, MODE)
        for tile in range(split, tiles, splits):
            offsets = base + tile * COLUMNS + tl.arange(0, COLUMNS)
            is_whole = (tile > 0) & (tile < tiles - 1)
            store_combination(out, x, along_x, y, along_y, offsets, begin, end, is_whole, T)
    else:
        offsets, rows, end, is_whole = rows_end_to_end(first_tile(), batch, length, COLUMNS)
        along_x, along_y = scales_of_rows(norms, dots, rows, offsets < end, factor, target, MODE)
        store_combination(out, x, along_x, y, along_y, offsets, 0, end, is_whole, T)


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
