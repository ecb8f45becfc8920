"""multi_tensor_loss in Triton: one launch for each segment, forward, backward and once more.

The kernels read half and bfloat16 as they are and upcast at once: arithmetic is float32, or
float64 for float64. A launch belongs to one segment and the launches of a call follow each other
on one stream, so the last program of a launch can add its segment to the total of those before
it: no further launch, no host.

Tiles that lie wholly inside a segment are loaded without a mask. A masked load is only vectorised
when the length is known to be a multiple of 16, which the lengths of users are not.
"""

import triton
import triton.language as tl

from ganloss_fast.triton_kernels.reduction import store_partial, sum_partials, take_ticket
from ganloss_fast.triton_kernels.terms import CURVATURE, SLOPE, VALUE, square_root


@triton.jit
def first_tile():
    """The first tile of this program, in 64 bits: so are all offsets that are made from it."""
    return tl.program_id(0).to(tl.int64)


@triton.jit
def tile_count(count, BLOCK: tl.constexpr):
    """Tiles of a segment. In 64 bits: just below 2^31 elements, rounding up would overflow."""
    return tl.cdiv(count.to(tl.int64), BLOCK)


@triton.jit
def minus_b(x, b, offsets, mask, B_IS_SCALAR: tl.constexpr, T: tl.constexpr):
    """x - b at the offsets, in the compute dtype."""
    if b is not None:
        if B_IS_SCALAR:
            x -= tl.load(b).to(T)
        else:
            x -= tl.load(b + offsets, mask=mask).to(T)
    return x


@triton.jit
def weighted(x, weight, offsets, mask, T: tl.constexpr):
    """w x, and 0 where w is 0: a masked infinity must not become NaN."""
    if weight is not None:
        w = tl.load(weight + offsets, mask=mask).to(T)
        x = tl.where(w == 0.0, 0.0, w * x)
    return x


@triton.jit
def only(x, mask):
    """x within the mask, else 0."""
    if mask is not None:
        x = tl.where(mask, x, 0.0)
    return x


@triton.jit
def as_scalar(number, T: tl.constexpr):
    """A float64 argument in the compute dtype. Unannotated, Triton would pass it as float32."""
    return tl.full((), number, T)


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
def add_statistics(deviations, squares, signs, nonfinite, x, shift, mask):
    """The sums that the statistics are made of, with one more tile."""
    deviation = x - shift
    sign = tl.where(x > 0.0, 1.0, 0.0) - tl.where(x < 0.0, 1.0, 0.0)
    is_finite = (x - x) == 0.0
    deviations += only(deviation, mask)
    squares += only(deviation * deviation, mask)
    signs += only(sign.to(x.dtype), mask)
    nonfinite += only(tl.where(is_finite, 0.0, 1.0).to(x.dtype), mask)
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
        # Around the first element, so that a large mean does not swallow the deviation. Not
        # around an infinite one, which would make the mean of infinities NaN.
        shift = tl.load(a, mask=count > 0, other=0.0).to(T)
        shift = tl.where(shift - shift == 0.0, shift, 0.0)
        deviations = tl.zeros((BLOCK,), T)
        squares = tl.zeros((BLOCK,), T)
        signs = tl.zeros((BLOCK,), T)
        nonfinite = tl.zeros((BLOCK,), T)

    whole = count // BLOCK
    for tile in range(first_tile(), tile_count(count, BLOCK), tl.num_programs(0)):
        offsets = tile * BLOCK + tl.arange(0, BLOCK)
        if tile < whole:
            x = tl.load(a + offsets).to(T)
            value = TERM(minus_b(x, b, offsets, None, B_IS_SCALAR, T), first, second, VALUE)
            terms += weighted(value, weight, offsets, None, T)
            if statistics is not None:
                deviations, squares, signs, nonfinite = add_statistics(
                    deviations, squares, signs, nonfinite, x, shift, None
                )
        else:
            mask = offsets < count
            x = tl.load(a + offsets, mask=mask).to(T)
            value = TERM(minus_b(x, b, offsets, mask, B_IS_SCALAR, T), first, second, VALUE)
            terms += only(weighted(value, weight, offsets, mask, T), mask)
            if statistics is not None:
                deviations, squares, signs, nonfinite = add_statistics(
                    deviations, squares, signs, nonfinite, x, shift, mask
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
    offsets,
    mask,
    x,
    B_IS_SCALAR: tl.constexpr,
):
    """Writes x to the gradient of a and -x to the gradient of a tensor b, in their dtypes."""
    if to_a is not None:
        tl.store(to_a + offsets, x.to(to_a.dtype.element_ty), mask=mask)
    if to_b is not None and not B_IS_SCALAR:
        tl.store(to_b + offsets, (-x).to(to_b.dtype.element_ty), mask=mask)


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
    SUMMED: tl.constexpr = B_IS_SCALAR and to_b is not None
    if SUMMED:
        sums = tl.zeros((BLOCK,), T)

    whole = count // BLOCK
    for tile in range(first_tile(), tile_count(count, BLOCK), tl.num_programs(0)):
        offsets = tile * BLOCK + tl.arange(0, BLOCK)
        if tile < whole:
            z = minus_b(tl.load(a + offsets).to(T), b, offsets, None, B_IS_SCALAR, T)
            slope = TERM(z, first, second, SLOPE)
            gradient = factor * weighted(slope, weight, offsets, None, T)
            store_pair(to_a, to_b, offsets, None, gradient, B_IS_SCALAR)
            if SUMMED:
                sums += gradient
        else:
            mask = offsets < count
            z = minus_b(tl.load(a + offsets, mask=mask).to(T), b, offsets, mask, B_IS_SCALAR, T)
            slope = TERM(z, first, second, SLOPE)
            gradient = factor * weighted(slope, weight, offsets, mask, T)
            store_pair(to_a, to_b, offsets, mask, gradient, B_IS_SCALAR)
            if SUMMED:
                sums += only(gradient, mask)

    if SUMMED:
        if workspace is None:
            tl.store(to_b, (-tl.sum(sums, 0)).to(to_b.dtype.element_ty))
        else:
            store_partial(workspace, 0, tl.sum(sums, 0))
            if take_ticket(workspace):
                gradient_of_b = -sum_partials(workspace, 0, T, PARTIALS_BLOCK)
                tl.store(to_b, gradient_of_b.to(to_b.dtype.element_ty))
                tl.store(workspace, 0)


