"""Wrappers under which a penalty would lose gradients without a word: FSDP, and DDP's static
graph. They are found and refused.

FSDP gathers a module's parameters when it runs and gives their gradients on when the backward
leaves it. A penalty's inner gradient leaves it first, so that the step's backward comes too late;
and the gradients of a penalty in slices never pass by. A static graph of
``DistributedDataParallel`` expects each gradient once a step, and does not average what the
penalty sends after the inner gradient.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import Module
from torch.nn.parallel import DistributedDataParallel

from ganloss_fast.graph_cut.rows import walk

_SHARDED = (
    "critic: it is sharded by FSDP, which cannot be differentiated twice: gradients of the penalty "
    "would be lost. Use approximate_r1_penalty, without chunk_size, or DistributedDataParallel."
)
_SHARDED_SLICES = (
    "chunk_size: the critic is sharded by FSDP, to which the gradients of slices do not come back. "
    "Compute approximate_r1_penalty in one piece; exact penalties need DistributedDataParallel."
)
_STATIC = (
    "critic: a gradient penalty in DistributedDataParallel(static_graph=True) would go without the "
    "average over the processes. Leave static_graph out."
)


class WrappedCriticError(RuntimeError):
    """A penalty on this critic would lose gradients."""


def is_sharded(module: Module) -> bool:
    """By FSDP, of either generation."""
    fsdp = sys.modules.get("torch.distributed.fsdp")  # without it, nothing is
    if fsdp is None:
        return False
    return isinstance(module, (fsdp.FSDPModule, fsdp.FullyShardedDataParallel))


def refuse_wrapper(module: Module) -> None:
    """For a penalty in one piece, of a module that is about to run."""
    if is_sharded(module):
        raise WrappedCriticError(_SHARDED)
    if isinstance(module, DistributedDataParallel) and module.static_graph:
        raise WrappedCriticError(_STATIC)


def refuse_wrapper_in_slices(module: Module) -> None:
    if is_sharded(module):
        raise WrappedCriticError(_SHARDED_SLICES)
    refuse_wrapper(module)


def refuse_wrapped_graph(logits: Sequence[Tensor], points: Sequence[Tensor]) -> None:
    """The same of logits that are there already, as far as their graph shows it: that from
    ``points`` on, which may come from a sharded generator. Costs nothing where there is no
    process group."""
    distributed = torch.distributed
    if not (distributed.is_available() and distributed.is_initialized()):
        return
    behind = {point.grad_fn for point in points}
    for node in walk([logit.grad_fn for logit in logits], behind):
        name = node.name()
        is_flat = getattr(getattr(node, "variable", None), "_is_flat_param", False)
        if is_flat or name == "RegisterPostBackwardFunctionBackward":
            raise WrappedCriticError(_SHARDED)
        # DDP's, of find_unused_parameters too.
        if name == "_DDPSinkBackward" and node.ddp_weakref().static_graph:
            raise WrappedCriticError(_STATIC)
