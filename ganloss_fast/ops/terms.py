"""The one idea of the package: every logit loss is a short list of weighted means.

.. math:: total = \\sum_s scale_s \\cdot mean( w_s \\cdot \\phi_s(a_s - b_s) )

A :class:`Segment` is one summand and a :class:`Term` is its :math:`\\phi`. Losses build
segments, :func:`ganloss_fast.ops.multi_tensor_loss` computes them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

# ---- formulas ----------------------------------------------------------------------------------
#
# phi(z) with its two parameters, in plain PyTorch; z is float32 or float64. The same formulas
# stand in csrc/math/terms.h for C++ and in triton/terms.py.


def _softplus(z: Tensor, sign: float, _: float) -> Tensor:
    """log(1 + exp(sign z)). Above its threshold F.softplus is the identity: 20, its default, is
    too early for float64; from 40 on the difference is below the last bit."""
    return torch.nn.functional.softplus(sign * z, threshold=40)


def _hinge(z: Tensor, sign: float, margin: float) -> Tensor:
    """max(0, margin - sign z)."""
    return torch.relu(margin - sign * z)


def _squared(z: Tensor, center: float, _: float) -> Tensor:
    """(z - center)^2. As a product: square's backward doubles z - center before it scales it."""
    return (z - center) * (z - center)


def _linear(z: Tensor, _: float, __: float) -> Tensor:
    """z."""
    return z


def _absolute(z: Tensor, _: float, __: float) -> Tensor:
    """|z|."""
    return z.abs()


# A term's code is its place here. The rows stand in csrc/math/terms.h (GANLOSS_FOR_EACH_TERM) and
# in triton/terms.py too, in this order; tests compare them.
TERM_FUNCTIONS: dict[str, Callable[[Tensor, float, float], Tensor]] = {
    "softplus": _softplus,
    "hinge": _hinge,
    "squared": _squared,
    "linear": _linear,
    "abs": _absolute,
}
TERM_NAMES = tuple(TERM_FUNCTIONS)


# ---- terms as losses write them ----------------------------------------------------------------


class Term(NamedTuple):
    """An elementwise function: its code and up to two parameters."""

    code: int
    first: float = 0.0
    second: float = 0.0


def softplus(sign: float) -> Term:
    """``log(1 + exp(sign * z))``: BCE for target 1 (sign -1) and target 0 (sign +1)."""
    return Term(0, sign)


def hinge(sign: float, margin: float) -> Term:
    """``max(0, margin - sign * z)``, slope 0 at the kink."""
    return Term(1, sign, margin)


def squared(center: float) -> Term:
    """``(z - center)^2``."""
    return Term(2, center)


LINEAR = Term(3)
ABSOLUTE = Term(4)


class Segment(NamedTuple):
    """``scale * mean(weight * term(a - b))``.

    ``a`` has any shape; ``b`` is absent, shaped like ``a``, or 0-d; ``weight`` is absent or
    shaped like ``a``, and no gradient flows to it.
    """

    a: Tensor
    term: Term
    scale: float = 1.0
    b: Tensor | None = None
    weight: Tensor | None = None


Summands = tuple[tuple[Term, float], ...]
"""``sum factor * mean(term(logits))``, over the pairs of a term and its factor."""

SideOfLoss = tuple[Tensor | Sequence[Tensor], Summands | None, float]
"""Logits of one or many outputs, the summands of each, and a factor of all of them: a shorter way
to write segments that have nothing but ``a``."""

HAS_B, HAS_WEIGHT = 1, 2  # the bits of SegmentLists.operands


class SegmentLists(NamedTuple):
    """S segments as the schemas take them (``GANLOSS_SEGMENT_SCHEMA`` in csrc/schemas.h)."""

    a: Sequence[Tensor]  # [S]
    b: Sequence[Tensor]  # of the segments that have one
    weights: Sequence[Tensor]  # of the segments that have one
    operands: Sequence[int]  # [S]
    terms: Sequence[int]  # [S] codes
    parameters: Sequence[float]  # [2 S]
    scale: Sequence[float]  # [S]

    @property
    def differentiable(self) -> int:
        """How many of the tensors a ++ b ++ weights may have a gradient: the first."""
        return len(self.operands) + sum(bool(taken & HAS_B) for taken in self.operands)

    def without_tensors(self) -> SegmentLists:
        return self._replace(a=(), b=(), weights=())

    def with_tensors(self, tensors: Sequence[Tensor]) -> SegmentLists:
        """The lists again, from the tensors a ++ b ++ weights."""
        count, differentiable = len(self.operands), self.differentiable
        return self._replace(
            a=list(tensors[:count]),
            b=list(tensors[count:differentiable]),
            weights=list(tensors[differentiable:]),
        )


class LossOutputs(NamedTuple):
    """What ``multi_tensor_loss`` gives for S segments; float32, or float64 if a segment is."""

    total: Tensor  # []
    values: Tensor  # [S], unscaled means; differentiable
    statistics: Tensor  # [S, 4] mean, standard deviation, mean sign, non-finite count of a;
    # [0, 4] unless asked for; detached


# ---- dtypes ------------------------------------------------------------------------------------


def compute_dtype(dtype: torch.dtype) -> torch.dtype:
    """float64 is computed in float64, everything else in float32."""
    return torch.float64 if dtype == torch.float64 else torch.float32


def autocast_dtype(device: torch.device) -> torch.dtype | None:
    """What autocast computes in on a device; None without it."""
    # torch raises for the meta device, and Dynamo of 2.11 cannot ask where there is an autocast.
    if device.type == "meta" or not torch.is_autocast_enabled(device.type):
        return None
    return torch.get_autocast_dtype(device.type)


def result_dtype(tensors: Iterable[Tensor]) -> torch.dtype:
    """Of what is summed over several tensors: float64 if one of them is, else float32."""
    return torch.float64 if any(t.dtype == torch.float64 for t in tensors) else torch.float32
