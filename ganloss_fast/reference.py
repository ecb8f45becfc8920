"""Plain PyTorch for everything public: the written specification of the package.

Also the fallback where no native kernel serves, the truth that tests compare with (in float64)
and the baseline of the benchmarks. Written to be read, not to be fast.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ganloss_fast.terms import LossOutputs, Segment

# ---- terms -------------------------------------------------------------------------------------


def softplus(z: Tensor, sign: float, _: float) -> Tensor:
    """log(1 + exp(sign z)). As -logsigmoid: F.softplus turns into the identity above 20."""
    return -torch.nn.functional.logsigmoid(-sign * z)


def hinge(z: Tensor, sign: float, margin: float) -> Tensor:
    """max(0, margin - sign z)."""
    return torch.relu(margin - sign * z)


def squared(z: Tensor, center: float, _: float) -> Tensor:
    """(z - center)^2."""
    return (z - center).square()


def linear(z: Tensor, _: float, __: float) -> Tensor:
    """z."""
    return z


def absolute(z: Tensor, _: float, __: float) -> Tensor:
    """|z|."""
    return z.abs()


# In the order of terms.TERM_NAMES.
TERM_FUNCTIONS = (softplus, hinge, squared, linear, absolute)


# ---- ops ---------------------------------------------------------------------------------------


def compute_dtype(dtype: torch.dtype) -> torch.dtype:
    """float64 is computed in float64, everything else in float32."""
    return torch.float64 if dtype == torch.float64 else torch.float32


def segment_value(segment: Segment) -> Tensor:
    """mean(weight * term(a - b)) of one segment."""
    dtype = compute_dtype(segment.a.dtype)
    z = segment.a.to(dtype)
    if segment.b is not None:
        z = z - segment.b.to(dtype)
    code, first, second = segment.term
    value = TERM_FUNCTIONS[code](z, first, second)
    if segment.weight is not None:
        weight = segment.weight.to(dtype)
        value = torch.where(weight == 0, 0.0, weight * value)  # a masked inf is not NaN
    return value.mean()


def segment_statistics(a: Tensor) -> Tensor:
    """[4]: mean, standard deviation, mean sign and non-finite count of a segment."""
    x = a.detach().to(compute_dtype(a.dtype))
    signs = (x > 0).to(x.dtype) - (x < 0).to(x.dtype)
    nonfinite = x.isfinite().logical_not().sum().to(x.dtype)
    return torch.stack([x.mean(), (x - x.mean()).square().mean().sqrt(), signs.mean(), nonfinite])


def multi_tensor_loss(segments: Sequence[Segment], with_statistics: bool = False) -> LossOutputs:
    """Sum of ``scale * mean(weight * term(a - b))``; see :mod:`ganloss_fast.terms`."""
    dtype = torch.float32
    for segment in segments:
        dtype = torch.promote_types(dtype, compute_dtype(segment.a.dtype))
    values = torch.stack([segment_value(segment).to(dtype) for segment in segments])
    total = sum(segment.scale * value for segment, value in zip(segments, values.unbind()))
    if with_statistics:
        rows = [segment_statistics(segment.a).to(dtype) for segment in segments]
        statistics = torch.stack(rows)
    else:
        statistics = values.new_empty((0, 4))
    return LossOutputs(total, values, statistics)


def lerp(real: Tensor, fake: Tensor, alpha: Tensor) -> Tensor:
    """``fake + alpha (real - fake)``, exact at alpha 0 and 1; alpha is 0-d, [B] or full."""
    dtype = compute_dtype(real.dtype)
    if alpha.dim() == 1:
        alpha = alpha.reshape(-1, *[1] * (real.dim() - 1))
    return torch.lerp(fake.to(dtype), real.to(dtype), alpha.to(dtype)).to(real.dtype)


PENALTY_MODES = ("two_sided", "one_sided")


def sample_norms(gradient: Tensor) -> Tensor:
    """[B]: the 2-norm of every sample, with derivatives 0 where it is 0."""
    g = gradient.to(compute_dtype(gradient.dtype)).flatten(1) if gradient.dim() > 1 else gradient
    squared_norms = g.square().sum(1) if gradient.dim() > 1 else g.square()
    is_zero = squared_norms == 0
    return torch.where(is_zero, 0.0, torch.where(is_zero, 1.0, squared_norms).sqrt())


def gradient_penalty_loss(
    gradient: Tensor, mode: str, target: float, scale: float
) -> tuple[Tensor, Tensor]:
    """``scale * mean_i (n_i - target)^2`` (two-sided) or of ``max(0, n_i - target)^2``."""
    norms = sample_norms(gradient)
    excess = norms - target
    if mode == "one_sided":
        excess = torch.where(excess <= 0, 0.0, excess)
    # A sample with norm 0 adds its penalty and no gradient.
    return scale * excess.square().mean(), norms.detach()
