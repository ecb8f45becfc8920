"""Launchers of interpolate, perturb and norm_penalty: a batch to one or two launches."""

from __future__ import annotations

import torch
from torch import Tensor

from ganloss_fast.ops.triton import rows as kernels
from ganloss_fast.ops.triton.checks import (
    check_operand,
    check_penalty,
    check_penalty_backward,
    check_same,
    check_seed,
)
from ganloss_fast.ops.triton.layout import (
    ACCUMULATORS,
    BLOCK,
    COMPUTE_DTYPES,
    NUM_WARPS,
    dense,
    dense_by_sample,
    elementwise_geometry,
    in_layout_of,
    next_power_of_2,
    program_count,
    read_one_by_one,
    restore_layout,
    row_geometry,
    workspace_for,
)
from ganloss_fast.ops.triton.perturb import perturb_kernel
from ganloss_fast.ops.triton.reduction import MAX_PROGRAMS


def rows_of(batch: Tensor) -> tuple[int, int]:
    """(samples, elements of each)"""
    samples = batch.shape[0]
    return samples, batch.numel() // max(1, samples)


def accumulator_of(batch: Tensor) -> torch.dtype:
    return ACCUMULATORS[COMPUTE_DTYPES[batch.dtype]]


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
        kernels.interpolate_kernel[(geometry.programs,)](
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


def perturb(inputs: Tensor, sigma: float, seed: Tensor) -> Tensor:
    """seed: one int64 element, which the kernel reads."""
    check_operand("inputs", inputs, inputs)
    check_seed(seed, inputs)
    x = inputs.resolve_neg().contiguous()  # noise follows the row-major index in any layout
    out = torch.empty_like(x)
    with torch.cuda.device_of(x):
        perturb_kernel[(program_count(x.numel()),)](
            x,
            seed,
            out,
            x.numel(),
            float(sigma),
            T=COMPUTE_DTYPES[x.dtype],
            BLOCK=BLOCK,
            num_warps=NUM_WARPS,
        )
    return restore_layout(out, x, inputs)


def launch_row_dots(x, y, norms, results, mean, mode, target, scale) -> None:
    """results_i from <x_i, y_i>, and their weighted mean: see row_dots_kernel."""
    geometry = row_geometry(*rows_of(x))
    kernels.row_dots_kernel[(geometry.programs,)](
        x,
        y,
        norms,
        results,
        mean,
        workspace_for(geometry.programs, 1, x.device),
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


def launch_penalty_gradient(x, y, norms, dots, grad_penalty, mode, target, scale) -> Tensor:
    out = torch.empty_like(x)
    if out.numel() == 0:
        return out
    geometry = elementwise_geometry(*rows_of(x))
    grad_penalty = grad_penalty.resolve_neg()
    kernels.penalty_gradient_kernel[(geometry.programs,)](
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


def norm_penalty(gradient: Tensor, mode: int, target: float, scale: float):
    """gradient [B, ...] -> penalty [], norms [B]"""
    check_penalty(gradient, mode)
    g = dense_by_sample(gradient)
    accumulator = accumulator_of(g)
    penalty = g.new_empty((), dtype=accumulator)
    norms = g.new_empty((g.shape[0],), dtype=accumulator)
    with torch.cuda.device_of(g):
        launch_row_dots(g, None, None, norms, penalty, mode, target, scale)
    return penalty, norms


def norm_penalty_backward(grad_penalty, gradient, norms, mode, target, scale):
    check_penalty_backward(grad_penalty, gradient, norms, mode)
    g = dense_by_sample(gradient)
    norms = read_one_by_one(norms, accumulator_of(g))
    with torch.cuda.device_of(g):
        out = launch_penalty_gradient(g, None, norms, None, grad_penalty, mode, target, scale)
    return restore_layout(out, g, gradient)


def norm_penalty_double_backward(direction, grad_penalty, gradient, norms, mode, target, scale):
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
