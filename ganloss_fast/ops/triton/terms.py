"""Terms in Triton: one function for each, giving its value, slope or curvature.

The formulas of ``csrc/math/terms.h``. ``z`` is float32 or float64 and never half: kernels upcast
as they load. ``first`` and ``second`` are the parameters of the term, scalars of that dtype, and
``factor`` is what its slope is multiplied by.

libdevice does not exist in Triton's interpreter, and ``tl.exp`` is the hardware's approximation in
float32, 60 ulp off at -80. So the exponential and the logarithm are spelled out here.
"""

import triton
import triton.language as tl

VALUE = tl.constexpr(0)
SLOPE = tl.constexpr(1)
CURVATURE = tl.constexpr(2)


@triton.jit
def exp_minus_absolute(x):
    """exp(-|x|), in [0, 1] and within 3 ulp down to the smallest subnormal. NaN at NaN."""
    if x.dtype == tl.float64:
        return tl.exp(-tl.abs(x))
    else:
        # exp(-t) = 2^k exp(r) with |r| < 0.35. The high part of ln 2 has 15 bits, so k * high and
        # the first difference are exact, and the hardware's exp is accurate on so small an r.
        t = tl.abs(x)
        t = tl.where(t > 104.0, 104.0, t)  # exp(-104) rounds to 0; a comparison keeps NaN
        k = tl.floor(0.5 - t * 1.4426950408889634)
        r = (-t - k * 0.693145751953125) - k * 1.428606765330187e-06
        # 2^(k + 32) is a normal number for every k; the last product rounds to a subnormal.
        power = ((k + 159.0).to(tl.int32) << 23).to(tl.float32, bitcast=True)
        return (tl.exp(r) * power) * 2.3283064365386963e-10


@triton.jit
def log1p_unit(x):
    """log(1 + x) for x in [0, 1], relative error below 2 ulp however small x is."""
    if x.dtype == tl.float64:
        # log(u) x / (u - 1) with u = 1 + x rounded: the error of u cancels.
        u = 1.0 + x
        return tl.where(u == 1.0, x, tl.log(u) * (x / tl.where(u == 1.0, 1.0, u - 1.0)))
    else:
        # Minimax polynomial of log(1 + x) / x on [0, 1], error 5e-9.
        p = 0.019542526453733444 - x * 0.0031760570127516985
        p = p * x - 0.056373611092567444
        p = p * x + 0.10543623566627502
        p = p * x - 0.1526966691017151
        p = p * x + 0.1966327428817749
        p = p * x - 0.24951615929603577
        p = p * x + 0.33329710364341736
        p = p * x - 0.49999892711639404
        return (p * x + 1.0) * x


@triton.jit
def positive_part(x):
    """max(0, x) that keeps a NaN, as torch.relu does."""
    return tl.where(x <= 0.0, 0.0, x)


@triton.jit
def square_root(x):
    """Correctly rounded: tl.sqrt is the hardware's approximation in float32, and flushes."""
    if x.dtype == tl.float64:
        return tl.sqrt(x)
    else:
        return tl.sqrt_rn(x)


@triton.jit
def softplus(z, first, second, factor, ORDER: tl.constexpr):
    """log(1 + exp(s z)), s = first: the tail is kept, nothing overflows."""
    x = first * z
    e = exp_minus_absolute(x)
    if ORDER == VALUE:
        return positive_part(x) + log1p_unit(e)
    elif ORDER == SLOPE:
        return factor * (first * (tl.where(x < 0.0, e, 1.0) / (1.0 + e)))
    else:
        return e / ((1.0 + e) * (1.0 + e))


@triton.jit
def hinge(z, first, second, factor, ORDER: tl.constexpr):
    """max(0, m - s z), s = first, m = second: slope 0 at the kink, passed through at NaN."""
    excess = second - first * z
    if ORDER == VALUE:
        return positive_part(excess)
    elif ORDER == SLOPE:
        return factor * tl.where(excess <= 0.0, 0.0, -first)
    else:
        return tl.zeros_like(z)


@triton.jit
def squared(z, first, second, factor, ORDER: tl.constexpr):
    """(z - c)^2, c = first."""
    if ORDER == VALUE:
        return (z - first) * (z - first)
    elif ORDER == SLOPE:
        return 2.0 * (factor * (z - first))
    else:
        return tl.zeros_like(z) + 2.0


@triton.jit
def linear(z, first, second, factor, ORDER: tl.constexpr):
    """z."""
    if ORDER == VALUE:
        return z
    elif ORDER == SLOPE:
        return tl.zeros_like(z) + factor
    else:
        return tl.zeros_like(z)


@triton.jit
def absolute(z, first, second, factor, ORDER: tl.constexpr):
    """|z|, slope 0 at 0; NaN at NaN, where torch.sign gives 0 and hides it."""
    if ORDER == VALUE:
        return tl.abs(z)
    elif ORDER == SLOPE:
        return factor * tl.where(z < 0.0, -1.0, tl.where(z > 0.0, 1.0, z))
    else:
        return tl.zeros_like(z)


# By name, in the order of ganloss_fast.ops.terms.TERM_NAMES. A kernel takes the function as a
# compile-time argument, so a term is this row and its function.
TERM_FUNCTIONS = {
    "softplus": softplus,
    "hinge": hinge,
    "squared": squared,
    "linear": linear,
    "abs": absolute,
}
