"""What a workload is: contenders that do the same work, by name.

A workload's ``build`` takes a device and gives its contenders: functions without arguments that
do the work once and return the tensors (value and gradients) by which they are compared.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from ganloss_fast._torch import tree_leaves
from ganloss_fast.backends import use_backend

OURS = "ganloss_fast"
EAGER = "eager"  # as people write it
COMPILE = "torch.compile"
BUILT_IN = "F.mse_loss"  # the cheapest loss that PyTorch has; computes something else
REFERENCE = "ganloss_fast, reference"  # ours in plain PyTorch, where no kernel serves
DROP_IN = "compat alone"  # one changed import, nothing else
HELPERS = "compat and step helpers"
ALL = "every contender"  # of a workload that was not even built
BASELINES = (EAGER, COMPILE, BUILT_IN)

# How often a forward and a backward must go over their inputs, at the least.
LOSS_PASSES = 2  # over both sides: read, and gradients written along the way
MATCHING_PASSES = 3  # over one side: both read, the gradient of one written along the way

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
    tolerance: float = 1e-4  # of values and gradients; the eager norm of long rows errs by 1e-5
    threads: int | None = None  # of this one alone, whatever --threads says


def differentiated(function: Callable[..., Tensor], inputs: Inputs) -> Contender:
    """The forward pass, and the backward pass to the inputs that require a gradient."""
    leaves = [tensor for tensor in tree_leaves(list(inputs)) if tensor.requires_grad]

    def work() -> Sequence[Tensor]:
        value = function(*inputs)
        if not leaves:
            return [value]
        return [value, *torch.autograd.grad(value, leaves)]

    return work


def on_reference(work: Contender) -> Contender:
    """The same without any kernel of ours."""

    def reference() -> Sequence[Tensor]:
        with use_backend("reference"):
            return work()

    return reference


def contenders(
    inputs: Inputs,
    ours: Callable[..., Tensor],
    eager: Callable[..., Tensor],
    compilable: Callable[..., Tensor] | None = None,
    built_in: Callable[..., Tensor] | None = None,
) -> dict[str, Contender]:
    """The same inputs for everybody. ``compilable`` is eager where compile would break it."""
    compiled = torch.compile(compilable or eager, dynamic=False)
    functions = {OURS: ours, EAGER: eager, COMPILE: compiled}
    if built_in is not None:
        functions[BUILT_IN] = built_in
    found = {name: differentiated(function, inputs) for name, function in functions.items()}
    found[REFERENCE] = on_reference(found[OURS])
    return found


def sizes(shapes: Sequence[Sequence[int]]) -> str:
    """[(8, 1), (3, 5)] as 8x1, 3x5; a long list by its first and its number."""
    texts = ["x".join(map(str, shape)) for shape in shapes]
    if len(texts) > 8:
        return f"{len(texts)} tensors: {texts[0]} ... {texts[-1]}"
    return ", ".join(texts)


def elements(shapes: Sequence[Sequence[int]]) -> int:
    return sum(torch.Size(shape).numel() for shape in shapes)
