"""Are the outputs of two runs of a critic alike, up to rounding? Batches of other sizes run other
kernels."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ganloss_fast.ops.terms import autocast_dtype
from ganloss_fast.penalties.critic.leaf_gradients import leaves_of


def tolerance_of(outputs: Sequence[Tensor], samples: Sequence[Tensor]) -> float:
    """Relative: the root of the coarsest rounding on the way from samples to outputs."""
    device = samples[0].device
    dtypes = {t.dtype for t in (*outputs, *samples, *leaves_of(outputs))}
    autocast = autocast_dtype(device)
    if autocast is not None:
        dtypes.add(autocast)
    coarsest = max(torch.finfo(dtype).eps for dtype in dtypes if dtype.is_floating_point)
    if device.type == "cuda" and coarsest < 1e-3 and torch.float64 not in dtypes:
        coarsest = 2.0**-10  # TF32
    tolerance: float = coarsest**0.5
    return tolerance


def differ(a: Tensor, b: Tensor, tolerance: float) -> bool:
    """By more than the tolerance, as a part of the largest entry. Waits for the device."""
    a, b = a.detach().double(), b.detach().double()
    if a.numel() == 0:
        return False
    return bool((a - b).abs().nan_to_num(0.0).max() > tolerance * a.abs().nan_to_num(0.0).max())
