"""The kernels of multi_tensor_loss: one launch for a list, forward, backward and once more.

Each runs a function for the group of the program's segment: compiled for every kind of segments in
the list, it knows term, dtypes and operands, and picks the rest (``segments.py``).
"""

import triton
import triton.language as tl

from ganloss_fast.ops.triton.segments import (
    bounds_passed,
    is_in_group,
    minus_b,
    pick,
    pick_numbers,
    pick_place,
    store_mean,
    store_pair,
    sums_over_programs,
)
from ganloss_fast.ops.triton.statistics import add_statistics, center_of, store_statistics
from ganloss_fast.ops.triton.terms import CURVATURE, SLOPE, VALUE
from ganloss_fast.ops.triton.tiles import load_tile, offsets_of_tile, only, tile_count


@triton.jit
def weighted(w, x):
    """w x, and 0 where w is 0: a masked infinity must not become NaN."""
    return tl.where(w == 0.0, 0.0, w * x)


@triton.jit
def incoming(
    grad_total,  # [] or None
    grad_values,  # [S] with any stride, or None
    grad_values_stride,
    position,
    scale,
    count,
    T: tl.constexpr,
):
    """d loss / d (sum of the segment): what reaches the segment, over its number of elements."""
    factor = tl.zeros((), T)
    if grad_total is not None:
        factor += tl.load(grad_total).to(T) * scale.to(T)
    if grad_values is not None:
        place = position.to(tl.int64) * grad_values_stride
        factor += tl.load(grad_values + place).to(T)
    return factor / count.to(T)


# ---- forward -------------------------------------------------------------------------------------


@triton.jit
def segment_mean(
    group,
    workspace,
    values,
    total,
    statistics,
    follows,
    size,
    TERM: tl.constexpr,
    B_IS_SCALAR: tl.constexpr,
    NARROW: tl.constexpr,
    L: tl.constexpr,
    SEGMENTS: tl.constexpr,
    BLOCK: tl.constexpr,
    PARTIALS_BLOCK: tl.constexpr,
):
    T: tl.constexpr = tl.float64 if group.a[0].dtype.element_ty == tl.float64 else tl.float32
    SUMS: tl.constexpr = 1 if statistics is None else 5
    passed = bounds_passed(group)
    place = pick_place(group, passed)
    position, first_tile, programs, count = place
    first, second, scale = pick_numbers(group, passed, L, T)
    a = pick(group.a, passed)
    b = pick(group.b, passed)
    weight = pick(group.weight, passed)
    terms = tl.zeros((BLOCK,), T)
    if statistics is not None:
        shift = center_of(a, count, T)
        deviations = tl.zeros((BLOCK,), T)
        squares = tl.zeros((BLOCK,), T)
        signs = tl.zeros((BLOCK,), T)
        nonfinite = tl.zeros((BLOCK,), T)

    for tile in range(first_tile, tile_count(count, BLOCK), programs):
        offsets = offsets_of_tile(tile, BLOCK, NARROW)
        is_whole = tile < count // BLOCK
        x = load_tile(a, offsets, count, is_whole, T)
        z = minus_b(x, b, offsets, count, is_whole, B_IS_SCALAR, T)
        value = TERM(z, first, second, 1.0, VALUE)
        if weight is not None:
            value = weighted(load_tile(weight, offsets, count, is_whole, T), value)
        terms += only(value, offsets, count, is_whole)
        if statistics is not None:
            deviations, squares, signs, nonfinite = add_statistics(
                deviations, squares, signs, nonfinite, x, shift, offsets, count, is_whole
            )

    sums = (tl.sum(terms, 0).to(L),)
    if statistics is not None:
        sums = (
            tl.sum(terms, 0).to(L),
            tl.sum(deviations, 0).to(L),
            tl.sum(squares, 0).to(L),
            tl.sum(signs, 0).to(L),
            tl.sum(nonfinite, 0).to(L),
        )
    is_last, sums = sums_over_programs(sums, place, workspace, size, SUMS, PARTIALS_BLOCK)
    if is_last:
        elements = count.to(L)
        if statistics is not None:
            row = statistics + 4 * position
            store_statistics(row, elements, shift.to(L), sums[1], sums[2], sums[3], sums[4])
        mean = sums[0] / elements
        store_mean(
            values,
            total,
            follows,
            place,
            scale,
            mean,
            workspace,
            size,
            SUMS,
            SEGMENTS,
            PARTIALS_BLOCK,
        )


