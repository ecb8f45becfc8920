"""Whether contenders compute the same: how far their results lie apart, and in words where they
cannot be compared at all."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor


def distance(expected: Sequence[Tensor], found: Sequence[Tensor]) -> float:
    """Largest relative distance of what was found; infinite where the two are not alike: in how
    many tensors there are, in a shape, in where a value is NaN or infinite."""
    if _mismatch(expected, found) is not None:
        return math.inf
    return max(map(_relative, expected, found), default=0.0)


def disagreement(
    expected: Sequence[Tensor], found: Sequence[Tensor], tolerance: float
) -> tuple[float, str | None]:
    """The distance, and where it is beyond the tolerance how they differ: by how much, in what."""
    mismatch = _mismatch(expected, found)
    if mismatch is not None:
        return math.inf, mismatch
    apart = distance(expected, found)
    if apart <= tolerance:
        return apart, None
    if math.isfinite(apart):
        return apart, f"by {apart:.1e}"
    return apart, "in where values are NaN or infinite"


def _mismatch(expected: Sequence[Tensor], found: Sequence[Tensor]) -> str | None:
    if len(expected) != len(found):
        return f"in number: {len(found)} instead of {len(expected)} tensors"
    for number, (one, other) in enumerate(zip(expected, found), 1):
        if one.shape != other.shape:
            shapes = f"{list(other.shape)} instead of {list(one.shape)}"
            return f"in shape: {shapes}, tensor {number} of {len(expected)}"
    return None


def _relative(expected: Tensor, found: Tensor) -> float:
    a, b = expected.detach().double(), found.detach().double()
    finite = torch.isfinite(a)
    if not bool(finite.all()):  # rare: what is alike there counts as equal
        alike = ((a == b) & ~finite) | (a.isnan() & b.isnan())
        a, b = (side.masked_fill(alike, 0.0) for side in (a, b))
    apart = float(torch.linalg.vector_norm(b - a))
    size = float(torch.linalg.vector_norm(a))
    if not math.isfinite(apart):  # and max() would pass over a NaN
        return math.inf
    return apart / max(size, 1e-30)
