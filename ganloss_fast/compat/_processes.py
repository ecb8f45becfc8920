"""The other processes of a training, where a codebase averages over them without being asked."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import Module

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup


def world() -> ProcessGroup | None:
    """All processes, if there are others."""
    distributed = torch.distributed
    if not (distributed.is_available() and distributed.is_initialized()):
        return None
    return distributed.group.WORLD if distributed.get_world_size() > 1 else None


def broadcast(module: Module) -> None:
    """Parameters and buffers of the first process, to all."""
    group = world()
    if group is not None:
        for tensor in (*module.parameters(), *module.buffers()):
            torch.distributed.broadcast(tensor.data, src=0, group=group)


def mean_over_processes(value: Tensor) -> Tensor:
    """The mean of a value over all processes. A gradient flows to this process's share of it, as
    where a codebase reduces a tensor in place: autograd does not see the others."""
    group = world()
    if group is None:
        return value
    own = value.detach()
    total = own.clone()
    torch.distributed.all_reduce(total, group=group)
    return (total + (value - own)) / group.size()


def average_over_processes(tensors: Iterable[Tensor | None]) -> None:
    """In place; what is not floating point, or missing, stays as it is."""
    group = world()
    if group is not None:
        for tensor in tensors:
            if tensor is not None and tensor.is_floating_point():
                torch.distributed.all_reduce(tensor.data, group=group)
                tensor.data /= group.size()