@triton.jit
def direction(va, vb, offsets, mask, B_IS_SCALAR: tl.constexpr, LIKE, T: tl.constexpr):
    """va - vb: the second-order direction in z. LIKE gives the shape where both are absent."""
    v = tl.zeros_like(LIKE)
    if va is not None:
        v = tl.load(va + offsets, mask=mask).to(T)
    if vb is not None:
        if B_IS_SCALAR:
            v -= tl.load(vb).to(T)
        else:
            v -= tl.load(vb + offsets, mask=mask).to(T)
    return v


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
    contractions = tl.zeros((BLOCK,), T)
    if SUMMED:
        sums = tl.zeros((BLOCK,), T)

    whole = count // BLOCK
    for tile in range(first_tile(), tile_count(count, BLOCK), tl.num_programs(0)):
        offsets = tile * BLOCK + tl.arange(0, BLOCK)
        if tile < whole:
            z = minus_b(tl.load(a + offsets).to(T), b, offsets, None, B_IS_SCALAR, T)
            v = direction(va, vb, offsets, None, B_IS_SCALAR, z, T)
            slope = weighted(TERM(z, first, second, SLOPE), weight, offsets, None, T)
            curvature = weighted(TERM(z, first, second, CURVATURE), weight, offsets, None, T)
            contractions += slope * v
            second_order = factor * curvature * v
            store_pair(to_a, to_b, offsets, None, second_order, B_IS_SCALAR)
            if SUMMED:
                sums += second_order
        else:
            mask = offsets < count
            z = minus_b(tl.load(a + offsets, mask=mask).to(T), b, offsets, mask, B_IS_SCALAR, T)
            v = direction(va, vb, offsets, mask, B_IS_SCALAR, z, T)
            slope = weighted(TERM(z, first, second, SLOPE), weight, offsets, mask, T)
            curvature = weighted(TERM(z, first, second, CURVATURE), weight, offsets, mask, T)
            contractions += only(slope * v, mask)
            second_order = factor * curvature * v
            store_pair(to_a, to_b, offsets, mask, second_order, B_IS_SCALAR)
            if SUMMED:
                sums += only(second_order, mask)

    elements = count.to(T)
    if workspace is None:
        mean = tl.sum(contractions, 0) / elements
        store_mean(grad_grad_values, grad_grad_total, segment, scale, mean)
        if SUMMED:
            tl.store(to_b, (-tl.sum(sums, 0)).to(to_b.dtype.element_ty))
    else:
        store_partial(workspace, 0, tl.sum(contractions, 0))
        if SUMMED:
            store_partial(workspace, 1, tl.sum(sums, 0))
        if take_ticket(workspace):
            mean = sum_partials(workspace, 0, T, PARTIALS_BLOCK) / elements
            store_mean(grad_grad_values, grad_grad_total, segment, scale, mean)
            if SUMMED:
                gradient_of_b = -sum_partials(workspace, 1, T, PARTIALS_BLOCK)
                tl.store(to_b, gradient_of_b.to(to_b.dtype.element_ty))
            tl.store(workspace, 0)
