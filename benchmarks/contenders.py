"""What a workload is: contenders that do the same work, by name.

A workload's ``build`` takes a device and gives its contenders: functions without arguments that
do the work once and return the tensors (value and gradients) by which they are compared.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

OURS = "ganloss_fast"
EAGER = "eager"
COMPILE = "torch.compile"
BUILT_IN = "F.mse_loss"  # the cheapest loss that PyTorch has; computes something else
BASELINES = (EAGER, COMPILE, BUILT_IN)

Contender = Callable[[], Sequence[Tensor]]
Inputs = Sequence[Tensor | Sequence[Tensor]]


@dataclass(frozen=True)
class Workload:
    """One row of the table."""

    name: str
    section: str
    build: Callable[[torch.device], dict[str, Contender]]
    floors: Mapping[str, float] = field(default_factory=dict)  # baseline -> least speed-up
