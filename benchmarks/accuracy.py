"""How exact the native softplus and sigmoid are, in units in the last place of float32."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F

from ganloss_fast import ops
from ganloss_fast.ops import terms
from ganloss_fast.ops.terms import Segment

FLOOR_ULP = 4.0
SEGMENTS = 512  # of one element each: a mean of one is the function itself


@dataclass(frozen=True)
class Accuracy:
    """Largest errors over the points, in ulp."""

    function: str
    ours: float
    torch: float


def points() -> torch.Tensor:
    """[N] float32 in [-1e4, 1e4], most of them where the functions bend."""
    pieces = [
        torch.linspace(-1e4, 1e4, 8192),
        torch.linspace(-110.0, 110.0, 32768),
        torch.linspace(-4.0, 4.0, 16384),
        torch.logspace(-30, 4, 4096),
        -torch.logspace(-30, 4, 4096),
    ]
    return torch.cat(pieces)


def _ours(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """softplus and its slope through the op that every loss uses."""
    values: list[torch.Tensor] = []
    slopes: list[torch.Tensor] = []
    for chunk in x.split(SEGMENTS):
        elements = [element.clone().requires_grad_() for element in chunk]
        result = ops.multi_tensor_loss([Segment(e, terms.softplus(1.0)) for e in elements]).values
        slopes.extend(torch.autograd.grad(result.sum(), elements))
        values.append(result.detach())
    return torch.cat(values), torch.stack(slopes)


def _ulp(found: torch.Tensor, truth: np.ndarray) -> float:
    spacing = np.spacing(truth.astype(np.float32)).astype(np.float64)
    return float(np.max(np.abs(found.double().numpy() - truth) / spacing))


def measure() -> list[Accuracy]:
    x = points()
    softplus, sigmoid = _ours(x)
    wide = x.double()
    softplus_truth = np.logaddexp(0.0, wide.numpy())
    sigmoid_truth = torch.sigmoid(wide).numpy()
    return [
        Accuracy("softplus", _ulp(softplus, softplus_truth), _ulp(F.softplus(x), softplus_truth)),
        Accuracy("sigmoid", _ulp(sigmoid, sigmoid_truth), _ulp(torch.sigmoid(x), sigmoid_truth)),
    ]