@triton.jit(do_not_specialize=["follows", "size"])
def term_mean_kernel(
    groups,
    workspace,  # int32, see segments.py; None for a single program
    values,  # [size]
    total,  # []
    statistics,  # [size, 4] or None
    follows,
    size,
    TERMS: tl.constexpr,  # of each group, the term's function
    B_IS_SCALAR: tl.constexpr,  # of each group
    NARROW: tl.constexpr,  # of each group, whether an operand is not aligned
    L: tl.constexpr,  # of the results, of sums and of numbers
    SEGMENTS: tl.constexpr,  # of the launch
    BLOCK: tl.constexpr,
    PARTIALS_BLOCK: tl.constexpr,
):
    """values[s] = mean(w phi(a - b)), total = sum of scale_s values[s], statistics of a."""
    for g in tl.static_range(len(groups)):
        if is_in_group(groups, g):
            segment_mean(
                groups[g],
                workspace,
                values,
                total,
                statistics,
                follows,
                size,
                TERMS[g],
                B_IS_SCALAR[g],
                NARROW[g],
                L,
                SEGMENTS,
                BLOCK,
                PARTIALS_BLOCK,
            )


# ---- backward ------------------------------------------------------------------------------------


@triton.jit
def segment_gradient(
    group,
    workspace,
    grad_total,
    grad_values,
    grad_values_stride,
    follows,
    size,
    TERM: tl.constexpr,
    B_IS_SCALAR: tl.constexpr,
    NARROW: tl.constexpr,
    L: tl.constexpr,
    SEGMENTS: tl.constexpr,
    BLOCK: tl.constexpr,
    PARTIALS_BLOCK: tl.constexpr,
):
    T: tl.constexpr = tl.float64 if group.a[0].dtype.element_ty == tl.float64 else tl.float32
    SUMMED: tl.constexpr = B_IS_SCALAR and len(group.to_b) > 0
    passed = bounds_passed(group)
    place = pick_place(group, passed)
    position, first_tile, programs, count = place
    first, second, scale = pick_numbers(group, passed, L, T)
    a = pick(group.a, passed)
    b = pick(group.b, passed)
    weight = pick(group.weight, passed)
    to_a = pick(group.to_a, passed)
    to_b = pick(group.to_b, passed)
    factor = incoming(grad_total, grad_values, grad_values_stride, position, scale, count, T)
    before = factor
    if weight is not None:  # see Factor in csrc/math/terms.h
        before = tl.where(tl.abs(factor) > 1.0, 0.5, factor)
        after = tl.where(tl.abs(factor) > 1.0, 2.0 * factor, 1.0)
    if SUMMED:
        sums = tl.zeros((BLOCK,), T)

    for tile in range(first_tile, tile_count(count, BLOCK), programs):
        offsets = offsets_of_tile(tile, BLOCK, NARROW)
        is_whole = tile < count // BLOCK
        x = load_tile(a, offsets, count, is_whole, T)
        z = minus_b(x, b, offsets, count, is_whole, B_IS_SCALAR, T)
        gradient = TERM(z, first, second, before, SLOPE)
        if weight is not None:
            w = load_tile(weight, offsets, count, is_whole, T)
            gradient = after * weighted(w, gradient)
        store_pair(to_a, to_b, gradient, offsets, count, is_whole, B_IS_SCALAR)
        if SUMMED:
            sums += only(gradient, offsets, count, is_whole)

    if SUMMED:
        of_program = (tl.sum(sums, 0).to(L),)
        is_last, of_b = sums_over_programs(of_program, place, workspace, size, 1, PARTIALS_BLOCK)
        if is_last:
            tl.store(to_b, (-of_b[0]).to(to_b.dtype.element_ty))


@triton.jit(do_not_specialize=["grad_values_stride", "follows", "size"])
def term_gradient_kernel(
    groups,
    workspace,  # int32; None where no sum for a scalar b takes several programs
    grad_total,  # [] or None
    grad_values,  # [size] or None
    grad_values_stride,
    follows,
    size,
    TERMS: tl.constexpr,
    B_IS_SCALAR: tl.constexpr,
    NARROW: tl.constexpr,
    L: tl.constexpr,
    SEGMENTS: tl.constexpr,
    BLOCK: tl.constexpr,
    PARTIALS_BLOCK: tl.constexpr,
):
    """to_a = incoming * w phi'(a - b), to_b = -to_a, or minus its sum where b is a scalar."""
    for g in tl.static_range(len(groups)):
        if is_in_group(groups, g):
            segment_gradient(
                groups[g],
                workspace,
                grad_total,
                grad_values,
                grad_values_stride,
                follows,
                size,
                TERMS[g],
                B_IS_SCALAR[g],
                NARROW[g],
                L,
                SEGMENTS,
                BLOCK,
                PARTIALS_BLOCK,
            )


# ---- backward of the backward --------------------------------------------------------------------


