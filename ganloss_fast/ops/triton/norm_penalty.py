"""norm_penalty in Triton, by the formulas of ``csrc/math/penalty.h``.

``norm`` is float32 or float64, never half. ``MODE`` is an index into ``PENALTY_MODES``.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from ganloss_fast.ops.triton.checks import check_penalty, check_penalty_backward, check_same
from ganloss_fast.ops.triton.layout import (
    COMPUTE_DTYPES,
    NUM_WARPS,
    accumulator_of,
    dense_by_sample,
    elementwise_geometry,
    in_layout_of,
    next_power_of_2,
    read_one_by_one,
    restore_layout,
    row_geometry,
    rows_of,
    workspace_for,
)
from ganloss_fast.ops.triton.reduction import (
    MAX_PROGRAMS,
    numbers_of,
    store_partial,
    sum_numbers,
    take_ticket,
    tickets_behind,
)
from ganloss_fast.ops.triton.rows import load_part, long_row, rows_end_to_end, store_part
from ganloss_fast.ops.triton.terms import square_root
from ganloss_fast.ops.triton.tiles import as_scalar, first_tile

# ---- kernels -------------------------------------------------------------------------------------


TWO_SIDED = tl.constexpr(0)
ONE_SIDED = tl.constexpr(1)


@triton.jit
def penalty_value(norm, target, MODE: tl.constexpr):
    """p(n): (n - target)^2, one-sided only above the target. A NaN is kept."""
    excess = norm - target
    if MODE == ONE_SIDED:
        excess = tl.where(excess <= 0.0, 0.0, excess)
    return excess * excess


@triton.jit
def penalty_coefficient(norm, target, MODE: tl.constexpr):
    """p'(n) / n, and 0 at n = 0: a dead sample must not turn the step into NaN."""
    dead = norm == 0.0
    if MODE == ONE_SIDED:
        dead = dead | (norm <= target)
    return tl.where(dead, 0.0, 2.0 - 2.0 * target / tl.where(dead, 1.0, norm))


@triton.jit
def penalty_twist(norm, dot, target, MODE: tl.constexpr):
    """coefficient'(n) / n * <g, v>: the rank-one part of the second derivative; 0 at n = 0.

    Divided step by step: n^3 leaves float32 where n is 1e-13, and <g, v> / n does not.
    """
    dead = norm == 0.0
    if MODE == ONE_SIDED:
        dead = dead | (norm <= target)
    alive = tl.where(dead, 1.0, norm)
    return tl.where(dead, 0.0, (2.0 * target / alive) * (dot / alive) / alive)


@triton.jit
def short_rows(batch, length, ROWS: tl.constexpr, COLUMNS: tl.constexpr):
    """(rows [ROWS], their mask, offsets [ROWS, COLUMNS], their mask) of this program."""
    rows = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    columns = tl.arange(0, COLUMNS)
    inside = (rows < batch)[:, None] & (columns < length)[None, :]
    return rows, rows < batch, rows[:, None] * length + columns[None, :], inside


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
        partials = numbers_of(workspace, T)
        store_partial(partials, 0, tl.sum(dots, 0))
        if take_ticket(tickets_behind(workspace, tl.num_programs(0)), tl.num_programs(0)):
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
            partials = numbers_of(workspace, T)
            store_partial(partials, 0, share)
            if take_ticket(tickets_behind(workspace, tl.num_programs(0)), tl.num_programs(0)):
                shares = sum_numbers(partials, tl.num_programs(0), PARTIALS_BLOCK)
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


# ---- launchers -----------------------------------------------------------------------------------


def launch_row_dots(
    x: Tensor,
    y: Tensor | None,
    norms: Tensor | None,
    results: Tensor,
    mean: Tensor,
    mode: int,
    target: float,
    scale: float,
) -> None:
    """results_i from <x_i, y_i>, and their weighted mean: see row_dots_kernel."""
    geometry = row_geometry(*rows_of(x))
    row_dots_kernel[(geometry.programs,)](
        x,
        y,
        norms,
        results,
        mean,
        workspace_for(geometry.programs, x.device),
        geometry.batch,
        geometry.length,
        geometry.splits,
        float(target),
        float(scale),
        MODE=mode,
        SPLIT=geometry.splits > 1,
        T=COMPUTE_DTYPES[x.dtype],
        ROWS=geometry.rows,
        COLUMNS=geometry.columns,
        num_warps=NUM_WARPS,
        PARTIALS_BLOCK=MAX_PROGRAMS,
        SPLITS_BLOCK=next_power_of_2(geometry.splits),
    )


def launch_penalty_gradient(
    x: Tensor,
    y: Tensor | None,
    norms: Tensor,
    dots: Tensor | None,
    grad_penalty: Tensor,
    mode: int,
    target: float,
    scale: float,
) -> Tensor:
    out = torch.empty_like(x)
    if out.numel() == 0:
        return out
    geometry = elementwise_geometry(*rows_of(x))
    grad_penalty = grad_penalty.resolve_neg()
    penalty_gradient_kernel[(geometry.programs,)](
        x,
        y,
        norms,
        dots,
        grad_penalty,
        out,
        geometry.batch,
        geometry.length,
        geometry.splits,
        float(target),
        float(scale),
        MODE=mode,
        T=COMPUTE_DTYPES[x.dtype],
        IS_LONG=geometry.rows == 1,
        COLUMNS=geometry.columns,
        num_warps=NUM_WARPS,
    )
    return out


def norm_penalty(gradient: Tensor, mode: int, target: float, scale: float) -> tuple[Tensor, Tensor]:
    """gradient [B, ...] -> penalty [], norms [B]"""
    check_penalty(gradient, mode)
    g = dense_by_sample(gradient)
    accumulator = accumulator_of(g)
    penalty = g.new_empty((), dtype=accumulator)
    norms = g.new_empty((g.shape[0],), dtype=accumulator)
    with torch.cuda.device_of(g):
        launch_row_dots(g, None, None, norms, penalty, mode, target, scale)
    return penalty, norms


def norm_penalty_backward(
    grad_penalty: Tensor, gradient: Tensor, norms: Tensor, mode: int, target: float, scale: float
) -> Tensor:
    check_penalty_backward(grad_penalty, gradient, norms, mode)
    g = dense_by_sample(gradient)
    norms = read_one_by_one(norms, accumulator_of(g))
    with torch.cuda.device_of(g):
        out = launch_penalty_gradient(g, None, norms, None, grad_penalty, mode, target, scale)
    return restore_layout(out, g, gradient)


def norm_penalty_double_backward(
    direction: Tensor,
    grad_penalty: Tensor,
    gradient: Tensor,
    norms: Tensor,
    mode: int,
    target: float,
    scale: float,
) -> tuple[Tensor, Tensor]:
    """-> grad of grad_penalty [], grad of gradient [B, ...]

    Two launches: a sample's <g, v> must be complete before its first element is written.
    """
    check_penalty_backward(grad_penalty, gradient, norms, mode)
    check_same("direction", direction, gradient)
    g = dense_by_sample(gradient)
    v = in_layout_of(direction, g)
    norms = read_one_by_one(norms, accumulator_of(g))
    dots = torch.empty_like(norms)
    grad_grad = torch.empty_like(grad_penalty)
    with torch.cuda.device_of(g):
        launch_row_dots(g, v, norms, dots, grad_grad, mode, target, scale)
        out = launch_penalty_gradient(v, g, norms, dots, grad_penalty, mode, target, scale)
    return grad_grad, restore_layout(out, g, gradient)
