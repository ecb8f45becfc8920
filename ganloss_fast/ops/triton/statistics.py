"""Statistics of a segment, from the pass that computes its mean: see ``csrc/math/statistics.h``."""

import triton
import triton.language as tl

from ganloss_fast.ops.triton.terms import square_root
from ganloss_fast.ops.triton.tiles import only


@triton.jit
def finite_element(a, index, count, T: tl.constexpr):
    x = tl.load(a + index, mask=count > 0, other=0.0).to(T)
    return tl.where(x - x == 0.0, x, 0.0)


@triton.jit
def center_of(a, count, T: tl.constexpr):
    """What deviations are counted from.

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
    mean = deviations / count
    variance = squares / count - mean * mean
    variance = tl.where(variance < 0.0, 0.0, variance)
    tl.store(row, shift + mean)
    tl.store(row + 1, square_root(variance))
    tl.store(row + 2, signs / count)
    tl.store(row + 3, nonfinite)
