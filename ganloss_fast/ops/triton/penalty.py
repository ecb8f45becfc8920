"""Penalties on a gradient norm in Triton: the formulas of ``csrc/math/penalty.h``.

``norm`` is float32 or float64, never half. ``MODE`` is an index into ``reference.PENALTY_MODES``.
"""

import triton
import triton.language as tl

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
