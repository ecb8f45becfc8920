"""Runs the ops of CPU tensors on a GPU, so that the tests of the ops run there as they are.

with OnDevice(native_kernel):
    loss = ganloss_fast.discriminator_loss(real, fake, "hinge")
    loss.backward()
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_any, tree_map_only

from ganloss_fast import backends

BACKENDS = ("native", "triton")


def why_not(backend: str) -> str | None:
    """The reason why the kernels of a backend cannot run on a GPU here, or None."""
    if not torch.cuda.is_available():
        return "no GPU: torch.cuda.is_available() is False"
    if not backends.HAS_NATIVE:
        return f"the ops are not registered: {backends.NATIVE_MISSING}"
    return backends.why_not(backend, "cuda")


def native_kernel(name: str) -> Callable:
    return getattr(torch.ops.ganloss_fast, name).default


def triton_kernel(name: str) -> Callable:
    from ganloss_fast.ops.triton import launchers

    return getattr(launchers, name)


KERNELS = {"native": native_kernel, "triton": triton_kernel}


def moved(tensor: Tensor, device: str) -> Tensor:
    """A copy with the strides, the offset and the negative bit of the original."""
    storage = tensor.untyped_storage().to(device=device).clone()
    copy = torch.empty(0, dtype=tensor.dtype, device=device).set_(
        storage, tensor.storage_offset(), tensor.size(), tensor.stride()
    )
    return torch._neg_view(copy) if tensor.is_neg() else copy


class OnDevice(TorchDispatchMode):
    """Inside the block, ops take copies of their arguments on a device to ``kernel(name)``.

    Autograd lies above, so graphs, double backward and the public functions take their usual way.
    """

    def __init__(self, kernel: Callable[[str], Callable], device: str = "cuda") -> None:
        super().__init__()
        self.kernel = kernel
        self.device = device
        self.launched = 0  # ops that ran on the device

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if function.namespace != "ganloss_fast" or tree_any(_is_fake, (args, kwargs)):
            return function(*args, **kwargs)
        given = {a.name: value for a, value in zip(function._schema.arguments, args)} | kwargs
        arguments = [given[a.name] for a in function._schema.arguments]
        there = tree_map_only(Tensor, lambda t: moved(t, self.device), arguments)
        results = self.kernel(function.name().removeprefix("ganloss_fast::"))(*there)
        self.launched += 1
        return tree_map_only(Tensor, lambda t: moved(t, "cpu"), results)


def _is_fake(value: object) -> bool:
    return isinstance(value, FakeTensor)
