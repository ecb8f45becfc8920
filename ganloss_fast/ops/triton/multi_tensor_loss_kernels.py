"""The kernels of multi_tensor_loss: one launch for each segment, forward, backward and once more.

The launches of a call, one for each segment, follow each other on one stream, so the last program
of a launch can add its segment to the total of those before it: no further launch, no host.
"""

import triton
import triton.language as tl

from ganloss_fast.ops.triton.reduction import store_partial, sum_partials, take_ticket
from ganloss_fast.ops.triton.terms import CURVATURE, SLOPE, VALUE, square_root
from ganloss_fast.ops.triton.tiles import as_scalar, first_tile, load_tile, store_tile, tile_count


@triton.jit
def only(x, offsets, count, is_whole):
    """x, and 0 behind the end: for sums."""
    if not is_whole:
        x = tl.where(offsets < count, x, 0.0)
    return x


@triton.jit
def minus_b(x, b, offsets, count, is_whole, B_IS_SCALAR: tl.constexpr, T: tl.constexpr):
    """x - b, for a b like x, a single one, or none."""
    if b is not None:
        if B_IS_SCALAR:
            x -= tl.load(b).to(T)
        else:
            x -= load_tile(b, offsets, count, is_whole, T)
    return x


@triton.jit
def weighted(w, x):
    """w x, and 0 where w is 0: a masked infinity must not become NaN."""
    return tl.where(w == 0.0, 0.0, w * x)


@triton.jit
def incoming(
    grad_total,  # [] or None
    grad_values,  # [S] with any stride, or None
    grad_values_stride,
    segment,
    scale,
    count,
    T: tl.constexpr,
):
    """d loss / d (sum of the segment): what reaches the segment, over its number of elements."""
    factor = tl.zeros((), T)
    if grad_total is not None:
        factor += tl.load(grad_total).to(T) * as_scalar(scale, T)
    if grad_values is not None:
        factor += tl.load(grad_values + segment * grad_values_stride).to(T)
    return factor / count.to(T)


@triton.jit
def store_mean(
    values,  # [S]
    total,  # []
    segment,
    scale,
    mean,
):
    """Writes the mean of a segment and adds it to the total of the segments before it."""
    L: tl.constexpr = total.dtype.element_ty
    mean = mean.to(L)
    tl.store(values + segment, mean)
    before = tl.load(total, mask=segment > 0, other=0.0)
    tl.store(total, before + as_scalar(scale, L) * mean)


@triton.jit
def finite_element(a, index, count, T: tl.constexpr):
    x = tl.load(a + index, mask=count > 0, other=0.0).to(T)
    return tl.where(x - x == 0.0, x, 0.0)


@triton.jit
def center_of(a, count, T: tl.constexpr):
    """What deviations are counted from: see ``csrc/math/statistics.h``.

    Near the mean, so that a large one does not swallow the deviation: the middle of three elements,
    of which one may be an outlier. An infinite one would make the mean of infinities NaN.
    """
    step = count // 6
    x = finite_element(a, step, count, T)
    y = finite_element(a, 3 * step, count, T)
    z = finite_element(a, 5 * step, count, T)
    return tl.minimum(tl.maximum(tl.minimum(x, y), z), tl.maximum(x, y))


@triton.jit
def add_statistics(deviations, squares, signs, nonfinite, x, shift, offsets, count, is_whole):
    """The sums that the statistics are made of, with one more tile."""
    deviation = x - shift
    sign = tl.where(x > 0.0, 1.0, 0.0) - tl.where(x < 0.0, 1.0, 0.0)
    is_finite = (x - x) == 0.0
    deviations += only(deviation, offsets, count, is_whole)
    squares += only(deviation * deviation, offsets, count, is_whole)
    signs += only(sign.to(x.dtype), offsets, count, is_whole)
    nonfinite += only(tl.where(is_finite, 0.0, 1.0).to(x.dtype), offsets, count, is_whole)
    return deviations, squares, signs, nonfinite