@triton.jit
def segment_curvature(
    group,
    workspace,
    grad_total,
    grad_values,
    grad_grad_values,
    grad_grad_total,
    grad_values_stride,
    follows,
    size,
    TERM: tl.constexpr,
    B_IS_SCALAR: tl.constexpr,
    NARROW: tl.constexpr,
    L: tl.constexpr,
    SEGMENTS: tl.constexpr,
    BLOCK: tl.constexpr,
    PARTIALS_BLOCK: tl.constexpr,
):
    T: tl.constexpr = tl.float64 if group.a[0].dtype.element_ty == tl.float64 else tl.float32
    SUMMED: tl.constexpr = B_IS_SCALAR and len(group.to_b) > 0
    passed = bounds_passed(group)
    place = pick_place(group, passed)
    position, first_tile, programs, count = place
    first, second, scale = pick_numbers(group, passed, L, T)
    a = pick(group.a, passed)
    b = pick(group.b, passed)
    weight = pick(group.weight, passed)
    va = pick(group.va, passed)
    vb = pick(group.vb, passed)
    to_a = pick(group.to_a, passed)
    to_b = pick(group.to_b, passed)
    factor = incoming(grad_total, grad_values, grad_values_stride, position, scale, count, T)
    inverse_count = 1.0 / count.to(T)
    nothing = tl.where(count > 0, 0.0, float("nan"))  # what is added to a mean over nothing
    contractions = tl.zeros((BLOCK,), T)
    if SUMMED:
        sums = tl.zeros((BLOCK,), T)

    for tile in range(first_tile, tile_count(count, BLOCK), programs):
        offsets = offsets_of_tile(tile, BLOCK, NARROW)
        is_whole = tile < count // BLOCK
        x = load_tile(a, offsets, count, is_whole, T)
        z = minus_b(x, b, offsets, count, is_whole, B_IS_SCALAR, T)
        v = tl.zeros((BLOCK,), T)
        if va is not None:
            v = load_tile(va, offsets, count, is_whole, T)
        v = minus_b(v, vb, offsets, count, is_whole, B_IS_SCALAR, T)
        slope = TERM(z, first, second, inverse_count, SLOPE)
        curvature = TERM(z, first, second, 1.0, CURVATURE)
        if weight is not None:
            w = load_tile(weight, offsets, count, is_whole, T)
            slope = weighted(w, slope)
            curvature = weighted(w, curvature)
        contractions += only(slope * v, offsets, count, is_whole)
        second_order = factor * curvature * v
        store_pair(to_a, to_b, second_order, offsets, count, is_whole, B_IS_SCALAR)
        if SUMMED:
            sums += only(second_order, offsets, count, is_whole)

    of_program = (tl.sum(contractions, 0).to(L),)
    if SUMMED:
        of_program = (tl.sum(contractions, 0).to(L), tl.sum(sums, 0).to(L))
    is_last, totals = sums_over_programs(of_program, place, workspace, size, 2, PARTIALS_BLOCK)
    if is_last:
        if SUMMED:
            tl.store(to_b, (-totals[1]).to(to_b.dtype.element_ty))
        mean = totals[0] + nothing
        store_mean(
            grad_grad_values,
            grad_grad_total,
            follows,
            place,
            scale,
            mean,
            workspace,
            size,
            2,
            SEGMENTS,
            PARTIALS_BLOCK,
        )


@triton.jit(do_not_specialize=["grad_values_stride", "follows", "size"])
def term_curvature_kernel(
    groups,
    workspace,  # int32; None for a single program
    grad_total,  # [] or None
    grad_values,  # [size] or None
    grad_grad_values,  # [size]
    grad_grad_total,  # []
    grad_values_stride,
    follows,
    size,
    TERMS: tl.constexpr,
    B_IS_SCALAR: tl.constexpr,
    NARROW: tl.constexpr,
    L: tl.constexpr,
    SEGMENTS: tl.constexpr,
    BLOCK: tl.constexpr,
    PARTIALS_BLOCK: tl.constexpr,
):
    """The backward of the backward along v = va - vb.

    to_a = incoming * w phi''(a - b) v and to_b = -to_a (or minus its sum);
    grad_grad_values[s] = mean(w phi'(a - b) v), and the total its weighted sum.
    """
    for g in tl.static_range(len(groups)):
        if is_in_group(groups, g):
            segment_curvature(
                groups[g],
                workspace,
                grad_total,
                grad_values,
                grad_grad_values,
                grad_grad_total,
                grad_values_stride,
                follows,
                size,
                TERMS[g],
                B_IS_SCALAR[g],
                NARROW[g],
                L,
                SEGMENTS,
                BLOCK,
                PARTIALS_BLOCK,
            )
