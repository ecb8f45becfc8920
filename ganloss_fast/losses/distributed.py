"""Means over the processes of a group, through which gradients flow."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ganloss_fast._torch import traces_autograd_calls
from ganloss_fast.checks import describe

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup


class _MeanOverRanks(torch.autograd.Function):
    """Averages a tensor over all ranks. The map is symmetric: its gradient is averaged alike."""

    @staticmethod
    def forward(values: Tensor, group: ProcessGroup) -> Tensor:
        total = values.clone()
        torch.distributed.all_reduce(total, group=group)
        return total / group.size()

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, ProcessGroup], output: Tensor) -> None:
        ctx.group = inputs[1]

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return mean_over_ranks(gradient, ctx.group), None


def mean_over_ranks(values: Tensor, group: ProcessGroup) -> Tensor:
    """The mean of ``values`` over the ranks of ``group``, in one collective each way."""
    if torch.compiler.is_compiling() and traces_autograd_calls():
        # Dynamo would drop the second-order term of a Python function, and say nothing.
        raise RuntimeError(
            "process_group: a loss over processes cannot be compiled with "
            "torch._dynamo.config.trace_autograd_ops, which loses gradients of its gradient. "
            "Call backward() outside of the compiled function, and leave the option off."
        )
    mean: Tensor = _MeanOverRanks.apply(values, group)
    return mean


def check_process_group(group: object) -> None:
    distributed = torch.distributed
    if not (distributed.is_available() and isinstance(group, distributed.ProcessGroup)):
        raise TypeError(
            "process_group: expected a torch.distributed.ProcessGroup such as "
            f"torch.distributed.group.WORLD, got {describe(group)}."
        )