@triton.jit
def store_statistics(
    row,  # [4]
    count,
    shift,
    deviations,
    squares,
    signs,
    nonfinite,
):
    """Mean, standard deviation, mean sign and non-finite count from the sums of a segment."""
    L: tl.constexpr = row.dtype.element_ty
    mean = deviations / count
    variance = squares / count - mean * mean
    variance = tl.where(variance < 0.0, 0.0, variance)
    tl.store(row, (shift + mean).to(L))
    tl.store(row + 1, square_root(variance).to(L))
    tl.store(row + 2, (signs / count).to(L))
    tl.store(row + 3, nonfinite.to(L))


@triton.jit(do_not_specialize=["segment", "count"])
def term_mean_kernel(
    a,  # [count]
    b,  # [count], [] or None
    weight,  # [count] or None
    workspace,  # int32, see reduction.py; None for a single program
    values,  # [S]
    total,  # []
    statistics,  # [S, 4] or None
    segment,
    count,
    scale: tl.float64,
    first: tl.float64,
    second: tl.float64,
    TERM: tl.constexpr,  # the term's function
    B_IS_SCALAR: tl.constexpr,
    T: tl.constexpr,  # the compute dtype
    BLOCK: tl.constexpr,
    PARTIALS_BLOCK: tl.constexpr,
):
    """values[segment] = mean(w phi(a - b)), total += scale * values[segment], statistics of a."""
    first = as_scalar(first, T)
    second = as_scalar(second, T)
    terms = tl.zeros((BLOCK,), T)
    if statistics is not None:
        shift = center_of(a, count, T)
        deviations = tl.zeros((BLOCK,), T)
        squares = tl.zeros((BLOCK,), T)
        signs = tl.zeros((BLOCK,), T)
        nonfinite = tl.zeros((BLOCK,), T)

    for tile in range(first_tile(), tile_count(count, BLOCK), tl.num_programs(0)):
        offsets = tile * BLOCK + tl.arange(0, BLOCK)
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

    elements = count.to(T)
    if workspace is None:
        store_mean(values, total, segment, scale, tl.sum(terms, 0) / elements)
        if statistics is not None:
            store_statistics(
                statistics + 4 * segment,
                elements,
                shift,
                tl.sum(deviations, 0),
                tl.sum(squares, 0),
                tl.sum(signs, 0),
                tl.sum(nonfinite, 0),
            )
    else:
        store_partial(workspace, 0, tl.sum(terms, 0))
        if statistics is not None:
            store_partial(workspace, 1, tl.sum(deviations, 0))
            store_partial(workspace, 2, tl.sum(squares, 0))
            store_partial(workspace, 3, tl.sum(signs, 0))
            store_partial(workspace, 4, tl.sum(nonfinite, 0))
        if take_ticket(workspace):
            sum_of_terms = sum_partials(workspace, 0, T, PARTIALS_BLOCK)
            store_mean(values, total, segment, scale, sum_of_terms / elements)
            if statistics is not None:
                store_statistics(
                    statistics + 4 * segment,
                    elements,
                    shift,
                    sum_partials(workspace, 1, T, PARTIALS_BLOCK),
                    sum_partials(workspace, 2, T, PARTIALS_BLOCK),
                    sum_partials(workspace, 3, T, PARTIALS_BLOCK),
                    sum_partials(workspace, 4, T, PARTIALS_BLOCK),
                )
            tl.store(workspace, 0)  # for the launch of the next segment


@triton.jit
def store_pair(
    to_a,  # [count] or None
    to_b,  # [count], [] or None
    x,
    offsets,
    count,
    is_whole,
    B_IS_SCALAR: tl.constexpr,
):
    """Writes x to the gradient of a and -x to the gradient of a tensor b."""
    if to_a is not None:
        store_tile(to_a, x, offsets, count, is_whole)
    if to_b is not None and not B_IS_SCALAR:
        store_tile(to_b, -x, offsets, count, is_whole)


