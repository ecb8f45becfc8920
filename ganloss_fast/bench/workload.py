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
EAGER = "eager"  # as people write it
COMPILE = "torch.compile"
BUILT_IN = "F.mse_loss"  # the cheapest loss that PyTorch has; computes something else
REFERENCE = "ganloss_fast, reference"  # ours in plain PyTorch, where no kernel serves
DROP_IN = "compat alone"  # one changed import, nothing else
HELPERS = "compat and step helpers"
BASELINES = (EAGER, COMPILE, BUILT_IN)

# How often a forward and a backward must go over their inputs, at the least.
LOSS_PASSES = 3  # over both sides: read; read again, and gradients written
MATCHING_PASSES = 5  # over one side: both read, both read again, the gradient of one written

FORWARD = "forward"
BOTH = "forward + backward"

Contender = Callable[[], Sequence[Tensor]]
Inputs = Sequence[Tensor | Sequence[Tensor]]


@dataclass(frozen=True)
class Curve:
    """A line of a plot that a workload is one point of."""

    name: str  # of the plot, and what its axis counts
    axis: str
    at: int


@dataclass(frozen=True)
class Workload:
    """One row of the table."""

    name: str
    section: str
    build: Callable[[torch.device], Mapping[str, Contender]]
    floors: Mapping[str, float] = field(default_factory=dict)  # baseline -> least speed-up
    shapes: str = ""  # of the inputs, as people write them
    dtype: str = "float32"
    direction: str = BOTH
    bytes: int | None = None  # the least that any implementation must read and write
    source: str = ""  # the codebase, or the paper, whose sizes these are
    quick: bool = False  # small enough for --quick
    curve: Curve | None = None
    needs: Mapping[str, int] = field(default_factory=dict)  # contender -> bytes, if that is much