@triton.jit(do_not_specialize=["segment", "grad_values_stride", "count"])
def term_gradient_kernel(
    a,  # [count]
    b,  # [count], [] or None
    weight,  # [count] or None
    workspace,  # int32; None for a single program, or where b is no scalar
    grad_total,  # [] or None
    grad_values,  # [S] or None
    to_a,  # [count] or None
    to_b,  # [count], [] or None
    grad_values_stride,
    segment,
    count,
    scale: tl.float64,
    first: tl.float64,
    second: tl.float64,
    TERM: tl.constexpr,
    B_IS_SCALAR: tl.constexpr,
    T: tl.constexpr,
    BLOCK: tl.constexpr,
    PARTIALS_BLOCK: tl.constexpr,
):
    """to_a = incoming * w phi'(a - b), to_b = -to_a, or minus its sum where b is a scalar."""
    first = as_scalar(first, T)
    second = as_scalar(second, T)
    factor = incoming(grad_total, grad_values, grad_values_stride, segment, scale, count, T)
    before = factor
    if weight is not None:  # see Factor in csrc/math/terms.h
        before = tl.where(tl.abs(factor) > 1.0, 0.5, factor)
        after = tl.where(tl.abs(factor) > 1.0, 2.0 * factor, 1.0)
    SUMMED: tl.constexpr = B_IS_SCALAR and to_b is not None
    if SUMMED:
        sums = tl.zeros((BLOCK,), T)

    for tile in range(first_tile(), tile_count(count, BLOCK), tl.num_programs(0)):
        offsets = tile * BLOCK + tl.arange(0, BLOCK)
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
        if workspace is None:
            tl.store(to_b, (-tl.sum(sums, 0)).to(to_b.dtype.element_ty))
        else:
            store_partial(workspace, 0, tl.sum(sums, 0))
            if take_ticket(workspace):
                gradient_of_b = -sum_partials(workspace, 0, T, PARTIALS_BLOCK)
                tl.store(to_b, gradient_of_b.to(to_b.dtype.element_ty))
                tl.store(workspace, 0)


@triton.jit(do_not_specialize=["segment", "grad_values_stride", "count"])
def term_curvature_kernel(
    a,  # [count]
    b,  # [count], [] or None
    weight,  # [count] or None
    workspace,  # int32; None for a single program
    va,  # [count] or None: the direction in the gradient of a
    vb,  # [count], [] or None: the direction in the gradient of b
    grad_total,  # [] or None
    grad_values,  # [S] or None
    to_a,  # [count] or None
    to_b,  # [count], [] or None
    grad_grad_values,  # [S]
    grad_grad_total,  # []
    grad_values_stride,
    segment,
    count,
    scale: tl.float64,
    first: tl.float64,
    second: tl.float64,
    TERM: tl.constexpr,
    B_IS_SCALAR: tl.constexpr,
    T: tl.constexpr,
    BLOCK: tl.constexpr,
    PARTIALS_BLOCK: tl.constexpr,
):
    """The backward of the backward along v = va - vb.

    to_a = incoming * w phi''(a - b) v and to_b = -to_a (or minus its sum);
    grad_grad_values[segment] = mean(w phi'(a - b) v), and the total its weighted sum.
    """
    first = as_scalar(first, T)
    second = as_scalar(second, T)
    factor = incoming(grad_total, grad_values, grad_values_stride, segment, scale, count, T)
    SUMMED: tl.constexpr = B_IS_SCALAR and to_b is not None
    inverse_count = 1.0 / count.to(T)
    nothing = tl.where(count > 0, 0.0, float("nan"))  # what is added to a mean over nothing
    contractions = tl.zeros((BLOCK,), T)
    if SUMMED:
        sums = tl.zeros((BLOCK,), T)

    for tile in range(first_tile(), tile_count(count, BLOCK), tl.num_programs(0)):
        offsets = tile * BLOCK + tl.arange(0, BLOCK)
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

    if workspace is None:
        mean = tl.sum(contractions, 0) + nothing
        store_mean(grad_grad_values, grad_grad_total, segment, scale, mean)
        if SUMMED:
            tl.store(to_b, (-tl.sum(sums, 0)).to(to_b.dtype.element_ty))
    else:
        store_partial(workspace, 0, tl.sum(contractions, 0))
        if SUMMED:
            store_partial(workspace, 1, tl.sum(sums, 0))
        if take_ticket(workspace):
            mean = sum_partials(workspace, 0, T, PARTIALS_BLOCK) + nothing
            store_mean(grad_grad_values, grad_grad_total, segment, scale, mean)
            if SUMMED:
                gradient_of_b = -sum_partials(workspace, 1, T, PARTIALS_BLOCK)
                tl.store(to_b, gradient_of_b.to(to_b.dtype.element_ty))
            tl.store(workspace, 0)
